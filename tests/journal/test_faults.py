"""Troubles with the file of a journal: each is an error that says what to do (fault 38)."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from journal_values import NOON, change

from veo3_async._errors import InvalidRequest, JournalError
from veo3_async._journal import connection as sqlite
from veo3_async._journal import journal as journals
from veo3_async._journal.journal import Journal
from veo3_async._journal.schema import JOURNAL

NOBODY = 65534


@pytest.fixture
def memory_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 1 MB, which only root may."""
    place = tmp_path / "disk"
    place.mkdir()
    mount: list[str | Path] = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """Lead to a directory of ours while we are not root, whom no mode of a file stops."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() != 0:
            yield Path(name)
            return
        os.chown(name, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, 0)
        try:
            yield Path(name)
        finally:
            os.setresuid(0, 0, 0)


async def made(path: Path) -> None:
    """Make a journal that knows one id, and leave it."""
    journal = Journal(path)
    await journal.accept(["veo3-pro:1"], at=NOON)
    await journal.aclose()


def shell(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


async def refusal(path: Path) -> str:
    """Return why the journal cannot be opened, and check that trying has changed no file."""
    before = contents(path.parent)
    journal = Journal(path)
    with pytest.raises(JournalError) as refused:
        await journal.open()
    await journal.aclose()
    assert contents(path.parent) == before
    return str(refused.value)


def contents(directory: Path) -> dict[str, bytes]:
    files = (file for file in directory.iterdir() if file.is_file() and file.suffix != ".lock")
    return {file.name: file.read_bytes() for file in files}


async def ids(journal: Journal) -> set[str | None]:
    return {task.request_id for task in await journal.pending()}


# --- what cannot be opened --------------------------------------------------------------------


def damage_a_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\x55" * 4096)


def cut_off(path: Path) -> None:
    os.truncate(path, 4096 * 2)


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "damaged page": (damage_a_page, "it is damaged; move it"),
    "cut off": (cut_off, "it is damaged; move it"),
    "no database": (lambda path: path.write_text("prompts\n" * 999), "it is no SQLite database"),
    "empty": (lambda path: os.truncate(path, 0), "it is empty"),
    "newer version": (
        lambda path: shell(path, f"PRAGMA user_version = {JOURNAL.version + 1}"),
        "a newer version of veo3_async wrote it; upgrade this one",
    ),
    "another program's": (
        lambda path: shell(path, "PRAGMA application_id = 7"),
        "it belongs to another program",
    ),
    "database gone": (
        lambda path: path.rename(f"{path}-wal"),
        "it is gone and its -wal is not; bring it back",
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", BAD_FILES)
async def test_fault_38_a_bad_file_is_refused_and_left_alone(path: Path, name: str) -> None:
    """The error says what to do, and not a byte is changed."""
    spoil, advice = BAD_FILES[name]
    await made(path)
    spoil(path)

    assert advice in await refusal(path)


@pytest.mark.anyio
async def test_fault_38_a_missing_directory_is_not_made(path: Path) -> None:
    """A path whose directory does not exist is a mistake in the path."""
    journal = Journal(path / "veo3.db")

    with pytest.raises(JournalError, match=r"check that its directory exists .*No such file"):
        await journal.open()


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["veo3\0.db", "veo3\ud800.db"])
async def test_fault_38_no_name_of_a_file(path: Path, name: str) -> None:
    """What cannot be a path says so, and what to do."""
    with pytest.raises(JournalError, match="name another path") as caught:
        await Journal(path.with_name(name)).open()
    assert str(caught.value).isprintable()


@pytest.mark.anyio
async def test_fault_38_a_directory_is_no_journal(path: Path) -> None:
    """The path of a directory is refused with advice as well."""
    path.mkdir()
    journal = Journal(path)

    with pytest.raises(JournalError, match="cannot be opened; check the permissions"):
        await journal.open()


@pytest.mark.anyio
async def test_fault_38_a_read_only_file(unprivileged: Path) -> None:
    """A file that may not be written is refused when it is opened, not with the first id."""
    path = unprivileged / "veo3.db"
    await made(path)
    path.chmod(0o400)

    assert "it is read-only; make it and its directory writable" in await refusal(path)


@pytest.mark.anyio
async def test_fault_38_a_read_only_directory(unprivileged: Path) -> None:
    """A directory that may not be written cannot hold the -wal."""
    path = unprivileged / "veo3.db"
    await made(path)
    path.with_name("veo3.db.lock").unlink()
    unprivileged.chmod(0o500)
    try:
        assert "check that its directory exists and is writable" in await refusal(path)
    finally:
        unprivileged.chmod(0o700)


@pytest.mark.anyio
async def test_fault_38_a_read_only_disk(memory_disk: Path) -> None:
    """A disk that was mounted read-only is named as the cause."""
    path = memory_disk / "veo3.db"
    await made(path)
    subprocess.run(["mount", "-o", "remount,ro", memory_disk], check=True)

    assert "Read-only file system" in await refusal(path)


@pytest.mark.posix
@pytest.mark.anyio
async def test_fault_38_locked_by_another_process(path: Path) -> None:
    """Two processes never share a journal; when the first is killed, the next may have it."""
    program = (
        "import asyncio, sys; from veo3_async._journal.journal import Journal\n"
        "async def main():\n"
        "    journal = Journal(sys.argv[1]); await journal.open()\n"
        "    print('open', flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command: list[str | Path] = [sys.executable, "-c", program, path]
    journal = Journal(path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(JournalError, match="another process or client has it open; close that"):
            await journal.open()
        other.kill()

    await journal.open()
    await journal.aclose()


@pytest.mark.anyio
async def test_fault_38_a_disk_that_cannot_keep_a_wal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory cannot be shared, as on many network disks, there is no journal."""

    def connect(name: str, _mode: str = "rw") -> sqlite3.Connection:
        address = f"{Path(name).as_uri()}?vfs=unix-none"
        return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)

    monkeypatch.setattr(sqlite, "connect", connect)
    journal = Journal(path)

    with pytest.raises(JournalError, match="cannot keep a WAL; name a path on a local disk"):
        await journal.open()
    await journal.aclose()


