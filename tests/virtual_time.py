"""Event loops whose clock jumps to the next timer as soon as nothing else is to be done.

Sockets are real, so a server in the same loop is tested as it is, and an hour of polling takes
as long as its work. The clock stands still while a thread has a job: what it does takes real
time, of which the timers of the loop must see nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import heapq
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import anyio.to_thread
import uvloop

__all__ = [
    "VirtualTimeLoop",
    "VirtualTimeSelectorLoop",
    "VirtualTimeUvloop",
    "WallClock",
    "threads_stop_the_clock",
]

# What was sent may still be on its way through the kernel. A jump that comes too early makes the
# other side look slow, so before a long one it gets a moment of real time.
_LONG: Final = 1.0
_SETTLE: Final = 0.001
_PATIENCE: Final = 5.0
# A timer fires from this long before its moment on. The machine's own, 1 ns, is less than what a
# float of many days can tell apart, and a jump would never be quite far enough.
_RESOLUTION: Final = 1e-6


class VirtualTimeLoop(asyncio.AbstractEventLoop):
    """The clock that the loops below have in common; it begins at 1,000 s."""

    def __init__(self, *args: Any) -> None:
        self._virtual_now = 1000.0
        self._thread_jobs = 0
        super().__init__(*args)

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

    def run_in_executor(  # type: ignore[override]  # the types of arguments do not matter here
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


class VirtualTimeSelectorLoop(VirtualTimeLoop, asyncio.SelectorEventLoop):  # type: ignore[misc]
    """asyncio's own loop in virtual time: a loop factory for ``asyncio.Runner``."""

    def __init__(self) -> None:
        super().__init__(_JumpingSelector(self))
        self._clock_resolution = _RESOLUTION


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


_Uvloop: Any = uvloop.Loop  # its types and those of asyncio's base class contradict each other


class VirtualTimeUvloop(VirtualTimeLoop, _Uvloop):  # type: ignore[misc]
    """uvloop in virtual time: its timers are kept here, for nothing of libuv's can be replaced.

    While a timer is set, a look is taken in each turn of the loop. When some turns have brought
    no callback at all, nothing is on its way, and the clock jumps.
    """

    _QUIET_TURNS: Final = 5

    def __init__(self) -> None:
        self._timers: list[asyncio.TimerHandle] = []
        self._quiet_turns = 0
        self._looks = False
        super().__init__()

    def call_soon(  # type: ignore[override]  # the types of arguments do not matter here
        self,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        self._quiet_turns = 0
        return super().call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]  # the types of arguments do not matter here
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]  # the types of arguments do not matter here
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, timer)
        self._look_soon()
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Leave it where it is until its moment comes."""

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        """Look names up as asyncio's own loops do, where a test can replace what is asked."""
        look_up = functools.partial(socket.getaddrinfo, *args, **options)
        return await self.run_in_executor(None, look_up)

    @contextlib.contextmanager
    def thread_job(self) -> Iterator[None]:
        try:
            with super().thread_job():
                yield
        finally:
            self._look_soon()

    def _look_soon(self) -> None:
        if not self._looks:
            self._looks = True
            super().call_soon(self._look)

    def _look(self) -> None:
        self._looks = False
        self._quiet_turns += 1
        while self._timers and self._timers[0].cancelled():
            heapq.heappop(self._timers)
        if not self._timers or self.stands_still:
            return
        until = self._timers[0].when() - self.time()
        if until > _LONG and self._quiet_turns == self._QUIET_TURNS:
            self._looks = True
            super().call_later(_SETTLE, self._look)
            return
        if until > 0 and self._quiet_turns > self._QUIET_TURNS:
            self.jump(until)
        self._fire()
        self._look_soon()

    def _fire(self) -> None:
        due = self.time() + _RESOLUTION
        while self._timers and self._timers[0].when() <= due:
            timer = heapq.heappop(self._timers)
            if not timer.cancelled():
                self._quiet_turns = 0
                timer._run()


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
