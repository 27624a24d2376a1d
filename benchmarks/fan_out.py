"""A crowd of ids at once, as after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import pathlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import aiohttp

from veo3_async import FixedPacing, Veo3Client

from ._loopback import Seen, Service, seen, serving
from ._report import OURS, Table, installed, publish
from ._rivals import KEY, PATH, asked_by_hand, fal_client_of, request_ids
from ._ticker import Ticker
from .memory import in_a_process

CROWDS = (1_000, 10_000)
LATENCY = 0.2
INTERVAL = 5.0
SECONDS = 20.0
FIRST = 10.0
LIMIT = 2000.0
"""Requests a second that our client may make, as many as 10,000 ids at 5 s need."""
CONNECTIONS = 600
FROZEN = f"{OURS}, gc.freeze()"
SLOW = frozenset({"httpx", "fal-client"})
SLOW_CROWD = 1_000

SAID = (
    f"Ids handed over at once, server latency {LATENCY:g} s, interval {INTERVAL:g} s, "
    f"{SECONDS:g} s long; each in a process of its own. *never polled* counts the ids that the "
    f"server had not seen {FIRST:g} s after the first; *all seen after* is when it had seen the "
    "last one. *loop lag* is the longest delay of a 10 ms ticker in the same loop, adding "
    "included, and *GC* the longest collection of Python's own garbage collector, which is a part "
    "of it; *full* counts those that walk all, and *walked* how many objects that is at the end; "
    f"*{FROZEN}* has called that once after its imports. `veo3_async` may make "
    f"{LIMIT:,.0f} requests a second over {CONNECTIONS} connections; *task per id* is a bare "
    "aiohttp loop in a task for each id (100 connections, aiohttp's default, and *600 "
    "connections*), and fal-client's and httpx's tasks likewise. "
    f"Both are left out above {SLOW_CROWD:,} ids: their pool looks at all that wait for each "
    "reply, and one round takes minutes."
)


_ALL = 2  # the oldest generation, and all younger ones with it


class Collections:
    """Measures the longest run of Python's garbage collector; one of ``gc.callbacks``."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.full = 0
        """Runs that walked all objects."""
        self._began = 0.0

    def __call__(self, phase: str, details: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._began = now
            return
        self.longest = max(self.longest, now - self._began)
        self.full += details["generation"] == _ALL


async def _ours(url: str, ids: Sequence[str], interval: float) -> None:
    async with (
        Veo3Client(
            KEY,
            base_url=url,
            pacing=FixedPacing(interval),
            max_polls_per_second=LIMIT,
            max_connections=CONNECTIONS,
        ) as veo,
        veo.watch(*ids) as changes,
    ):
        async for _ in changes:
            pass


async def _each(follow: Callable[[str], Coroutine[Any, Any, object]], ids: Sequence[str]) -> None:
    """Run a task for each id, as everybody does."""
    async with asyncio.TaskGroup() as tasks:
        for request_id in ids:
            tasks.create_task(follow(request_id))


async def _bare(url: str, ids: Sequence[str], interval: float, connections: int = 100) -> None:
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def follow(request_id: str) -> None:
            while True:
                with contextlib.suppress(TimeoutError, aiohttp.ClientError):
                    if (await asked_by_hand(session, url, request_id)).get("video_url"):
                        return
                await asyncio.sleep(interval)

        await _each(follow, ids)


async def _bare_600(url: str, ids: Sequence[str], interval: float) -> None:
    await _bare(url, ids, interval, CONNECTIONS)


async def _httpx(url: str, ids: Sequence[str], interval: float) -> None:
    import httpx  # noqa: PLC0415 - not always installed

    async with httpx.AsyncClient(base_url=url, timeout=120) as client:

        async def follow(request_id: str) -> None:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    reply = await client.get(
                        PATH,
                        params={"request_id": request_id},
                        headers={"Authorization": f"Bearer {KEY}"},
                    )
                    if reply.json().get("video_url"):
                        return
                await asyncio.sleep(interval)

        await _each(follow, ids)


async def _fal(url: str, ids: Sequence[str], interval: float) -> None:
    client, handle = await fal_client_of(url)

    async def follow(request_id: str) -> None:
        await handle(request_id).get(interval=interval)

    async with client:
        await _each(follow, ids)


WAYS: dict[str, Callable[[str, Sequence[str], float], Coroutine[Any, Any, None]]] = {
    OURS: _ours,
    FROZEN: _ours,
    "task per id": _bare,
    "task per id, 600 connections": _bare_600,
}
if installed("httpx"):
    WAYS["httpx"] = _httpx
if installed("fal_client"):
    WAYS["fal-client"] = _fal


@contextlib.asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def crowd(name: str, url: str, count: int, interval: float, seconds: float) -> dict[str, float]:
    """Return the share of one core, and seconds of lag and GC, while a crowd is polled."""
    collections = Collections()
    if name == FROZEN:
        gc.collect()
        gc.freeze()
    gc.callbacks.append(collections)

    async def run() -> dict[str, float]:
        ids, ticker = request_ids(count), Ticker()
        async with _running(ticker.run()):
            await asyncio.sleep(0.05)
            ticker.reset()
            began, cpu = time.perf_counter(), time.process_time()
            async with _running(WAYS[name](url, ids, interval)):
                await asyncio.sleep(seconds)
                wall = time.perf_counter() - began
                share = (time.process_time() - cpu) / wall
                return {
                    "cpu": share,
                    "lag": ticker.latest,
                    "gc": collections.longest,
                    "full": collections.full,
                    "walked": len(gc.get_objects()),
                }

    return asyncio.run(run())


def main(results: pathlib.Path, *, quick: bool = False) -> None:
    crowds = (20,) if quick else CROWDS
    interval, seconds, latency = (0.2, 0.5, 0.01) if quick else (INTERVAL, SECONDS, LATENCY)
    tables = []
    for count in crowds:
        columns = [
            "",
            "polls/s",
            "CPU",
            "never polled",
            "all seen after, s",
            "loop lag, ms",
            "GC, ms",
            "full",
            "walked",
        ]
        table = Table(f"{count:,} ids at once", columns)
        for name in WAYS:
            if name in SLOW and count > SLOW_CROWD:
                continue
            sys.stderr.write(f"{count:,} ids, {name} …\n")
            with serving(Service(latency=latency)) as url:
                figures = in_a_process(crowd, name, url, count, interval, seconds)
                saw = seen(url)
            table.add(name, *_row(count, figures, saw, seconds))
        tables.append(table)
    publish(results, "fan_out", SAID, *tables)


def _row(count: int, figures: dict[str, float], saw: Seen, seconds: float) -> Sequence[object]:
    times = sorted(saw.first_seen.values()) or [0.0]
    early = sum(moment <= times[0] + FIRST for moment in times)
    last = f"{times[-1] - times[0]:.1f}" if len(times) == count else "never"
    cpu = f"{figures['cpu']:.0%}"
    return (
        saw.requests / seconds,
        cpu,
        count - early,
        last,
        1e3 * figures["lag"],
        1e3 * figures["gc"],
        int(figures["full"]),
        int(figures["walked"]),
    )