@pytest.mark.anyio
async def test_fault_38_another_program_is_reading_what_a_crash_left(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A -wal that somebody reads is written again and synced, and the journal is open at once."""
    synced: list[bytes] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    await made(path)
    journal = Journal(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM tasks").fetchall()
        shell(path, "UPDATE tasks SET status = 'x'")
        before = path.with_name("veo3.db-wal").read_bytes()
        await journal.accept(["veo3-pro:2"], at=NOON)
        assert await ids(journal) == {"veo3-pro:1", "veo3-pro:2"}
        seen = reader.execute("SELECT request_id, status FROM tasks").fetchall()
        assert seen == [("veo3-pro:1", "")]  # still what it began with

    assert len(before) > 0
    assert synced == [before]
    await journal.aclose()
    assert sorted(contents(path.parent)) == ["veo3.db"]


@pytest.mark.anyio
async def test_fault_38_another_program_is_writing_while_it_is_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell in the middle of a transaction is waited for, and then named as what to close."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    await made(path)
    journal = Journal(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE tasks SET status = 'x'")
        with pytest.raises(JournalError, match="another program is using it; close that one"):
            await journal.open()

    await journal.open()
    await journal.aclose()


@pytest.mark.anyio
async def test_a_half_made_journal_is_made_anew(path: Path) -> None:
    """What a crash left of a journal that never had a row is thrown away."""
    path.with_name("veo3.db.new").write_bytes(b"half")

    await made(path)

    assert sorted(contents(path.parent)) == ["veo3.db"]


@pytest.mark.anyio
async def test_an_older_version_is_migrated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the version before gets the new column, once, and keeps its rows."""
    await made(path)
    newer = (*JOURNAL.migrations, ("ALTER TABLE tasks ADD COLUMN price REAL",))
    monkeypatch.setattr(journals, "JOURNAL", JOURNAL._replace(migrations=newer))
    await made(path)

    journal = Journal(path)
    found = await ids(journal)
    await journal.aclose()

    with contextlib.closing(sqlite3.connect(path)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()
        prices = connection.execute("SELECT price FROM tasks").fetchall()
    assert (found, version, prices) == ({"veo3-pro:1"}, (len(newer),), [(None,)])


@pytest.mark.anyio
async def test_a_row_that_somebody_spoiled_is_named(path: Path) -> None:
    """A row that makes no sense stops `pending` with its number, and nothing else."""
    await made(path)
    shell(path, "UPDATE tasks SET since = 'yesterday'")
    journal = Journal(path)

    with pytest.raises(JournalError, match="row 1 of the journal's tasks cannot be read"):
        await journal.pending()

    await journal.accept(["veo3-pro:2"], at=NOON)
    await journal.aclose()


# --- what goes wrong later --------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("suffix", ["", "-wal"])
async def test_fault_38_deleted_while_open(path: Path, suffix: str) -> None:
    """A file that vanished in use is an error, and no new one; work goes on when it is back."""
    file, away = Path(f"{path}{suffix}"), path.with_name("away")
    journal = Journal(path)
    await journal.accept(["veo3-pro:1"], at=NOON)
    file.rename(away)

    for _ in range(2):
        with pytest.raises(JournalError, match="deleted or replaced while in use; bring it back"):
            await journal.accept(["veo3-pro:2"], at=NOON)
    assert not file.exists()

    away.rename(file)
    await journal.accept(["veo3-pro:3"], at=NOON)
    assert {"veo3-pro:1", "veo3-pro:3"} <= await ids(journal)
    await journal.aclose()


@pytest.mark.anyio
async def test_fault_38_replaced_while_open(path: Path) -> None:
    """Another file under the same name is not written to, and keeps its -wal."""
    journal = Journal(path)
    await journal.accept(["veo3-pro:1"], at=NOON)
    other = path.with_name("other.db")
    await made(other)
    other.replace(path)
    before = path.read_bytes()

    with pytest.raises(JournalError, match="replaced while in use"):
        await journal.accept(["veo3-pro:2"], at=NOON)
    await journal.aclose()

    assert path.read_bytes() == before


@pytest.mark.anyio
async def test_fault_38_deleted_after_the_disk_failed(path: Path) -> None:
    """A journal that is gone when it is to be opened again is not made anew either."""
    journal = Journal(path)
    await journal.accept(["veo3-pro:1"], at=NOON)
    shell(path, "DROP TABLE tasks")
    with pytest.raises(JournalError, match="no such table"):  # closes the file
        await journal.accept(["veo3-pro:2"], at=NOON)
    path.unlink()

    with pytest.raises(JournalError, match="deleted or replaced"):
        await journal.accept(["veo3-pro:2"], at=NOON)
    await journal.aclose()

    assert not path.exists()


@pytest.mark.anyio
async def test_fault_38_another_program_is_writing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell that keeps a transaction open is an error after a while, and is waited for anew."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    journal = Journal(path)
    await journal.open()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="another program is using it; close that one"):
            await journal.accept(["veo3-pro:1"], at=NOON)
        other.execute("ROLLBACK")

    await journal.accept(["veo3-pro:1"], at=NOON)
    await journal.aclose()


@pytest.mark.anyio
async def test_closing_tries_once_more_what_nobody_waits_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was delivered while the file could not be written is noted when it can be."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    journal = Journal(path)
    await journal.accept(["veo3-pro:1"], at=NOON)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        journal.delivered(change("veo3-pro:1"), at=NOON)
        with pytest.raises(JournalError):
            await journal.open()
        other.execute("ROLLBACK")
    await journal.aclose()

    journal = Journal(path)
    assert await ids(journal) == set()
    await journal.aclose()


@pytest.mark.anyio
async def test_fault_38_a_full_disk(memory_disk: Path) -> None:
    """Accepting fails loudly, what was accepted is still known, and room heals it."""
    journal = Journal(memory_disk / "veo3.db")
    await journal.accept(["veo3-pro:before"], at=NOON)
    end = change("veo3-pro:before")
    filler = memory_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))

    with pytest.raises(JournalError, match="the disk is full; free some space") as full:
        await journal.accept([f"veo3-pro:{number}" for number in range(5000)], at=NOON)
    assert full.value.request_id is None
    assert await ids(journal) == {"veo3-pro:before"}
    journal.delivered(end, at=NOON)
    with pytest.raises(JournalError, match="the disk is full") as full:
        await journal.record(change("veo3-pro:after" * 4000))
    assert full.value.request_id is not None

    filler.unlink()
    await journal.accept(["veo3-pro:after"], at=NOON)
    assert await ids(journal) == {"veo3-pro:after"}  # `delivered` was tried again
    await journal.aclose()


