"""Workers in processes of their own, to be killed."""

from __future__ import annotations

import os
import signal
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
        self._process = subprocess.Popen(
            [sys.executable, LIFE, nats, api, "veo3", *words],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    async def said(self) -> str:
        assert self._process.stdout is not None
        line: bytes = await anyio.to_thread.run_sync(self._process.stdout.readline)
        return line.decode().strip()

    def send(self, what: signal.Signals) -> None:
        self._process.send_signal(what)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
