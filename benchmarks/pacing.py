"""How long a video waits to be seen, for how many requests: learned pacing and its rivals."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import json
import operator
import pathlib
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from veo3_async._models import Phase
from veo3_async._pacing.learned import LearnedPacing
from veo3_async._pacing.policies import BackoffPacing, Eta, FixedPacing, Pacing, Progress
from veo3_async._pacing.schedule import MIDWAY

from ._report import COLOURS, Table, picture, publish
from ._worlds import (
    ARRIVALS,
    PHASES,
    QUICKER,
    SLOWER,
    STEADY,
    TWOFOLD,
    WORLDS,
    Figures,
    Frontier,
    Life,
    Maker,
    Oracle,
    Watched,
    World,
    at_lag,
    at_polls,
    frontier_of,
    lives_of,
    watch,
)


@dataclasses.dataclass(frozen=True)
class Start:
    """A beginning without history."""

    name: str
    tasks: int
    gap: float
    """Seconds from one task to the next."""
    times: int
    """How often it is tried."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How many tasks are watched."""

    seen: int
    """Before those that count."""
    counted: int
    dense: int
    """Enough for what polls every second, those that were seen before included."""
    densest: int
    """Enough for what polls ten times a second."""
    alone: int
    starts: tuple[Start, ...]
    since: tuple[int, ...]
    """A shift: the tasks after it at which windows begin, and the last one ends."""
    shifts: int
    costed: int


FULL: Final = Size(
    seen=200,
    counted=3000,
    dense=800,
    densest=60,
    alone=2500,
    starts=(
        Start("20 in a row", 20, 1000.0, 40),
        Start("first 50", 50, ARRIVALS, 20),
        Start("300 at once", 300, 0.0, 4),
    ),
    since=(0, 50, 100, 150, 250),
    shifts=12,
    costed=400,
)
QUICK: Final = Size(
    seen=30,  # the first has ended when the last is born
    counted=5,
    dense=32,
    densest=1,
    alone=3,
    starts=(Start("5 at once", 5, 0.0, 2),),
    since=(0, 4, 12),
    shifts=1,
    costed=10,
)

INTERVALS: Final = (1.0, 2.0, 4.0, 7.0, 10.0, 14.0, 20.0, 40.0)
LONGEST: Final = (4.0, 8.0, 15.0, 30.0, 60.0)  # seconds, of the backoff
FACTORS: Final = (0.3, 0.55, 0.9, 1.1, 2.0, 3.2)  # of the polls that a fixed 10 s takes
COLD: Final = (14.0, 20.0, 27.0, 35.0, 45.0)  # polls a task
ALONE: Final = (31.0, 39.0)  # the same, where a task knows of no other
MIXED: Final = 27.0  # polls a task, where four models are in one client
FAL: Final = "fal-client's 0.1 s"
SKEWED: Final = "learned, clocks skewed ± 5 %"
TIMELESS: Final = "learned, no times in the replies"

SAID = (
    "Virtual time: lives are drawn from distributions that we know, the client's pacing says when "
    "each is polled, and nothing waits. *Lag* is from a change to the poll that sees it; where "
    "nothing else is said, it is that of the video, in seconds. *oracle* is the same pacing with "
    "the true hazard in place of the learned one, and without bounds on its intervals. *÷ fixed* "
    "and *÷ oracle* compare lags at equal polls, *polls for its lag* is what the policy needs for "
    "the lag of a fixed 10 s. *÷ oracle* in the tables of one world, and the picture, weigh a "
    "change that is not the end as the pacing does, with {midway:g}. A world's table has "
    "{counted:,} tasks after the first {seen:,}, a task every {gap:g} s."
)


def ten_seconds(fixed: Frontier) -> Figures:
    """Return what learned pacing replaces."""
    return fixed[INTERVALS.index(10.0)]


