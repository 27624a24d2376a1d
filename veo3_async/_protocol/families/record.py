"""Family A, ``record``: veo3-pro and its kin.

A reply is the record of a task as the upstream keeps it. What its words mean:

*  ``completed`` and ``failed`` are the only final ones. ``…_failed`` ends an attempt, and
   ``running`` and the counts of retries say nothing about an end: between two attempts, and
   between two stages, a task waits in a pool, and no worker holds it.
*  ``failed`` is a task's only where the reply has an id or a time; else it is a refusal of a
   gateway (``{"id": "", "status": "error", …}``), and no task exists.
*  Words of gateways in between that sound like an end are one when they stay for a minute.
*  The URL decides: a task is done when the video that was asked for is there.

Nothing here raises on what the server sends: a reply is a value, or a `Problem`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from veo3_async._errors import InvalidRequest
from veo3_async._models import GenerationRequest, Phase, SourceImage, VideoTask
from veo3_async._protocol.errors import Problem, own_error
from veo3_async._protocol.families._fields import (
    MAX_WHOLE,
    MICROSECONDS_FROM,
    PLAIN_URL,
    SECONDS_BELOW,
    build,
    is_named,
    milliseconds,
    rules_of,
    text,
    video_url,
)
from veo3_async._protocol.families._options import (
    ANY,
    ASPECT_RATIOS,
    Order,
    checked_options,
    one_image,
)
from veo3_async._protocol.families._outcome import task_or_problem
from veo3_async._protocol.families._route import Route, call_for_id
from veo3_async._protocol.families._words import ENDS_OF_GATEWAYS, canonical
from veo3_async._protocol.families._wrappers import merged_with
from veo3_async._protocol.http import Call, Reply, server_time
from veo3_async._protocol.ids import model_of
from veo3_async._protocol.parsing import reason_among, reason_in
from veo3_async._protocol.submission import submitted_id

__all__ = [
    "MODELS",
    "NAME",
    "PHASE_OF_WORD",
    "TAKES_WEBHOOKS",
    "body_of",
    "poll_call",
    "posted_to",
    "read",
    "route_for_id",
    "route_of",
    "siblings",
    "submitted",
    "task_of",
]

NAME: Final = "record"
TAKES_WEBHOOKS: Final = False

PHASE_OF_WORD: Final = {
    "pending": Phase.QUEUED,
    "prompt_enhancement_checking": Phase.PREPARING,
    "prompt_enhancing": Phase.PREPARING,
    "image_downloading": Phase.PREPARING,
    "image_cropping": Phase.PREPARING,
    "image_uploading": Phase.PREPARING,
    "image_processing_completed": Phase.PREPARING,
    "video_generating": Phase.GENERATING,
    "video_generation_completed": Phase.GENERATED,
    "video_generation_failed": Phase.RETRYING,
    "video_upsampling": Phase.UPSAMPLING,
    "video_upsampling_completed": Phase.UPSAMPLING,
    "video_upsampling_failed": Phase.RETRYING,
    "completed": Phase.GENERATED,  # and COMPLETED with the video that was asked for
    "failed": Phase.FAILED,
    # of gateways in between
    "queued": Phase.QUEUED,
    "submitted": Phase.QUEUED,
    "not_start": Phase.QUEUED,
    "waiting": Phase.QUEUED,
    "creating": Phase.QUEUED,
    "queueing": Phase.QUEUED,
    "created": Phase.QUEUED,
    "run": Phase.GENERATING,
    "running": Phase.GENERATING,
    "processing": Phase.GENERATING,
    "in_progress": Phase.GENERATING,
    "video_downloading": Phase.GENERATED,
}
"""What the service's words mean, in lower case; another ``…_failed`` is RETRYING, and whatever
else it may say is UNKNOWN and runs."""

_ENDS: Final = frozenset({"completed", "failed"})
_REFUSALS: Final = frozenset({"failed", "error", "fail", "failure"})
"""Words that the envelopes of gateways have too: of a task they are with an id or a time only."""

_DONE: Final = "MEDIA_GENERATION_STATUS_SUCCESSFUL"
_BROKEN: Final = "MEDIA_GENERATION_STATUS_FAILED"

_CLOCKS_APART: Final = 60.0
"""Seconds that the clock of the server may be behind that of the one who makes the video."""


# --- requests -------------------------------------------------------------------------------

_PATH: Final = "/302/submit/"
_FRAMES: Final = "-frames"
MODELS: Final = ("veo3-pro", "veo3-pro-frames", "veo3-fast", "veo3-fast-frames")
_OPTIONS: Final = {
    "aspect_ratio": ASPECT_RATIOS,
    "enable_upsample": ANY,
    "enhance_prompt": ANY,
    "generate_audio": ANY,
}


def route_of(model: str) -> Route:
    """Return where tasks of a model are posted and polled."""
    return Route(NAME, _PATH + model)


_ROUTES: Final = {model: route_of(model) for model in MODELS}  # one of each for all ids: memory


def route_for_id(request_id: str) -> Route | None:
    """Return where an id is polled by the model that it begins with, None where it names none."""
    return _ROUTES.get(model_of(request_id) or "")


def siblings(route: Route) -> tuple[Route, ...]:
    """Return the other paths of the family, the likeliest first.

    The prefix of an id need not be its path: the documented example has an image, was posted to
    ``veo3-pro-frames`` and is called ``veo3-pro:…``.
    """
    model = route.path.removeprefix(_PATH)
    twin = model.removesuffix(_FRAMES) if model.endswith(_FRAMES) else model + _FRAMES
    names = sorted(MODELS, key=lambda name: name != twin)
    return tuple(route_of(name) for name in names if name != model)


def posted_to(route: Route, *, image: object | None) -> Route:
    """Return where a task with or without an image is posted, and so polled.

    :raises InvalidRequest: The model wants an image.
    """
    model = route.path.removeprefix(_PATH)
    if image is not None:
        return route_of(model.removesuffix(_FRAMES) + _FRAMES)
    if model.endswith(_FRAMES):
        message = f"{model} makes a video from an image: pass image= too"
        raise InvalidRequest(message)
    return route


def body_of(route: Route, order: Order) -> dict[str, Any]:
    """Return the fields that submit a task.

    :raises InvalidRequest: Something of it is not taken.
    """
    del route  # all paths take the same
    fields: dict[str, Any] = {"text_prompt": order.prompt}
    if order.image is not None:
        fields["input_image"] = one_image(order.image)
    return fields | checked_options(order.options, _OPTIONS, of=NAME)


def submitted(route: Route, reply: Reply, *, wall_now: float) -> str | Problem:
    """Return the id that a reply to a submission names, or what is wrong with the reply."""
    del route  # all paths answer alike
    return submitted_id(reply, wall_now=wall_now)


def poll_call(route: Route, request_id: str) -> Call:
    """Return the request for the state of a task."""
    return call_for_id(f"{route.path}?request_id=", request_id)


# --- replies --------------------------------------------------------------------------------


def read(route: Route, reply: Reply, *, request_id: str, wall_now: float) -> VideoTask | Problem:
    """Judge a reply to a poll. Total: any bytes give a task or a problem.

    The reply to a poll of an id is the answer, whatever id it names: gateways have ids of their
    own.

    :param wall_now: Seconds since the epoch, for a ``Retry-After`` that is a date.
    """
    del route, request_id

    def state(fields: Mapping[str, Any]) -> VideoTask | None:
        task = task_of(fields)
        if task.best_url is None and not _is_state(task, fields):
            return None
        return _without_future(task, reply)

    return task_or_problem(reply, _TELLING, state, wall_now=wall_now, merge=_merged)


def task_of(fields: Mapping[str, Any]) -> VideoTask:
    """Return the task that a record, as JSON, tells of; any fields of any types give one."""
    task = _typed(fields) or _by_field(fields)
    upsampled = task.upsample_video_url
    word = canonical(task.status)
    if upsampled is None and word == "completed" and task.upsample_status == _DONE:
        upsampled = task.video_url  # a gateway with one field for both
    wanted = _wants_upsample(task, word)
    phase = _phase(task, word, upsampled, wanted=wanted)
    return msgspec.structs.replace(
        task,
        phase=phase,
        failure_reason=None if phase is Phase.COMPLETED else _reason(fields, task.images, phase),
        family=NAME,
        ended=word in _ENDS or word in ENDS_OF_GATEWAYS,
        wants_upsample=wanted,
        upsample_video_url=upsampled,
    )


def _phase(task: VideoTask, word: str, upsampled: str | None, *, wanted: bool | None) -> Phase:
    plain = task.video_url
    if upsampled or (plain and wanted is False):
        return Phase.COMPLETED
    if plain and word == "completed" and wanted is None:
        return Phase.COMPLETED
    if plain and (word == "failed" or (word == "completed" and task.upsample_status == _BROKEN)):
        return Phase.COMPLETED_PLAIN
    if word.endswith("_failed"):
        return Phase.RETRYING
    return PHASE_OF_WORD.get(word, Phase.UNKNOWN)


def _wants_upsample(task: VideoTask, word: str) -> bool | None:
    if task.req is not None and task.req.enable_upsample is not None:
        return task.req.enable_upsample
    traces = task.upsample_generation_id or task.upsample_status or task.upsample_error
    return True if traces or "upsampl" in word else None


_REASONS: Final = ("video_generation_error", "upsample_error", "error", "error_message")


def _reason(fields: Mapping[str, Any], images: Sequence[SourceImage], phase: Phase) -> str | None:
    for name in _REASONS:
        if (value := fields.get(name)) and (said := reason_in(value)):
            return said
    failed = [image.error for image in images if image.error] if images else None
    said = reason_in(failed[0]) if failed else None
    return reason_among(fields) if said is None and phase is Phase.FAILED else said


_TRACES: Final = frozenset(
    {
        *("running", "created_at", "completed_at", "retry_count", "max_retries", "req", "images"),
        *("video_generation_id", "video_generation_status", "upsample_status", "error_sleep"),
    }
)
"""Fields that show beside a word which nobody knows that a task says it."""


def _is_state(task: VideoTask, fields: Mapping[str, Any]) -> bool:
    """Return whether a success without a video is the state of a task."""
    word = canonical(task.status)
    is_proven = is_named(task.id) or bool(task.status_update_time)
    if word in _REFUSALS:
        return is_proven
    if not is_proven and (error := own_error(fields)) is not None and error.is_own:
        return False
    if word in PHASE_OF_WORD or word in ENDS_OF_GATEWAYS or task.status_update_time:
        return True
    known = any(fields.get(name) is not None for name in _TRACES)
    return task.running is not None or (bool(word) and (is_proven or known))


def _without_future(task: VideoTask, reply: Reply) -> VideoTask:
    # Nothing has changed later than now: of a time to come everything true would be old.
    changed, served = task.status_update_time, server_time(reply)
    if not changed or served is None or changed / 1000 <= served + _CLOCKS_APART:
        return task
    extra = task.extra | {"status_update_time": changed}
    return msgspec.structs.replace(task, status_update_time=None, extra=extra)


# --- wrappers -------------------------------------------------------------------------------

_TELLING: Final = (
    *("status", "video_url", "upsample_video_url", "running", "status_update_time"),
    "video_generation_status",
)


def _merged(outer: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with what stands around it.

    The id is the outer one, which the gateway nearest to us made. A video outside is another than
    the plain one inside where that was upsampled, as gateways have one field for both.
    """
    merged = merged_with(outer, record)
    if outer.get("id"):
        merged["id"] = outer["id"]
    video, plain = outer.get("video_url"), record.get("video_url")
    is_other = video and plain and video != plain
    if is_other and not merged.get("upsample_video_url") and record.get("upsample_status") == _DONE:
        merged["upsample_video_url"] = video
    return merged


