"""A journal in forked children, in other event loops, and on systems without POSIX locks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from journal_values import NOON, change

from veo3_async import Journal, JournalError
from veo3_async._journal import lock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")


def run(program: str, *arguments: str | Path) -> list[str]:
    """Run a program to its end, whatever end that is; return the lines that it printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command: list[str | Path] = [sys.executable, "-W", "ignore", "-c", program, *arguments]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, env=environment, text=True, timeout=50, check=False
    )
    return done.stdout.splitlines()


async def ids(path: Path) -> list[str | None]:
    async with Journal(path) as journal:
        return [task.request_id for task in await journal.pending()]


FORKED = """
import asyncio, os, sys, time
from veo3_async import Journal, JournalError, Phase, Transition, VideoTask

path, end = sys.argv[1], sys.argv[2]
done = Transition(
    request_id="veo3-pro:1", phase=Phase.COMPLETED, previous=None, status="completed",
    task=VideoTask(), observed_at=1.0, final=True,
)
loop = asyncio.new_event_loop()
journal = Journal(path)
loop.run_until_complete(journal.accept(["veo3-pro:1"], at=1.0))

async def late(journal):
    journal.delivered(done, at=2.0)

async def child():
    for name, use in {
        "open": lambda: journal.open(),
        "intend": lambda: journal.intend("x", model="veo3-pro", image=None, at=2.0),
        "accept": lambda: journal.accept(["veo3-pro:child"], at=2.0),
        "record": lambda: journal.record(done),
        "delivered": lambda: late(journal),
        "pending": lambda: journal.pending(),
        "known": lambda: journal.known(["veo3-pro:1"]),
        "backup": lambda: journal.backup(path + ".copy"),
        "save": lambda: journal.save("x", "y"),
    }.items():
        try:
            await use()
        except JournalError as error:
            print(name, "refused" if "before a fork" in str(error) else error)
        else:
            print(name, "done")
    await journal.aclose()
    print(repr(journal).rpartition("' ")[2])

if os.fork() == 0:
    if end == "other":
        journal = None
        async def child():
            try:
                await Journal(path).open()
            except JournalError as error:
                print("locked" if "another process or client" in str(error) else error)
    asyncio.run(child())
    sys.exit()  # and whatever Python does at its end
os.wait()
loop.run_until_complete(journal.accept(["veo3-pro:2"], at=3.0))
loop.run_until_complete(journal.aclose())
loop.close()
print("parent done")
"""


@pytest.mark.anyio
@pytest.mark.real_time
async def test_fault_65_a_forked_child_uses_nothing_of_its_parents_journal(path: Path) -> None:
    """Whatever it calls is a clear error, it writes nothing, and the parent goes on."""
    said = await asyncio.to_thread(run, FORKED, path, "same")

    uses = ("open", "intend", "accept", "record", "delivered", "pending", "known", "backup", "save")
    assert said == [*(f"{use} refused" for use in uses), "of another process>", "parent done"]
    assert sorted(file.name for file in path.parent.iterdir()) == ["veo3.db", "veo3.db.lock"]
    assert await ids(path) == ["veo3-pro:1", "veo3-pro:2"]


@pytest.mark.anyio
@pytest.mark.real_time
async def test_fault_65_a_fork_does_not_take_the_parents_lock(path: Path) -> None:
    """While the parent lives, a journal of the child's own is refused the file."""
    assert await asyncio.to_thread(run, FORKED, path, "other") == ["locked", "parent done"]


POOL = """
import asyncio, multiprocessing, os, signal, sys
from concurrent.futures import ProcessPoolExecutor
from veo3_async import Journal

async def main():
    journal = Journal(sys.argv[1])
    await journal.accept(["veo3-pro:1"], at=1.75e9)
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    worker = await asyncio.get_running_loop().run_in_executor(pool, os.getpid)
    os.write(int(sys.argv[2]), f"{worker}\\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.anyio
@pytest.mark.real_time
async def test_fault_65_a_pool_worker_that_outlives_its_parent_holds_no_lock(path: Path) -> None:
    """A bot that was killed is started again, whatever its orphans do."""
    reading, writing = os.pipe()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command: list[str | Path] = [sys.executable, "-W", "ignore", "-c", POOL, path, str(writing)]
    bot = subprocess.run(command, env=environment, pass_fds=[writing], timeout=50, check=False)
    worker = int(os.read(reading, 100))
    try:
        os.kill(worker, 0)  # it lives
        assert bot.returncode == -signal.SIGKILL
        assert await ids(path) == ["veo3-pro:1"]
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(reading)
        os.close(writing)


GIVEN_UP = """
import asyncio, gc, os, sys
from veo3_async import Journal

loop = asyncio.new_event_loop()
journal = Journal(sys.argv[1])
loop.run_until_complete(journal.accept(["veo3-pro:1"], at=1.0))

def descriptors(*suffixes):
    places = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    names = [os.readlink(place) for place in places if os.path.exists(place)]
    return [names.count(sys.argv[1] + suffix) for suffix in suffixes]

before = descriptors("", "-wal", ".lock")
if os.fork() == 0:
    del journal
    gc.collect()
    print(*before, *descriptors("", "-wal", ".lock"), flush=True)
    os._exit(0)
