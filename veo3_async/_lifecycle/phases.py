"""THE state machine: what a reply means for one id, as one watch sees it.

The table says which of the service's statuses is which phase. The rules, in this order:

1.  After a final transition nothing follows.
2.  A reply whose ``status_update_time`` is older than one already seen changes nothing, but for
    rule 3, and for an end: clocks of servers differ, so one that is told for 60 s is believed.
    Where it has no time, it is old if it goes back to an earlier phase of the same attempt.
3.  The URL decides, not the word: a task is done when the video that was asked for is there,
    whatever its age, its status and its left-over error texts say. Once seen, a URL is kept.
4.  A failure is an attempt while the service runs on, and final when it does not: ``running``
    says so; where it is absent, ``failed`` and ``error`` are final, and a ``…_failed`` is once
    ``retry_count`` has reached ``max_retries``.
5.  A final failure with the plain video there ends with the plain video.
6.  A service that says it has ended (``running`` is false, whatever the word beside it, or it is
    absent and the word is ``completed``), and has not the video that was asked for, is asked for
    another 60 s; then the plain video, or the lack of one, is the result. A task in the queue has
    not begun, and so has not ended.
7.  Anything else is a transition if it puts the id into a phase that it has not been in during
    this attempt (``retry_count``).
"""

from __future__ import annotations

import functools
from typing import Final, Literal, TypeAlias

import msgspec

from veo3_async._errors import CompletedWithoutVideo, InvalidRequest, TaskFailed, Veo3Error
from veo3_async._models import FINAL, Phase, Transition, VideoTask

__all__ = [
    "ARROWS",
    "GRACE",
    "NEW",
    "PHASE_OF_STATUS",
    "State",
    "Until",
    "complaint",
    "end",
    "grace_left",
    "kept_once",
    "observe",
    "remembered",
]

Until: TypeAlias = Literal["best", "video"]

PHASE_OF_STATUS: Final = {
    "pending": Phase.QUEUED,
    "image_downloading": Phase.PREPARING,
    "video_generating": Phase.GENERATING,
    "video_generation_completed": Phase.GENERATED,
    "video_upsampling": Phase.UPSAMPLING,
    "video_upsampling_completed": Phase.UPSAMPLING,
    "completed": Phase.GENERATED,  # and its best video is still to come, else it were final
    "video_generation_failed": Phase.RETRYING,  # and the service runs on, else it were final
    "video_upsampling_failed": Phase.RETRYING,
    "failed": Phase.RETRYING,
    "error": Phase.RETRYING,
}
"""The upstream's list, as seen; another ``…_failed`` is RETRYING too, anything else UNKNOWN."""

ARROWS: Final[dict[Phase | None, tuple[Phase, ...]]] = {
    None: (Phase.QUEUED,),
    Phase.QUEUED: (Phase.PREPARING, Phase.GENERATING),
    Phase.PREPARING: (Phase.GENERATING, Phase.RETRYING),
    Phase.GENERATING: (Phase.GENERATED, Phase.RETRYING, Phase.COMPLETED, Phase.FAILED),
    Phase.GENERATED: (Phase.UPSAMPLING, Phase.COMPLETED, Phase.COMPLETED_PLAIN),
    Phase.UPSAMPLING: (Phase.RETRYING, Phase.COMPLETED, Phase.COMPLETED_PLAIN),
    Phase.RETRYING: (
        Phase.GENERATING,
        Phase.UPSAMPLING,
        Phase.COMPLETED,
        Phase.COMPLETED_PLAIN,
        Phase.FAILED,
    ),
}
"""How a task goes on; None is the beginning. A stream may skip phases that fell between two
polls; every running phase may also turn UNKNOWN and come back, FAILED, or LOST."""


GRACE: Final = 60.0
"""Seconds that an end may precede its URL; the wire page saw a poll or two of 10 s."""

_ORDER: Final = (
    Phase.QUEUED,
    Phase.PREPARING,
    Phase.GENERATING,
    Phase.GENERATED,
    Phase.UPSAMPLING,
)
_BIT: Final = {phase: 1 << place for place, phase in enumerate(Phase)}
_FAILED_FOR_GOOD: Final = frozenset({"failed", "error"})
_UPSTREAM_FAILED: Final = "MEDIA_GENERATION_STATUS_FAILED"


