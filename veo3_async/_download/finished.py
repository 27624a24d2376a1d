"""How a finished video is known again: a record of it that stays with the file.

A final transition that is delivered again after a restart finds its video on disk; by the record
it is known from a foreign file of that name. It is an extended attribute of the file, which no
listing shows and a renaming keeps. Where there is none, as on macOS, on Windows and on FAT, it is a
hidden file beside the video. Blocking code, for a worker thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from typing import Final

import msgspec

from veo3_async._download.folder import Folder
from veo3_async._download.safe_open import open_own

__all__ = ["Identity", "forget", "is_finished", "remember"]

_ATTRIBUTE: Final = "user.veo3_async"
_MAX_BYTES: Final = 1 << 16


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Which video a file is."""

    url_digest: str
    """Of the URL; a signed one is a secret."""
    request_id: str | None = None
    is_upsampled: bool = False

    @classmethod
    def of(cls, url: str, request_id: str | None, *, is_upsampled: bool) -> Identity:
        """Return that of a task's video, or of a bare URL."""
        digest = hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()
        return cls(url_digest=digest, request_id=request_id, is_upsampled=is_upsampled)

    def is_same(self, other: Identity) -> bool:
        """Return whether this is the same video: of one URL, or of one task, whose URLs change."""
        is_one_task = self.request_id is not None and self.request_id == other.request_id
        return self.url_digest == other.url_digest or (
            is_one_task and self.is_upsampled == other.is_upsampled
        )


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    identity: Identity
    size: int


def remember(folder: Folder, handle: int, name: str, identity: Identity, size: int) -> None:
    """Write down which video a file is, before it gets its name; no error comes of it.

    :param name: The name that it will get.
    """
    record = msgspec.json.encode(_Record(identity=identity, size=size))
    forget(folder, name)
    try:
        os.setxattr(handle, _ATTRIBUTE, record)
    except (OSError, AttributeError):
        with contextlib.suppress(OSError):
            _write_beside(folder, _beside(name), record)


def is_finished(folder: Folder, name: str, identity: Identity) -> bool:
    """Return whether the file of this name is this video, whole."""
    found = folder.find(name)
    if found is None or not stat.S_ISREG(found.st_mode):
        return False
    try:
        record = msgspec.json.decode(_read(folder, name), type=_Record)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return False
    return record.size == found.st_size and identity.is_same(record.identity)


def forget(folder: Folder, name: str) -> None:
    """Remove what was written down of an earlier file of this name."""
    with contextlib.suppress(OSError):
        if folder.find(_beside(name)) is not None:
            folder.remove(_beside(name))


def _read(folder: Folder, name: str) -> bytes:
    with _opened(folder, name) as handle:
        try:
            return os.getxattr(handle, _ATTRIBUTE)
        except (OSError, AttributeError):
            pass
    with _opened(folder, _beside(name)) as handle:
        return os.read(handle, _MAX_BYTES)


@contextlib.contextmanager
def _opened(folder: Folder, name: str) -> Iterator[int]:
    handle = folder.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0), 0)
    try:
        yield handle
    finally:
        os.close(handle)


def _write_beside(folder: Folder, name: str, record: bytes) -> None:
    handle = open_own(folder, name, mode=0o600, twin=name)
    try:
        os.write(handle, record)
    finally:
        os.close(handle)


def _beside(name: str) -> str:
    return f".{name}.veo3_async"
