"""THE step: what one reply means for one id, whoever polls it and however many watch.

The poller passes a view for each watcher, a worker of the cluster one. Both loops read: receive,
judge, write down, deliver. ``now`` is any clock that goes on between two polls: the loop's on one
machine, the epoch's where the next poll may be another machine's.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from typing import Final, Literal, ParamSpec, TypeAlias, TypeVar

import msgspec
from msgspec.structs import replace

from veo3_async._errors import UnexpectedReply, Veo3Error
from veo3_async._lifecycle.phase_clock import NOT_SEEN, PhaseClock
from veo3_async._lifecycle.phases import (
    State,
    Until,
    end,
    grace_left,
    kept_once,
    observe,
    remembered,
    standstill_left,
)
from veo3_async._lifecycle.retries import NO_FAULTS, Streak, Verdict, after_fault, backoff
from veo3_async._models import Transition, VideoTask
from veo3_async._pacing.policies import Pacing
from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.families import Route, siblings
from veo3_async._protocol.http import Reply

__all__ = [
    "OF_MANY_MODELS",
    "UNCHANGED",
    "Answer",
    "Context",
    "Ruling",
    "Track",
    "View",
    "ask_pacing",
    "judge",
    "judge_bug",
    "model_of_route",
    "says_nothing_new",
]

OF_MANY_MODELS: Final = "unified"
"""The family whose path names no model, and whose replies do."""
_MODEL_CHARS: Final = 64

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Unchanged(enum.Enum):
    UNCHANGED = "unchanged"


UNCHANGED: Final = _Unchanged.UNCHANGED
"""The outcome of reading a reply that says, byte for byte, what the last one said."""

Answer: TypeAlias = VideoTask | Problem | Literal[_Unchanged.UNCHANGED]


class Track(msgspec.Struct, frozen=True, gc=False):
    """What is known of one id between two polls, whoever watches it."""

    request_id: str
    faults: Streak = NO_FAULTS
    clock: PhaseClock = NOT_SEEN
    is_known: bool = False
    """Whether a state of it was ever seen: here, in the journal or in the cluster."""
    route: Route | None = None
    """Where it is polled; None where the caller knows it."""
    untried: tuple[Route, ...] | None = None
    """Where else it may be, once the API has not known it where it was thought to be."""
    interval: float = math.inf
    """Seconds that the pacing said last; infinite where it was not asked yet."""
    reread_at: float = math.inf
    """From when on the same bytes, read again, may mean something else, the caller's clock."""
    fingerprint: int | None = None
    """Hash of the bytes of the last reply, if that held a state; else None."""


class View(msgspec.Struct, frozen=True):
    """One watcher's side of an id."""

    state: State
    until: Until = "best"
    change: Transition | None = None
    """The transition to deliver; None where nothing changed."""


class Context(msgspec.Struct, frozen=True, gc=False):
    """What a judgement needs beside the reply: the clocks, chance, and the counts for errors."""

    now: float
    """Seconds of the caller's clock."""
    wall_now: float
    """Seconds since the epoch."""
    rand: float
    """A random number, 0 ≤ rand < 1."""
    attempts: int
    """Physical requests for this id so far."""
    elapsed: float
    """Seconds since it is watched."""


class Ruling(msgspec.Struct, frozen=True):
    """What follows from one reply."""

    track: Track
    views: Sequence[View]
    """In the order they came, with the changes to deliver."""
    delay: float | None
    """Seconds until the next poll; None after the end."""
    fatal: BaseException | None = None
    """Why no id can be polled: every watch ends with it."""
    ends_task: bool = False
    """Whether the task is over for everybody: false where one watcher is content with the plain
    video and another one waits."""

    def changes(self) -> list[Transition]:
        """Return what has changed, each once, whoever watches it."""
        changes = {view.change.phase: view.change for view in self.views if view.change is not None}
        return list(changes.values())


class _PacingError(Exception):
    """Raised where the pacing raised; its cause says what."""


