"""What was accepted, what ended, who was told: it outlives the process.

Whatever comes in while a commit runs goes into the next one, all of it in one transaction,
and an ``await`` returns when its row is on the disk. The writer is a task that lives only
while there is something to write. Nobody else awaits the thread, so a caller that is
cancelled takes nothing with it: its row is written whole or not at all, and the rows of the
others are not touched.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

from anyio import CapacityLimiter, to_thread

from veo3_async._arguments import seconds
from veo3_async._cancellation import ended
from veo3_async._errors import JournalError
from veo3_async._journal import tasks
from veo3_async._journal.database import Database
from veo3_async._journal.tasks import Pending
from veo3_async._models import Transition

__all__ = ["Journal"]

_T = TypeVar("_T")

_log: Final = logging.getLogger("veo3_async")

_PRUNE_INTERVAL: Final = 3600.0


class Journal:
    """A file that knows every task that was accepted, until its end has been delivered.

    :param path: The SQLite file. One that does not exist is created, for its owner only; its
        directory must exist, on a local disk. Nothing is touched before the first use.
    :param keep_finished: Seconds (``float`` or ``timedelta``) that a task stays in the file
        after its end was delivered. What is unfinished or undelivered stays for good.
    :raises ValueError: ``keep_finished`` is not above 0.

    Every coroutine raises `JournalError`, which says what to do, when the file cannot be used;
    then nothing of that call is to be relied on, and the next call tries again. Whatever else is
    raised is about what was handed in, such as a text that is none: nothing of that call is
    written, nobody else's is touched, and trying again is no use. A moment (``at``) is in seconds
    since the epoch.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        keep_finished: float | datetime.timedelta = datetime.timedelta(days=30),
    ) -> None:
        self._database: Final = Database(
            path, application_id=tasks.APPLICATION_ID, migrations=tasks.MIGRATIONS
        )
        self._keep_finished: Final = seconds("keep_finished", keep_finished)
        self._prune_at = float("-inf")
        self._limiter: Final = CapacityLimiter(1)
        self._queue: list[_Job[Any]] = []
        self._late: list[_Job[Any]] = []
        self._writer: asyncio.Task[None] | None = None
        self._in_use = False
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "in use" if self._in_use else "untouched"
        return f"<Journal {self._database.path!r} {state}>"

    async def open(self) -> None:
        """Open the file now, instead of with the first use, so that trouble shows early."""
        await self._do(lambda _: None)

    async def aclose(self) -> None:
        """Write what is queued, close the file and release its lock. May be called again."""
        self._closed = True
        if self._writer is None and self._in_use:
            self._start_writer()
        if self._writer is not None:
            await ended(self._writer)

    # --- what happens to a task -----------------------------------------------------------

    async def intend(self, prompt: str, *, model: str, image: str | None, at: float) -> int:
        """Write down that a submission is about to be sent; return the key of this intent.

        Until `submitted` or `refused` follows, it is in doubt. A caller that is cancelled here
        has sent nothing, so its intent is not.
        """
        row = tasks.intend(prompt, model, image, at)
        keys: list[int] = []

        def work(cursor: sqlite3.Cursor) -> int:
            self._prune(cursor, at)
            keys[:] = cursor.execute(tasks.INTEND, row).execute(tasks.LAST_KEY).fetchone()
            return keys[0]

        def withdraw(cursor: sqlite3.Cursor) -> None:
            reason = "cancelled before it was sent"
            rows = [tasks.refused(key, reason, at) for key in keys]
            cursor.executemany(tasks.REFUSED, rows)

        try:
            return await self._do(work)
        except asyncio.CancelledError:
            self._enqueue(_Job(withdraw))
            raise

    async def submitted(self, intent: int, request_id: str, *, at: float) -> None:
        """Write down the id that a submission brought; from now on it is pending.

        :raises JournalError: It carries the ``request_id``, which is worth money.
        """

        def work(cursor: sqlite3.Cursor) -> None:
            cursor.execute(tasks.SUBMITTED, tasks.submitted(intent, request_id, at))
            if cursor.rowcount == 0:  # somebody has deleted the intent
                cursor.executemany(tasks.ACCEPT, tasks.accept([request_id], at))

        await self._do(work, request_id)

    async def refused(self, intent: int, reason: str, *, at: float) -> None:
        """Write down that a submission certainly did not arrive, or that it was looked up.

        :param intent: Also the `Pending.key` of a submission in doubt that a person has settled.
        """
        row = tasks.refused(intent, reason, at)
        await self._do(lambda cursor: cursor.execute(tasks.REFUSED, row))

    async def accept(self, request_ids: Iterable[str], *, at: float) -> None:
        """Write down ids that are to be watched; from now on they are pending.

        An id that is pending already stays as it is, with its end if that is known and was not
        delivered; one whose end was delivered is pending anew.
        """
        if ids := list(request_ids):

            def work(cursor: sqlite3.Cursor) -> None:
                self._prune(cursor, at)
                cursor.executemany(tasks.ACCEPT, tasks.accept(ids, at))

            await self._do(work)

    async def record(self, transition: Transition, *, ends_task: bool = True) -> None:
        """Write down a change of a task; its end, before it is delivered.

        A caller's own timeout (`StillPending`) ends no task: it stays unfinished. The row is made
        before anything is awaited.

        :param ends_task: False where a final transition ends one watch, and others still wait.
        :raises JournalError: The file, or the thread that writes it, cannot be used by anybody.
        :raises Exception: Whatever else: this transition cannot be written down, others can.
        """
        row = tasks.record(transition, ends_task=ends_task)
        await self._do(lambda cursor: cursor.execute(tasks.RECORD, row), transition.request_id)

    def delivered(self, transition: Transition, *, at: float) -> None:
        """Note that the program has dealt with the end of a task, so that it is not told again.

        Written with the next commit, which begins at once, and until it succeeds tried again
        with every later one. If the process dies before, the end is delivered once more. What is
        no end, and whatever comes after `aclose`, is ignored; of what cannot be a row, the log
        knows.
        """
        if tasks.is_end(transition) and not self._closed:

            def work(cursor: sqlite3.Cursor) -> None:
                cursor.execute(tasks.RECORD, tasks.record(transition, at))

            self._enqueue(_Job(work))

    async def pending(self) -> list[Pending]:
        """Return what is unfinished, in doubt or undelivered, in the order of acceptance."""
        rows = await self._do(lambda cursor: cursor.execute(tasks.PENDING).fetchall())
        return await self._in_thread(lambda: [_understood(row) for row in rows])

    # --- notes ----------------------------------------------------------------------------

    async def save(self, name: str, content: str) -> None:
        """Keep a text, such as what a pacing has learned, in place of the one of that name."""
        row = {"name": name, "content": content}
        await self._do(lambda cursor: cursor.execute(tasks.SAVE, row))

    async def load(self, name: str) -> str | None:
        """Return the text that was kept under this name, or None."""

        def work(cursor: sqlite3.Cursor) -> str | None:
            row = cursor.execute(tasks.LOAD, {"name": name}).fetchone()
            return None if row is None else str(row[0])

        return await self._do(work)

    # --- group commit ---------------------------------------------------------------------

    async def _do(self, work: Callable[[sqlite3.Cursor], _T], request_id: str | None = None) -> _T:
        if self._closed:
            message = f"the journal {self._database.path} is closed"
            raise JournalError(message, request_id=request_id)
        waiter: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._enqueue(_Job(work, waiter, request_id))
        return await waiter

    def _enqueue(self, job: _Job[Any]) -> None:
        self._in_use = True
        self._queue.append(job)
        if self._writer is None:
            self._start_writer()

    def _start_writer(self) -> None:
        self._writer = asyncio.get_running_loop().create_task(self._write(), name="veo3 journal")

    async def _write(self) -> None:
        try:
            while self._queue:
                await self._commit_queue()
            if self._closed:
                await self._close()
        finally:
            self._writer = None

    async def _commit_queue(self) -> None:
        batch = self._late + self._queue
        self._late, self._queue = [job for job in batch if job.waiter is None], []
        try:
            outcomes = await self._in_thread(
                lambda: self._database.transact([j.work for j in batch])
            )
        except Exception as error:  # noqa: BLE001 - goes to whoever waits
            _fail(batch, error)
        except asyncio.CancelledError:  # the loop is ending; the thread goes on
            _fail(batch + self._queue, JournalError("interrupted: it may be written or not"))
            raise
        else:
            self._late = []
            for job, outcome in zip(batch, outcomes, strict=True):
                job.settle(outcome)

    async def _close(self) -> None:
        if self._late:
            await self._commit_queue()  # the last try
        await self._in_thread(self._database.close)
        self._in_use = False

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await to_thread.run_sync(work, limiter=self._limiter)

    def _prune(self, cursor: sqlite3.Cursor, now: float) -> None:
        if now >= self._prune_at:
            cursor.execute(tasks.FORGET, tasks.forget(now, self._keep_finished))
            self._prune_at = now + _PRUNE_INTERVAL


class _Job(Generic[_T]):
    """A part of a transaction, and who waits for it: nobody, if it may be written late."""

    __slots__ = ("request_id", "waiter", "work")

    def __init__(
        self,
        work: Callable[[sqlite3.Cursor], _T],
        waiter: asyncio.Future[_T] | None = None,
        request_id: str | None = None,
    ) -> None:
        self.work: Final = work
        self.waiter: Final = waiter
        self.request_id: Final = request_id

    def settle(self, outcome: _T | Exception) -> None:
        if isinstance(outcome, Exception):
            self.fail(outcome)
            if self.waiter is None:
                _log.error("what nobody waits for cannot be written down", exc_info=outcome)
        elif self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(outcome)

    def fail(self, error: Exception) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(error)


def _fail(batch: Sequence[_Job[Any]], error: Exception) -> None:
    for job in batch:
        # each its own: a traceback grows with everybody who raises it
        own = JournalError(str(error), request_id=job.request_id)
        own.__cause__ = error
        job.fail(own)


def _understood(row: tasks.Row) -> Pending:
    try:
        return tasks.pending(row)
    except ValueError as error:
        message = f"row {row[0]} of the journal's tasks makes no sense; correct or delete it"
        raise JournalError(message) from error
