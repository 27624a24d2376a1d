"""Workers in processes of their own, to be killed."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

import anyio.to_thread

LIFE = Path(__file__).parent / "cluster" / "cluster_life.py"


class Worker:
    """A worker in a process of its own; options are those of ``cluster_life.py``.

    :param errors: What it logs, and why it ended, goes there; None for where ours go.
    """

    def __init__(
        self, nats: str, api: str, *, errors: IO[bytes] | None = None, **options: object
    ) -> None:
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        heard, said = os.pipe()
        errors_to = 2 if errors is None else errors.fileno()
        nursery = _nursery()
        socket.send_fds(
            nursery, [json.dumps([nats, api, "veo3", *words]).encode()], [said, errors_to]
        )
        os.close(said)
        self._said = os.fdopen(heard, "rb")
        self._pid = int(nursery.recv(64))

    @property
    def is_alive(self) -> bool:
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return False
        return True

    async def said(self) -> str:
        line: bytes = await anyio.to_thread.run_sync(self._said.readline)
        return line.decode().strip()

    def send(self, what: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, what)

    def end(self) -> None:
        """Kill it, and wait until it is dead."""
        if not self._said.closed:
            self.send(signal.SIGKILL)
            self._said.read()
            self._said.close()


@functools.cache
def _nursery() -> socket.socket:
    """Return the way to a process that forks workers: it has imported what they need."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, LIFE], stdin=theirs.fileno(), env=environment)
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours
