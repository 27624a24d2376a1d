"""The journal on a good day: what is written, what comes back, who waits for what."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import sqlite3
import stat
import textwrap
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import anyio
import pytest
from journal_values import DAY, NOON, change

from veo3_async._errors import JournalError, StillPending, TaskFailed
from veo3_async._journal import schema, tasks
from veo3_async._journal.connection import Work
from veo3_async._journal.database import Database
from veo3_async._journal.journal import Journal
from veo3_async._journal.schema import Schema
from veo3_async._models import Phase, VideoTask


async def pending_ids(journal: Journal) -> list[str | None]:
    return [task.request_id for task in await journal.pending()]


@contextlib.contextmanager
def writing_takes_long(path: Path) -> Iterator[None]:
    """Hold the file, as a person's shell does in the middle of a transaction."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        yield
        shell.execute("ROLLBACK")


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the size of each transaction."""
    sizes: list[int] = []
    transact = Database.transact

    def counted(self: Database, works: list[Work]) -> list[Any]:
        sizes.append(len(works))
        return transact(self, works)

    monkeypatch.setattr(Database, "transact", counted)
    return sizes


async def begun(transactions: list[int], number: int) -> None:
    while len(transactions) < number:
        await asyncio.sleep(0)


# --- what happens to a task -------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_submission_in_doubt_survives_with_prompt_and_time(path: Path) -> None:
    """A process that dies between sending and the answer leaves an intent that is listed."""
    journal = Journal(path)
    key = await journal.intend("a lighthouse", model="veo3-pro", image="https://x/y.jpg", at=NOON)
    await journal.aclose()

    journal = Journal(path)
    [task] = await journal.pending()
    await journal.aclose()

    assert (task.key, task.in_doubt, task.request_id, task.phase) == (key, True, None, None)
    assert (task.prompt, task.model, task.image) == ("a lighthouse", "veo3-pro", "https://x/y.jpg")
    assert task.since == task.submitted_at == NOON


@pytest.mark.anyio
async def test_a_submission_becomes_pending_under_its_id(journal: Journal) -> None:
    """The id takes the place of the doubt, and the prompt stays."""
    key = await journal.intend("a lighthouse", model="veo3-pro", image=None, at=NOON)
    await journal.submitted(key, "veo3-pro:1", at=NOON + 2)

    [task] = await journal.pending()

    assert (task.request_id, task.phase, task.in_doubt) == ("veo3-pro:1", Phase.QUEUED, False)
    assert (task.prompt, task.submitted_at, task.since) == ("a lighthouse", NOON, NOON + 2)


@pytest.mark.anyio
async def test_an_id_is_kept_even_if_its_intent_is_gone(journal: Journal) -> None:
    """A person who deletes an intent while the answer is on its way does not lose the id."""
    await journal.submitted(77, "veo3-pro:1", at=NOON)

    assert await pending_ids(journal) == ["veo3-pro:1"]


@pytest.mark.anyio
async def test_an_answer_with_a_known_id_takes_the_row_over(journal: Journal) -> None:
    """A gateway that answers with an id that is watched already does not stop the submission."""
    await journal.accept(["veo3-pro:1"], at=NOON)
    key = await journal.intend("a lighthouse", model="veo3-pro", image=None, at=NOON)
    await journal.submitted(key, "veo3-pro:1", at=NOON)

    [task] = await journal.pending()

    assert (task.request_id, task.prompt) == ("veo3-pro:1", "a lighthouse")


@pytest.mark.anyio
async def test_a_refused_submission_is_not_pending(journal: Journal) -> None:
    """What certainly did not arrive is no longer in doubt."""
    key = await journal.intend("a lighthouse", model="veo3-pro", image=None, at=NOON)
    await journal.refused(key, "connection refused", at=NOON + 1)

    assert await journal.pending() == []


@pytest.mark.anyio
async def test_accepting_again_changes_nothing(journal: Journal) -> None:
    """An id that is pending keeps its phase, and an undelivered end stays."""
    end = change("veo3-pro:2", Phase.FAILED)
    await journal.accept(["veo3-pro:1", "veo3-pro:2", "veo3-pro:1"], at=NOON)
    await journal.record(change("veo3-pro:1", Phase.GENERATING, NOON + 5))
    await journal.record(end)
    before = await journal.pending()

    await journal.accept(iter(["veo3-pro:2", "veo3-pro:1"]), at=NOON + 60)

    assert await journal.pending() == before
    assert [(task.phase, task.since, task.final) for task in before] == [
        (Phase.GENERATING, NOON + 5, None),
        (Phase.FAILED, NOON, end),
    ]


@pytest.mark.anyio
async def test_accepting_what_was_delivered_makes_it_pending_anew(journal: Journal) -> None:
    """Who watches a finished task again gets its end again."""
    end = change("veo3-pro:1", Phase.COMPLETED)
    await journal.record(end)
    journal.delivered(end, at=NOON)
    await journal.accept(["veo3-pro:1"], at=NOON + 60)

    [task] = await journal.pending()

    assert (task.phase, task.since, task.final) == (Phase.QUEUED, NOON + 60, None)


@pytest.mark.anyio
async def test_accepting_nothing_touches_nothing(journal: Journal, path: Path) -> None:
    """An empty list of ids needs no file."""
    await journal.accept([], at=NOON)

    assert list(path.parent.iterdir()) == []


@pytest.mark.anyio
async def test_an_end_comes_back_whole_until_it_is_delivered(path: Path) -> None:
    """After a crash the end is delivered again, with its error; after that it is not."""
    task = VideoTask(id="veo3-pro:1", status="failed", extra={"weird": [1, None]})
    error = TaskFailed("gave up", request_id="veo3-pro:1", err_code=-1, attempts=7, task=task)
    end = change("veo3-pro:1", Phase.FAILED, NOON + 0.25, task=task, error=error)
    journal = Journal(path)
    await journal.record(end)
    await journal.aclose()

    journal = Journal(path)
    [found] = await journal.pending()
    journal.delivered(end, at=NOON)
    left = await journal.pending()
    await journal.aclose()

    assert found.final is not None
    restored = found.final.error
    assert isinstance(restored, TaskFailed)
    assert vars(restored) == vars(error)
    assert found.final == change("veo3-pro:1", Phase.FAILED, NOON + 0.25, task=task, error=restored)
    assert left == []


@pytest.mark.anyio
async def test_a_callers_timeout_ends_no_task(journal: Journal) -> None:
    """`StillPending` ends a watch; in the journal the task goes on."""
    error = StillPending("after 60 s")
    end = change("veo3-pro:1", Phase.LOST, error=error)
    await journal.accept(["veo3-pro:1"], at=NOON)
    await journal.record(end)
    journal.delivered(end, at=NOON)

    [task] = await journal.pending()

    assert (task.request_id, task.final) == ("veo3-pro:1", None)


@pytest.mark.anyio
async def test_a_note_is_kept(path: Path) -> None:
    """What was saved last under a name is loaded by the next process, and no name gives None."""
    journal = Journal(path)
    await journal.save("pacing", '{"a": 1}')
    await journal.save("pacing", '{"a": 2}')
    await journal.aclose()

    journal = Journal(path)
    found = await journal.load("pacing"), await journal.load("other")
    await journal.aclose()

    assert found == ('{"a": 2}', None)


@pytest.mark.anyio
async def test_what_was_delivered_is_forgotten_by_age(path: Path) -> None:
    """Pruning takes what was delivered long ago, at most once an hour, and nothing undelivered."""
    journal = Journal(path, keep_finished=30 * DAY)
    await journal.accept(["veo3-pro:undelivered"], at=NOON)
    for request_id, at in (("veo3-pro:old", NOON), ("veo3-pro:new", NOON + 2 * DAY)):
        journal.delivered(change(request_id, Phase.COMPLETED, at), at=at)
    await journal.accept(["veo3-pro:x"], at=NOON + 31 * DAY)
    await journal.aclose()

    with contextlib.closing(sqlite3.connect(path)) as shell:
        left = {request_id for (request_id,) in shell.execute("SELECT request_id FROM tasks")}

    assert left == {"veo3-pro:undelivered", "veo3-pro:new", "veo3-pro:x"}


@pytest.mark.anyio
async def test_a_process_that_accepts_nothing_new_forgets_too(journal: Journal, path: Path) -> None:
    """One that goes on with what is left deletes what is old with the first end it delivers."""
    await journal.accept(["veo3-pro:left"], at=NOON)
    await journal.aclose()
    make_old(path, 3)

    async with Journal(path, keep_finished=30 * DAY) as again:
        assert old_rows(path) == 3
        again.delivered(change("veo3-pro:left", Phase.COMPLETED, NOON), at=NOON + DAY)

    assert old_rows(path) == 1


def make_old(path: Path, rows: int) -> None:
    statement = """
        INSERT INTO tasks (request_id, phase, status, since, delivered_at)
        VALUES (?, 'completed', '', '2020-01-01 00:00:00.000', '2020-01-01 00:00:00.000')
    """
    with contextlib.closing(sqlite3.connect(path)) as shell:
        shell.executemany(statement, ((f"veo3-pro:old-{number}",) for number in range(rows)))
        shell.commit()


def old_rows(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as shell:
        query = "SELECT count(*) FROM tasks WHERE delivered_at IS NOT NULL"
        found: int = shell.execute(query).fetchone()[0]
        return found


@pytest.mark.anyio
async def test_a_submission_does_not_wait_for_old_tasks_to_be_deleted(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go in steps, each in a transaction of its own, and what comes in goes between."""
    await journal.open()
    make_old(path, 1200)
    order: list[str] = []
    forget = tasks.forget
    intended: list[asyncio.Future[int]] = []
    loop = asyncio.get_running_loop()

    def intend() -> None:
        intended.append(
            asyncio.ensure_future(journal.intend("a lamp", model="veo3-pro", image=None, at=NOON))
        )
        intended[-1].add_done_callback(lambda _: order.append("submitted"))

    def step(cursor: sqlite3.Cursor, before: float, most: int) -> int:
        deleted = forget(cursor, before, most)
        loop.call_soon_threadsafe(order.append, f"deleted {deleted}")
        if deleted == 500 and len(intended) == 1:
            loop.call_soon_threadsafe(intend)
        return deleted

    monkeypatch.setattr(tasks, "forget", step)
    intend()
    async with asyncio.timeout(60):
        while order[-1:] != ["deleted 200"]:
            await asyncio.sleep(1)

    assert order == ["submitted", "deleted 500", "submitted", "deleted 500", "deleted 200"]
    assert old_rows(path) == 0


