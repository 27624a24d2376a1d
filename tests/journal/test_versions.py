"""Journals that an older version wrote."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from journal_values import NOON, change

from veo3_async import Journal, JournalError, Pending, Phase, TaskFailed
from veo3_async._journal.schema import JOURNAL

pytestmark = pytest.mark.anyio

WRITTEN_BY_0_1 = Path(__file__).with_name("version_1.sql").read_text()


@pytest.fixture
def old(path: Path) -> Path:
    """Lead to a journal that version 0.1.0 wrote."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(WRITTEN_BY_0_1)
    return path


def version(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return found


def check_what_0_1_wrote(found: list[Pending]) -> None:
    running, doubt, watched, failed = found
    assert (running.request_id, running.phase) == ("veo3-pro:1", Phase.GENERATING)
    assert (running.prompt, running.submitted_at) == ("a lighthouse in a storm", NOON)
    assert (doubt.key, doubt.in_doubt, doubt.prompt) == (2, True, "whose answer was lost")
    assert (watched.request_id, watched.phase) == ("veo3-pro:watched", Phase.QUEUED)
    assert failed.final is not None
    assert isinstance(failed.final.error, TaskFailed)
    assert failed.final.error.attempts == 7
    for task in found:
        assert (task.family, task.path, task.metadata) == (None, None, None)
        assert (task.token, task.http_request_id) == (None, None)


async def test_a_journal_of_0_1_is_migrated(old: Path) -> None:
    """Everything in it is there, what is new is not known, and it is written as a new one."""
    async with Journal(old) as journal:
        check_what_0_1_wrote(await journal.pending())
        assert await journal.load("pacing") == '{"version": 1}'
        await journal.settle(2, "veo3-fast:2", at=NOON)
        key = await journal.intend("x", model="veo3-pro", image=None, at=NOON, metadata=[1])
        await journal.submitted(key, "veo3-pro:new", at=NOON)
        assert (await journal.known(["veo3-pro:new"]))["veo3-pro:new"].metadata == [1]

    assert version(old) == JOURNAL.version == 2
    with contextlib.closing(sqlite3.connect(old)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_migrated_journal_is_as_one_that_was_made(old: Path, tmp_path: Path) -> None:
    """The tables have the same columns and indexes, whichever way they came."""
    new = tmp_path / "new.db"
    shapes = []
    for place in (old, new):
        async with Journal(place):
            pass
        with contextlib.closing(sqlite3.connect(place)) as connection:
            columns = connection.execute("SELECT * FROM pragma_table_info('tasks')").fetchall()
            indexes = connection.execute("SELECT name FROM pragma_index_list('tasks')").fetchall()
            shapes.append((columns, indexes))

    assert shapes[0] == shapes[1]


async def test_a_journal_of_0_1_is_read_without_being_changed(old: Path) -> None:
    """Who may only read sees it as a new one, and not a byte is written."""
    before = old.read_bytes()

    async with Journal(old, read_only=True) as journal:
        check_what_0_1_wrote(await journal.pending())
        [origin] = (await journal.known(["veo3-pro:1"])).values()
        assert origin[:3] == (None, None, None)
        assert await journal.request_id_of("x") is None

    assert old.read_bytes() == before
    assert version(old) == 1


async def test_a_journal_of_0_1_that_somebody_reads_is_migrated(old: Path) -> None:
    """A dashboard with an open transaction goes on seeing what it saw."""
    with contextlib.closing(sqlite3.connect(old, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        before = reader.execute("SELECT * FROM tasks").fetchall()
        async with Journal(old) as journal:
            await journal.record(change("veo3-pro:1"))
            check = await journal.pending()
        assert reader.execute("SELECT * FROM tasks").fetchall() == before

    assert check[0].final is not None
    assert version(old) == 2


async def test_a_migration_that_fails_leaves_the_old_file(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that cannot be done undoes those before it; the next try begins with the old file."""
    before = old.read_bytes()
    first, second = JOURNAL.migrations
    broken = JOURNAL._replace(migrations=(first, (*second, "ALTER TABLE gone ADD COLUMN x")))
    monkeypatch.setattr("veo3_async._journal.journal.JOURNAL", broken)
    with pytest.raises(JournalError, match="no such table"):
        await Journal(old).open()
    monkeypatch.undo()

    assert old.read_bytes() == before
    async with Journal(old) as journal:
        check_what_0_1_wrote(await journal.pending())
