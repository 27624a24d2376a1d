"""The keyboard beside a live table: an Enter that is echoed would tear it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

__all__ = ["no_echo"]


@contextlib.contextmanager
def no_echo() -> Iterator[None]:
    """Let the terminal echo no keys as long as the context lasts; Ctrl-C works as ever."""
    try:
        import termios  # noqa: PLC0415 - there is none on Windows
    except ImportError:
        yield
        return
    try:
        fd = sys.stdin.fileno()
        before = termios.tcgetattr(fd)
        is_ours = os.tcgetpgrp(fd) == os.getpgrp()  # who changes it in the background is stopped
    except (AttributeError, OSError, ValueError, termios.error):
        is_ours = False
    if not is_ours:
        yield
        return
    iflag, oflag, cflag, lflag, *rest = before
    termios.tcsetattr(fd, termios.TCSANOW, [iflag, oflag, cflag, lflag & ~termios.ECHO, *rest])
    try:
        yield
    finally:
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(fd, termios.TCSANOW, before)
