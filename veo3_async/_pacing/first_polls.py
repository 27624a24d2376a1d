"""Whom to ask first of many tasks that nobody has looked at for a while, as after a restart.

Beside a rate limit the order is what a finished video waits for. So those come first whose video is
most likely there, by how old they are and by what is known of how long tasks of their model take
from where they were seen last; where nothing was learned, by the documented minutes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from veo3_async._models import FINAL, Phase
from veo3_async._pacing.policies import Eta, Pacing, Progress
from veo3_async._pacing.prior import guessed_eta

__all__ = ["FirstPolls", "Kind", "Remainder", "Sighting", "expected", "first_polls"]

Kind: TypeAlias = tuple[str, Phase]
"""A model, and a phase of its tasks."""

_AT_10_PERCENT: Final = 1.2816
"""Standard deviations from the median of a normal distribution to its 10th or 90th percentile."""
_LEAST_SIGMA: Final = 0.01
_EVEN_ODDS: Final = 0.5
_SHORTEST: Final = 0.001
_LONGEST: Final = 1e9  # seconds


class Sighting(msgspec.Struct, frozen=True, gc=False):
    """What is known of a task that somebody else may have looked at."""

    kind: Kind
    """The phase is that which was seen last, or ``queued``."""
    age: float
    """Seconds since that phase was seen first, or at least so many."""
    is_begin_known: bool = True
    """False where it came from elsewhere and was never looked at: it may be of any age."""


class FirstPolls(msgspec.Struct, frozen=True, gc=False):
    """Who is to be asked when."""

    order: Sequence[int]
    """Places in what was handed in, those to be asked first first."""
    waits: Sequence[float]
    """Seconds until each of these is due, in that order, and rising."""


def expected(pacing: Pacing, kind: Kind) -> Eta | None:
    """Return what is left of a task when it comes into a phase; None where it has ended.

    By what the pacing knows, else by the documented minutes.
    """
    model, phase = kind
    if phase is Phase.LOST:  # from sight, which says nothing of the task
        phase = Phase.UNKNOWN
    if phase in FINAL:
        return None
    begin = Progress(phase=phase, age=0.0, model=model)
    return pacing.eta(begin) or guessed_eta(begin)


class Remainder:
    """How long what is left of a task takes: a lognormal through the percentiles of an `Eta`.

    With a side of its own below the median and above.

    :param eta: What was left when the age was 0; None: nothing.
    """

    __slots__ = ("_above", "_below", "median")

    def __init__(self, eta: Eta | None) -> None:
        self.median: Final = 0.0 if eta is None else _sound(eta.median)
        """Seconds; 0 where nothing was left."""
        low, high = (0.0, 0.0) if eta is None else (_sound(eta.low), _sound(eta.high))
        self._below: Final = self._steepness(low)
        self._above: Final = self._steepness(high)

    def running(self, age: float) -> float:
        """Return the chance, 0 to 1, that a task of an age in seconds has no video yet.

        It falls with age, and is one half at the median.
        """
        if not self.median:
            return 0.0
        if not age > _SHORTEST:
            return 1.0
        steepness = self._above if age > self.median else self._below
        return math.erfc(math.log(age / self.median) * steepness) / 2

    def _steepness(self, percentile: float) -> float:
        if not percentile:
            return 0.0
        sigma = abs(math.log(percentile / self.median)) / _AT_10_PERCENT
        return 1 / (max(sigma, _LEAST_SIGMA) * math.sqrt(2))


def first_polls(
    sightings: Sequence[Sighting], etas: Mapping[Kind, Eta | None], rate: float
) -> FirstPolls:
    """Return when to ask each task for the first time.

    Due at once, the likeliest first, are those that have more likely ended than not; the others
    when that is so. But none is due later than it would be if the limit served these tasks alone,
    one after the other: nothing of the limit is left unused, and nobody waits for longer than two
    such turns, for each poll makes room for one repetition at most. Who comes new is due at once,
    in front of those that have hardly ended. Where the age is not known, even odds are that a task
    had ended before it came here.

    :param etas: What `expected` says of each kind of them.
    :param rate: Polls a second, above 0.
    """
    remainders = {kind: Remainder(eta) for kind, eta in etas.items()}
    ranks = [_rank(sighting, remainders[sighting.kind]) for sighting in sightings]
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    waits = [min(max(0.0, ranks[place]), turn / rate) for turn, place in enumerate(order)]
    return FirstPolls(order, waits)


def _rank(sighting: Sighting, remainder: Remainder) -> float:
    """Return the seconds until even odds; the less below 0 the less likely it still runs.

    One number: the lock of the interpreter is held as long as 100,000 of them are sorted.
    """
    running = remainder.running(sighting.age)
    if not sighting.is_begin_known:
        running /= 2
    if running > _EVEN_ODDS:
        return remainder.median - max(0.0, sighting.age)
    return math.log(running) if running else -math.inf


def _sound(seconds: float) -> float:
    return min(max(_SHORTEST, seconds), _LONGEST)  # in this order NaN becomes the least
