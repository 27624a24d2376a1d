"""By how much an event loop is late."""

from __future__ import annotations

import asyncio
import time


class Ticker:
    """Measures by how much a loop is late: the longest delay of a tick.

    :param interval: Seconds between two ticks. A stall that begins between them is measured too
        short by as much.
    """

    def __init__(self, interval: float = 0.01) -> None:
        self.latest = 0.0
        """Seconds."""
        self.own = 0.0
        """The longest delay as far as the process was busy in it, in CPU time of all its threads:
        what is left of `latest` where other processes had the processor meanwhile."""
        self._interval = interval

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, spent = loop.time() + self._interval, time.process_time()
            await asyncio.sleep(self._interval)
            late, busy = loop.time() - due, time.process_time() - spent
            self.latest = max(self.latest, late)
            self.own = max(self.own, min(late, busy))

    def reset(self) -> None:
        """Begin anew."""
        self.latest = self.own = 0.0
