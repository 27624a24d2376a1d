"""What the tests of faults that come over the wire have in common."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
from collections.abc import AsyncIterator, Iterator

from virtual_time import VirtualTimeLoop

from veo3_async import (
    PollReport,
    Transition,
    Watch,
)
from veo3_async.testing import (
    Life,
)

URL = "https://file.302.ai/a.mp4"
RUNNING = {"status": "video_generating", "running": True}
DONE = {"status": "completed", "running": False, "video_url": URL}
UNENDING = Life.scripted([RUNNING])
QUICK = Life.scripted([RUNNING, DONE])


def now() -> float:
    return asyncio.get_running_loop().time()


def jumping_loop() -> VirtualTimeLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop


async def collected(watch: Watch) -> list[Transition]:
    return [change async for change in watch]


async def every(seconds: float, times: int) -> AsyncIterator[int]:
    for turn in range(times):
        await asyncio.sleep(seconds)
        yield turn


def most_in_a_second(moments: list[float]) -> int:
    """Return the most moments that lie in any window of one second."""
    return max(
        bisect.bisect_left(moments, moment + 1.0) - place for place, moment in enumerate(moments)
    )


@contextlib.contextmanager
def without_debug() -> Iterator[None]:
    """Leave out asyncio's debug mode, which makes thousands of polls five times slower."""
    loop = asyncio.get_running_loop()
    debug = loop.get_debug()
    loop.set_debug(enabled=False)
    yield
    loop.set_debug(debug)


def kinds(reports: list[PollReport]) -> set[str]:
    return {type(report.error).__name__ for report in reports if report.error is not None}
