"""Who goes next: hands out permits to single calls and to the entries that are due.

One heap, one timer, and a few workers, started as they are needed, serve any number of
entries. What is in flight stays below the connection pool, so nothing queues inside aiohttp.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import math
import random
from collections.abc import Awaitable, Callable
from typing import Final, Generic, Protocol, Self, TypeVar

import msgspec

from veo3_async._cancellation import is_cancelled
from veo3_async._errors import ClientClosed
from veo3_async._polling.agenda import Agenda, Entry
from veo3_async._polling.histogram import Histogram
from veo3_async._protocol.errors import NO_CAPACITY, Kind, Problem
from veo3_async._protocol.http import Call, Reply
from veo3_async._throttle.throttle import Permit, Throttle

__all__ = ["Dispatcher", "Sender", "Turn"]

_E = TypeVar("_E", bound=Entry)
_O = TypeVar("_O")

_HAS_TIME: Final = 1.0
"""Seconds. What has that much time goes together: its due time is moved to the next whole tick, so
that one waking serves several entries."""
_TICK: Final = 0.01
"""The longest tick, of the delay: nobody sees a poll that is a hundredth of its delay late."""
_SLACK: Final = 0.001
"""Seconds. A timer of uvloop, whose clock knows whole milliseconds, may come half of one early."""

_AT_ONCE: Final = 32
"""Permits that are handed out before the event loop gets its turn: to open a connection takes a
third of a millisecond, and a burst is as large as a tenth of the rate."""

_UNSENT: Final = frozenset({Kind.CONNECT, Kind.DNS, Kind.CERTIFICATE, Kind.LOCAL, Kind.SESSION})


class Sender(Protocol):
    """What makes physical requests: a `Transport`, or one that is recorded."""

    async def send(self, call: Call) -> Reply | Problem:
        """Make one; only a cancellation is raised."""


class Turn:
    """A permit in use: one request, whose outcome the throttle learns exactly once.

    A context manager; left without `settle`, the permit is given back.
    """

    __slots__ = ("_call", "_dispatcher", "_permit")

    def __init__(self, dispatcher: Dispatcher[Entry], permit: Permit) -> None:
        self._dispatcher = dispatcher
        self._permit: Permit | None = permit  # None once it is settled
        self._call: Call | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._permit is not None:
            self.give_back()

    def give_back(self) -> None:
        """Give the permit back, unless it is settled."""
        permit, self._permit = self._permit, None
        if permit is not None:
            self._dispatcher.give_back(permit)

    def send(self, call: Call) -> Awaitable[Reply | Problem]:
        """Send the request; only a cancellation is raised."""
        self._call = call
        return self._dispatcher.transport.send(call)

    def settle(self, outcome: _O, now: float) -> _O:
        """Say what the request brought: a `Problem`, or anything else for a success.

        Returns it as the id is to take it: without a hint that does not bind it.

        :param now: When it came, seconds of the loop's clock.
        """
        assert self._call is not None  # noqa: S101 - only what was sent has an outcome
        permit, self._permit = self._permit, None
        if permit is None:
            return outcome
        return self._dispatcher.settle(permit, outcome, self._call, now)


class _Slot(Generic[_E]):
    """What a worker does, or is to do next."""

    __slots__ = ("entry", "turn", "waiter")

    def __init__(self, entry: _E, turn: Turn) -> None:
        self.entry = entry
        self.turn: Turn | None = turn
        """None while it has nothing to do."""
        self.waiter: asyncio.Future[None] | None = None


class Dispatcher(Generic[_E]):
    """Sends calls, each with a permit of the throttle.

    :param transport: Where they go.
    :param max_rate: Physical requests a second.
    :param max_in_flight: Requests under way at once.
    """

    def __init__(self, transport: Sender, *, max_rate: float, max_in_flight: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.transport: Final = transport
        self._max_in_flight = max_in_flight
        self._agenda: Agenda[_E] = Agenda()
        self._single_calls: collections.deque[asyncio.Future[Turn]] = collections.deque()
        self._entry_is_next = False
        self._handle: Callable[[_E, Turn], Awaitable[None]] | None = None
        self._idle: list[_Slot[_E]] = []
        self._workers: asyncio.TaskGroup | None = None
        self._context = contextvars.Context()
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = math.inf
        self._continuation: asyncio.Handle | None = None
        self.throttle: Final = Throttle(max_rate, self._loop.time())
        self.in_flight: int = 0
        """Permits in use."""
        self.sent: collections.Counter[str] = collections.Counter()
        """Physical requests that are over, by method."""
        self.failures: collections.Counter[Kind] = collections.Counter()
        """Calls that brought no state, by kind."""
        self.last_success: float | None = None
        """When a reply last brought what was asked for, seconds of the loop's clock."""
        self.lag: Final = Histogram()
        """Between the moment an entry was due and its permit."""

    def __repr__(self) -> str:
        return f"<Dispatcher: {self._agenda!r}, {self.in_flight} in flight, {self.throttle!r}>"

    async def run(self, handle: Callable[[_E, Turn], Awaitable[None]]) -> None:
        """Hand due entries, each with its turn, to ``handle``, until cancelled.

        ``handle`` must send once and settle. What it raises comes out. What it schedules is looked
        at when it ends: then its worker can go on with the next entry.
        """
        self._handle = handle
        self._context = contextvars.copy_context()  # not that of whoever makes a worker necessary
        async with asyncio.TaskGroup() as self._workers:
            try:
                self.pump()
                await self._loop.create_future()
            finally:
                self._stop()

    def put(self, entry: _E, due: float, now: float) -> None:
        """Schedule an entry for a moment of the loop's clock, or anew; `pump` after it."""
        delay = due - now
        if delay >= _HAS_TIME:
            tick = _tick(delay)
            due = math.ceil(due / tick) * tick
        self._agenda.put(entry, due)

    def drop(self, entry: _E) -> None:
        """Schedule it no longer; what is under way for it goes on."""
        self._agenda.drop(entry)

    def clear(self) -> None:
        """Drop every entry."""
        self._agenda.clear()

    def pump(self) -> None:
        """Let go whatever may go now, and set the timer for what may go next."""
        if self._workers is None or self._continuation is not None:
            return
        for _ in range(_AT_ONCE):
            if self.in_flight >= self._max_in_flight:
                return
            now = self._loop.time()
            due = self._next_due()
            if due > now:
                self._wake_at(due + _SLACK)
                return
            permit = self.throttle.take(now)
            if not isinstance(permit, Permit):
                self._wake_at(now + permit)
                return
            self.in_flight += 1
            self._give(Turn(self, permit), now)  # type: ignore[arg-type] # any entries
        self._continuation = self._loop.call_soon(self._continue)

    async def turn(self) -> Turn:
        """Wait for a turn for a single call; these and the entries that are due alternate.

        Cancelled, it gives back what it had.

        :raises ClientClosed: Nothing is sent any more.
        """
        if self._stopped:
            raise _stopped()
        waiter: asyncio.Future[Turn] = self._loop.create_future()
        self._single_calls.append(waiter)
        self.pump()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().give_back()
            raise

    # --- what a turn calls ------------------------------------------------------------------

    def settle(self, permit: Permit, outcome: _O, call: Call, now: float) -> _O:
        """Let the throttle learn from the outcome of a call, and count it; `pump` after it.

        Returns the outcome as the id is to take it.
        """
        self.in_flight -= 1
        if not isinstance(outcome, Problem):
            self.sent[call.method] += 1
            self.last_success = now
            self.throttle.succeeded(permit, now)
            return outcome
        if outcome.kind not in _UNSENT:
            self.sent[call.method] += 1
        self.failures[outcome.kind] += 1
        self._learn(permit, outcome, call.target, now)
        if outcome.retry_after is None:
            return outcome
        if self.throttle.hint_binds(now, is_about_rate=outcome.limits_rate):
            return outcome
        return msgspec.structs.replace(outcome, retry_after=None)

    def give_back(self, permit: Permit) -> None:
        """Take back a permit of which nothing was learned."""
        self.in_flight -= 1
        self.throttle.abandoned(permit)
        self.pump()

    def _learn(self, permit: Permit, problem: Problem, target: str, now: float) -> None:
        """Tell the throttle what went wrong.

        :param target: That of the call, which names the id.
        """
        rand = random.random()
        match problem:
            case Problem(kind=kind, retry_after=hint) if problem.limits_rate:
                self.throttle.throttled(
                    permit,
                    now,
                    whose=target,
                    reason=kind.value,
                    retry_after=hint,
                    may_be_ban=kind is Kind.THROTTLED,
                    rand=rand,
                )
            case Problem(kind=Kind.LOCAL):
                self.throttle.pause(permit, now, reason=Kind.LOCAL.value, rand=rand)
            case Problem(is_served=False):
                self.throttle.failed(
                    permit,
                    now,
                    is_sent=problem.kind not in _UNSENT,
                    is_answered=problem.http_status is not None,
                    rand=rand,
                )
            case Problem(kind=kind):
                self.throttle.succeeded(permit, now, is_served=kind not in NO_CAPACITY)

    # --- who is next ------------------------------------------------------------------------

    def _next_due(self) -> float:
        while self._single_calls and self._single_calls[0].done():  # cancelled
            self._single_calls.popleft()
        if self._single_calls:
            return -math.inf
        due = self._agenda.next_due()
        return math.inf if due is None else due

    def _give(self, turn: Turn, now: float) -> None:
        """Let a single call or an entry that is due go, in turns where both wait."""
        if self._single_calls and not (self._entry_is_next and self._has_due_entry(now)):
            self._entry_is_next = True
            self._single_calls.popleft().set_result(turn)
            return
        self._entry_is_next = False
        due, entry = self._agenda.take()
        self.lag.add(now - due)
        self._hand_over(entry, turn)

    def _has_due_entry(self, now: float) -> bool:
        due = self._agenda.next_due()
        return due is not None and due <= now

    def _wake_at(self, when: float) -> None:
        if when == math.inf:
            return
        if self._timer is not None:
            if self._wakes_at <= when:
                return  # looking again too early does no harm
            self._timer.cancel()
        self._wakes_at = when  # uvloop's handle of a moment that has come does not know it
        self._timer = self._loop.call_at(when, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.pump()

    def _continue(self) -> None:
        self._continuation = None
        self.pump()

    # --- workers ----------------------------------------------------------------------------

    def _hand_over(self, entry: _E, turn: Turn) -> None:
        if not self._idle:
            assert self._workers is not None  # noqa: S101 - `pump` looked
            # A copy for each: an eager task is started inside its context, and this may be called
            # by a worker that runs in its own.
            work = self._work(_Slot(entry, turn))
            self._workers.create_task(work, context=self._context.copy())
            return
        slot = self._idle.pop()
        slot.entry, slot.turn = entry, turn
        if slot.waiter is not None:
            slot.waiter.set_result(None)

    async def _work(self, slot: _Slot[_E]) -> None:
        assert self._handle is not None  # noqa: S101 - `run` set it
        try:
            await asyncio.sleep(0)  # an eager task would run inside `pump`
            while True:
                assert slot.turn is not None  # noqa: S101 - `_hand_over` set it
                await self._handle(slot.entry, slot.turn)
                slot.turn = None
                if len(self._idle) >= self._max_in_flight:
                    break  # it was needed while others waited for a slow disk
                self._idle.append(slot)
                self.pump()
                if slot.turn is None:
                    slot.waiter = self._loop.create_future()
                    await slot.waiter
                    slot.waiter = None
        except BaseException as error:
            self._stop()
            if slot.turn is not None:
                slot.turn.give_back()
            if not isinstance(error, asyncio.CancelledError) or is_cancelled():
                raise
            # A task group takes that for a normal end, and no watcher would learn of it.
            message = "a callback raised CancelledError, and nobody had cancelled the polling"
            raise RuntimeError(message) from error
        self.pump()

    def _stop(self) -> None:
        """Let nothing go any more: a worker has ended that was needed."""
        self._stopped = True
        self._workers = None
        if self._timer is not None:
            self._timer.cancel()
        for waiter in self._single_calls:
            if not waiter.done():
                waiter.set_exception(_stopped())


def _tick(delay: float) -> float:
    """Return the longest power of two that is no longer than a hundredth of a delay.

    Powers of two divide each other, so that entries of unlike delays meet too.
    """
    _, exponent = math.frexp(delay * _TICK)
    return math.ldexp(1.0, exponent - 1)


def _stopped() -> ClientClosed:
    return ClientClosed("the client stopped before this call had its turn")
