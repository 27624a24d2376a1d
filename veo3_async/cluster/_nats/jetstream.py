"""What is asked of NATS JetStream: streams, consumers and messages."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, ConsumerInfo, StreamConfig

from veo3_async.cluster._errors import ClusterError
from veo3_async.cluster._names import Settings
from veo3_async.cluster._nats.connection import Link
from veo3_async.cluster._nats.errors import ERRORS, is_unwanted
from veo3_async.cluster._nats.pull import Pull

__all__ = ["Engine"]

_T = TypeVar("_T")

_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"


class Engine:
    """Streams, consumers and messages, through a connection that comes back by itself.

    :param servers: URLs; credentials in them are shown to nobody else.
    :param options: Further arguments of ``nats.connect``.
    """

    def __init__(self, servers: Sequence[str], options: Mapping[str, Any]) -> None:
        self._link = Link(servers, options, self._wake)
        self._pulls: set[Pull] = set()

    def __repr__(self) -> str:
        return f"<Engine: {self.place}>"

    @property
    def place(self) -> str:
        """Hosts and ports, without credentials."""
        return self._link.place

    async def connect(self) -> None:
        """Connect, if that was not done; later losses are made good by themselves.

        :raises ServiceUnavailable: No server can be reached.
        :raises ClusterError: They refuse the credentials.
        :raises ClientClosed: It was closed.
        """
        await self._link.connect()

    async def aclose(self) -> None:
        """Hand back what is on its way, and close the connection. May be repeated."""
        for pull in tuple(self._pulls):
            await pull.aclose()
        await self._link.aclose()

    # --- streams and consumers --------------------------------------------------------------

    async def ensure_stream(self, name: str, settings: Settings) -> None:
        """Make a stream, or see that the one that is there is as it must be.

        :raises ClusterError: It is not; or it cannot be made.
        """
        js = self._jetstream()
        found = await self._found(f"stream {name}", js.stream_info(name))
        if found is None:
            config = StreamConfig(name=name, **settings)
            found = await self._link.ask(f"stream {name}", js.add_stream(config))
        _compare(f"stream {name}", found.config, settings)

    async def ensure_consumer(self, stream: str, name: str, settings: Settings) -> None:
        """Make a durable consumer, or see that the one that is there is as it must be.

        :raises ClusterError: It is not; or it cannot be made.
        """
        js = self._jetstream()
        subject = f"consumer {name} of stream {stream}"
        found: ConsumerInfo | None = await self._found(subject, js.consumer_info(stream, name))
        if found is None:
            config = ConsumerConfig(name=name, durable_name=name, **settings)
            found = await self._link.ask(subject, js.add_consumer(stream, config))
        _compare(subject, found.config, settings)

    async def add_listener(
        self, stream: str, name: str, settings: Settings, *, inactive_threshold: float
    ) -> None:
        """Make a consumer that ends when nobody has asked it for so many seconds."""
        config = ConsumerConfig(name=name, inactive_threshold=inactive_threshold, **settings)
        js = self._jetstream()
        await self._link.ask(f"consumer {name} of stream {stream}", js.add_consumer(stream, config))

    async def consumer(self, stream: str, name: str) -> ConsumerState | None:
        """Return how far a consumer is, or None where it does not exist."""
        js = self._jetstream()
        info = await self._found(f"consumer {name}", js.consumer_info(stream, name))
        if info is None:
            return None
        return ConsumerState(
            unasked=info.num_pending or 0,
            pending=info.num_ack_pending or 0,
            redelivered=info.num_redelivered or 0,
            floor=0 if info.ack_floor is None else info.ack_floor.stream_seq,
        )

    async def remove_consumer(self, stream: str, name: str) -> None:
        """Remove a consumer."""
        js = self._jetstream()
        await self._link.ask(f"consumer {name}", js.delete_consumer(stream, name))

    async def stream(self, name: str) -> StreamState | None:
        """Return what is in a stream, or None where it does not exist."""
        info = await self._found(f"stream {name}", self._jetstream().stream_info(name))
        if info is None:
            return None
        return StreamState(messages=info.state.messages, metadata=info.config.metadata or {})

    # --- messages ---------------------------------------------------------------------------

    async def publish(
        self, subject: str, payload: bytes, *, expect: int | None = None
    ) -> int | None:
        """Return the sequence of a message that was stored, or None where it is not wanted.

        :param expect: Sequence of the last message of the subject, 0 for none: where that is
            another one by now, the message is not wanted. None: wanted unless the subject is taken.
        :raises ServiceUnavailable: It is not known to be stored.
        :raises ClusterError: It may not be stored.
        """
        headers = None if expect is None else {_EXPECTED: str(expect)}
        try:
            ack = await self._jetstream().publish(subject, payload, headers=headers)
        except ERRORS as error:
            if is_unwanted(error):
                return None
            fault = self._link.fault(subject, error)
        else:
            return ack.seq
        raise fault

    async def last(
        self, stream: str, subject: str, *, fresh: bool = False
    ) -> tuple[int, bytes] | None:
        """Return sequence and payload of the last message of a subject, or None.

        :param fresh: Ask the stream's leader; a replica may be a little behind.
        """
        js = self._jetstream()
        call = js.get_last_msg(stream, subject, direct=not fresh)
        found = await self._found(subject, call)
        return None if found is None else (found.seq or 0, found.data or b"")

    async def purge(self, stream: str, subject: str) -> None:
        """Remove the messages of a subject."""
        await self._link.ask(subject, self._jetstream().purge_stream(stream, subject=subject))

    @contextlib.asynccontextmanager
    async def pull(self, stream: str, consumer: str) -> AsyncIterator[Pull]:
        """Yield a `Pull` of a consumer."""
        pull = Pull(self._link, stream, consumer)
        await self._link.ask(stream, pull.open())
        self._pulls.add(pull)
        try:
            yield pull
        finally:
            self._pulls.discard(pull)
            await pull.aclose()

    async def _found(self, subject: str, call: Awaitable[_T]) -> _T | None:
        try:
            return await call
        except nats.js.errors.NotFoundError:
            return None
        except ERRORS as error:
            fault = self._link.fault(subject, error)
        raise fault

    def _jetstream(self) -> JetStreamContext:
        return self._link.jetstream

    def _wake(self) -> None:
        for pull in self._pulls:
            pull.wake()


class ConsumerState(msgspec.Struct, frozen=True):
    """How far a consumer is."""

    unasked: int
    """Messages that were never delivered."""
    pending: int
    """Messages that were delivered, and are in hand or wait to be delivered again."""
    redelivered: int
    """Of these, how many were delivered more than once."""
    floor: int
    """Sequence up to which everything is done."""


class StreamState(msgspec.Struct, frozen=True):
    """What is in a stream."""

    messages: int
    metadata: dict[str, str]


def _compare(what: str, config: object, settings: Settings) -> None:
    for name, wanted in settings.items():
        there = getattr(config, name)
        if isinstance(wanted, dict):
            there = {key: (there or {}).get(key) for key in wanted}
        if there != wanted:
            message = (
                f"the {what} is there with other settings: {name} is {_plain(there)}, and not "
                f"{wanted!r}; give every process the same, or remove it from NATS"
            )
            raise ClusterError(message)


def _plain(value: object) -> str:
    return repr(getattr(value, "value", value))
