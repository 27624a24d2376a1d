"""The poller under many ids: what is in flight, what is added in batches, and what is dropped."""

from __future__ import annotations

import asyncio
import gc
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeClient

from veo3_async import (
    FixedPacing,
    Journal,
    LearnedPacing,
    Phase,
    StillPending,
    UnexpectedReply,
    Veo3Client,
)
from veo3_async._lifecycle import judge
from veo3_async._protocol import families
from veo3_async.testing import FakeVeo3, Life, Slow

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]

RUNNING = {"status": "video_generating", "running": True}
DONE = {"status": "completed", "running": False, "video_url": "https://file.302.ai/a.mp4"}
UNENDING = Life.scripted([RUNNING])


@pytest.mark.parametrize("most", [1, 3, 32])
async def test_requests_under_way_stay_below_the_pool(
    server: FakeVeo3, make_client: MakeClient, most: int
) -> None:
    """However slow the server and however many are due, ``max_connections`` is the most at once."""
    veo = make_client(max_connections=most, max_polls_per_second=1000.0)
    server.fault(Slow(5))
    ids = [server.add(life=UNENDING) for _ in range(100)]
    async with veo.watch(*ids):
        await asyncio.sleep(12)
        assert veo.stats().in_flight == most
        fetched = asyncio.create_task(veo.fetch(ids[0]))
        await asyncio.sleep(12)
    assert (await fetched).status == "video_generating"
    assert (server.max_in_flight, server.connections) == (most, most)


