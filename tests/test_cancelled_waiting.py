"""Waiting for what must come to its end."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from veo3_async._cancellation import ended

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]


async def test_no_number_of_cancellations_ends_the_waiting() -> None:
    """It is over when the task is, and the cancellation comes out then."""
    task = asyncio.create_task(asyncio.sleep(10))
    waiting = asyncio.create_task(ended(task))
    for _ in range(3):
        await asyncio.sleep(1)
        waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert task.done()
    assert not task.cancelled()


async def test_a_cancelled_scope_waits_too() -> None:
    """A scope whose time is up is left when the task has its end, and not asked till then."""
    task = asyncio.create_task(asyncio.sleep(10))
    this, seen = asyncio.current_task(), []
    assert this is not None
    asyncio.get_running_loop().call_later(5, lambda: seen.append(this.cancelling()))
    with anyio.move_on_after(1) as scope:
        await ended(task)
        await anyio.sleep(10)
    assert task.done()
    assert scope.cancelled_caught
    assert seen == [0]


async def test_what_the_task_raises_is_not_raised() -> None:
    """How the task ended is its own matter; also where it had ended before."""

    async def fails() -> None:
        raise ZeroDivisionError

    failed = asyncio.create_task(fails())
    await ended(failed)
    await ended(failed)
    cancelled = asyncio.create_task(asyncio.sleep(10))
    cancelled.cancel()
    await ended(cancelled)
    assert cancelled.cancelled()
