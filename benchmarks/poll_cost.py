"""CPU for one poll, of one process that does nothing else."""

from __future__ import annotations

import asyncio
import importlib
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import _lives
from ._loopback import Service, serving
from ._report import COLOURS, OURS, Table, installed, picture, publish
from ._rivals import CONTENDERS, Contender, Count, request_ids

IN_FLIGHT = (8, 64, 1000)
ROUNDS = 9
POLLS = 2500
LIVES = 200
SLOW = frozenset({"httpx", "fal-client"})
SLOW_ROUNDS = 3
SLOW_POLLS = 250
PLAIN = {name: one for name, one in CONTENDERS.items() if name not in SLOW}
IDS_PER_SLOT = 2  # more are due than can be asked for, all the time

SAID = (
    "User and system CPU time of the client's process, microseconds for one poll, median of the "
    "rounds. All of `veo3_async` is in it: schedule, throttle, transitions. *bare aiohttp* is a "
    "loop written by hand (`params=`, `json()`) that has none of these; *tuned aiohttp* only "
    "fetches the bytes. *learned pacing*, the default, learns from every poll when to come back; "
    "the row above it has a fixed interval. More ids are due than may be in flight, all the time. "
    "In the third table each reply has another word, attempt and time: that is a transition, which "
    "is read by a watcher, and the pacing learns from it. "
    "A whole life is a submission, 30 polls with 7 changes, and the end; *by hand* is an aiohttp "
    "loop with sqlite3, a row for each task and a commit for each change, without what our journal "
    "promises: no intent before it is paid, no delivery after, nothing off the event loop. "
    "Rivals take turns in each round; the ratio is the median of the rounds'."
)

Samples = dict[str, list[float]]


async def cost(
    contender: Contender, url: str, in_flight: int, *, warm_up: int, polls: int
) -> float:
    """Return microseconds of CPU for one poll, after a warm-up."""
    ids = request_ids(in_flight * IDS_PER_SLOT)
    async with contender(url, ids, in_flight) as count:
        await _reached(count, warm_up)
        began, first = time.process_time(), count()
        await _reached(count, first + polls)
        return (time.process_time() - began) / (count() - first) * 1e6


async def _reached(count: Count, polls: int) -> None:
    while count() < polls:
        await asyncio.sleep(0.05)


def measured(
    url: str,
    in_flight: int,
    contenders: Mapping[str, Contender],
    *,
    polls: int,
    rounds: int,
    loop: Callable[..., object] | None = None,
) -> Samples:
    """Let all take turns, and return what a poll cost each of them in each round."""
    costs: Samples = {name: [] for name in contenders}
    for turn in range(rounds):
        for name, contender in contenders.items():
            if name in SLOW and turn >= SLOW_ROUNDS:
                continue
            few = min(polls, SLOW_POLLS) if name in SLOW else polls
            # The first poll of an id is another one: there is something new in the reply.
            warm_up = few // 4 if name in SLOW else max(few // 4, in_flight * IDS_PER_SLOT)
            work = cost(contender, url, in_flight, warm_up=warm_up, polls=few)
            with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]
                costs[name].append(runner.run(work))
    return costs


def ratio(costs: Samples, name: str, rival: str = "bare aiohttp") -> float:
    return statistics.median(a / b for a, b in zip(costs[name], costs[rival], strict=False))


def table(title: str, by_level: dict[int, Samples]) -> Table:
    columns = ["", *(f"{n:,} in flight" for n in by_level), *(f"× bare, {n:,}" for n in by_level)]
    result = Table(title, columns)
    for name in next(iter(by_level.values())):
        costs = [statistics.median(samples[name]) for samples in by_level.values()]
        ratios = [f"{ratio(samples, name):.2f}" for samples in by_level.values()]
        result.add(name, *costs, *ratios)
    return result


def lives(levels: Sequence[int], *, count: int, rounds: int) -> Table:
    """Show what a task costs from its submission to its end."""
    by_level = {}
    for at_once in levels:
        sys.stderr.write(f"whole lives, {at_once} at once …\n")
        costs: Samples = {name: [] for name in _lives.WAYS}
        with serving(Service(lives=True)) as url:
            for _ in range(rounds):
                for name, way in _lives.WAYS.items():
                    work = _lives.cost(way, url, at_once=at_once, warm_up=at_once, lives=count)
                    costs[name].append(asyncio.run(work))
        by_level[at_once] = costs
    heads = [*(f"{n} at once" for n in levels), *(f"× by hand, {n}" for n in levels)]
    result = Table("ms of CPU for a whole life, asyncio", ["", *heads])
    for name in _lives.WAYS:
        medians = [statistics.median(costs[name]) for costs in by_level.values()]
        ratios = [f"{ratio(costs, name, _lives.BY_HAND):.2f}" for costs in by_level.values()]
        result.add(name, *medians, *ratios)
    return result


def loops() -> dict[str, Callable[..., object] | None]:
    found: dict[str, Callable[..., object] | None] = {"asyncio": None}
    if installed("uvloop"):
        found["uvloop"] = importlib.import_module("uvloop").new_event_loop
    return found


def main(results: pathlib.Path, *, quick: bool = False) -> None:
    levels: Sequence[int] = (8,) if quick else IN_FLIGHT
    rounds, polls = (1, 50) if quick else (ROUNDS, POLLS)
    by_loop: dict[str, dict[int, Samples]] = {}
    for name, loop in loops().items():
        contenders = CONTENDERS if loop is None else PLAIN
        by_loop[name] = {}
        for in_flight in levels if loop is None else levels[:2]:
            with serving(Service()) as url:
                sys.stderr.write(f"{name}, {in_flight} in flight …\n")
                by_loop[name][in_flight] = measured(
                    url, in_flight, contenders, polls=polls, rounds=rounds, loop=loop
                )
    tables = [table(f"µs of CPU for one poll, {loop}", costs) for loop, costs in by_loop.items()]
    by_level = {}
    for in_flight in levels[:2]:
        with serving(Service(changing=True)) as url:
            sys.stderr.write(f"something new, {in_flight} in flight …\n")
            by_level[in_flight] = measured(url, in_flight, PLAIN, polls=polls, rounds=rounds)
    tables.append(table("µs of CPU for one poll that brings something new, asyncio", by_level))
    tables.append(lives(levels[:2], count=4 if quick else LIVES, rounds=rounds))
    publish(results, "poll_cost", SAID, *tables)
    with picture(results, "poll_cost") as axes:
        if axes is not None:
            _draw(axes, by_loop["asyncio"], levels[0] if quick else 64)


def _draw(axes: Any, by_level: dict[int, Samples], in_flight: int) -> None:
    costs = by_level[in_flight]
    names = list(costs)[::-1]
    medians = [statistics.median(costs[name]) for name in names]
    colours = [COLOURS[0] if name.startswith(OURS) else COLOURS[1] for name in names]
    bars = axes.barh(names, medians, color=colours)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_xscale("log")
    axes.set_xlabel(f"µs of CPU for one poll, {in_flight} in flight")
