"""Why a reply does not hold what was asked for: kinds of problems and the API's error codes."""

from __future__ import annotations

import codecs
import enum
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from veo3_async._errors import (
    AuthenticationError,
    ClientClosed,
    InvalidRequest,
    QuotaExceeded,
    ServiceUnavailable,
    TaskNotFound,
    UnexpectedReply,
    Veo3Error,
)
from veo3_async._models import VideoTask
from veo3_async._protocol.http import Reply, retry_after_of

__all__ = ["NO_CAPACITY", "Kind", "Problem", "fields_of", "json_of", "problem_of"]

_EVIDENCE_CHARS: Final = 2048


class Kind(enum.StrEnum):
    """Why a request brought no state; the key of ``Stats.failures``."""

    CONNECT = "connect"
    """No connection was made: refused, unreachable, reset or timed out while connecting."""
    DNS = "dns"
    """The host name could not be resolved."""
    TIMEOUT = "timeout"
    """The server took too long to answer, or dripped."""
    RESET = "reset"
    """The connection ended before the reply was whole."""
    LOCAL = "local"
    """This machine is out of file descriptors, ports or memory."""
    THROTTLED = "throttled"
    """429: too many requests."""
    OVERLOADED = "overloaded"
    """503, or the gateway's -10008: no capacity now."""
    SERVER = "server"
    """Any other trouble of the gateway or the upstream that passes by itself."""
    UNEXPECTED = "unexpected"
    """What answered is not the API: HTML, nothing, JSON of another shape, or another task's."""
    REDIRECT = "redirect"
    """A redirect; the API has none, and the key must not follow it."""
    NOT_FOUND = "not_found"
    """404, 410 or -10010: the service does not know the id (yet)."""
    INVALID = "invalid"
    """The API's 400, 422 or -10011, -10009: the request makes no sense to the service."""
    AUTHENTICATION = "authentication"
    """The API's 401, 403 or -10001, -10002, -10005: the key is refused."""
    QUOTA = "quota"
    """The API's 402 or -10004 and the quota codes: somebody must pay."""
    SESSION = "session"
    """The session handed in can send nothing any more."""
    CERTIFICATE = "certificate"
    """The server cannot prove that it is the API."""


NO_CAPACITY: Final = frozenset({Kind.THROTTLED, Kind.OVERLOADED})
"""What says that fewer requests are wanted; only these may carry a ``Retry-After``."""

_ERROR_OF: Final[dict[Kind, type[Veo3Error]]] = {
    Kind.UNEXPECTED: UnexpectedReply,
    Kind.REDIRECT: UnexpectedReply,
    Kind.NOT_FOUND: TaskNotFound,
    Kind.INVALID: InvalidRequest,
    Kind.AUTHENTICATION: AuthenticationError,
    Kind.QUOTA: QuotaExceeded,
    Kind.SESSION: ClientClosed,
}  # whatever is not named is a `ServiceUnavailable`

# 302.AI's error table. A code says more than the HTTP status it comes with, so it wins.
_KIND_OF_CODE: Final[dict[int, Kind]] = {
    -10001: Kind.AUTHENTICATION,
    -10002: Kind.AUTHENTICATION,
    -10003: Kind.SERVER,
    -10004: Kind.QUOTA,
    -10005: Kind.AUTHENTICATION,
    -10006: Kind.QUOTA,
    -10007: Kind.QUOTA,
    -10008: Kind.OVERLOADED,
    -10009: Kind.INVALID,
    -10010: Kind.NOT_FOUND,
    -10011: Kind.INVALID,
    -10012: Kind.QUOTA,
    -10018: Kind.QUOTA,
    -1024: Kind.SERVER,
}

_KIND_OF_STATUS: Final[dict[int, Kind]] = {
    400: Kind.INVALID,
    401: Kind.AUTHENTICATION,
    402: Kind.QUOTA,
    403: Kind.AUTHENTICATION,
    404: Kind.NOT_FOUND,
    408: Kind.SERVER,
    409: Kind.SERVER,
    410: Kind.NOT_FOUND,
    422: Kind.INVALID,
    425: Kind.SERVER,
    429: Kind.THROTTLED,
    503: Kind.OVERLOADED,
}

_ENDING: Final = frozenset({Kind.INVALID, Kind.AUTHENTICATION, Kind.QUOTA})
"""What ends watches at once, so it must be the API's own word: the pages of proxies, firewalls and
load balancers have these statuses too."""

