"""Why a reply does not hold what was asked for, and whether that is the API's own word.

This is the one place that decides it. The API's own word is one of its error objects; only that
says that a key is refused, that money is wanted, that an id is not known or that a request makes
no sense (`Problem.from_api`). Every other page, under any HTTP status, is an outage, whoever
wrote it: proxies, firewalls and load balancers have the same statuses.

The shapes of the API's errors, of which any part may be missing::

    {"error": {"err_code": -10004, "message": …, "message_cn": …, "message_jp": …, "type": …}}
    {"code": "InsufficientBalance", "message": …, "request_id": … of the HTTP request, no task's}
    {"error": "text"}, {"error": {"message": …, "type": …, "code": …}}    of an upstream
    {"id": "", "status": "error", "status_update_time": 0, "error": …}    a refusal: no task exists
    {"status": …, "message": …, "data": {"state": …, "error": {"err_code": …, "message": …}}}

Each of them is known, too, in a list of one, in an envelope, and as JSON in a text. The third is
passed through from elsewhere, where a refused key is 302.AI's and not the caller's: it ends
nothing, but for its words on money. A refusal passes, too.
"""

from __future__ import annotations

import enum
import re
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
from veo3_async._protocol.parsing import only, reason_in
from veo3_async._text import one_line

__all__ = [
    "NO_CAPACITY",
    "SUCCESS",
    "Kind",
    "Problem",
    "evidence_of",
    "own_error",
    "problem_of",
]

SUCCESS: Final = range(200, 300)
"""HTTP statuses of a success."""

_EVIDENCE_CHARS: Final = 2048
_EXCERPT_CHARS: Final = 160


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
    """503 of whoever sits there: no capacity now."""
    NO_CHANNEL = "no_channel"
    """The gateway's -10008: no capacity for this model, or no such model, or not for this key."""
    SERVER = "server"
    """Any other trouble of the gateway or the upstream that passes by itself."""
    UNEXPECTED = "unexpected"
    """What answered is not the API: HTML, a redirect, nothing, JSON of another shape, under any
    status."""
    NOT_FOUND = "not_found"
    """The API's own word (-10010): it does not know the id (yet)."""
    INVALID = "invalid"
    """The API's own word (-10011, -10009): the request makes no sense to it."""
    AUTHENTICATION = "authentication"
    """The API's own word (-10001, -10002, -10005): the key is refused."""
    QUOTA = "quota"
    """The API's own word (-10004, the codes of quotas): somebody must pay."""
    SESSION = "session"
    """The session handed in can send nothing any more."""
    CERTIFICATE = "certificate"
    """The server cannot prove that it is the API."""


NO_CAPACITY: Final = frozenset({Kind.THROTTLED, Kind.OVERLOADED, Kind.NO_CHANNEL})
"""What says that there is no capacity now; only these may carry a ``Retry-After``."""

_ERROR_OF: Final[dict[Kind, type[Veo3Error]]] = {
    Kind.UNEXPECTED: UnexpectedReply,
    Kind.NOT_FOUND: TaskNotFound,
    Kind.INVALID: InvalidRequest,
    Kind.AUTHENTICATION: AuthenticationError,
    Kind.QUOTA: QuotaExceeded,
    Kind.SESSION: ClientClosed,
}  # whatever is not named is a `ServiceUnavailable`

# 302.AI's error table, without the sign: it writes -10001 and 10001. A code says more than the HTTP
# status it comes with, so it wins.
_KIND_OF_CODE: Final[dict[int, Kind]] = {
    10001: Kind.AUTHENTICATION,
    10002: Kind.AUTHENTICATION,
    10003: Kind.SERVER,
    10004: Kind.QUOTA,
    10005: Kind.AUTHENTICATION,
    10006: Kind.QUOTA,
    10007: Kind.QUOTA,
    10008: Kind.NO_CHANNEL,
    10009: Kind.INVALID,
    10010: Kind.NOT_FOUND,
    10011: Kind.INVALID,
    10012: Kind.QUOTA,
    10018: Kind.QUOTA,
    1024: Kind.SERVER,
}

