"""A SQLite file that one process writes, and of which no committed row is lost.

All of it is blocking; `group_commit` calls it in a worker thread. How that is kept:

- WAL with ``synchronous=FULL``: a commit returns when it is on the disk.
- Only one process writes the file: ``<path>.lock`` is locked as long as the file is open.
- A new file appears whole, by a rename, or not at all; so one that is empty is a damaged one.
  One that is gone, or is another one than before, is an error and never created again.
- After any error of SQLite but a full disk or a foreign lock the file is closed, and the next
  transaction opens it again with all checks. A failed ``fsync`` leaves pages in the cache that
  look written and are not; frames appended to such a WAL would be lost with it in a power cut. So
  every opening first moves the whole WAL into the database, synced; where somebody is reading the
  file, which forbids that, it writes the WAL again in place, byte for byte, and syncs it.
- A file that was deleted or replaced stays open: brought back, it is still the same file, with a
  complete WAL. Every transaction fails until then.
- A forked child never closes its copy of the connection, for SQLite would then touch the files.
"""

from __future__ import annotations

import contextlib
import operator
import os
import pathlib
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from veo3_async._journal import connection as sqlite
from veo3_async._journal.connection import Work, fail, pragma
from veo3_async._journal.lock import locked
from veo3_async._journal.schema import Schema

__all__ = ["Database"]

_OWNER_ONLY: Final = 0o600
_COPY_BYTES: Final = 1 << 20

_Identity: TypeAlias = tuple[int, int] | None