def judge(
    track: Track,
    views: Sequence[View],
    answer: Answer,
    *,
    reply: Reply | None,
    pacing: Pacing,
    context: Context,
) -> Ruling:
    """Return what is known after a reply, what each watcher gets, and when to ask again.

    An error of the pacing is fatal; any other exception is a bug, and `judge_bug` ends this id.

    :param views: One for each watcher, at least one, none of them final; not looked at where the
        answer is UNCHANGED.
    :param reply: What the answer was read from, where one came.
    """
    try:
        match answer:
            case Problem():
                return _after_problem(track, views, answer, context)
            case VideoTask():
                return _after_task(
                    track, views, answer, reply=reply, pacing=pacing, context=context
                )
            case _:
                return _after_nothing_new(track, views, pacing, context)
    except _PacingError as error:
        return Ruling(track, views, None, error.__cause__)


def judge_bug(track: Track, views: Sequence[View], bug: Exception, context: Context) -> Ruling:
    """Return the ruling for an id at which we met a bug of ours: it is lost from sight."""
    ended = [
        _ended(
            track,
            view,
            UnexpectedReply(
                f"internal error while reading a reply, please report it: {bug!r}",
                request_id=track.request_id,
                attempts=context.attempts,
                elapsed=context.elapsed,
                task=remembered(view.state, track.request_id),
            ),
            context,
        )
        for view in views
    ]
    return Ruling(track, ended, None, ends_task=True)


def ask_pacing(pacing: Pacing, clock: PhaseClock, rand: float) -> float:
    """Return when an id is to be asked for again, in seconds.

    :raises ValueError: The pacing returned something that is no duration.
    """
    assert clock.last is not None  # noqa: S101 - there was a reply
    delay = pacing.delay(clock.last, rand)
    if not 0 <= delay < math.inf:
        message = f"{pacing!r} said to ask again in {delay!r} seconds"
        raise ValueError(message)
    return delay


def says_nothing_new(track: Track, reply: Reply, now: float) -> bool:
    """Return whether a reply need not be read: it is UNCHANGED.

    :param now: Seconds of the caller's clock: time alone may give the same bytes another meaning.
    """
    return hash(reply.body) == track.fingerprint and reply.status == 200 and now < track.reread_at


def model_of_route(route: Route | None) -> str:
    """Return whose task it is, as `Progress.model` says: models last differently long."""
    return "" if route is None else route.model or route.path


# --- faults -------------------------------------------------------------------------------


def _after_problem(
    track: Track, views: Sequence[View], problem: Problem, context: Context
) -> Ruling:
    known = track.is_known
    faults, verdict = after_fault(track.faults, problem.kind, context.now, is_known=known)
    track = replace(track, faults=faults, fingerprint=None)
    if verdict is Verdict.RETRY:
        delay = backoff(
            faults,
            problem.kind,
            context.now,
            context.rand,
            retry_after=problem.retry_after,
            is_known=known,
            interval=track.interval,
        )
        return Ruling(track, views, delay)
    if verdict is Verdict.FATAL:
        error = problem.error(attempts=context.attempts, elapsed=context.elapsed)
        return Ruling(track, views, None, error)
    if problem.kind is Kind.NOT_FOUND and (elsewhere := _elsewhere(track)) is not None:
        return Ruling(elsewhere, views, 0.0)
    return Ruling(
        track,
        [_ended_by_problem(track, view, problem, context) for view in views],
        None,
        ends_task=True,
    )


def _elsewhere(track: Track) -> Track | None:
    """Return a track on another path of the family, or None where all were tried."""
    if track.route is None:
        return None
    untried = siblings(track.route) if track.untried is None else track.untried
    return replace(track, route=untried[0], untried=untried[1:]) if untried else None


def _ended_by_problem(track: Track, view: View, problem: Problem, context: Context) -> View:
    error = problem.error(
        track.request_id,
        attempts=context.attempts,
        elapsed=context.elapsed,
        task=remembered(view.state, track.request_id),
    )
    return _ended(track, view, error, context)


def _ended(track: Track, view: View, error: Veo3Error, context: Context) -> View:
    change = end(view.state, error, request_id=track.request_id, wall_now=context.wall_now)
    return View(replace(view.state, phase=change.phase), view.until, change)


# --- states -------------------------------------------------------------------------------


