"""How long a video waits to be seen, for how many requests: learned pacing and its rivals.

``python benchmarks/pacing.py`` prints the tables and draws ``benchmarks/results/pacing.svg``. It
runs in virtual time: lives are drawn from distributions that we know, the pacing of the client
says when each is polled, and nothing waits. The oracle is the same pacing with the true hazard
in place of the learned one, and without bounds on its intervals. "÷ oracle" and the picture weigh
a change that is not the end as the pacing does, with 0.2; elsewhere it is the video that counts.
"""

from __future__ import annotations

import bisect
import dataclasses
import heapq
import itertools
import json
import math
import pathlib
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, cast

from veo3_async._hazard import EDGES, WIDTHS
from veo3_async._learned import LearnedPacing
from veo3_async._lifecycle import FINAL
from veo3_async._models import Phase
from veo3_async._pacing import BackoffPacing, Eta, FixedPacing, Pacing, Progress
from veo3_async._plan import MIDWAY, Knobs, Plan

SEEN_FIRST: Final = 200
MEASURED: Final = 3000
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


@dataclasses.dataclass(frozen=True)
class Life:
    phases: list[Phase]
    """The last one is final."""
    times: list[float]
    """When each began."""


def simple(name: str, lasting: Lasting) -> World:
    return World(name, {Phase.GENERATING: (lasting, {Phase.COMPLETED: 1.0})})


