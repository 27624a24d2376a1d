"""Time limits of calls, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from veo3_async._transport.deadlines import Deadlines

pytestmark = pytest.mark.anyio


def now() -> float:
    return asyncio.get_running_loop().time()


async def call(deadlines: Deadlines, *waits: float) -> float:
    """Hear something after each of these waits, and return how long it took in all."""
    began = now()
    with deadlines.limit() as limited:
        for wait in waits:
            await asyncio.sleep(wait)
            limited.heard()
    return now() - began


async def test_a_call_in_time_is_left_alone() -> None:
    """What ends before its time ends as it would without a limit."""
    assert await call(Deadlines(total=30, silence=20), 19, 10) == pytest.approx(29)


async def test_fault_3_silence_ends_a_call() -> None:
    """A call that hears nothing for too long ends then, whatever is left of its total."""
    began = now()
    with pytest.raises(TimeoutError):
        await call(Deadlines(total=30, silence=20), 5, 25)
    assert now() - began == pytest.approx(25)


async def test_fault_4_a_drip_ends_with_the_total() -> None:
    """A call that hears something all the time ends when its total is over."""
    began = now()
    with pytest.raises(TimeoutError):
        await call(Deadlines(total=30, silence=20), *[1] * 60)
    assert now() - began == pytest.approx(30)


async def test_each_call_has_its_own_time() -> None:
    """Calls that began at other moments end at other moments, though one timer serves all."""
    deadlines = Deadlines(total=30, silence=20)
    ended: list[float] = []

    async def silent(begin: float) -> None:
        await asyncio.sleep(begin)
        with pytest.raises(TimeoutError):
            await call(deadlines, 1000)
        ended.append(now())

    start = now()
    await asyncio.gather(silent(0), silent(3), silent(3), silent(12))
    assert ended == pytest.approx([start + 20, start + 23, start + 23, start + 32])


async def test_a_task_goes_on_after_its_time_was_up() -> None:
    """The cancellation that ends a call is taken back: the next call of the task is a call."""
    deadlines = Deadlines(total=30, silence=20)
    with pytest.raises(TimeoutError):
        await call(deadlines, 1000)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert await call(deadlines, 1) == pytest.approx(1)


async def test_fault_23_a_cancellation_is_no_timeout() -> None:
    """Who cancels a call at the very moment when its time is up gets a cancellation."""
    task = asyncio.create_task(call(Deadlines(total=30, silence=20), 1000))
    asyncio.get_running_loop().call_later(20, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
