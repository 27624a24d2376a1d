"""The file on disk while it grows: ``NAME.part``, its side record, and the step to ``NAME``.

Blocking code, for a worker thread. The rules:

1.  ``NAME.part`` and ``NAME.part.json`` lie in the folder of ``NAME``, are readable by their
    owner only, are created exclusively, and are never opened through a symbolic link. What lies
    there and is not ours is left alone.
2.  A lock on ``NAME.part`` keeps other processes out for as long as it is open.
3.  The record never claims more than what is safe: ``done`` grows only after a sync of the data.
    What lies beyond it is written over, or cut off at the end.
4.  ``NAME`` is absent or complete: sync the data, give it the name, sync the folder. A file
    that has the name already is replaced only if asked for, else a hard link decides the race.

All names are relative to the open folder, so nobody can swap it meanwhile. Needs POSIX.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import stat
import threading
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from veo3_async._download.mp4 import Proof, prove
from veo3_async._download.resumption import Kept, Write

__all__ = ["PartFile"]

_EXISTING: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = _EXISTING | os.O_CREAT | os.O_EXCL
_OWNER_ONLY: Final = 0o600
_MAX_RECORD_BYTES: Final = 1 << 16
_VECTOR: Final = 512
"""Pieces for one ``writev``; POSIX promises 16, Linux and macOS take 1,024."""

_CHECKPOINT_SECONDS: Final = 2.0
"""What a crash may cost: so many seconds of downloading. By bytes would be dearer, a sync for
each 8 MiB doubles the CPU time of a fast download."""

_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


class PartFile:
    """A file that is being downloaded.

    :param final: Where the finished film goes, absolute.
    :param overwrite: Whether a file there is replaced at the end.

    All methods may be called from any thread, one waits for the other; after `close` they do
    nothing. All raise ``OSError``.
    """

    def __init__(self, final: pathlib.Path, *, overwrite: bool) -> None:
        self.path: Final = final.with_name(f"{final.name}.part")
        self.kept = Kept(url="")
        self.final: Final = final
        self._overwrite = overwrite
        self._record_name = f"{self.path.name}.json"
        self._lock = threading.Lock()
        self._handles = contextlib.ExitStack()
        self._closed = False
        self._keeps = True
        self._data = self._record = self._folder = -1
        self._safe_at = time.monotonic()

    def open(self, *, resume: bool) -> None:
        """Open or create the file, and read what is known of it into ``kept``.

        :param resume: False to forget what is there.
        """
        with self._lock:
            if self._closed:
                return
            self._folder = self._opened(os.fspath(self.final.parent), os.O_RDONLY | os.O_DIRECTORY)
            if (there := self._found(self.final.name)) is not None:
                if not self._overwrite:
                    raise _taken()
                if not (stat.S_ISREG(there.st_mode) or stat.S_ISLNK(there.st_mode)):
                    raise OSError(errno.EEXIST, "what is there is no file; name another path")
            self._data = self._open_data()
            if os.fstat(self._data).st_size and not self._found(self._record_name):
                raise _foreign(self.path.name)
            try:
                self._record = self._open_file(self._record_name)
            except OSError:
                if not os.fstat(self._data).st_size:
                    os.unlink(self.path.name, dir_fd=self._folder)  # made for nothing
                raise
            if resume:
                self.kept = self._read_record()

    def write(self, pieces: Sequence[bytes], begin: tuple[str, Write] | None = None) -> None:
        """Append bytes, and now and then make safe what is there.

        :param begin: URL and plan where these are the first bytes of a reply; they take the
            place of what is on disk from the plan's start on.
        """
        with self._lock:
            if self._closed:
                return
            if begin is not None:
                self._begin(*begin)
            for first in range(0, len(pieces), _VECTOR):
                self._append(pieces[first : first + _VECTOR])
            if time.monotonic() - self._safe_at >= _CHECKPOINT_SECONDS:
                self._checkpoint()

    def proof(self) -> Proof:
        """Return what the boxes of the file say about its end."""
        with self._lock:
            if self._closed:
                return Proof.NONE
            return prove(self.kept.done, lambda offset, size: os.pread(self._data, size, offset))

    def commit(self) -> None:
        """Make the file safe and give it its final name."""
        with self._lock:
            if self._closed:
                return
            os.ftruncate(self._data, self.kept.done)
            self.kept = msgspec.structs.replace(self.kept, total=self.kept.done)
            self._checkpoint()
            self._give_name()
            os.fsync(self._folder)
            self._remove()

    def discard(self) -> None:
        """Remove the file and its record."""
        with self._lock:
            if not self._closed:
                self.kept = Kept(url="")
                self._remove()

    def close(self) -> None:
        """Let go of the file; what is in it stays for another time, an empty one is removed."""
        with self._lock:
            self._closed = True
            with contextlib.suppress(OSError), self._handles:
                if self._record >= 0 and self._keeps:
                    self._checkpoint() if self.kept.done else self._remove()

    # --- the parts of opening -----------------------------------------------------------------

    def _open_data(self) -> int:
        handle = self._open_file(self.path.name)
        self._take_lock(handle)
        if os.fstat(handle).st_nlink > 1:
            # A crash between the hard link and the removal of the old name leaves one file with
            # two names: to write to it would be to write to the finished film.
            os.unlink(self.path.name, dir_fd=self._folder)
            handle = self._open_file(self.path.name)
            self._take_lock(handle)
        return handle

    def _open_file(self, name: str) -> int:
        try:
            return self._opened(name, _NEW, dir_fd=self._folder)
        except FileExistsError:
            handle = self._opened(name, _EXISTING, dir_fd=self._folder)
        found, final = os.fstat(handle), self._found(self.final.name)
        is_single = found.st_nlink == 1 or (final and os.path.samestat(found, final))
        if not (stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and is_single):
            raise _foreign(name)
        return handle

    def _opened(self, name: str, flags: int, *, dir_fd: int | None = None) -> int:
        handle = os.open(name, flags | os.O_CLOEXEC, _OWNER_ONLY, dir_fd=dir_fd)
        self._handles.callback(os.close, handle)
        return handle

    def _found(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _take_lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            named = self._found(self.path.name)
        except BlockingIOError:
            named = None
        if named is None or not os.path.samestat(named, os.fstat(handle)):
            # In use, or finished by its user a moment ago.
            raise OSError(errno.EBUSY, "another download is writing this file")

    def _read_record(self) -> Kept:
        nothing = Kept(url="")
        try:
            kept = msgspec.json.decode(os.pread(self._record, _MAX_RECORD_BYTES, 0), type=Kept)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return nothing
        return kept if 0 < kept.done <= os.fstat(self._data).st_size else nothing

    # --- the parts of writing -----------------------------------------------------------------

    def _begin(self, url: str, plan: Write) -> None:
        self.kept = Kept(url=url, done=plan.start, total=plan.total, validator=plan.validator)
        if not plan.start:
            self._write_record()

    def _append(self, pieces: Sequence[bytes]) -> None:
        os.lseek(self._data, self.kept.done, os.SEEK_SET)
        wanted = sum(map(len, pieces))
        written = os.writev(self._data, pieces)
        if written < wanted:
            rest = memoryview(b"".join(pieces))
            while written < wanted:
                written += os.write(self._data, rest[written:])
        self.kept = msgspec.structs.replace(self.kept, done=self.kept.done + wanted)

    def _checkpoint(self) -> None:
        # After a failed sync nobody knows which pages reached the disk, and a second one would
        # say that all is well: the record stays at the last that did not fail.
        self._keeps = False
        os.fsync(self._data)
        self._keeps = True
        self._write_record()
        self._safe_at = time.monotonic()

    def _write_record(self) -> None:
        text = msgspec.json.encode(self.kept)
        os.pwrite(self._record, text, 0)
        os.ftruncate(self._record, len(text))

    def _give_name(self) -> None:
        part, final, here = self.path.name, self.final.name, self._folder
        if self._overwrite:
            os.replace(part, final, src_dir_fd=here, dst_dir_fd=here)
            return
        try:
            os.link(part, final, src_dir_fd=here, dst_dir_fd=here, follow_symlinks=False)
        except FileExistsError:
            trouble = _taken()
        except OSError as exc:
            if exc.errno not in _NO_LINKS:
                raise
            trouble = OSError(
                exc.errno,
                "this file system has no hard links, so a file there could be lost; "
                "overwrite finishes without",
            )
        else:
            return
        raise trouble

    def _remove(self) -> None:
        self._keeps = False  # the names may be another's from now on
        for name in (self.path.name, self._record_name):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)


def _taken() -> OSError:
    return OSError(errno.EEXIST, "there is a file already; overwrite replaces it")


def _foreign(name: str) -> OSError:
    return OSError(errno.EEXIST, f"{name} is not a download of ours; move it away")