# --- typed, or field by field ---------------------------------------------------------------

_OURS: Final = frozenset({"phase", "failure_reason", "family", "ended", "wants_upsample", "extra"})
"""Fields of `VideoTask` that are no fields of a record."""
_READ_BY_FIELD: Final = _OURS | {"request"}


def _schema(cls: type[msgspec.Struct], types: Mapping[object, object], *, is_closed: bool) -> type:
    """Return what a struct is on the wire, where it is as documented.

    :param types: Of fields, by their name or their type in the struct, where the schema is
        narrower.
    :param is_closed: Whether a field that it does not know is refused.
    """
    fields = [field for field in msgspec.structs.fields(cls) if field.name not in _OURS]
    return msgspec.defstruct(
        cls.__name__,
        [
            (field.encode_name, types.get(field.name) or types.get(field.type, field.type), None)
            for field in fields
        ],
        forbid_unknown_fields=is_closed,
        gc=False,
    )


_Time: TypeAlias = Annotated[int, msgspec.Meta(ge=SECONDS_BELOW, lt=MICROSECONDS_FROM)]
_Url: TypeAlias = Annotated[str, msgspec.Meta(pattern=PLAIN_URL)]

_IMAGE_SCHEMA: Any = _schema(SourceImage, {}, is_closed=True)
_REQUEST_SCHEMA: Any = _schema(GenerationRequest, {}, is_closed=True)
_RECORD: Any = _schema(
    VideoTask,
    {
        str: Annotated[str, msgspec.Meta(min_length=1)],
        str | None: Annotated[str, msgspec.Meta(min_length=1)] | None,
        int | None: Annotated[int, msgspec.Meta(ge=0, le=MAX_WHOLE)] | None,
        "created_at": _Time | None,
        "status_update_time": _Time | None,
        "completed_at": _Time | None,
        "video_url": _Url | None,
        "upsample_video_url": _Url | None,
        "images": tuple[_IMAGE_SCHEMA, ...],
        "req": _REQUEST_SCHEMA | None,
    },
    is_closed=False,
)
"""A record in which nothing is to be read in another way than as it stands."""


