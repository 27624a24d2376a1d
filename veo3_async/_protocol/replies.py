"""Bytes to values and back, without I/O: how a request is spelled and what a reply says.

`poll_path` spells what is asked for; `decode` judges what comes.
Nothing here raises on what the server sends: a reply is a value, or a `Problem`.
"""

from __future__ import annotations

import codecs
import datetime
import email.utils
import enum
import functools
import re
import urllib.parse
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, TypeVar

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
from veo3_async._models import GenerationRequest, SourceImage, VideoTask

__all__ = [
    "MAX_BODY_BYTES",
    "NO_CAPACITY",
    "Call",
    "Kind",
    "Problem",
    "Reply",
    "check_model",
    "check_request_id",
    "decode",
    "fields_of",
    "inflated",
    "json_of",
    "model_of",
    "poll_path",
    "problem_of",
    "server_time",
]

MAX_BODY_BYTES: Final = 1 << 20
"""A task is about 2 kB; a reply over 1 MiB (decompressed) is not one."""

MAX_ID_BYTES: Final = 1024
"""A real id has 45 bytes; common servers cut a request line at 8190."""

_MAX_MEMBERS: Final = 8
"""A gzip body may come in several members (RFC 1952, 2.2), and servers send one. Each costs a copy
of what follows it: the 52,428 empty ones that 1 MiB holds would stop the event loop for 0.7 s."""

_EVIDENCE_CHARS: Final = 2048
_MAX_RETRY_AFTER: Final = 120.0
_CLOCKS_APART: Final = 60.0
"""Seconds that the clock of the server may be behind that of the one who makes the video."""


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


class Call(msgspec.Struct, frozen=True, gc=False):
    """A request, complete but for the host and the key."""

    method: str
    """``GET`` or ``POST``."""
    target: str
    """Path and query, percent-encoded: sent as it is."""
    body: bytes | None = None
    """JSON, or None for a GET."""


class Reply(msgspec.Struct, frozen=True, gc=False):
    """What came back, whole."""

    status: int
    """HTTP status."""
    headers: Mapping[str, str]
    """Response headers, case-insensitive."""
    body: bytes
    """Decompressed, at most `MAX_BODY_BYTES`."""


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


# --- requests -----------------------------------------------------------------------------

# The models that the wire page names; an id begins with the model it is polled under.
_MODEL_OF_ID: Final = re.compile(r"(veo3(?:-pro|-fast)?(?:-frames)?):")
_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~:-]*")  # nothing to quote: as every id so far
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check_request_id(request_id: object) -> str:
    """Return the id as it came, or refuse what can only be a mistake.

    :raises TypeError: It is no ``str``.
    :raises InvalidRequest: It is empty, padded with white space, longer than 1,024 bytes, or
        has control characters or lone surrogates in it.
    """
    if not isinstance(request_id, str):
        message = f"a request id is a str, not {type(request_id).__name__}"
        raise TypeError(message)
    if not request_id:
        fault = "it is empty"
    elif request_id != request_id.strip():
        fault = "it has white space around it; strip it"
    elif _CONTROL.search(request_id):
        fault = "it has control characters or lone surrogates in it"
    elif len(request_id.encode()) > MAX_ID_BYTES:
        fault = f"it is longer than {MAX_ID_BYTES} bytes"
    else:
        return request_id
    message = f"not a request id: {fault}: {request_id[:64]!r}"
    raise InvalidRequest(message, request_id=request_id[:MAX_ID_BYTES])


def check_model(model: object) -> str:
    """Return the model's name as it came.

    :raises InvalidRequest: It cannot be a part of a path.
    """
    if not isinstance(model, str) or not _MODEL_NAME.fullmatch(model):
        message = f"not a model name: {model!r}; use one such as 'veo3-pro'"
        raise InvalidRequest(message)
    return model


def model_of(request_id: str) -> str | None:
    """Return the model that an id begins with, or None where it is no known one."""
    named = _MODEL_OF_ID.match(request_id)
    return None if named is None else named[1]


@functools.lru_cache(maxsize=1024)
def poll_path(request_id: str, model: str) -> str:
    """Return path and query that ask for the state of a task.

    :param model: Whose path to ask at where the id does not begin with a known model.

    The ``:`` of an id is legal in a query and goes out as it is; all else that is not
    unreserved (RFC 3986) is percent-encoded, so any id arrives exactly.
    """
    model = model_of(request_id) or model
    if not _PLAIN.fullmatch(request_id):
        request_id = urllib.parse.quote(request_id, safe=":")
    return f"/302/submit/{model}?request_id={request_id}"


# --- replies ------------------------------------------------------------------------------

# What makes an object the state of a task, whatever else is in it or missing.
_TELLING: Final = ("video_url", "upsample_video_url", "running", "status_update_time")
_ANYBODYS_WORDS: Final = frozenset({"error", "failed"})
"""Statuses that the envelopes of gateways have too: a task's has some other field of the page."""

# Every number of the page is a time or a count. One of 400 digits fits in no float, and what is
# beyond 53 bits is not even read alike by all (RFC 8259, 6).
_WHOLE: Final = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | None

_T = TypeVar("_T", SourceImage, GenerationRequest, VideoTask)

_SUCCESS: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)


