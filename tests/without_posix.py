"""The package as on a system without POSIX: no ``fcntl``, no descriptors of directories.

What is missing is missing for the package alone: it gets an `os` of its own, while pytest and
the other libraries keep theirs. To be called before the package has loaded all of its modules.
"""

from __future__ import annotations

import asyncio
import errno
import importlib
import os
import pkgutil
import sys
import types
from collections.abc import Callable
from typing import Any, Final

__all__ = ["take_posix_away"]

# What `os` has on Linux and not on Windows, of that which somebody who writes files may want.
MISSING: Final = {
    *("chown", "fchmod", "fchown", "fdatasync", "fork", "getuid", "geteuid", "killpg", "link"),
    *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "O_DSYNC", "pread"),
    *("pwrite", "register_at_fork", "sched_getaffinity", "statvfs", "fstatvfs", "umask", "uname"),
}
WITH_DIR_FD: Final = ("mkdir", "remove", "rename", "replace", "rmdir", "stat", "unlink")
NO_MODULES: Final = ("fcntl", "grp", "pty", "pwd", "resource", "termios")


class _PlainOs(types.ModuleType):
    supports_dir_fd: frozenset[Any] = frozenset()

    def __getattr__(self, name: str) -> Any:
        if name in MISSING:
            message = f"module 'os' has no attribute {name!r}"
            raise AttributeError(message)
        found = getattr(os, name)
        return _without_dir_fd(found) if name in WITH_DIR_FD else found

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        """Open a file; a directory is refused, as Windows does it."""
        if dir_fd is None and os.path.isdir(path):  # noqa: PTH112 - it is what is replaced here
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return int(_without_dir_fd(os.open)(path, flags, mode, dir_fd=dir_fd))


def _without_dir_fd(function: Callable[..., Any]) -> Callable[..., Any]:
    def refusing(*args: Any, **options: Any) -> Any:
        given = [options.pop(name, None) for name in ("dir_fd", "src_dir_fd", "dst_dir_fd")]
        if any(each is not None for each in given):
            message = f"{function.__name__}: dir_fd unavailable on this platform"
            raise NotImplementedError(message)
        return function(*args, **options)

    return refusing


def take_posix_away(package: str) -> None:
    """Load all of a package with what Windows has; tests and other libraries keep the rest."""
    asyncio.SelectorEventLoop.add_signal_handler = (  # type: ignore[method-assign]
        asyncio.AbstractEventLoop.add_signal_handler
    )
    for needed in ("aiohttp", "sqlite3"):
        importlib.import_module(needed)
    plain = _PlainOs("os")
    kept = {name: sys.modules.get(name) for name in NO_MODULES} | {"os": os}
    sys.modules.update(dict.fromkeys(NO_MODULES), os=plain)  # type: ignore[arg-type]  # None: no such
    try:
        root = importlib.import_module(package)
        for found in pkgutil.walk_packages(root.__path__, f"{package}."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    finally:
        for name, module in kept.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module
    for name, loaded in sys.modules.items():
        if name.split(".")[0] == package and getattr(loaded, "os", None) is os:
            loaded.os = plain  # type: ignore[attr-defined]  # it was loaded before
