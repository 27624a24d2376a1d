"""Bytes to values and back, without I/O: how a request is spelled and what a reply says.

`poll_path` spells what is asked for; `decode` judges what comes.
Nothing here raises on what the server sends: a reply is a value, or a `Problem`.
"""

from __future__ import annotations

import functools
import re
import urllib.parse
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec

from veo3_async._models import GenerationRequest, SourceImage, VideoTask
from veo3_async._protocol.errors import (
    _ANYBODYS_WORDS,
    _TELLING,
    Kind,
    Problem,
    _evidence,
    fields_of,
    json_of,
    problem_of,
)
from veo3_async._protocol.http import Reply, server_time
from veo3_async._protocol.ids import model_of

__all__ = ["decode", "poll_path"]


_CLOCKS_APART: Final = 60.0
"""Seconds that the clock of the server may be behind that of the one who makes the video."""


# --- requests -----------------------------------------------------------------------------

_PLAIN: Final = re.compile(r"[A-Za-z0-9._~:-]*")  # nothing to quote: as every id so far


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


# Every number of the page is a time or a count. One of 400 digits fits in no float, and what is
# beyond 53 bits is not even read alike by all (RFC 8259, 6).
_WHOLE: Final = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | None

_T = TypeVar("_T", SourceImage, GenerationRequest, VideoTask)


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
