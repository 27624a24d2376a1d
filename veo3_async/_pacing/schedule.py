"""What is to be expected of a task, and how to spread its polls over its time.

Pure arithmetic over what ``_hazard`` knows of each phase, and over what followed it how often.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from veo3_async._models import Phase
from veo3_async._pacing.hazard import DOCUMENTED_SECONDS, Integral
from veo3_async._pacing.policies import Eta

__all__ = ["LOOKS", "MIDWAY", "Knobs", "Odds", "Plan"]

LOOKS: Final = 1.5
"""Polls of a task of one phase beside the integral of their rate: the first look, and the half
interval by which the last poll comes after the end."""

MIDWAY: Final = 0.2
"""What it is worth to see a change at once that does not end the task, where one that does is
worth 1. The video is what people wait for; a fifth still nearly halves the other lags
(`python -m benchmarks pacing`)."""

_BRIEF: Final = 10.0  # seconds, a usual interval: a phase that is over sooner goes unseen

_ORDER: Final = tuple(Phase)  # of a task
_ROUNDS: Final = 16  # phases of the longest task that counts: an attempt and its repetitions
_RETRIES: Final = 3  # attempts of a task that are looked through for what may follow
_VIDEO: Final = (Phase.COMPLETED, Phase.COMPLETED_PLAIN)
_SHARES: Final = tuple((k + 0.5) / 16 for k in range(16))

Odds: TypeAlias = Mapping[Phase, float]
"""What followed a phase, as shares of 1; empty where it was never seen to end."""


class Knobs(msgspec.Struct, frozen=True, kw_only=True):
    """What the user wants."""

    polls_per_task: float | None
    """None where it is the lag that is wanted."""
    mean_lag: float = 0.0
    """Seconds, where ``polls_per_task`` is None."""
    min_interval: float
    max_interval: float

    def bounded(self, rate: float) -> float:
        """Return a rate, in polls a second, within the bounds of the intervals."""
        return max(1 / self.max_interval, min(1 / self.min_interval, rate))

    def even(self) -> float:
        """Return the one rate for the whole of the documented task that gives what is wanted."""
        if self.polls_per_task is None:
            return self.bounded(0.5 / self.mean_lag)
        return self.bounded((self.polls_per_task - LOOKS) / DOCUMENTED_SECONDS)


class Plan:
    """When to poll in each phase, what it costs, what it brings, and what is left.

    :param hazards: Ends a second in each bin of `_hazard`, by phase; of one phase at least.
    :param odds: By the same phases.
    :param trust: In all this, 0 to 1; what is missing is polled for evenly.
    """

    __slots__ = ("_after", "_ends", "_odds", "_polls", "expected_lag", "expected_polls")

    def __init__(
        self,
        hazards: Mapping[Phase, Sequence[float]],
        odds: Mapping[Phase, Odds],
        knobs: Knobs,
        *,
        trust: float = 1.0,
    ) -> None:
        self._odds: Final = odds
        self._ends: Final = {phase: Integral(hazard) for phase, hazard in hazards.items()}
        self._after: dict[Phase, list[float]] | None = None
        unseen = {phase: -math.expm1(-ends.until(_BRIEF)) for phase, ends in self._ends.items()}
        worth = _worth(odds, unseen)
        urges = {
            phase: [math.sqrt(worth[phase] * rate) for rate in hazard]
            for phase, hazard in hazards.items()
        }
        visits = _visits(odds)
        changes = sum(
            times * (1 - _last(odds, phase)) * (1 - unseen[phase])
            for phase, times in visits.items()
        )
        spots = [
            spot
            for phase, times in visits.items()
            for spot in self._spots(phase, times, urges[phase], hazards[phase])
        ]
        budget = _Budget(spots, LOOKS + changes / 2, knobs)
        scale = budget.scale()
        self.expected_polls: Final = budget.polls(scale)
        self.expected_lag: Final = budget.lag(scale)
        even = (1 - trust) * knobs.even()
        slowest, fastest = 1 / knobs.max_interval, 1 / knobs.min_interval
        self._polls: Final = {
            phase: Integral(
                [even + trust * max(slowest, min(scale * urge, fastest)) for urge in column]
            )
            for phase, column in urges.items()
        }

    def wait(self, phase: Phase, age: float, polls: float) -> float:
        """Return the seconds from an age of a phase until so many polls are due, near 1."""
        rate = self._polls[phase]
        return rate.reaches(rate.until(age) + polls) - age

    def left(self, phase: Phase, age: float) -> Eta | None:
        """Return what is left until the video, or None where no such way was ever seen."""
        if self._after is None:
            self._after = self._learn_after()
        if phase not in self._after:
            return None
        here = self._lasting(phase, age)
        ways = sorted([now + then for now in here for then in self._after[phase]])
        low, median, high = (ways[int(share * len(ways))] for share in (0.1, 0.5, 0.9))
        return Eta(low, median, high)

    def _spots(
        self, phase: Phase, times: float, urges: Sequence[float], hazard: Sequence[float]
    ) -> Iterable[_Spot]:
        last = times * max(_last(self._odds, phase), 1e-9)  # even if no task was seen to end
        for urge, rate, seconds in zip(urges, hazard, self._ends[phase].spent(), strict=True):
            yield urge, times * seconds, last * seconds * rate

    def _lasting(self, phase: Phase, age: float) -> list[float]:
        # Quantiles of what is left of a phase that has come to this age.
        ends = self._ends[phase]
        so_far = ends.until(age)
        return [max(0.0, ends.reaches(so_far - math.log1p(-share)) - age) for share in _SHARES]

    def _learn_after(self) -> dict[Phase, list[float]]:
        """Return quantiles of the seconds from the end of each phase to the video."""
        whole: dict[Phase, list[float]] = {phase: [0.0] for phase in _VIDEO}
        after: dict[Phase, list[float]] = {}
        for phase in (*reversed(_ORDER),) * _RETRIES:
            ways = [
                (then, share / len(whole[successor]))
                for successor, share in self._odds.get(phase, {}).items()
                for then in whole.get(successor, ())
            ]
            if ways:
                after[phase] = _quantiles(ways)
                here = self._lasting(phase, 0.0)
                whole[phase] = _quantiles([(a + b, 1.0) for a in here for b in after[phase]])
        return after


_Spot: TypeAlias = tuple[float, float, float]
"""Of one bin of one phase: the square root of its worth, the seconds that a task spends in it,
the tasks that end in it."""


class _Budget:
    """Polls and lag of one task, if all rates are scaled alike within their bounds.

    Sorted by urge, those that are at a bound are at the ends, so sums up to each place answer
    for any scale at once.
    """

    def __init__(self, spots: list[_Spot], looks: float, knobs: Knobs) -> None:
        spots.sort()
        self._looks: Final = looks
        self._knobs: Final = knobs
        self._slowest: Final = 1 / knobs.max_interval
        self._fastest: Final = 1 / knobs.min_interval
        self._urges: Final = [urge for urge, _, _ in spots]
        self._seconds: Final = _sums(seconds for _, seconds, _ in spots)
        self._polls: Final = _sums(urge * seconds for urge, seconds, _ in spots)
        self._ends: Final = _sums(ends for _, _, ends in spots)
        self._lags: Final = _sums(ends / urge for urge, _, ends in spots)

    def polls(self, scale: float) -> float:
        """Return the polls of a task."""
        a, b = self._inside(scale)
        return (
            self._looks
            + self._slowest * self._seconds[a]
            + scale * (self._polls[b] - self._polls[a])
            + self._fastest * (self._seconds[-1] - self._seconds[b])
        )

    def lag(self, scale: float) -> float:
        """Return the mean seconds from the end of a task to the poll that sees it."""
        a, b = self._inside(scale)
        halves = (
            self._ends[a] / self._slowest
            + (self._lags[b] - self._lags[a]) / scale
            + (self._ends[-1] - self._ends[b]) / self._fastest
        )
        return halves / self._ends[-1] / 2

    def scale(self) -> float:
        """Return what gives what the user wants, or as near as the bounds allow."""
        low, high = self._slowest / self._urges[-1], self._fastest / self._urges[0]
        for _ in range(40):
            middle = math.sqrt(low) * math.sqrt(high)
            if self._is_enough(middle):
                high = middle
            else:
                low = middle
        return high

    def _is_enough(self, scale: float) -> bool:
        if self._knobs.polls_per_task is not None:
            return self.polls(scale) >= self._knobs.polls_per_task
        return self.lag(scale) <= self._knobs.mean_lag

    def _inside(self, scale: float) -> tuple[int, int]:
        return (
            bisect_right(self._urges, self._slowest / scale),
            bisect_right(self._urges, self._fastest / scale),
        )


def _last(odds: Mapping[Phase, Odds], phase: Phase) -> float:
    """Return how often a task ends with this phase; what goes on nobody knows where, ends."""
    known = sum(share for successor, share in odds[phase].items() if successor in odds)
    return 1 - min(known, 1)


def _visits(odds: Mapping[Phase, Odds]) -> dict[Phase, float]:
    """Return how often a task comes through each phase, on average."""
    start = min(odds, key=lambda phase: (not odds[phase], _ORDER.index(phase)))
    step, visits = {start: 1.0}, {start: 1.0}
    for _ in range(_ROUNDS):
        following: dict[Phase, float] = {}
        for phase, times in step.items():
            for successor, share in odds[phase].items():
                if successor in odds:
                    following[successor] = following.get(successor, 0) + times * share
        for phase, times in following.items():
            visits[phase] = visits.get(phase, 0) + times
        step = following
    return visits


def _worth(odds: Mapping[Phase, Odds], unseen: Mapping[Phase, float]) -> dict[Phase, float]:
    """Return what it is worth to see the end of each phase at once.

    A change into a phase that may be over before the next poll is worth what its end is.
    """
    worth = dict.fromkeys(odds, 1.0)
    for _ in range(_ROUNDS):
        worth = {
            phase: _last(odds, phase)
            + sum(
                share * (MIDWAY + (1 - MIDWAY) * unseen[successor] * worth[successor])
                for successor, share in odds[phase].items()
                if successor in odds
            )
            for phase in odds
        }
    return worth


def _quantiles(ways: list[tuple[float, float]]) -> list[float]:
    """Return evenly spread quantiles of values that count by their weights."""
    ways.sort()
    sums = list(itertools.accumulate(weight for _, weight in ways))
    return [ways[min(bisect_right(sums, share * sums[-1]), len(ways) - 1)][0] for share in _SHARES]


def _sums(numbers: Iterable[float]) -> list[float]:
    return list(itertools.accumulate(numbers, initial=0.0))