def frontiers_of(world: World, size: Size) -> dict[str, Frontier]:
    """Return what every policy gives once it has seen some tasks."""
    lives = lives_of(world, each=size.seen + size.counted)
    of = functools.partial(frontier_of, lives=lives, seen=size.seen)
    fixed = of(FixedPacing, INTERVALS[:2], lives=lives[: size.dense])
    fixed += of(FixedPacing, INTERVALS[2:])
    knobs = [ten_seconds(fixed).polls * factor for factor in FACTORS]
    fal = functools.partial(FixedPacing, jitter=0.0)
    return {
        "fixed": fixed,
        "backoff": of(functools.partial(BackoffPacing, 1.0), LONGEST),
        FAL: of(fal, (0.1,), lives=lives[: size.densest], seen=0),
        "learned": of(LearnedPacing, knobs),
        SKEWED: of(LearnedPacing, knobs[2:4], clocks=(0.95, 1.05)),
        TIMELESS: of(LearnedPacing, knobs[2:4], clocks=(0.0,)),
        "oracle": of(functools.partial(Oracle, world), knobs),
    }


def steady(world: str, frontiers: Mapping[str, Frontier]) -> Table:
    fixed, backoff, oracle = (frontiers[name] for name in ("fixed", "backoff", "oracle"))
    replaced = ten_seconds(fixed)
    rows = [
        *((f"fixed {s:g} s", fixed[INTERVALS.index(s)], fixed) for s in (1.0, 10.0, 20.0)),
        ("backoff 1 → 30 s × 1.5", backoff[LONGEST.index(30.0)], backoff),
        (FAL, frontiers[FAL][0], frontiers[FAL]),
        *(
            (name, at_polls(frontiers[name], replaced.polls), frontiers[name])
            for name in ("learned", SKEWED, TIMELESS, "oracle")
        ),
    ]
    heads = ("polls a task", "mean lag", "p50", "p95", "mean of all changes")
    table = Table(world, ["", *heads, "÷ fixed", "÷ oracle", "polls for its lag"])
    for name, figures, frontier in rows:
        several = len(frontier) > 2  # two settings are too near each other to tell
        table.add(
            name,
            *dataclasses.astuple(figures)[: len(heads)],
            compared(figures, fixed, operator.attrgetter("mean")),
            compared(figures, oracle, operator.attrgetter("weighed")),
            at_lag(frontier, replaced.mean).polls if several else None,
        )
    return table


def compared(figures: Figures, rival: Frontier, lag: Callable[[Figures], float]) -> str | None:
    """Return a ratio at equal polls; None where the rival never took as many."""
    if figures.polls > max(tried.polls for tried in rival):
        return None
    return f"{lag(figures) / lag(at_polls(rival, figures.polls)):.2f}"


Run = Callable[[Maker, float], list[Watched]]


def cold(size: Size) -> Table:
    columns = ["", "each task alone", *(start.name for start in size.starts)]
    table = Table("without history: mean lag ÷ fixed 10 s, at equal polls", columns)
    for world in WORLDS:
        runs = [functools.partial(started, world, start) for start in size.starts]
        first = beside_fixed(functools.partial(alone, world, size.alone), ALONE)
        table.add(world.name, first, *(beside_fixed(run, COLD) for run in runs))
    return table


def alone(world: World, tasks: int, make: Maker, knob: float) -> list[Watched]:
    """Follow tasks that know of no other."""
    return watch(lives_of(world, each=tasks), map(make, itertools.repeat(knob)))


def started(world: World, start: Start, make: Maker, knob: float) -> list[Watched]:
    tasks: list[Watched] = []
    for seed in range(start.times):
        lives = lives_of(world, each=start.tasks, seed=seed, gap=start.gap)
        tasks += watch(lives, itertools.repeat(make(knob)), seed=seed)
    return tasks


def beside_fixed(run: Run, knobs: Iterable[float]) -> str:
    fixed = Figures.of(run(FixedPacing, 10.0))
    learned = [Figures.of(run(LearnedPacing, knob)) for knob in knobs]
    return f"{at_polls(learned, fixed.polls).mean / fixed.mean:.2f}"


def shifts(size: Size) -> Table:
    since = [f"{begin}–{end}" for begin, end in itertools.pairwise(size.since)]
    title = "after a shift: mean lag ÷ oracle of the new world, at equal polls, by tasks since"
    table = Table(title, ["", *since])
    for before, after in ((STEADY, SLOWER), (STEADY, QUICKER), (STEADY, TWOFOLD)):
        run = functools.partial(pooled, before, after, size)
        fixed = run(FixedPacing, 10.0)
        polls = fixed[-1].polls
        learned = [run(LearnedPacing, polls * factor) for factor in (0.7, 0.95, 1.4)]
        true = functools.partial(Oracle, after)
        oracle = [run(true, polls * factor) for factor in (0.8, 1.0, 1.25)]
        ratios = []
        for place, replaced in enumerate(fixed):
            ours = at_polls([found[place] for found in learned], replaced.polls).mean
            best = at_polls([found[place] for found in oracle], replaced.polls).mean
            ratios.append(f"{ours / best:.2f}")
        table.add(f"{before.name} → {after.name}", *ratios)
    return table


def pooled(before: World, after: World, size: Size, make: Maker, knob: float) -> list[Figures]:
    """Return what a policy gives in each window after the shift."""
    each = size.since[-1]
    runs = []
    for seed in range(size.shifts):
        lives = lives_of(before, after, each=each, seed=seed)
        runs.append(watch(lives, itertools.repeat(make(knob)), seed=seed)[each:])
    return [
        Figures.of([task for run in runs for task in run[begin:end]])
        for begin, end in itertools.pairwise(size.since)
    ]


class Of:
    """Passes everything on to a pacing, as of one model."""

    def __init__(self, pacing: Pacing, model: str) -> None:
        self.pacing = pacing
        self.model = model

    def delay(self, progress: Progress, rand: float) -> float:
        return self.pacing.delay(self._of_model(progress), rand)

    def phase_ended(self, last: Progress, lasted: float, successor: Phase) -> None:
        self.pacing.phase_ended(self._of_model(last), lasted, successor)

    def eta(self, progress: Progress) -> Eta | None:
        return self.pacing.eta(self._of_model(progress))

    def _of_model(self, progress: Progress) -> Progress:
        return msgspec.structs.replace(progress, model=self.model)


def mixed(size: Size) -> Table:
    """Show four models in one client: tasks of each come in turn, and each is learned by itself."""
    title = "four models mixed in one client: lag ÷ oracle of each, at equal polls"
    table = Table(title, ["", "polls a task", "mean lag", "÷ oracle", "÷ oracle, all as one model"])
    rng, births = random.Random(7), itertools.count(0.0, ARRIVALS / len(WORLDS))
    each = size.seen + size.counted // 2
    lives = [world.life(rng, next(births)) for _ in range(each) for world in WORLDS]
    ours = _mixed_figures(lives, size.seen, [world.name for world in WORLDS])
    blurred = _mixed_figures(lives, size.seen, [""] * len(WORLDS))
    best = []
    for place, world in enumerate(WORLDS):
        knobs = [MIXED * factor for factor in FACTORS]
        make = functools.partial(Oracle, world)
        oracle = frontier_of(make, knobs, lives[place :: len(WORLDS)], size.seen)
        best.append(at_polls(oracle, ours[place].polls).weighed)
        lag = operator.attrgetter("weighed")
        ratios = [compared(found[place], oracle, lag) for found in (ours, blurred)]
        table.add(world.name, ours[place].polls, ours[place].mean, *ratios)
    polls, mean, weighed = (
        statistics.fmean(getattr(figures, name) for figures in ours)
        for name in ("polls", "mean", "weighed")
    )
    table.add("all", polls, mean, f"{weighed / statistics.fmean(best):.2f}", None)
    return table


def _mixed_figures(lives: Sequence[Life], seen: int, models: Sequence[str]) -> list[Figures]:
    """Return what one pacing gives for each world, whose tasks it takes for these models."""
    pacing = LearnedPacing(MIXED)
    tasks = watch(lives, itertools.cycle([Of(pacing, model) for model in models]))
    return [Figures.of(tasks[n :: len(WORLDS)][seen:]) for n in range(len(WORLDS))]


