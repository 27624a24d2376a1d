"""A program that lives many lives: each is killed, and the next one begins where it was.

Its imports take seconds, so they are made once, in a process that is forked for every life.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import sys
from collections.abc import AsyncIterator, Mapping

__all__ = ["Lives", "lives"]

_FORKING = """
import os, signal, sys
{program}
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
for _ in sys.stdin:
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        live()
        os._exit(0)
    print(pid, flush=True)
"""


class Lives:
    """The lives of one program."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._pid: int | None = None
        self.count = 0

    async def begin(self) -> None:
        """Start the next life."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._pid = int(await self.line())
        self.count += 1

    async def kill(self) -> None:
        """End it with SIGKILL, and return when it is gone."""
        if self._pid is None:  # it never began, and 0 would be the whole process group
            return
        os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(self._pid, 0)
                await asyncio.sleep(0.01)

    async def line(self) -> bytes:
        assert self._process.stdout is not None
        return await self._process.stdout.readline()


@contextlib.asynccontextmanager
async def lives(
    program: str, *arguments: str, folder: pathlib.Path, environment: Mapping[str, str]
) -> AsyncIterator[Lives]:
    """Import what a program needs; it defines ``live``, which runs one life of it."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _FORKING.format(program=program),
        *arguments,
        cwd=folder,
        env={**inherited, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    all_of_it = Lives(process)
    try:
        assert await all_of_it.line() == b"ready\n"
        yield all_of_it
    finally:
        with contextlib.suppress(ProcessLookupError):
            await all_of_it.kill()
        process.kill()
        await process.wait()
