"""What a reply to a download means for the bytes on disk. Pure: a reply in, a plan out.

A rest is asked for (``Range``) only with a strong validator (``If-Range``), and appended only
where the reply proves that it continues the same bytes; in every other case the download begins
again. So a file is never a mixture of two objects (RFC 9110, 13.1.5 and 15.3.7).
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from veo3_async._protocol.errors import Kind, problem_of
from veo3_async._protocol.http import Reply

__all__ = [
    "Again",
    "Expired",
    "Finish",
    "Kept",
    "Plan",
    "Redirect",
    "Refuse",
    "Restart",
    "Write",
    "judge",
    "range_headers",
    "resumable",
]


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the bytes on disk: the side record."""

    url: str
    """Where they came from, before redirects."""
    done: int = 0
    """How many there are, from the first on."""
    total: int | None = None
    """How many the whole has, or None where the server did not say."""
    validator: str | None = None
    """What names exactly this object, as it is sent in ``If-Range``: a strong ETag or a
    Last-Modified; None where there is nothing that strong."""


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """The body is the object from ``start`` on; what is on disk from there is void."""

    start: int
    total: int | None
    validator: str | None


class Restart(msgspec.Struct, frozen=True):
    """The bytes on disk cannot be continued: ask again at once for the whole."""

    reason: str


class Finish(msgspec.Struct, frozen=True):
    """All bytes are on disk already."""


class Redirect(msgspec.Struct, frozen=True):
    """The object is elsewhere."""

    location: str


