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

from veo3_async._protocol.parsing import opened

__all__ = [
    "MAX_WHOLE",
    "MICROSECONDS_FROM",
    "PLAIN_URL",
    "SECONDS_BELOW",
    "Rules",
    "build",
    "flag",
    "is_named",
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

MICROSECONDS_FROM: Final = 10**15
"""What is not below it and a time is in microseconds, or nanoseconds: in milliseconds it would be
of the year 33658."""

PLAIN_URL: Final = r"\Ahttps?://[^/?#\s,][^\s,]*\Z"
"""One http(s) URL, as servers usually write it."""

_YEAR_2100: Final = 4_102_444_800_000
"""Milliseconds; no time that is in smaller units is believed to be later."""

_WHOLE: Final = Annotated[int, msgspec.Meta(ge=0, le=MAX_WHOLE)] | None
_URL: Final = re.compile(r"https?://[^/?#\s]", re.IGNORECASE)
_NO_IDS: Final = frozenset({"", "0", "-1", "null", "none", "undefined"})
_URL_FIELDS: Final = ("url", "video_url", "download_url", "uri", "href", "src", "video")
_URL_DEPTH: Final = 3
"""How many lists and objects, one in the other, are looked through for a URL."""
_NEXT_URL: Final = re.compile(r"[\s,;|]+(?=https?://)")
"""What parts a URL from another one in the same text."""
_BARE_FILE: Final = re.compile(r"(?:[\w-]+\.)+[a-z]{2,}(?::\d+)?/\S+\.(?:mp4|webm|mov)(?:\?\S*)?")
"""A URL that lacks its scheme."""
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


def is_named(request_id: str) -> bool:
    """Return whether an id names a task: a refusal has none, 0 or the word for none."""
    return request_id.lower() not in _NO_IDS


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

    It may be in seconds, milliseconds, microseconds or nanoseconds, written as text, or by
    ISO 8601.

    :raises ValueError: It is no time.
    """
    if isinstance(value, str):
        if not value.strip() or value == "null":
            return None
        value = _moment(value) if _MOMENT.match(value) else _number(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    time = value * 1000 if value < SECONDS_BELOW else value
    if time >= MICROSECONDS_FROM:
        time = time / (1_000 if time < MICROSECONDS_FROM * 1_000 else 1_000_000)
        if time > _YEAR_2100:
            raise ValueError
    if time < 0:
        raise ValueError
    return int(time) or None


def _number(value: str) -> float:
    return float(value) if "." in value else int(value)


def _moment(value: str) -> float:
    moment = datetime.datetime.fromisoformat(value)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.timestamp()


def video_url(value: object, depth: int = _URL_DEPTH) -> str | None:
    """Return a URL: a text, the first of a list, or what an object has as ``url`` and the like.

    "The URL decides" that a task is done, so what is none must not: "", "null", "pending".

    :raises ValueError: What is there is none.
    :raises TypeError: It has another shape.
    """
    if isinstance(value, str):
        return _url_in_text(value, depth)
    if not isinstance(value, dict | list) or not depth:
        raise TypeError
    items = value if isinstance(value, list) else (value.get(name) for name in _URL_FIELDS)
    found = (url_or_none(item, depth - 1) for item in items)
    url = next((url for url in found if url), None)
    if url is None:
        raise TypeError
    return url


def _url_in_text(value: str, depth: int) -> str | None:
    inner = opened(value) if depth else value
    if inner is not value:
        return video_url(inner, depth - 1)
    text = value.strip().strip("\"'<>").strip()
    url = _NEXT_URL.split(text.replace("\\/", "/"), maxsplit=1)[0]
    if url.startswith("//") or _BARE_FILE.fullmatch(url):
        url = f"https://{url.removeprefix('//')}"
    if url and not _URL.match(url):
        raise ValueError
    return url.replace(" ", "%20") or None


def url_or_none(item: object, depth: int = _URL_DEPTH) -> str | None:
    """Return the URL that a value holds in any shape, None where it holds none."""
    try:
        return video_url(item, depth)
    except _UNREADABLE:
        return None


_BY_TYPE: Final[dict[object, Convert]] = {
    str: text,
    str | None: text,
    bool | None: flag,
    int | None: whole,
}
