"""Time limits for any number of calls at once, with one timer for all of them.

What ``asyncio.timeout`` and aiohttp do with two or three timers for every request, a sixth of
what a poll costs: here a call that ends in time, as nearly all do, touches no timer.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

__all__ = ["Deadlines"]


class Deadlines:
    """The same limits for every call, each made in a task of its own.

    :param total: Seconds that a call may take in all.
    :param silence: Seconds that may pass without a word from the other side.
    """

    __slots__ = ("_calls", "_timer", "silence", "total")

    def __init__(self, *, total: float, silence: float) -> None:
        self.total: Final = total
        self.silence: Final = silence
        self._calls: set[Limited] = set()
        self._timer: asyncio.TimerHandle | None = None

    def limit(self) -> Limited:
        """Return the context in which to make one call."""
        return Limited(self)

    def begin(self, call: Limited) -> None:
        """Look after a call."""
        self._calls.add(call)
        if self._timer is None:  # else it is set for an earlier call, which is due earlier
            self._wake_at(call.due)

    def end(self, call: Limited) -> None:
        """Look after it no longer."""
        self._calls.discard(call)

    def close(self) -> None:
        """Leave no timer behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake_at(self, when: float) -> None:
        self._timer = asyncio.get_running_loop().call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for call in [call for call in self._calls if call.due <= now]:
            self._calls.discard(call)
            call.expire()
        if self._calls:
            self._wake_at(min(call.due for call in self._calls))


class Limited:
    """One call; leaving it raises `TimeoutError` where its time was up."""

    __slots__ = ("_cancelling", "_deadlines", "_ends", "_expired", "_loop", "_task", "due")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._expired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - calls are made in tasks
        self._task = task
        self._cancelling = task.cancelling()
        self._loop = task.get_loop()
        self._ends = self._loop.time() + self._deadlines.total
        self.heard()
        self._deadlines.begin(self)
        return self

    def heard(self) -> None:
        """Note that the other side has said something."""
        self.due = min(self._ends, self._loop.time() + self._deadlines.silence)

    def expire(self) -> None:
        """End the call: its time is up."""
        self._expired = True
        self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._deadlines.end(self)
        if not self._expired:
            return
        # As `asyncio.timeout` has it: somebody else's cancellation goes before ours.
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
