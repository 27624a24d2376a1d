"""Single calls: each in its turn, made again where that does no harm, ended with the client.

What a fault means is for `retries` to say, and when a call has its turn for the dispatcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import anyio

from veo3_async._errors import ClientClosed, SubmitUncertain
from veo3_async._lifecycle.contact import Contact
from veo3_async._lifecycle.judge import UNCHANGED, Answer
from veo3_async._lifecycle.places import polled_at
from veo3_async._lifecycle.retries import NO_FAULTS, Verdict, after_fault, backoff
from veo3_async._models import VideoTask
from veo3_async._polling.dispatcher import Dispatcher
from veo3_async._polling.origins import Origins
from veo3_async._protocol import families
from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.families import Route
from veo3_async._protocol.http import Call, Reply

__all__ = ["Calls"]

_T = TypeVar("_T")

_ASK_TRIES: Final = 4


class Calls:
    """Those of one client that are under way.

    :param dispatcher: Gives them their turns.
    :param origins: Knows where ids are polled.
    :param contact: Learns whether the API has answered.
    :param route: Where ids are polled of which nothing is known.
    """

    def __init__(
        self, dispatcher: Dispatcher[Any], origins: Origins, contact: Contact, route: Route
    ) -> None:
        self._dispatcher = dispatcher
        self._origins = origins
        self._contact = contact
        self._route: Final = route
        self._scopes: Final[set[anyio.CancelScope]] = set()
        self._closed = False

    async def poll(
        self, request_id: str, route: Route | None, is_known: Callable[[Reply], bool]
    ) -> tuple[Answer, Reply | None]:
        """Ask once for the state of a task; with the reply where one came.

        :param is_known: Whether a reply need not be read: it is UNCHANGED.
        """
        route = self._route_of(request_id, route)
        replies: list[Reply] = []

        def read(reply: Reply, *, wall_now: float) -> Answer:
            replies.append(reply)
            if is_known(reply):
                return UNCHANGED
            return families.read(route, reply, request_id=request_id, wall_now=wall_now)

        outcome: Answer = await self.once(families.poll_call(route, request_id), read)
        return outcome, replies[0] if replies else None

    async def fetch(self, request_id: str, route: Route | None = None) -> VideoTask:
        """Ask for the state of a task, up to 4 times.

        :raises Veo3Error: No state came, or the client was closed.
        """
        route = self._route_of(request_id, route)
        call = families.poll_call(route, request_id)
        read = functools.partial(families.read, route, request_id=request_id)
        return await self.ask(call, read, request_id=request_id)

    async def ask(
        self, call: Call, read: Callable[..., _T | Problem], *, request_id: str | None = None
    ) -> _T:
        """Make a call that does no harm, up to 4 times.

        :param read: Makes of a reply what is wanted, or a problem.
        :raises Veo3Error: It did not come, or the client was closed.
        """
        outcome, attempts, elapsed = await self.repeated(
            call, read, may_repeat=_may_ask_again, tries=_ASK_TRIES
        )
        if isinstance(outcome, Problem):
            raise outcome.error(request_id, attempts=attempts, elapsed=elapsed)
        return outcome

    def close(self) -> None:
        """Cut short what is under way, and take nothing more on."""
        self._closed = True
        for scope in tuple(self._scopes):
            scope.cancel()

    async def repeated(
        self,
        call: Call,
        read: Callable[..., _T | Problem],
        *,
        may_repeat: Callable[[Problem], bool],
        tries: int,
    ) -> tuple[_T | Problem, int, float]:
        """Make a call until it brings something or is not to be repeated.

        Returns what the last one brought, how many there were, and the seconds they took.
        """
        streak = NO_FAULTS
        began = time.monotonic()
        while True:
            outcome = await self.once(call, read)
            now = time.monotonic()
            if not isinstance(outcome, Problem):
                return outcome, streak.faults + 1, now - began
            streak, _ = after_fault(streak, outcome.kind, now)
            if streak.faults >= tries or not may_repeat(outcome):
                return outcome, streak.faults, now - began
            wait = backoff(
                streak, outcome.kind, now, random.random(), retry_after=outcome.retry_after
            )
            with anyio.CancelScope() as scope, self._cancelled_by_close(scope):
                await anyio.sleep(wait)

    async def once(self, call: Call, read: Callable[..., _T | Problem]) -> _T | Problem:
        """Make a call in its turn, and return what ``read`` says of the reply."""
        if self._closed:
            message = "this client was closed; make another one"
            raise ClientClosed(message)
        is_sent = False
        with anyio.CancelScope() as scope, self._cancelled_by_close(scope):
            with await self._dispatcher.turn() as turn:
                is_sent = True
                answer = await turn.send(call)
                outcome = (
                    read(answer, wall_now=time.time()) if isinstance(answer, Reply) else answer
                )
                outcome = turn.settle(outcome, asyncio.get_running_loop().time())
            if not isinstance(outcome, Problem) or outcome.from_api:
                self._contact.had_reply = True
            self._dispatcher.pump()
            return outcome
        if is_sent and call.method == "POST":
            message = (
                "the client was closed while a submission was under way: the task may exist and "
                "may have been charged"
            )
            raise SubmitUncertain(message)
        message = "the client was closed before the request was answered"
        raise ClientClosed(message)

    def _route_of(self, request_id: str, route: Route | None) -> Route:
        if route is not None:
            return route
        return polled_at(request_id, self._origins.of(request_id, self._route), self._route)

    @contextlib.contextmanager
    def _cancelled_by_close(self, scope: anyio.CancelScope) -> Iterator[None]:
        self._scopes.add(scope)
        try:
            yield
        finally:
            self._scopes.discard(scope)


def _may_ask_again(problem: Problem) -> bool:
    _, verdict = after_fault(NO_FAULTS, problem.kind, 0.0)
    return verdict is Verdict.RETRY and problem.kind is not Kind.NOT_FOUND
