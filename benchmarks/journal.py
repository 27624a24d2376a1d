"""What the journal costs: accepting 10,000 ids, commits under load, each poll, and a start."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import pathlib
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

from veo3_async import Veo3Client, Watch
from veo3_async._journal.journal import Journal
from veo3_async._metadata import Origin
from veo3_async._models import Phase, Transition, VideoTask

from . import poll_cost
from ._loopback import Service, serving
from ._report import OURS, Table, publish
from ._rivals import KEY, PATH, Contender, Count, ours, request_ids
from ._ticker import Ticker

ROUNDS = 5
IDS = 10_000
CHANGES = 100
POLLS = 32
IN_FLIGHT = (8, 64)
COSTED_ROUNDS = 9
COSTED_POLLS = 2500
OWED = 100_000

SAID = (
    "*accept* writes {ids:,} ids down at once, *changes* has {polls} polls with {changes} changes "
    "of phase each, every one waiting for its commit. *loop late* is the longest delay of a 10 ms "
    "ticker in the same loop. *sqlite3 alone* is the rival: one commit for each row, as durable, "
    "in one thread, without an event loop. Medians of {rounds} rounds; the worst is beside them. "
    "The poll is that of `poll_cost`, through `watch()` and real sockets; nothing changes, so "
    "nothing is written. *A start* finds {owed:,} tasks unfinished, each with its metadata, and "
    "half of them with a state: *resume()* returns the watch, and *until all are watched* is what "
    "follows until the last id has its place in the schedule. *sqlite3 alone* fetches the same "
    "rows and decodes their metadata with `json`, in a thread."
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
    grouped, late_by_changes = await timed(_together(poll(name) for name in names[:POLLS]))
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


async def _together(works: Iterable[Awaitable[object]]) -> None:
    await asyncio.gather(*works)  # they begin here, when the clock runs


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


def owe(path: pathlib.Path, count: int) -> None:
    """Leave so many unfinished tasks in a journal."""

    async def run() -> None:
        names = request_ids(count)
        origins = {
            name: Origin("record", PATH, {"chat": number}) for number, name in enumerate(names)
        }
        async with Journal(path) as journal:
            await journal.accept(names, at=time.time() - 300, origins=origins)
            await asyncio.gather(*(journal.record(change(name)) for name in names[::2]))

    asyncio.run(run())


async def starting(path: pathlib.Path, count: int) -> Figures:
    async with Veo3Client(
        KEY, base_url="http://127.0.0.1:9", max_polls_per_second=0.001, journal=path
    ) as veo:
        alone, late_by_rival = await timed(asyncio.to_thread(fetched, path))
        pending, late_by_pending = await timed(veo.pending())
        gc.collect()
        resumed, late_by_resume = await timed(_resumed(veo))

        async def watched() -> None:
            while veo.stats().watched < count:
                await asyncio.sleep(0.005)

        rest, late_by_rest = await timed(watched())
    return {
        "sqlite3 alone, s": alone,
        "sqlite3 alone: loop late, ms": late_by_rival * 1e3,
        "pending(), s": pending,
        "pending(): loop late, ms": late_by_pending * 1e3,
        "resume(), s": resumed,
        "resume(): loop late, ms": late_by_resume * 1e3,
        "until all are watched, s": rest,
        "until all are watched: loop late, ms": late_by_rest * 1e3,
    }


async def _resumed(veo: Veo3Client) -> None:
    kept.append(await veo.resume())


kept: list[Watch] = []
"""A watch that is forgotten ends."""


def fetched(path: pathlib.Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT * FROM tasks WHERE delivered_at IS NULL").fetchall()
    for row in rows:
        json.loads(row[-3])


def _start_table(count: int, rounds: int) -> Table:
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "veo3.db")
        owe(path, count)
        found = []
        for _ in range(rounds):
            sys.stderr.write(f"a start with {count:,} tasks …\n")
            found.append(asyncio.run(starting(path, count)))
            kept.clear()
    table = Table(f"a start with {count:,} tasks", ["", "median", "worst"])
    for name in found[0]:
        values = [figures[name] for figures in found]
        table.add(name, statistics.median(values), max(values))
    return table


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
    owed = 200 if quick else OWED
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
    said = SAID.format(ids=ids, polls=POLLS, changes=changes, rounds=rounds, owed=owed)
    publish(results, "journal", said, table, _start_table(owed, rounds), polls)