def etas(size: Size) -> Table:
    """Show how often the range holds the truth, at each first sight of a phase."""
    columns = ["", "in 10–90 %", "above the median", "mean range, s"]
    table = Table("what is left, told at each change", columns)
    for world in WORLDS:
        lives = lives_of(world, each=size.seen + size.counted)
        tasks = watch(lives, itertools.repeat(LearnedPacing()))[size.seen :]
        told = [pair for task in tasks for pair in task.etas]
        held = statistics.fmean(said.low <= truth <= said.high for said, truth in told)
        above = statistics.fmean(truth > said.median for said, truth in told)
        width = statistics.fmean(said.high - said.low for said, _ in told)
        table.add(world.name, f"{held:.1%}", f"{above:.1%}", width)
    return table


class Timed:
    """Passes everything on to a pacing, and adds up what it takes."""

    def __init__(self, pacing: Pacing) -> None:
        self.pacing = pacing
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self.calls: dict[str, int] = collections.defaultdict(int)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def timed(*told: Any) -> Any:
            began = time.thread_time()
            answer = getattr(self.pacing, name)(*told)
            self.seconds[name] += time.thread_time() - began
            self.calls[name] += 1
            return answer

        return timed


def cost(size: Size) -> Table:
    """Show what a decision costs, learning and planning included."""
    table = Table("cost, in CPU time", ["", "a decision, µs", "an ETA, µs", "as JSON, kB"])
    for world in (STEADY, PHASES):
        lives = lives_of(world, each=size.costed)
        pacing = LearnedPacing()
        watch(lives, itertools.repeat(pacing))
        timed = Timed(pacing)
        watch(lives, itertools.repeat(cast("Pacing", timed)))
        seconds, calls = timed.seconds, timed.calls
        decision = (seconds["delay"] + seconds["phase_ended"]) / calls["delay"]
        kept = len(json.dumps(pacing.to_dict(), separators=(",", ":")))
        table.add(world.name, decision * 1e6, seconds["eta"] / calls["eta"] * 1e6, kept / 1000)
    return table


def main(results: pathlib.Path, *, quick: bool = False) -> None:
    size = QUICK if quick else FULL
    frontiers = {}
    for world in WORLDS:
        sys.stderr.write(f"{world.name} …\n")
        frontiers[world.name] = frontiers_of(world, size)
    tables = [steady(*found) for found in frontiers.items()]
    for show in (mixed, cold, shifts, etas, cost):
        sys.stderr.write(f"{show.__name__} …\n")
        tables.append(show(size))
    said = SAID.format(midway=MIDWAY, counted=size.counted, seen=size.seen, gap=ARRIVALS)
    publish(results, "pacing", said, *tables)
    with picture(results, "pacing", panels=len(frontiers)) as axes:
        if axes is not None:
            _draw(axes, frontiers)


LOOKS: Final[Mapping[str, Mapping[str, str]]] = {
    "fixed": {"color": COLOURS[1], "marker": "o", "label": "fixed interval"},
    "backoff": {"color": COLOURS[2], "marker": "s", "label": "backoff × 1.5"},
    "learned": {"color": COLOURS[0], "marker": "D", "label": "learned"},
    "oracle": {"color": "black", "linestyle": ":", "label": "oracle"},
}


def _draw(axes: Sequence[Any], frontiers: Mapping[str, Mapping[str, Frontier]]) -> None:
    ticks = {"x": (10, 20, 50, 100), "y": (0.5, 1, 2, 5, 10, 20)}
    for axis, (name, found) in zip(axes, frontiers.items(), strict=True):
        for policy, look in LOOKS.items():
            points = sorted(found[policy], key=operator.attrgetter("polls"))
            polls, lags = [p.polls for p in points], [p.weighed for p in points]
            axis.plot(polls, lags, markersize=4, **look)
        axis.set(title=name, xscale="log", yscale="log", xlim=(6, 130), ylim=(0.4, 30))
        axis.set_xticks(ticks["x"], map(str, ticks["x"]))
        axis.set_yticks(ticks["y"], map(str, ticks["y"]))
        axis.minorticks_off()
        axis.grid(color="#dddddd", linewidth=0.5)
    axes[0].legend(frameon=False)
    axes[0].figure.supxlabel("requests a task")
    axes[0].figure.supylabel(f"mean lag in seconds (a change on the way counts {MIDWAY:g})")
