"""The journal: every task that was accepted, until its end has been delivered."""

from __future__ import annotations

import asyncio
import datetime
import functools
import os
import pathlib
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Self, TypeVar

from anyio import to_thread

from veo3_async._arguments import count, seconds
from veo3_async._errors import JournalError
from veo3_async._journal import tasks
from veo3_async._journal.connection import named
from veo3_async._journal.database import Database
from veo3_async._journal.group_commit import GroupCommit
from veo3_async._journal.reader import Reader, back_up
from veo3_async._journal.rows import Pending, Watched
from veo3_async._journal.schema import JOURNAL
from veo3_async._lifecycle.ends import is_end
from veo3_async._metadata import Origin
from veo3_async._models import Transition
from veo3_async._paths import absolute

__all__ = ["Journal"]

_T = TypeVar("_T")
_R = TypeVar("_R", Pending, Watched)

_PRUNE_SECONDS: Final = 3600.0
_PRUNED_AT_ONCE: Final = 500
"""Rows that are deleted between two commits: some 10 ms, for which a submission waits."""
_AT_ONCE: Final = 2000
"""Rows that are read between two commits."""
_NAMED_AT_ONCE: Final = 500
"""The same, where they are asked for by their ids."""


class Journal:
    """A file that knows every task that was accepted, until its end has been delivered.

    :param path: The SQLite file, from the working directory of this moment. One that does not
        exist is created, for its owner only; its directory must exist, on a local disk. Nothing
        is touched before the first use.
    :param keep_finished: Seconds (``float`` or ``timedelta``) that a task stays in the file
        after its end was delivered. What is unfinished or undelivered stays for good.
    :param read_only: Read a journal that another process, a bot, may have open: without a lock,
        and without creating or changing a file. `pending`, `known`, `request_id_of`, `load` and
        `backup` work, whatever writes raises `JournalError`.
    :raises ValueError: ``keep_finished`` is not above 0.
    :raises JournalError: The path is relative, and the working directory is gone.

    Every coroutine raises `JournalError`, which says what to do, when the file cannot be used;
    then nothing of that call is to be relied on, and the next call tries again. So it does in a
    forked child of the process that has used the journal. Any other exception is about an argument,
    such as a text that cannot be encoded: nothing of that call is written, other calls are not
    affected, and trying again does not help. A moment (``at``) is in seconds since the epoch.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        keep_finished: float | datetime.timedelta = datetime.timedelta(days=30),
        read_only: bool = False,
    ) -> None:
        self._file: Final = (Reader if read_only else Database)(_absolute(path), JOURNAL)
        self._read_only: Final = read_only
        self._keep_finished: Final = seconds("keep_finished", keep_finished)
        self._prune_at = float("-inf")
        self._commits: Final = GroupCommit(self._file)

    def __repr__(self) -> str:
        return f"<Journal {self._file.path!r} {self._commits.state}>"

    async def open(self) -> None:
        """Open the file now, instead of with the first use, so that trouble shows early."""
        await self._commits.do(lambda _: None)

    async def aclose(self) -> None:
        """Write what is queued, close the file and release its lock. May be called again.

        In a forked child it does nothing: the journal is the parent's.
        """
        await self._commits.aclose()

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    # --- submitting -----------------------------------------------------------------------

    async def intend(
        self,
        prompt: str,
        *,
        model: str,
        image: str | None,
        at: float,
        family: str | None = None,
        path: str | None = None,
        metadata: object = None,
        token: str | None = None,
    ) -> int:
        """Write down that a submission is about to be sent; return the key of this intent.

        Until `submitted`, `refused` or `settle` follows, it is in doubt. A caller that is cancelled
        here has sent nothing, so its intent is withdrawn.

        :param prompt: As it is sent.
        :param model: The model that it is for.
        :param image: URL or name of the source image, or None.
        :param at: Seconds since the epoch.
        :param family: The protocol that it is sent by, and polled; None: not known.
        :param path: The path that it is sent to, and polled at; None: not known.
        :param metadata: What is attached to it: anything JSON can say, in up to 16 kB.
        :param token: By which its webhook will name it; None: it has none.
        :raises InvalidRequest: The metadata is not such.
        """
        origin = Origin(family, path, metadata)
        keys: list[int] = []

        def work(cursor: sqlite3.Cursor) -> int:
            keys[:] = [
                tasks.intend(
                    cursor, prompt, model=model, image=image, at=at, origin=origin, token=token
                )
            ]
            return keys[0]

        def withdraw(cursor: sqlite3.Cursor) -> None:
            for key in keys:
                tasks.refused(cursor, key, "cancelled before it was sent", at)

        self._prune(at)
        try:
            return await self._write(work)
        except asyncio.CancelledError:
            self._commits.do_later(withdraw)
            raise

    async def submitted(
        self, intent: int, request_id: str, *, at: float, http_request_id: str | None = None
    ) -> None:
        """Write down the id that a submission brought; from now on it is pending.

        :param http_request_id: The header ``request-id`` of the reply, by which its cost is found.
        :raises JournalError: It carries the ``request_id``, which is worth money.
        """
        await self._write(
            lambda cursor: tasks.submitted(cursor, intent, request_id, at, http_request_id),
            request_id,
        )

    async def refused(self, intent: int, reason: str, *, at: float) -> None:
        """Write down that a submission certainly did not arrive. One that has its id stays."""
        await self._write(lambda cursor: tasks.refused(cursor, intent, reason, at))

    async def settle(self, key: int, request_id: str | None = None, *, at: float) -> None:
        """End the doubt about a submission, after somebody has looked into the account.

        :param key: The `Pending.key` of the submission.
        :param request_id: The id of its task, which is pending from now on; None: there is none.
        :raises JournalError: There is no such submission, or it is not in doubt.
        """
        await self._write(lambda cursor: tasks.settle(cursor, key, request_id, at), request_id)

    # --- watching -------------------------------------------------------------------------

    async def accept(
        self,
        request_ids: Iterable[str],
        *,
        at: float,
        origins: Mapping[str, Origin] | None = None,
    ) -> None:
        """Write down ids that are to be watched; from now on they are pending.

        An id that is pending already stays as it is, with its end if that is known and was not
        delivered; one whose end was delivered is pending again.

        :param origins: What is known of some of these ids. Family and path that the journal knows
            are not changed by it; metadata takes the place of older.
        :raises InvalidRequest: Metadata is not JSON of up to 16 kB.
        """
        if ids := list(request_ids):
            self._prune(at)
            await self._write(lambda cursor: tasks.accept(cursor, ids, at, origins))

    async def record(self, transition: Transition, *, ends_task: bool = True) -> None:
        """Write down a change of a task; its end, before it is delivered.

        What is not the service's own word, such as a caller's own timeout (`StillPending`), ends no
        task: it stays unfinished.

        :param ends_task: False where a final transition ends one watch, and others still wait.
        :raises JournalError: The file, or the thread that writes it, cannot be used by anybody.
        :raises Exception: Whatever else: this transition cannot be written down, others can.
        """
        await self._write(
            lambda cursor: tasks.record(cursor, transition, ends_task=ends_task),
            transition.request_id,
        )

    def delivered(self, transition: Transition, *, at: float) -> None:
        """Note that the program has dealt with the end of a task, so that it is not repeated.

        Written with the next commit, which begins at once, and until it succeeds tried again
        with every later one. If the process dies before, the end is delivered once more. What is
        no end, and whatever comes after `aclose`, is ignored; what cannot be a row is logged.

        :raises JournalError: The journal is read-only, or belongs to another process or loop.
        """
        self._check_writable()
        if is_end(transition) and not self._commits.closed:
            self._prune(at)
            self._commits.do_later(lambda cursor: tasks.record(cursor, transition, at))

    # --- reading --------------------------------------------------------------------------

    async def pending(self) -> list[Pending]:
        """Return what is unfinished, in doubt or undelivered, in the order of acceptance."""
        return await self._all(tasks.pending)

    async def unfinished(self) -> list[Watched]:
        """Return what has an id and no end yet, in the order of acceptance, to be watched on."""
        return await self._all(tasks.unfinished)

    async def undelivered(self) -> list[Pending]:
        """Return what has an end that was not delivered, in the order of acceptance."""
        return await self._all(tasks.undelivered)

    async def latest(self, limit: int = 100) -> list[Pending]:
        """Return the tasks that were accepted last, finished ones included, the newest first.

        :param limit: How many at most, from 1 on. What was delivered long ago is not kept.
        :raises ValueError: The limit is below 1.
        """
        return await self._commits.do(functools.partial(tasks.latest, most=count("limit", limit)))

    async def known(self, request_ids: Iterable[str]) -> dict[str, Origin]:
        """Return where tasks were submitted, and their metadata, finished ones included.

        Each is a tuple ``(family, path, metadata)``. Ids that the journal does not have, or not any
        more, are left out.
        """
        return {one.request_id: one.origin for one in await self.watched(request_ids)}

    async def watched(self, request_ids: Iterable[str]) -> list[Watched]:
        """Return what is needed to watch tasks; those that it does not have are left out."""
        ids = list(dict.fromkeys(request_ids))
        found: list[Watched] = []
        for start in range(0, len(ids), _NAMED_AT_ONCE):
            part = ids[start : start + _NAMED_AT_ONCE]
            found += await self._commits.do(functools.partial(tasks.watched, request_ids=part))
        return found

    async def request_id_of(self, token: str) -> str | None:
        """Return the id of the task that a webhook names by this token, or None."""
        return await self._commits.do(lambda cursor: tasks.request_id_of(cursor, token))

    async def backup(self, destination: str | os.PathLike[str]) -> pathlib.Path:
        """Copy the journal as it is now into one file, also while a bot is writing it.

        :param destination: A path at which nothing is yet; it appears whole or not at all.
        :returns: That path, absolute.
        """
        target = pathlib.Path(_absolute(destination))
        await self.open()
        await to_thread.run_sync(back_up, self._file.path, target, JOURNAL)
        return target

    async def _all(self, read: Callable[[sqlite3.Cursor, int, int], list[_R]]) -> list[_R]:
        """Return all that a statement finds, in parts: nobody's commit waits for all of them."""
        found: list[_R] = []
        while True:
            after = found[-1].key if found else 0
            part = await self._commits.do(functools.partial(_part, read, after))
            found += part
            if len(part) < _AT_ONCE:
                return found

    # --- notes ----------------------------------------------------------------------------

    async def save(self, name: str, content: str) -> None:
        """Keep a text, such as what a pacing has learned, in place of the one of that name."""
        await self._write(lambda cursor: tasks.save(cursor, name, content))

    async def load(self, name: str) -> str | None:
        """Return the text that was kept under this name, or None."""
        return await self._commits.do(lambda cursor: tasks.load(cursor, name))

    # --- writing --------------------------------------------------------------------------

    async def _write(
        self, work: Callable[[sqlite3.Cursor], _T], request_id: str | None = None
    ) -> _T:
        self._check_writable()
        return await self._commits.do(work, request_id)

    def _check_writable(self) -> None:
        if self._read_only:
            message = f"{named(self._file.path)} was opened to be read only"
            raise JournalError(message)

    def _prune(self, now: float) -> None:
        """Let old tasks be deleted between the next commits."""
        if now < self._prune_at or self._read_only:
            return
        self._prune_at = now + _PRUNE_SECONDS
        before = now - self._keep_finished

        def forget(cursor: sqlite3.Cursor) -> bool:
            return tasks.forget(cursor, before, _PRUNED_AT_ONCE) == _PRUNED_AT_ONCE

        self._commits.repeat(forget)


def _part(
    read: Callable[[sqlite3.Cursor, int, int], list[_R]], after: int, cursor: sqlite3.Cursor
) -> list[_R]:
    return read(cursor, after, _AT_ONCE)


def _absolute(path: str | os.PathLike[str]) -> str:
    try:
        return absolute(path)
    except FileNotFoundError as error:
        message = f"{named(os.fsdecode(path))} cannot be used: the working directory is gone"
        raise JournalError(message) from error