def _typed(fields: Mapping[str, Any]) -> VideoTask | None:
    """Return a record that is as documented in one step; None where something in it is not."""
    if not _READ_BY_FIELD.isdisjoint(fields):
        return None
    try:
        msgspec.convert(fields, _RECORD)
        task = msgspec.convert(fields, VideoTask)
    except (msgspec.ValidationError, OverflowError):
        return None
    if unknown := fields.keys() - _TASK.keys():
        return msgspec.structs.replace(task, extra={name: fields[name] for name in unknown})
    return task


def _by_field(fields: Mapping[str, Any]) -> VideoTask:
    if isinstance(fields.get("request"), dict) and not fields.get("req"):
        fields = {"req" if name == "request" else name: value for name, value in fields.items()}
    return build(VideoTask, _TASK, fields)


def _images(value: object) -> tuple[SourceImage, ...]:
    items = msgspec.convert(value, list[dict[str, Any]])
    return tuple(build(SourceImage, _IMAGE, item) for item in items)


def _request(value: object) -> GenerationRequest:
    return build(GenerationRequest, _REQUEST, msgspec.convert(value, dict[str, Any]))


def _texts(value: object) -> tuple[str, ...]:
    return msgspec.convert(value, tuple[str, ...])


def _error_text(value: object) -> str | None:
    return reason_in(value) if isinstance(value, dict | list) else text(value)


_EXTRA: Final = frozenset({"extra"})
_IMAGE: Final = rules_of(SourceImage, {"error": _error_text}, ours=_EXTRA)
_REQUEST: Final = rules_of(GenerationRequest, {"images": _texts}, ours=_EXTRA)
_TASK: Final = rules_of(
    VideoTask,
    {
        "created_at": milliseconds,
        "status_update_time": milliseconds,
        "completed_at": milliseconds,
        "images": _images,
        "req": _request,
        "video_url": video_url,
        "upsample_video_url": video_url,
        "video_generation_error": _error_text,
        "upsample_error": _error_text,
        "error_message": _error_text,
        "error": _error_text,
        "reference_image_media_ids": _texts,
    },
    ours=_OURS,
)
