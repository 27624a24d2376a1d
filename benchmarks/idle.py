"""What it costs to watch and wait, as a bot does all day."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import resource
import statistics
import sys
from collections.abc import AsyncIterator, Callable

import aiohttp

from veo3_async import FixedPacing, Veo3Client

from ._loopback import Service, serving
from ._report import OURS, Table, publish
from ._rivals import KEY, asked_by_hand, request_ids

IDS = 1000
INTERVAL = 10.0
SECONDS = 20.0
ROUNDS = 3

SAID = (
    f"{IDS:,} ids polled every {INTERVAL:g} s, CPU seconds of the process for an hour, "
    f"extrapolated from {SECONDS:g} s, median of {ROUNDS} rounds; *wakeups* are the times a "
    "second that the process went to sleep and was woken (voluntary context switches). *task "
    "per id* is a bare aiohttp loop in a task for each id, without a rate limit, and remembers "
    "nothing. *nothing watched* is an open client that has polled before."
)

Figures = tuple[float, float, float]


@contextlib.asynccontextmanager
async def ours(url: str, count: int, interval: float) -> AsyncIterator[Callable[[], int]]:
    async with Veo3Client(
        KEY, base_url=url, pacing=FixedPacing(interval), max_polls_per_second=1000
    ) as veo:
        watch = veo.watch(*request_ids(count))

        async def consume() -> None:
            async for _ in watch:
                pass

        consumer = asyncio.create_task(consume())
        yield lambda: veo.stats().polls
        consumer.cancel()


@contextlib.asynccontextmanager
async def nothing(url: str, count: int, interval: float) -> AsyncIterator[Callable[[], int]]:
    async with Veo3Client(KEY, base_url=url, pacing=FixedPacing(interval)) as veo:
        async with veo.watch(*request_ids(count)):
            await asyncio.sleep(0.2)
        yield lambda: 0


@contextlib.asynccontextmanager
async def tasks(url: str, count: int, interval: float) -> AsyncIterator[Callable[[], int]]:
    polls = 0
    async with aiohttp.ClientSession() as session:

        async def follow(request_id: str) -> None:
            nonlocal polls
            while True:
                task = await asked_by_hand(session, url, request_id)
                polls += 1
                if task.get("video_url"):
                    return
                await asyncio.sleep(interval)

        running = [asyncio.create_task(follow(request_id)) for request_id in request_ids(count)]
        yield lambda: polls
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


WAYS = {OURS: ours, "task per id": tasks, "nothing watched": nothing}


async def idle(name: str, url: str, count: int, interval: float, seconds: float) -> Figures:
    """Return CPU seconds for an hour, wakeups a second and polls a second."""
    async with WAYS[name](url, count, interval) as polls:
        await asyncio.sleep(min(interval, seconds) + 1)  # all have been asked for once
        before, first = resource.getrusage(resource.RUSAGE_SELF), polls()
        await asyncio.sleep(seconds)
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        woken = after.ru_nvcsw - before.ru_nvcsw
        return cpu / seconds * 3600, woken / seconds, (polls() - first) / seconds


def main(results: pathlib.Path, *, quick: bool = False) -> None:
    count, interval, seconds = (20, 0.2, 0.3) if quick else (IDS, INTERVAL, SECONDS)
    table = Table("Watching", ["", "CPU s per hour", "wakeups/s", "polls/s", "µs for one poll"])
    found: dict[str, list[Figures]] = {name: [] for name in WAYS}
    with serving(Service()) as url:
        for _ in range(1 if quick else ROUNDS):
            for name in WAYS:
                sys.stderr.write(f"idle, {name} …\n")
                found[name].append(asyncio.run(idle(name, url, count, interval, seconds)))
    for name, runs in found.items():
        cpu, woken, polled = (statistics.median(column) for column in zip(*runs, strict=True))
        each = cpu / 3600 / polled * 1e6 if polled else None
        table.add(name, cpu, woken, polled, each)
    publish(results, "idle", SAID, table)
