"""What it costs to wait: a client that watches ids which do not change."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import pathlib
import resource
import selectors
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence

import aiohttp
import msgspec

from veo3_async import FixedPacing, Veo3Client

from ._loopback import Service, serving
from ._report import COLOURS, OURS, Table, picture, publish
from ._rivals import KEY, PATH, Count, request_ids

INTERVAL = 10.0
SECONDS = 60.0
IDS = 1000

SAID = (
    "{ids:,} ids, each asked for every {interval:g} s, of a server in another process that always "
    "says the same. Measured for {seconds:g} s after one interval to warm up, and scaled to an "
    "hour. CPU is user and system time of the client's process; a *wakeup* is the end of a "
    "wait of the event loop, a *switch* what the kernel counts as a voluntary context switch. *A "
    "task for each id* is written by hand on aiohttp (`params=`, `json()`, `sleep()`), and has no "
    "schedule, no limits and no faults. *No id* is a client that is open and watches nothing."
)

Contender = Callable[[str, Sequence[str]], contextlib.AbstractAsyncContextManager[Count]]


class CountingSelector(selectors.DefaultSelector):
    """Counts how often it waited."""

    def __init__(self) -> None:
        super().__init__()
        self.wakeups = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.wakeups += timeout is None or timeout > 0  # at 0 the loop only looks by the way
        return super().select(timeout)


class Figures(msgspec.Struct, frozen=True):
    """All but the first for a second of real time."""

    polls: int
    cpu: float
    wakeups: float
    switches: float


@contextlib.asynccontextmanager
async def ours(url: str, ids: Sequence[str]) -> AsyncIterator[Count]:
    async with Veo3Client(
        KEY, base_url=url, pacing=FixedPacing(INTERVAL), max_polls_per_second=2 * IDS / INTERVAL
    ) as veo:
        if not ids:
            yield lambda: 0
            return
        async with veo.watch(*ids) as changes:

            async def consume() -> None:
                async for _ in changes:
                    pass

            consumer = asyncio.create_task(consume())
            yield lambda: veo.stats().polls
            consumer.cancel()


@contextlib.asynccontextmanager
async def task_for_each(url: str, ids: Sequence[str]) -> AsyncIterator[Count]:
    polls = 0
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:

        async def watch(request_id: str, first: float) -> None:
            nonlocal polls
            await asyncio.sleep(first)
            for _ in itertools.count():
                async with session.get(
                    url + PATH,
                    params={"request_id": request_id},
                    headers={"Authorization": f"Bearer {KEY}"},
                ) as response:
                    task = await response.json()
                    assert not task.get("video_url")
                polls += 1
                await asyncio.sleep(INTERVAL)

        running = [
            tasks.create_task(watch(request_id, INTERVAL * place / len(ids)))
            for place, request_id in enumerate(ids)
        ]
        yield lambda: polls
        for task in running:
            task.cancel()


async def measured(
    contender: Contender, selector: CountingSelector, ids: int, warm_up: float, seconds: float
) -> Figures:
    with serving(Service()) as url:
        async with contender(url, request_ids(ids)) as count:
            await asyncio.sleep(warm_up)
            first, woken, switched = count(), selector.wakeups, _switches()
            began, cpu = time.perf_counter(), time.process_time()
            await asyncio.sleep(seconds)
            spent, passed = time.process_time() - cpu, time.perf_counter() - began
            return Figures(
                polls=count() - first,
                cpu=spent / passed,
                wakeups=(selector.wakeups - woken) / passed,
                switches=(_switches() - switched) / passed,
            )


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


def main(results: pathlib.Path, *, quick: bool = False) -> None:
    warm_up, seconds = (0.2, 1.0) if quick else (INTERVAL * 1.2, SECONDS)
    contenders: dict[str, tuple[Contender, int]] = {
        OURS: (ours, IDS),
        "a task for each id": (task_for_each, IDS),
        f"{OURS}, no id": (ours, 0),
    }
    table = Table(
        f"{IDS:,} ids every {INTERVAL:g} s",
        ["", "CPU s an hour", "CPU µs a poll", "wakeups/s", "switches/s", "polls/s"],
    )
    hours = {}
    for name, (contender, ids) in contenders.items():
        sys.stderr.write(f"{name} …\n")
        selector = CountingSelector()
        loop = functools.partial(asyncio.SelectorEventLoop, selector)
        with asyncio.Runner(loop_factory=loop) as runner:
            seen = runner.run(measured(contender, selector, ids, warm_up, seconds))
        hours[name] = seen.cpu * 3600
        rate = seen.polls / seconds
        cost = seen.cpu / rate * 1e6 if rate else None
        table.add(name, hours[name], cost, seen.wakeups, seen.switches, rate)
    publish(results, "idle", SAID.format(ids=IDS, interval=INTERVAL, seconds=seconds), table)
    with picture(results, "idle") as axes:
        if axes is not None:
            names = [*hours][::-1]
            colours = [COLOURS[0] if OURS in name else COLOURS[1] for name in names]
            bars = axes.barh(names, [hours[name] for name in names], color=colours)
            axes.bar_label(bars, fmt="%.0f", padding=3)
            axes.set_xlabel(f"CPU seconds an hour, {IDS:,} ids every {INTERVAL:g} s")
