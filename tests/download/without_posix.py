"""Downloads on a system without POSIX: a stand-in for Windows, in a process of its own.

``python without_posix.py URL FOLDER [overwrite]`` prints what came of it. What Windows lacks is
taken out of ``os`` before the package is loaded, and what it refuses is refused: to open a folder,
and to rename or remove a file that is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import aiohttp
import anyio.to_thread

OTHERS = (aiohttp, anyio.to_thread)
"""They are loaded before, for what they use is their matter."""


MISSING = (
    "O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK fchmod fchown geteuid getuid getxattr link "
    "pread preadv pwrite pwritev removexattr setxattr writev"
)


def take_away() -> None:
    """Make this process one without POSIX."""
    sys.modules["fcntl"] = None  # type: ignore[assignment]
    for name in MISSING.split():
        delattr(os, name)
    os.supports_dir_fd.clear()
    for name in ("open", "stat", "unlink", "rename", "replace"):
        setattr(os, name, _guarded(getattr(os, name), name))


def _guarded(real: Callable[..., Any], name: str) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        if any(value is not None for key, value in options.items() if key.endswith("dir_fd")):
            raise NotImplementedError
        if name == "open" and pathlib.Path(args[0]).is_dir():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if name in {"unlink", "rename", "replace"} and _is_open(args[0]):
            raise PermissionError(errno.EACCES, "the file is used by a process")
        if name == "rename" and pathlib.Path(args[1]).exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        return real(*args, **options)

    return call


def _is_open(path: str) -> bool:
    handles = pathlib.Path("/proc/self/fd")
    links = []
    for handle in handles.iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(handle.readlink())
    return pathlib.Path(path) in links


async def main(url: str, folder: pathlib.Path, *words: str) -> None:
    """Download, and print the path, or the error and its class."""
    from veo3_async import Veo3Error  # noqa: PLC0415
    from veo3_async._download.downloader import Downloader  # noqa: PLC0415

    downloader = Downloader(allow_private=True)
    try:
        path = await downloader.download(url, folder / "video.mp4", overwrite="overwrite" in words)
        said = path.name
    except Veo3Error as error:
        said = f"{type(error).__name__}: {error.message}"
    finally:
        await downloader.aclose()
    sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    take_away()
    asyncio.run(main(sys.argv[1], pathlib.Path(sys.argv[2]), *sys.argv[3:]))