def _after_task(
    track: Track,
    views: Sequence[View],
    task: VideoTask,
    *,
    reply: Reply | None,
    pacing: Pacing,
    context: Context,
) -> Ruling:
    seen = [_observed(track, view, task, reply, context) for view in views]
    # The pacing is asked for one who still waits, if any does.
    waiting = next((view.state for view in seen if not view.state.final), None)
    state = seen[0].state if waiting is None else waiting
    model = _model_of(track.route, task)
    track = _followed(track, state, reply, pacing, context, model=model)
    if waiting is None:
        return Ruling(track, seen, None, ends_task=True)
    reread_at = context.now + _seconds_until_decided(seen, context.now)
    views = _with_eta(track, seen, pacing)
    return _scheduled(views, track, track.clock, pacing, context, reread_at=reread_at)


def _after_nothing_new(
    track: Track, views: Sequence[View], pacing: Pacing, context: Context
) -> Ruling:
    clock = track.clock.goes_on(context.now)
    return _scheduled(views, track, clock, pacing, context, reread_at=track.reread_at)


def _observed(
    track: Track, view: View, task: VideoTask, reply: Reply | None, context: Context
) -> View:
    state, change = observe(
        view.state,
        task,
        context.now,
        request_id=track.request_id,
        until=view.until,
        wall_now=context.wall_now,
    )
    if change is not None and change.error is not None:
        error = change.error.with_evidence(
            http_status=None if reply is None else reply.status,
            attempts=context.attempts,
            elapsed=context.elapsed,
        )
        change = replace(change, error=error)
    return View(state, view.until, change)


def _model_of(route: Route | None, task: VideoTask) -> str:
    """Return whose task it is: where one path serves many models, the reply may say it."""
    said = task.extra.get("model")
    if route is None or route.model or route.family != OF_MANY_MODELS or not said:
        return model_of_route(route)
    return kept_once(str(said)[:_MODEL_CHARS])


def _followed(
    track: Track,
    state: State,
    reply: Reply | None,
    pacing: Pacing,
    context: Context,
    *,
    model: str,
) -> Track:
    """Keep up with the phase, and let the pacing learn from one that ended."""
    last, clock = track.clock.last, track.clock.after(state, reply, context.now, model)
    assert clock.last is not None  # noqa: S101 - it comes from a reply
    if last is not None and last.phase is not clock.last.phase:
        lasted = track.clock.lasted(state, context.now)
        successor = clock.last.phase
        _ask(pacing.phase_ended, last, lasted, successor)
    return Track(
        track.request_id,
        NO_FAULTS,
        clock,
        is_known=True,
        route=track.route,
        fingerprint=None if reply is None else hash(reply.body),
    )


def _with_eta(track: Track, views: Sequence[View], pacing: Pacing) -> Sequence[View]:
    last = track.clock.last
    if last is None or all(view.change is None or view.change.final for view in views):
        return views
    eta = _ask(pacing.eta, last)
    if eta is None:
        return views
    said = {
        "eta": eta.median,
        "eta_range": (eta.low, eta.high),
        "eta_is_guess": eta.is_guess,
    }
    return [
        view
        if view.change is None or view.change.final
        else replace(view, change=replace(view.change, **said))
        for view in views
    ]


def _scheduled(
    views: Sequence[View],
    track: Track,
    clock: PhaseClock,
    pacing: Pacing,
    context: Context,
    *,
    reread_at: float,
) -> Ruling:
    delay = _ask(ask_pacing, pacing, clock, context.rand)
    track = replace(track, faults=NO_FAULTS, clock=clock, interval=delay, reread_at=reread_at)
    return Ruling(track, views, min(delay, reread_at - context.now))


def _seconds_until_decided(views: Sequence[View], now: float) -> float:
    """Return the seconds until time alone gives the last reply another meaning."""
    decided = math.inf
    for view in views:
        if not view.state.final:
            for left in (grace_left(view.state, now), standstill_left(view.state, now)):
                if left is not None and left < decided:
                    decided = left
    return decided


def _ask(pacing: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    try:
        return pacing(*args, **kwargs)
    except Exception as error:
        raise _PacingError from error
