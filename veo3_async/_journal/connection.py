"""What reading and writing a SQLite file share: connections, transactions, clear errors."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NoReturn, TypeAlias

from veo3_async._errors import JournalError
from veo3_async._journal.schema import Schema

__all__ = [
    "DAMAGED",
    "IN_USE",
    "READ_ONLY",
    "TRANSIENT",
    "Work",
    "check_origin",
    "connect",
    "each_alone",
    "explained",
    "fail",
    "in_transaction",
    "named",
    "pragma",
]

Work: TypeAlias = Callable[[sqlite3.Cursor], Any]
"""A part of a transaction; what it returns goes to the one who waits for it."""

BUSY_SECONDS: Final = 5.0
"""How long another program may hold the file before a transaction fails."""

# SQLite's result codes, https://www.sqlite.org/rescode.html
_FULL: Final = "the disk is full; free some space, writing is tried again"
IN_USE: Final = "another program is using it; close that one"
READ_ONLY: Final = "it is read-only; make it and its directory writable"
DAMAGED: Final = (
    "it is damaged; move it and its -wal away together, and save what "
    "can be saved with the sqlite3 shell's .recover"
)
_CANNOT_OPEN: Final = "it cannot be opened; check the permissions of file and directory"
_ADVICE: Final[dict[int, str]] = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR_SHMSIZE: _FULL,  # found out when the file is opened
    sqlite3.SQLITE_BUSY: IN_USE,
    sqlite3.SQLITE_LOCKED: IN_USE,
    sqlite3.SQLITE_READONLY: READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: _CANNOT_OPEN,
    sqlite3.SQLITE_PERM: _CANNOT_OPEN,
    sqlite3.SQLITE_NOTADB: "it is no SQLite database; name another path",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_IOERR: "the disk failed to read or write; look into the system's log",
}
TRANSIENT: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
"""Primary result codes after which the connection is as good as before."""

_ABOUT_A_VALUE: Final = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
"""SQLite's errors that are about a value, not about the file."""


# --- errors -------------------------------------------------------------------------------


def named(path: str) -> str:
    """Return what an error calls a journal."""
    return f"the journal {path if path.isprintable() else ascii(path)}"


def fail(what: str, advice: str, cause: BaseException | None = None) -> NoReturn:
    """Raise the `JournalError` of a file."""
    message = f"{what}: {advice}"
    raise JournalError(message) from cause


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn the errors of SQLite and of the system into a `JournalError` that says what to do.

    :param what: The beginning of the message.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = result_code(error)
        advice = _ADVICE.get(code) or _ADVICE.get(code & 0xFF, "SQLite failed")
        fail(what, f"{advice} ({error})", error)
    except OSError as error:
        reason = error.strerror or error
        fail(what, f"check that its directory exists and is writable ({reason})", error)


def result_code(error: sqlite3.Error) -> int:
    """Return SQLite's extended result code."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code


# --- connections --------------------------------------------------------------------------


def connect(path: str, mode: str = "rw") -> sqlite3.Connection:
    """Open a file that exists; ``mode`` as in SQLite's URIs, with further parameters.

    Each transaction may run in another thread, but never two at once.
    """
    return sqlite3.connect(
        f"{pathlib.Path(path).as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )


def pragma(connection: sqlite3.Connection, text: str) -> Any:  # noqa: ANN401 - each has its own
    """Return the first value that a pragma brings, or None."""
    row = connection.execute(f"PRAGMA {text}").fetchone()
    return None if row is None else row[0]


def check_origin(what: str, connection: sqlite3.Connection, schema: Schema) -> int:
    """Return the version of a file.

    :raises JournalError: Another program wrote it, or a newer version of this one.
    """
    if pragma(connection, "application_id") != schema.application_id:
        fail(what, "it belongs to another program; name another path")
    version: int = pragma(connection, "user_version")
    if version > schema.version:
        fail(what, "a newer version of veo3_async wrote it; upgrade this one")
    return version


# --- transactions -------------------------------------------------------------------------


def in_transaction(
    connection: sqlite3.Connection, works: Sequence[Work], begin: str = "BEGIN IMMEDIATE"
) -> list[Any]:
    """Do all of it, or nothing."""
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(begin)
        try:
            results = [work(cursor) for work in works]
            cursor.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has rolled it back already
                cursor.execute("ROLLBACK")
            raise
        return results


def each_alone(
    connection: sqlite3.Connection, works: Sequence[Work], begin: str = "BEGIN IMMEDIATE"
) -> list[Any]:
    """Return what each work returned, or the error that is its own, which undoes it alone."""
    try:
        return in_transaction(connection, works, begin)
    except Exception as error:
        if not _concerns_one(error):
            raise
    # Again from the start: only what goes wrong pays for a savepoint for each.
    alone = [functools.partial(_in_savepoint, work) for work in works]
    return in_transaction(connection, alone, begin)


def _in_savepoint(work: Work, cursor: sqlite3.Cursor) -> Any:  # noqa: ANN401 - each has its own
    cursor.execute("SAVEPOINT work")
    try:
        result = work(cursor)
    except Exception as error:
        if not _concerns_one(error):
            raise
        cursor.execute("ROLLBACK TO work")
        result = error
    cursor.execute("RELEASE work")
    return result


def _concerns_one(error: Exception) -> bool:
    return isinstance(error, _ABOUT_A_VALUE) or not isinstance(error, (sqlite3.Error, OSError))
