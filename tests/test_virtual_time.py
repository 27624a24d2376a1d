"""The ground that the other tests stand on: the virtual clock, and the watch for blocking calls."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Awaitable, Callable

import anyio.to_thread
import pytest
from conftest import MakeClient
from virtual_time import VirtualTimeLoop, WallClock

from veo3_async import FixedPacing, Progress, Veo3Client
from veo3_async.testing import FakeVeo3

pytestmark = pytest.mark.anyio


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_year_passes_at_once() -> None:
    """A sleep takes exactly its time of the loop's clock, and next to none of ours."""
    began = now()
    await asyncio.sleep(365 * 86400)
    assert now() - began == pytest.approx(365 * 86400)


async def test_timers_fire_in_the_order_of_their_moments() -> None:
    """Jumping from timer to timer misses none and swaps none."""
    fired: list[int] = []
    for delay in (30, 10, 20):
        asyncio.get_running_loop().call_later(delay, fired.append, delay)
    await asyncio.sleep(40)
    assert fired == [10, 20, 30]


async def of_anyio(work: Callable[..., bool], *args: object) -> bool:
    return await anyio.to_thread.run_sync(work, *args)


@pytest.mark.parametrize("enter", [of_anyio, asyncio.to_thread])
async def test_the_clock_stands_still_while_a_thread_has_a_job(
    enter: Callable[..., Awaitable[bool]],
) -> None:
    """A timer of an hour does not fire while a thread works for a moment."""
    done = threading.Event()
    timer = asyncio.get_running_loop().call_later(3600, done.set)
    began = now()
    assert not await enter(done.wait, 0.02)
    assert now() == began
    timer.cancel()


async def test_the_clock_stands_still_while_a_name_is_looked_up() -> None:
    """``getaddrinfo`` runs in a thread of the loop's, and takes none of its time."""
    began = now()
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    assert now() == began


async def test_the_clock_stands_still_while_the_threads_of_the_loop_end() -> None:
    """A loop that ends joins its threads, with a timeout that must not be over at once."""
    loop = asyncio.get_running_loop()
    executor = concurrent.futures.ThreadPoolExecutor()
    loop.set_default_executor(executor)
    executor.submit(time.sleep, 0.05)
    timer = loop.call_later(200, lambda: None)
    began = now()
    await loop.shutdown_default_executor()
    assert now() == began
    timer.cancel()


async def test_the_wall_clock_runs_with_the_loops(wall_clock: WallClock) -> None:
    """``time.time`` passes as the virtual time does, and can be set back."""
    began = time.time()
    await asyncio.sleep(100)
    assert time.time() - began == pytest.approx(100)
    wall_clock.shift(-3600)
    assert time.time() - began == pytest.approx(-3500)


@pytest.mark.real_time
async def test_a_marker_brings_the_machines_own_clock() -> None:
    """A test marked ``real_time`` runs on an ordinary loop."""
    assert not isinstance(asyncio.get_running_loop(), VirtualTimeLoop)


async def test_a_blocking_call_is_noted_even_where_it_is_swallowed(
    server: FakeVeo3, make_client: MakeClient, blocking_calls: list[str]
) -> None:
    """What the library calls on the loop must not block, or the test fails."""

    class Sleepy(FixedPacing):
        def delay(self, progress: Progress, rand: float) -> float:
            time.sleep(0.001)
            return super().delay(progress, rand)

    client: Veo3Client = make_client(pacing=Sleepy())
    with pytest.raises(Exception, match=r"Blocking call to time\.sleep"):
        await client.wait(server.add())
    assert blocking_calls == ["time.sleep"]
    blocking_calls.clear()
