"""The only module that knows nats: streams, messages, and whose trouble an error is."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import logging
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any, Final, TypeVar

import anyio
import msgspec
import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, ConsumerInfo, StreamConfig

from veo3_async._errors import ClientClosed, ServiceUnavailable, Veo3Error
from veo3_async.cluster._errors import ClusterError
from veo3_async.cluster._names import Settings

__all__ = ["Engine", "Message", "Pull"]

_log = logging.getLogger("veo3_async")

_T = TypeVar("_T")

_CONNECT_SECONDS: Final = 10.0
_RECONNECT_SECONDS: Final = 0.25
_CLOSE_SECONDS: Final = 2.0
_PULL_SECONDS: Final = 5.0
_SERVER_TROUBLE_SECONDS: Final = 0.25

# Error codes of the JetStream API (server/errors.json of nats-server).
_WRONG_LAST_SEQUENCE: Final = frozenset({10071, 10164})
_STORE_FAILED: Final = 10077  # its text says why
_PER_SUBJECT: Final = "maximum messages per subject exceeded"
_ACCOUNT_IS_FULL: Final = 10002

_PERMISSION: Final = "permissions violation"

_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"
_LEAST_DELAY: Final = 0.001  # 0 would be no delay to nats-py, and that is the same


class Message:
    """One delivery of a message; it ends in `done` or `again`."""

    __slots__ = ("_engine", "_msg", "attempts", "data", "sequence", "stored_at", "subject")

    def __init__(self, msg: Msg, engine: Engine) -> None:
        self._msg = msg
        self._engine = engine
        self.subject: Final[str] = msg.subject
        self.data: Final[bytes] = msg.data
        self.sequence: Final[int] = msg.metadata.sequence.stream
        """In its stream."""
        self.attempts: Final[int] = msg.metadata.num_delivered
        """Deliveries so far, from 1."""
        self.stored_at: Final[float] = msg.metadata.timestamp.timestamp()
        """Seconds since the epoch of the server's clock."""

    async def busy(self) -> None:
        """Say that it is still being worked on."""
        await self._engine.ask(self.subject, self._msg.in_progress())

    async def done(self) -> None:
        """End it, and return when the server has heard of that."""
        await self._engine.ask(self.subject, self._msg.ack_sync(timeout=_CLOSE_SECONDS))

    async def read(self) -> None:
        """End it, without waiting for the server."""
        await self._engine.ask(self.subject, self._msg.ack())

    async def again(self, delay: float = 0.0) -> None:
        """Hand it back, to be delivered after so many seconds."""
        await self._engine.ask(self.subject, self._msg.nak(delay=max(delay, _LEAST_DELAY)))


class Pull:
    """Messages of one consumer, one for each who asks."""

    def __init__(self, engine: Engine, client: Client, stream: str, consumer: str) -> None:
        self._engine = engine
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = client.new_inbox()
        self._request = json.dumps({"batch": 1, "expires": int(_PULL_SECONDS * 1e9)}).encode()
        self._waiters: collections.deque[asyncio.Future[Message | None]] = collections.deque()
        self._subscription: Subscription | None = None

    async def open(self) -> None:
        """Subscribe; to be called once."""
        self._subscription = await self._client.subscribe(self._inbox, cb=self._arrived)

    async def next(self) -> Message | None:
        """Return the next message, or None where there was none for about 5 s.

        :raises ClusterError: There is no permission to ask.
        """
        waiter: asyncio.Future[Message | None] = self._loop.create_future()
        self._waiters.append(waiter)
        # The server tells when the time is over; it cannot where the connection was lost.
        timer = self._loop.call_later(_PULL_SECONDS + 1.0, _resolve, waiter)
        try:
            await self._engine.ask(
                self._subject,
                self._client.publish(self._subject, self._request, reply=self._inbox),
            )
            message = await waiter
        except BaseException:
            # Delivered at the very moment of a cancellation: nobody else may have it meanwhile.
            if waiter.done() and not waiter.cancelled() and (late := waiter.result()):
                await _hand_back(late)
            raise
        finally:
            timer.cancel()
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)
        if message is None:
            self._engine.check_permission(self._subject)
        return message

    def wake(self) -> None:
        """Let everybody ask anew: what they asked for is lost."""
        while self._waiters:
            _resolve(self._waiters.popleft())

    async def aclose(self) -> None:
        """Ask for nothing more, and hand back what was on its way."""
        if self._subscription is None:
            return
        with (
            anyio.move_on_after(_CLOSE_SECONDS, shield=True),
            contextlib.suppress(nats.errors.Error, OSError, asyncio.TimeoutError),
        ):
            await self._subscription.drain()  # type: ignore[no-untyped-call]

    async def _arrived(self, msg: Msg) -> None:
        waiter = self._oldest()
        if not msg.reply:  # a status in place of a message
            if waiter is None:
                return
            timed_out = (msg.headers or {}).get("Status") == "408"
            pause = 0.0 if timed_out else _SERVER_TROUBLE_SECONDS
            self._loop.call_later(pause, _resolve, waiter)
            return
        message = Message(msg, self._engine)
        if waiter is None:
            await _hand_back(message)
        else:
            waiter.set_result(message)

    def _oldest(self) -> asyncio.Future[Message | None] | None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None


