"""What the journal costs: accepting 10,000 ids, commits under load, and each poll."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import pathlib
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from veo3_async._journal.journal import Journal
from veo3_async._models import Phase, Transition, VideoTask

from . import poll_cost
from ._loopback import Service, serving
from ._report import OURS, Table, publish
from ._rivals import Contender, Count, ours, request_ids
from ._ticker import Ticker

ROUNDS = 5
IDS = 10_000
CHANGES = 100
POLLS = 32
IN_FLIGHT = (8, 64)
COSTED_ROUNDS = 9
COSTED_POLLS = 2500

SAID = (
    "*accept* writes {ids:,} ids down at once, *changes* has {polls} polls with {changes} changes "
    "of phase each, every one waiting for its commit. *loop late* is the longest delay of a 10 ms "
    "ticker in the same loop. *sqlite3 alone* is the rival: one commit for each row, as durable, "
    "in one thread, without an event loop. Medians of {rounds} rounds; the worst is beside them. "
    "The poll is that of `poll_cost`, through `watch()` and real sockets; nothing changes, so "
    "nothing is written."
)

Figures = dict[str, float]


def change(request_id: str) -> Transition:
    return Transition(
        request_id=request_id,
        phase=Phase.GENERATING,
        previous=Phase.QUEUED,
        status="video_generating",
        task=VideoTask(id=request_id, status="video_generating", enhanced_prompt="storm " * 300),
        observed_at=time.time(),
        final=False,
    )


async def timed(work: Awaitable[object]) -> tuple[float, float]:
    """Return the seconds that it took, and by how many the loop was late at worst."""
    ticker = Ticker()
    ticking = asyncio.create_task(ticker.run())
    await asyncio.sleep(0.02)
    ticker.latest = 0.0
    began = time.perf_counter()
    await work
    taken = time.perf_counter() - began
    await asyncio.sleep(0.02)
    ticking.cancel()
    return taken, ticker.latest


async def writing(directory: pathlib.Path, ids: int, changes: int) -> Figures:
    journal = Journal(directory / "veo3.db")
    await journal.open()
    names = request_ids(ids)

    _, idle = await timed(asyncio.sleep(0.2))
    accepted, late = await timed(journal.accept(names, at=time.time()))

    async def poll(request_id: str) -> None:
        for _ in range(changes):
            await journal.record(change(request_id))

    cpu = time.process_time()
    grouped, late_by_changes = await timed(asyncio.gather(*map(poll, names[:POLLS])))
    cpu = time.process_time() - cpu
    alone, _ = await timed(poll(names[0]))
    pending, late_by_pending = await timed(journal.pending())
    await journal.aclose()
    return {
        "idle: loop late, ms": idle * 1e3,
        f"accept {ids:,} ids, s": accepted,
        "accept: loop late, ms": late * 1e3,
        f"changes by {POLLS} polls, 1/s": POLLS * changes / grouped,
        "changes: loop late, ms": late_by_changes * 1e3,
        f"a change by {POLLS} polls, µs of CPU": cpu / (POLLS * changes) * 1e6,
        "changes by one poll, 1/s": changes / alone,
        f"pending() of {ids:,} ids, s": pending,
        "pending(): loop late, ms": late_by_pending * 1e3,
    }


def rival(directory: pathlib.Path, changes: int) -> Figures:
    path = directory / "rival.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE tasks (id TEXT PRIMARY KEY, task TEXT)")
        began = time.perf_counter()
        for number in range(POLLS * changes):
            row = (str(number % POLLS), "storm " * 300)
            connection.execute("INSERT OR REPLACE INTO tasks VALUES (?, ?)", row)
        return {"sqlite3 alone, commits, 1/s": POLLS * changes / (time.perf_counter() - began)}


def repeated(work: Callable[[pathlib.Path], Figures], rounds: int) -> list[Figures]:
    found = []
    for _ in range(rounds + 1):
        with tempfile.TemporaryDirectory() as directory:
            found.append(work(pathlib.Path(directory)))
    return found[1:]  # the first warms up


@contextlib.asynccontextmanager
async def journalled(url: str, ids: Sequence[str], in_flight: int) -> AsyncIterator[Count]:
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "veo3.db")
        async with ours(url, ids, in_flight, journal=path) as count:
            yield count


WAYS: dict[str, Contender] = {OURS: ours, f"{OURS}, with a journal": journalled}


def _poll_table(levels: tuple[int, ...], polls: int, rounds: int) -> Table:
    title = "µs of CPU for one poll"
    heads = ["", *(f"{n} in flight" for n in levels), *(f"ratio, {n}" for n in levels)]
    table = Table(title, heads)
    by_level = {}
    for in_flight in levels:
        sys.stderr.write(f"a poll with a journal, {in_flight} in flight …\n")
        with serving(Service()) as url:
            by_level[in_flight] = poll_cost.measured(
                url, in_flight, WAYS, polls=polls, rounds=rounds
            )
    for name in WAYS:
        medians = [statistics.median(samples[name]) for samples in by_level.values()]
        ratios = [f"{poll_cost.ratio(samples, name, OURS):.2f}" for samples in by_level.values()]
        table.add(name, *medians, *ratios)
    return table


def main(results: pathlib.Path, *, quick: bool = False) -> None:
    ids, changes, rounds = (100, 2, 1) if quick else (IDS, CHANGES, ROUNDS)
    table = Table("writing", ["", "median", "worst"])
    for work in (
        lambda directory: asyncio.run(writing(directory, ids, changes)),
        functools.partial(rival, changes=changes),
    ):
        found = repeated(work, rounds)
        for name in found[0]:
            values = sorted(figures[name] for figures in found)
            worst = values[0] if name.endswith("1/s") else values[-1]
            table.add(name, statistics.median(values), worst)
    polls = (
        _poll_table(IN_FLIGHT[:1], 50, 1)
        if quick
        else _poll_table(IN_FLIGHT, COSTED_POLLS, COSTED_ROUNDS)
    )
    said = SAID.format(ids=ids, polls=POLLS, changes=changes, rounds=rounds)
    publish(results, "journal", said, table, polls)
