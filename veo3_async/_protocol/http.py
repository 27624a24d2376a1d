"""HTTP without I/O: requests and replies as values, dates, ``Retry-After``, decompression."""

from __future__ import annotations

import datetime
import email.utils
import functools
import pathlib
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

__all__ = ["MAX_BODY_BYTES", "Call", "Reply", "http_date", "inflated", "server_time"]

MAX_BODY_BYTES: Final = 1 << 20
"""A task is about 2 kB; a reply over 1 MiB (decompressed) is not one."""

_MAX_MEMBERS: Final = 8
"""A gzip body may come in several members (RFC 1952, 2.2), and servers send one. Each costs a copy
of what follows it: the 52,428 empty ones that 1 MiB holds would stop the event loop for 0.7 s."""

_GZIP: Final = b"\x1f\x8b"
_IS_PLAIN: Final = re.compile(rb"\s*(?:[{\[<]|$)")
"""JSON, a page, or nothing: as no compressed body begins."""
_COMPRESSIONS: Final = frozenset({"gzip", "x-gzip", "br", "zstd", "compress", "x-compress"})

MAX_RETRY_AFTER: Final = 120.0


class Form(msgspec.Struct, frozen=True, gc=False):
    """A multipart form with one file in the field ``file``."""

    filename: str
    size: int
    """Bytes."""
    content: bytes | pathlib.Path
    """The file itself, or where it lies: then it is read while it is sent."""


class Call(msgspec.Struct, frozen=True, gc=False):
    """A request, complete but for the host and the key."""

    method: str
    """``GET`` or ``POST``."""
    target: str
    """Path and query, percent-encoded: sent as it is."""
    body: bytes | None = None
    """JSON, or None."""
    form: Form | None = None
    """A file to upload, or None."""


class Reply(msgspec.Struct, frozen=True, gc=False):
    """What came back, whole."""

    status: int
    """HTTP status."""
    headers: Mapping[str, str]
    """Response headers, case-insensitive."""
    body: bytes
    """Decompressed, at most `MAX_BODY_BYTES`."""
    close: Callable[[], object] | None = None
    """Closes the connection that it came on, which cannot be trusted; None where it has none."""


def inflated(body: bytes, encoding: str) -> bytes | None:
    """Return a body without its ``Content-Encoding``; its bytes say more than the label.

    A proxy may have compressed or unpacked it and left the label as it was. None where it would be
    larger than `MAX_BODY_BYTES`, which is found out without making it, or where it is not whole, in
    more parts than servers send, or compressed in a way that was not asked for.
    """
    if body.startswith(_GZIP):
        plain = _unpacked(body, zlib.MAX_WBITS | 16)
        twice = plain is not None and plain.startswith(_GZIP)  # by the origin and by a proxy
        return _unpacked(plain or b"", zlib.MAX_WBITS | 16) if twice else plain
    if not encoding:
        return body
    codings = {coding.strip() for coding in encoding.lower().split(",")}
    if "deflate" in codings and body:
        has_header = body[0] & 0x0F == zlib.DEFLATED  # which some servers leave out
        plain = _unpacked(body, zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        return body if plain is None and _IS_PLAIN.match(body) else plain
    return body if not codings & _COMPRESSIONS or _IS_PLAIN.match(body) else None


def _unpacked(body: bytes, wbits: int) -> bytes | None:
    plain = b""
    for _ in range(_MAX_MEMBERS):
        stream = zlib.decompressobj(wbits)
        try:
            plain += stream.decompress(body, MAX_BODY_BYTES + 1 - len(plain))
        except zlib.error:
            return None
        if not stream.eof or len(plain) > MAX_BODY_BYTES:
            return None
        body = stream.unused_data
        if not body:
            return plain
    return None


def retry_after_of(reply: Reply, wall_now: float) -> float | None:
    """Return the seconds that a reply asks to wait, at most 120; None where it does not say."""
    said = reply.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", said):
        return min(float(said), MAX_RETRY_AFTER)
    if (moment := http_date(said)) is None:
        return None
    # Both dates of one reply are of one clock; ours may be an hour off.
    served = server_time(reply)
    seconds = moment - (wall_now if served is None else served)
    return min(seconds, MAX_RETRY_AFTER) if seconds > 0 else None


def server_time(reply: Reply) -> float | None:
    """Return the ``Date`` of a reply, seconds since the epoch of the server's clock, or None."""
    return http_date(reply.headers.get("Date", ""))


@functools.lru_cache(maxsize=64)  # a thousand replies of one second have the same
def http_date(said: str) -> float | None:
    """Return seconds since the epoch of a date in any of the formats of RFC 9110, or None."""
    try:
        moment = email.utils.parsedate_to_datetime(said)
        if moment.tzinfo is None:  # asctime's format; all HTTP dates are of this zone
            moment = moment.replace(tzinfo=datetime.UTC)
        return moment.timestamp()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