_ADVICE: Final[dict[Kind, str]] = {
    Kind.AUTHENTICATION: "the API key was refused; check AI302_API_KEY",
    Kind.QUOTA: "the balance or a quota of the key is used up; the tasks stay pending",
    Kind.NOT_FOUND: "the service does not know this request id; check it, and the key's account",
    Kind.INVALID: "the service refuses the request as invalid",
    Kind.THROTTLED: "the service asks for fewer requests",
    Kind.OVERLOADED: "the service has no capacity now",
    Kind.SERVER: "the service has a trouble that should pass",
    Kind.UNEXPECTED: "what answered is not the API; check base_url and proxies",
    Kind.REDIRECT: "the API redirects, which is not followed; check base_url",
}


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request brought no state; `error` turns it into an exception."""

    kind: Kind
    message: str
    http_status: int | None = None
    err_code: int | None = None
    retry_after: float | None = None
    """Seconds that the server asks everybody to wait, 0 to 120, or None."""
    body: str | None = None
    """The first 2 kB of a reply that made no sense."""
    from_api: bool = False
    """Whether it is the API's own word, and not that of whoever sits between."""

    @property
    def is_served(self) -> bool:
        """Whether the server dealt with the request, whatever it said."""
        return self.http_status is not None and self.kind is not Kind.SERVER

    def error(
        self,
        request_id: str | None = None,
        *,
        attempts: int = 0,
        elapsed: float | None = None,
        task: VideoTask | None = None,
    ) -> Veo3Error:
        """Return the error that says this to the one who must act."""
        return _ERROR_OF.get(self.kind, ServiceUnavailable)(
            self.message,
            request_id=request_id,
            http_status=self.http_status,
            err_code=self.err_code,
            attempts=attempts,
            elapsed=elapsed,
            task=task,
            body=self.body,
        )


# What makes an object the state of a task, whatever else is in it or missing.
_TELLING: Final = ("video_url", "upsample_video_url", "running", "status_update_time")

_ANYBODYS_WORDS: Final = frozenset({"error", "failed"})
"""Statuses that the envelopes of gateways have too: a task's has some other field of the page."""

_SUCCESS: Final = range(200, 300)

_REDIRECTS: Final = range(300, 400)


def problem_of(reply: Reply, content: object, *, wall_now: float) -> Problem:
    """Say what is wrong with a reply that does not hold what was asked for.

    :param content: Its body as JSON, or None.
    """
    err_code, said = _gateway_error(content)
    kind = _kind(reply.status, err_code, refused=said is not None)
    if kind in _ENDING and reply.body.lstrip().startswith(b"<"):
        kind = Kind.UNEXPECTED  # a page of whoever sits between
    advice = _ADVICE[kind]
    return Problem(
        kind=kind,
        message=f"{advice}: {said}" if said else advice,
        http_status=reply.status,
        err_code=err_code,
        retry_after=retry_after_of(reply, wall_now) if kind in NO_CAPACITY else None,
        body=_evidence(reply)
        if kind in {Kind.UNEXPECTED, Kind.REDIRECT, Kind.INVALID, Kind.SERVER}
        else None,
    )


def _evidence(reply: Reply) -> str:
    return reply.body[: 4 * _EVIDENCE_CHARS].decode(errors="replace")[:_EVIDENCE_CHARS]


def json_of(body: bytes) -> object:
    """Return what a body says in JSON, or None where it is none."""
    try:
        return msgspec.json.decode(body.removeprefix(codecs.BOM_UTF8))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def fields_of(reply: Reply, content: object) -> dict[str, Any] | None:
    """Return the object that a success says, or None where it is no success but a refusal.

    :param content: The reply's body as JSON, or None.
    """
    if reply.status in _SUCCESS and isinstance(content, dict) and not _is_refusal(content):
        return content
    return None


def _is_refusal(content: dict[str, Any]) -> bool:
    # A task may carry a field named `error`, a gateway's refusal carries nothing else: it
    # is one where the code is there, or where nothing says that this is a task.
    if not (error := content.get("error")):
        return False
    if isinstance(error, dict) and "err_code" in error:
        return True
    status = content.get("status")
    if isinstance(status, str) and status not in _ANYBODYS_WORDS:
        return False
    return all(content.get(name) is None for name in _TELLING)


def _gateway_error(content: object) -> tuple[int | None, str | None]:
    if not isinstance(content, dict) or not (error := content.get("error")):
        return None, None
    if not isinstance(error, dict):
        return None, error[:_EVIDENCE_CHARS] if isinstance(error, str) else "no message"
    try:
        err_code = int(error.get("err_code", ""))
    except (TypeError, ValueError, OverflowError):
        err_code = None
    texts: Iterable[object] = (error.get(f) for f in ("message", "message_cn", "message_jp"))
    said = next((t for t in texts if isinstance(t, str) and t), "no message")
    return err_code, said[:_EVIDENCE_CHARS]


def _kind(status: int, err_code: int | None, *, refused: bool) -> Kind:
    if err_code in _KIND_OF_CODE:
        return _KIND_OF_CODE[err_code]
    if status in _SUCCESS:
        return Kind.SERVER if refused else Kind.UNEXPECTED
    if status in _REDIRECTS:
        return Kind.REDIRECT
    return _KIND_OF_STATUS.get(status, Kind.SERVER if status >= 500 else Kind.UNEXPECTED)
