"""Time that passes at once: what a test waits for happens now, in the order in which it would.

The clock of the running event loop jumps to its next timer as soon as nothing else is to be done,
so back-off, intervals and the lives of the fake's tasks cost no real time, and none of them is
shortened: whatever is due first comes first.
"""

from __future__ import annotations

import asyncio
import functools
import random
import selectors
import weakref
from typing import Any, Final, Self

import anyio.to_thread

__all__ = ["no_waiting"]

_LONG: Final = 1.0
_SETTLE: Final = 0.001
"""Seconds. Before a jump that is longer than that, what was sent gets a moment to arrive."""
_NO_JITTER: Final = 0.5
"""Where a wait is drawn between two bounds, it is their mean."""


class no_waiting:  # noqa: N801 - a verb, as contextlib's
    """A context in which nothing waits: no back-off, no jitter, no interval takes real time.

    ::

        @pytest.mark.anyio
        async def test_my_bot_survives_an_outage(veo3_server: FakeVeo3) -> None:
            veo3_server.fault(Status(503), times=3)
            with no_waiting():
                ...

    Entered with ``with`` or ``async with`` on a running event loop, which is asyncio's own (no
    uvloop). Threads (a journal, a download) are waited for; another process or another loop is
    not, so a timeout for one may be over at once. ``random.random()`` is 0.5 meanwhile.

    :raises RuntimeError: On entering: no event loop is running, or it is another one.
    """

    def __init__(self) -> None:
        self._clock: _Clock | None = None

    def __enter__(self) -> Self:
        self._clock = _Clock.of(asyncio.get_running_loop())
        self._clock.enter()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._clock is not None:
            self._clock.leave()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *exc: object) -> None:
        self.__exit__(*exc)


class _Clock:
    """The clock of one loop. What it has jumped stays, for timers were set by it."""

    _known: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Clock]] = (
        weakref.WeakKeyDictionary()
    )

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> _Clock:
        """Return the clock of a loop, put into it the first time.

        :raises RuntimeError: The loop has none that can be set.
        """
        if (known := cls._known.get(loop)) is not None:
            return known
        selector = getattr(loop, "_selector", None)
        if not isinstance(selector, selectors.BaseSelector):
            message = f"no_waiting() needs asyncio's own event loop, not {loop!r}"
            raise RuntimeError(message)  # noqa: TRY004 - of the moment, not of an argument
        clock = cls._known[loop] = cls(loop, selector)
        return clock

    def __init__(self, loop: Any, selector: Any) -> None:  # noqa: ANN401 - methods are replaced
        self._time = loop.time
        self._select = selector.select
        self._ahead = 0.0
        self._contexts = 0
        self._jobs = 0
        self._restore: list[tuple[Any, str, Any]] = []
        loop.time = self.time
        selector.select = self.select
        run_in_executor = loop.run_in_executor

        @functools.wraps(run_in_executor)
        def counted(*args: Any) -> Any:  # noqa: ANN401 - as there
            future = run_in_executor(*args)
            self._jobs += 1
            future.add_done_callback(self._job_done)
            return future

        loop.run_in_executor = counted

    def time(self) -> float:
        """Return seconds of the loop's clock."""
        now: float = self._time()
        return now + self._ahead

    def select(self, timeout: float | None = None) -> Any:  # noqa: ANN401 - the selector's
        """Return what is ready; where nothing is, let the time until the next timer pass."""
        ready = self._select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None or not self._contexts or self._jobs:
            return self._select(timeout)
        if timeout > _LONG and (ready := self._select(_SETTLE)):
            return ready
        self._ahead += timeout
        return []

    def enter(self) -> None:
        """Begin to jump."""
        self._contexts += 1
        if self._contexts == 1:
            self._replace(random, "random", lambda: _NO_JITTER)
            self._replace(anyio.to_thread, "run_sync", self._counting(anyio.to_thread.run_sync))

    def leave(self) -> None:
        """Go on at the pace of the machine."""
        self._contexts -= 1
        while not self._contexts and self._restore:
            where, name, before = self._restore.pop()
            setattr(where, name, before)

    def _replace(self, where: Any, name: str, value: object) -> None:  # noqa: ANN401 - a module
        self._restore.append((where, name, getattr(where, name)))
        setattr(where, name, value)

    def _counting(self, run_sync: Any) -> Any:  # noqa: ANN401 - anyio's
        @functools.wraps(run_sync)
        async def counted(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - as there
            self._jobs += 1
            try:
                return await run_sync(*args, **options)
            finally:
                self._jobs -= 1

        return counted

    def _job_done(self, _: object) -> None:
        self._jobs -= 1
