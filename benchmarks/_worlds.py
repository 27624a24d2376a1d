"""Lives drawn from distributions that we know, and what a pacing makes of them in virtual time.

Nothing waits: the pacing of the client says when each task is polled. The oracle is the same
pacing with the true hazard in place of the learned one, and without bounds on its intervals.
"""

from __future__ import annotations

import bisect
import dataclasses
import heapq
import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from veo3_async._models import FINAL, Phase
from veo3_async._pacing.hazard import EDGES, WIDTHS
from veo3_async._pacing.policies import Eta, Pacing, Progress
from veo3_async._pacing.schedule import MIDWAY, Knobs, Plan

ARRIVALS: Final = 10.0  # seconds between two tasks: some thirty run at once

# --- lives ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Lasting:
    """How long a phase lasts: a mixture of lognormals."""

    parts: tuple[tuple[float, float, float], ...]
    """Share, median in seconds, sigma of the logarithm."""

    def draw(self, rng: random.Random) -> float:
        point, place = rng.random(), 0
        while place < len(self.parts) - 1 and point >= self.parts[place][0]:
            point -= self.parts[place][0]
            place += 1
        _, median, sigma = self.parts[place]
        return median * math.exp(sigma * rng.gauss(0, 1))

    def survival(self, age: float) -> float:
        return sum(
            share * math.erfc(math.log(age / median) / (sigma * math.sqrt(2))) / 2
            for share, median, sigma in self.parts
        )

    def hazard(self) -> list[float]:
        """Return the true mean hazard of each bin."""
        hazard = [1e-9]
        alive = 1.0
        for end, width in zip(EDGES[1:], WIDTHS, strict=False):
            still = self.survival(end)
            hazard.append(math.log(alive / still) / width if still > 1e-9 else hazard[-1])
            alive = still
        return [max(1e-9, rate) for rate in (*hazard[1:], hazard[-1])]


def lognormal(median: float, sigma: float) -> Lasting:
    return Lasting(((1.0, median, sigma),))


@dataclasses.dataclass(frozen=True)
class Life:
    phases: list[Phase]
    """The last one is final."""
    times: list[float]
    """When each began."""


@dataclasses.dataclass(frozen=True)
class World:
    """What the service does: how long each phase lasts, and what follows it."""

    name: str
    phases: dict[Phase, tuple[Lasting, dict[Phase, float]]]

    def life(self, rng: random.Random, born: float) -> Life:
        phase, now = next(iter(self.phases)), born
        phases, times = [phase], [now]
        while phase not in FINAL:
            lasting, odds = self.phases[phase]
            now += lasting.draw(rng)
            phase = rng.choices(list(odds), list(odds.values()))[0]
            phases.append(phase)
            times.append(now)
        return Life(phases, times)


def simple(name: str, lasting: Lasting) -> World:
    return World(name, {Phase.GENERATING: (lasting, {Phase.COMPLETED: 1.0})})


STEADY: Final = simple("lognormal 300 s, sigma 0.35", lognormal(300, 0.35))
BROAD: Final = simple("lognormal 180 s, sigma 0.6", lognormal(180, 0.6))
TWOFOLD: Final = simple("80 % 90 s, 20 % 340 s", Lasting(((0.8, 90, 0.15), (0.2, 340, 0.15))))
PHASES: Final = World(
    "phases and retries",
    {
        Phase.QUEUED: (lognormal(8, 0.6), {Phase.PREPARING: 1.0}),
        Phase.PREPARING: (lognormal(4, 0.5), {Phase.GENERATING: 1.0}),
        Phase.GENERATING: (lognormal(180, 0.35), {Phase.GENERATED: 0.9, Phase.RETRYING: 0.1}),
        Phase.RETRYING: (lognormal(15, 0.3), {Phase.GENERATING: 0.9, Phase.FAILED: 0.1}),
        Phase.GENERATED: (lognormal(2, 0.5), {Phase.UPSAMPLING: 1.0}),
        Phase.UPSAMPLING: (lognormal(80, 0.3), {Phase.COMPLETED: 1.0}),
    },
)
WORLDS: Final = (STEADY, BROAD, TWOFOLD, PHASES)
SLOWER: Final = simple("lognormal 600 s, sigma 0.35", lognormal(600, 0.35))
QUICKER: Final = simple("lognormal 150 s, sigma 0.35", lognormal(150, 0.35))


def lives_of(*worlds: World, each: int, seed: int = 7, gap: float = ARRIVALS) -> list[Life]:
    """Draw so many lives of each world, one world after the other.

    :param gap: Seconds from one birth to the next.
    """
    rng = random.Random(seed)
    moments = itertools.count(0.0, gap)
    return [world.life(rng, next(moments)) for world in worlds for _ in range(each)]


# --- who polls them -------------------------------------------------------------------------


class Oracle:
    """Knows the true hazards, and asks as often as it likes where it pays."""

    def __init__(self, world: World, polls_per_task: float) -> None:
        self.plan = Plan(
            {phase: lasting.hazard() for phase, (lasting, _) in world.phases.items()},
            {phase: odds for phase, (_, odds) in world.phases.items()},
            Knobs(polls_per_task=polls_per_task, min_interval=0.1, max_interval=3600),
        )

    def delay(self, progress: Progress, rand: float) -> float:
        return self.plan.wait(progress.phase, progress.age, 0.95 + 0.1 * rand)

    def phase_ended(self, last: Progress, lasted: float, successor: Phase) -> None:
        """Know it already."""

    def eta(self, progress: Progress) -> Eta | None:
        return self.plan.left(progress.phase, progress.age)


