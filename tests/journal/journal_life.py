"""A program that lives with a journal under load, to be killed, traced and cut off.

``python journal_life.py PATH`` lives one life of ``--rounds`` rounds; with ``--reader`` somebody
reads the file all the while, in one transaction; ``--lives N`` lets N of them begin, each killed
at a random moment. ``--checkpoint N`` moves the WAL into the database every N pages instead of
every 1,000, so that a short life has many of these moments.

Each line on stdout is a fact. Said after the journal has acknowledged it: ``accepted ID``,
``recorded ID`` (its end), ``failed`` (a `JournalError`). Said before the journal hears of it:
``got ID`` (the program has dealt with the end).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator

from veo3_async._errors import JournalError
from veo3_async._journal import connection as sqlite
from veo3_async._journal.journal import Journal
from veo3_async._models import Phase, Transition, VideoTask

_PROMPT = "a lighthouse in a storm, " * 40


def say(fact: str) -> None:
    os.write(1, f"{fact}\n".encode())


def change(request_id: str, phase: Phase, *, final: bool = False) -> Transition:
    task = VideoTask(id=request_id, video_url=f"https://file.302.ai/{request_id}.mp4")
    return Transition(
        request_id=request_id,
        phase=phase,
        previous=None,
        status=phase.value,
        task=task,
        observed_at=time.time(),
        final=final,
    )


def acknowledge(journal: Journal, end: Transition) -> None:
    say(f"got {end.request_id}")
    journal.delivered(end, at=time.time())


async def watch(journal: Journal, request_id: str) -> None:
    await journal.record(change(request_id, Phase.GENERATING))
    end = change(request_id, Phase.COMPLETED, final=True)
    await journal.record(end)
    say(f"recorded {request_id}")
    acknowledge(journal, end)


async def submit(journal: Journal, request_id: str) -> None:
    intent = await journal.intend(_PROMPT, model="veo3-pro", image=None, at=time.time())
    await journal.submitted(intent, request_id, at=time.time())
    say(f"accepted {request_id}")
    await watch(journal, request_id)


async def accept(journal: Journal, request_ids: list[str]) -> None:
    await journal.accept(request_ids, at=time.time())
    for request_id in request_ids:
        say(f"accepted {request_id}")
    await watch(journal, request_ids[0])


async def worker(journal: Journal, name: str, rounds: int) -> None:
    for number in range(rounds):
        try:
            if number % 3:
                await submit(journal, f"veo3-pro:{name}-{number}")
            else:
                await accept(journal, [f"veo3-pro:{name}-{number}-{part}" for part in range(5)])
        except JournalError:
            say("failed")


async def live(path: str, name: str, rounds: int) -> None:
    journal = Journal(path)
    try:
        for task in await journal.pending():
            if task.final is not None:
                acknowledge(journal, task.final)
        await asyncio.gather(*(worker(journal, f"{name}-{n}", rounds) for n in range(4)))
    finally:
        await journal.aclose()


def checkpoint_every(pages: int) -> None:
    connect = sqlite.connect

    def connect_eagerly(path: str, mode: str = "rw") -> sqlite3.Connection:
        connection = connect(path, mode)
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        return connection

    sqlite.connect = connect_eagerly


def begin(path: str, name: str, rounds: int) -> int:
    child = os.fork()
    if child == 0:
        asyncio.run(live(path, name, rounds))
        os._exit(0)
    return child


def be_killed(path: str, lives: int, rounds: int) -> None:
    began = time.monotonic()
    os.waitpid(begin(path, "first", 1), 0)
    most = 2 * (time.monotonic() - began)  # so that half of them get to work, on any machine
    for number in range(lives):
        child = begin(path, str(number), rounds)
        time.sleep(random.uniform(0.0, most))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@contextlib.contextmanager
def somebody_reading(path: str) -> Iterator[None]:
    asyncio.run(live(path, "before", 1))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM tasks").fetchone()
        yield


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--lives", type=int, default=0)
    parser.add_argument("--checkpoint", type=int, default=1000)
    parser.add_argument("--reader", action="store_true")
    options = parser.parse_args()
    checkpoint_every(options.checkpoint)
    if options.lives:
        be_killed(options.path, options.lives, options.rounds)
    else:
        reading = somebody_reading if options.reader else contextlib.nullcontext
        with reading(options.path):
            asyncio.run(live(options.path, "only", options.rounds))


if __name__ == "__main__":
    main()
