"""What waits to be read: the unread transitions of one watch, bounded."""

from __future__ import annotations

import asyncio
import collections
import copy
import itertools
from collections.abc import Iterable
from typing import Final

import msgspec

from veo3_async._errors import ClientClosed, Veo3Error
from veo3_async._lifecycle.phases import NEW, State, Until, end
from veo3_async._models import Transition
from veo3_async._protocol.families import Route

__all__ = ["Mailbox"]

_UNREAD_PER_ID: Final = 16


class Mailbox:
    """Unread transitions, by id, and what is remembered of the ids that are not final yet."""

    __slots__ = (
        "__weakref__",
        "_cut_short",
        "_failure",
        "_keep_open",
        "_loop",
        "_over",
        "_unread",
        "_wake",
        "deadline",
        "route",
        "states",
        "until",
    )

    def __init__(self, until: Until, route: Route, *, keep_open: bool) -> None:
        self.until: Final = until
        self.route: Final = route
        """Where ids are polled of which nothing is known."""
        self.states: Final[dict[str, State]] = {}
        self._keep_open = keep_open
        self._unread: collections.OrderedDict[str, list[Transition]] = collections.OrderedDict()
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._failure: BaseException | None = None
        self._cut_short = False
        self._over = False
        self.deadline: asyncio.TimerHandle | None = None
        """What ends the watch by its timeout, if it has one."""

    def open_for(self, request_ids: Iterable[str]) -> list[str]:
        """Begin with these ids, and return those that are new, as often as they were given.

        :raises ClientClosed: The stream has ended.
        """
        if self._failure is not None:
            raise _own(self._failure)
        if self._over:
            message = "this watch has ended; make another one"
            raise ClientClosed(message)
        new = [request_id for request_id in request_ids if request_id not in self.states]
        self.states.update(zip(new, itertools.repeat(NEW)))
        return new

    def end(self, request_id: str, error: Veo3Error, *, wall_now: float) -> Transition:
        """Return the final transition of an id that ends with an error, to be posted."""
        return end(self.states[request_id], error, request_id=request_id, wall_now=wall_now)

    def remember(self, request_id: str, state: State) -> None:
        """Keep what is to be remembered of an id, unless it was dropped."""
        if request_id in self.states:
            self.states[request_id] = state

    def post(self, transition: Transition) -> bool:
        """Put in a transition, unless its id was dropped; with its final one an id is done."""
        request_id = transition.request_id
        if request_id not in self.states:
            return False
        if transition.final:
            del self.states[request_id]
        unread = self._unread.setdefault(request_id, [])
        unread.append(transition)
        if len(unread) > _UNREAD_PER_ID:
            unread[:] = _without_detours(unread)
        self._wake.set()
        return True

    def drop(self, request_id: str) -> None:
        """Forget an id, its unread transitions included."""
        self.states.pop(request_id, None)
        self._unread.pop(request_id, None)
        self._wake.set()

    def fail(self, failure: BaseException) -> None:
        """End the stream, after what is unread, with an error, unless it was complete.

        The first error is the reason; what comes after it is its consequence.
        """
        if self._failure is None:
            self._failure = failure
            self._cut_short = bool(self.states) or self._keep_open
        self.states.clear()
        self._stop_clock()
        self._wake.set()

    def finish(self) -> None:
        """End the stream when all is read that is there, even if it was to be kept open."""
        self._keep_open = False
        self._over = True
        self.states.clear()
        self._stop_clock()
        self._wake.set()

    def close(self) -> None:
        """End the stream at once."""
        self._unread.clear()
        self._cut_short = False
        self.finish()

    async def take(self) -> Transition:
        """Return the next transition.

        :raises StopAsyncIteration: Every id is final and all was read.
        :raises ClientClosed: It is called in another event loop, whose wait would never end.
        """
        if self._loop is not asyncio.get_running_loop():
            message = "this watch belongs to another event loop; make one in each"
            raise ClientClosed(message)
        while not self._unread:
            if self._failure is not None and self._cut_short:
                raise _own(self._failure)
            if not self.states and not self._keep_open:
                self.finish()
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        request_id, unread = self._unread.popitem(last=False)
        transition = unread.pop(0)
        if unread:
            self._unread[request_id] = unread
        return transition

    def _stop_clock(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    @property
    def unread(self) -> int:
        """Transitions that wait to be read."""
        return sum(map(len, self._unread.values()))


def _own(failure: BaseException) -> BaseException:
    # One error goes to many watchers; each raises its own, with its own traceback.
    return copy.copy(failure) if isinstance(failure, Veo3Error) else failure


def _without_detours(unread: list[Transition]) -> list[Transition]:
    """Return the changes of one id with every way out and back left out.

    What is left has each phase once at most, so that a consumer that never reads costs a bounded
    amount of memory however often the service retries.
    """
    kept: list[Transition] = []
    for transition in unread:
        place = next(
            (n for n, earlier in enumerate(kept) if earlier.phase is transition.phase), None
        )
        if place is None:
            kept.append(transition)
        else:
            kept[place:] = [msgspec.structs.replace(transition, previous=kept[place].previous)]
    return kept
