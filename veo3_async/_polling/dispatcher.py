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
from typing import TYPE_CHECKING, Final, Generic, NoReturn, TypeVar

import msgspec

from veo3_async._errors import ClientClosed
from veo3_async._polling.agenda import Agenda, Entry
from veo3_async._polling.histogram import Quantiles
from veo3_async._protocol.errors import NO_CAPACITY, Kind, Problem
from veo3_async._protocol.http import Call, Reply
from veo3_async._throttle.throttle import Throttle
from veo3_async._transport.deadlines import is_cancelled

if TYPE_CHECKING:
    from veo3_async._transport.transport import Transport

__all__ = ["Dispatcher"]

_E = TypeVar("_E", bound=Entry)

_TICK: Final = 1 / 64
"""Seconds: what has time is due at whole ticks, so that one waking serves several entries. Where
a hundred are polled a second, that halves what waiting costs."""
_HAS_TIME: Final = 1.0
_SLACK: Final = 0.001
"""Seconds. A timer of uvloop, whose clock knows whole milliseconds, may come half of one early."""

_AT_ONCE: Final = 32
"""Permits that are handed out before the event loop gets its turn: to open a connection takes a
third of a millisecond, and a burst is as large as a tenth of the rate."""

_UNSENT: Final = frozenset({Kind.CONNECT, Kind.DNS, Kind.CERTIFICATE, Kind.LOCAL, Kind.SESSION})


class _Claim(msgspec.Struct, Generic[_E], frozen=True, gc=False):
    entry: _E
    taken: float


class _Slot(Generic[_E]):
    """A worker with nothing to do."""

    __slots__ = ("claim", "waiter")

    def __init__(self) -> None:
        self.claim: _Claim[_E] | None = None
        self.waiter: asyncio.Future[None] | None = None


