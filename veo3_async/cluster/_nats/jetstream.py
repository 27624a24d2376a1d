"""What is asked of NATS JetStream: streams, consumers and messages."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, ConsumerInfo, StreamConfig

from veo3_async.cluster._errors import ClusterError
from veo3_async.cluster._names import Settings
from veo3_async.cluster._nats.connection import Link
from veo3_async.cluster._nats.errors import ERRORS, NotStoredError, is_unwanted
from veo3_async.cluster._nats.feed import Feed
from veo3_async.cluster._nats.pull import Pull
from veo3_async.cluster._nats.state import (
    ConsumerState,
    StreamState,
    found_or_none,
    stream_state,
)

__all__ = ["Engine"]

_T = TypeVar("_T")

_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"
_EXPECTED_IN_ALL: Final = "Nats-Expected-Last-Sequence"


class Engine:
    """Streams, consumers and messages, through a connection that comes back by itself.

    :param servers: URLs; credentials in them are shown to nobody else.
    :param options: Further arguments of ``nats.connect``.
    :param trouble: Called when streams and consumers may not be what they were.
    """

    def __init__(
        self,
        servers: Sequence[str],
        options: Mapping[str, Any],
        trouble: Callable[[], None] = lambda: None,
    ) -> None:
        self._link = Link(servers, options, self._back, trouble)
        self._pulls: set[Pull | Feed] = set()

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

    async def ensure_stream(self, name: str, settings: Settings) -> StreamState:
        """Make a stream, or see that the one that is there is as it must be.

        :raises ClusterError: It is not; or it cannot be made.
        """
        js = await self.jetstream()
        found = await self._found(f"stream {name}", js.stream_info(name))
        if found is None:
            config = StreamConfig(name=name, **settings)
            found = await self._link.ask(f"stream {name}", js.add_stream(config))
        _compare(f"stream {name}", found.config, settings)
        return stream_state(found)

    async def ensure_consumer(self, stream: str, name: str, settings: Settings) -> bool:
        """Make a durable consumer, or see that the one that is there is as it must be.

        :returns: Whether it was missing.

        :raises ClusterError: It is not; or it cannot be made.
        """
        js = await self.jetstream()
        subject = f"consumer {name} of stream {stream}"
        found: ConsumerInfo | None = await self._found(subject, js.consumer_info(stream, name))
        missing = found is None
        if found is None:
            config = ConsumerConfig(name=name, durable_name=name, **settings)
            found = await self._link.ask(subject, js.add_consumer(stream, config))
        _compare(subject, found.config, settings)
        return missing

    async def consumer(self, stream: str, name: str) -> ConsumerState | None:
        """Return how far a consumer is, or None where it does not exist."""
        js = await self.jetstream()
        info = await self._found(f"consumer {name} of {stream}", js.consumer_info(stream, name))
        if info is None:
            return None
        return ConsumerState(
            unasked=info.num_pending or 0,
            pending=info.num_ack_pending or 0,
            redelivered=info.num_redelivered or 0,
        )

    async def stream(self, name: str) -> StreamState | None:
        """Return what is in a stream, or None where it does not exist."""
        js = await self.jetstream()
        info = await self._found(f"stream {name}", js.stream_info(name))
        return None if info is None else stream_state(info)

    async def subjects(self, stream: str) -> list[str]:
        """Return the subjects of which a stream holds messages."""
        js = await self.jetstream()
        call = js.stream_info(stream, subjects_filter=">")
        info = await self._found(f"stream {stream}", call)
        return [] if info is None else list(info.state.subjects or {})

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
        js = await self.jetstream()

        async def published() -> int | None:
            try:
                return (await js.publish(subject, payload, headers=headers)).seq
            except ERRORS as error:
                if is_unwanted(error):
                    return None
                if isinstance(error, TimeoutError):
                    raise NotStoredError from error
                raise

        return await self._link.ask(subject, published())

    async def check_publish(self, stream: str, subject: str) -> None:
        """See that messages for a stream are taken, without one.

        :raises ServiceUnavailable: NATS does not answer.
        :raises ClusterError: There is no permission.
        """
        js = await self.jetstream()

        async def published() -> None:
            # No stream has as many messages, so it is refused after everything else was looked at.
            headers = {_EXPECTED_IN_ALL: str(2**62)}
            with contextlib.suppress(nats.js.errors.BadRequestError):
                await js.publish(subject, b"", stream=stream, headers=headers)

        await self._link.ask(subject, published())

    async def last(
        self, stream: str, subject: str, *, fresh: bool = False
    ) -> tuple[int, bytes] | None:
        """Return sequence and payload of the last message of a subject, or None.

        :param fresh: Ask the stream's leader; a replica may be a little behind.
        """
        js = await self.jetstream()
        call = js.get_last_msg(stream, subject, direct=not fresh)
        found = await self._found(f"{subject} in {stream}", call)
        return None if found is None else (found.seq or 0, found.data or b"")

    async def stored_at(self, stream: str, subject: str) -> float | None:
        """Return when the last message of a subject was stored, by the server's clock.

        Seconds since the epoch; None where there is no message.
        """
        js = await self.jetstream()
        call = js.get_last_msg(stream, subject, direct=True)
        found = await self._found(f"{subject} in {stream}", call)
        return None if found is None or found.time is None else found.time.timestamp()

    async def purge(self, stream: str, subject: str) -> None:
        """Remove the messages of a subject."""
        js = await self.jetstream()
        await self._link.ask(f"{subject} in {stream}", js.purge_stream(stream, subject=subject))

    @contextlib.asynccontextmanager
    async def feed(
        self, stream: str, subjects: list[str], beginning: Mapping[str, Any]
    ) -> AsyncIterator[Feed]:
        """Yield a `Feed` of a stream."""
        feed = Feed(self._link, stream, subjects, beginning)
        self._pulls.add(feed)
        try:
            yield feed
        finally:
            self._pulls.discard(feed)
            await feed.aclose()

    @contextlib.asynccontextmanager
    async def pull(self, stream: str, consumer: str) -> AsyncIterator[Pull]:
        """Yield a `Pull` of a consumer."""
        pull = Pull(self._link, stream, consumer)
        self._pulls.add(pull)
        try:
            yield pull
        finally:
            self._pulls.discard(pull)
            await pull.aclose()

    def _found(self, subject: str, call: Awaitable[_T]) -> Awaitable[_T | None]:
        return found_or_none(self._link, subject, call)

    async def jetstream(self) -> JetStreamContext:
        """Return the JetStream of nats-py.

        :raises ServiceUnavailable: The connection is lost, and does not come back within 5 s.
        :raises ClientClosed: It was never connected, or was closed.
        """
        return await self._link.jetstream()

    def wake(self) -> None:
        """Let everybody ask anew: what they asked for may be lost."""
        for pull in self._pulls:
            pull.wake()

    def _back(self) -> None:
        self.wake()
        self._link.trouble()


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