def inflated(body: bytes, encoding: str) -> bytes | None:
    """Return a body without its ``Content-Encoding``.

    None where it would be larger than `MAX_BODY_BYTES`, which is found out without making it, or
    where it is not whole, in more parts than servers send, or of an encoding other than gzip and
    deflate.
    """
    encoding = encoding.strip().lower()
    if not body or encoding in {"", "identity"}:
        return body
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        return None
    wbits = zlib.MAX_WBITS | 32  # gzip or zlib, by its header
    if encoding == "deflate" and body[0] & 0x0F != zlib.DEFLATED:
        wbits = -zlib.MAX_WBITS  # without the header that RFC 9110 asks for, as some servers do
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


def decode(reply: Reply, *, request_id: str, wall_now: float) -> VideoTask | Problem:
    """Judge a reply to a poll. Total: any bytes give a task or a problem.

    :param request_id: What was asked for; a reply that names another task is not the answer.
    :param wall_now: Seconds since the epoch, for a ``Retry-After`` that is a date.
    """
    content = json_of(reply.body)
    if (fields := fields_of(reply, content)) is not None:
        task = _build(VideoTask, fields)
        if _is_state(task):
            if task.id not in {"", request_id}:
                return _of_another(task.id, reply)
            return _without_future(task, reply)
    return problem_of(reply, content, wall_now=wall_now)


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
        retry_after=_retry_after(reply, wall_now) if kind in NO_CAPACITY else None,
        body=_evidence(reply)
        if kind in {Kind.UNEXPECTED, Kind.REDIRECT, Kind.INVALID, Kind.SERVER}
        else None,
    )


def _is_state(task: VideoTask) -> bool:
    if any(getattr(task, name) is not None for name in _TELLING):
        return True
    if task.status in _ANYBODYS_WORDS:
        return task != VideoTask(status=task.status, extra=task.extra)
    return bool(task.status)


def _without_future(task: VideoTask, reply: Reply) -> VideoTask:
    # Nothing has changed later than now: of a time to come everything true would be old.
    changed, served = task.status_update_time, server_time(reply)
    if not changed or served is None or changed / 1000 <= served + _CLOCKS_APART:
        return task
    extra = task.extra | {"status_update_time": changed}
    return msgspec.structs.replace(task, status_update_time=None, extra=extra)


def _of_another(named: str, reply: Reply) -> Problem:
    return Problem(
        kind=Kind.UNEXPECTED,
        message=f"the reply is of another task, {named[:64]!r}; check caches and proxies",
        http_status=reply.status,
        body=_evidence(reply),
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


def _retry_after(reply: Reply, wall_now: float) -> float | None:
    said = reply.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", said):
        return min(float(said), _MAX_RETRY_AFTER)
    if (moment := _http_date(said)) is None:
        return None
    # Both dates of one reply are of one clock; ours may be an hour off.
    served = server_time(reply)
    seconds = moment - (wall_now if served is None else served)
    return min(seconds, _MAX_RETRY_AFTER) if seconds > 0 else None


def server_time(reply: Reply) -> float | None:
    """Return the ``Date`` of a reply, seconds since the epoch of the server's clock, or None."""
    return _http_date(reply.headers.get("Date", ""))


@functools.lru_cache(maxsize=64)  # a thousand replies of one second have the same
def _http_date(said: str) -> float | None:
    try:
        moment = email.utils.parsedate_to_datetime(said)
        if moment.tzinfo is None:  # asctime's format; all HTTP dates are of this zone
            moment = moment.replace(tzinfo=datetime.UTC)
        return moment.timestamp()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def _build(cls: type[_T], content: dict[str, Any]) -> _T:
    """Convert what converts; what the page does not know, or types otherwise, goes to ``extra``.

    One field of a surprising type must not cost the video that stands beside it.
    """
    known = _FIELDS[cls]
    fields: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in content.items():
        if (rule := known.get(name)) is None:
            extra[name] = value
        elif value is not None:
            attribute, convert = rule
            try:
                fields[attribute] = convert(value)
            except (msgspec.ValidationError, OverflowError, ValueError):
                extra[name] = value
    return cls(**fields, extra=extra)


def _video_url(value: object) -> str | None:
    # "the URL decides" that a task is done, so what is no URL must not: "", "null", "pending"
    url = msgspec.convert(value, str).strip()
    if not url:
        return None
    if not url.lower().startswith(("https://", "http://")):
        raise msgspec.ValidationError(url)
    return url


def _request(value: object) -> GenerationRequest:
    return _build(GenerationRequest, msgspec.convert(value, dict[str, Any]))


def _images(value: object) -> tuple[SourceImage, ...]:
    items = msgspec.convert(value, list[dict[str, Any]])
    return tuple(_build(SourceImage, item) for item in items)


def _converter(cls: type, field: msgspec.structs.FieldInfo) -> Callable[[object], object]:
    special: dict[tuple[type, str], Callable[[object], object]] = {
        (VideoTask, "images"): _images,
        (VideoTask, "req"): _request,
        (VideoTask, "video_url"): _video_url,
        (VideoTask, "upsample_video_url"): _video_url,
    }
    kind = _WHOLE if field.type == int | None else field.type
    plain = functools.partial(msgspec.convert, type=kind, strict=False)
    return special.get((cls, field.name), plain)


_FIELDS: Final[dict[type, dict[str, tuple[str, Callable[[object], object]]]]] = {
    cls: {
        field.encode_name: (field.name, _converter(cls, field))
        for field in msgspec.structs.fields(cls)
        if field.name != "extra"
    }
    for cls in (SourceImage, GenerationRequest, VideoTask)
}
