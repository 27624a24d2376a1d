"""The lock that keeps a second process from writing the same file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from typing import Final

if sys.platform == "win32":  # pragma: no cover
    import msvcrt
else:
    try:
        import fcntl
    except ImportError:  # a system that is neither
        fcntl = None  # type: ignore[assignment]

__all__ = ["locked"]

_OWNER_ONLY: Final = 0o600

# A lock of `flock` belongs to the open file, which a forked child shares: a pool worker that
# outlives its parent would keep it. So a child closes its copy, and the parent's lock stays. The
# mutex sees to it that no fork falls between opening a file and knowing of it.
_descriptors: Final[set[int]] = set()
_mutex: Final = threading.RLock()


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock that a file of this name stands for; the file is made where there is none.

    :raises BlockingIOError: Somebody else holds it.
    :raises OSError: The file cannot be made or opened.
    """
    with _opened(path) as descriptor:
        if sys.platform == "win32":  # pragma: no cover
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except PermissionError as error:
                raise BlockingIOError(*error.args) from error
            yield
        elif fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        else:
            with _locked_by_sqlite(path):
                yield


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    with _mutex:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, _OWNER_ONLY)
        _descriptors.add(descriptor)
    try:
        yield descriptor
    finally:
        with _mutex:
            if descriptor in _descriptors:  # not so in a child, where the number may be reused
                _descriptors.remove(descriptor)
                os.close(descriptor)


@contextlib.contextmanager
def _locked_by_sqlite(path: str) -> Iterator[None]:
    with contextlib.closing(
        sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    ) as connection:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise  # a full disk is no other process
            raise BlockingIOError(str(error)) from error
        yield


def _close_in_child() -> None:
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()
    _mutex.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_mutex.acquire, after_in_parent=_mutex.release, after_in_child=_close_in_child
    )