class State(msgspec.Struct, frozen=True, gc=False):
    """What one watch remembers of one id: little, for there may be a million."""

    phase: Phase | None = None
    """Of the last transition; None before the first."""
    status: str = ""
    """The service's last word."""
    attempt: int = 0
    """The highest ``retry_count`` seen."""
    been: int = 0
    """The phases of this attempt, a bit each."""
    entered_at: int | None = None
    """When the phase began, milliseconds of the server's clock, where it told."""
    updated_at: int | None = None
    """The newest ``status_update_time`` seen, the same clock."""
    video_url: str | None = None
    """The plain video, once seen."""
    upsample: bool | None = None
    """Whether an upsampled video was asked for; None while nothing told."""
    ended_since: float | None = None
    """When the service first said that it has ended, monotonic seconds; None while it runs."""

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self.phase in FINAL


NEW: Final = State()
"""An id of which nothing is known yet."""


def observe(
    state: State,
    task: VideoTask,
    now: float,
    *,
    request_id: str,
    until: Until = "best",
    wall_now: float,
) -> tuple[State, Transition | None]:
    """Return the state after a reply, and the transition that it makes, if it makes one.

    :param now: Seconds of the monotonic clock.
    :param until: ``"video"`` is content with the plain video, ``"best"`` waits for the
        upsampled one where one was asked for.
    :param wall_now: Seconds since the epoch, for ``Transition.observed_at``.
    """
    if state.final:
        return state, None
    if task.video_url is None and state.video_url is not None:
        task = msgspec.structs.replace(task, video_url=state.video_url)
    seen = _seen(state, task, now)
    if _is_old(state, task) and not (_has_best(seen, task, until) or _has_waited(seen, now)):
        return _after_old(state, seen), None
    phase, error = _judge(seen, task, now, until, request_id)
    if phase is None or (phase not in FINAL and not _is_news(seen, task, phase)):
        return seen, None
    entered = msgspec.structs.replace(
        seen,
        phase=phase,
        been=seen.been | _BIT[phase],
        entered_at=(task.completed_at if phase in FINAL else None) or task.status_update_time,
    )
    return entered, Transition(
        request_id=request_id,
        phase=phase,
        previous=state.phase,
        status=task.status,
        task=task,
        observed_at=wall_now,
        final=phase in FINAL,
        error=error,
    )


def end(state: State, error: Veo3Error, *, request_id: str, wall_now: float) -> Transition:
    """Return the final transition for an end that is not the service's word on the task.

    :param state: One that is not final.
    """
    return Transition(
        request_id=request_id,
        phase=Phase.FAILED if isinstance(error, InvalidRequest) else Phase.LOST,
        previous=state.phase,
        status=state.status,
        task=error.task or remembered(state, request_id),
        observed_at=wall_now,
        final=True,
        error=error,
    )


def remembered(state: State, request_id: str) -> VideoTask:
    """Return what is still known of a task whose last reply is no longer kept."""
    return VideoTask(
        id=request_id,
        status=state.status,
        status_update_time=state.updated_at,
        retry_count=state.attempt if state.phase else None,
        video_url=state.video_url,
    )


def grace_left(state: State, now: float) -> float | None:
    """Return the seconds until a service that says it has ended is believed.

    None where it says that it runs, or where it has yet to say it again after that time.
    """
    if state.ended_since is None or _has_waited(state, now):
        return None
    return state.ended_since + GRACE - now


def _has_waited(state: State, now: float) -> bool:
    return state.ended_since is not None and now >= state.ended_since + GRACE


def complaint(task: VideoTask) -> str | None:
    """Return the service's own words on what went wrong, or None where it has none."""
    return task.video_generation_error or task.error_message


def _is_old(state: State, task: VideoTask) -> bool:
    if task.status_update_time and state.updated_at:
        return task.status_update_time < state.updated_at
    phase = PHASE_OF_STATUS.get(task.status)
    return (
        phase in _ORDER
        and state.phase in _ORDER
        and (task.retry_count is None or task.retry_count <= state.attempt)
        and not _has_ended(task)
        and _ORDER.index(phase) < _ORDER.index(state.phase)
    )