_KIND_OF_WORD: Final[dict[str, Kind]] = {
    "invalidparameter": Kind.INVALID,
    "missingparameter": Kind.INVALID,
    "unauthorized": Kind.AUTHENTICATION,
    "insufficientbalance": Kind.QUOTA,
    "ratelimitexceeded": Kind.THROTTLED,
    "internalerror": Kind.SERVER,
}
"""The documented words of ``code``, in lower case."""

_NO_MONEY: Final = frozenset(
    {
        *("insufficient_quota", "insufficient_user_quota"),
        *("insufficient_balance", "insufficientbalance"),
    }
)
"""What ``type`` or ``code`` of an upstream's error says where no money is left, in lower case,
whatever its text and its status say (a 429)."""

_TOO_FAST: Final = re.compile(
    r"too many (?:concurrent )?(?:requests|connections)|rate.?limit|slow(?:ing)? down|throttl|"
    r"过于频繁|太频繁|请求频率|限流",
    re.IGNORECASE,
)
"""What a text says where requests come too fast, and neither code nor status does."""

_GATEWAYS_FIELDS: Final = frozenset({"err_code", "message_cn", "message_jp"})
_GATEWAYS_TYPES: Final = frozenset({"api_error", "unauthorized"})

_PASSING: Final[dict[int, Kind]] = {
    408: Kind.SERVER,
    409: Kind.SERVER,
    425: Kind.SERVER,
    429: Kind.THROTTLED,
    503: Kind.OVERLOADED,
}
"""Statuses that say the same whoever sends them; 500 and above are `Kind.SERVER`."""

_APIS_STATUSES: Final[dict[int, Kind]] = {
    400: Kind.INVALID,
    401: Kind.AUTHENTICATION,
    402: Kind.QUOTA,
    403: Kind.AUTHENTICATION,
    404: Kind.NOT_FOUND,
    410: Kind.NOT_FOUND,
    422: Kind.INVALID,
}
"""What a status says beside the gateway's own error object, where its code is missing or new."""

