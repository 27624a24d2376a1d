"""What a poll means for what is known of an id: from one record to the next.

``now`` is seconds since the epoch throughout: the next poll may be another machine's.
"""

from __future__ import annotations

from typing import Final

import msgspec

from veo3_async._errors import Veo3Error
from veo3_async._lifecycle.phase_clock import phase_age
from veo3_async._lifecycle.phases import end, grace_left, observe, remembered
from veo3_async._lifecycle.retries import NO_FAULTS, Streak, Verdict, after_fault
from veo3_async._models import Phase, VideoTask
from veo3_async._pacing.policies import Pacing, Progress
from veo3_async._polling.job import ask_pacing, bug_error, witness
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.http import Reply
from veo3_async.cluster._record import Record

__all__ = [
    "after_bug",
    "after_problem",
    "after_task",
    "begun",
    "is_news",
    "learn",
    "next_poll",
    "with_eta",
]

_COUNTED_FAULTS: Final = 6  # the backoff has its cap then: more need no record


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
    return last if last.final else msgspec.structs.replace(last, watch=watch)


def after_task(
    known: Record, task: VideoTask, reply: Reply, now: float, *, attempts: int, elapsed: float
) -> Record:
    """Return what is known after a reply that held a state.

    :param attempts: Polls of it so far.
    :param elapsed: Seconds since it is watched.
    """
    state, transition = observe(known.state, task, now, request_id=known.request_id, wall_now=now)
    witness(transition, reply, attempts, elapsed)
    if transition is None:
        return msgspec.structs.replace(known, state=state, streak=NO_FAULTS)
    return msgspec.structs.replace(
        known,
        serial=known.serial + 1,
        news=0,
        change=transition,
        age=phase_age(state, reply),
        state=state,
        streak=NO_FAULTS,
    )


def after_problem(
    known: Record, problem: Problem, now: float, *, attempts: int, elapsed: float
) -> tuple[Record, Verdict]:
    """Return what is known after a poll that brought no state, and what becomes of the id.

    :param attempts: Polls of it so far.
    :param elapsed: Seconds since it is watched.
    """
    streak, verdict = after_fault(known.streak, problem.kind, now)
    if verdict is not Verdict.FINAL:
        return msgspec.structs.replace(known, streak=_capped(streak)), verdict
    error = problem.error(
        known.request_id,
        attempts=attempts,
        elapsed=elapsed,
        task=remembered(known.state, known.request_id),
    )
    return msgspec.structs.replace(_ended(known, error, now), streak=streak), verdict


def after_bug(
    known: Record, bug: Exception, now: float, *, attempts: int, elapsed: float
) -> Record:
    """Return what is known after a poll that could not be dealt with: sight of the id is lost.

    :param attempts: Polls of it so far.
    :param elapsed: Seconds since it is watched.
    """
    error = bug_error(bug, known.state, known.request_id, attempts=attempts, elapsed=elapsed)
    return _ended(known, error, now)


def is_news(before: Record, after: Record) -> bool:
    """Whether a record differs from the one before, so that it is to be written."""
    return (before.serial, before.state, before.streak) != (
        after.serial,
        after.state,
        after.streak,
    )


def with_eta(record: Record, pacing: Pacing, now: float) -> Record:
    """Return a record whose transition tells what is left, where that is known."""
    change = record.change
    if change is None or change.final or (eta := pacing.eta(_progress(record, now))) is None:
        return record
    return msgspec.structs.replace(record, change=msgspec.structs.replace(change, eta=eta.median))


def learn(pacing: Pacing, before: Record, after: Record) -> None:
    """Let the pacing learn from a phase that a reply has ended, if one has."""
    if before.change is None or after.change is None:
        return
    if after.change.phase is before.change.phase:
        return
    first_seen = Progress(phase=before.change.phase, age=before.age)
    pacing.phase_ended(first_seen, _lasted(before, after), after.change.phase)


def next_poll(record: Record, pacing: Pacing, now: float, rand: float) -> float:
    """Return the seconds until an id, of which a state was seen, is asked for again.

    :raises ValueError: The pacing said something that is no time to come.
    """
    delay = ask_pacing(pacing, _progress(record, now), rand)
    grace = grace_left(record.state, now)
    return delay if grace is None else min(delay, grace)


def _ended(known: Record, error: Veo3Error, now: float) -> Record:
    ended = end(known.state, error, request_id=known.request_id, wall_now=now)
    state = msgspec.structs.replace(known.state, phase=ended.phase)
    return msgspec.structs.replace(
        known, serial=known.serial + 1, news=0, change=ended, age=0.0, state=state
    )


def _progress(record: Record, now: float) -> Progress:
    if record.change is None:
        return Progress(phase=record.state.phase or Phase.UNKNOWN, age=0.0)
    return Progress(phase=record.change.phase, age=max(0.0, now - _began(record)))


def _began(record: Record) -> float:
    assert record.change is not None  # noqa: S101 - the callers looked
    return record.change.observed_at - record.age


def _lasted(before: Record, after: Record) -> float:
    if before.state.entered_at is not None and after.state.entered_at is not None:
        lasted = (after.state.entered_at - before.state.entered_at) / 1000  # whenever we looked
    else:
        assert after.change is not None  # noqa: S101 - `learn` looked
        lasted = after.change.observed_at - _began(before)
    return max(0.0, lasted)


def _capped(streak: Streak) -> Streak:
    return msgspec.structs.replace(streak, faults=min(streak.faults, _COUNTED_FAULTS))
