"""What belongs to a task beside its id: where it is polled, and what a program attached."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

import msgspec

from veo3_async._errors import InvalidRequest

__all__ = ["METADATA_BYTES", "Origin", "metadata_from_json", "metadata_json"]

METADATA_BYTES: Final = 16 * 1024
"""What the JSON of it may take, in UTF-8."""


def metadata_json(metadata: object) -> str | None:
    """Return the JSON of what a program attaches to a task; None for None.

    What comes back is what JSON makes of it: tuples become lists, keys become text.

    :raises InvalidRequest: It cannot be JSON, or takes more than 16 kB.
    """
    if metadata is None:
        return None
    try:
        text = json.dumps(metadata, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        message = f"metadata is whatever JSON can say, and this it cannot: {error}"
        raise InvalidRequest(message) from None
    data = text.encode(errors="backslashreplace")  # of a lone surrogate it makes JSON's own escape
    if len(data) > METADATA_BYTES:
        message = (
            f"metadata may take {METADATA_BYTES:,} bytes of JSON, and this takes {len(data):,}; "
            "keep it elsewhere and attach its key"
        )
        raise InvalidRequest(message)
    return data.decode()


def metadata_from_json(text: str | None) -> Any:  # noqa: ANN401 - anything that JSON can say
    """Return what `metadata_json` made text of; None for None.

    :raises ValueError: It is no JSON.
    """
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)  # ten times as fast, which 100,000 tasks notice
    except msgspec.MsgspecError:
        return json.loads(text)  # also of what only JavaScript and Python take: half a surrogate


class Origin(NamedTuple):
    """Where a task was submitted, which is where it is polled, and what belongs to it."""

    family: str | None = None
    """Which of the service's protocols it speaks; None where that is not known."""
    path: str | None = None
    """The path it was submitted to; None where that is not known."""
    metadata: Any = None
    """What the program attached to it, as JSON has it; None where nothing was."""
    was_seen: bool = False
    """Whether a state of it was ever seen."""
    http_request_id: str | None = None
    """The service's id of the HTTP request that submitted it, for its cost; None: not known."""
