"""What may be sent in any window."""

from __future__ import annotations

import math
from typing import Final

from veo3_async._throttle.throttle import Throttle

__all__ = ["ROUNDING", "START", "Budget"]

START: Final = 1000.0
ROUNDING: Final = 1e-6


class Budget:
    """Holds every window against ``max_rate · t + burst``.

    How far the requests are ahead of the rate may not rise by more than the burst, whenever
    one begins to count.
    """

    def __init__(self, throttle: Throttle) -> None:
        self.throttle = throttle
        self.count = 0
        self.least = math.inf

    def spend(self, now: float) -> None:
        ahead = self.count - self.throttle.max_rate * (now - START)
        self.least = min(self.least, ahead)
        assert ahead + 1 - self.least <= self.throttle.burst + ROUNDING
        self.count += 1
