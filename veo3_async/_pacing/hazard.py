"""How likely a phase is to end now, learned from phases that ended and phases that go on.

The time since a phase began is cut into bins, narrow at first and ever wider. Of each bin two
numbers are kept: the phases that ended in it, and the seconds that phases were seen to spend in
it, whether they ended there or not; so what still runs counts as what it is, not ended yet.
Their quotient is the hazard: ends a second, among what has lasted so long.

Evidence fades by the evidence that comes after it in the same bin, never by a clock: a bin
speaks of the last tasks that came as far as it, be that an hour or a month ago.
"""

from __future__ import annotations

import itertools
import math
import operator
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

import msgspec

__all__ = [
    "BINS",
    "DOCUMENTED_SECONDS",
    "EDGES",
    "LEAST",
    "MOST",
    "WIDTHS",
    "Evidence",
    "Integral",
    "Kept",
    "rounded",
]

DOCUMENTED_SECONDS: Final = 334.7
"""From ``created_at`` to ``completed_at`` of the one finished task on 302.AI's page."""

_PER_OCTAVE: Final = 16
_OFFSET: Final = 10.0  # seconds: the first bin is 0.44 s wide, late ones 4.4 % of their age
EDGES: Final[tuple[float, ...]] = tuple(
    _OFFSET * (2 ** (place / _PER_OCTAVE) - 1) for place in range(10 * _PER_OCTAVE + 1)
)
"""Where the bins begin, in seconds; the last begins after 2.8 hours and has no end."""

WIDTHS: Final = (*(end - begin for begin, end in itertools.pairwise(EDGES)), EDGES[-1])
"""In seconds; the last counts as wide as it begins late."""

BINS: Final = len(EDGES)

LEAST: Final = 0.001
"""Of a task or a second: what is less was forgotten."""

MOST: Final = 1e9
"""Tasks or seconds: what is more was never counted."""

# A quarter of a task that comes through every bin, and ends at the documented pace: something
# to divide by, and soon overruled; it stays, so that nothing is ever impossible.
_PRIOR_HAZARD: Final = 1 / DOCUMENTED_SECONDS
_PRIOR_TASKS: Final = 0.25
_PRIOR: Final = [(_PRIOR_TASKS * width * _PRIOR_HAZARD, _PRIOR_TASKS * width) for width in WIDTHS]
"""The tasks that end in each bin, and the seconds at risk."""

