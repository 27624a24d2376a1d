"""Reading and copying a journal that somebody else may be writing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from journal_values import NOON, change

from veo3_async import Journal, JournalError
from veo3_async._journal import connection as sqlite

pytestmark = pytest.mark.anyio

BOT = """
import asyncio, sys
from veo3_async import Journal

async def main():
    async with Journal(sys.argv[1]) as journal:
        key = await journal.intend(
            "a lighthouse", model="veo3-pro", image=None, at=1.75e9, metadata={"chat": 42}
        )
        await journal.submitted(key, "veo3-pro:1", at=1.75e9)
        print("open", flush=True)
        for line in sys.stdin:
            await journal.accept([line.strip()], at=1.75e9)
            print("accepted", flush=True)

asyncio.run(main())
"""


class Bot:
    """A process that has a journal open."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._heard("open")

    def accept(self, request_id: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{request_id}\n")
        self._process.stdin.flush()
        self._heard("accepted")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _heard(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{word}\n"


@pytest.fixture
def bot(path: Path) -> Iterator[Bot]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command: list[str | Path] = [sys.executable, "-c", BOT, path]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True) as process:
        yield Bot(process)
        process.kill()


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


async def ids(journal: Journal) -> list[str | None]:
    return [task.request_id for task in await journal.pending()]


async def test_fault_65_what_a_bot_has_open_can_be_read(path: Path, bot: Bot) -> None:
    """Reading takes no lock, sees each commit, and the bot goes on writing."""
    async with Journal(path, read_only=True) as journal:
        [task] = await journal.pending()
        assert (task.prompt, task.metadata) == ("a lighthouse", {"chat": 42})
        bot.accept("veo3-pro:2")
        assert await ids(journal) == ["veo3-pro:1", "veo3-pro:2"]

    async with Journal(path, read_only=True) as journal:  # what a kill leaves behind
        bot.kill()
        assert await ids(journal) == ["veo3-pro:1", "veo3-pro:2"]


async def test_reading_leaves_no_trace(path: Path, journal: Journal) -> None:
    """Of a journal that nobody has open no file is made, changed or locked."""
    await journal.accept(["veo3-pro:1"], at=NOON)
    await journal.aclose()
    before = files(path)

    async with Journal(path, read_only=True) as looking, Journal(path) as other:
        assert await ids(looking) == await ids(other) == ["veo3-pro:1"]
    async with Journal(path, read_only=True) as looking:
        assert await ids(looking) == ["veo3-pro:1"]

    assert files(path) == before


async def test_a_change_while_it_is_read_is_seen_whole(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bot that opens the file in the middle of the reading makes it begin once more."""
    await journal.accept(["veo3-pro:1"], at=NOON)
    await journal.aclose()
    modes: list[str] = []
    connect = sqlite.connect

    def connect_late(name: str, mode: str = "rw") -> sqlite3.Connection:
        modes.append(mode)
        if len(modes) == 1:
            with contextlib.closing(sqlite3.connect(path)) as bot:
                bot.execute("UPDATE tasks SET request_id = 'veo3-pro:2'")
                bot.commit()
        return connect(name, mode)

    monkeypatch.setattr(sqlite, "connect", connect_late)
    assert await ids(Journal(path, read_only=True)) == ["veo3-pro:2"]
    assert modes == ["ro&immutable=1", "ro"]


async def test_fault_38_nothing_is_created_by_reading(path: Path) -> None:
    """A path at which nothing is, is said and stays so."""
    with pytest.raises(JournalError, match="cannot be read: it does not exist; check the path"):
        await Journal(path, read_only=True).open()

    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b"", "it is empty"),
        (b"prompts\n" * 999, "it is no SQLite database"),
    ],
)
async def test_fault_38_what_is_no_journal_is_not_read(
    path: Path, content: bytes, advice: str
) -> None:
    """The error says what is wrong with the file."""
    path.write_bytes(content)

    with pytest.raises(JournalError, match=advice):
        await Journal(path, read_only=True).pending()


async def test_fault_38_a_damaged_journal_is_said_to_be_damaged(
    path: Path, journal: Journal
) -> None:
    """What SQLite cannot read is an error that says what to do."""
    await journal.accept([f"veo3-pro:{number}" for number in range(500)], at=NOON)
    await journal.aclose()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\x55" * 4096)

    with pytest.raises(JournalError, match="it is damaged; move it"):
        await Journal(path, read_only=True).pending()


Act = Callable[[Journal], Coroutine[Any, Any, object]]
WRITES: dict[str, Act] = {
    "intend": lambda journal: journal.intend("x", model="veo3-pro", image=None, at=NOON),
    "submitted": lambda journal: journal.submitted(1, "veo3-pro:x", at=NOON),
    "refused": lambda journal: journal.refused(1, "no", at=NOON),
    "settle": lambda journal: journal.settle(1, at=NOON),
    "accept": lambda journal: journal.accept(["veo3-pro:x"], at=NOON),
    "record": lambda journal: journal.record(change("veo3-pro:x")),
    "save": lambda journal: journal.save("x", "y"),
}


@pytest.mark.parametrize("name", WRITES)
async def test_what_is_read_only_is_not_written(path: Path, journal: Journal, name: str) -> None:
    """Each way to write is refused with a clear error."""
    await journal.open()

    with pytest.raises(JournalError, match="opened to be read only"):
        await WRITES[name](Journal(path, read_only=True))
    with pytest.raises(JournalError, match="opened to be read only"):
        Journal(path, read_only=True).delivered(change("veo3-pro:x"), at=NOON)

    assert await journal.pending() == []


# --- backup -----------------------------------------------------------------------------------


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_backup_is_a_whole_journal(path: Path, journal: Journal, read_only: bool) -> None:
    """Made while the journal is in use, it is one file, for its owner only, that can be opened."""
    await journal.accept(["veo3-pro:1"], at=NOON)
    source = Journal(path, read_only=True) if read_only else journal
    copy = path.with_name("copy.db")

    assert await source.backup(copy) == copy
    await journal.accept(["veo3-pro:2"], at=NOON)

    assert sorted(file.name for file in path.parent.glob("copy*")) == ["copy.db"]
    assert copy.stat().st_mode & 0o777 == 0o600
    async with Journal(copy) as copied:
        assert await ids(copied) == ["veo3-pro:1"]
    assert await ids(journal) == ["veo3-pro:1", "veo3-pro:2"]


async def test_a_backup_takes_nothing_s_place(path: Path, journal: Journal) -> None:
    """A file that is there is not replaced, the journal itself least of all."""
    await journal.accept(["veo3-pro:1"], at=NOON)
    for place in (path, path.with_name("veo3.db-wal")):
        before = place.read_bytes()
        with pytest.raises(JournalError, match="that file exists; name another path"):
            await journal.backup(place)
        assert place.read_bytes() == before


async def test_a_backup_that_fails_leaves_nothing(path: Path, journal: Journal) -> None:
    """A directory that is not there is said, and a copy that broke off is removed."""
    await journal.accept(["veo3-pro:1"], at=NOON)
    with pytest.raises(JournalError, match=r"cannot be backed up to .*No such file or directory"):
        await journal.backup(path.parent / "nowhere" / "copy.db")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\x55" * 4096)
    before = sorted(file.name for file in path.parent.iterdir())
    (path.with_name("veo3.db")).write_bytes(b"no database")

    with pytest.raises(JournalError):
        await Journal(path, read_only=True).backup(path.with_name("copy.db"))

    assert sorted(file.name for file in path.parent.iterdir()) == before


async def test_writing_goes_on_during_a_backup(path: Path, journal: Journal) -> None:
    """A commit does not wait for the copy, which does not have it."""
    await journal.accept([f"veo3-pro:{number}" for number in range(5000)], at=NOON)
    copy = path.with_name("copy.db")
    copying = asyncio.ensure_future(journal.backup(copy))
    await journal.accept(["veo3-pro:late"], at=NOON)
    await copying

    async with Journal(copy, read_only=True) as copied:
        assert len(await copied.pending()) >= 5000
