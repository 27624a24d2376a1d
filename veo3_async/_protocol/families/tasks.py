"""Family C, ``tasks``: veo3-v2, one path for many models.

*  The reply to a submission has the id in ``data``, a text; the path in its ``message`` is the
   upstream's, not 302.AI's.
*  The id is polled as a part of the path.
*  No field is documented for the reason of a failure: those that were seen are tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from veo3_async._errors import InvalidRequest
from veo3_async._models import Phase, VideoTask
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.families._fields import (
    Rules,
    build,
    is_named,
    milliseconds,
    text,
    url_or_none,
)
from veo3_async._protocol.families._options import (
    ANY,
    ASPECT_RATIOS,
    Order,
    checked_options,
    image_urls,
)
from veo3_async._protocol.families._outcome import task_or_problem
from veo3_async._protocol.families._route import Route, call_for_id
from veo3_async._protocol.families._words import (
    ENDS_OF_GATEWAYS,
    ENDS_OF_TASKS,
    RUNNING_WORDS,
    canonical,
)
from veo3_async._protocol.http import Call, Reply
from veo3_async._protocol.parsing import reason_among
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

NAME: Final = "tasks"
TAKES_WEBHOOKS: Final = False
PATH: Final = "/302/submit/veo3-v2"
_ANY_MODEL: Final = "veo3-v2"
MODELS: Final = (_ANY_MODEL, "veo3.1", "veo3.1-pro")
"""Those that no other family has; the path serves those of the others, too."""
_SERVED: Final = (
    *("veo3-fast", "veo3-fast-frames", "veo3-pro", "veo3-pro-frames", "veo3"),
    *("veo3.1", "veo3.1-pro"),
)

PHASE_OF_WORD: Final = RUNNING_WORDS | ENDS_OF_TASKS
"""What the words mean, in lower case; whatever else may be said is UNKNOWN and runs."""

_OPTIONS: Final = {"aspect_ratio": ASPECT_RATIOS, "duration": ANY, "enhance_prompt": ANY}
_VIDEOS: Final = ("videoUrl", "video_url", "videoUrls")
_IDS: Final = ("taskId", "task_id")
_TELLING: Final = ("status", "videoUrl", "taskId", "startTime")


def route_of(model: str) -> Route:
    """Return where tasks of a model are posted and polled."""
    return Route(NAME, PATH, "" if model == _ANY_MODEL else model)


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
    fields: dict[str, Any] = {"prompt": order.prompt}
    if route.model:
        fields["model"] = route.model
    elif "model" not in order.extra:
        message = (
            f"{_ANY_MODEL} serves {', '.join(_SERVED)}; name one of them, "
            f"such as model='veo3.1', or family='{NAME}' with any of them"
        )
        raise InvalidRequest(message)
    if order.image is not None:
        fields["images"] = image_urls(order.image)
    return fields | checked_options(order.options, _OPTIONS, of=route.model or _ANY_MODEL)


def submitted(route: Route, reply: Reply, *, wall_now: float) -> str | Problem:
    """Return the id that a reply to a submission names, or what is wrong with the reply."""
    del route
    names = ("data", "taskId", "task_id", "id")
    return submitted_id(reply, wall_now=wall_now, names=names)


def poll_call(route: Route, request_id: str) -> Call:
    """Return the request for the state of a task."""
    return call_for_id(f"{route.path}/", request_id)


def read(route: Route, reply: Reply, *, request_id: str, wall_now: float) -> VideoTask | Problem:
    """Judge a reply to a poll. Total: any bytes give a task or a problem."""
    del route, request_id
    return task_or_problem(reply, _TELLING, _state, wall_now=wall_now)


def _state(fields: Mapping[str, Any]) -> VideoTask | None:
    """Return the task that an object tells of, None where it is no state of one."""
    said = fields.get("status") or fields.get("code")
    status = said if isinstance(said, str) else ""
    word = canonical(status)
    url = next(filter(None, (url_or_none(fields.get(name)) for name in _VIDEOS)), None)
    is_named_here = any(is_named(str(fields.get(name) or "")) for name in _IDS)
    is_proven = is_named_here or bool(fields.get("startTime"))
    phase = PHASE_OF_WORD.get(word, Phase.UNKNOWN)
    if url is None and not _is_said_by_a_task(word, is_proven=is_proven):
        return None
    if url is not None:
        phase = Phase.COMPLETED
    known = build(VideoTask, _TASK, {**fields, "status": status})
    return VideoTask(
        id=known.id,
        status=status,
        phase=phase,
        failure_reason=reason_among(fields) if phase is Phase.FAILED else None,
        family=NAME,
        ended=phase.is_final or phase is Phase.GENERATED or word in ENDS_OF_GATEWAYS,
        wants_upsample=False,
        created_at=known.created_at,
        completed_at=known.completed_at,
        video_url=url,
        extra=known.extra,
    )


def _is_said_by_a_task(word: str, *, is_proven: bool) -> bool:
    if word in ENDS_OF_TASKS:  # words of every envelope
        return is_proven
    return word in RUNNING_WORDS or word in ENDS_OF_GATEWAYS or (bool(word) and is_proven)


_TASK: Final[Rules] = {
    "taskId": ("id", text),
    "status": ("status", str),
    "startTime": ("created_at", milliseconds),
    "finishTime": ("completed_at", milliseconds),
    "videoUrl": ("video_url", url_or_none),
}
