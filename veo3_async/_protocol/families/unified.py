"""Family D, ``unified``: V2, one endpoint for the models of all makers.

*  Words are compared without case, with the aliases that clients of it know; all else runs.
*  The URL is taken from ``video_url``, and of a task that has ended also from the known places of
   the provider's own reply (``raw_response``, an object or JSON in a text). No other text is
   looked at: source images are URLs, too.
*  ``upstream_task_id`` is the provider's id, another one than ``task_id``; ``request_id`` is of
   the HTTP request.
*  A failure of the network with an ``upstream_task_id`` may have been paid for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from veo3_async._errors import InvalidRequest
from veo3_async._models import GenerationRequest, Phase, VideoTask
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.families._fields import (
    Rules,
    build,
    is_named,
    milliseconds,
    rules_of,
    text,
    url_or_none,
    whole,
)
from veo3_async._protocol.families._options import ANY, Order, checked_options, image_urls
from veo3_async._protocol.families._outcome import task_or_problem
from veo3_async._protocol.families._route import Route, call_for_id
from veo3_async._protocol.families._words import (
    ENDS_OF_GATEWAYS,
    ENDS_OF_TASKS,
    RUNNING_WORDS,
    canonical,
)
from veo3_async._protocol.http import Call, Reply
from veo3_async._protocol.parsing import json_of, only, reason_among, reason_in
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
    "route_of",
    "siblings",
    "submitted",
]

NAME: Final = "unified"
TAKES_WEBHOOKS: Final = True
PATH: Final = "/302/v2/video/create"
_FETCH: Final = "/302/v2/video/fetch/"
MODELS: Final = (
    *("google-veo3", "google-veo3-fast", "google-veo3-pro", "google-veo3.1"),
    *("google-veo3.1-pro", "google-veo3.1-t2v", "google-veo3.1-i2v", "google-veo3.1-r2v"),
    *("kling-21", "official-kling-v3", "sora-2", "wan2.7-t2v", "viduq3-pro"),
    *("minimax-hailuo-2.3", "doubao-seedance-2-0-260128", "runway-gen4", "pixverse-v4.5"),
)
"""Those that were seen; the service knows more and says which."""

PHASE_OF_WORD: Final = (
    RUNNING_WORDS
    | ENDS_OF_TASKS
    | dict.fromkeys(("canceled", "cancelled", "timeout", "expired"), Phase.FAILED)
)
"""What the words mean, in lower case; whatever else may be said is UNKNOWN and runs."""

_OPTIONS: Final = dict.fromkeys(
    (
        *("aspect_ratio", "duration", "end_image", "enhance_prompt", "fps", "generate_audio"),
        *("mode", "negative_prompt", "quality", "resolution", "style", "video", "with_audio"),
    ),
    ANY,
)
_TELLING: Final = ("status", "video_url", "task_id", "upstream_task_id")
_OF_PROVIDERS: Final = ("task_status_msg", "status_msg")
_RAW_PLACES: Final = (
    ("file", "download_url"),
    ("upsample_video_url",),
    ("video_url",),
    ("video",),
    ("data", "video_url"),
    ("output", "video_url"),
)
_PLACES: Final = (("output", "video_url"), ("output", "video"), ("url",))
"""Of a task that has ended, beside its ``video_url``."""


def route_of(model: str) -> Route:
    """Return where tasks of a model are posted and polled."""
    return Route(NAME, PATH, model)


def siblings(route: Route) -> tuple[Route, ...]:
    """Return the other paths of the family: it has one."""
    del route
    return ()


def posted_to(route: Route, *, image: object | None) -> Route:
    """Return where a task is posted, and so polled."""
    del image
    return route


def body_of(route: Route, order: Order) -> dict[str, Any]:
    """Return the fields that submit a task.

    :raises InvalidRequest: Something of it is not taken.
    """
    if not route.model:
        message = "the unified endpoint wants a model; see models()"
        raise InvalidRequest(message)
    fields: dict[str, Any] = {"model": route.model, "prompt": order.prompt}
    fields |= checked_options(order.options, _OPTIONS, of=NAME)
    if "end_image" in fields:
        fields["end_image"] = image_urls(fields["end_image"], data_urls=True)[0]
    if order.image is not None:
        urls = image_urls(order.image, data_urls=True)
        fields["image"] = urls[0] if isinstance(order.image, str) else urls
    return fields


def submitted(route: Route, reply: Reply, *, wall_now: float) -> str | Problem:
    """Return the id that a reply to a submission names, or what is wrong with the reply."""
    del route
    return submitted_id(reply, wall_now=wall_now, names=("task_id", "id"))


def poll_call(route: Route, request_id: str) -> Call:
    """Return the request for the state of a task."""
    del route
    return call_for_id(_FETCH, request_id)


def read(route: Route, reply: Reply, *, request_id: str, wall_now: float) -> VideoTask | Problem:
    """Judge a reply to a poll. Total: any bytes give a task or a problem."""
    del route, request_id
    return task_or_problem(reply, _TELLING, _state, wall_now=wall_now)


def _state(fields: Mapping[str, Any]) -> VideoTask | None:
    """Return the task that an object tells of, None where it is no state of one."""
    task = build(VideoTask, _TASK, fields)
    word = canonical(task.status)
    raw = _parsed(fields.get("raw_response"))
    phase = PHASE_OF_WORD.get(word, Phase.UNKNOWN)
    url = task.video_url or url_or_none(fields.get("videoUrl"))
    if url is None and word in ENDS_OF_TASKS:
        url = _url_in(fields, _PLACES) or _url_in(raw, _RAW_PLACES)
    is_proven = is_named(task.id) or bool(task.created_at) or "upstream_task_id" in fields
    if url is None and not (bool(word) and (is_proven or word in RUNNING_WORDS)):
        return None
    if url is not None:
        phase = Phase.COMPLETED
    return VideoTask(
        id=task.id,
        status=task.status,
        phase=phase,
        failure_reason=_reason(fields, raw) if phase is Phase.FAILED else None,
        family=NAME,
        ended=phase.is_final or phase is Phase.GENERATED or word in ENDS_OF_GATEWAYS,
        wants_upsample=False,
        created_at=task.created_at,
        status_update_time=task.status_update_time,
        completed_at=task.completed_at,
        retry_count=task.retry_count,
        req=task.req,
        video_url=url,
        extra=task.extra,
    )


def _parsed(raw: object) -> Mapping[str, Any]:
    """Return the provider's own reply, which some models have as JSON in a text."""
    content = only(json_of(raw.encode(errors="replace")) if isinstance(raw, str) else raw)
    return content if isinstance(content, dict) else {}


