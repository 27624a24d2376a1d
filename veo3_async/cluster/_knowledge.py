"""What the pacings learn, shared: a new worker starts wise."""

from __future__ import annotations

import contextlib
import logging
from typing import Final

import anyio
import msgspec

from veo3_async._errors import ServiceUnavailable, Veo3Error
from veo3_async._pacing.learned import LearnedPacing
from veo3_async.cluster._names import Names
from veo3_async.cluster._nats.jetstream import Engine

__all__ = ["Knowledge"]

_log = logging.getLogger("veo3_async")

_NAME: Final = "pacing"
_SHARE_SECONDS: Final = 60.0


class Knowledge:
    """What one worker's pacing knows, beside what all know: who has seen more tasks is right."""

    def __init__(self, engine: Engine, names: Names, pacing: LearnedPacing) -> None:
        self._engine = engine
        self._names = names
        self._pacing = pacing

    async def keep(self) -> None:
        """Take over and share until cancelled."""
        while True:
            with contextlib.suppress(ServiceUnavailable):  # it costs some polls, and no task
                await self.share()
            await anyio.sleep(_SHARE_SECONDS)

    async def share(self) -> None:
        """Take over what others know, if it is more; else let them know."""
        found = await self._engine.last(self._names.shared, self._names.entry(_NAME), fresh=True)
        seq, theirs = (0, 0) if found is None else (found[0], self._heard(found[1]))
        if self._pacing.tasks > theirs:
            payload = msgspec.json.encode(self._pacing.to_dict())
            # Somebody was first: there is another time.
            await self._engine.publish(self._names.entry(_NAME), payload, expect=seq)

    def _heard(self, payload: bytes) -> int:
        """Return of how many tasks others know, having taken that over where it is more."""
        try:
            theirs = msgspec.json.decode(payload, type=dict[str, object])
            tasks = msgspec.convert(theirs.get("tasks"), int)
            if tasks > self._pacing.tasks:
                self._pacing.restore(theirs)
        except ValueError as error:
            _log.warning("what others learned of the pace cannot be read: %s", error)
            return 0
        return tasks

    async def part(self) -> None:
        """Leave behind what was learned."""
        with contextlib.suppress(Veo3Error):
            await self.share()
