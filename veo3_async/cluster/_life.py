"""The signs of life of a worker, and what they tell it of the server's clock."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Sized
from typing import Final

import anyio
import msgspec

from veo3_async._errors import ServiceUnavailable, Veo3Error
from veo3_async.cluster._clock import ServerClock
from veo3_async.cluster._names import LIFE_SIGN_SECONDS, Names
from veo3_async.cluster._nats.jetstream import Engine

__all__ = ["Life", "LifeSign"]

_PARTING_SECONDS: Final = 2.0


class LifeSign(msgspec.Struct, frozen=True):
    """What a worker shows of itself."""

    clock_offset: float = 0.0
    """Seconds by which its machine's clock is ahead of the server's."""
    in_hand: int = 0
    """Ids in hand."""


class Life:
    """A worker that shows every 5 s that it lives.

    :param in_hand: What it has in hand.
    :param clock: Set by what the server's clock says to each sign.
    """

    def __init__(self, engine: Engine, names: Names, clock: ServerClock, in_hand: Sized) -> None:
        self._engine = engine
        self._names = names
        self._clock = clock
        self._in_hand = in_hand
        self._subject = names.life_sign(uuid.uuid4().hex)

    async def go_on(self) -> None:
        """Show it until cancelled; while NATS is away it is not shown.

        :raises ClusterError: NATS refuses.
        """
        while True:
            await anyio.sleep(LIFE_SIGN_SECONDS)
            await self.show()

    async def show(self) -> None:
        """Show it once.

        :raises ClusterError: NATS refuses.
        """
        sign = LifeSign(round(self._clock.offset, 3), len(self._in_hand))
        with contextlib.suppress(ServiceUnavailable):
            sent = time.monotonic()
            await self._engine.publish(self._subject, msgspec.json.encode(sign))
            received = time.monotonic()
            at = await self._engine.stored_at(self._names.workers, self._subject)
            if at is not None:
                self._clock.heard(sent, received, at)

    async def end(self) -> None:
        """Show no more, so that it does not count as alive until its last sign is old."""
        with anyio.move_on_after(_PARTING_SECONDS, shield=True), contextlib.suppress(Veo3Error):
            await self._engine.purge(self._names.workers, self._subject)