class Engine:
    """A connection to NATS that comes back by itself.

    :param servers: URLs; credentials in them are shown to nobody else.
    :param options: Further arguments of ``nats.connect``.
    """

    def __init__(self, servers: Sequence[str], options: Mapping[str, Any]) -> None:
        self.place: Final = ", ".join(_place(server) for server in servers)
        """Hosts and ports, without credentials."""
        self._servers = list(servers)
        self._options = dict(options)
        self._client: Client | None = None
        self._js: JetStreamContext | None = None
        self._pulls: set[Pull] = set()
        self._denials: collections.deque[str] = collections.deque(maxlen=16)
        self._connecting = anyio.Lock()
        self._first: tuple[anyio.CancelScope, list[Exception]] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Engine: {self.place}>"

    async def connect(self) -> None:
        """Connect, if that was not done; later losses are made good by themselves.

        :raises ServiceUnavailable: No server can be reached.
        :raises ClusterError: They refuse the credentials.
        :raises ClientClosed: It was closed.
        """
        async with self._connecting:
            if self._closed:
                raise _closed()
            if self._client is None:
                self._client = await self._connected()
                self._js = self._client.jetstream()

    async def aclose(self) -> None:
        """Send what is still to be sent, and close the connection. May be repeated."""
        self._closed = True
        client, self._client = self._client, None
        if client is None:
            return
        with anyio.move_on_after(2 * _CLOSE_SECONDS, shield=True):
            for pull in tuple(self._pulls):
                await pull.aclose()
            with contextlib.suppress(nats.errors.Error, OSError, asyncio.TimeoutError):
                await client.flush(timeout=int(_CLOSE_SECONDS))
            await client.close()

    # --- streams and consumers --------------------------------------------------------------

    async def ensure_stream(self, name: str, settings: Settings) -> None:
        """Make a stream, or see that the one that is there is as it must be.

        :raises ClusterError: It is not; or it cannot be made.
        """
        js = self._jetstream()
        found = await self._found(f"stream {name}", js.stream_info(name))
        if found is None:
            config = StreamConfig(name=name, **settings)
            found = await self.ask(f"stream {name}", js.add_stream(config))
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
            found = await self.ask(subject, js.add_consumer(stream, config))
        _compare(subject, found.config, settings)

    async def add_listener(
        self, stream: str, name: str, settings: Settings, *, inactive_threshold: float
    ) -> None:
        """Make a consumer that ends when nobody has asked it for so many seconds."""
        config = ConsumerConfig(name=name, inactive_threshold=inactive_threshold, **settings)
        js = self._jetstream()
        await self.ask(f"consumer {name} of stream {stream}", js.add_consumer(stream, config))

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
        await self.ask(f"consumer {name}", js.delete_consumer(stream, name))

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
        js = self._jetstream()
        try:
            ack = await js.publish(subject, payload, headers=headers)
        except nats.js.errors.APIError as error:
            if _is_unwanted(error):
                return None
            fault = self._fault(subject, error)
        except (TimeoutError, nats.errors.Error, OSError) as error:
            fault = self._fault(subject, error)
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
        await self.ask(subject, self._jetstream().purge_stream(stream, subject=subject))

    @contextlib.asynccontextmanager
    async def pull(self, stream: str, consumer: str) -> AsyncIterator[Pull]:
        """Yield a `Pull` of a consumer."""
        self._jetstream()
        assert self._client is not None  # noqa: S101 - there is JetStream
        pull = Pull(self, self._client, stream, consumer)
        await self.ask(stream, pull.open())
        self._pulls.add(pull)
        try:
            yield pull
        finally:
            self._pulls.discard(pull)
            await pull.aclose()

    # --- errors -----------------------------------------------------------------------------

    async def ask(self, subject: str, call: Awaitable[_T]) -> _T:
        """Return what a call returns; its errors become ours.

        :param subject: What it is about, for the message.
        """
        try:
            return await call
        except (TimeoutError, nats.errors.Error, OSError) as error:
            fault = self._fault(subject, error)
        raise fault

    def check_permission(self, subject: str) -> None:
        """Raise what was said about a subject to which nobody answers.

        :raises ClusterError: There is no permission to publish to it.
        """
        if self._is_denied(subject):
            raise _denied(subject)

    def _is_denied(self, subject: str) -> bool:
        # nats-py makes the server's words lower case.
        return any(subject.lower() in denial for denial in self._denials)

    async def _found(self, subject: str, call: Awaitable[_T]) -> _T | None:
        try:
            return await call
        except nats.js.errors.NotFoundError:
            return None
        except (TimeoutError, nats.errors.Error, OSError) as error:
            fault = self._fault(subject, error)
        raise fault

    def _jetstream(self) -> JetStreamContext:
        if self._closed or self._js is None:
            raise _closed()
        return self._js

    def _fault(self, subject: str, error: BaseException) -> Veo3Error:
        match error:
            case nats.js.errors.APIError(code=int(code)):
                said = f"{subject}: {error.description}"
                if code >= 500 or error.err_code == _ACCOUNT_IS_FULL:
                    return ServiceUnavailable(f"NATS cannot do this now: {said}")
                return ClusterError(f"NATS refuses this: {said}")
            case nats.errors.ConnectionClosedError() if self._closed:
                return _closed()
            case nats.errors.ConnectionClosedError() | nats.errors.AuthorizationError():
                return ClusterError(f"NATS at {self.place} refuses the credentials by now")
            case nats.errors.NoRespondersError() | nats.js.errors.Error():
                return ServiceUnavailable(f"no JetStream at {self.place} answers: {subject}")
            case TimeoutError():
                if self._is_denied(subject):
                    return _denied(subject)
                return ServiceUnavailable(f"NATS at {self.place} does not answer: {subject}")
        return ServiceUnavailable(f"NATS at {self.place}: {type(error).__name__}: {subject}")

    # --- the connection ---------------------------------------------------------------------

    async def _connected(self) -> Client:
        client = Client()
        failures: list[Exception] = []
        with anyio.move_on_after(_CONNECT_SECONDS) as scope:
            self._first = (scope, failures)
            try:
                await client.connect(
                    self._servers,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=_RECONNECT_SECONDS,  # type: ignore[arg-type]  # it sleeps so long
                    error_cb=self._erred,
                    disconnected_cb=self._disconnected,
                    reconnected_cb=self._reconnected,
                    **self._options,
                )
            except (TimeoutError, nats.errors.Error, OSError) as error:
                failures.append(error)
            finally:
                self._first = None
        if client.is_connected:
            return client
        with anyio.CancelScope(shield=True), contextlib.suppress(Exception):
            await client.close()
        if any("authorization" in str(failure).lower() for failure in failures):
            message = f"NATS at {self.place} refuses the credentials"
            raise ClusterError(message)
        message = f"no NATS server can be reached at {self.place}; is one running there?"
        raise ServiceUnavailable(message)

    async def _erred(self, error: Exception) -> None:
        if self._first is not None:
            scope, failures = self._first
            failures.append(error)
            if len(failures) >= len(self._servers):
                # nats-py would try for ever; now it closes its socket, and then waits.
                asyncio.get_running_loop().call_later(_RECONNECT_SECONDS / 2, scope.cancel)
        elif _PERMISSION in (said := str(error).lower()) and said not in self._denials:
            _log.error("%s", said)
            self._denials.append(said)

    async def _disconnected(self) -> None:
        if self._client is not None:
            _log.warning("the connection to NATS at %s is lost; it is tried again", self.place)

    async def _reconnected(self) -> None:
        _log.warning("the connection to NATS at %s is back", self.place)
        for pull in tuple(self._pulls):
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


async def _hand_back(message: Message) -> None:
    with anyio.move_on_after(_CLOSE_SECONDS, shield=True), contextlib.suppress(Veo3Error):
        await message.again()


def _resolve(waiter: asyncio.Future[Message | None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _is_unwanted(error: nats.js.errors.APIError) -> bool:
    if error.err_code in _WRONG_LAST_SEQUENCE:
        return True
    return error.err_code == _STORE_FAILED and _PER_SUBJECT in (error.description or "")


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


def _place(server: str) -> str:
    try:
        parts = urllib.parse.urlsplit(server if "://" in server else f"nats://{server}")
        host, port = parts.hostname, parts.port or 4222
    except ValueError:
        host = None
    if not host:
        message = "servers are URLs such as 'nats://127.0.0.1:4222'"  # and may hold a password
        raise ValueError(message)
    return f"{host}:{port}"


def _denied(subject: str) -> ClusterError:
    return ClusterError(f"NATS gives this user no permission for {subject}")


def _closed() -> ClientClosed:
    return ClientClosed("this cluster is not connected, or was closed")
