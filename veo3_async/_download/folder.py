"""The folder of a video: an open directory where the system has such, else its path.

Blocking code, for a worker thread. POSIX systems open a directory and name files relative to it, so
that nobody can swap the folder meanwhile. Windows does not, and some file systems lack a lock, a
hard link or a sync: what is lacking is noted as a `Weakness`, and the video arrives all the same.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import pathlib
from typing import Final

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Folder", "Weakness", "sync_file"]

_UNSUPPORTED: Final = frozenset(
    {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY}
)
"""What a file system says of a call that it does not have."""


class Weakness(enum.StrEnum):
    """What cannot be promised in a folder."""

    LOCK = "two processes may write the same video at once (no file locks)"
    RACE = "a file that gets the video's name at the same moment is replaced (no hard links)"
    SYNC = "a power cut right after the end may lose the video (no sync)"


class Folder:
    """An open folder.

    All methods raise ``OSError``.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.weaknesses: Final[set[Weakness]] = set()
        self._path: Final = path
        self._handle: Final = _opened(path)
        if self._handle is None and not path.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def close(self) -> None:
        """Let go of it."""
        if self._handle is not None:
            os.close(self._handle)

    def open(self, name: str, flags: int, mode: int) -> int:
        """Open a file in it and return its handle."""
        # Windows would change the ends of lines in what is not opened as binary.
        flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        return os.open(self._at(name), flags, mode, dir_fd=self._handle)

    def find(self, name: str) -> os.stat_result | None:
        """Return what is there under a name, of a link the link itself, or None."""
        try:
            return os.stat(self._at(name), dir_fd=self._handle, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def owner(self) -> int:
        """Return the user that it belongs to."""
        return os.stat(self._at(os.curdir), dir_fd=self._handle).st_uid

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._at(name), dir_fd=self._handle)

    def lock(self, handle: int) -> bool:
        """Lock a file of it against other processes; return False where another has it."""
        if fcntl is None:
            self.weaknesses.add(Weakness.LOCK)
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # ENOLCK of NFS, ENOSYS and EOPNOTSUPP of others: none says that it is used
            self.weaknesses.add(Weakness.LOCK)
        return True

    def rename(self, name: str, final: str, *, overwrite: bool) -> None:
        """Give a file its final name, at once.

        :param overwrite: Whether a file of that name is replaced.
        :raises FileExistsError: There is one, and it is not to be replaced.
        """
        if overwrite:
            os.replace(self._at(name), self._at(final), **self._both())  # noqa: PTH105
        elif not self._link(name, final):
            self.weaknesses.add(Weakness.RACE)
            if self.find(final) is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            os.rename(self._at(name), self._at(final), **self._both())  # noqa: PTH104

    def sync(self) -> None:
        """Make its entries safe, where the system can; no error comes of it."""
        try:
            if self._handle is None:
                self.weaknesses.add(Weakness.SYNC)
            else:
                os.fsync(self._handle)
        except OSError:
            self.weaknesses.add(Weakness.SYNC)

    def _link(self, name: str, final: str) -> bool:
        try:
            os.link(self._at(name), self._at(final), **self._both(), follow_symlinks=False)
        except FileExistsError:
            raise
        except (OSError, AttributeError, NotImplementedError):
            return False
        return True

    def _at(self, name: str) -> str:
        return name if self._handle is not None else os.path.join(self._path, name)  # noqa: PTH118

    def _both(self) -> dict[str, int]:
        handle = self._handle
        return {} if handle is None else {"src_dir_fd": handle, "dst_dir_fd": handle}


def _opened(path: pathlib.Path) -> int | None:
    """Return a handle of a folder, or None where files can only be named by their whole paths."""
    if not hasattr(os, "O_DIRECTORY"):
        return None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # it can be written to, and not listed
        return None
    try:
        os.stat(os.curdir, dir_fd=handle)
    except NotImplementedError:
        os.close(handle)
        return None
    return handle


def sync_file(handle: int) -> bool:
    """Make the bytes of a file safe; return False where the file system has no such thing.

    :raises OSError: They could not be written.
    """
    try:
        os.fsync(handle)
    except OSError as exc:
        if exc.errno not in _UNSUPPORTED:
            raise
        return False
    return True
