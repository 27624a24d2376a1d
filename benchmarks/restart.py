"""Ten thousand tasks after a restart, beside a rate limit: how long finished videos wait.

In virtual time, with the decisions of the client as in `simulation`: the agenda, the throttle, the
judge, the pacing, and what it says of the first polls by what a journal knows of each task.
"""

from __future__ import annotations

import copy
import dataclasses
import pathlib
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from veo3_async import FixedPacing, LearnedPacing
from veo3_async._lifecycle.judge import Track, model_of_route
from veo3_async._pacing.first_polls import Sighting, expected, first_polls
from veo3_async._pacing.policies import Pacing
from veo3_async._protocol.families import route_of

from ._report import Table, publish
from .simulation import BEGINS, SIGMA, STAGES, Simulation, Task

LIMIT: Final = 20.0
SPAN: Final = 1800.0  # seconds over which the tasks were accepted
DOWN: Final = (15.0, 60.0, 300.0)  # seconds from the last look to the first
MODELS: Final[Mapping[str, float]] = {
    "veo3-pro": 1.0,
    "veo3-pro-frames": 1.4,
    "veo3-fast": 0.2,
    "veo3-fast-frames": 0.3,
}
"""How long tasks of each take, as shares of the documented life."""
TAUGHT: Final = 200

SAID = (
    "{ids:,} tasks of four models are left when a client stops, accepted one after the other over "
    "half an hour; the documented life, × 0.2 to 1.4 by model, × a lognormal number (sigma "
    "{sigma:g}). It starts again after *down* seconds, and may make {limit:g} requests a second. "
    "*A finished one* is a video that is there when it starts: the mean seconds until it is seen. "
    "*Each* counts the others too, from when they are there. *By their ages* is the client without "
    "anything learned, *ours* has seen {taught} tasks of each model before. *Clairvoyant* asks for "
    "those first that have ended, and is the bound for the first number. Virtual time."
)


@dataclasses.dataclass(frozen=True)
class Left:
    """A task that was left, and what the journal knows of it."""

    task: Task
    sighting: Sighting


class Restart(Simulation):
    """A client that starts with what was left; time 0 is its start."""

    def __init__(self, pacing: Pacing, rate: float) -> None:
        super().__init__(pacing, limit=2 * rate, rate=rate)
        self.waits: dict[str, float] = {}

    def found(self, task: Task, lag: float) -> None:
        self.waits[task.track.request_id] = lag


def born(model: str, number: int, moment: float, rng: random.Random) -> Task:
    track = Track(f"{model}:{number}", route=route_of(model))
    stretch = MODELS[model] * rng.lognormvariate(0.0, SIGMA)
    return Task(track=track, stretch=stretch, born=moment)


def left_behind(ids: int, down: float, rng: random.Random) -> list[Left]:
    """Return what runs when a client stops, in the order of acceptance."""
    tasks: list[Task] = []
    while len(tasks) < ids:
        moment = -down - rng.uniform(0, SPAN)
        task = born(rng.choice(list(MODELS)), len(tasks), moment, rng)
        if task.ends > -down:
            tasks.append(task)
    tasks.sort(key=lambda task: task.born)
    return [Left(task, _sighting(task, -down)) for task in tasks]


def _sighting(task: Task, stopped: float) -> Sighting:
    stage = task.stage(stopped)
    while stage and STAGES[stage - 1].phase is STAGES[stage].phase:
        stage -= 1  # a phase begins with the first of its words
    since = task.born + BEGINS[stage] * task.stretch
    return Sighting((model_of_route(task.track.route), STAGES[stage].phase), -since)


def taught(tasks: int) -> LearnedPacing:
    """Return a pacing that has seen so many tasks of each model."""
    pacing, rng = LearnedPacing(), random.Random(11)
    simulation = Restart(pacing, 1e6)
    for number in range(tasks):
        for model in MODELS:
            task = born(model, number, number * 10.0, rng)
            simulation.agenda.put(task, task.born)
    simulation.run()
    return pacing


Order = Callable[[Sequence[Left], Pacing], Iterator[tuple[int, float]]]
"""Says of what was left who is asked when for the first time."""


def in_order(left: Sequence[Left], _: Pacing) -> Iterator[tuple[int, float]]:
    return ((place, 0.0) for place in range(len(left)))


def likeliest(left: Sequence[Left], pacing: Pacing) -> Iterator[tuple[int, float]]:
    sightings = [one.sighting for one in left]
    etas = {kind: expected(pacing, kind) for kind in {one.kind for one in sightings}}
    polls = first_polls(sightings, etas, LIMIT)
    return zip(polls.order, polls.waits, strict=True)


def by_age(left: Sequence[Left], _: Pacing) -> Iterator[tuple[int, float]]:
    return likeliest(left, FixedPacing())


def clairvoyant(left: Sequence[Left], _: Pacing) -> Iterator[tuple[int, float]]:
    places = sorted(range(len(left)), key=lambda place: left[place].task.ends > 0)
    return ((place, 0.0) for place in places)


WAYS: Final[Mapping[str, Order]] = {
    "order of arrival": in_order,
    "by their ages": by_age,
    "ours": likeliest,
    "clairvoyant": clairvoyant,
}


def restarted(left: Sequence[Left], way: Order, knowledge: LearnedPacing) -> tuple[float, float]:
    """Return for how long a finished video waits on average, and each."""
    pacing = LearnedPacing.from_dict(knowledge.to_dict())
    simulation = Restart(pacing, LIMIT)
    for place, wait in way(left, pacing):
        simulation.agenda.put(copy.copy(left[place].task), wait)
    simulation.run()
    waits = simulation.waits
    assert len(waits) == len(left), "an id was lost"
    finished = [waits[one.task.track.request_id] for one in left if one.task.ends <= 0]
    return statistics.fmean(finished or [0.0]), statistics.fmean(waits.values())


def main(results: pathlib.Path, *, quick: bool = False) -> None:
    ids = 40 if quick else 10_000
    knowledge = taught(5 if quick else TAUGHT)
    tables = []
    for down in DOWN:
        sys.stderr.write(f"{ids:,} ids, {down:g} s down …\n")
        left = left_behind(ids, down, random.Random(5))
        ended = sum(one.task.ends <= 0 for one in left)
        title = f"{down:g} s down, {ended:,} have ended meanwhile"
        columns = ["", "a finished one waits, s", "÷ arrival", "each waits, s", "÷ arrival, each"]
        table = Table(title, columns)
        found = {name: restarted(left, way, knowledge) for name, way in WAYS.items()}
        first, each = found["order of arrival"]
        for name, (one, other) in found.items():
            ratio = f"{one / first:.2f}" if first else None
            table.add(name, one, ratio, other, f"{other / each:.2f}")
        tables.append(table)
    said = SAID.format(ids=ids, sigma=SIGMA, limit=LIMIT, taught=TAUGHT)
    publish(results, "restart", said, *tables)
