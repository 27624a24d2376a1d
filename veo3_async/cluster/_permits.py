"""Permits for polls, one rate for all workers: as many tokens go round as polls in a second.

A token that was taken is handed back at once, to come round again when its time has passed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Final

import anyio
import msgspec

from veo3_async._errors import ServiceUnavailable
from veo3_async._lifecycle.judge import Answer
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.http import MAX_RETRY_AFTER
from veo3_async.cluster._clock import ServerClock
from veo3_async.cluster._names import LIFE_SIGN_SECONDS, Names
from veo3_async.cluster._nats.jetstream import Engine
from veo3_async.cluster._nats.pull import Message, Pull
from veo3_async.cluster._rate import (
    FULL,
    Evidence,
    SharedRate,
    after_refusal,
    is_good,
    is_new,
    next_round,
    rate_at,
    restored,
    round_of,
    round_seconds,
)

__all__ = ["PERMITS", "RATE", "Permits", "believed", "read_rate"]

PERMITS: Final = "permits"
"""The consumer that hands permits to all workers."""
RATE: Final = "rate"
"""Under which name the rate is shared."""

_READ_SECONDS: Final = 1.0
_GOOD_FOR: Final = 1.0  # seconds; what is left of a token then is lost

_MAX_PAUSE: Final = MAX_RETRY_AFTER + 1.0  # with what spreads those who got the same
_MAX_AHEAD: Final = 5.0  # seconds by which two measures of the server's clock may differ


def believed(shared: SharedRate, now: float) -> SharedRate:
    """Return what can be true of what is written: no pause over its cap, no cut to come.

    :param now: Seconds since the epoch by the server's clock.
    """
    if shared.cut_at > now + _MAX_AHEAD:
        shared = SharedRate(paused_until=shared.paused_until)
    if shared.paused_until > now + _MAX_PAUSE:
        shared = msgspec.structs.replace(shared, paused_until=0.0)
    return shared


async def read_rate(engine: Engine, names: Names, now: float) -> tuple[int, SharedRate]:
    """Return what is written of the rate, and the sequence of that.

    :param now: Seconds since the epoch by the server's clock.
    """
    found = await engine.last(names.shared, names.entry(RATE), fresh=True)
    if found is None:
        return 0, FULL
    seq, payload = found
    try:
        return seq, believed(msgspec.json.decode(payload, type=SharedRate), now)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return seq, FULL


class Permits:
    """A worker's access to the permits of all.

    :param pull: Brings the tokens.
    :param max_rate: Polls a second of all workers together.
    """

    def __init__(
        self, engine: Engine, names: Names, pull: Pull, max_rate: float, clock: ServerClock
    ) -> None:
        self._clock = clock
        self._engine = engine
        self._names = names
        self._pull = pull
        self._max_rate = max_rate
        self._count, self._worth = round_of(max_rate)
        self._round = round_seconds(max_rate)
        self._left = 0
        self._good_until = 0.0
        self._shared = FULL
        self._loop = asyncio.get_running_loop()
        self._evidence = Evidence(self._loop.time())
        self._workers = 1
        self._count_workers_at = self._loop.time()
        self._stopped = asyncio.Event()

    async def take(self) -> bool:
        """Return True when a poll may be sent, False after `stop`."""
        while not self._take_left():
            if self._stopped.is_set():
                return False
            token = await self._pull.next()
            if token is None:
                continue
            now = self._clock.now()
            pause = self._shared.paused_until - now
            await token.again(max(self._comes_round(token, now), pause))
            if not self._is_good(token, now):
                continue
            if pause > 0:
                with anyio.move_on_after(pause):
                    await self._stopped.wait()
                continue
            self._left += self._worth
            self._good_until = self._loop.time() + _GOOD_FOR
        return True

    async def stop(self) -> None:
        """Let nobody wait any more."""
        self._stopped.set()
        await self._pull.aclose()

    async def learn(self, request_id: str, outcome: Answer, sent: float) -> None:
        """Count a poll; tell all workers where it was refused for the rate.

        :param sent: When the poll was sent, seconds since the epoch by the server's clock.
        """
        refused = isinstance(outcome, Problem) and outcome.limits_rate
        if refused or not isinstance(outcome, Problem) or outcome.is_served:
            self._evidence.answered(
                self._loop.time(),
                request_id,
                allowed=rate_at(self._shared, sent, self._max_rate),
                workers=self._workers,
                served=not refused,
            )
        if isinstance(outcome, Problem) and refused:
            await self._slow_down(sent, outcome.retry_after)

    async def _slow_down(self, sent: float, retry_after: float | None) -> None:
        """Write down what a refusal says of the rate, if that is new.

        A hint binds the id that it came with; all wait only while everybody is refused.
        """
        evidence, time = self._evidence, self._loop.time()
        found = evidence.found(time, self._workers)
        hint = retry_after if evidence.is_everybody_refused else None
        explained: bool | None = None
        while True:
            now = self._clock.now()
            seq, shared = await read_rate(self._engine, self._names, now)
            new = is_new(shared, sent) or (found is not None and not shared.is_found)
            if new and explained is None:  # asked once: it learns from being asked
                explained = evidence.explains(time, rate_at(shared, now, self._max_rate))
            self._shared = after_refusal(
                restored(shared, now, evidence.proved) if explained else shared,
                cuts=new and not explained,
                now=now,
                max_rate=self._max_rate,
                retry_after=hint,
                rand=random.random(),
                sending=evidence.sending(time, self._workers),
                found=found,
            )
            if self._shared == shared:
                return
            self._left = 0
            payload = msgspec.json.encode(self._shared)
            if await self._engine.publish(self._names.entry(RATE), payload, expect=seq) is not None:
                return

    async def follow(self) -> None:
        """Keep up with what others learn, and with how many they are, until cancelled."""
        while True:
            await anyio.sleep(_READ_SECONDS)
            await self.catch_up()

    async def catch_up(self) -> None:
        """Take in what others have learned; where NATS is away, what was known holds."""
        with contextlib.suppress(ServiceUnavailable):
            _, self._shared = await read_rate(self._engine, self._names, self._clock.now())
            if self._loop.time() >= self._count_workers_at:
                await self._count_workers()

    async def _count_workers(self) -> None:
        alive = await self._engine.stream(self._names.workers)
        self._workers = 1 if alive is None else max(1, alive.messages)
        self._count_workers_at = self._loop.time() + LIFE_SIGN_SECONDS

    def _comes_round(self, token: Message, now: float) -> float:
        number = self._names.number_of(token.subject)
        return next_round(number, self._count, now, self._round)

    def _is_good(self, token: Message, now: float) -> bool:
        """Return whether a token is good for polls, or only goes to its place in the round.

        All that are fresh would be good at once, and so would those that a server delivers anew
        after a fail-over: it does not know any more that they were to come later.
        """
        if token.attempts == 1 or self._loop.time() < self._pull.disturbed_at + self._round:
            return False
        number = self._names.number_of(token.subject)
        return is_good(self._shared, number, now, self._max_rate)

    def _take_left(self) -> bool:
        if self._left == 0 or self._loop.time() > self._good_until:
            self._left = 0
            return False
        self._left -= 1
        return True