@pytest.mark.anyio
async def test_closing_does_not_wait_for_old_tasks_to_be_deleted(path: Path) -> None:
    """What is left is deleted by the next process."""
    journal = Journal(path)
    await journal.open()
    make_old(path, 1200)
    await journal.accept(["veo3-pro:1"], at=NOON)
    await journal.aclose()

    assert old_rows(path) == 700


@pytest.mark.anyio
async def test_old_tasks_that_cannot_be_deleted_harm_nobody(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said in the log and tried again an hour later."""
    await journal.open()
    make_old(path, 10)
    with monkeypatch.context() as broken:
        broken.setattr(tasks, "forget", lambda *_: 1 / 0)
        await journal.accept(["veo3-pro:1"], at=NOON)
        await journal.accept(["veo3-pro:2"], at=NOON + 1)
        await journal.open()
    assert caplog.text.count("old tasks could not be deleted from the journal") == 1
    assert old_rows(path) == 10

    await journal.accept(["veo3-pro:3"], at=NOON + 3601)
    await journal.open()
    assert old_rows(path) == 0
    assert len(await journal.pending()) == 3


@pytest.mark.anyio
@pytest.mark.parametrize("ages", [datetime.timedelta.max, 1e11])
async def test_what_was_delivered_may_be_kept_for_ages(
    path: Path, ages: datetime.timedelta | float
) -> None:
    """A time to keep that reaches back before all calendars forgets nothing, and stops nothing."""
    journal = Journal(path, keep_finished=ages)
    await journal.accept(["veo3-pro:1"], at=NOON)
    journal.delivered(change("veo3-pro:1", Phase.COMPLETED), at=0.0)
    await journal.accept(["veo3-pro:2"], at=NOON + DAY)
    await journal.aclose()

    with contextlib.closing(sqlite3.connect(path)) as shell:
        assert shell.execute("SELECT count(*) FROM tasks").fetchone() == (2,)


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf")])
def test_keep_finished_is_a_time(wrong: float) -> None:
    """Seconds that make no sense are refused at once."""
    with pytest.raises(ValueError, match="keep_finished"):
        Journal("veo3.db", keep_finished=wrong)


# --- for people -------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_person_can_ask_what_was_spent_this_week(path: Path) -> None:
    """The query of the docstring runs in any SQLite shell, also while the journal is in use."""
    [*_, query] = textwrap.dedent((schema.__doc__ or "").split("::\n", 1)[1]).split("\n\n")
    journal = Journal(path)
    now = time.time()
    for number, at in enumerate((now, now - DAY, now - 8 * DAY)):
        key = await journal.intend("a lighthouse", model="veo3-pro", image=None, at=at)
        await journal.submitted(key, f"veo3-pro:{number}", at=at)
    await journal.intend("in doubt", model="veo3-fast", image=None, at=now)
    await journal.refused(
        await journal.intend("refused", model="veo3", image=None, at=now), "no", at=now
    )

    with contextlib.closing(sqlite3.connect(path)) as shell:
        found = shell.execute(query).fetchall()
    await journal.aclose()

    assert sorted(found) == [("veo3-fast", 1, 1), ("veo3-pro", 2, 0)]


@pytest.mark.posix
@pytest.mark.anyio
async def test_the_files_are_for_their_owner_only(journal: Journal, path: Path) -> None:
    """Prompts are nobody else's business, in whatever file they lie."""
    await journal.accept(["veo3-pro:1"], at=NOON)

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    names = ("veo3.db", "veo3.db-wal", "veo3.db-shm", "veo3.db.lock")
    assert modes == dict.fromkeys(names, 0o600)


@pytest.mark.anyio
async def test_repr_shows_the_state(path: Path) -> None:
    """`repr` says where the journal is and whether it is in use."""
    journal = Journal(path)
    states = [repr(journal)]
    await journal.open()
    states.append(repr(journal))
    await journal.aclose()
    states.append(repr(journal))

    assert states == [f"<Journal '{path}' {state}>" for state in ("untouched", "in use", "closed")]


# --- open and close ---------------------------------------------------------------------------


@pytest.mark.anyio
async def test_an_unused_journal_leaves_no_trace(path: Path) -> None:
    """Making and closing a journal touches nothing, and works without its directory."""
    journal = Journal(path / "nowhere" / "veo3.db")
    await journal.aclose()

    assert list(path.parent.iterdir()) == []


@pytest.mark.anyio
async def test_close_writes_what_is_queued_and_leaves_one_file(path: Path) -> None:
    """After `aclose` everything is in the one file, and the lock is free."""
    journal = Journal(path)
    await journal.open()
    journal.delivered(change("veo3-pro:1", Phase.COMPLETED), at=NOON)
    await journal.aclose()
    await journal.aclose()

    names = sorted(file.name for file in path.parent.iterdir())
    with contextlib.closing(sqlite3.connect(path)) as shell:
        found = shell.execute("SELECT request_id, phase, delivered_at FROM tasks").fetchall()

    assert names == ["veo3.db", "veo3.db.lock"]
    assert found == [("veo3-pro:1", "completed", "2025-06-15 15:06:40.000")]


@pytest.mark.anyio
async def test_a_closed_journal_says_so(path: Path) -> None:
    """After `aclose` every call is refused, and a late `delivered` does no harm."""
    journal = Journal(path)
    await journal.open()
    await journal.aclose()
    journal.delivered(change("veo3-pro:1", Phase.COMPLETED), at=NOON)

    with pytest.raises(JournalError, match="closed") as refused:
        await journal.record(change("veo3-pro:1", Phase.COMPLETED))

    assert refused.value.request_id == "veo3-pro:1"


@pytest.mark.anyio
async def test_two_names_of_one_file_are_one_journal(path: Path) -> None:
    """A link does not get around the lock."""
    link = path.with_name("link.db")
    link.symlink_to(path)
    first, second = Journal(path), Journal(link)
    await first.open()

    with pytest.raises(JournalError, match="another process or client has it open"):
        await second.open()

    await first.aclose()
    await second.open()
    await second.aclose()


# --- group commit and cancellation (fault 23) -------------------------------------------------


@pytest.mark.anyio
async def test_what_comes_in_while_a_commit_runs_is_one_transaction(
    journal: Journal, path: Path, transactions: list[int]
) -> None:
    """A hundred waiters cost two commits, not a hundred."""

    async def accept(request_id: str) -> None:
        await journal.accept([request_id], at=NOON)

    await journal.open()
    async with anyio.create_task_group() as group:
        with writing_takes_long(path):
            group.start_soon(accept, "veo3-pro:first")
            await begun(transactions, 2)
            for number in range(100):
                group.start_soon(accept, f"veo3-pro:{number}")
            await asyncio.sleep(0)

    assert transactions == [1, 1, 1, 100]  # the third looks for what is old
    assert len(await journal.pending()) == 101


Act = Callable[[Journal], Coroutine[Any, Any, object]]
ACTS: dict[str, Act] = {
    "open": lambda journal: journal.open(),
    "intend": lambda journal: journal.intend("x", model="veo3-pro", image=None, at=NOON),
    "submitted": lambda journal: journal.submitted(1, "veo3-pro:x", at=NOON),
    "refused": lambda journal: journal.refused(1, "no", at=NOON),
    "settle": lambda journal: journal.settle(1, at=NOON),
    "known": lambda journal: journal.known(["veo3-pro:x"]),
    "accept": lambda journal: journal.accept(["veo3-pro:x", "veo3-pro:y"], at=NOON),
    "record": lambda journal: journal.record(change("veo3-pro:x", Phase.FAILED)),
    "pending": lambda journal: journal.pending(),
    "save": lambda journal: journal.save("x", "y"),
    "load": lambda journal: journal.load("x"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", ACTS)
async def test_fault_23_a_cancelled_waiter_takes_nobody_with_it(
    journal: Journal, path: Path, transactions: list[int], name: str
) -> None:
    """Whoever began the commit may leave; the others get an error, and the next call works."""
    await journal.open()
    with writing_takes_long(path):
        leaver = asyncio.ensure_future(ACTS[name](journal))
        await begun(transactions, 2)
        stayer = asyncio.ensure_future(journal.accept(["veo3-pro:stays"], at=NOON))
        await asyncio.sleep(0)
        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver
    await stayer

    ids = await pending_ids(journal)

    assert "veo3-pro:stays" in ids
    assert None not in ids  # the intent is withdrawn
    assert ("veo3-pro:x" in ids) == ("veo3-pro:y" in ids) or name != "accept"


@pytest.mark.anyio
async def test_fault_23_a_cancelled_intent_is_withdrawn(journal: Journal, path: Path) -> None:
    """Nobody has to look up a submission that was cancelled before it was sent."""
    await journal.open()
    with writing_takes_long(path):
        with anyio.move_on_after(0) as scope:
            await journal.intend("a lighthouse", model="veo3-pro", image=None, at=NOON)

    assert scope.cancelled_caught
    assert await journal.pending() == []


@pytest.mark.anyio
async def test_fault_23_a_cancelled_close_closes(path: Path) -> None:
    """Cancellation does not leave the file half closed, by scope or by task, however often."""
    for cancel in ("scope", "task", "task, again and again"):
        journal = Journal(path)
        await journal.open()
        with writing_takes_long(path):
            journal.delivered(change(f"veo3-pro:{cancel}", Phase.COMPLETED), at=NOON)
            closing = asyncio.ensure_future(journal.aclose())
            await asyncio.sleep(0)
            for _ in range({"scope": 0, "task": 1}.get(cancel, 3)):
                closing.cancel()
                await asyncio.sleep(0)
                assert not closing.done()
        with contextlib.suppress(asyncio.CancelledError):
            await closing
        with anyio.CancelScope() as scope:
            scope.cancel()
            await journal.aclose()

        after = Journal(path)
        assert await after.pending() == []
        await after.aclose()


def test_fault_23_an_ending_loop_leaves_nothing_half(path: Path, transactions: list[int]) -> None:
    """A program that cancels every task, ours too, can still close the journal and reopen it."""

    async def first_life() -> list[object]:
        journal = Journal(path)
        await journal.accept(["veo3-pro:before"], at=NOON)
        with writing_takes_long(path):
            waiters = [
                asyncio.ensure_future(journal.accept([f"veo3-pro:{n}", f"veo3-pro:{n}b"], at=NOON))
                for n in range(2)
            ]
            await begun(transactions, 2)
            for task in asyncio.all_tasks() - {asyncio.current_task(), *waiters}:
                task.cancel()
            outcomes = await asyncio.gather(*waiters, return_exceptions=True)
        await journal.aclose()
        return [type(outcome) for outcome in outcomes]

    async def second_life() -> set[str | None]:
        journal = Journal(path)
        ids = await pending_ids(journal)
        await journal.aclose()
        return set(ids)

    assert asyncio.run(first_life()) == [JournalError, JournalError]
    found = asyncio.run(second_life())
    assert "veo3-pro:before" in found
    assert all((f"veo3-pro:{n}" in found) == (f"veo3-pro:{n}b" in found) for n in range(2))


# --- what is wrong with one row ---------------------------------------------------------------

NO_TEXT = "\ud800"  # has no UTF-8, which SQLite finds out when the row is there


@pytest.mark.anyio
async def test_a_change_that_cannot_be_a_row_is_refused(journal: Journal) -> None:
    """What is wrong with the values is raised as what it is, and nothing is written."""
    endless: list[Any] = []
    endless.append(endless)
    task = VideoTask(id="veo3-pro:1", extra={"x": endless})

    with pytest.raises(RecursionError):
        await journal.record(change("veo3-pro:1", Phase.GENERATING, task=task))

    assert await journal.pending() == []


@pytest.mark.anyio
async def test_one_bad_row_fails_alone(
    journal: Journal, path: Path, transactions: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """In one transaction with others it is the only one that is not written, not even by half."""
    acts = [
        journal.accept(["veo3-pro:1"], at=NOON),
        journal.accept(["veo3-pro:2", NO_TEXT], at=NOON),
        journal.record(change("veo3-pro:3", Phase.GENERATING, status=NO_TEXT)),
        journal.record(change("veo3-pro:4", Phase.GENERATING)),
    ]
    await journal.open()
    with writing_takes_long(path):
        first = asyncio.ensure_future(journal.accept(["veo3-pro:0"], at=NOON))
        await begun(transactions, 2)
        together = asyncio.gather(*acts, return_exceptions=True)
        await asyncio.sleep(0)
    await first
    outcomes = await together

    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [type(None), UnicodeEncodeError, UnicodeEncodeError, type(None)]
    assert await pending_ids(journal) == ["veo3-pro:0", "veo3-pro:1", "veo3-pro:4"]
    assert transactions == [1, 1, 1, 4, 1]  # the third looks for what is old
    assert caplog.records == []


@pytest.mark.anyio
async def test_an_intent_has_its_key_beside_a_bad_row(
    journal: Journal, path: Path, transactions: list[int]
) -> None:
    """A part that is done twice, for another one was bad, is there once and knows its key."""
    await journal.open()
    with writing_takes_long(path):
        first = asyncio.ensure_future(journal.accept(["veo3-pro:0"], at=NOON))
        await begun(transactions, 2)
        intent = asyncio.ensure_future(
            journal.intend("a lighthouse", model="veo3-pro", image=None, at=NOON)
        )
        bad = asyncio.ensure_future(journal.accept([NO_TEXT], at=NOON))
        await asyncio.sleep(0)
    await asyncio.wait([first, intent, bad])

    assert isinstance(bad.exception(), UnicodeEncodeError)
    assert [task.key for task in await journal.pending()][1:] == [intent.result()]


@pytest.mark.anyio
async def test_a_row_that_a_person_s_rule_forbids_fails_alone(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A constraint is about one row: the file stays open, and the next row is written."""
    await journal.open()
    with contextlib.closing(sqlite3.connect(path)) as shell:
        shell.execute("CREATE UNIQUE INDEX mine ON tasks (status)")
    closed: list[Database] = []
    monkeypatch.setattr(Database, "_shut", closed.append)

    await journal.record(change("veo3-pro:1", Phase.GENERATING, status="x"))
    with pytest.raises(sqlite3.IntegrityError):
        await journal.record(change("veo3-pro:2", Phase.GENERATING, status="x"))
    await journal.record(change("veo3-pro:3", Phase.GENERATING, status="y"))

    assert closed == []
    assert await pending_ids(journal) == ["veo3-pro:1", "veo3-pro:3"]
    monkeypatch.undo()


@pytest.mark.anyio
async def test_a_delivery_that_cannot_be_a_row_is_dropped(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody waits for is said once in the log, and harms nothing that comes later."""
    bad = change("veo3-pro:1", Phase.COMPLETED, status=NO_TEXT)
    journal.delivered(bad, at=NOON)
    journal.delivered(change("veo3-pro:2", Phase.COMPLETED), at=NOON)
    for number in range(3, 5):
        await journal.accept([f"veo3-pro:{number}"], at=NOON)

    assert await pending_ids(journal) == ["veo3-pro:3", "veo3-pro:4"]
    assert [r.message for r in caplog.records] == ["a delivery cannot be written to the journal"]


# --- the thread -------------------------------------------------------------------------------


def test_fault_23_the_thread_of_a_cancelled_task_is_waited_for(path: Path) -> None:
    """Who closes the file waits until nobody else is in it."""
    ledger = Database(str(path), Schema(application_id=1, migrations=[]))
    inside, go_on = threading.Event(), threading.Event()

    def work(_: sqlite3.Cursor) -> None:
        inside.set()
        go_on.wait()

    with ThreadPoolExecutor() as threads:
        writing = threads.submit(ledger.transact, [work])
        inside.wait()
        closing = threads.submit(ledger.close)
        done, _ = wait([closing], timeout=0.05)
        go_on.set()

    assert done == set()
    assert writing.result() == [None]


def test_a_journal_keeps_the_mode_of_its_file(path: Path) -> None:
    """A journal that exists already keeps the mode that its owner gave it."""

    async def life() -> None:
        journal = Journal(path)
        await journal.open()
        await journal.aclose()

    asyncio.run(life())
    path.chmod(0o640)
    asyncio.run(life())

    assert stat.S_IMODE(path.stat().st_mode) == 0o640
