"""A real nats-server in a process of its own, to be stopped, killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

BINARY = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.defpath}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class NatsServer:
    """One server on the loopback with JetStream; written data is synced at once."""

    def __init__(self, directory: Path, *, port: int | None = None, more: str = "") -> None:
        self.port = port or free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._more = more
        self._directory = directory
        self.configure()

    def configure(self, *, jetstream: str = "") -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._config = self._directory / "nats.conf"
        self._config.write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f'jetstream {{\n  store_dir: "{self._directory}/store"\n  sync_interval: always\n'
            f"  {jetstream}\n}}\n{self._more}\n"
        )

    def start(self) -> None:
        assert BINARY is not None
        command = [BINARY, "-c", str(self._config), "-l", str(self._directory / "nats.log")]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        message = (self._directory / "nats.log").read_text()
        raise RuntimeError(message)

    def send(self, what: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(what)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None
