"""An event loop whose clock jumps to the next timer as soon as nothing else is to be done.

Sockets are real, so a server in the same loop is tested as it is, and an hour of polling takes
as long as its work. The clock stands still while a thread has a job: what it does takes real
time, of which the timers of the loop must see nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import selectors
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import anyio.to_thread

__all__ = ["VirtualTimeLoop", "WallClock", "threads_stop_the_clock"]

_LONG: Final = 1.0
_SETTLE: Final = 0.001
_PATIENCE: Final = 5.0


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop for ``asyncio.Runner(loop_factory=VirtualTimeLoop)``; its time begins at 1,000 s."""

    def __init__(self) -> None:
        self._virtual_now = 1000.0
        self._thread_jobs = 0
        super().__init__(_JumpingSelector(self))
        # A timer fires from this long before its moment on. The machine's own, 1 ns, is less than
        # what a float of many days can tell apart, and a jump would never be quite far enough.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Return seconds of the virtual clock."""
        return self._virtual_now

    def jump(self, seconds: float) -> None:
        """Let time pass at once, as for a machine that slept or a loop that was blocked."""
        self._virtual_now += seconds

    @property
    def stands_still(self) -> bool:
        """Whether a thread has a job."""
        return self._thread_jobs > 0

    @contextlib.contextmanager
    def thread_job(self) -> Iterator[None]:
        """Let the clock stand still for a while."""
        self._thread_jobs += 1
        try:
            yield
        finally:
            self._thread_jobs -= 1

    def run_in_executor(  # type: ignore[override]  # types of the arguments do not matter here
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """Run a function in a thread, as ``getaddrinfo`` does; the clock waits for it."""
        future = super().run_in_executor(executor, func, *args)
        job = contextlib.ExitStack()
        job.enter_context(self.thread_job())
        future.add_done_callback(lambda _: job.close())
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        """Join the threads; since Python 3.12 within 300 s, of which none is to pass."""
        with self.thread_job():
            await super().shutdown_default_executor(*args)


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self._loop.stands_still:
            return super().select(None)
        if timeout is None:
            return self._wait_for_others()
        # What was sent may still be on its way through the kernel. A jump that comes too early
        # makes the other side look slow, so before a long one it gets a moment of real time.
        if timeout > _LONG and (ready := super().select(_SETTLE)):
            return ready
        self._loop.jump(timeout)
        return []

    def _wait_for_others(self) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(_PATIENCE)
        if not ready:
            message = "no timer is set, no socket speaks and no thread works: this waits for ever"
            raise RuntimeError(message)
        return ready


@contextlib.contextmanager
def threads_stop_the_clock() -> Iterator[None]:
    """Make ``anyio.to_thread.run_sync`` stop the clock of a `VirtualTimeLoop`."""
    run_sync = anyio.to_thread.run_sync

    @functools.wraps(run_sync)
    async def counted(*args: Any, **options: Any) -> Any:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualTimeLoop):
            return await run_sync(*args, **options)
        with loop.thread_job():
            return await run_sync(*args, **options)

    anyio.to_thread.run_sync = counted  # type: ignore[assignment]
    try:
        yield
    finally:
        anyio.to_thread.run_sync = run_sync


class WallClock:
    """``time.time`` of a test: it runs with the loop's clock, and can be set."""

    def __init__(self) -> None:
        self._offset = time.time() - asyncio.get_running_loop().time()

    def time(self) -> float:
        """Return seconds since the epoch."""
        return asyncio.get_running_loop().time() + self._offset

    def shift(self, seconds: float) -> None:
        """Set the clock forward, or back for a negative number."""
        self._offset += seconds