class Database:
    """A SQLite file, opened by its first transaction.

    :param path: Where it is, or is to be; beside it lie ``-wal``, ``-shm`` and ``.lock``.

    Every method raises `JournalError`, with what to do, for whatever is wrong with the file.
    """

    def __init__(self, path: str, schema: Schema) -> None:
        self.path = path
        self._schema: Final = schema
        # The thread of a cancelled task goes on: whoever comes next waits for it here.
        self._turn: Final = threading.Lock()
        self._held: Final = contextlib.ExitStack()
        self._connection: sqlite3.Connection | None = None
        self._identity: dict[str, _Identity] = {}

    def transact(self, works: Sequence[Work]) -> list[Any]:
        """Do all of it in one transaction; when this returns, it is on the disk.

        :returns: What each returned; of one that failed by itself the `Exception`, and nothing
            of that one is written. Works may be called twice, so they must be repeatable.
        :raises JournalError: Nothing of it is to be relied on.
        """
        with self._turn, sqlite.explained(self._what), self._closed_after_errors():
            connection = self._connection or self._open()
            results = sqlite.each_alone(connection, works)
            self._check_identity()
            return results

    def close(self) -> None:
        """Close the file and release its lock; it may be opened again."""
        with self._turn:
            self._shut()

    def abandon(self) -> None:
        """Give up the file in a forked child, which holds no lock: it is closed never."""
        if self._connection is not None:
            _leak(self._connection)

    @property
    def _what(self) -> str:
        return f"{sqlite.named(self.path)} cannot be used"

    @contextlib.contextmanager
    def _closed_after_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if sqlite.result_code(error) & 0xFF not in sqlite.TRANSIENT:
                self._shut()
            raise

    # --- opening --------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        # SQLite follows a link before it names the -wal; so must the lock.
        try:
            self.path = os.path.realpath(self.path)
        except ValueError as error:  # a NUL, or what is no text
            fail(self._what, "no file can be named so; name another path", error)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._locked())
            self._check_presence()
            connection = stack.enter_context(contextlib.closing(sqlite.connect(self.path)))
            _open_databases.add(self)
            self._connection = connection  # from here on a forked child knows what not to close
            stack.callback(self._forget_connection)
            sqlite.check_origin(self._what, connection, self._schema)
            self._make_durable(connection)
            self._check_pages(connection)
            _migrate(connection, self._schema)
            self._identity = self._identities()
            self._held.push(stack.pop_all())
        return connection

    def _shut(self) -> None:
        self._held.close()

    def _forget_connection(self) -> None:
        self._connection = None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(f"{self.path}.lock"))
            except BlockingIOError as error:
                advice = "another process or client has it open; close that or name another path"
                fail(self._what, advice, error)
            yield

    def _check_presence(self) -> None:
        if self._identity:
            self._check_identity(names=("",))
        elif not os.path.exists(self.path):  # noqa: PTH110
            if os.path.exists(f"{self.path}-wal"):  # noqa: PTH110
                advice = "it is gone and its -wal is not; bring it back or delete the -wal too"
                fail(self._what, advice)
            self._create()
        elif os.path.getsize(self.path) == 0:  # noqa: PTH202
            advice = "it is empty, so it is damaged or no journal; delete it to begin anew"
            fail(self._what, advice)
        if not os.access(self.path, os.W_OK):  # SQLite would say so with the first row only
            fail(self._what, sqlite.READ_ONLY)

    def _make_durable(self, connection: sqlite3.Connection) -> None:
        pragma(connection, "fullfsync = ON")  # macOS: its fsync alone does not reach the disk
        mode = pragma(connection, "journal_mode = WAL")
        pragma(connection, "synchronous = FULL")
        if (mode, pragma(connection, "synchronous")) != ("wal", 2):
            fail(self._what, "its file system cannot keep a WAL; name a path on a local disk")
        timeout = pragma(connection, "busy_timeout")
        pragma(connection, "busy_timeout = 0")  # who reads may do so for hours
        refused = pragma(connection, "wal_checkpoint(TRUNCATE)")
        pragma(connection, f"busy_timeout = {timeout}")
        if refused:
            again = lambda _: _write_again(f"{self.path}-wal")  # noqa: E731
            sqlite.in_transaction(connection, [again])  # while nobody can write to it

    def _check_pages(self, connection: sqlite3.Connection) -> None:
        if (found := pragma(connection, "quick_check(1)")) != "ok":
            fail(self._what, f"{sqlite.DAMAGED} ({found})")

    def _check_identity(self, names: Sequence[str] = ("", "-wal")) -> None:
        if any(_identity(self.path + name) != self._identity[name] for name in names):
            advice = "it was deleted or replaced while in use; bring it back or restart"
            fail(self._what, advice)

    def _identities(self) -> dict[str, _Identity]:
        return {name: _identity(self.path + name) for name in ("", "-wal")}

    def _create(self) -> None:
        draft = pathlib.Path(f"{self.path}.new")
        draft.unlink(missing_ok=True)
        draft.touch(_OWNER_ONLY, exist_ok=False)
        with contextlib.closing(sqlite.connect(str(draft))) as connection:
            pragma(connection, "journal_mode = OFF")  # if this fails, the draft is thrown away
            pragma(connection, f"application_id = {self._schema.application_id}")
            _migrate(connection, self._schema)
        # Synced by the first commit: SQLite syncs the directory with a new -wal.
        draft.rename(self.path)


def _migrate(connection: sqlite3.Connection, schema: Schema) -> None:
    for version in range(pragma(connection, "user_version"), schema.version):
        steps = (*schema.migrations[version], f"PRAGMA user_version = {version + 1}")
        works = [operator.methodcaller("execute", step) for step in steps]
        sqlite.in_transaction(connection, works)


def _identity(path: str) -> _Identity:
    try:
        found = os.stat(path)  # noqa: PTH116 - once for every commit
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _write_again(path: str) -> None:
    """Make every byte of a file durable, those too whose sync has failed before."""
    with open(path, "r+b", buffering=0) as file:  # noqa: PTH123 - as the names around it, a text
        offset = 0
        while chunk := file.read(_COPY_BYTES):
            file.seek(offset)
            offset += file.write(chunk)
            file.seek(offset)
        os.fsync(file.fileno())


# --- forks --------------------------------------------------------------------------------

_open_databases: Final[weakref.WeakSet[Database]] = weakref.WeakSet()


class _Leak(msgspec.Struct, gc=False):
    """What holds itself and is unknown to the garbage collector, so that it is freed never."""

    held: sqlite3.Connection
    itself: object = None


def _leak(connection: sqlite3.Connection) -> None:
    leak = _Leak(connection)
    leak.itself = leak


def _abandon_all() -> None:
    for database in _open_databases:
        database.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
