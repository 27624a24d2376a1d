"""The step of a worker: from one record of an id to the next, by the judge that all loops share.

``now`` is seconds since the epoch throughout: the next poll may be another machine's. What a
pacing learns between two polls lives in the worker's memory (`Track`), and begins anew at a
takeover.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from veo3_async._lifecycle.judge import Answer, Context, Ruling, Track, View, judge, judge_bug
from veo3_async._lifecycle.phase_clock import NOT_SEEN, PhaseClock
from veo3_async._lifecycle.retries import Streak
from veo3_async._models import Phase
from veo3_async._pacing.policies import Eta, Pacing, Progress
from veo3_async._protocol.http import Reply
from veo3_async.cluster._record import Record

__all__ = ["Silent", "Step", "begun", "is_news", "step", "step_bug", "track_of"]

_COUNTED_FAULTS: Final = 6  # the backoff has its cap then: more need no record


class Step(msgspec.Struct, frozen=True):
    """What follows from one poll."""

    record: Record
    track: Track
    delay: float | None
    """Seconds until the next poll; None after the end."""
    fatal: BaseException | None = None
    """Why no id can be polled."""


class Silent:
    """A pacing that learns nothing, for a poll that may have to be judged again."""

    __slots__ = ("_pacing",)

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing

    def delay(self, progress: Progress, rand: float) -> float:  # noqa: ARG002 - nobody waits it out
        """Return any duration."""
        return 0.0

    def phase_ended(self, last: Progress, lasted: float, successor: Phase) -> None:
        """Learn nothing."""

    def eta(self, progress: Progress) -> Eta | None:
        """Return what is left, as the pacing knows."""
        return self._pacing.eta(progress)


def begun(last: Record | None, request_id: str, watch: int) -> Record:
    """Return what is known of an id when it is polled.

    An id that was lost from sight begins anew when it is watched again; another end stays.

    :param last: Its last record, or None where there is none.
    :param watch: Sequence of the message by which it is watched.
    """
    if last is None:
        return Record(request_id=request_id, watch=watch)
    if last.final and last.watch != watch and last.state.phase is Phase.LOST:
        return Record(request_id=request_id, watch=watch, serial=last.serial)
    return last if last.final else replace(last, watch=watch)


def track_of(record: Record) -> Track:
    """Return what a worker knows of an id that it takes over."""
    return Track(record.request_id, record.streak, _clock(record), record.change is not None)


def step(
    record: Record,
    track: Track,
    answer: Answer,
    *,
    reply: Reply | None,
    pacing: Pacing,
    context: Context,
) -> Step:
    """Return what is known after a poll, and when to ask again."""
    views = [View(record.state)]
    return _stepped(
        record, judge(track, views, answer, reply=reply, pacing=pacing, context=context)
    )


def step_bug(record: Record, track: Track, bug: Exception, context: Context) -> Step:
    """Return what is known after a poll at which a bug of ours was met: the id is lost."""
    return _stepped(record, judge_bug(track, [View(record.state)], bug, context))


def is_news(before: Record, after: Record) -> bool:
    """Whether a record differs from the one before, so that it is to be written."""
    return (before.serial, before.state, before.streak) != (
        after.serial,
        after.state,
        after.streak,
    )


def _stepped(record: Record, ruling: Ruling) -> Step:
    [view] = ruling.views
    after = replace(record, state=view.state, streak=_capped(ruling.track.faults))
    if view.change is not None:
        last = ruling.track.clock.last
        after = replace(
            after,
            serial=record.serial + 1,
            news=0,
            change=view.change,
            age=0.0 if last is None or view.change.final else last.age,
        )
    return Step(after, ruling.track, ruling.delay, ruling.fatal)


def _clock(record: Record) -> PhaseClock:
    if record.change is None:
        return NOT_SEEN
    return PhaseClock(
        Progress(phase=record.change.phase, age=record.age, polls=0),
        record.change.observed_at - record.age,
        record.state.entered_at,
    )


def _capped(streak: Streak) -> Streak:
    return replace(streak, faults=min(streak.faults, _COUNTED_FAULTS))
