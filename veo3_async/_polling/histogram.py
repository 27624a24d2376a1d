"""Histogram of a stream of durations in constant memory."""

from __future__ import annotations

import bisect
import itertools
import math
from typing import Final

__all__ = ["Histogram"]

_SMALLEST: Final = 0.001
_RATIO: Final = math.log(1.1)
_BINS: Final = 160  # up to about an hour
_EDGES: Final = [_SMALLEST * math.exp(place * _RATIO) for place in range(_BINS - 1)]


class Histogram:
    """A histogram of seconds on log-spaced bins; what is below a millisecond counts as none."""

    __slots__ = ("_bins", "_count")

    def __init__(self) -> None:
        self._bins = [0] * _BINS
        self._count = 0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self._bins[bisect.bisect_left(_EDGES, seconds)] += 1
        self._count += 1

    def quantile(self, share: float) -> float | None:
        """Return the duration that this share stays under, to 10 %; None before the first.

        :param share: Between 0 and 1.
        """
        if not self._count:
            return None
        place = bisect.bisect_left(list(itertools.accumulate(self._bins)), share * self._count)
        return _SMALLEST * math.exp(place * _RATIO) if place else 0.0
