"""A rate kept a little below a steady limit."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["ROW_SECONDS", "Ceiling", "first_below", "further_below", "height_at", "held_until"]

# Chosen with `tests/throttle/test_servers.py`, whose servers have limits of four kinds, with and
# without refusals of another kind, and held by `python -m benchmarks rate_limit simulation`.
_STEP: Final = 0.05  # of the rate, that a cut takes at least

_MAX_STEP: Final = 0.25  # the same after several in a row, each twice the one before

_GROWTH: Final = 0.01  # of the height, by which the first look for a limit rises

_GROWTH_SECONDS: Final = 3.0  # in which that doubles

_HOLD_REQUESTS: Final = 400  # until the next look, for a look costs a refusal

_HOLD: Final = 10.0  # seconds that it takes at least

_MAX_HOLD: Final = 120.0

_HEAD_START: Final = 90.0  # seconds of that growth, times the share that chance refuses

ROW_SECONDS: Final = 10.0
"""Refusals farther apart are no limit, but single ids or chance."""


def height_at(base: float, until: float, now: float) -> float:
    """Return how high a ceiling is that was held until a moment, and rises since then."""
    if now < until:
        return base
    steps: float = 2.0 ** min((now - until) / _GROWTH_SECONDS, 64.0)
    return base * (1 + _GROWTH * steps)


def first_below(rate: float, base: float, *, served: float = 1.0) -> tuple[float, float]:
    """Return the ceiling after a refusal at a rate that was looked for, and the step to it.

    :param base: The ceiling before. What is refused above one that was kept for a while does not
        disprove that.
    :param served: Share that was served lately.
    """
    kept = base if rate / 2 < base < rate else 0.0
    return max(kept, rate * min(1 - _STEP, served)), _STEP


def further_below(rate: float, step: float, *, served: float = 1.0) -> tuple[float, float]:
    """Return the ceiling after one more refusal in a row, and the step to it.

    :param step: The step before.
    """
    step = min(_MAX_STEP, step * 2)
    return rate * min(1 - step, served), step


def held_until(height: float, now: float) -> float:
    """Return when a ceiling that was found now begins to rise."""
    return now + min(_MAX_HOLD, max(_HOLD, _HOLD_REQUESTS / height))


class Ceiling:
    """A rate kept a little below a steady limit.

    CUBIC alone runs into such a limit every few seconds. So once most requests are served and
    one is refused, stay under that rate; look again after 400 requests (10 s to 2 minutes), by
    small steps that double every 3 s.
    """

    __slots__ = ("_base", "_last_cut", "_served", "_step", "_until", "height")

    def __init__(self) -> None:
        self.height = math.inf
        """Requests a second; infinite while no limit is known."""
        self._base = math.inf
        self._step = _STEP
        self._until = -math.inf
        self._last_cut = -math.inf
        self._served = 1.0  # share since the last cut, smoothed over about a second

    def succeeded(self, now: float, rate: float) -> None:
        """Count a request that was served, and rise when the time has come.

        :param rate: Requests a second that are allowed.
        """
        self._count(rate, served=True)
        if now >= self._until and self._base < math.inf:
            self.height = height_at(self._base, self._until, now)

    def refused(self, rate: float) -> None:
        """Count a request that was not served."""
        self._count(rate, served=False)

    def cut(self, now: float, rate: float) -> None:
        """Come down to a little below a rate at which some were refused."""
        served, self._served = self._served, 1.0
        if served < 1 / 2:
            return  # an outage, or a limit that is far exceeded: CUBIC finds the way
        before, self._last_cut = self._last_cut, now
        if now >= self._until:  # it looked for the limit, or met the first one
            self.height, self._step = first_below(rate, self._base, served=served)
        elif now - before <= ROW_SECONDS:  # still on the way down
            self.height, self._step = further_below(rate, self._step, served=served)
        else:
            return
        self._base = self.height
        self._until = held_until(self.height, now)

    def found(self, height: float, until: float) -> None:
        """Take a limit that was found otherwise, and look for a higher one after that moment."""
        self.height = self._base = height
        self._until = until
        self._last_cut = -math.inf

    def restore(self, now: float, rate: float, *, share: float) -> None:
        """Come back to a rate that was proved, for it was no limit that refused.

        :param share: Of the requests that are refused at any rate, 0 to 1: the more, the surer it
            is that no limit does that, and the sooner the rate rises from there.
        """
        if self.height < rate:
            self.height = self._base = rate
            self._until = now - _HEAD_START * share

    def _count(self, rate: float, *, served: bool) -> None:
        self._served += (served - self._served) / (1 + rate)
