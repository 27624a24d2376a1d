"""A worker: takes one id after another, polls it once, writes down what is new, and lets go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio
import msgspec

from veo3_async._errors import ServiceUnavailable, Veo3Error
from veo3_async._lifecycle.retries import Verdict, backoff
from veo3_async._models import VideoTask
from veo3_async._pacing.learned import LearnedPacing
from veo3_async._polling.job import SHARED, SharedError
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.http import Reply
from veo3_async._protocol.ids import check_request_id
from veo3_async.cluster._judge import (
    after_bug,
    after_problem,
    after_task,
    begun,
    is_news,
    learn,
    next_poll,
    with_eta,
)
from veo3_async.cluster._knowledge import Knowledge
from veo3_async.cluster._memory import Memory
from veo3_async.cluster._names import LIFE_SIGN_SECONDS, Names, request_id_of
from veo3_async.cluster._nats.jetstream import Engine
from veo3_async.cluster._nats.pull import Message, Pull
from veo3_async.cluster._permits import Permits
from veo3_async.cluster._record import Record, decode, encode

if TYPE_CHECKING:
    from veo3_async._client import Veo3Client

__all__ = ["PERMITS", "POLLERS", "Worker"]

_log = logging.getLogger("veo3_async")

POLLERS: Final = "pollers"
"""The consumer that hands ids to all workers."""
PERMITS: Final = "permits"
"""The consumer that hands permits to all workers."""

_AT_ONCE: Final = 0.0
_AFTER_TROUBLE: Final = 5.0
_PARTING_SECONDS: Final = 2.0

_Outcome = VideoTask | Problem


class _Known(msgspec.Struct, frozen=True):
    record: Record
    seq: int | None
    """Of the last message of its subject, 0 where there is none; None: it was not asked for."""


_Ruling: TypeAlias = tuple[Record, bytes | None, float | None]
"""What is known after a poll; the JSON of that, None where it is no news; the seconds until the
next poll, None after the end."""


class Worker:
    """Polls what is watched, through one client.

    :param slots: Ids in hand at once.
    :param ack_wait: Seconds after which an id that was not heard of goes to another worker.
    """

    def __init__(
        self,
        engine: Engine,
        names: Names,
        client: Veo3Client,
        *,
        slots: int,
        ack_wait: float,
        max_rate: float,
    ) -> None:
        self._engine = engine
        self._names = names
        self._client = client
        self._pacing = client._pacing  # noqa: SLF001 - one package
        self._slots = slots
        self._ack_wait = ack_wait
        self._max_rate = max_rate
        self._name = uuid.uuid4().hex
        self._in_hand: set[Message] = set()
        self._memory = Memory()
        self._stopping = False
        self._failure: BaseException | None = None
        self._troubled = False

    async def run(self, stop: asyncio.Event | anyio.Event | None) -> None:
        """Work until ``stop`` is set, or for ever.

        :raises Veo3Error: No id can be polled, or nothing can be written down.
        """
        async with (
            self._engine.pull(self._names.watch, POLLERS) as ids,
            self._engine.pull(self._names.rate, PERMITS) as tokens,
        ):
            permits = Permits(self._engine, self._names, tokens, self._max_rate)
            await self._on_duty(ids, permits, stop)
        if self._failure is not None:
            raise self._failure

    async def _on_duty(
        self, ids: Pull, permits: Permits, stop: asyncio.Event | anyio.Event | None
    ) -> None:
        duties: list[Callable[[], Awaitable[None]]] = [
            self._show_life,
            self._keep_in_hand,
            permits.follow,
        ]
        knowledge = None
        if isinstance(self._pacing, LearnedPacing):
            knowledge = Knowledge(self._engine, self._names, self._pacing)
            duties.append(knowledge.keep)
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
            await self._part(knowledge)

    async def _guard(self, duty: Callable[[], Awaitable[None]], scope: anyio.CancelScope) -> None:
        """Let the first error end all, and no group of errors be raised."""
        try:
            await duty()
        except Exception as error:  # noqa: BLE001 - `run` raises it
            cause = error.__cause__ if isinstance(error, SharedError) else error
            self._failure = self._failure or cause
            scope.cancel()

    async def _part(self, knowledge: Knowledge | None) -> None:
        with anyio.move_on_after(_PARTING_SECONDS, shield=True):
            if knowledge is not None:
                await knowledge.part()
            with contextlib.suppress(Veo3Error):
                await self._engine.purge(self._names.workers, self._names.life_sign(self._name))

    # --- beside the work --------------------------------------------------------------------

    async def _show_life(self) -> None:
        while True:
            with contextlib.suppress(ServiceUnavailable):
                await self._engine.publish(self._names.life_sign(self._name), b"")
            await anyio.sleep(LIFE_SIGN_SECONDS)

    async def _keep_in_hand(self) -> None:
        while True:
            await anyio.sleep(self._ack_wait / 3)
            for message in tuple(self._in_hand):
                if message in self._in_hand:
                    with contextlib.suppress(ServiceUnavailable):
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
        except (Veo3Error, SharedError):
            await message.hand_back()
            raise
        except Exception:  # noqa: BLE001 - one id is not the end of the work
            _log.exception("an id is handed back for a bug of ours; others go on")
            await message.hand_back(_AFTER_TROUBLE)
        except BaseException:
            await message.hand_back()
            raise
        finally:
            self._in_hand.discard(message)

    async def _visit(self, message: Message, permits: Permits) -> float | None:
        """Poll an id once; return the seconds until the next time, None after the end."""
        known = await self._known(message)
        if known is None or known.record.final:
            return None
        if not await permits.take():
            return _AT_ONCE
        sent = time.time()
        outcome, reply = await self._client._poll_once(known.record.request_id)  # noqa: SLF001 - one package
        await permits.learn(outcome, sent)
        return await self._settle(message, known, outcome, reply)

    async def _settle(
        self, message: Message, known: _Known, outcome: _Outcome, reply: Reply | None
    ) -> float | None:
        """Write down what a poll has brought; whoever else was first is heard before."""
        while not known.record.final:
            after, payload, delay = self._ruling(message, known, outcome, reply)
            if payload is None or await self._write(known, after, payload):
                if delay is not None:
                    self._memory.keep(message.subject, message.attempts, after)
                if payload is not None and isinstance(outcome, VideoTask):
                    with SHARED:
                        learn(self._pacing, known.record, after)
                return delay
            known = await self._read(message, known.record.request_id, fresh=True)
        return None

    async def _write(self, known: _Known, after: Record, payload: bytes) -> bool:
        """Return whether a record could follow that which is known."""
        if known.seq is None:
            return False
        subject = self._names.change_of(after.request_id)
        return await self._engine.publish(subject, payload, expect=known.seq) is not None

    def _ruling(
        self, message: Message, known: _Known, outcome: _Outcome, reply: Reply | None
    ) -> _Ruling:
        """Return what a poll means; what cannot be dealt with means the end of the id."""
        try:
            return _spelled(known, *self._judge(message, known.record, outcome, reply))
        except (Veo3Error, SharedError):
            raise
        except Exception as bug:  # noqa: BLE001 - whatever it is, it is the end of one id
            _log.exception("what came for one id could not be dealt with; others go on")
            now = time.time()
            after = after_bug(
                known.record,
                bug,
                now,
                attempts=message.attempts,
                elapsed=max(0.0, now - message.stored_at),
            )
            return _spelled(known, after, None)

    def _judge(
        self, message: Message, known: Record, outcome: _Outcome, reply: Reply | None
    ) -> tuple[Record, float | None]:
        now = time.time()
        elapsed = max(0.0, now - message.stored_at)
        if isinstance(outcome, Problem):
            after, verdict = after_problem(
                known, outcome, now, attempts=message.attempts, elapsed=elapsed
            )
            if verdict is Verdict.EVERYBODY:
                raise outcome.error(attempts=message.attempts, elapsed=elapsed)
            if verdict is Verdict.FINAL:
                return after, None
            return after, backoff(after.streak, outcome.kind, now, random.random())
        assert reply is not None  # noqa: S101 - a task is read from one
        after = after_task(known, outcome, reply, now, attempts=message.attempts, elapsed=elapsed)
        if after.final:
            return after, None
        with SHARED:
            if after.serial != known.serial:
                after = with_eta(after, self._pacing, now)
            return after, next_poll(after, self._pacing, now, random.random())

    async def _known(self, message: Message) -> _Known | None:
        """Return what is known of an id, or None where the message is of none."""
        record = self._memory.recall(message.subject, message.sequence, message.attempts)
        if record is not None:
            return _Known(record, None)
        try:
            request_id = check_request_id(request_id_of(message.subject))
        except (ValueError, Veo3Error) as error:
            _log.error("what is no request id is taken out of the stream: %s", error)
            return None
        return await self._read(message, request_id)

    async def _read(self, message: Message, request_id: str, *, fresh: bool = False) -> _Known:
        subject = self._names.change_of(request_id)
        found = await self._engine.last(self._names.change, subject, fresh=fresh)
        if found is None:
            return _Known(begun(None, request_id, message.sequence), 0)
        seq, payload = found
        try:
            record = decode(payload, request_id)
        except ValueError as error:
            _log.error("the last record of %s is passed over: %s", request_id, error)
            # No serial is higher than a sequence, so listeners see what comes as new.
            return _Known(Record(request_id=request_id, watch=message.sequence, serial=seq), seq)
        return _Known(begun(record, request_id, message.sequence), seq)


def _spelled(known: _Known, after: Record, delay: float | None) -> _Ruling:
    if not is_news(known.record, after):
        return after, None, delay
    if after.serial == known.record.serial and after.change is not None:
        after = msgspec.structs.replace(after, news=known.record.news or known.seq or 0)
    return after, encode(after), delay
