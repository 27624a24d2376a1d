"""The file on disk while it grows: ``NAME.part``, its side record, and the step to ``NAME``.

Blocking code, for a worker thread. The rules:

1.  ``NAME.part`` and ``NAME.part.json`` lie in the folder of ``NAME`` and are opened by the rule of
    `safe_open`. The record holds a signed URL, and is readable by its owner only.
2.  A lock on ``NAME.part`` keeps other processes out for as long as it is open.
3.  The record never claims more than what is safe: ``done`` grows only after a sync of the data.
    What lies beyond it is written over, or cut off at the end.
4.  ``NAME`` is absent or complete: sync the data, give it the name, sync the folder. A file
    that has the name already is replaced only if asked for, else a hard link decides the race.
5.  Once the name is given nothing is an error any more.

What a system or a file system does not have of this is in ``weaknesses``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import stat
import threading
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from veo3_async._download.content import Proof, prove
from veo3_async._download.finished import Identity, forget, is_finished, remember
from veo3_async._download.folder import Folder, Weakness, sync_file
from veo3_async._download.resumption import PartialContent, Receive, is_usable
from veo3_async._download.safe_open import foreign, open_own

__all__ = ["PartFile"]

_ANYBODY: Final = 0o666  # less what the umask takes, as for any new file
_OWNER_ONLY: Final = 0o600
_MAX_RECORD_BYTES: Final = 1 << 16
_VECTOR: Final = 512
"""Pieces for one ``writev``; POSIX promises 16, Linux and macOS take 1,024."""

_CHECKPOINT_SECONDS: Final = 2.0
"""What a crash may cost: so many seconds of downloading. By bytes would be dearer, a sync for
each 8 MiB doubles the CPU time of a fast download."""

_NOTHING: Final = PartialContent(url="")


class PartFile:
    """A file that is being downloaded.

    :param final: Where the finished video goes, absolute.
    :param identity: Which video it is.
    :param overwrite: Whether a file there is replaced at the end.

    All methods may be called from any thread, one waits for the other; after `close` they do
    nothing. All raise ``OSError``, and ``FileExistsError`` where somebody else's file is in the
    way.
    """

    def __init__(self, final: pathlib.Path, identity: Identity, *, overwrite: bool) -> None:
        self.path: Final = final.with_name(f"{final.name}.part")
        self.content = _NOTHING
        self.final: Final = final
        self.weaknesses: set[Weakness] = set()
        self._identity: Final = identity
        self._overwrite: Final = overwrite
        self._record_name: Final = f"{self.path.name}.json"
        self._lock: Final = threading.Lock()
        self._folder: Folder | None = None
        self._files: Final = contextlib.ExitStack()
        self._closed = False
        self._keeps = True
        self._data = self._record = -1
        self._safe_at = time.monotonic()

    def open(self, *, resume: bool) -> bool:
        """Open or create the file, and read what is known of it into ``content``.

        :param resume: False to forget what is there.

        Returns False where the finished video is there already, and nothing is to be done.
        """
        with self._lock:
            if self._closed:
                return True
            folder = self._opened_folder()
            if (there := folder.find(self.final.name)) is not None and not self._may_replace(there):
                self._take_finished(folder, there)
                return False
            self._data = self._open_data(folder)
            self._record = self._open_record(folder)
            if resume:
                self.content = self._read_record()
            return True

    def write(self, pieces: Sequence[bytes], begin: tuple[str, Receive] | None = None) -> None:
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
            return Proof.NONE if self._closed else prove(self.content.done, self._read_at)

    def commit(self) -> None:
        """Make the file safe and give it its final name."""
        with self._lock:
            if self._closed or self._folder is None:
                return
            folder, size = self._folder, self.content.done
            os.ftruncate(self._data, size)
            self.content = msgspec.structs.replace(self.content, total=size)
            remember(folder, self._data, self.final.name, self._identity, size)
            self._checkpoint()
            self._give_name(folder)
            folder.sync()
            with contextlib.suppress(OSError):
                self._remove(folder)

    def discard(self) -> None:
        """Remove the file and its record."""
        with self._lock:
            if not self._closed and self._folder is not None:
                self.content = _NOTHING
                self._remove(self._folder)

    def close(self) -> None:
        """Let go of the file; what is in it stays for another time, an empty one is removed."""
        with self._lock:
            self._closed = True
            if self._folder is None:
                return
            with contextlib.suppress(OSError), contextlib.closing(self._folder), self._files:
                if self._record >= 0 and self._keeps:
                    self._checkpoint() if self.content.done else self._remove(self._folder)

    # --- the parts of opening -----------------------------------------------------------------

    def _opened_folder(self) -> Folder:
        folder = Folder(self.final.parent)
        self._folder, self.weaknesses = folder, folder.weaknesses
        return folder

    def _may_replace(self, there: os.stat_result) -> bool:
        if self._overwrite and not (stat.S_ISREG(there.st_mode) or stat.S_ISLNK(there.st_mode)):
            raise FileExistsError(errno.EEXIST, "what is there is no file; name another path")
        return self._overwrite

    def _take_finished(self, folder: Folder, there: os.stat_result) -> None:
        if not is_finished(folder, self.final.name, self._identity):
            raise _taken()
        self.content = PartialContent(url="", done=there.st_size, total=there.st_size)
        part = folder.find(self.path.name)
        if part is not None and part.st_nlink > 1 and os.path.samestat(part, there):
            self._remove(folder)  # a crash came between the hard link and this

    def _open_data(self, folder: Folder) -> int:
        handle = self._open_own(folder, self.path.name, _ANYBODY)
        self._take_lock(folder, handle)
        if os.fstat(handle).st_nlink > 1:
            # A crash between the hard link and the removal of the old name leaves one file with
            # two names: to write to it would be to write to the finished video.
            self._free()
            folder.remove(self.path.name)
            handle = self._open_own(folder, self.path.name, _ANYBODY)
            self._take_lock(folder, handle)
        return handle

    def _open_record(self, folder: Folder) -> int:
        is_empty = not os.fstat(self._data).st_size
        if not is_empty and folder.find(self._record_name) is None:
            raise foreign(self.path.name)
        try:
            return self._open_own(folder, self._record_name, _OWNER_ONLY)
        except OSError:
            if is_empty:
                self._free()
                folder.remove(self.path.name)  # made for nothing
            raise

    def _open_own(self, folder: Folder, name: str, mode: int) -> int:
        handle = open_own(folder, name, mode=mode, twin=self.final.name)
        self._files.callback(os.close, handle)
        return handle

    def _take_lock(self, folder: Folder, handle: int) -> None:
        named = folder.find(self.path.name) if folder.lock(handle) else None
        if named is None or not os.path.samestat(named, os.fstat(handle)):
            # In use, or finished by its user a moment ago.
            raise OSError(errno.EBUSY, "another download is writing this file")

    def _read_record(self) -> PartialContent:
        text = os.read(self._record, _MAX_RECORD_BYTES)
        try:
            content = msgspec.json.decode(text, type=PartialContent)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _NOTHING
        return content if is_usable(content, os.fstat(self._data).st_size) else _NOTHING

    # --- the parts of writing -----------------------------------------------------------------

    def _begin(self, url: str, plan: Receive) -> None:
        self.content = PartialContent(
            url=url, done=plan.start, total=plan.total, validator=plan.validator
        )
        if not plan.start:
            self._write_record()

    def _append(self, pieces: Sequence[bytes]) -> None:
        os.lseek(self._data, self.content.done, os.SEEK_SET)
        wanted = sum(map(len, pieces))
        written = os.writev(self._data, pieces) if hasattr(os, "writev") else 0
        if written < wanted:
            _write(self._data, memoryview(b"".join(pieces))[written:])
        self.content = msgspec.structs.replace(self.content, done=self.content.done + wanted)

    def _read_at(self, offset: int, size: int) -> bytes:
        os.lseek(self._data, offset, os.SEEK_SET)
        return os.read(self._data, size)

    def _checkpoint(self) -> None:
        # After a failed sync nobody knows which pages reached the disk, and a second one would
        # say that all is well: the record stays at the last that did not fail.
        self._keeps = False
        if not sync_file(self._data):
            self.weaknesses.add(Weakness.SYNC)
        self._keeps = True
        self._write_record()
        self._safe_at = time.monotonic()

    def _write_record(self) -> None:
        text = msgspec.json.encode(self.content)
        os.lseek(self._record, 0, os.SEEK_SET)
        _write(self._record, memoryview(text))
        os.ftruncate(self._record, len(text))

    def _give_name(self, folder: Folder) -> None:
        self._free()
        try:
            folder.rename(self.path.name, self.final.name, overwrite=self._overwrite)
        except FileExistsError:
            forget(folder, self.final.name)
            trouble = _taken()
        else:
            return
        raise trouble

    def _free(self) -> None:
        """Close what Windows renames and removes only when it is closed, if no lock is lost so."""
        if Weakness.LOCK in self.weaknesses:
            self._files.close()
            self._data = self._record = -1

    def _remove(self, folder: Folder) -> None:
        self._keeps = False  # the names may be another's from now on
        self._free()
        for name in (self.path.name, self._record_name):
            folder.remove(name)


def _write(handle: int, rest: memoryview) -> None:
    while rest:
        rest = rest[os.write(handle, rest) :]


def _taken() -> OSError:
    return FileExistsError(errno.EEXIST, "there is a file already; overwrite replaces it")
