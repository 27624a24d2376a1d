"""The step of a worker: from one record of an id to the next, by the judge that all loops share.

``now`` is seconds since the epoch throughout: the next poll may be another machine's. What a
pacing learns between two polls lives in the worker's memory (`Track`), and begins anew at a
takeover.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from veo3_async._errors import StillPending
from veo3_async._lifecycle.ends import is_end
from veo3_async._lifecycle.judge import (
    Answer,
    Context,
    Ruling,
    Track,
    View,
    judge,
    judge_bug,
    model_of_route,
)
from veo3_async._lifecycle.phase_clock import NOT_SEEN, PhaseClock
from veo3_async._lifecycle.phases import says_the_same
from veo3_async._lifecycle.places import submitted_to
from veo3_async._lifecycle.retries import NO_FAULTS, Streak
from veo3_async._metadata import Origin
from veo3_async._models import Phase, VideoTask
from veo3_async._pacing.policies import Eta, FixedPacing, Pacing, Progress
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.families import Route
from veo3_async._protocol.http import Reply
from veo3_async.cluster._record import Record

__all__ = ["Silent", "Step", "begun", "has_changed", "is_quiet", "step", "step_bug", "track_of"]

_COUNTED_FAULTS: Final = 6  # the backoff has its cap then: more need no record

_LOST_SECONDS: Final = 600.0
"""After so long an id that is lost from sight is asked for again, then after twice as long."""
_MOST_LOST_SECONDS: Final = 6 * 3600.0

_NO_PACING: Final = FixedPacing()


class Step(msgspec.Struct, frozen=True):
    """What follows from one poll."""

    record: Record
    track: Track
    delay: float | None
    """Seconds until the next poll; None after an end by the service's own word."""
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


def begun(
    last: Record | None,
    request_id: str,
    watch: int,
    origin: Origin = Origin(),  # noqa: B008 - a tuple
) -> Record:
    """Return what is known of an id when it is polled.

    An id that was lost from sight begins anew when it is watched again; another end stays.

    :param last: Its last record, or None where there is none.
    :param watch: Sequence of the message by which it is watched.
    :param origin: What that message says; nothing where its record says more.
    """
    if last is None:
        return Record(request_id=request_id, watch=watch, origin=origin)
    if origin != Origin():
        last = replace(last, origin=origin)
    if last.final and last.watch != watch and last.state.phase is Phase.LOST:
        return _anew(last, watch)
    return last if last.final else replace(last, watch=watch)


def track_of(record: Record) -> Track:
    """Return what a worker knows of an id that it takes over."""
    route = submitted_to(record.origin)
    return Track(
        record.request_id, record.streak, _clock(record, route), record.change is not None, route
    )


def step(
    record: Record,
    track: Track,
    answer: Answer,
    *,
    reply: Reply | None,
    pacing: Pacing,
    context: Context,
) -> Step:
    """Return what is known after a poll, and when to ask again.

    An id whose loss was delivered is still asked for, now and then: somebody has paid for
    it. It begins anew as soon as it is seen again.
    """
    if record.final:
        if isinstance(answer, Problem):
            return _still_lost(record, track, answer, context)
        if _stands_still(record, answer):
            return Step(record, track, _until_next(record, context))
        record, track = _anew(record, record.watch), Track(record.request_id)
    views = [View(record.state)]
    ruling = judge(track, views, answer, reply=reply, pacing=pacing, context=context)
    return _stepped(record, ruling, context)


def step_bug(record: Record, track: Track, bug: Exception, context: Context) -> Step:
    """Return what is known after a poll at which a bug of ours was met: the id is lost."""
    if record.final:
        return Step(record, track, _until_next(record, context))
    return _stepped(record, judge_bug(track, [View(record.state)], bug, context), context)


def has_changed(before: Record, after: Record) -> bool:
    """Whether a record differs from the one before, so that it is to be written."""
    return (before.serial, before.state, before.streak) != (
        after.serial,
        after.state,
        after.streak,
    )


def is_quiet(record: Record, answer: Answer) -> bool:
    """Whether a poll says what the last one said, so that a pacing learns nothing final from it."""
    return (
        isinstance(answer, VideoTask)
        and record.streak == NO_FAULTS
        and not record.final
        and says_the_same(record.state, answer)
    )


def _anew(last: Record, watch: int) -> Record:
    return Record(request_id=last.request_id, watch=watch, serial=last.serial, origin=last.origin)


def _stands_still(record: Record, answer: Answer) -> bool:
    """Whether an id that was given up for standing still does so yet."""
    given_up = record.change is not None and isinstance(record.change.error, StillPending)
    return given_up and isinstance(answer, VideoTask) and says_the_same(record.state, answer)


def _still_lost(record: Record, track: Track, problem: Problem, context: Context) -> Step:
    """Return what follows where a lost id is not seen: only the API's own word is delivered."""
    view = View(replace(record.state, phase=None))
    ruling = judge(track, [view], problem, reply=None, pacing=_NO_PACING, context=context)
    change = ruling.views[0].change
    if ruling.fatal is not None or (change is not None and is_end(change)):
        return _stepped(record, ruling, context)
    after = replace(record, streak=_capped(ruling.track.faults))
    return Step(after, ruling.track, _until_next(record, context))


def _until_next(record: Record, context: Context) -> float:
    """Return when a lost id is asked for again: after as long as it has been lost."""
    lost_at = context.now if record.change is None else record.change.observed_at
    return min(max(context.now - lost_at, _LOST_SECONDS), _MOST_LOST_SECONDS)


def _stepped(record: Record, ruling: Ruling, context: Context) -> Step:
    [view] = ruling.views
    after = replace(record, state=view.state, streak=_capped(ruling.track.faults))
    if view.change is not None:
        last = ruling.track.clock.last
        after = replace(
            after,
            serial=record.serial + 1,
            brought_by=0,
            change=view.change,
            age=0.0 if last is None or view.change.final else last.age,
        )
    delay = ruling.delay
    if delay is None and ruling.fatal is None and not after.ended:
        delay = _until_next(after, context)
    return Step(after, ruling.track, delay, ruling.fatal)


def _clock(record: Record, route: Route | None) -> PhaseClock:
    if record.change is None:
        return NOT_SEEN
    return PhaseClock(
        Progress(phase=record.change.phase, age=record.age, polls=0, model=model_of_route(route)),
        record.change.observed_at - record.age,
        record.state.entered_at,
    )


def _capped(streak: Streak) -> Streak:
    return replace(streak, faults=min(streak.faults, _COUNTED_FAULTS))