STEADY = simple("lognormal 300 s, sigma 0.35", lognormal(300, 0.35))
BROAD = simple("lognormal 180 s, sigma 0.6", lognormal(180, 0.6))
TWOFOLD = simple("80 % 90 s, 20 % 340 s", Lasting(((0.8, 90, 0.15), (0.2, 340, 0.15))))
PHASES = World(
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
WORLDS = (STEADY, BROAD, TWOFOLD, PHASES)
SLOWER = simple("lognormal 600 s, sigma 0.35", lognormal(600, 0.35))
QUICKER = simple("lognormal 150 s, sigma 0.35", lognormal(150, 0.35))

# --- rivals ---------------------------------------------------------------------------------


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


Maker = Callable[[float], Pacing]
"""Of a pacing, from its one knob."""

# --- virtual time ---------------------------------------------------------------------------


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


def lives_of(*worlds: World, each: int, seed: int = 7, gap: float = ARRIVALS) -> list[Life]:
    rng = random.Random(seed)
    moments = itertools.count(0.0, gap)
    return [world.life(rng, next(moments)) for world in worlds for _ in range(each)]


# --- figures --------------------------------------------------------------------------------


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
    part = math.log(wanted / by(low)) / math.log(by(high) / by(low))
    return Figures(
        **{
            field.name: math.exp(
                (1 - part) * math.log(getattr(low, field.name))
                + part * math.log(getattr(high, field.name))
            )
            for field in dataclasses.fields(Figures)
        }
    )


def frontier_of(
    make: Maker,
    knobs: Iterable[float],
    lives: Sequence[Life],
    measured: slice,
    **options: Any,
) -> Frontier:
    frontier = []
    for knob in knobs:
        pacing = make(knob)
        frontier.append(Figures.of(watch(lives, itertools.repeat(pacing), **options)[measured]))
    return frontier


def around(polls: float) -> list[float]:
    return [polls * factor for factor in (0.3, 0.55, 0.9, 1.1, 2.0, 3.2)]


# --- the tables -----------------------------------------------------------------------------

AFTER_FIRST: Final = slice(SEEN_FIRST, None)
INTERVALS: Final = (1.0, 2.0, 4.0, 7.0, 10.0, 14.0, 20.0, 40.0)
LONGEST: Final = (4.0, 8.0, 15.0, 30.0, 60.0)  # of the backoff
SOME: Final = 800  # tasks are enough for what polls every second
FEW: Final = 60  # tasks are enough for what polls ten times a second

HEAD: Final = (
    f"{'':34}{'polls':>8}{'mean lag':>10}{'p50':>8}{'p95':>8}{'all changes':>13}"
    f"{'÷ fixed':>9}{'÷ oracle':>10}{'polls for':>11}\n"
    f"{'':34}{'a task':>8}{'s':>10}{'s':>8}{'s':>8}{'mean, s':>13}"
    f"{'at equal polls':>19}{'its lag':>11}"
)


def row(name: str, figures: Figures, *more: float | None) -> None:
    parts = ("" if part is None else f"{part:.2f}" for part in more)
    print(
        f"{name:34}{figures.polls:8.1f}{figures.mean:10.2f}{figures.p50:8.2f}{figures.p95:8.2f}"
        f"{figures.changes:13.2f}" + "".join(map(str.rjust, parts, (9, 10, 11)))
    )


def steady(world: World) -> dict[str, Frontier]:
    """Print what every policy gives once it has seen 200 tasks."""
    lives = lives_of(world, each=SEEN_FIRST + MEASURED)
    fixed = frontier_of(FixedPacing, INTERVALS[:2], lives[:SOME], AFTER_FIRST)
    fixed += frontier_of(FixedPacing, INTERVALS[2:], lives, AFTER_FIRST)
    replaced = fixed[INTERVALS.index(10.0)]
    knobs = around(replaced.polls)
    backoff = frontier_of(lambda top: BackoffPacing(1.0, top), LONGEST, lives, AFTER_FIRST)
    fal = frontier_of(lambda s: FixedPacing(s, jitter=0.0), (0.1,), lives[:FEW], slice(None))
    oracle = frontier_of(lambda polls: Oracle(world, polls), knobs, lives, AFTER_FIRST)
    learned = frontier_of(LearnedPacing, knobs, lives, AFTER_FIRST)
    skewed = frontier_of(LearnedPacing, knobs[2:4], lives, AFTER_FIRST, clocks=(0.95, 1.05))
    timeless = frontier_of(LearnedPacing, knobs[2:4], lives, AFTER_FIRST, clocks=(0.0,))

    def compared(name: str, figures: Figures, frontier: Frontier | None = None) -> None:
        polls = figures.polls
        row(
            name,
            figures,
            figures.mean / at_polls(fixed, polls).mean,
            figures.weighed / at_polls(oracle, polls).weighed if polls < max(knobs) * 2 else None,
            at_lag(frontier, replaced.mean).polls if frontier else None,
        )

    print(f"\n{world.name}\n{HEAD}")
    for interval in (1.0, 10.0, 20.0):
        compared(f"fixed {interval:g} s", fixed[INTERVALS.index(interval)], fixed)
    compared("backoff 1 → 30 s × 1.5", backoff[LONGEST.index(30.0)], backoff)
    row("fal-client's 0.1 s", fal[0])
    equal = replaced.polls
    compared("learned", at_polls(learned, equal), learned)
    compared("learned, clocks skewed ± 5 %", at_polls(skewed, equal))
    compared("learned, no times in the replies", at_polls(timeless, equal))
    compared("oracle", at_polls(oracle, equal), oracle)
    return {"fixed": fixed, "backoff": backoff, "learned": learned, "oracle": oracle}


def cold(world: World) -> None:
    """Print what it gives before it has seen anything, at the polls of a fixed 10 s."""

    def of(
        run: Callable[[Maker, float], list[Watched]],
        knobs: Sequence[float] = (14.0, 20.0, 27.0, 35.0, 45.0),
    ) -> float:
        fixed = Figures.of(run(FixedPacing, 10.0))
        learned = [Figures.of(run(LearnedPacing, knob)) for knob in knobs]
        return at_polls(learned, fixed.polls).mean / fixed.mean

    def alone(make: Maker, knob: float) -> list[Watched]:
        return watch(lives_of(world, each=2500), map(make, itertools.repeat(knob)))

    def first(make: Maker, knob: float, gap: float, each: int, seeds: int) -> list[Watched]:
        tasks: list[Watched] = []
        for seed in range(seeds):
            pacing = make(knob)
            lives = lives_of(world, each=each, seed=seed, gap=gap)
            tasks += watch(lives, itertools.repeat(pacing), seed=seed)
        return tasks

    figures = (
        of(alone, (31.0, 39.0)),
        of(lambda make, knob: first(make, knob, 1000.0, 20, 40)),
        of(lambda make, knob: first(make, knob, ARRIVALS, 50, 20)),
        of(lambda make, knob: first(make, knob, 0.0, 300, 4)),
    )
    print(f"{world.name:34}" + "".join(f"{ratio:17.2f}" for ratio in figures))


def shift(before: World, after: World) -> None:
    """Print how far behind the oracle of the new world it is, the longer the nearer."""
    windows = (slice(0, 50), slice(50, 100), slice(100, 150), slice(150, 250))
    seeds, settled = 12, SEEN_FIRST
    runs = [lives_of(before, after, each=settled + 50, seed=seed) for seed in range(seeds)]

    def pooled(make: Maker, knob: float) -> list[Figures]:
        pacings = [make(knob) for _ in runs]
        seen = [
            watch(lives, itertools.repeat(pacing), seed=seed)[settled + 50 :]
            for seed, (lives, pacing) in enumerate(zip(runs, pacings, strict=True))
        ]
        return [Figures.of([t for tasks in seen for t in tasks[window]]) for window in windows]

    fixed = pooled(FixedPacing, 10.0)
    polls = fixed[-1].polls
    learned = [pooled(LearnedPacing, polls * factor) for factor in (0.7, 0.95, 1.4)]
    oracle = [pooled(lambda n: Oracle(after, n), polls * factor) for factor in (0.8, 1.0, 1.25)]
    print(f"{before.name + ' → ' + after.name:58}", end="")
    for place, replaced in enumerate(fixed):
        ours = at_polls([run[place] for run in learned], replaced.polls).mean
        best = at_polls([run[place] for run in oracle], replaced.polls).mean
        print(f"{ours / best:12.2f}", end="")
    print()


def eta(world: World) -> None:
    """Print how often the range holds the truth, at each first sight of a phase."""
    pacing = LearnedPacing()
    tasks = watch(lives_of(world, each=SEEN_FIRST + MEASURED), itertools.repeat(pacing))[
        AFTER_FIRST
    ]
    told = [pair for task in tasks for pair in task.etas]
    held = statistics.fmean(said.low <= truth <= said.high for said, truth in told)
    above = statistics.fmean(truth > said.median for said, truth in told)
    width = statistics.fmean(said.high - said.low for said, _ in told)
    print(f"{world.name:34}{held:12.1%}{above:20.1%}{width:14.0f} s")


def cost(world: World) -> None:
    """Print microseconds of CPU for a decision, learning and planning included."""
    lives = lives_of(world, each=400)
    pacing = LearnedPacing()
    watch(lives, itertools.repeat(pacing))
    spent = {"delay": 0.0, "phase_ended": 0.0, "eta": 0.0}
    calls = dict.fromkeys(spent, 0)

    class Timed:
        def __getattr__(self, name: str) -> Callable[..., Any]:
            def timed(*told: Any) -> Any:
                began = time.thread_time()
                answer = getattr(pacing, name)(*told)
                spent[name] += time.thread_time() - began
                calls[name] += 1
                return answer

            return timed

    watch(lives, itertools.repeat(cast("Pacing", Timed())))
    decision = (spent["delay"] + spent["phase_ended"]) / calls["delay"] * 1e6
    foretelling = spent["eta"] / calls["eta"] * 1e6
    kept = len(json.dumps(pacing.to_dict(), separators=(",", ":"))) / 1000
    print(f"{world.name:34}{decision:14.1f} µs{foretelling:14.0f} µs{kept:14.1f} kB")


def draw(path: pathlib.Path, frontiers: dict[str, dict[str, Frontier]]) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - the tables can be had without it

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    mpl.rcParams.update({"svg.hashsalt": "veo3_async", "font.size": 9, "axes.spines.top": False})
    mpl.rcParams["axes.spines.right"] = False
    looks: dict[str, dict[str, Any]] = {
        "fixed": {"color": "#777777", "marker": "o", "label": "fixed interval"},
        "backoff": {"color": "#c77b30", "marker": "s", "label": "backoff × 1.5"},
        "learned": {"color": "#1f6fb4", "marker": "D", "label": "learned"},
        "oracle": {"color": "#222222", "linestyle": ":", "label": "oracle"},
    }
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
    for axis, (name, policies) in zip(axes.flat, frontiers.items(), strict=True):
        for policy, frontier in policies.items():
            points = sorted(frontier, key=lambda figures: figures.polls)
            polls, lags = [p.polls for p in points], [p.weighed for p in points]
            axis.plot(polls, lags, markersize=4, **looks[policy])
        axis.set(title=name, xscale="log", yscale="log", xlim=(6, 130), ylim=(0.4, 30))
        ticks = ((10, 20, 50, 100), (0.5, 1, 2, 5, 10, 20))
        axis.set_xticks(ticks[0], [f"{tick:g}" for tick in ticks[0]], minor=False)
        axis.set_yticks(ticks[1], [f"{tick:g}" for tick in ticks[1]], minor=False)
        axis.minorticks_off()
        axis.grid(color="#dddddd", linewidth=0.5)
    axes[0, 0].legend(frameon=False)
    figure.supxlabel("requests a task")
    figure.supylabel("mean lag in seconds (a change on the way counts 0.2)")
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def main(results: pathlib.Path) -> None:
    """Print all tables and draw the frontier.

    :param results: The directory to draw into.
    """
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}; virtual time, {MEASURED} tasks after the first {SEEN_FIRST}; "
        "lag: from a change to the poll that sees it"
    )
    frontiers = {world.name: steady(world) for world in WORLDS}
    print(
        "\nwithout history: mean lag ÷ fixed 10 s, at equal polls\n"
        f"{'':34}{'each task alone':>17}{'20 in a row':>17}{'first 50':>17}{'300 at once':>17}"
    )
    for world in WORLDS:
        cold(world)
    print(
        "\nafter a shift: mean lag ÷ oracle of the new world, at equal polls, by tasks since\n"
        f"{'':58}{'0–50':>12}{'50–100':>12}{'100–150':>12}{'150–250':>12}"
    )
    for before, after in ((STEADY, SLOWER), (STEADY, QUICKER), (STEADY, TWOFOLD)):
        shift(before, after)
    print(
        "\nwhat is left, told at each change\n"
        f"{'':34}{'in 10–90 %':>12}{'above the median':>20}{'mean range':>16}"
    )
    for world in WORLDS:
        eta(world)
    print(f"\ncost\n{'':34}{'a decision':>17}{'an ETA':>17}{'as JSON':>17}")
    for world in (STEADY, PHASES):
        cost(world)
    draw(results / "pacing.svg", frontiers)


if __name__ == "__main__":
    main(pathlib.Path(__file__).parent / "results")
