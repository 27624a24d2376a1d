"""THE state machine: what a reply means for one id, as one watch sees it.

What the service's words mean, the family that read the reply has said (`VideoTask.phase`). A watch
knows the replies before, too. The rules, in this order:

1.  After a final transition nothing follows.
2.  A reply whose ``status_update_time`` is older than one already seen changes nothing, but for
    rule 3, and for an end: clocks of servers differ, so one that is said for 60 s is believed.
    Where it has no time, it is old if it goes back to an earlier phase of the same attempt.
3.  The URL decides, not the word: a task is done when the video that was asked for is there,
    whatever its age, its status and its left-over error texts say. Once seen, a URL is kept. An
    upsampled URL that was the plain one before is the plain one.
4.  A failure that the family calls final is one; with the plain video there, that is the result.
    Nothing else is an end by itself: no failed attempt, no count of retries, no ``running: false``.
5.  A service that says it has ended (`VideoTask.ended`), and has not the video that was asked for,
    is asked for another 60 s; then the plain video, or the lack of one, is the result.
6.  Where for 2 h nothing has changed at all (status, times, retries, images, URLs), sight of the
    task is lost: LOST, not failed, with the plain video if there is one.
7.  Anything else is a transition if it puts the id into a phase that it has not been in during
    this attempt (``retry_count``).
"""

from __future__ import annotations

import functools
import zlib
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from veo3_async._errors import (
    CompletedWithoutVideo,
    InvalidRequest,
    StillPending,
    TaskFailed,
    Veo3Error,
)
from veo3_async._models import FINAL, Phase, Transition, VideoTask

__all__ = [
    "ARROWS",
    "GRACE",
    "NEW",
    "STANDSTILL",
    "State",
    "Until",
    "end",
    "grace_left",
    "kept_once",
    "observe",
    "remembered",
    "says_the_same",
    "standstill_left",
]

Until: TypeAlias = Literal["best", "video"]
"""What a watch waits for: the upsampled video where one was asked for, or the first video."""

