"""Where a task is posted and polled."""

from __future__ import annotations

import functools
import re
import urllib.parse
from typing import Final

import msgspec

from veo3_async._protocol.http import Call

__all__ = ["Route", "call_for_id"]

_PLAIN: Final = re.compile(r"[A-Za-z0-9._~:-]*")  # nothing to quote: as every id so far


class Route(msgspec.Struct, frozen=True, gc=False):
    """The endpoint of one task; it travels with the id, for the id alone does not tell it."""

    family: str
    """Name of the family of endpoints, such as ``record``."""
    path: str
    """Path that the task was posted to, such as ``/302/submit/veo3-pro``."""
    model: str = ""
    """Model that is asked for at that path, or empty where the path names it."""


@functools.lru_cache(maxsize=1024)
def call_for_id(before: str, request_id: str) -> Call:
    """Return a GET with an id at the end of its path or query.

    The ``:`` of an id is legal in both and goes out as it is; all else that is not unreserved
    (RFC 3986) is percent-encoded, so any id arrives exactly.
    """
    if request_id in {".", ".."}:  # of a path they would be parts that mean another path
        request_id = request_id.replace(".", "%2E")
    elif not _PLAIN.fullmatch(request_id):
        request_id = urllib.parse.quote(request_id, safe=":")
    return Call("GET", before + request_id)
