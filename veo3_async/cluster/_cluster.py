"""The face: watching on several machines."""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import anyio
import msgspec

from veo3_async._arguments import positive, seconds
from veo3_async._errors import ServiceUnavailable, Veo3Error
from veo3_async.cluster._changes import Changes
from veo3_async.cluster._names import Names, checked, permits, pollers
from veo3_async.cluster._nats.jetstream import Engine
from veo3_async.cluster._permits import read_rate
from veo3_async.cluster._rate import rate_at, round_of
from veo3_async.cluster._worker import PERMITS, POLLERS, Worker

if TYPE_CHECKING:
    from veo3_async._client import Veo3Client

__all__ = ["Cluster", "ClusterStats"]

_log = logging.getLogger("veo3_async")

_IN_FLIGHT: Final = 128
_AGAIN_SECONDS: Final = 1.0


class ClusterStats(msgspec.Struct, frozen=True, kw_only=True):
    """What all workers are doing, at one moment."""

    outstanding: int
    """Ids that are watched and not final."""
    unpolled: int
    """Of these, how many no worker has taken yet."""
    pending: int
    """Of these, how many are in a worker's hand or wait for their next poll."""
    redelivered: int
    """Of these, how many were polled more than once."""
    workers: int
    """Workers alive; one that died counts for up to 15 s more."""
    rate: float | None
    """Polls a second that are allowed now to all together; None before the first worker."""
    paused: float
    """Seconds until polling goes on, as the service asked; 0 where it is not paused."""


