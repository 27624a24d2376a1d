"""Single calls: each in its turn, made again where that does no harm, ended with the client.

What a fault means is for `retries` to say, what a submission means that brought no id for
`submission`, and when a call has its turn for the dispatcher.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from veo3_async._errors import ClientClosed, JournalError, SubmitUncertain, Veo3Error
from veo3_async._lifecycle.retries import NO_FAULTS, Verdict, after_fault, backoff
from veo3_async._models import VideoTask
from veo3_async._polling.dispatcher import Dispatcher
from veo3_async._protocol import families
from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.http import Call, Reply
from veo3_async._protocol.submission import (
    SubmitVerdict,
    submit_error,
    submit_verdict,
)

if TYPE_CHECKING:
    from veo3_async._journal.journal import Journal

__all__ = ["Calls"]

_T = TypeVar("_T")

_log = logging.getLogger("veo3_async")

_FETCH_TRIES: Final = 4
_SUBMIT_TRIES: Final = 5


class Calls:
    """Those of one client that are under way.

    :param dispatcher: Gives them their turns.
    :param model: Whose path is asked for ids that do not name a known one.
    :param journal: What submissions are written to before they are sent, or None.
    """

    def __init__(self, dispatcher: Dispatcher[Any], model: str, journal: Journal | None) -> None:
        self._dispatcher = dispatcher
        self._route: Final = families.route_of(model)
        self._journal = journal
        self._scopes: Final[set[anyio.CancelScope]] = set()
        self._closed = False

    async def poll(self, request_id: str) -> tuple[VideoTask | Problem, Reply | None]:
        """Ask once for the state of a task; with the reply where one came."""
        route = families.route_for_id(request_id, self._route)
        replies: list[Reply] = []

        def read(reply: Reply, *, wall_now: float) -> VideoTask | Problem:
            replies.append(reply)
            return families.read(route, reply, request_id=request_id, wall_now=wall_now)

        outcome = await self._ask(families.poll_call(route, request_id), read)
        return outcome, replies[0] if replies else None

    async def fetch(self, request_id: str) -> VideoTask:
        """Ask for the state of a task, up to 4 times.

        :raises Veo3Error: No state came, or the client was closed.
        """
        route = families.route_for_id(request_id, self._route)
        call = families.poll_call(route, request_id)
        read = functools.partial(families.read, route, request_id=request_id)
        outcome, attempts, elapsed = await self._persist(call, read, _may_ask_again, _FETCH_TRIES)
        if isinstance(outcome, Problem):
            raise outcome.error(request_id, attempts=attempts, elapsed=elapsed)
        return outcome

    async def submit(
        self, route: families.Route, call: Call, *, prompt: str, model: str, image: str | None
    ) -> str:
        """Submit a task, up to 5 times where it certainly did not arrive; return its id.

        With a journal the intent is written down before, and what became of it after.

        :param call: The request; the others are what the journal notes of it.
        :raises SubmitUncertain: The task may exist.
        :raises Veo3Error: It does not.
        """
        if self._journal is None:
            return await self._submit(route, call)
        intent = await self._journal.intend(prompt, model=model, image=image, at=time.time())
        try:
            request_id = await self._submit(route, call)
        except SubmitUncertain:
            raise  # it stays in doubt
        except Veo3Error as error:
            await _note_refusal(self._journal, intent, error)
            raise
        await self._journal.submitted(intent, request_id, at=time.time())
        return request_id

    def close(self) -> None:
        """Cut short what is under way, and take nothing more on."""
        self._closed = True
        for scope in tuple(self._scopes):
            scope.cancel()

    async def _submit(self, route: families.Route, call: Call) -> str:
        outcome, attempts, elapsed = await self._persist(
            call, functools.partial(families.submitted, route), _may_submit_again, _SUBMIT_TRIES
        )
        if isinstance(outcome, Problem):
            raise submit_error(outcome, attempts=attempts, elapsed=elapsed)
        return outcome

    async def _persist(
        self,
        call: Call,
        read: Callable[..., _T | Problem],
        may_repeat: Callable[[Problem], bool],
        tries: int,
    ) -> tuple[_T | Problem, int, float]:
        """Make a call until it brings something or is not to be repeated.

        Returns what the last one brought, how many there were, and the seconds they took.
        """
        streak = NO_FAULTS
        began = time.monotonic()
        while True:
            outcome = await self._ask(call, read)
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

    async def _ask(self, call: Call, read: Callable[..., _T | Problem]) -> _T | Problem:
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
                turn.settle(outcome)
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

    @contextlib.contextmanager
    def _cancelled_by_close(self, scope: anyio.CancelScope) -> Iterator[None]:
        self._scopes.add(scope)
        try:
            yield
        finally:
            self._scopes.discard(scope)


async def _note_refusal(journal: Journal, intent: int, error: Veo3Error) -> None:
    """Write down that a submission made no task; what the service said must reach the caller."""
    try:
        await journal.refused(intent, error.message, at=time.time())
    except JournalError as trouble:
        error.add_note(f"in the journal it stays in doubt: {trouble}")
        _log.error("a submission that made no task stays in doubt: %s", trouble)


def _may_ask_again(problem: Problem) -> bool:
    _, verdict = after_fault(NO_FAULTS, problem.kind, 0.0)
    return verdict is Verdict.RETRY and problem.kind is not Kind.NOT_FOUND


def _may_submit_again(problem: Problem) -> bool:
    return submit_verdict(problem) is SubmitVerdict.NOT_ARRIVED