_STRIDES: Final = (1, 2, 4, 8)  # bins; each width of the smoothing is twice the one before
_REACH: Final = sum(_STRIDES)


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Evidence as it is stored."""

    ended: dict[int, float]
    """Phases that ended, by bin; bins without any are left out."""
    exposed: list[float]
    """Seconds at risk in each bin, from the first on; bins that nothing came to are left out."""


class Evidence:
    """What was seen of how long one phase lasts.

    :param half_life: Tasks that come through a bin until what it held counts half.
    """

    __slots__ = ("_ended", "_exposed", "_half_life")

    def __init__(self, half_life: float) -> None:
        self._half_life: Final = half_life
        self._ended = [0.0] * BINS
        self._exposed = [0.0] * BINS

    def went_on(self, since: float, until: float) -> None:
        """Learn that the phase of some task lasted on from one age to another, in seconds.

        Ages that make no sense teach nothing.
        """
        if not 0 <= since < until < math.inf:
            return
        place = _bin(since)
        while place < BINS - 1 and EDGES[place + 1] <= until:
            self._expose(place, EDGES[place + 1] - since)
            place += 1
            since = EDGES[place]
        self._expose(place, min(until - since, WIDTHS[place]))

    def ended_at(self, age: float) -> None:
        """Learn that the phase of some task ended when it was so many seconds old."""
        if math.isfinite(age):
            place = _bin(age)
            self._fade(place, tasks=1.0)
            self._ended[place] += 1

    def hazard(self) -> list[float]:
        """Return the ends a second in each bin, smoothed; above 0 everywhere.

        How far to smooth is what the evidence itself says: of some widths the one that
        foretells each end best from all the others (leave-one-out likelihood). Few tasks or a
        broad hump want a wide one, many tasks or a sharp peak a narrow one. Where nothing was
        seen, the hazard is that of the documented task.
        """
        top = min(BINS, max(_used(self._ended), _used(self._exposed)) + _REACH)
        ended, exposed = self._ended[:top], self._exposed[:top]
        best, chosen = -math.inf, list[float]()
        near_ended, near_exposed, own = ended, exposed, 1.0
        for stride in _STRIDES:
            near_ended, near_exposed = _smooth(near_ended, stride), _smooth(near_exposed, stride)
            own /= 2  # what a bin keeps of itself
            hazard = [
                (ends + prior_ends) / (seconds + prior_seconds)
                for ends, seconds, (prior_ends, prior_seconds) in zip(
                    near_ended, near_exposed, _PRIOR[:top], strict=True
                )
            ]
            likelihood = -math.fsum(map(operator.mul, exposed, hazard))
            for place, end in enumerate(ended):
                if end:
                    prior_ends, prior_seconds = _PRIOR[place]
                    others = near_ended[place] - own * min(end, 1)
                    rate = (others + prior_ends) / (near_exposed[place] + prior_seconds)
                    likelihood += end * math.log(rate)
            if likelihood > best:
                best, chosen = likelihood, hazard
        return chosen + [_PRIOR_HAZARD] * (BINS - top)

    def kept(self) -> Kept:
        """Return a copy to be stored, exact to three digits."""
        return Kept(
            ended={place: rounded(end) for place, end in enumerate(self._ended) if rounded(end)},
            exposed=[rounded(lasted) for lasted in self._exposed[: _used(self._exposed)]],
        )

    def learn(self, kept: Kept) -> None:
        """Take what was stored in place of what is known.

        :raises ValueError: There are more bins than exist, or numbers that can count nothing.
        """
        numbers = [*kept.ended.values(), *kept.exposed]
        if not all(0 <= number <= MOST for number in numbers):
            message = "evidence is a finite number of tasks and seconds, not below 0"
            raise ValueError(message)
        if len(kept.exposed) > BINS or not all(0 <= place < BINS for place in kept.ended):
            message = f"evidence of more than {BINS} bins"
            raise ValueError(message)
        self._ended = [kept.ended.get(place, 0.0) for place in range(BINS)]
        self._exposed = kept.exposed + [0.0] * (BINS - len(kept.exposed))

    def _expose(self, place: int, lasted: float) -> None:
        self._fade(place, tasks=lasted / WIDTHS[place])
        self._exposed[place] += lasted

    def _fade(self, place: int, *, tasks: float) -> None:
        kept = 2 ** (-tasks / self._half_life)
        self._ended[place] *= kept
        self._exposed[place] *= kept


class Integral:
    """The running integral over a phase's age of a rate that is constant in each bin.

    :param rates: Events a second, above 0, one for each bin.
    """

    __slots__ = ("_rates", "_sums")

    def __init__(self, rates: Sequence[float]) -> None:
        self._rates: Final = rates
        pieces = itertools.accumulate(map(operator.mul, rates, WIDTHS), initial=0.0)
        self._sums: Final[list[float]] = list(itertools.islice(pieces, BINS))

    def until(self, age: float) -> float:
        """Return the events from age 0 to an age, both in seconds."""
        place = _bin(age)
        return self._sums[place] + (age - EDGES[place]) * self._rates[place]

    def reaches(self, events: float) -> float:
        """Return the age in seconds up to which there are so many events, at least 0."""
        place = bisect_right(self._sums, events) - 1
        return EDGES[place] + (events - self._sums[place]) / self._rates[place]

    def spent(self) -> list[float]:
        """Return the seconds in each bin of a phase that ends at this rate, on average."""
        seconds = [
            math.exp(-before) * -math.expm1(-rate * width) / rate
            for before, rate, width in zip(self._sums, self._rates, WIDTHS, strict=True)
        ]
        seconds[-1] = math.exp(-self._sums[-1]) / self._rates[-1]  # that bin has no end
        return seconds


def _bin(age: float) -> int:
    return bisect_right(EDGES, age, 1) - 1


def _used(column: list[float]) -> int:
    return next((place + 1 for place in reversed(range(BINS)) if column[place]), 1)


def _smooth(column: list[float], stride: int) -> list[float]:
    # One step of the "à trous" cascade: twice the width at each, at the same small cost.
    before = column[:1] * stride + column[:-stride]
    after = column[stride:] + column[-1:] * stride
    return [(a + b + b + c) / 4 for a, b, c in zip(before, column, after, strict=True)]


def rounded(number: float) -> float:
    """Return a number of tasks or seconds as it is stored; 0 for what is as good as forgotten."""
    return float(f"{number:.3g}") if number >= LEAST else 0.0
