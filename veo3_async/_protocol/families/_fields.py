"""Fields of a reply as values: what converts is converted, what does not is kept as it came.

Servers write numbers as text and text as numbers, times in seconds and in milliseconds, a URL as
a list or an object. One field of a surprising type must not cost the video that stands beside it.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec

__all__ = [
    "MAX_WHOLE",
    "SECONDS_BELOW",
    "Rules",
    "build",
    "flag",
    "is_url",
    "milliseconds",
    "rules_of",
    "text",
    "url_or_none",
    "video_url",
    "whole",
]

MAX_WHOLE: Final = 2**53 - 1
"""Beyond it a number is not even read alike by all (RFC 8259, 6)."""

SECONDS_BELOW: Final = 10**11
"""What is below it and a time is in seconds: in milliseconds it would be of 1973."""

_WHOLE: Final = Annotated[int, msgspec.Meta(ge=0, le=MAX_WHOLE)] | None
_URL: Final = re.compile(r"https?://[^/?#\s]", re.IGNORECASE)
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d")

_UNREADABLE: Final = (
    msgspec.ValidationError,
    TypeError,
    ValueError,
    OverflowError,
    RecursionError,
)

Convert: TypeAlias = Callable[[Any], object]
Rules: TypeAlias = Mapping[str, tuple[str, Convert]]
"""For each name on the wire the attribute and what reads it; None means that it is absent."""

_T = TypeVar("_T", bound=msgspec.Struct)


def build(cls: type[_T], rules: Rules, content: Mapping[str, Any]) -> _T:
    """Return a value of what converts; all else, and what had another shape, is in ``extra``."""
    fields: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in content.items():
        if (rule := rules.get(name)) is None:
            extra[name] = value
        elif value is not None:
            attribute, convert = rule
            try:
                read = convert(value)
            except _UNREADABLE:
                extra[name] = value
                continue
            if read is not None:
                fields[attribute] = read
            if isinstance(value, dict | list) and isinstance(read, str):
                extra[name] = value
    return cls(**fields, extra=extra)


def rules_of(
    cls: type[msgspec.Struct], special: Mapping[str, Convert], *, ours: frozenset[str]
) -> Rules:
    """Return how the fields of a struct are read: by their types, but for the special ones.

    :param ours: Fields that no reply has.
    """
    return {
        field.encode_name: (field.name, special.get(field.name) or _BY_TYPE[field.type])
        for field in msgspec.structs.fields(cls)
        if field.name not in ours
    }


def text(value: object) -> str | None:
    """Return a text, None for an empty one; a number becomes one.

    :raises TypeError: It is neither.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    written = str(value)
    return written if written.strip() else None


def flag(value: object) -> bool | None:
    """Return what is meant by true, 1 or "true"; None for an empty text.

    :raises ValueError: It is no such thing.
    """
    return None if value == "" else msgspec.convert(value, bool, strict=False)


def whole(value: object) -> int | None:
    """Return a count, also one that is written as text; None for an empty one.

    :raises ValueError: It is none from 0 to 2^53 - 1.
    """
    return None if value == "" else msgspec.convert(value, _WHOLE, strict=False)


def milliseconds(value: object) -> int | None:
    """Return a time in milliseconds since the epoch; None where it is 0 or empty.

    It may be in seconds, in milliseconds, written as text, or by ISO 8601.

    :raises ValueError: It is no time.
    """
    if isinstance(value, str):
        if not value.strip() or value == "null":
            return None
        value = _moment(value) if _MOMENT.match(value) else _number(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    time = value * 1000 if value < SECONDS_BELOW else value
    if not 0 <= time <= MAX_WHOLE:
        raise ValueError
    return int(time) or None


def _number(value: str) -> float:
    return float(value) if "." in value else int(value)


def _moment(value: str) -> float:
    moment = datetime.datetime.fromisoformat(value)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.timestamp()


def video_url(value: object) -> str | None:
    """Return a URL: a text, the first of a list, or what an object has as ``url``.

    "The URL decides" that a task is done, so what is none must not: "", "null", "pending".

    :raises ValueError: What is there is none.
    :raises TypeError: It has another shape.
    """
    if isinstance(value, dict):
        value = value.get("url")
    if isinstance(value, list):
        value = next((url for item in value if (url := url_or_none(item))), None)
    if not isinstance(value, str):
        raise TypeError
    url = value.strip()
    if url.startswith("//"):
        url = f"https:{url}"
    if url and not is_url(url):
        raise ValueError
    return url or None


def is_url(text: str) -> bool:
    """Return whether a text is an absolute http(s) URL."""
    return _URL.match(text) is not None


def url_or_none(item: object) -> str | None:
    """Return the URL that a value holds in any shape, None where it holds none."""
    try:
        return video_url(item)
    except _UNREADABLE:
        return None


_BY_TYPE: Final[dict[object, Convert]] = {
    str: text,
    str | None: text,
    bool | None: flag,
    int | None: whole,
}
