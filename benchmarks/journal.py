"""What the journal costs: accepting 10,000 ids, and commits under the load of 32 polls.

``python benchmarks/journal.py`` prints a row for each figure and writes them to
``benchmarks/results/journal.json``. The rival is ``sqlite3`` itself on the same disk, in one
thread, without an event loop: one commit for each row, durable as ours. The delays of a loop that
does nothing say how busy the machine is with other things.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable

from veo3_async._journal import Journal
from veo3_async._models import Phase, Transition, VideoTask

ROUNDS = 5
IDS = 10_000
CHANGES = 100
POLLS = 32
TICK = 0.01

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
    """Return the seconds that it took, and by how many a ticker of 10 ms was late at worst."""
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        while True:
            began = time.perf_counter()
            try:
                await asyncio.sleep(TICK)
            finally:
                worst = max(worst, time.perf_counter() - began - TICK)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(TICK)
    began = time.perf_counter()
    await work
    taken = time.perf_counter() - began
    ticker.cancel()
    await asyncio.wait([ticker])
    return taken, worst


async def ours(directory: pathlib.Path) -> Figures:
    journal = Journal(directory / "veo3.db")
    await journal.open()
    ids = [f"veo3-pro:68935cd4-58f5-49ce-878e-{number:012d}" for number in range(IDS)]

    _, idle = await timed(asyncio.sleep(20 * TICK))
    accepted, late = await timed(journal.accept(ids, at=time.time()))

    async def poll(number: int) -> None:
        for _ in range(CHANGES):
            await journal.record(change(ids[number]))

    cpu = time.process_time()
    grouped, late_by_changes = await timed(asyncio.gather(*(poll(n) for n in range(POLLS))))
    cpu = time.process_time() - cpu
    alone, _ = await timed(poll(0))
    pending, late_by_pending = await timed(journal.pending())
    await journal.aclose()
    return {
        "idle: delay of the loop, ms": idle * 1e3,
        f"accept {IDS} ids, s": accepted,
        "accept: delay of the loop, ms": late * 1e3,
        f"changes by {POLLS} polls, 1/s": POLLS * CHANGES / grouped,
        "changes: delay of the loop, ms": late_by_changes * 1e3,
        f"CPU of a change by {POLLS} polls, µs": cpu / (POLLS * CHANGES) * 1e6,
        "changes by one poll, 1/s": CHANGES / alone,
        f"pending() of {IDS} ids, s": pending,
        "pending(): delay of the loop, ms": late_by_pending * 1e3,
    }


def rival(directory: pathlib.Path) -> Figures:
    path = directory / "rival.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE tasks (id TEXT PRIMARY KEY, task TEXT)")
        began = time.perf_counter()
        for number in range(POLLS * CHANGES):
            row = (str(number % POLLS), "storm " * 300)
            connection.execute("INSERT OR REPLACE INTO tasks VALUES (?, ?)", row)
        return {"sqlite3 alone, commits 1/s": POLLS * CHANGES / (time.perf_counter() - began)}


def measured(work: Callable[[pathlib.Path], Figures]) -> list[Figures]:
    rounds = []
    for _ in range(ROUNDS + 1):
        with tempfile.TemporaryDirectory() as directory:
            rounds.append(work(pathlib.Path(directory)))
    return rounds[1:]  # the first warms up


def main(results: pathlib.Path) -> None:
    """Measure, print, and write ``journal.json`` into the directory ``results``."""
    environment = f"{platform.python_implementation()} {platform.python_version()}"
    environment += f", SQLite {sqlite3.sqlite_version}, {platform.system()} {platform.machine()}"
    print(environment)
    rows = []
    for rounds in (measured(lambda directory: asyncio.run(ours(directory))), measured(rival)):
        for name in rounds[0]:
            values = sorted(figures[name] for figures in rounds)
            worst = values[0] if name.endswith("1/s") else values[-1]
            rows.append({"name": name, "median": statistics.median(values), "worst": worst})
            print(f"{name:40} median {rows[-1]['median']:10.3f}   worst {worst:10.3f}")
    results.mkdir(parents=True, exist_ok=True)
    report = {"environment": environment, "rounds": ROUNDS, "rows": rows}
    (results / "journal.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(__file__).with_name("results"))