class Dispatcher(Generic[_E]):
    """Sends calls, each with a permit of the throttle.

    :param transport: Where they go.
    :param max_rate: Physical requests a second.
    :param max_in_flight: Requests under way at once.
    """

    def __init__(self, transport: Transport, *, max_rate: float, max_in_flight: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._max_in_flight = max_in_flight
        self._agenda: Agenda[_E] = Agenda()
        self._turns: collections.deque[asyncio.Future[float]] = collections.deque()
        self._handle: Callable[[_E, float], Awaitable[None]] | None = None
        self._idle: list[_Slot[_E]] = []
        self._workers: asyncio.TaskGroup | None = None
        self._context = contextvars.Context()
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = math.inf
        self._goes_on: asyncio.Handle | None = None
        self.throttle: Final = Throttle(max_rate, self._loop.time())
        self.in_flight = 0
        """Requests under way."""
        self.sent: collections.Counter[str] = collections.Counter()
        """Physical requests that are over, by method."""
        self.failures: collections.Counter[Kind] = collections.Counter()
        """Calls that brought no state, by kind."""
        self.lag: Final = Quantiles()
        """Between the moment an entry was due and its permit."""

    def __repr__(self) -> str:
        return f"<Dispatcher: {self._agenda!r}, {self.in_flight} in flight, {self.throttle!r}>"

    async def run(self, handle: Callable[[_E, float], Awaitable[None]]) -> None:
        """Hand due entries, each with its permit, to ``handle``, until cancelled.

        ``handle`` must `send` once. What it raises comes out. What it plans and what the
        throttle learns is looked at when it ends: then its worker can go on with the next entry.
        """
        self._handle = handle
        self._context = contextvars.copy_context()  # not that of whoever makes a worker necessary
        async with asyncio.TaskGroup() as self._workers:
            try:
                self.pump()
                await self._loop.create_future()
            finally:
                self._stop()

    def put(self, entry: _E, due: float) -> None:
        """Plan an entry for a moment of the loop's clock, or plan it anew; `pump` after it."""
        if due - self._loop.time() >= _HAS_TIME:
            due = math.ceil(due / _TICK) * _TICK
        self._agenda.put(entry, due)

    def drop(self, entry: _E) -> None:
        """Plan it no longer; what is under way for it goes on."""
        self._agenda.drop(entry)

    def clear(self) -> None:
        """Drop every entry."""
        self._agenda.clear()

    def pump(self) -> None:
        """Let go whatever may go now, and set the timer for what may go next."""
        if self._workers is None or self._goes_on is not None:
            return
        for _ in range(_AT_ONCE):
            if self.in_flight >= self._max_in_flight:
                return
            now = self._loop.time()
            due = self._next_due()
            if due > now:
                self._wake_at(due + _SLACK)
                return
            if wait := self.throttle.take(now):
                self._wake_at(now + wait)
                return
            self.in_flight += 1
            if self._turns:
                self._turns.popleft().set_result(now)
            else:
                due, entry = self._agenda.take()
                self.lag.add(now - due)
                self._hand_over(_Claim(entry, now))
        self._goes_on = self._loop.call_soon(self._go_on)

    async def turn(self) -> float:
        """Wait for a permit for a single call, which comes before the entries that are due.

        Returns what `send` and `learn` take. Cancelled, it gives back what it had.

        :raises ClientClosed: Nothing goes any more.
        """
        if self._stopped:
            raise _stopped()
        turn: asyncio.Future[float] = self._loop.create_future()
        self._turns.append(turn)
        self.pump()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._give_back(turn.result())
            raise

    async def send(self, call: Call, taken: float) -> Reply | Problem:
        """Make a call with a permit; tell `learn` what it brought."""
        try:
            answer = await self._transport.send(call)
        except BaseException:
            self._give_back(taken)
            raise
        self.in_flight -= 1
        if not (isinstance(answer, Problem) and answer.kind in _UNSENT):
            self.sent[call.method] += 1
        return answer

    def learn(self, taken: float, outcome: object) -> None:
        """Tell the throttle what a permit was good for; `pump` after it."""
        now = self._loop.time()
        if not isinstance(outcome, Problem):
            self.throttle.succeeded(taken, now)
            return
        self.failures[outcome.kind] += 1
        rand = random.random()
        match outcome:
            case Problem(kind=kind, retry_after=hint) if kind in NO_CAPACITY:
                self.throttle.throttled(taken, now, reason=kind.value, retry_after=hint, rand=rand)
            case Problem(kind=Kind.LOCAL):
                self.throttle.pause(taken, now, reason=Kind.LOCAL.value, rand=rand)
            case Problem(is_served=False):
                self.throttle.failed(taken, now, rand=rand)
            case _:
                self.throttle.succeeded(taken, now)

    def _stop(self) -> None:
        """Let nothing go any more: a worker has ended, which none does by itself."""
        self._stopped = True
        self._workers = None
        if self._timer is not None:
            self._timer.cancel()
        for turn in self._turns:
            if not turn.done():
                turn.set_exception(_stopped())

    def _give_back(self, taken: float) -> None:
        self.in_flight -= 1
        self.throttle.abandoned(taken)
        self.pump()

    def _next_due(self) -> float:
        while self._turns and self._turns[0].done():  # cancelled
            self._turns.popleft()
        if self._turns:
            return -math.inf
        due = self._agenda.next_due()
        return math.inf if due is None else due

    def _wake_at(self, when: float) -> None:
        if when == math.inf:
            return
        if self._timer is not None:
            if self._wakes_at <= when:
                return  # looking again too early does no harm
            self._timer.cancel()
        self._wakes_at = when  # uvloop's handle of a moment that has come cannot tell it
        self._timer = self._loop.call_at(when, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.pump()

    def _go_on(self) -> None:
        self._goes_on = None
        self.pump()

    def _hand_over(self, claim: _Claim[_E]) -> None:
        if not self._idle:
            assert self._workers is not None  # noqa: S101 - `pump` looked
            self._workers.create_task(self._work(claim), context=self._context)
            return
        slot = self._idle.pop()
        slot.claim = claim
        if slot.waiter is not None:
            slot.waiter.set_result(None)

    async def _work(self, claim: _Claim[_E]) -> NoReturn:
        assert self._handle is not None  # noqa: S101 - `run` set it
        try:
            while True:
                await self._handle(claim.entry, claim.taken)
                slot: _Slot[_E] = _Slot()
                self._idle.append(slot)
                self.pump()
                if slot.claim is None:
                    slot.waiter = self._loop.create_future()
                    await slot.waiter
                assert slot.claim is not None  # noqa: S101 - `_hand_over` set it
                claim = slot.claim
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            # A task group takes that for an end in peace, and nobody would be told.
            message = "a callback raised CancelledError, and nobody had cancelled the polling"
            raise RuntimeError(message) from error
        finally:
            self._stop()


def _stopped() -> ClientClosed:
    return ClientClosed("the client stopped before this call had its turn")
