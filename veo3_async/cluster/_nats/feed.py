"""What a stream holds and gets, in order: none twice, none left out, many at a time."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime
import logging
import uuid
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import anyio
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

from veo3_async._errors import ServiceUnavailable, Veo3Error
from veo3_async.cluster._nats.connection import CLOSE_SECONDS, Link
from veo3_async.cluster._nats.delivery import delivery
from veo3_async.cluster._nats.errors import ERRORS
from veo3_async.cluster._nats.inbox import Inbox
from veo3_async.cluster._nats.state import StreamState, found_or_none, stream_state

__all__ = ["Entry", "Feed"]

_log = logging.getLogger("veo3_async")

_BATCH: Final = 512
_PULL_SECONDS: Final = 5.0
_OVERDUE_SECONDS: Final = _PULL_SECONDS + 1.0
_LOOK_SECONDS: Final = 10.0
_INACTIVE_SECONDS: Final = 300.0
"""A consumer that nobody has asked for so long is removed by the server."""

_NOTHING_CAME: Final = "408"


class Entry(NamedTuple):
    """A message of the stream."""

    sequence: int
    subject: str
    data: bytes


class Feed:
    """The messages of a stream from a place on.

    Its consumer is acknowledged nothing and keeps nothing: where it is lost, or something on the
    way from it, another one goes on behind what was received. So do the ordered consumers of the
    NATS clients (ADR-17).

    :param subjects: Which of the stream's messages.
    :param beginning: Settings of the consumer that say where to begin.
    """

    def __init__(
        self, link: Link, stream: str, subjects: list[str], beginning: Mapping[str, Any]
    ) -> None:
        self.position = 0
        """Sequence of the last message that was received."""
        self.created: datetime.datetime | None = None
        """When the stream was made; another one of the same name begins at 1 again."""
        self.gaps = 0
        """How often messages were removed, or may have been, before they were received."""
        self._link = link
        self._stream = stream
        self._subjects = subjects
        self._beginning = beginning
        self._name = ""
        self._inbox = Inbox(link, self._arrived)
        self._received: collections.deque[Entry] = collections.deque()
        self._next = 1  # by the count of the consumer
        self._asked_for = 0
        self._is_lost = True
        self._is_idle = False
        self._something = asyncio.Event()
        self._checked = 0
        self._look_at = 0.0

    def resume(self, position: int, created: datetime.datetime | None) -> None:
        """Begin behind a place of an earlier feed, if it is still the same stream."""
        self.position = position
        self.created = created

    async def batch(self) -> list[Entry]:
        """Return what has come, as soon as something has; nothing after about 5 s of nothing.

        :raises ServiceUnavailable: The stream is missing, or the server does not answer.
        :raises ClusterError: There is no permission to read.
        """
        if not self._received:
            await self._look()
            if self._is_lost:
                await self._begin()
            if self._asked_for == 0:
                await self._ask()
            await self._wait()
        entries = list(self._received)
        self._received.clear()
        if not entries:
            self._link.check(self._stream)
        return entries

    def wake(self) -> None:
        """Ask anew: what was asked for is lost."""
        self._asked_for = 0
        self._look_at = 0.0
        self._something.set()

    async def aclose(self) -> None:
        """Remove the consumer. May be repeated."""
        await self._inbox.aclose()
        await self._remove()

    # --- the consumer -------------------------------------------------------------------------

    async def _look(self) -> None:
        """See whether the stream and the consumer are those that they were, now and then."""
        now = asyncio.get_running_loop().time()
        if now < self._look_at and not self._is_lost:
            return
        state = await self._state()
        self._note(state)
        if not self._is_lost:
            self._is_lost = not await self._has_consumer()
        self._look_at = now + _LOOK_SECONDS

    async def _has_consumer(self) -> bool:
        """Return whether the consumer answers; it may have been on a server that is gone."""
        js = await self._link.jetstream()
        call = js.consumer_info(self._stream, self._name)
        try:
            return await found_or_none(self._link, self._stream, call) is not None
        except ServiceUnavailable:
            return False

    def _note(self, state: StreamState) -> None:
        received = max(self.position, self._checked)
        if self.created is not None and (
            state.created != self.created or state.last_sequence < self.position
        ):
            _log.warning(
                "the stream %s was made again: changes that it held may have been missed",
                self._stream,
            )
            self.gaps += 1
            self.position = self._checked = 0
            self._beginning = {"deliver_policy": "all"}
            self._is_lost = True
        elif 0 < received < state.first_sequence - 1:
            _log.warning(
                "changes %d to %d were removed from the stream %s before they were read here",
                received + 1,
                state.first_sequence - 1,
                self._stream,
            )
            self.gaps += 1
            self._checked = state.first_sequence - 1
        elif self._is_idle:
            self._checked = state.last_sequence
        self.created = state.created

    async def _state(self) -> StreamState:
        js = await self._link.jetstream()
        call = js.stream_info(self._stream)
        info = await found_or_none(self._link, f"stream {self._stream}", call)
        if info is None:
            self._link.trouble()
            message = f"the stream {self._stream} is missing on NATS at {self._link.place}"
            raise ServiceUnavailable(message)
        return stream_state(info)

    async def _begin(self) -> None:
        await self._remove()
        beginning = self._beginning
        if self.position:
            beginning = {
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": self.position + 1,
            }
        name = f"listener-{uuid.uuid4().hex}"
        config = ConsumerConfig(
            name=name,
            ack_policy="none",  # type: ignore[arg-type]  # as the API spells it
            inactive_threshold=_INACTIVE_SECONDS,
            mem_storage=True,
            num_replicas=1,
            filter_subjects=self._subjects,
            **beginning,
        )
        js = await self._link.jetstream()
        await self._link.ask(
            f"consumer {name} of stream {self._stream}", js.add_consumer(self._stream, config)
        )
        self._name, self._next, self._asked_for, self._is_lost = name, 1, 0, False

    async def _remove(self) -> None:
        name, self._name = self._name, ""
        if name:
            with (
                anyio.move_on_after(CLOSE_SECONDS, shield=True),
                contextlib.suppress(Veo3Error, *ERRORS),
            ):
                js = await self._link.jetstream()
                await js.delete_consumer(self._stream, name)

    # --- messages -----------------------------------------------------------------------------

    async def _ask(self) -> None:
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        payload = b'{"batch": %d, "expires": %d}' % (_BATCH, int(_PULL_SECONDS * 1e9))
        self._is_idle = False
        self._asked_for = _BATCH
        await self._inbox.ask(subject, payload)

    async def _wait(self) -> None:
        self._something.clear()
        if self._received:
            return
        with anyio.move_on_after(_OVERDUE_SECONDS) as scope:
            await self._something.wait()
        if scope.cancelled_caught:
            self.wake()

    async def _arrived(self, msg: Msg) -> None:
        if msg.reply:
            self._receive(msg)
        else:
            self._asked_for = 0
            self._is_idle = (msg.headers or {}).get("Status") == _NOTHING_CAME
            if not self._is_idle:
                self._is_lost = True
                self._link.trouble()
        self._something.set()

    def _receive(self, msg: Msg) -> None:
        consumer, _, sequence, count, *_ = delivery(msg.reply)
        if consumer != self._name or self._is_lost:
            return  # of a consumer before, or behind a gap
        if int(count) != self._next:
            self._is_lost = True
            return
        self._next += 1
        self._asked_for -= 1
        self.position = int(sequence)
        self._received.append(Entry(self.position, msg.subject, msg.data))
