"""A SQLite file that one process writes and that keeps what it acknowledged.

All of it is blocking; `_journal` calls it in a worker thread. How the promise is kept:

- WAL with ``synchronous=FULL``: a commit returns when it is on the disk.
- Only one process has the file: ``<path>.lock`` is locked as long as the file is open.
- The file appears whole, by a rename, or not at all; so one that is empty is a damaged one.
  One that is gone, or is another one than before, is an error and never made anew.
- After any trouble that SQLite has with the file, but for a full disk or a foreign lock, it is
  closed, and the next transaction opens it again with all checks. A failed ``fsync`` leaves
  pages in the cache that look written and are not, and a WAL read back from there would be a
  rotten ground for the next commits; so every opening first moves the whole WAL into the
  database, synced.
- A file that was deleted or replaced stays open: brought back, it is still the one in hand, with
  a WAL that is whole. Each transaction is refused until then.
- What one work does wrong by itself is undone for that one, and the others are written.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import pathlib
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, Final, NoReturn, TypeAlias

from veo3_async._errors import JournalError

if sys.platform == "win32":  # pragma: no cover
    import msvcrt
else:
    import fcntl

__all__ = ["Database", "Work"]

Work: TypeAlias = Callable[[sqlite3.Cursor], Any]
"""A part of a transaction; what it returns goes to the one who waits for it."""

_BUSY_SECONDS: Final = 5.0
"""How long a person's SQLite shell may hold the file before a transaction fails."""

_OWNER_ONLY: Final = 0o600

# SQLite's result codes, https://www.sqlite.org/rescode.html
_FULL: Final = "the disk is full; free some space, writing is tried again"
_ADVICE: Final[dict[int, str]] = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR_SHMSIZE: _FULL,  # found out when the file is opened
    sqlite3.SQLITE_BUSY: "another program is using it; close that one",
    sqlite3.SQLITE_LOCKED: "another program is using it; close that one",
    sqlite3.SQLITE_READONLY: "it is read-only; make it and its directory writable",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check the permissions of file and directory",
    sqlite3.SQLITE_PERM: "it cannot be opened; check the permissions of file and directory",
    sqlite3.SQLITE_NOTADB: "it is no SQLite database; name another path",
    sqlite3.SQLITE_CORRUPT: "it is damaged; move it and its -wal away together, and save what "
    "can be saved with the sqlite3 shell's .recover",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write; look into the system's log",
}
_PASSING: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

_OF_A_ROW: Final = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
"""SQLite's errors that are about a value, not about the file."""

_Identity: TypeAlias = tuple[int, int] | None