_ADVICE: Final[dict[Kind, str]] = {
    Kind.AUTHENTICATION: "the API key was refused; check AI302_API_KEY",
    Kind.QUOTA: "the balance or a quota of the key is used up; the tasks stay pending",
    Kind.NOT_FOUND: "the service does not know this request id; check it, and the key's account",
    Kind.INVALID: "the service refuses the request as invalid",
    Kind.THROTTLED: "the service asks for fewer requests",
    Kind.OVERLOADED: "the service has no capacity now",
    Kind.NO_CHANNEL: "the service has no channel for this model now; if that stays, the model may "
    "not exist, or the key may not be allowed to use it",
    Kind.SERVER: "the service has a trouble that should pass",
    Kind.UNEXPECTED: "what answered is not the API; check base_url and proxies",
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
    """Whether it is the API's own word: one of its error objects."""

    @property
    def is_served(self) -> bool:
        """Whether the server dealt with the request, whatever it said."""
        return self.http_status is not None and self.kind is not Kind.SERVER

    @property
    def limits_rate(self) -> bool:
        """Whether it says that requests come too fast.

        A 429 does, a 503 without the gateway's own code, and a text that says so under any status.
        -10008 does not: its channels are busy, or the model does not exist, however slowly one
        asks.
        """
        match self.kind:
            case Kind.THROTTLED:
                return True
            case Kind.OVERLOADED:
                return self.err_code is None
            case Kind.SERVER | Kind.UNEXPECTED:
                return self.err_code is None and _TOO_FAST.search(self.message) is not None
            case _:
                return False

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


class _Error(msgspec.Struct, frozen=True):
    """An error object as it was found, in whatever shape."""

    says: str | None
    """Its text; None where it has none."""
    kind: Kind | None = None
    """What its code or word says; None where it has none that is known."""
    err_code: int | None = None
    is_own: bool = False
    """Whether the API itself wrote it; else it is passed through from an upstream."""


def problem_of(reply: Reply, content: object, *, wall_now: float) -> Problem:
    """Say what is wrong with a reply that does not hold what was asked for.

    :param content: Its body as JSON, or None.
    """
    error = own_error(content)
    kind = _kind(reply.status, error)
    says = error.says if error is not None else _excerpt(reply) if kind is Kind.UNEXPECTED else None
    return Problem(
        kind=kind,
        message=f"{_ADVICE[kind]}: {says}" if says else _ADVICE[kind],
        http_status=reply.status,
        err_code=None if error is None else error.err_code,
        retry_after=retry_after_of(reply, wall_now) if kind in NO_CAPACITY else None,
        body=evidence_of(reply) if kind in {Kind.UNEXPECTED, Kind.INVALID, Kind.SERVER} else None,
        from_api=error is not None and error.is_own,
    )


def evidence_of(reply: Reply) -> str:
    """Return the first 2 kB of a body."""
    return reply.body[: 4 * _EVIDENCE_CHARS].decode(errors="replace")[:_EVIDENCE_CHARS]


def _excerpt(reply: Reply) -> str:
    location = reply.headers.get("Location", "")
    shown = one_line(evidence_of(reply), _EXCERPT_CHARS) or one_line(location, _EXCERPT_CHARS)
    return f"HTTP {reply.status}, {shown!r}" if shown else f"HTTP {reply.status}, and nothing in it"


def _kind(status: int, error: _Error | None) -> Kind:
    if error is not None and error.kind is not None:
        return error.kind
    if error is not None and error.is_own and status in _APIS_STATUSES:
        return _APIS_STATUSES[status]
    if status in SUCCESS:
        return Kind.SERVER if error is not None else Kind.UNEXPECTED
    return _PASSING.get(status, Kind.SERVER if status >= 500 else Kind.UNEXPECTED)


# --- error objects --------------------------------------------------------------------------


_HOLDERS: Final = ("data", "detail", "result")


def own_error(content: object) -> _Error | None:
    """Return the error object that a reply holds, in any of its shapes, or None.

    :param content: A reply as JSON. One that is the state of a task may hold one too.
    """
    content = only(content)
    if not isinstance(content, dict):
        return None
    if isinstance(word := content.get("code"), str) and word.lower() in _KIND_OF_WORD:
        return _Error(_text(content), _KIND_OF_WORD[word.lower()], is_own=True)
    holders = (content, *(only(content.get(name)) for name in _HOLDERS))
    for holder in holders:
        if isinstance(holder, dict) and (error := _object_in(holder)):
            return _from_object(error)
    if error := content.get("error"):
        return _Error(reason_in(error), is_own=_is_refusal(content))
    return None


def _object_in(holder: dict[str, Any]) -> dict[str, Any] | None:
    """Return the error object that is, or stands in, an object."""
    for name in ("error", "errors"):
        error = only(value := holder.get(name))
        is_text = isinstance(value, str)
        if isinstance(error, dict) and error and (not is_text or "err_code" in error):
            return error
    return holder if "err_code" in holder else None


def _is_refusal(content: dict[str, Any]) -> bool:
    return content.get("id") == "" and content.get("status") == "error"


def _from_object(error: dict[str, Any]) -> _Error:
    code = _code(error.get("err_code"))
    kind = None if code is None else _KIND_OF_CODE.get(abs(code))
    said = (error.get(name) for name in ("type", "code"))
    words = {word.lower() for word in said if isinstance(word, str)}
    if words & _NO_MONEY:
        kind = Kind.QUOTA
    is_own = bool(error.keys() & _GATEWAYS_FIELDS) or bool(words & _GATEWAYS_TYPES)
    return _Error(_text(error), kind, code, is_own=is_own or kind is not None)


def _text(error: dict[str, Any]) -> str | None:
    texts = (error.get(name) for name in ("message", "message_cn", "message_jp"))
    return next((one_line(t) for t in texts if isinstance(t, str) and t.strip()), None)


def _code(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return int(value)
    except (ValueError, OverflowError):
        return None
