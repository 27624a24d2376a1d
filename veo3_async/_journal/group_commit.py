"""Group commit: what comes in while a transaction is committed goes into the next one.

The writer is a task that lives only while there is something to write. Nobody else awaits the
thread, so a caller that is cancelled takes nothing with it: its work is done whole or not at all,
and that of others is not touched.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from anyio import CapacityLimiter, to_thread

from veo3_async._cancellation import ended
from veo3_async._errors import JournalError
from veo3_async._journal.connection import Work, named

__all__ = ["GroupCommit"]

_T = TypeVar("_T")

_log: Final = logging.getLogger("veo3_async")


class _File(Protocol):
    @property
    def path(self) -> str: ...
    def transact(self, works: Sequence[Work]) -> list[Any]: ...
    def close(self) -> None: ...


class GroupCommit:
    """Runs the transactions of a file in a thread, one after another.

    It belongs to the process of its first use, and to one event loop at a time.
    """

    def __init__(self, file: _File) -> None:
        self._file: Final = file
        self._limiter = CapacityLimiter(1)
        self._queue: list[_Write[Any]] = []
        self._late: list[_Write[Any]] = []
        self._chore: Callable[[sqlite3.Cursor], bool] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._pid: int | None = None
        self._in_use = False
        self.closed = False

    @property
    def state(self) -> str:
        """A word for people."""
        if self._pid not in {None, os.getpid()}:
            return "of another process"
        return "closed" if self.closed else "in use" if self._in_use else "untouched"

    async def do(self, work: Callable[[sqlite3.Cursor], _T], request_id: str | None = None) -> _T:
        """Do it in the next transaction; return what it returns when that is on the disk.

        :raises JournalError: The file cannot be used, or was closed, or belongs to another process
            or event loop.
        :raises Exception: What else the work raises; nothing of it is written then.
        """
        if self.closed:
            message = f"{named(self._file.path)} is closed"
            raise JournalError(message, request_id=request_id)
        waiter: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._enqueue(_Write(work, waiter, request_id))
        return await waiter

    def do_later(self, work: Work) -> None:
        """Do it in the next transaction; until one succeeds, in every later one.

        :raises JournalError: The file belongs to another process or event loop.
        """
        self._enqueue(_Write(work))

    def repeat(self, work: Callable[[sqlite3.Cursor], bool]) -> None:
        """Do it between the transactions, in one of its own each time, as long as it returns True.

        It begins with the next transaction, and ends when the file is closed.
        """
        self._chore = work

    async def aclose(self) -> None:
        """Do what is queued and close the file, but in a forked child. May be called again.

        :raises JournalError: The file is in use in another event loop.
        """
        if self._pid not in {None, os.getpid()}:
            return  # it is not open here
        self._check_owner()
        self.closed = True
        if self._writer is None and self._in_use:
            self._start_writer()
        if self._writer is not None:
            await ended(self._writer)

    def _enqueue(self, write: _Write[Any]) -> None:
        self._check_owner()
        self._in_use = True
        self._queue.append(write)
        if self._writer is None:
            self._start_writer()

    def _check_owner(self) -> None:
        what = named(self._file.path)
        if self._pid is None:
            self._pid = os.getpid()
        if self._pid != os.getpid():
            message = f"{what} was opened before a fork; make another Journal in each process"
            raise JournalError(message)
        if self._writer is None or self._writer.get_loop() is asyncio.get_running_loop():
            return
        if not self._writer.get_loop().is_closed():
            message = f"{what} is in use in another event loop; make another Journal there"
            raise JournalError(message)
        # That loop has gone without ending its tasks, and nobody waits there any more.
        self._writer, self._limiter = None, CapacityLimiter(1)
        self._queue = [write for write in self._queue if write.waiter is None]

    def _start_writer(self) -> None:
        self._writer = asyncio.get_running_loop().create_task(self._write(), name="veo3 journal")

    async def _write(self) -> None:
        try:
            while self._queue or self._chore is not None:
                if self._queue:
                    await self._commit_queue()
                if self._chore is not None:
                    await self._do_chore(self._chore)
            if self.closed:
                await self._close()
        except asyncio.CancelledError:  # the loop is ending; the thread goes on
            _fail(self._queue, JournalError("interrupted: it may be written or not"))
            raise
        finally:
            self._writer = None

    async def _commit_queue(self) -> None:
        batch = self._late + self._queue
        self._late, self._queue = [write for write in batch if write.waiter is None], []
        try:
            outcomes = await self._transact([write.work for write in batch])
        except Exception as error:  # noqa: BLE001 - goes to whoever waits
            _fail(batch, error)
        except asyncio.CancelledError:
            _fail(batch, JournalError("interrupted: it may be written or not"))
            raise
        else:
            self._late = []
            for write, outcome in zip(batch, outcomes, strict=True):
                write.settle(outcome)

    async def _do_chore(self, chore: Callable[[sqlite3.Cursor], bool]) -> None:
        try:
            [more] = await self._transact([chore])
        except Exception as error:  # noqa: BLE001 - nobody waits for it, and it comes again
            more = error
        if isinstance(more, Exception):
            _log.warning("old tasks could not be deleted from the journal: %s", more)
        if self._chore is chore and (self.closed or more is not True):
            self._chore = None

    async def _transact(self, works: Sequence[Work]) -> list[Any]:
        return await self._in_thread(lambda: self._file.transact(works))

    async def _close(self) -> None:
        if self._late:
            await self._commit_queue()  # the last try
        await self._in_thread(self._file.close)
        self._in_use = False

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await to_thread.run_sync(work, limiter=self._limiter)


class _Write(Generic[_T]):
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
                _log.error("a delivery cannot be written to the journal", exc_info=outcome)
        elif self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(outcome)

    def fail(self, error: Exception) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(error)


def _fail(batch: Sequence[_Write[Any]], error: Exception) -> None:
    for write in batch:
        # each its own: a traceback grows with each raise
        own = JournalError(str(error), request_id=write.request_id)
        own.__cause__ = error
        write.fail(own)