class Database:
    """A SQLite file, opened by its first transaction.

    :param path: Where it is, or is to be; beside it lie ``-wal``, ``-shm`` and ``.lock``.
    :param application_id: What tells it from files of other programs.
    :param migrations: For each version the statements that lead to the next.

    Every method raises `JournalError`, with what to do, for whatever is wrong with the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        application_id: int,
        migrations: Sequence[Sequence[str]],
    ) -> None:
        self.path = os.fspath(path)
        self._application_id: Final = application_id
        self._migrations: Final = migrations
        # The thread of a cancelled task goes on: whoever comes next waits for it here.
        self._turn: Final = threading.Lock()
        self._held: Final = contextlib.ExitStack()
        self._connection: sqlite3.Connection | None = None
        self._identity: dict[str, _Identity] = {}

    def transact(self, works: Sequence[Work]) -> list[Any]:
        """Do all of it in one transaction; when this returns, it is on the disk.

        :returns: What each returned; of one that failed by itself the `Exception`, and nothing
            of that one is written. Works may be called twice, so they must not mind.
        :raises JournalError: Nothing of it is to be relied on.
        """
        with self._turn, self._explained():
            connection = self._connection or self._open()
            results = _each_for_itself(connection, works)
            self._check_identity()
            return results

    def close(self) -> None:
        """Close the file and release its lock; it may be opened again."""
        with self._turn:
            self._shut()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            if code & 0xFF not in _PASSING:
                self._shut()
            advice = _ADVICE.get(code) or _ADVICE.get(code & 0xFF, "SQLite failed")
            self._fail(f"{advice} ({error})", error)
        except OSError as error:
            self._fail(f"check that its directory exists and is writable ({error.strerror})", error)

    def _fail(self, advice: str, cause: BaseException | None = None) -> NoReturn:
        path = self.path if self.path.isprintable() else ascii(self.path)
        message = f"the journal {path} cannot be used: {advice}"
        raise JournalError(message) from cause

    def _open(self) -> sqlite3.Connection:
        # SQLite follows a link before it names the -wal; so must the lock.
        try:
            self.path = os.path.realpath(self.path)
        except ValueError as error:  # a NUL, or what is no text
            self._fail("no file can be named so; name another path", error)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._locked())
            self._check_presence()
            connection = stack.enter_context(contextlib.closing(_connect(self.path)))
            self._check_origin(connection)
            self._make_durable(connection)
            self._check_pages(connection)
            _migrate(connection, self._migrations)
            self._identity = self._identities()
            self._held.push(stack.pop_all())
        self._connection = connection
        return connection

    def _shut(self) -> None:
        self._connection = None
        self._held.close()

    # --- checks ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with open(f"{self.path}.lock", "ab", opener=_open_for_owner) as file:
            try:
                _lock(file)
            except (BlockingIOError, PermissionError) as error:
                self._fail(
                    "another process or client has it open; close that or name another path", error
                )
            yield

    def _check_presence(self) -> None:
        if self._identity:
            self._check_identity(names=("",))
        elif not os.path.exists(self.path):  # noqa: PTH110
            if os.path.exists(f"{self.path}-wal"):  # noqa: PTH110
                self._fail("it is gone and its -wal is not; bring it back or delete the -wal too")
            self._create()
        elif os.path.getsize(self.path) == 0:  # noqa: PTH202
            self._fail("it is empty, so it is damaged or no journal; delete it to begin anew")
        if not os.access(self.path, os.W_OK):  # SQLite would tell with the first row only
            self._fail(_ADVICE[sqlite3.SQLITE_READONLY])

    def _check_origin(self, connection: sqlite3.Connection) -> None:
        if _pragma(connection, "application_id") != self._application_id:
            self._fail("it belongs to another program; name another path")
        if _pragma(connection, "user_version") > len(self._migrations):
            self._fail("a newer version of veo3_async wrote it; upgrade this one")

    def _make_durable(self, connection: sqlite3.Connection) -> None:
        _pragma(connection, "fullfsync = ON")  # macOS: its fsync alone does not reach the disk
        mode = _pragma(connection, "journal_mode = WAL")
        _pragma(connection, "synchronous = FULL")
        if (mode, _pragma(connection, "synchronous")) != ("wal", 2):
            self._fail("its file system cannot keep a WAL; name a path on a local disk")
        if _pragma(connection, "wal_checkpoint(TRUNCATE)") != 0:
            self._fail(_ADVICE[sqlite3.SQLITE_BUSY])

    def _check_pages(self, connection: sqlite3.Connection) -> None:
        if (found := _pragma(connection, "quick_check(1)")) != "ok":
            self._fail(f"{_ADVICE[sqlite3.SQLITE_CORRUPT]} ({found})")

    def _check_identity(self, names: Sequence[str] = ("", "-wal")) -> None:
        if any(_identity(self.path + name) != self._identity[name] for name in names):
            self._fail("it was deleted or replaced while in use; bring it back or restart")

    def _identities(self) -> dict[str, _Identity]:
        return {name: _identity(self.path + name) for name in ("", "-wal")}

    # --- creation -------------------------------------------------------------------------

    def _create(self) -> None:
        draft = pathlib.Path(f"{self.path}.new")
        draft.unlink(missing_ok=True)
        draft.touch(_OWNER_ONLY, exist_ok=False)
        with contextlib.closing(_connect(str(draft))) as connection:
            _pragma(connection, "journal_mode = OFF")  # if this fails, the draft is thrown away
            _pragma(connection, f"application_id = {self._application_id}")
            _migrate(connection, self._migrations)
        # Synced by the first commit: SQLite syncs the directory with a new -wal.
        draft.rename(self.path)


def _connect(path: str) -> sqlite3.Connection:
    # mode=rw: SQLite creates nothing. Each transaction may run in another thread, never two
    # at once.
    return sqlite3.connect(
        f"{pathlib.Path(path).as_uri()}?mode=rw",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )


def _pragma(connection: sqlite3.Connection, text: str) -> Any:  # noqa: ANN401 - each has its own
    row = connection.execute(f"PRAGMA {text}").fetchone()
    return None if row is None else row[0]


def _migrate(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]]) -> None:
    for version in range(_pragma(connection, "user_version"), len(migrations)):
        steps = (*migrations[version], f"PRAGMA user_version = {version + 1}")
        _in_transaction(connection, [operator.methodcaller("execute", step) for step in steps])


def _in_transaction(connection: sqlite3.Connection, works: Sequence[Work]) -> list[Any]:
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        try:
            results = [work(cursor) for work in works]
            cursor.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has rolled it back already
                cursor.execute("ROLLBACK")
            raise
        return results


def _each_for_itself(connection: sqlite3.Connection, works: Sequence[Work]) -> list[Any]:
    """Return what each work returned, or the error that is its own."""
    try:
        return _in_transaction(connection, works)
    except Exception as error:
        if not _is_of_one(error):
            raise
    # Again from the start: only what goes wrong pays for a savepoint for each.
    return _in_transaction(connection, [functools.partial(_alone, work) for work in works])


def _alone(work: Work, cursor: sqlite3.Cursor) -> Any:  # noqa: ANN401 - each has its own
    cursor.execute("SAVEPOINT work")
    try:
        result = work(cursor)
    except Exception as error:
        if not _is_of_one(error):
            raise
        cursor.execute("ROLLBACK TO work")
        result = error
    cursor.execute("RELEASE work")
    return result


def _is_of_one(error: Exception) -> bool:
    return isinstance(error, _OF_A_ROW) or not isinstance(error, (sqlite3.Error, OSError))


def _identity(path: str) -> _Identity:
    try:
        found = os.stat(path)  # noqa: PTH116 - once for every commit
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _open_for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, _OWNER_ONLY)


def _lock(file: IO[bytes]) -> None:
    if sys.platform == "win32":  # pragma: no cover
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
