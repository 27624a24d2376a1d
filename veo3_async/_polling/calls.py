"""Single calls: each in its turn, made again where that does no harm, ended with the client.

What a fault means is `_faults`' to say, what a submission that brought no id means
`_submission`'s, and when a call has its turn the dispatcher's.
"""

from __future__ import annotations

import contextlib
import functools
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias, TypeVar

import anyio

from veo3_async._errors import ClientClosed, SubmitUncertain
from veo3_async._lifecycle.retries import NO_FAULTS, Verdict, after_fault, backoff
from veo3_async._models import VideoTask
from veo3_async._polling.dispatcher import Dispatcher
from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.families.record import decode, poll_path
from veo3_async._protocol.http import Call, Reply
from veo3_async._protocol.submission import (
    SubmitVerdict,
    submit_error,
    submit_verdict,
    submitted_id,
)

__all__ = ["Calls", "Turns"]

_T = TypeVar("_T")

Turns: TypeAlias = Callable[[], Dispatcher[Any]]
"""Returns whose permits are taken; asked before each try, and raises `ClientClosed` after the end.
Handed in with each call: kept, it would hold the client that holds the calls."""

_FETCH_TRIES: Final = 4
_SUBMIT_TRIES: Final = 5


class Calls:
    """Those of one client that are under way.

    :param model: Whose path is asked for ids that do not name a known one.
    """

    def __init__(self, model: str) -> None:
        self._model: Final = model
        self._scopes: Final[set[anyio.CancelScope]] = set()

    async def poll(self, turns: Turns, request_id: str) -> tuple[VideoTask | Problem, Reply | None]:
        """Ask once for the state of a task; with the reply where one came."""
        replies: list[Reply] = []

        def judge(reply: Reply, *, wall_now: float) -> VideoTask | Problem:
            replies.append(reply)
            return decode(reply, request_id=request_id, wall_now=wall_now)

        outcome = await self._ask(turns, Call("GET", poll_path(request_id, self._model)), judge)
        return outcome, replies[0] if replies else None

    async def fetch(self, turns: Turns, request_id: str) -> VideoTask:
        """Ask for the state of a task, up to 4 times.

        :raises Veo3Error: No state came, or the client was closed.
        """
        call = Call("GET", poll_path(request_id, self._model))
        judge = functools.partial(decode, request_id=request_id)
        outcome, attempts, elapsed = await self._persist(
            turns, call, judge, _may_ask_again, _FETCH_TRIES
        )
        if isinstance(outcome, Problem):
            raise outcome.error(request_id, attempts=attempts, elapsed=elapsed)
        return outcome

    async def submit(self, turns: Turns, call: Call) -> str:
        """Submit a task, up to 5 times where it certainly did not arrive; return its id.

        :raises SubmitUncertain: The task may exist.
        :raises Veo3Error: It does not.
        """
        outcome, attempts, elapsed = await self._persist(
            turns, call, submitted_id, _may_submit_again, _SUBMIT_TRIES
        )
        if isinstance(outcome, Problem):
            raise submit_error(outcome, attempts=attempts, elapsed=elapsed)
        return outcome

    def end(self) -> None:
        """Cut short what is under way; from now on ``turns`` is to say that there are none."""
        for scope in tuple(self._scopes):
            scope.cancel()

    async def _persist(
        self,
        turns: Turns,
        call: Call,
        judge: Callable[..., _T | Problem],
        may_repeat: Callable[[Problem], bool],
        tries: int,
    ) -> tuple[_T | Problem, int, float]:
        """Make a call until it brings something or is not to be repeated.

        Returns what the last one brought, how many there were, and the seconds they took.
        """
        streak = NO_FAULTS
        began = time.monotonic()
        while True:
            outcome = await self._ask(turns, call, judge)
            now = time.monotonic()
            if not isinstance(outcome, Problem):
                return outcome, streak.faults + 1, now - began
            streak, _ = after_fault(streak, outcome.kind, now)
            if streak.faults >= tries or not may_repeat(outcome):
                return outcome, streak.faults, now - began
            with anyio.CancelScope() as scope, self._ended_by_us(scope):
                await anyio.sleep(backoff(streak, outcome.kind, now, random.random()))

    async def _ask(
        self, turns: Turns, call: Call, judge: Callable[..., _T | Problem]
    ) -> _T | Problem:
        """Make a call in its turn, and return what ``judge`` says of the reply."""
        dispatcher = turns()
        is_sent = False
        with anyio.CancelScope() as scope, self._ended_by_us(scope):
            taken = await dispatcher.turn()
            is_sent = True
            answer = await dispatcher.send(call, taken)
            outcome: _T | Problem | None = None
            try:
                outcome = (
                    judge(answer, wall_now=time.time()) if isinstance(answer, Reply) else answer
                )
                return outcome
            finally:
                dispatcher.learn(taken, outcome)  # else the throttle would wait for its permit
                dispatcher.pump()
        if is_sent and call.method == "POST":
            message = (
                "the client was closed while a submission was under way: the task may exist and "
                "may have been charged"
            )
            raise SubmitUncertain(message)
        message = "the client was closed before the request was answered"
        raise ClientClosed(message)

    @contextlib.contextmanager
    def _ended_by_us(self, scope: anyio.CancelScope) -> Iterator[None]:
        """Let `end` cancel a scope."""
        self._scopes.add(scope)
        try:
            yield
        finally:
            self._scopes.discard(scope)


def _may_ask_again(problem: Problem) -> bool:
    _, verdict = after_fault(NO_FAULTS, problem.kind, 0.0)
    return verdict is Verdict.AGAIN and problem.kind not in {Kind.NOT_FOUND, Kind.REDIRECT}


def _may_submit_again(problem: Problem) -> bool:
    return submit_verdict(problem) is SubmitVerdict.NOT_ARRIVED