@dataclasses.dataclass(slots=True)
class Watched:
    """One task, as a watch follows it."""

    life: Life
    pacing: Pacing
    clock: float
    """Seconds of the server's clock in a second of ours; 0 where it tells no times."""
    place: int = -1
    began: float = 0.0
    """When its phase began, as the client believes."""
    last: Progress | None = None
    polls: int = 0
    lag: float = 0.0
    changes: list[float] = dataclasses.field(default_factory=list)
    """The lag of every change that was seen or slept through, the last one included."""
    etas: list[tuple[Eta, float]] = dataclasses.field(default_factory=list)
    """What the pacing said is left, and what was left."""

    def poll(self, now: float, rand: float) -> float | None:
        """Return the seconds until the next poll, or None where the task has ended."""
        self.polls += 1
        place = bisect.bisect_right(self.life.times, now) - 1
        if place != self.place:
            self._enter(place, now)
        phase = self.life.phases[place]
        if phase in FINAL:
            self.lag = now - self.life.times[-1]
            return None
        age = max(0.0, now - self.began)
        if self.last is None:
            self.last = Progress(phase=phase, age=age)
            self._foretell(self.last, now)
        else:
            polls = self.last.polls + 1
            self.last = Progress(phase=phase, age=age, previous_age=self.last.age, polls=polls)
        return self.pacing.delay(self.last, rand)

    def _foretell(self, progress: Progress, now: float) -> None:
        eta = self.pacing.eta(progress)
        if eta is not None and self.life.phases[-1] is Phase.COMPLETED:
            self.etas.append((eta, self.life.times[-1] - now))

    def _enter(self, place: int, now: float) -> None:
        times = self.life.times
        self.changes += (now - times[missed] for missed in range(max(1, self.place + 1), place + 1))
        if self.last is not None:
            exact = (times[place] - times[self.place]) * self.clock
            lasted = exact if self.clock else now - self.began
            self.pacing.phase_ended(self.last, lasted, self.life.phases[place])
        self.began = now - (now - times[place]) * self.clock
        self.place, self.last = place, None


def watch(
    lives: Iterable[Life],
    pacings: Iterable[Pacing],
    *,
    clocks: Sequence[float] = (1.0,),
    seed: int = 1,
) -> list[Watched]:
    """Follow all lives to their ends.

    :param pacings: For each life one, which may be always the same.
    :param clocks: Of the servers that the tasks are on, in turn by chance.
    """
    rng = random.Random(seed)
    tasks = [
        Watched(life, own, rng.choice(clocks)) for life, own in zip(lives, pacings, strict=False)
    ]
    agenda = [(task.life.times[0] + rng.random(), number) for number, task in enumerate(tasks)]
    heapq.heapify(agenda)
    while agenda:
        now, number = heapq.heappop(agenda)
        wait = tasks[number].poll(now, rng.random())
        if wait is not None:
            heapq.heappush(agenda, (now + wait, number))
    return tasks


# --- what came of it ------------------------------------------------------------------------

Maker = Callable[[float], Pacing]
"""Of a pacing, from its one knob."""


@dataclasses.dataclass(frozen=True)
class Figures:
    polls: float
    mean: float
    p50: float
    p95: float
    changes: float
    """Mean lag of all changes, the video among them."""
    weighed: float
    """The same, where a change that is not the end counts `MIDWAY`: what pacing makes small."""

    @staticmethod
    def of(tasks: Sequence[Watched]) -> Figures:
        lags = sorted(task.lag for task in tasks)
        changes = [lag for task in tasks for lag in task.changes]
        others = MIDWAY * (sum(changes) - sum(lags)), MIDWAY * (len(changes) - len(lags))
        return Figures(
            polls=statistics.fmean(task.polls for task in tasks),
            mean=statistics.fmean(lags),
            p50=lags[len(lags) // 2],
            p95=lags[int(0.95 * len(lags))],
            changes=statistics.fmean(changes),
            weighed=(sum(lags) + others[0]) / (len(lags) + others[1]),
        )


Frontier = list[Figures]
"""One policy at several settings of its knob."""


def at_polls(frontier: Frontier, polls: float) -> Figures:
    """Return what a policy gives for so many polls, between its settings on a log-log line."""
    return _between(frontier, polls, lambda figures: figures.polls)


def at_lag(frontier: Frontier, lag: float) -> Figures:
    return _between(frontier, lag, lambda figures: figures.mean)


def _between(frontier: Frontier, wanted: float, by: Callable[[Figures], float]) -> Figures:
    points = sorted(frontier, key=by)
    place = min(max(1, bisect.bisect([by(point) for point in points], wanted)), len(points) - 1)
    low, high = points[place - 1], points[place]
    if by(low) == by(high):  # of few tasks
        return low
    part = math.log(wanted / by(low)) / math.log(by(high) / by(low))
    pairs = zip(dataclasses.astuple(low), dataclasses.astuple(high), strict=True)
    return Figures(*(math.exp((1 - part) * math.log(a) + part * math.log(b)) for a, b in pairs))


def frontier_of(
    make: Maker,
    knobs: Iterable[float],
    lives: Sequence[Life],
    seen: int,
    clocks: Sequence[float] = (1.0,),
) -> Frontier:
    """Return what a policy gives after its first tasks."""
    return [
        Figures.of(watch(lives, itertools.repeat(make(knob)), clocks=clocks)[seen:])
        for knob in knobs
    ]
