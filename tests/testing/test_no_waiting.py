"""Time that passes at once: the same events in the same order, and no waiting for them."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest
import uvloop
from conftest import LOOP
from virtual_time import VirtualTimeLoop

from veo3_async import BackoffPacing, FixedPacing, Phase, Veo3Client
from veo3_async.testing import FakeVeo3, HangUp, Life, Status, no_waiting

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.usefixtures("no_task_left"),
    pytest.mark.skipif(LOOP == "uvloop", reason="the clock of a loop that is not asyncio's own"),
]


async def outage(server: FakeVeo3) -> list[tuple[Phase, str]]:
    request_id = server.add(life=Life.retrying())
    server.fault(Status(503), times=3)
    server.fault(HangUp(), times=2)
    pacing = FixedPacing(10.0, jitter=0.0)
    async with Veo3Client(server.api_key, base_url=server.url, pacing=pacing) as veo:
        return [(change.phase, change.status) async for change in veo.watch(request_id)]


async def test_an_outage_takes_no_time(server: FakeVeo3) -> None:
    """Minutes of a task at its own speed, with back-off: all of it happens on the loop's clock."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualTimeLoop):
        pytest.skip("time is virtual in any case")
    before, began = loop.time(), time.monotonic()
    with no_waiting():
        changes = await outage(server)
    assert changes[-1][0] is Phase.COMPLETED
    assert loop.time() - before > 200
    assert time.monotonic() - began < (loop.time() - before) / 10


async def test_timers_fire_in_their_order() -> None:
    """Whatever is due first comes first, also what was set within another."""
    order = list[str]()

    async def after(seconds: float, name: str) -> None:
        await asyncio.sleep(seconds)
        order.append(name)

    async with no_waiting(), asyncio.TaskGroup() as tasks:
        tasks.create_task(after(100.0, "third"))
        tasks.create_task(after(1.0, "first"))
        await asyncio.sleep(50.0)
        order.append("second")
        tasks.create_task(after(60.0, "fourth"))
    assert order == ["first", "second", "third", "fourth"]


async def test_threads_are_waited_for(server: FakeVeo3, tmp_path: Path) -> None:
    """A journal and a download end as they would, and so does a thread of one's own."""
    with no_waiting():
        await asyncio.wait_for(asyncio.to_thread(time.sleep, 0.05), 5.0)
        request_id = server.add(life=Life.documented())
        async with Veo3Client(
            server.api_key, base_url=server.url, journal=tmp_path / "veo3.db"
        ) as veo:
            task = await veo.wait(request_id)
            assert await veo.pending() == []
            path = await veo.download(task, tmp_path)
    assert path.read_bytes() == server.video_of(str(task.best_url))


async def test_there_is_no_jitter() -> None:
    """What is drawn between two bounds is their mean; afterwards chance is what it was."""
    before = random.random
    with no_waiting():
        assert {random.random() for _ in range(9)} == {0.5}
        with no_waiting():
            pass
        assert random.random() == 0.5
    assert random.random is before


async def test_time_goes_on_as_it_is_afterwards() -> None:
    """What has passed has passed, and a timeout of the context does not come later."""
    loop = asyncio.get_running_loop()
    with no_waiting():
        handle = loop.create_future()
        timer = loop.call_later(1000.0, handle.set_result, None)
        await asyncio.sleep(999.999)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(loop.create_future(), 0.01)
    await handle
    timer.cancel()


async def test_a_timeout_is_over_at_once() -> None:
    """A wait that nothing ends is ended by its timeout, without the waiting."""
    with no_waiting(), pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.get_running_loop().create_future(), 3600.0)


def test_another_loop_is_refused() -> None:
    """Uvloop's clock cannot be set; where no loop runs there is none."""

    async def enter() -> None:
        with no_waiting():
            pass

    with (
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        pytest.raises(RuntimeError, match="asyncio's own"),
    ):
        runner.run(enter())
    with pytest.raises(RuntimeError, match="no running event loop"):
        no_waiting().__enter__()


async def test_the_back_off_of_a_pacing_takes_no_time(server: FakeVeo3) -> None:
    """`BackoffPacing` asks as seldom as ever."""
    request_id = server.add(life=Life.documented())
    pacing = BackoffPacing(1.0, 30.0, jitter=0.0)
    with no_waiting():
        async with Veo3Client(server.api_key, base_url=server.url, pacing=pacing) as veo:
            await veo.wait(request_id)
    assert 10 < len(server.polls_of(request_id)) < 40
