"""A worker: takes one id after another, polls it once, writes down what is new, and lets go."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import anyio
import msgspec

from veo3_async._errors import ServiceUnavailable, Veo3Error
from veo3_async._learned_store import keep_learned
from veo3_async._lifecycle.contact import Contact
from veo3_async._lifecycle.judge import UNCHANGED, Context, judge, says_nothing_new
from veo3_async._models import VideoTask
from veo3_async._pacing.learned import LearnedPacing
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.http import Reply
from veo3_async.cluster._clock import ServerClock
from veo3_async.cluster._key import KeyMark
from veo3_async.cluster._life import Life
from veo3_async.cluster._names import Names
from veo3_async.cluster._nats.jetstream import Engine
from veo3_async.cluster._nats.pull import Message, Pull
from veo3_async.cluster._notes import Notes
from veo3_async.cluster._permits import PERMITS, Permits
from veo3_async.cluster._records import Known, Records, payload_of
from veo3_async.cluster._step import Silent, Step, is_quiet, step, step_bug
from veo3_async.cluster._upkeep import Upkeep

if TYPE_CHECKING:
    from veo3_async._client import Veo3Client

__all__ = ["POLLERS", "Worker"]

_log = logging.getLogger("veo3_async")

POLLERS: Final = "pollers"
"""The consumer that hands ids to all workers."""

_AT_ONCE: Final = 0.0
_AFTER_TROUBLE: Final = 5.0
_LEARNED_SECONDS: Final = 60.0


class _FatalError(Exception):
    """Raised where no id can be polled."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _Draft(msgspec.Struct, frozen=True):
    step: Step
    payload: bytes | None
    """What is to be written; None where nothing has changed."""
    met_bug: bool = False


