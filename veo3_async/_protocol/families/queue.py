"""Family B, ``queue``: fal's queue protocol, handed through (veo3, veo2).

*  An object ``video`` with a URL is the end, with or without a status: a finished reply may be
   the bare output, without status and id.
*  ``COMPLETED`` beside ``error`` or ``detail`` is a failure; without a video and without an error
   it is asked for again.
*  ``detail`` as a list is fal's own word on what was asked for, and final; as a text it passes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

from veo3_async._errors import InvalidRequest
from veo3_async._models import Phase, VideoTask
from veo3_async._protocol.errors import Problem, own_error
from veo3_async._protocol.families._fields import is_named, url_or_none
from veo3_async._protocol.families._options import (
    ANY,
    ASPECT_RATIOS,
    Order,
    checked_options,
    refuse_image,
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
from veo3_async._protocol.ids import is_form_of
from veo3_async._protocol.parsing import json_of, reason_among, reason_in
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

NAME: Final = "queue"
TAKES_WEBHOOKS: Final = False
MODELS: Final = ("veo3", "veo2")

PHASE_OF_WORD: Final = RUNNING_WORDS | ENDS_OF_TASKS
"""What the words mean, in lower case; whatever else may be said is UNKNOWN and runs."""

_PATH: Final = "/302/submit/"
_OPTIONS: Final = {"aspect_ratio": ANY, "enhance_prompt": ANY, "generate_audio": ANY}
_DURATIONS: Final = ("5s", "6s", "7s", "8s")
_OPTIONS_OF_VEO2: Final = {"aspect_ratio": ASPECT_RATIOS, "duration": _DURATIONS}
_KNOWN: Final = frozenset({"request_id", "status", "video", "error", "detail"})
_VIDEOS: Final = ("video", "videos", "video_url")
_OUTPUTS: Final = ("output", "response", "payload", "data", "result")
_TELLING: Final = ("status", "request_id")
_REASONS: Final = ("error", "detail")
_OF_A_GET: Final = ("query", "path", "header", "cookie")


def route_of(model: str) -> Route:
    """Return where tasks of a model are posted and polled."""
    return Route(NAME, _PATH + model)


def siblings(route: Route) -> tuple[Route, ...]:
    """Return the other paths of the family."""
    return tuple(other for name in MODELS if (other := route_of(name)) != route)


def posted_to(route: Route, *, image: object | None) -> Route:
    """Return where a task is posted, and so polled.

    :raises InvalidRequest: There is an image.
    """
    model = route.path.removeprefix(_PATH)
    refuse_image(image, of=model, other="veo3-pro, veo3.1 or a unified model")
    return route


def body_of(route: Route, order: Order) -> dict[str, Any]:
    """Return the fields that submit a task.

    :raises InvalidRequest: Something of it is not taken.
    """
    model = route.path.removeprefix(_PATH)
    fields: dict[str, Any] = {"prompt": order.prompt}
    if model != "veo2":
        return fields | checked_options(order.options, _OPTIONS, of=model)
    given = dict(order.options)
    if isinstance(given.get("duration"), int):
        given["duration"] = f"{given['duration']}s"
    fields |= checked_options(given, _OPTIONS_OF_VEO2, of=model)
    if "aspect_ratio" not in fields and "aspect_ratio" not in order.extra:
        message = "veo2 wants aspect_ratio: 16:9 or 9:16"
        raise InvalidRequest(message)
    return fields


def submitted(route: Route, reply: Reply, *, wall_now: float) -> str | Problem:
    """Return the id that a reply to a submission names, or what is wrong with the reply."""
    del route
    return submitted_id(reply, wall_now=wall_now, names=("request_id", "task_id", "id"))


def poll_call(route: Route, request_id: str) -> Call:
    """Return the request for the state of a task."""
    return call_for_id(f"{route.path}?request_id=", request_id)


def read(route: Route, reply: Reply, *, request_id: str, wall_now: float) -> VideoTask | Problem:
    """Judge a reply to a poll. Total: any bytes give a task or a problem."""
    del route
    content = json_of(reply.body) if b"detail" in reply.body else None
    if isinstance(content, dict) and (why := _final_detail(content)) and reply.status < 500:
        return _task(content, "", Phase.FAILED, reason=why)
    state = functools.partial(_state, request_id=request_id)
    return task_or_problem(reply, _TELLING, state, wall_now=wall_now)


def _state(fields: Mapping[str, Any], *, request_id: str) -> VideoTask | None:
    """Return the task that an object tells of, None where it is no state of one.

    Envelopes of gateways have a ``request_id`` of their own, too: beside a word of theirs for a
    failure it must be the one that was asked for.
    """
    said = fields.get("status")
    status = said if isinstance(said, str) else ""
    word = canonical(status)
    phase = PHASE_OF_WORD.get(word, Phase.UNKNOWN)
    if _video(fields) is not None:
        return _task(fields, status, Phase.COMPLETED)
    own_id = str(fields.get("request_id") or "")
    is_proven = is_named(own_id) and (word != "error" or is_form_of(own_id, request_id))
    trouble = next(filter(None, (reason_in(fields.get(name)) for name in _REASONS)), None)
    if not is_proven and (error := own_error(fields)) is not None and error.is_own:
        return None
    if word == "completed" or (is_proven and phase is Phase.GENERATED):
        phase = Phase.FAILED if trouble else Phase.GENERATED
        return _task(fields, status, phase, reason=trouble)
    if phase is Phase.FAILED:
        reason = reason_among(fields, _REASONS) or reason_in(fields.get("error_type"))
        return _task(fields, status, Phase.FAILED, reason=reason) if is_proven else None
    known = word in RUNNING_WORDS or word in ENDS_OF_GATEWAYS
    if not word or not (is_proven or (known and not trouble)):
        return None
    return _task(fields, status, phase, reason=trouble)


def _video(fields: Mapping[str, Any]) -> str | None:
    """Return the URL of the video: of the output itself, or of what holds it."""
    holders = (fields, *(fields.get(name) for name in _OUTPUTS))
    found = (
        url_or_none(holder.get(name))
        for holder in holders
        if isinstance(holder, dict)
        for name in _VIDEOS
    )
    return next(filter(None, found), None)


def _task(
    fields: Mapping[str, Any], status: str, phase: Phase, *, reason: str | None = None
) -> VideoTask:
    word = canonical(status)
    extra = {name: value for name, value in fields.items() if name not in _KNOWN}
    extra |= {name: fields[name] for name in ("video", "error", "detail") if fields.get(name)}
    own_id = fields.get("request_id")
    return VideoTask(
        id=str(own_id) if isinstance(own_id, str | int) else "",
        status=status,
        phase=phase,
        failure_reason=reason,
        family=NAME,
        ended=phase.is_final or phase is Phase.GENERATED or word in ENDS_OF_GATEWAYS,
        wants_upsample=False,
        video_url=_video(fields),
        extra=extra,
    )


def _final_detail(content: Mapping[str, Any]) -> str | None:
    """Return what fal says of a request that it refuses for good, None where it does not."""
    detail = content.get("detail")
    if not isinstance(detail, list) or not detail or content.get("video"):
        return None
    return (reason_in(detail) or "no reason given") if all(map(_is_fals, detail)) else None


def _is_fals(one: object) -> bool:
    """Return whether fal says it of what was asked for, not a gateway of our GET."""
    if not isinstance(one, dict) or "msg" not in one or "type" not in one:
        return False
    place = one.get("loc")
    return not isinstance(place, list) or not place or place[0] not in _OF_A_GET
