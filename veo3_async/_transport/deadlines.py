"""Time limits for any number of calls at once, with one timer for all of them.

What ``asyncio.timeout`` and aiohttp do with two or three timers for every request, a sixth of
what a poll costs: here a call that ends in time, as nearly all do, touches no timer.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

__all__ = ["Deadlines", "Limited"]


class Deadlines:
    """The same limits for every call, each made in a task of its own.

    :param total: Seconds that a call may take in all.
    :param silence: Seconds that may pass without a word from the other side.
    """

    __slots__ = ("_timer", "calls", "silence", "total")

    def __init__(self, *, total: float, silence: float) -> None:
        self.total: Final = total
        self.silence: Final = silence
        self.calls: Final[set[Limited]] = set()
        """Those under way."""
        self._timer: asyncio.TimerHandle | None = None

    def limit(self) -> Limited:
        """Return the context in which to make one call."""
        return Limited(self)

    def watch(self, call: Limited) -> None:
        """See to it that the next one that is due is ended."""
        if self._timer is None:  # else it is set for an earlier call, which is due earlier
            self._timer = asyncio.get_running_loop().call_at(call.due, self._look)

    def close(self) -> None:
        """Leave no timer behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for call in [call for call in self.calls if call.due <= now]:
            self.calls.discard(call)
            call.expire()
        if self.calls:
            self.watch(min(self.calls, key=lambda call: call.due))


class Limited:
    """One call; leaving it raises `TimeoutError` where its time was up."""

    __slots__ = ("_began", "_cancelling", "_deadlines", "_expired", "_heard", "_task", "_time")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._expired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - calls are made in tasks
        self._task = task
        self._cancelling = task.cancelling()
        self._time = task.get_loop().time
        self._began = self._heard = self._time()
        self._deadlines.calls.add(self)
        self._deadlines.watch(self)
        return self

    @property
    def due(self) -> float:
        """When its time is up, as things stand."""
        return min(self._began + self._deadlines.total, self._heard + self._deadlines.silence)

    def heard(self) -> None:
        """Note that the other side has said something."""
        self._heard = self._time()

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
        self._deadlines.calls.discard(self)
        if not self._expired:
            return
        # As `asyncio.timeout` has it: somebody else's cancellation goes before ours.
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