@pytest.mark.anyio
async def test_fault_38_a_disk_that_is_full_before_the_opening(memory_disk: Path) -> None:
    """Where there is no room for what SQLite lays beside the file, that is said; room heals it."""
    await made(memory_disk / "veo3.db")
    filler = memory_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    journal = Journal(memory_disk / "veo3.db")

    with pytest.raises(JournalError, match="the disk is full; free some space"):
        await journal.open()

    filler.unlink()
    assert await ids(journal) == {"veo3-pro:1"}
    await journal.aclose()


@pytest.mark.anyio
async def test_fault_38_each_waiter_gets_an_error_of_its_own(path: Path) -> None:
    """The error of a shared commit carries the id of the one who waits for it."""
    path.mkdir()
    journal = Journal(path)
    found = []
    for number in range(2):
        with pytest.raises(JournalError) as failed:
            await journal.record(change(f"veo3-pro:{number}"))
        found.append(failed.value.request_id)

    assert found == ["veo3-pro:0", "veo3-pro:1"]


@pytest.mark.anyio
async def test_fault_32_what_a_stranger_sent_is_not_kept(path: Path) -> None:
    """The body of a reply that made no sense, which may echo a key, stays out of the file."""
    error = InvalidRequest("refused", err_code=-10011, body="<html>Bearer sk-secret</html>")
    journal = Journal(path)
    await journal.record(msgspec.structs.replace(change("veo3-pro:1"), error=error))
    [task] = await journal.pending()
    await journal.aclose()

    assert task.final is not None
    assert isinstance(task.final.error, InvalidRequest)
    assert b"sk-secret" not in b"".join(contents(path.parent).values())