async def test_a_burst_is_let_go_without_holding_up_the_loop(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """Of 500 requests that may all go at once, others get their turn after every 32."""
    veo = make_client(max_connections=500, max_polls_per_second=10_000.0)
    server.fault(Slow(5))
    async with veo.watch(*(server.add(life=UNENDING) for _ in range(500))):
        steps = [0, veo.stats().in_flight]  # an eager watch has begun
        while steps[-1] < 500:
            await asyncio.sleep(0)
            steps.append(veo.stats().in_flight)
    assert max(b - a for a, b in itertools.pairwise(steps)) == 32


@pytest.mark.parametrize("name", [None, "bot.db"])
async def test_thousands_are_added_without_holding_up_the_loop(
    make_client: MakeClient, tmp_path: Path, name: str | None
) -> None:
    """Adding 20,000 ids takes many turns of the loop, with a journal too, and each is added."""
    veo = make_client(max_polls_per_second=0.001, journal=None if name is None else tmp_path / name)
    watch = veo.watch(*(f"veo3-pro:{n}" for n in range(20_000)))
    steps = [0, veo.stats().watched]
    while steps[-1] < 20_000:
        await asyncio.sleep(0)
        steps.append(veo.stats().watched)
    assert max(b - a for a, b in itertools.pairwise(steps)) <= 1000
    await watch.aclose()
    assert veo.stats().watched == 0


async def test_an_id_that_was_written_down_is_the_one_that_was_given(
    server: FakeVeo3, make_client: MakeClient, tmp_path: Path
) -> None:
    """Not a copy of the journal's, which each of many would be kept as a second time."""
    veo = make_client(journal=tmp_path / "bot.db")
    request_id = server.add(life=UNENDING)
    async with veo.watch(request_id) as changes:
        assert (await anext(changes)).request_id is request_id


async def test_workers_that_have_waited_for_a_slow_disk_end(
    server: FakeVeo3, make_client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While writes are waited for others are polled; after that as many are left as can be."""
    may_write, record = asyncio.Event(), Journal.record

    async def slow(journal: Journal, *args: Any, **options: Any) -> None:
        await may_write.wait()
        await record(journal, *args, **options)

    monkeypatch.setattr(Journal, "record", slow)
    veo = make_client(max_connections=4, max_polls_per_second=1000.0, journal=tmp_path / "bot.db")
    async with veo.watch(*(server.add(life=UNENDING) for _ in range(100))) as changes:
        while server.received < 100:
            await asyncio.sleep(0.1)
        assert _workers() > 50
        may_write.set()
        for _ in range(100):
            assert (await anext(changes)).phase is Phase.GENERATING
        await asyncio.sleep(10)
        assert server.received > 300
        assert _workers() <= 8


def _workers() -> int:
    return sum("_work" in repr(task.get_coro()) for task in asyncio.all_tasks())


async def test_what_is_discarded_before_its_batch_is_never_polled(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """Ids that are dropped while they wait to be added stay out."""
    veo = make_client(pacing=FixedPacing(1000.0))
    ids = [server.add(life=UNENDING) for _ in range(2500)]
    watch = veo.watch(*ids)
    watch.discard(*ids[20:])
    await asyncio.sleep(10)
    assert veo.stats().watched == 20
    assert {r.request_id for r in server.requests} == set(ids[:20])
    closed = veo.watch(*ids)
    await closed.aclose()
    await asyncio.sleep(10)
    assert veo.stats().watched == 20
    await watch.aclose()


async def test_a_timeout_of_thousands_ends_each_of_them(make_client: MakeClient) -> None:
    """2,500 unfinished ids get their `StillPending`, in batches, each once."""
    async with FakeVeo3() as server:
        veo = make_client(base_url=server.url, max_polls_per_second=1.0)
        ids = [f"veo3-pro:{n}" for n in range(2500)]
        changes = [c async for c in veo.watch(*ids, timeout=5)]
        assert sorted(c.request_id for c in changes) == sorted(ids)
        assert all(isinstance(c.error, StillPending) and c.final for c in changes)
        assert all(c.error.attempts <= 1 for c in changes if c.error)
        await veo.aclose()


async def test_an_id_that_is_watched_again_while_its_reply_is_on_its_way(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """Closing a watch and opening another one in the middle of a request loses nothing."""
    veo = make_client()
    request_id = server.add(life=Life.scripted([RUNNING, DONE]))
    server.fault(Slow(3), times=1)
    first = veo.watch(request_id)
    await asyncio.sleep(1)
    await first.aclose()
    phases = [c.phase async for c in veo.watch(request_id)]
    assert phases[-1] is Phase.COMPLETED


async def test_who_joins_during_the_last_request_gets_the_end(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """A watcher that comes while the final reply is on its way shares it."""
    veo = make_client()
    request_id = server.add(life=Life.scripted([DONE]))
    server.fault(Slow(5), times=1)
    first = veo.watch(request_id)
    await asyncio.sleep(2)
    second = veo.watch(request_id)
    assert [c.phase async for c in first] == [Phase.COMPLETED]
    assert [c.phase async for c in second] == [Phase.COMPLETED]
    assert server.received == 1


async def test_who_joins_while_an_end_is_written_down_gets_it_too(
    server: FakeVeo3, make_client: MakeClient, tmp_path: object
) -> None:
    """With a journal the end waits for the disk; a watcher that comes then is not forgotten."""
    veo = make_client(journal=f"{tmp_path}/veo3.db")
    for _ in range(5):
        request_id = server.add(life=Life.scripted([DONE]))
        watch = veo.watch(request_id)
        polls = server.received
        while server.received == polls:
            await asyncio.sleep(0.001)
        streams = [asyncio.create_task(read(watch))]
        for _ in range(30):
            streams.append(asyncio.create_task(read(veo.watch(request_id))))
            await asyncio.sleep(0)
        done = await asyncio.wait_for(asyncio.gather(*streams), 60)
        assert done == [[Phase.COMPLETED]] * 31
    await veo.aclose()


async def read(watch: object) -> list[Phase]:
    return [c.phase async for c in watch]  # type: ignore[attr-defined]


# --- bugs ------------------------------------------------------------------------------------


def buggy(function: Callable[..., Any], *, of: str) -> Callable[..., Any]:
    """Return a function that has a bug, which only one id meets."""

    def call(*args: Any, **options: Any) -> Any:
        if options["request_id"] == of:
            raise OverflowError(of)
        return function(*args, **options)

    return call


@pytest.mark.parametrize(("module", "name"), [(families, "read"), (judge, "observe")], ids=str)
async def test_a_bug_that_one_id_meets_ends_that_id_only(
    server: FakeVeo3,
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    module: Any,
    name: str,
) -> None:
    """Each of its watchers has the error; others go on, and in a journal its task is not over."""
    bad, *good = [server.add(life=Life.scripted([RUNNING, DONE])) for _ in range(3)]
    monkeypatch.setattr(module, name, buggy(getattr(module, name), of=bad))
    veo = make_client(journal=tmp_path / "veo3.db")
    watches = [veo.watch(bad, *good) for _ in range(2)]
    for watch in watches:
        ends = {change.request_id: change async for change in watch if change.final}
        error = ends.pop(bad).error
        assert isinstance(error, UnexpectedReply)
        assert ("OverflowError" in str(error), error.attempts) == (True, 1)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        assert {change.phase for change in ends.values()} == {Phase.COMPLETED}
        assert set(ends) == set(good)
    assert {r.levelname for r in caplog.records if r.name == "veo3_async"} == {"ERROR"}
    assert [task.request_id for task in await veo.pending()] == [bad]
    assert (veo.stats().watched, veo.stats().in_flight) == (0, 0)


@pytest.mark.parametrize("part", ["phase_ended", "eta"])
async def test_a_bug_of_what_serves_all_ids_ends_all_watches(
    server: FakeVeo3, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """A pacing that raises cannot be worked around: every stream ends with that."""

    def broken(*_: object) -> float:
        raise LookupError(part)

    monkeypatch.setattr(LearnedPacing, part, broken)
    veo = make_client(pacing=LearnedPacing())
    watches = [veo.watch(server.add()) for _ in range(2)]
    for watch in watches:
        with pytest.raises(LookupError, match=part):
            [change async for change in watch]


async def test_nothing_is_kept_of_ids_that_are_done(make_client: MakeClient) -> None:
    """After hundreds of ids the poller holds none of them."""
    async with FakeVeo3(record=False) as server:
        veo = make_client(base_url=server.url, max_polls_per_second=10_000.0)
        ids = [server.add(life=Life.scripted([DONE])) for _ in range(300)]
        assert len([c async for c in veo.watch(*ids)]) == 300
        gc.collect()
        parts = veo.runtime.started()
        assert repr(parts.subscriptions) == "<Subscriptions: 0 ids of 0 watches>"
        assert "0 entries>, 0 in flight" in repr(parts.dispatcher)
        await veo.aclose()


@pytest.mark.real_time
def test_polling_goes_on_under_uvloop() -> None:
    """A moment that has come already has another kind of handle there, without ``when()``."""
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")

    async def main() -> int:
        async with (
            FakeVeo3(speed=1000) as server,
            Veo3Client(
                server.api_key,
                base_url=server.url,
                pacing=FixedPacing(1e-6),
                max_polls_per_second=1e9,
            ) as veo,
        ):
            now = asyncio.get_running_loop().time()
            for when in (now - 1, now + 1):
                veo.runtime.started().dispatcher._wake_at(when)
            ids = [server.add() for _ in range(50)]
            return sum([change.phase is Phase.COMPLETED async for change in veo.watch(*ids)])

    assert uvloop.run(main()) == 50