os.wait()
loop.run_until_complete(journal.aclose())
loop.close()
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system has no /proc")
def test_fault_65_a_child_closes_the_lock_and_never_the_database(path: Path) -> None:
    """SQLite says that a connection must not even be closed on the other side of a fork."""
    assert run(GIVEN_UP, path) == ["1 1 1 1 1 0"]


PRELOADED = """
import asyncio, os, sys
from veo3_async import Journal

journal = Journal(sys.argv[1])  # as a server makes it before it forks its workers
if os.fork() == 0:
    async def main():
        async with journal:
            await journal.accept(["veo3-pro:1"], at=1.75e9)
    asyncio.run(main())
    os._exit(0)
os.wait()
"""


@pytest.mark.anyio
@pytest.mark.real_time
async def test_fault_65_an_untouched_journal_belongs_to_who_uses_it_first(path: Path) -> None:
    """What was only made before the fork is no trouble after it."""
    await asyncio.to_thread(run, PRELOADED, path)

    assert await ids(path) == ["veo3-pro:1"]


# --- event loops ------------------------------------------------------------------------------


def test_fault_31_a_journal_outlives_its_loop(path: Path) -> None:
    """What one loop left without ending its tasks does not hang the next one."""
    journal = Journal(path)
    first = asyncio.new_event_loop()
    first.run_until_complete(journal.accept(["veo3-pro:1"], at=NOON))
    lost = first.create_task(journal.accept(["veo3-pro:lost"], at=NOON))
    first.call_soon(first.stop)
    first.run_forever()
    left = [lost, *asyncio.all_tasks(first)]
    first.close()

    async def second() -> list[str | None]:
        journal.delivered(change("veo3-pro:1"), at=NOON)
        await journal.accept(["veo3-pro:2"], at=NOON)
        found = [task.request_id for task in await journal.pending()]
        await journal.aclose()
        return found

    found = asyncio.run(asyncio.wait_for(second(), 20))
    assert {"veo3-pro:2"} <= set(found) <= {"veo3-pro:2", "veo3-pro:lost"}
    for task in left:  # asyncio complains of them, and rightly
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_fault_31_two_loops_at_once_is_a_clear_error(path: Path) -> None:
    """A journal that another loop is writing refuses, and does not hang."""
    journal = Journal(path)

    async def elsewhere() -> None:
        with pytest.raises(JournalError, match="in use in another event loop"):
            await journal.accept(["veo3-pro:2"], at=NOON)
        with pytest.raises(JournalError, match="in use in another event loop"):
            await journal.aclose()

    async def here() -> None:
        await journal.open()
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as shell:
            shell.execute("BEGIN IMMEDIATE")
            writing = asyncio.ensure_future(journal.accept(["veo3-pro:1"], at=NOON))
            await asyncio.sleep(0)
            await asyncio.to_thread(asyncio.run, elsewhere())
            shell.execute("ROLLBACK")
        await writing
        await journal.aclose()

    asyncio.run(here())


# --- other systems ----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_fault_70_a_journal_is_locked_without_fcntl(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system has neither kind of lock, one of SQLite's keeps a second journal out."""
    monkeypatch.setattr(lock, "fcntl", None)
    async with Journal(path) as journal:
        await journal.accept(["veo3-pro:1"], at=NOON)
        with pytest.raises(JournalError, match="another process or client has it open"):
            await Journal(path).open()

    assert await ids(path) == ["veo3-pro:1"]


WITHOUT_FCNTL = """
import asyncio, os, sys
sys.modules["fcntl"] = None
for name in ("register_at_fork", "fork", "fchmod", "link", "O_DIRECTORY"):
    if hasattr(os, name):
        delattr(os, name)
from veo3_async import Journal, JournalError

async def main():
    async with Journal(sys.argv[1]) as journal:
        await journal.accept(["veo3-pro:1"], at=1.75e9)
        try:
            await Journal(sys.argv[1]).open()
        except JournalError as error:
            print("locked" if "another process or client" in str(error) else error)
        async with Journal(sys.argv[1], read_only=True) as reader:
            print(len(await reader.pending()))
        print((await journal.backup(sys.argv[1] + ".copy")).exists())

asyncio.run(main())
"""


def test_fault_70_a_journal_works_without_what_only_posix_has(path: Path) -> None:
    """It is locked, read and backed up where those modules and functions are missing."""
    assert run(WITHOUT_FCNTL, path) == ["locked", "1", "True"]


# --- working directories ----------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
async def test_a_relative_path_is_from_where_the_journal_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[str]
) -> None:
    """Whatever directory the program goes to later, the file is where it was meant to be."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    journal = Journal(kind("veo3.db"))
    monkeypatch.chdir(elsewhere)
    await journal.accept(["veo3-pro:1"], at=NOON)
    await journal.backup("copy.db")
    await journal.aclose()

    assert await ids(tmp_path / "veo3.db") == ["veo3-pro:1"]
    assert [file.name for file in elsewhere.iterdir()] == ["copy.db"]


def test_a_relative_path_from_nowhere_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a directory that was deleted there is nowhere to put a file."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    with pytest.raises(JournalError, match="the working directory is gone"):
        Journal("veo3.db")
    Journal(tmp_path / "veo3.db")
