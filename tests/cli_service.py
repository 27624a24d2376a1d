"""The fake service on another thread, and the command line beside it.

In this process, in another one, or on a pseudo-terminal of which the screen can be read.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import pyte
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from veo3_async.testing import FakeVeo3, Life, Stage

KEY = "sk-canary-7f3d9b"
MODULE = [sys.executable, "-m", "veo3_async"]
_INHERITED = ("COVERAGE_FILE", "COVERAGE_PROCESS_START", "HOME", "PATH", "PYTHONPATH")
_PATIENCE = 40.0

FOREVER = Life((Stage({"status": "video_generating"}),))
DONE = Life(Life.plain().stages[-1:], upsample=False)
FAILED = Life(Life.failing().stages[-1:])
TWO_STEPS = Life((Stage({"status": "video_generating"}, polls=1), *DONE.stages), upsample=False)


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


class Result(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        return json_lines(self.out)


Command = Callable[..., Result]


def json_lines(out: str) -> list[Any]:
    return [json.loads(line) for line in out.splitlines()]


def one_line(result: Result) -> str:
    """Return the only line on stderr; nothing is on stdout."""
    (line,) = result.err.splitlines()
    assert result.out == ""
    return line


class Service:
    """A `FakeVeo3` whose methods can be called from the thread of the test."""

    def __init__(self, portal: BlockingPortal, server: FakeVeo3) -> None:
        self._portal = portal
        self.server = server

    def add(self, *arguments: Any, **options: Any) -> str:
        return self._portal.call(lambda: self.server.add(*arguments, **options))

    def fault(self, *arguments: Any, **options: Any) -> None:
        self._portal.call(lambda: self.server.fault(*arguments, **options))

    @property
    def environment(self) -> dict[str, str]:
        """What points a program at this service, and nowhere else."""
        ours = {
            "AI302_API_KEY": KEY,
            "AI302_BASE_URL": self.server.url,
        }
        return {name: os.environ[name] for name in _INHERITED if name in os.environ} | ours


@contextlib.contextmanager
def running_service(**options: Any) -> Iterator[Service]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(FakeVeo3(api_key=KEY, **options)) as server,
    ):
        yield Service(portal, server)


class Terminal:
    """A program on a pseudo-terminal, and what it shows."""

    def __init__(
        self, command: list[str], environment: Mapping[str, str], *, columns: int, rows: int
    ) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=1000)
        self.raw = b""
        self._stream = pyte.ByteStream(self.screen)
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._fd = ours
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, *command],
            env={"TERM": "xterm-256color", **environment},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        os.close(self._fd)

    @property
    def text(self) -> str:
        """What is on the screen, without trailing blanks."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    @property
    def scrolled(self) -> int:
        """Lines that have left the screen at its top."""
        return len(self.screen.history.top)

    def wait_for(self, *texts: str) -> str:
        """Return the screen once all these texts are on it."""
        return self.wait_until(lambda screen: all(text in screen for text in texts))

    def wait_until(self, shown: Callable[[str], bool]) -> str:
        """Return the screen once it shows what is wanted."""
        deadline = time.monotonic() + _PATIENCE
        while not shown(self.text):
            assert self._read() or self._process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
        return self.text

    def press(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def press_ctrl_c(self) -> None:
        self.press("\x03")

    def exit_code(self) -> int:
        """Read until the program ends."""
        deadline = time.monotonic() + _PATIENCE
        while self._read() or self._process.poll() is None:
            assert time.monotonic() < deadline, self.text
        return self._process.wait()

    def _read(self) -> bool:
        if not select.select([self._fd], [], [], 0.05)[0]:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # Linux says EIO once nobody has the other end open
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)


# Ctrl-C goes to the foreground group of the session that has the terminal as its own.
_ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def on_terminal(
    service: Service,
    *arguments: str,
    columns: int = 120,
    rows: int = 30,
    command: Sequence[str] = MODULE,
    environment: Mapping[str, str] | None = None,
) -> Terminal:
    """Start a command on a pseudo-terminal."""
    words = [*command, *arguments]
    return Terminal(
        words, service.environment | dict(environment or {}), columns=columns, rows=rows
    )