class Expired(msgspec.Struct, frozen=True):
    """The URL does not work any more; a fresh one may."""

    status: int


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that passes: ask again after a while, for what is missing."""

    reason: str
    kind: Kind
    status: int | None = None
    retry_after: float | None = None
    """Seconds that the server asks to wait, 0 to 120, or None."""


class Refuse(msgspec.Struct, frozen=True, kw_only=True):
    """Asking again would not help."""

    reason: str
    status: int | None = None


Plan: TypeAlias = Write | Restart | Finish | Redirect | Expired | Again | Refuse

_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
_UNSATISFIED: Final = re.compile(r"bytes \*/([0-9]{1,18})")
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e\x80-\xff]{0,512}"')
_NO_FILM: Final = re.compile(
    r"text/.*|multipart/.*|application/(?:.*\+)?(?:json|xml|xhtml)\b.*", re.IGNORECASE
)
_PASSING: Final = frozenset({408, 409, 425, 429})
_EXPIRED: Final = frozenset({403, 404, 410})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_STRONG_AFTER: Final = 60.0
"""Seconds; a date tells objects apart only if the object did not change in the minute of the
reply (RFC 7232, 2.2.2; RFC 9110 asks for a second and for judgement)."""


def resumable(kept: Kept, url: str) -> Kept | None:
    """Return what can be continued from this URL, or None where it begins anew.

    A signed URL is signed anew when it has expired: where only the query differs, a strong ETag
    decides, and a date does not.
    """
    if not kept.done:
        return None
    if kept.url == url:
        return kept if kept.validator or kept.done == kept.total else None
    same_path = kept.url.partition("?")[0] == url.partition("?")[0]
    return kept if same_path and (kept.validator or "").startswith('"') else None


def range_headers(kept: Kept | None) -> dict[str, str]:
    """Return the headers that ask for what is missing; none where all is."""
    if kept is None or kept.validator is None:
        return {}
    return {"Range": f"bytes={kept.done}-", "If-Range": kept.validator}


def judge(reply: Reply, kept: Kept | None, *, max_bytes: int, wall_now: float) -> Plan:
    """Say what a reply means for the bytes on disk. Total: any status and headers give a plan.

    :param reply: Status and headers; the body is not looked at.
    :param kept: What the request asked to continue, or None where it asked for the whole.
    :param max_bytes: The largest film that is wanted.
    :param wall_now: Seconds since the epoch, for a ``Retry-After`` that is a date.
    """
    status = reply.status
    if status == 200:
        return _whole(reply, max_bytes)
    if kept is not None and status == 206:
        return _rest(reply, kept, max_bytes)
    if kept is not None and status == 416:
        return _nothing_left(reply, kept)
    if status in _REDIRECTS and (location := reply.headers.get("Location")):
        return Redirect(location)
    if status in _EXPIRED:
        return Expired(status)
    return _fault(reply, wall_now)


def _whole(reply: Reply, max_bytes: int) -> Plan:
    if reason := _unfit(reply.headers):
        return Refuse(reason=reason, status=reply.status)
    said = reply.headers.get("Content-Length", "")
    total = int(said) if re.fullmatch("[0-9]{1,18}", said) else None
    if total == 0:
        return Again(reason="the server sent an empty file", kind=Kind.UNEXPECTED, status=200)
    if total is not None and total > max_bytes:
        return _too_large(total, max_bytes)
    return Write(start=0, total=total, validator=_validator(reply.headers))


def _rest(reply: Reply, kept: Kept, max_bytes: int) -> Plan:
    if reason := _unfit(reply.headers):
        return Restart(reason)
    said = _CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", ""))
    if said is None or int(said[1]) != kept.done:
        return Restart("the server sent another range than asked for")
    total = kept.total if said[2] == "*" else int(said[2])
    if kept.total not in {None, total} or not _is_same(reply.headers, kept):
        return Restart("the file changed on the server")
    if total is not None and total > max_bytes:
        return _too_large(total, max_bytes)
    return Write(start=kept.done, total=total, validator=kept.validator)


def _nothing_left(reply: Reply, kept: Kept) -> Plan:
    said = _UNSATISFIED.fullmatch(reply.headers.get("Content-Range", ""))
    all_there = said is not None and int(said[1]) == kept.done
    if all_there and kept.total in {None, kept.done} and _is_same(reply.headers, kept):
        return Finish()
    return Restart("the file on the server is shorter than what was kept")


def _fault(reply: Reply, wall_now: float) -> Plan:
    problem = problem_of(reply, None, wall_now=wall_now)
    passes = reply.status in _PASSING or reply.status >= 500 or reply.status < 300
    reason = f"the server answered with HTTP {reply.status}"
    if not passes:
        return Refuse(reason=reason, status=reply.status)
    return Again(
        reason=reason, kind=problem.kind, status=reply.status, retry_after=problem.retry_after
    )


def _unfit(headers: Mapping[str, str]) -> str | None:
    """Say why a body cannot be the bytes of a film, or None where it can."""
    if (coding := headers.get("Content-Encoding", "").lower()) not in {"", "identity"}:
        return f"the server sent the file encoded as {coding[:32]!r}, which was not asked for"
    if _NO_FILM.fullmatch(kind := headers.get("Content-Type", "")):
        return f"the server sent {kind[:64]!r} in place of a film"
    return None


def _too_large(total: int, max_bytes: int) -> Refuse:
    return Refuse(reason=f"the file has {total} bytes, more than {max_bytes}, the limit")


def _is_same(headers: Mapping[str, str], kept: Kept) -> bool:
    # A 206 must repeat the ETag, and may leave the Last-Modified out (RFC 9110, 15.3.7).
    if (kept.validator or "").startswith('"'):
        return headers.get("ETag") == kept.validator
    return headers.get("Last-Modified", kept.validator) == kept.validator


def _validator(headers: Mapping[str, str]) -> str | None:
    # A date may be used only where there is no ETag at all, not even a weak one.
    if (etag := headers.get("ETag")) is not None:
        return etag if _STRONG_ETAG.fullmatch(etag) else None
    modified = headers.get("Last-Modified", "")
    age = _epoch(headers.get("Date", "")) - _epoch(modified)
    return modified if age >= _STRONG_AFTER else None


def _epoch(date: str) -> float:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, OverflowError, IndexError):
        return float("nan")