class Worker:
    """Polls what is watched, through one client.

    :param slots: Ids in hand at once.
    :param ack_wait: Seconds after which an id that was not heard of goes to another worker.
    """

    def __init__(
        self,
        engine: Engine,
        names: Names,
        upkeep: Upkeep,
        client: Veo3Client,
        mark: KeyMark,
        *,
        slots: int,
        ack_wait: float,
        max_rate: float,
    ) -> None:
        self._engine = engine
        self._names = names
        self._upkeep = upkeep
        self._clock = ServerClock()
        self._mark = mark
        self._runtime = client.runtime
        self._pacing = client.runtime.pacing
        self._contact = Contact()
        self._slots = slots
        self._ack_wait = ack_wait
        self._max_rate = max_rate
        self._in_hand: set[Message] = set()
        self._life = Life(engine, names, self._clock, self._in_hand)
        self._records = Records(engine, names, self._contact)
        self._stopping = False
        self._failure: BaseException | None = None
        self._troubled = False

    async def run(self, stop: asyncio.Event | anyio.Event | None) -> None:
        """Work until ``stop`` is set, or for ever.

        :raises Veo3Error: No id can be polled, or nothing can be written down.
        """
        await self._life.show()
        async with (
            self._engine.pull(self._names.watch, POLLERS) as ids,
            self._engine.pull(self._names.rate, PERMITS) as tokens,
        ):
            permits = Permits(self._engine, self._names, tokens, self._max_rate, self._clock)
            await permits.catch_up()
            await self._on_duty(ids, permits, stop)
        if self._failure is not None:
            raise self._failure

    async def _on_duty(
        self, ids: Pull, permits: Permits, stop: asyncio.Event | anyio.Event | None
    ) -> None:
        duties: list[Callable[[], Awaitable[None]]] = [
            self._life.go_on,
            self._keep_in_hand,
            permits.follow,
            self._upkeep.failed,
        ]
        if isinstance(self._pacing, LearnedPacing):
            notes = Notes(self._engine, self._names)
            duties.append(
                functools.partial(keep_learned, self._pacing, notes, every=_LEARNED_SECONDS)
            )
        try:
            async with anyio.create_task_group() as tasks:
                scope = tasks.cancel_scope
                for duty in duties:
                    tasks.start_soon(self._guard, duty, scope)
                if stop is not None:
                    tasks.start_soon(self._stop_after, stop, ids, permits)
                async with anyio.create_task_group() as slots:
                    for _ in range(self._slots):
                        slots.start_soon(self._guard, self._slot(ids, permits), scope)
                scope.cancel()
        finally:
            await self._life.end()

    async def _guard(self, duty: Callable[[], Awaitable[None]], scope: anyio.CancelScope) -> None:
        """Let the first error end all, and no group of errors be raised."""
        try:
            await duty()
        except Exception as error:  # noqa: BLE001 - `run` raises it
            self._failure = self._failure or error
            scope.cancel()

    # --- beside the work --------------------------------------------------------------------

    async def _keep_in_hand(self) -> None:
        while True:
            await anyio.sleep(self._ack_wait / 3)
            for message in tuple(self._in_hand):
                if message in self._in_hand:
                    await message.busy()

    async def _stop_after(
        self, stop: asyncio.Event | anyio.Event, ids: Pull, permits: Permits
    ) -> None:
        await stop.wait()
        self._stopping = True
        await permits.stop()
        await ids.aclose()

    # --- the work ---------------------------------------------------------------------------

    def _slot(self, ids: Pull, permits: Permits) -> Callable[[], Awaitable[None]]:
        async def slot() -> None:
            while not self._stopping:
                message = await ids.next()
                if message is not None:
                    await self._attend(message, permits)

        return slot

    async def _attend(self, message: Message, permits: Permits) -> None:
        self._in_hand.add(message)
        try:
            delay = await self._visit(message, permits)
            await (message.done() if delay is None else message.again(delay))
            self._troubled = False
        except ServiceUnavailable as error:
            if not self._troubled:
                _log.warning("an id is handed back, and tried again: %s", error)
            self._troubled = True
            await message.hand_back(_AFTER_TROUBLE)
        except _FatalError as fatal:
            await message.hand_back()
            raise fatal.reason from None
        except Veo3Error:
            await message.hand_back()
            raise
        except Exception:  # noqa: BLE001 - one id is not the end of the work
            _log.exception("internal error, please report it: an id is handed back, others go on")
            await message.hand_back(_AFTER_TROUBLE)
        except BaseException:
            await message.hand_back()
            raise
        finally:
            self._in_hand.discard(message)

    async def _visit(self, message: Message, permits: Permits) -> float | None:
        """Poll an id once; return the seconds until the next time, None after the end."""
        known = await self._records.of(message)
        if known is None or known.record.ended:
            return None
        if not await permits.take():
            return _AT_ONCE
        sent = self._clock.now()

        def is_known(reply: Reply) -> bool:
            return says_nothing_new(known.track, reply, self._clock.now())

        request_id = known.record.request_id
        outcome, reply = await self._runtime.poll_once(request_id, known.track.route, is_known)
        await permits.learn(request_id, outcome, sent)
        if not (self._mark.is_written or isinstance(outcome, Problem)):
            await self._mark.accepted()
        now = self._clock.now()
        if (error := self._contact.heard(outcome, now)) is not None:
            raise _FatalError(error)
        context = Context(
            now, now, random.random(), message.attempts, max(0.0, now - message.stored_at)
        )
        if outcome is UNCHANGED:
            return self._go_on(message, known, context)
        return await self._settle(message, known, outcome, reply, context)

    def _go_on(self, message: Message, known: Known, context: Context) -> float | None:
        """Take in a poll that has brought nothing new: nothing is read or written."""
        ruling = judge(known.track, (), UNCHANGED, reply=None, pacing=self._pacing, context=context)
        if ruling.fatal is not None:
            raise _FatalError(ruling.fatal)
        self._records.keep(message, known.record, ruling.track)
        return ruling.delay

    async def _settle(
        self,
        message: Message,
        known: Known,
        outcome: VideoTask | Problem,
        reply: Reply | None,
        context: Context,
    ) -> float | None:
        """Write down what a poll has brought; whoever else was first is heard before.

        The pacing learns when that is done: a poll may have to be judged again.
        """
        while not known.record.ended:
            # What says nothing new is written nowhere, and so judged once.
            learns = is_quiet(known.record, outcome)
            draft = self._drafted(known, outcome, reply, context, learns=learns)
            if draft.step.fatal is not None:
                raise _FatalError(draft.step.fatal)
            if await self._records.write(known, draft.payload):
                if not learns and not draft.met_bug:
                    draft = self._drafted(known, outcome, reply, context, learns=True)
                if draft.step.fatal is not None:
                    raise _FatalError(draft.step.fatal)
                done = draft.step
                if not done.record.final:
                    self._records.keep(message, done.record, done.track)
                return done.delay
            known = await self._records.read(message, known.record.request_id, fresh=True)
        return None

    def _drafted(
        self,
        known: Known,
        outcome: VideoTask | Problem,
        reply: Reply | None,
        context: Context,
        *,
        learns: bool,
    ) -> _Draft:
        """Return what a poll means and what is to be written; a bug loses sight of this id only.

        :param learns: Whether the pacing is to learn from it.
        """
        pacing = self._pacing if learns else Silent(self._pacing)
        try:
            done = step(
                *(known.record, known.track, outcome), reply=reply, pacing=pacing, context=context
            )
            return _Draft(done, payload_of(known, done.record))
        except Exception as bug:  # noqa: BLE001 - whatever it is, it is that of one id
            _log.exception("internal error at one id, please report it; others go on")
            done = step_bug(known.record, known.track, bug, context)
            return _Draft(done, payload_of(known, done.record), met_bug=True)
