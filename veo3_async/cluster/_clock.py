"""The time of the NATS server: the one clock that all workers share."""

from __future__ import annotations

import time

__all__ = ["ServerClock"]

_MAX_ROUND_TRIP = 1.0  # seconds; what took longer says too little


class ServerClock:
    """Seconds since the epoch by the server's clock, carried on by this machine's monotonic one.

    So neither a wrong clock here, nor one that is set meanwhile, is believed by anybody.
    """

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def __repr__(self) -> str:
        return f"<ServerClock: this machine's is {self.offset:+.3f} s off>"

    @property
    def offset(self) -> float:
        """Seconds by which this machine's clock is ahead of the server's."""
        return time.time() - self.now()

    def now(self) -> float:
        """Return the time."""
        return time.monotonic() + self._ahead

    def heard(self, sent: float, received: float, server: float) -> None:
        """Take in what the server's clock said.

        :param sent: When it was asked, seconds of the monotonic clock.
        :param received: When the answer was there, the same clock.
        :param server: What it said, seconds since the epoch.
        """
        if received - sent <= _MAX_ROUND_TRIP:
            self._ahead = server - (sent + received) / 2