def _after_old(state: State, seen: State) -> State:
    # An old reply makes no transition, but a video that it shows exists, and an end that it
    # tells begins to count.
    video_url = state.video_url or seen.video_url
    ended_since = state.ended_since if seen.ended_since is None else seen.ended_since
    if (video_url, ended_since) == (state.video_url, state.ended_since):
        return state
    return msgspec.structs.replace(state, video_url=video_url, ended_since=ended_since)


@functools.lru_cache(maxsize=256)
def kept_once(text: str) -> str:
    """Return a text of the service as it is kept already: a million ids share a dozen words.

    Not `sys.intern`: on Python 3.12 that keeps every one of them for ever.
    """
    return text


def _seen(state: State, task: VideoTask, now: float) -> State:
    attempt = max(state.attempt, task.retry_count or 0)
    ended = _has_ended(task)
    return State(
        phase=state.phase,
        status=kept_once(task.status),
        attempt=attempt,
        been=state.been if attempt == state.attempt else 0,
        entered_at=state.entered_at,
        updated_at=task.status_update_time or state.updated_at,
        video_url=task.video_url,
        upsample=_wants_upsample(state, task),
        ended_since=(state.ended_since if state.ended_since is not None else now)
        if ended
        else None,
    )


def _has_ended(task: VideoTask) -> bool:
    if task.running is None:
        return task.status == "completed" or _has_failed(task)
    is_queued = task.status == "pending" and task.video_url is None
    return not task.running and not is_queued


def _wants_upsample(state: State, task: VideoTask) -> bool | None:
    if task.req is not None and task.req.enable_upsample is not None:
        return task.req.enable_upsample
    if task.upsample_generation_id or task.upsample_status or "upsampl" in task.status:
        return True
    return state.upsample


def _judge(
    seen: State, task: VideoTask, now: float, until: Until, request_id: str
) -> tuple[Phase | None, Veo3Error | None]:
    """Return the phase that a reply speaks of, None where it speaks of none."""
    if _has_best(seen, task, until):
        return Phase.COMPLETED, None
    failed = _has_failed(task)
    waited = _has_waited(seen, now)
    if task.video_url and (failed or waited or _no_upsample(seen, task)):
        return (Phase.COMPLETED_PLAIN if seen.upsample else Phase.COMPLETED), None
    if failed:
        return Phase.FAILED, TaskFailed(
            f"the service gave the task up: {_reason(task)}", request_id=request_id, task=task
        )
    if waited:
        return Phase.FAILED, _without_video(task, request_id)
    if task.status == "completed" and not task.video_url:
        return None, None
    if task.status.endswith("_failed"):
        return Phase.RETRYING, None
    return PHASE_OF_STATUS.get(task.status, Phase.UNKNOWN), None


def _without_video(task: VideoTask, request_id: str) -> Veo3Error:
    if task.status == "completed":
        message = f"completed for {GRACE:.0f} s, and no video: {_reason(task)}"
        return CompletedWithoutVideo(message, request_id=request_id, task=task)
    message = f"the service has stopped, and said {task.status!r}: {_reason(task)}"
    return TaskFailed(message, request_id=request_id, task=task)


def _has_best(seen: State, task: VideoTask, until: Until) -> bool:
    if task.upsample_video_url:
        return True
    return task.video_url is not None and (until == "video" or seen.upsample is False)


def _no_upsample(seen: State, task: VideoTask) -> bool:
    """Return whether it is certain that no upsampled video will come."""
    if seen.ended_since is None:
        return False
    return not seen.upsample or task.upsample_status == _UPSTREAM_FAILED


def _has_failed(task: VideoTask) -> bool:
    if task.status not in _FAILED_FOR_GOOD and not task.status.endswith("_failed"):
        return False
    if task.running is not None:
        return not task.running
    if task.status in _FAILED_FOR_GOOD:
        return True
    if task.retry_count is None or task.max_retries is None:
        return False
    return task.retry_count >= task.max_retries


def _reason(task: VideoTask) -> str:
    return complaint(task) or "no reason given"


def _is_news(seen: State, task: VideoTask, phase: Phase) -> bool:
    if task.retry_count is not None and task.retry_count < seen.attempt:
        return False  # of an attempt that is over
    return not seen.been & _BIT[phase]
