"""What a reply to a download means for the bytes that are here. Pure: a reply in, a decision out.

A rest is asked for (``Range``) only with a strong validator (``If-Range``), and appended only
where the reply proves that it continues the same bytes; in every other case the download begins
again. So a file is never a mixture of two objects (RFC 9110, 13.1.5 and 15.3.7).
"""

from __future__ import annotations

import http
import re
from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from veo3_async._download.content import Proof, is_compressed
from veo3_async._protocol.errors import NO_CAPACITY, Kind, problem_of
from veo3_async._protocol.http import Reply, http_date

__all__ = [
    "Complete",
    "Decision",
    "LengthUnknown",
    "PartialContent",
    "Receive",
    "Redirect",
    "Refuse",
    "Restart",
    "Retry",
    "TryFreshUrl",
    "at_end",
    "decide",
    "is_usable",
    "range_headers",
    "resumable",
    "without_length",
]


class PartialContent(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the bytes that are here: the side record of a file."""

    url: str
    """Where they came from, before redirects."""
    done: int = 0
    """How many there are, from the first on."""
    total: int | None = None
    """How many the whole has, or None where the server did not say."""
    validator: str | None = None
    """What names exactly this object, as it is sent in ``If-Range``: a strong ETag or a
    Last-Modified; None where there is nothing that strong."""


class Receive(msgspec.Struct, frozen=True, kw_only=True):
    """The body is the object from ``start`` on; what is here from there on is void."""

    start: int
    total: int | None
    validator: str | None
    has_end: bool = False
    """Whether a body of unknown length says itself where it ends, as chunks do."""
    encoding: str = ""
    """Its ``Content-Encoding``."""


class Restart(msgspec.Struct, frozen=True):
    """The bytes that are here cannot be continued: ask again at once for the whole."""

    reason: str


class Complete(msgspec.Struct, frozen=True):
    """All bytes are here."""


class LengthUnknown(msgspec.Struct, frozen=True):
    """The body has ended, and nothing has said how long it must be: see `without_length`."""


class Redirect(msgspec.Struct, frozen=True):
    """The object is elsewhere."""

    location: str


class TryFreshUrl(msgspec.Struct, frozen=True, kw_only=True):
    """The URL does not give the video, it may have expired; a fresh one may."""

    reason: str
    status: int | None = None


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """A transient fault: ask again after a while, for what is missing."""

    reason: str
    kind: Kind
    status: int | None = None
    retry_after: float | None = None
    """Seconds that the server asks to wait, 0 to 120, or None."""
    anew: bool = False
    """Whether what has come is not to be trusted: ask for the whole."""


class Refuse(msgspec.Struct, frozen=True, kw_only=True):
    """Asking again would not help."""

    reason: str
    status: int | None = None
    discard: bool = False
    """Whether what has come is of no use."""


Decision: TypeAlias = (
    Receive | Restart | Complete | LengthUnknown | Redirect | TryFreshUrl | Retry | Refuse
)

_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e\x80-\xff]{0,512}"')
_WHOLE: Final = frozenset({200, 203})
"""203 is a 200 that a proxy has touched (RFC 9110, 15.3.4)."""
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TRANSIENT: Final = NO_CAPACITY | {Kind.SERVER}
_STRONG_AFTER: Final = 60.0
"""Seconds; a date distinguishes objects only if the object did not change in the minute of the
reply (RFC 7232, 2.2.2; RFC 9110 asks for a second and for judgement)."""


# --- what is here ---------------------------------------------------------------------------------


def is_usable(content: PartialContent, size: int) -> bool:
    """Return whether a record can be of a file of this size, and its validator a header."""
    validator, total = content.validator, content.total
    can_be_sent = validator is None or _STRONG_ETAG.fullmatch(validator) or _is_date(validator)
    return (
        0 < content.done <= size and (total is None or content.done <= total) and bool(can_be_sent)
    )


def resumable(content: PartialContent, url: str) -> PartialContent | None:
    """Return what can be continued from this URL, or None where it begins anew.

    A signed URL is signed anew when it has expired: where only the query differs, a strong ETag
    decides, and a date does not.
    """
    if not content.done:
        return None
    if content.url == url:
        return content if content.validator or content.done == content.total else None
    same_path = content.url.partition("?")[0] == url.partition("?")[0]
    return content if same_path and (content.validator or "").startswith('"') else None


def range_headers(content: PartialContent | None) -> dict[str, str]:
    """Return the headers that ask for what is missing; none where all is."""
    if content is None or content.validator is None:
        return {}
    return {"Range": f"bytes={content.done}-", "If-Range": content.validator}


# --- what a reply means ---------------------------------------------------------------------------


def decide(
    reply: Reply, content: PartialContent | None, *, max_bytes: int, wall_now: float
) -> Decision:
    """Say what a reply means for the bytes that are here. Total over any status and headers.

    :param reply: Status and headers; the body is not looked at.
    :param content: What the request asked to continue, or None where it asked for the whole.
    :param max_bytes: The largest video that is wanted.
    :param wall_now: Seconds since the epoch, for a ``Retry-After`` that is a date.
    """
    status = reply.status
    if status in _WHOLE:
        return _whole(reply, _length(reply.headers), max_bytes)
    if status == 206:
        return _part(reply, content, max_bytes, wall_now)
    if content is not None and status == 416:
        # Some say so of any range, so that it is no proof of an end.
        return Restart("the file on the server has no such range")
    if status in _REDIRECTS and (location := reply.headers.get("Location")):
        return Redirect(location)
    return _fault(reply, wall_now)


def at_end(plan: Receive, done: int) -> Decision:
    """Say what the end of a body means."""
    if plan.total is None:
        return Complete() if plan.has_end else LengthUnknown()
    return Complete() if done == plan.total else _cut()


def without_length(plan: Receive, proof: Proof) -> Decision:
    """Say what the end of a body means of which nobody has said the length."""
    if proof is Proof.WHOLE:
        return Complete()
    if proof is Proof.CUT:
        return _cut()
    if plan.start:
        return Restart("the rest does not say where it ends, and the whole may")
    return Refuse(reason="the server gives no length, and the file does not prove it")


def _cut() -> Retry:
    return Retry(reason="the server ended the file in the middle", kind=Kind.RESET)


def _part(
    reply: Reply, content: PartialContent | None, max_bytes: int, wall_now: float
) -> Decision:
    said = _CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", ""))
    if reply.headers.get("Content-Type", "").lower().startswith("multipart/byteranges"):
        said = None  # the body is an envelope, whatever the header says
    if said is not None and int(said[1]) == 0:  # some send the whole so, asked for or not
        return _whole(reply, _total(said), max_bytes, is_part=True)
    if content is None:
        return _fault(reply, wall_now)
    if said is None or int(said[1]) != content.done:
        return Restart("the server sent another range than asked for")
    return _rest(reply.headers, content, _total(said), max_bytes)


def _whole(reply: Reply, total: int | None, max_bytes: int, *, is_part: bool = False) -> Decision:
    if total == 0:
        return Retry(
            reason="the server sent an empty file", kind=Kind.UNEXPECTED, status=reply.status
        )
    if total is not None and total > max_bytes:
        return _too_large(total, max_bytes)
    return Receive(
        start=0,
        total=total,
        validator=_validator(reply.headers),
        has_end=_is_chunked(reply.headers) and not is_part,
        encoding=reply.headers.get("Content-Encoding", ""),
    )


def _rest(
    headers: Mapping[str, str], content: PartialContent, said: int | None, max_bytes: int
) -> Decision:
    total = content.total if said is None else said
    if content.total not in {None, total} or not _is_same(headers, content):
        return Restart("the file changed on the server")
    if is_compressed(encoding := headers.get("Content-Encoding", "")):
        return Restart(f"the server sent the rest compressed, as {encoding[:32]!r}")
    if total is not None and total > max_bytes:
        return _too_large(total, max_bytes)
    return Receive(start=content.done, total=total, validator=content.validator)


def _fault(reply: Reply, wall_now: float) -> Decision:
    problem = problem_of(reply, None, wall_now=wall_now)
    reason = f"the server answered with HTTP {_named(reply.status)}"
    if problem.kind not in _TRANSIENT and reply.status >= 300:
        return TryFreshUrl(reason=reason, status=reply.status)
    return Retry(
        reason=reason, kind=problem.kind, status=reply.status, retry_after=problem.retry_after
    )


def _named(status: int) -> str:
    try:
        return f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status}"


def _too_large(total: int, max_bytes: int) -> Refuse:
    return Refuse(reason=f"the file has {total} bytes, more than {max_bytes}, the limit")


def _length(headers: Mapping[str, str]) -> int | None:
    said = headers.get("Content-Length", "")
    # Beside chunks a length is not the body's (RFC 9112, 6.3).
    return int(said) if re.fullmatch("[0-9]{1,18}", said) and not _is_chunked(headers) else None


def _total(content_range: re.Match[str]) -> int | None:
    return None if content_range[3] == "*" else int(content_range[3])


def _is_chunked(headers: Mapping[str, str]) -> bool:
    return headers.get("Transfer-Encoding", "").lower().rstrip().endswith("chunked")


def _is_same(headers: Mapping[str, str], content: PartialContent) -> bool:
    # A 206 must repeat the ETag, and may leave the Last-Modified out (RFC 9110, 15.3.7).
    if (content.validator or "").startswith('"'):
        return headers.get("ETag") == content.validator
    return headers.get("Last-Modified", content.validator) == content.validator


def _validator(headers: Mapping[str, str]) -> str | None:
    # A date may be used only where there is no ETag at all, not even a weak one.
    if (etag := headers.get("ETag")) is not None:
        return etag if _STRONG_ETAG.fullmatch(etag) else None
    modified, served = headers.get("Last-Modified", ""), headers.get("Date", "")
    changed_at, served_at = http_date(modified), http_date(served)
    if changed_at is None or served_at is None or not _is_date(modified):
        return None
    return modified if served_at - changed_at >= _STRONG_AFTER else None


def _is_date(said: str) -> bool:
    """Return whether this is a date that can be sent back as it came."""
    return said.isascii() and said.isprintable() and http_date(said) is not None
