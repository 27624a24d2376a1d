"""The rule of opening files beside a video: what lies there and is not ours is left alone.

A file is created exclusively, or it is a file already: no link, no pipe, of our own user, under one
name only. So nothing is ever written through a link or into somebody else's file.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from veo3_async._download.folder import Folder

__all__ = ["foreign", "open_own"]

# Windows has none of them but O_CREAT and O_EXCL, and its links need a privilege.
_EXISTING: Final = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_NEW: Final = _EXISTING | os.O_CREAT | os.O_EXCL

_IN_THE_WAY: Final = frozenset({errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO})
"""What opening a link, a folder or a socket gives."""


def open_own(folder: Folder, name: str, *, mode: int, twin: str) -> int:
    """Open a file of our own for reading and writing, create it where there is none.

    :param mode: The permissions of a new one, of which the umask takes some.
    :param twin: The one other name that the same file may have.
    :raises FileExistsError: What is there is not ours.
    """
    try:
        return folder.open(name, _NEW, mode)
    except FileExistsError:
        handle = _existing(folder, name)
    try:
        _check(folder, handle, name, twin)
    except OSError:
        os.close(handle)
        raise
    return handle


def foreign(name: str, why: str = "") -> OSError:
    """Return the error that says that a file is somebody else's."""
    message = f"{name} is not a download of ours{why}; move it away"
    return FileExistsError(errno.EEXIST, message)


def _existing(folder: Folder, name: str) -> int:
    found = folder.find(name)
    if found is not None and stat.S_ISLNK(found.st_mode):
        raise foreign(name, " (symbolic links are not followed)")
    try:
        return folder.open(name, _EXISTING, 0)
    except OSError as exc:
        if exc.errno not in _IN_THE_WAY and (found is None or stat.S_ISREG(found.st_mode)):
            raise
    raise foreign(name)


def _check(folder: Folder, handle: int, name: str, twin: str) -> None:
    opened, named = os.fstat(handle), folder.find(name)
    if named is not None and stat.S_ISLNK(named.st_mode):  # it came after the first look
        raise foreign(name)
    other = folder.find(twin)
    # Some file systems count no links at all.
    is_single = opened.st_nlink <= 1 or (other is not None and os.path.samestat(opened, other))
    if not (stat.S_ISREG(opened.st_mode) and _is_ours(folder, opened) and is_single):
        raise foreign(name)


def _is_ours(folder: Folder, opened: os.stat_result) -> bool:
    if not hasattr(os, "geteuid"):
        return True
    # A share may show all as one user's; and whose the folder is can replace anything in it.
    return opened.st_uid in {os.geteuid(), folder.owner()}
