"""Permits for polls, one rate for all workers: as many tokens go round as polls in a second.

A token that was taken is handed back at once, to come round again when its time has passed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Final

import anyio
import msgspec

from veo3_async._errors import ServiceUnavailable
from veo3_async._models import VideoTask
from veo3_async._wire import NO_CAPACITY, Problem
from veo3_async.cluster._engine import Engine
from veo3_async.cluster._names import Names
from veo3_async.cluster._pull import Message, Pull
from veo3_async.cluster._rate import FULL, SharedRate, after_refusal, next_round, rate_at, round_of

__all__ = ["RATE", "Permits", "read_rate"]

RATE: Final = "rate"
"""Under which name the rate is shared."""

_READ_SECONDS: Final = 1.0
_GOOD_FOR: Final = 1.0  # seconds; what is left of a token then is lost


async def read_rate(engine: Engine, names: Names) -> tuple[int, SharedRate]:
    """Return what is written of the rate, and the sequence of that."""
    found = await engine.last(names.shared, names.entry(RATE), fresh=True)
    if found is None:
        return 0, FULL
    seq, payload = found
    try:
        return seq, msgspec.json.decode(payload, type=SharedRate)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return seq, FULL


class Permits:
    """A worker's access to the permits of all.

    :param pull: Brings the tokens.
    :param max_rate: Polls a second of all workers together.
    """

    def __init__(self, engine: Engine, names: Names, pull: Pull, max_rate: float) -> None:
        self._engine = engine
        self._names = names
        self._pull = pull
        self._max_rate = max_rate
        self._count, self._worth = round_of(max_rate)
        self._left = 0
        self._good_until = 0.0
        self._shared = FULL
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()

    async def take(self) -> bool:
        """Return True when a poll may be sent, False after `stop`."""
        while not self._take_left():
            if self._stopped.is_set():
                return False
            token = await self._pull.next()
            if token is None:
                continue
            now = time.time()
            pause = self._shared.paused_until - now
            await token.again(max(self._comes_round(token, now), pause))
            if token.attempts == 1:
                continue  # fresh ones would all be good at once: first they go to their places
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

    async def learn(self, outcome: VideoTask | Problem, sent: float) -> None:
        """Tell all workers where the service sent a poll away for want of capacity.

        :param sent: When the poll was sent, seconds since the epoch.
        """
        if not isinstance(outcome, Problem) or outcome.kind not in NO_CAPACITY:
            return
        while True:
            seq, shared = await read_rate(self._engine, self._names)
            self._shared = after_refusal(
                shared,
                sent=sent,
                now=time.time(),
                max_rate=self._max_rate,
                retry_after=outcome.retry_after,
                rand=random.random(),
            )
            if self._shared == shared:
                return
            payload = msgspec.json.encode(self._shared)
            if await self._engine.publish(self._names.entry(RATE), payload, expect=seq) is not None:
                return

    async def follow(self) -> None:
        """Keep up with what others learn, until cancelled."""
        while True:
            with contextlib.suppress(ServiceUnavailable):  # what was known holds meanwhile
                _, self._shared = await read_rate(self._engine, self._names)
            await anyio.sleep(_READ_SECONDS)

    def _comes_round(self, token: Message, now: float) -> float:
        period = self._count * self._worth / rate_at(self._shared, now, self._max_rate)
        return next_round(self._names.number_of(token.subject), self._count, now, period)

    def _take_left(self) -> bool:
        if self._left == 0 or self._loop.time() > self._good_until:
            self._left = 0
            return False
        self._left -= 1
        return True
