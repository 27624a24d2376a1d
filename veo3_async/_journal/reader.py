"""Reading a journal beside whoever writes it: without a lock, and without leaving a trace."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from veo3_async._journal import connection as sqlite
from veo3_async._journal.connection import Work, fail, pragma
from veo3_async._journal.schema import Schema

__all__ = ["Reader", "back_up"]

_T = TypeVar("_T")


class Reader:
    """A SQLite file that is read only; it is open as long as a transaction, and never created.

    Methods as those of `Database`.
    """

    def __init__(self, path: str, schema: Schema) -> None:
        self.path: Final = path
        self._schema: Final = schema

    def transact(self, works: Sequence[Work]) -> list[Any]:
        """Do all of it in one transaction, which sees one state of the file.

        :returns: What each returned; of one that failed by itself the `Exception`.
        :raises JournalError: The file cannot be read.
        """
        what = f"{sqlite.named(self.path)} cannot be read"
        with sqlite.explained(what):
            return _read(
                self.path,
                what,
                self._schema,
                lambda connection: sqlite.each_alone(connection, works, "BEGIN"),
            )

    def close(self) -> None:
        """Do nothing: between two transactions nothing is open."""


def back_up(path: str, destination: pathlib.Path, schema: Schema) -> None:
    """Copy a journal as it is now, also while it is in use.

    :raises JournalError: It cannot be read, or the copy not be written, or that file exists.
    """
    what = f"{sqlite.named(path)} cannot be backed up to {str(destination)!r}"
    with sqlite.explained(what):
        if destination.exists():
            fail(what, "that file exists; name another path")
        draft = _draft(destination)
        try:
            with contextlib.closing(sqlite3.connect(draft)) as copy:
                _read(path, what, schema, lambda connection: connection.backup(copy))
            with draft.open("r+b") as file:
                os.fsync(file.fileno())
            draft.rename(destination)
        finally:
            draft.unlink(missing_ok=True)
        _sync_directory(destination.parent)


def _read(path: str, what: str, schema: Schema, look: Callable[[sqlite3.Connection], _T]) -> _T:
    """Return what is seen of a file.

    Without a -wal nobody has it open, and SQLite would leave an empty one: then the file alone is
    read, as if it could not change; if it has changed meanwhile, it is read once more.
    """
    before = _state(path, what)
    if not os.path.exists(f"{path}-wal"):  # noqa: PTH110
        with contextlib.suppress(_ChangedError):
            return _seen(path, what, schema, look, unchanged=before)
    return _seen(path, what, schema, look)


class _ChangedError(Exception):
    """Raised when a file has changed while it was read."""


def _seen(
    path: str,
    what: str,
    schema: Schema,
    look: Callable[[sqlite3.Connection], _T],
    *,
    unchanged: tuple[int, ...] | None = None,
) -> _T:
    mode = "ro" if unchanged is None else "ro&immutable=1"
    with contextlib.closing(sqlite.connect(path, mode)) as connection:
        try:
            version = sqlite.check_origin(what, connection, schema)
            if version < schema.version:
                pragma(connection, "temp_store = MEMORY")
                connection.execute(schema.views[version])
            return look(connection)
        finally:
            if unchanged is not None and (
                _state(path, what) != unchanged or os.path.exists(f"{path}-wal")  # noqa: PTH110
            ):
                raise _ChangedError


def _state(path: str, what: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)  # noqa: PTH116 - a name, as SQLite takes
    except FileNotFoundError as error:
        fail(what, "it does not exist; check the path", error)
    except ValueError as error:  # a NUL, or what is no text
        fail(what, "no file can be named so; name another path", error)
    if found.st_size == 0:
        fail(what, "it is empty, so it is damaged or no journal")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _draft(destination: pathlib.Path) -> pathlib.Path:
    """Make an empty file beside another, for its owner only."""
    descriptor, name = tempfile.mkstemp(dir=destination.parent, prefix=f"{destination.name}.")
    os.close(descriptor)
    return pathlib.Path(name)


def _sync_directory(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError):  # not every system and file system can
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