def _url_in(content: Mapping[str, Any], places: Iterable[Sequence[str]]) -> str | None:
    for place in places:
        value: object = content
        for name in place:
            value = value.get(name) if isinstance(value, dict) else None
        if (url := url_or_none(value)) is not None:
            return url
    return None


def _reason(fields: Mapping[str, Any], raw: Mapping[str, Any]) -> str | None:
    error = fields.get("error")
    output = raw.get("output")
    said = (
        reason_in(output.get("message") if isinstance(output, dict) else None)
        or reason_among(fields, ("error",))
        or _reason_of_provider(fields.get("raw_response"), raw)
    )
    upstream = fields.get("upstream_task_id")
    if (
        isinstance(error, dict)
        and error.get("is_network_error")
        and isinstance(upstream, str | int)
    ):
        charged = f"it may have been made and charged at the provider, as {upstream}"
        return reason_in(f"{said or 'the network failed'}; {charged}")
    return said


def _reason_of_provider(said: object, raw: Mapping[str, Any]) -> str | None:
    """Return what the provider's own reply says, which may be a text; some say it one level in."""
    inner = (
        reason_among(value, _OF_PROVIDERS) for value in raw.values() if isinstance(value, dict)
    )
    return reason_in(said) or next(filter(None, inner), None)


def _request(value: object) -> GenerationRequest:
    if not isinstance(value, dict):
        raise TypeError
    image = value.get("image")
    images = [image] if isinstance(image, str) else image if isinstance(image, Sequence) else ()
    request = build(GenerationRequest, _REQUEST, value)
    return request if not images else _with_images(request, images)


def _with_images(request: GenerationRequest, images: Sequence[object]) -> GenerationRequest:
    urls = tuple(image for image in images if isinstance(image, str))
    return GenerationRequest(
        model=request.model,
        prompt=request.prompt,
        images=urls,
        enhance_prompt=request.enhance_prompt,
        aspect_ratio=request.aspect_ratio,
        extra=request.extra,
    )


def _retries(attempts: object) -> int | None:
    count = whole(attempts)
    return None if count is None else max(0, count - 1)


_REQUEST: Final[Rules] = {
    name: rule
    for name, rule in rules_of(
        GenerationRequest, {"images": text}, ours=frozenset({"extra", "images"})
    ).items()
    if name in {"model", "prompt", "enhance_prompt", "aspect_ratio"}
}
_TASK: Final[Rules] = {
    "task_id": ("id", text),
    "status": ("status", text),
    "created_at": ("created_at", milliseconds),
    "updated_at": ("status_update_time", milliseconds),
    "completed_at": ("completed_at", milliseconds),
    "failed_at": ("completed_at", milliseconds),
    "attempts": ("retry_count", _retries),
    "video_url": ("video_url", url_or_none),
    "req": ("req", _request),
}
