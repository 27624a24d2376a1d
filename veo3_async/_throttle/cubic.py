"""The sending rate as AWS's adaptive retry mode finds it (CUBIC, RFC 8312)."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["MIN_RATE", "Cubic", "cubic_rate"]

MIN_RATE: Final = 0.5
"""Requests a second: nothing falls below it. AWS's adaptive mode has the same floor."""

# CUBIC, as AWS's adaptive retry mode has it.
_BETA: Final = 0.7  # what a cut leaves of the rate

_SCALE: Final = 0.4  # requests a second, per cubic second of growth

_LONG_AGO: Final = 100.0  # seconds: the curve has left the old rate far behind

_SMOOTHING: Final = 0.8  # weight of the latest half second in what is being sent


class Cubic:
    """The sending rate as AWS's adaptive retry mode finds it (after RFC 8312, CUBIC).

    Rates are requests a second. Held against the numbers AWS publishes for its SDKs.
    """

    __slots__ = (
        "_bucket",
        "_count",
        "_enabled",
        "_last_max",
        "_last_throttle",
        "measured",
        "rate",
    )

    def __init__(self, now: float) -> None:
        self.rate = MIN_RATE
        """What may be sent, once something was throttled."""
        self.measured = 0.0
        """What is being sent, smoothed over half seconds."""
        self._bucket = math.floor(now * 2) / 2
        self._count = 0
        self._last_max = 0.0
        self._last_throttle = now
        self._enabled = False

    def sent(self, now: float) -> None:
        """Count a request."""
        self._count += 1
        if now >= self._bucket + 1 / 2:
            bucket = math.floor(now * 2) / 2
            current = self._count / (bucket - self._bucket)
            self.measured = current * _SMOOTHING + self.measured * (1 - _SMOOTHING)
            self._count = 0
            self._bucket = bucket

    def succeeded(self, now: float) -> None:
        """Grow along the curve, at most to twice of what is being sent."""
        self._set(cubic_rate(self._last_max, now - self._last_throttle))

    def throttled(self, now: float) -> None:
        """Cut the rate."""
        used = min(self._being_sent, self.rate) if self._enabled else self._being_sent
        self._enabled = True
        self._last_max = used
        self._last_throttle = now
        self._set(used * _BETA)

    def found(self, rate: float, now: float) -> None:
        """Take a rate that was found otherwise; from there it is the ceiling that grows."""
        self.rate = rate
        self._enabled = True
        self._last_max = rate
        self._last_throttle = now - _LONG_AGO

    def _set(self, calculated: float) -> None:
        self.rate = max(min(calculated, 2 * self._being_sent), MIN_RATE)

    @property
    def _being_sent(self) -> float:
        # AWS knows nothing before the first half second is over, and crawls for seconds after a
        # refusal in it: what was sent so far is a fair guess.
        return self.measured or 2.0 * self._count


def cubic_rate(last_max: float, since: float) -> float:
    """Return the rate on CUBIC's curve so many seconds after a cut at the rate ``last_max``.

    It begins at β × ``last_max``, is flat where it comes back to ``last_max``, and then probes.
    """
    flat = math.cbrt(last_max * (1 - _BETA) / _SCALE)
    return float(_SCALE * (since - flat) ** 3 + last_max)