class Cluster:
    """The watching on NATS JetStream: any process hands ids in, any worker polls them.

    Made anywhere; connects when it is first used, and comes back by itself whenever the
    connection is lost. Ended by ``async with`` or by `aclose`.

    :param servers: URL of a NATS server, or several of one cluster.
    :param prefix: What the names of streams and subjects begin with: one for each API key.
    :param replicas: Copies of each stream, 1 to 5: 3 where the server is a cluster of three.
    :param max_polls_per_second: Physical requests a second that all workers together never
        exceed, over 0; the same for all workers.
    :param ack_wait: Seconds (``float`` or ``timedelta``) after which an id of a worker that died
        goes to another; the same for all workers.
    :param options: Further arguments of ``nats.connect``, such as ``user_credentials``.
    :raises ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        servers: str | Sequence[str] = "nats://127.0.0.1:4222",
        *,
        prefix: str = "veo3",
        replicas: int = 1,
        max_polls_per_second: float = 20.0,
        ack_wait: float | datetime.timedelta = 60.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(replicas, int) or not 1 <= replicas <= 5:
            message = f"replicas is 1 to 5, not {replicas!r}"
            raise ValueError(message)
        self._names: Final = Names(prefix)
        self._replicas: Final = replicas
        self._max_rate: Final = positive("max_polls_per_second", max_polls_per_second)
        self._ack_wait: Final = seconds("ack_wait", ack_wait)
        self._engine: Final = Engine(
            [servers] if isinstance(servers, str) else servers, options or {}
        )
        self._setting_up: Final = anyio.Lock()
        self._is_set_up = False

    def __repr__(self) -> str:
        return f"<Cluster: {self._names.prefix} on {self._engine.place}>"

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def connect(self) -> None:
        """Connect, and make the streams that are missing. May be repeated.

        :raises ServiceUnavailable: No server can be reached.
        :raises ClusterError: NATS refuses the credentials, or a stream has other settings.
        :raises ClientClosed: The cluster was closed.
        """
        await self._engine.connect()
        async with self._setting_up:
            if not self._is_set_up:
                for name, settings in self._names.streams(self._replicas).items():
                    await self._engine.ensure_stream(name, settings)
                self._is_set_up = True

    async def aclose(self) -> None:
        """Close the connection; what is watched stays watched. May be repeated."""
        await self._engine.aclose()

    async def watch(self, *request_ids: str) -> None:
        """Hand ids in, to be polled until they are final; watching twice is watching once.

        When it returns, the server has them.

        :raises InvalidRequest: One of the ids cannot be one; nothing is watched then.
        :raises ServiceUnavailable: NATS does not take them; some may be watched, try again.
        """
        ids = checked(request_ids)
        await self.connect()
        await self._publish_all([self._names.watch_of(request_id) for request_id in ids])

    async def submit(
        self,
        client: Veo3Client,
        prompt: str,
        *,
        image: str | None = None,
        model: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """Submit a task, hand its id in, and return it; parameters as for `Veo3Client.submit`.

        :raises Veo3Error: As `Veo3Client.submit`; or it was submitted, and NATS did not take the
            id, which is in ``request_id`` then: `watch` it.
        """
        await self.connect()  # before it costs money
        request_id = await client.submit(prompt, image=image, model=model, extra=extra)
        try:
            await self.watch(request_id)
        except Veo3Error as error:
            error.request_id = request_id
            raise
        return request_id

    async def work(
        self,
        client: Veo3Client,
        *,
        slots: int = 32,
        stop: asyncio.Event | anyio.Event | None = None,
    ) -> None:
        """Poll what is watched, together with all other workers, until ``stop`` is set.

        A worker that stops, is cancelled, or fails finishes or hands back what it has in hand.

        :param client: Sends the polls, with its key, its throttle and its pacing.
        :param slots: Ids in hand at once, at least 1.
        :param stop: An event that ends it; None works until cancelled.
        :raises AuthenticationError: The key is refused; the ids stay in the stream.
        :raises QuotaExceeded: The balance or a quota is used up; likewise.
        :raises ClusterError: NATS refuses something, or other workers have other settings.
        :raises ServiceUnavailable: No NATS server can be reached at the beginning. One that is
            reached and can do nothing, such as one with a full disk, is waited for.
        """
        if slots < 1:
            message = f"slots is at least 1, not {slots!r}"
            raise ValueError(message)
        await self._engine.connect()
        if not await self._prepared(stop):
            return
        worker = Worker(
            self._engine,
            self._names,
            client,
            slots=slots,
            ack_wait=self._ack_wait,
            max_rate=self._max_rate,
        )
        await worker.run(stop)

    def transitions(
        self,
        *request_ids: str,
        since: datetime.datetime | float | None = None,
        name: str | None = None,
    ) -> Changes:
        """Return the transitions of these ids, or of all where none is given.

        Any number may listen. The last transition of each id comes first, and then what changes.

        :param since: A moment (a datetime with a zone, or seconds since the epoch): what came
            since then is told, in place of the last transition of each id.
        :param name: A listener to all ids whose place is kept: under the same name it goes on
            after a restart with what it has not dealt with.
        :raises InvalidRequest: One of the ids cannot be one.
        :raises ValueError: There is a name and there are ids; or one of the others is none.
        """
        return Changes(
            self._engine,
            self._names,
            self.connect,
            checked(request_ids),
            replicas=self._replicas,
            since=since,
            name=name,
        )

    async def stats(self) -> ClusterStats:
        """Return what all workers are doing.

        :raises ServiceUnavailable: NATS does not answer.
        """
        await self.connect()
        names, engine = self._names, self._engine
        watched = await engine.stream(names.watch)
        workers = await engine.stream(names.workers)
        rates = await engine.stream(names.rate)
        queue = await engine.consumer(names.watch, POLLERS)
        _, shared = await read_rate(engine, names)
        now = time.time()
        outstanding = 0 if watched is None else watched.messages
        said = None if rates is None else rates.metadata.get("max_polls_per_second")
        return ClusterStats(
            outstanding=outstanding,
            unpolled=outstanding if queue is None else queue.unasked,
            pending=0 if queue is None else queue.pending,
            redelivered=0 if queue is None else queue.redelivered,
            workers=0 if workers is None else workers.messages,
            rate=None if said is None else rate_at(shared, now, float(said)),
            paused=max(0.0, shared.paused_until - now),
        )

    async def _prepared(self, stop: asyncio.Event | anyio.Event | None) -> bool:
        """Make what workers need, as soon as NATS can; return False where it was stopped."""
        told = False
        while stop is None or not stop.is_set():
            try:
                await self.connect()
                await self._prepare_work()
            except ServiceUnavailable as error:
                if not told:
                    _log.warning("the work begins when NATS can do this: %s", error)
                told = True
                with anyio.move_on_after(_AGAIN_SECONDS):
                    await (anyio.sleep_forever() if stop is None else stop.wait())
            else:
                return True
        return False

    async def _prepare_work(self) -> None:
        names, engine = self._names, self._engine
        await engine.ensure_stream(names.rate, names.rate_stream(self._replicas, self._max_rate))
        await engine.ensure_consumer(names.watch, POLLERS, pollers(self._ack_wait))
        await engine.ensure_consumer(names.rate, PERMITS, permits())
        count, _ = round_of(self._max_rate)
        await self._publish_all([names.permit(number) for number in range(count)])

    async def _publish_all(self, subjects: Sequence[str]) -> None:
        """Store an empty message under each subject that has none; the first error ends it."""
        rest = iter(subjects)
        failures: list[Veo3Error] = []

        async def publish() -> None:
            for subject in rest:
                if failures:
                    return
                try:
                    await self._engine.publish(subject, b"")
                except Veo3Error as error:
                    failures.append(error)

        async with anyio.create_task_group() as tasks:
            for _ in range(min(_IN_FLIGHT, len(subjects))):
                tasks.start_soon(publish)
        if failures:
            raise failures[0]