ARROWS: Final[dict[Phase | None, tuple[Phase, ...]]] = {
    None: (Phase.QUEUED,),
    Phase.QUEUED: (Phase.PREPARING, Phase.GENERATING),
    Phase.PREPARING: (Phase.GENERATING, Phase.RETRYING),
    Phase.GENERATING: (Phase.GENERATED, Phase.RETRYING, Phase.COMPLETED, Phase.FAILED),
    Phase.GENERATED: (Phase.UPSAMPLING, Phase.COMPLETED, Phase.COMPLETED_PLAIN),
    Phase.UPSAMPLING: (Phase.RETRYING, Phase.COMPLETED, Phase.COMPLETED_PLAIN),
    Phase.RETRYING: (
        Phase.QUEUED,
        Phase.PREPARING,
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
"""Seconds that an end may precede its URL; a poll or two of 10 s were seen."""

STANDSTILL: Final = 7200.0
"""Seconds without any change after which sight of a task is lost; whole tasks take 3 to 6 min."""

_ORDER: Final = (
    Phase.QUEUED,
    Phase.PREPARING,
    Phase.GENERATING,
    Phase.GENERATED,
    Phase.UPSAMPLING,
)
_BIT: Final = {phase: 1 << place for place, phase in enumerate(Phase)}
_COMPLETED_WORD: Final = frozenset({Phase.GENERATED, Phase.COMPLETED})
"""How a family calls a task of which the service says that it is completed, beside `ended`."""


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
    fingerprint: int | None = None
    """Of what the last reply said; None before the first."""
    unchanged_since: float | None = None
    """When a reply first said so, monotonic seconds; None before the first."""

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
    seen = _seen(state, task, now)
    task = _with_memory(state, task)
    if _is_old(state, task) and not (_has_best(seen, task, until) or _has_waited(seen, now)):
        return _if_it_stands_still(_after_old(state, seen), task, now, request_id, wall_now)
    phase, error = _judge(seen, task, now, until, request_id)
    if phase is None or (phase not in FINAL and not _is_new(seen, task, phase)):
        return _if_it_stands_still(seen, task, now, request_id, wall_now)
    entered = replace(
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
        task=_as_judged(task, phase),
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
        phase=state.phase or Phase.UNKNOWN,
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


def standstill_left(state: State, now: float) -> float | None:
    """Return the seconds until a reply that says the same again is the end; None before the first.

    Who passes over replies that equal the last one must let `observe` see one when they are over.
    """
    if state.unchanged_since is None:
        return None
    return max(0.0, state.unchanged_since + STANDSTILL - now)


def says_the_same(state: State, task: VideoTask) -> bool:
    """Return whether a reply says what the last one said, as far as the standstill goes by it."""
    return state.fingerprint == _fingerprint(task)


@functools.lru_cache(maxsize=256)
def kept_once(text: str) -> str:
    """Return a text of the service as it is kept already: a million ids share a dozen words.

    Not `sys.intern`: on Python 3.12 that keeps every one of them for ever.
    """
    return text


# --- what is seen -----------------------------------------------------------------------------


def _with_memory(state: State, task: VideoTask) -> VideoTask:
    """Return a task with the plain video that was seen before."""
    if state.video_url is None:
        return task
    if task.upsample_video_url == state.video_url:
        task = replace(task, upsample_video_url=None)
    return replace(task, video_url=state.video_url) if task.video_url is None else task


def _seen(state: State, task: VideoTask, now: float) -> State:
    attempt = max(state.attempt, task.retry_count or 0)
    fingerprint = _fingerprint(task)
    ended_since = None
    if task.ended:
        ended_since = now if state.ended_since is None else state.ended_since
    return State(
        phase=state.phase,
        status=kept_once(task.status),
        attempt=attempt,
        been=state.been if attempt == state.attempt else 0,
        entered_at=state.entered_at,
        updated_at=task.status_update_time or state.updated_at,
        video_url=task.video_url or state.video_url,
        upsample=state.upsample if task.wants_upsample is None else task.wants_upsample,
        ended_since=ended_since,
        fingerprint=fingerprint,
        unchanged_since=state.unchanged_since if fingerprint == state.fingerprint else now,
    )


def _fingerprint(task: VideoTask) -> int:
    """Return a number that tells two replies apart, the same in every process."""
    says = (
        task.status,
        task.status_update_time,
        task.retry_count,
        task.video_url,
        task.upsample_video_url,
        *[image.status for image in task.images],
    )
    return zlib.crc32(repr(says).encode(errors="replace"))


def _is_old(state: State, task: VideoTask) -> bool:
    if task.status_update_time and state.updated_at:
        return task.status_update_time < state.updated_at
    return (
        task.phase in _ORDER
        and state.phase in _ORDER
        and (task.retry_count is None or task.retry_count <= state.attempt)
        and not task.ended
        and _ORDER.index(task.phase) < _ORDER.index(state.phase)
    )


def _after_old(state: State, seen: State) -> State:
    # An old reply makes no transition, but a video that it shows exists, an end that it tells
    # begins to count, and where no two replies are the same, something goes on.
    return replace(
        state,
        video_url=state.video_url or seen.video_url,
        ended_since=state.ended_since if seen.ended_since is None else seen.ended_since,
        fingerprint=seen.fingerprint,
        unchanged_since=seen.unchanged_since,
    )


def _has_waited(state: State, now: float) -> bool:
    return state.ended_since is not None and now >= state.ended_since + GRACE


# --- what it means ----------------------------------------------------------------------------


def _judge(
    seen: State, task: VideoTask, now: float, until: Until, request_id: str
) -> tuple[Phase | None, Veo3Error | None]:
    """Return the phase that a reply speaks of, None where it speaks of none."""
    if _has_best(seen, task, until):
        return Phase.COMPLETED, None
    is_completed = task.ended and task.phase in _COMPLETED_WORD
    waited = _has_waited(seen, now)
    if task.video_url:
        if task.phase in {Phase.FAILED, Phase.COMPLETED_PLAIN}:
            return Phase.COMPLETED_PLAIN, None
        if waited or (is_completed and not seen.upsample):
            return (Phase.COMPLETED_PLAIN if seen.upsample else Phase.COMPLETED), None
    if task.phase is Phase.FAILED or waited:
        return Phase.FAILED, _failure(task, request_id, is_completed=is_completed)
    if is_completed and not task.video_url:
        return None, None
    return (Phase.GENERATED if task.phase in FINAL else task.phase), None


def _has_best(seen: State, task: VideoTask, until: Until) -> bool:
    if task.upsample_video_url:
        return True
    return task.video_url is not None and (until == "video" or seen.upsample is False)


def _failure(task: VideoTask, request_id: str, *, is_completed: bool) -> Veo3Error:
    kind: type[Veo3Error] = TaskFailed
    said = "the service gave the task up"
    if is_completed:
        kind, said = CompletedWithoutVideo, f"completed for {GRACE:.0f} s, and no video"
    elif task.phase is not Phase.FAILED:
        said = f"the service has said {task.status!r} for {GRACE:.0f} s"
    message = f"{said}: {task.failure_reason or 'no reason given'}"
    return kind(message, request_id=request_id, task=_as_judged(task, Phase.FAILED))


def _as_judged(task: VideoTask, phase: Phase) -> VideoTask:
    reason = None if phase is Phase.COMPLETED else task.failure_reason
    if (task.phase, task.failure_reason) == (phase, reason):
        return task
    return replace(task, phase=phase, failure_reason=reason)


def _is_new(seen: State, task: VideoTask, phase: Phase) -> bool:
    if task.retry_count is not None and task.retry_count < seen.attempt:
        return False  # of an attempt that is over
    return not seen.been & _BIT[phase]


def _if_it_stands_still(
    seen: State, task: VideoTask, now: float, request_id: str, wall_now: float
) -> tuple[State, Transition | None]:
    if standstill_left(seen, now):
        return seen, None
    message = (
        f"nothing of the task has changed for {STANDSTILL / 3600:.0f} h, and the service still "
        f"says {task.status!r}; it may go on, watch the id again"
    )
    error = StillPending(message, request_id=request_id, task=task)
    transition = end(seen, error, request_id=request_id, wall_now=wall_now)
    return replace(seen, phase=transition.phase), transition
