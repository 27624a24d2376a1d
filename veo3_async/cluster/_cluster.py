"""The face: watching on several machines."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Self, Unpack

import anyio

from veo3_async._arguments import positive, seconds
from veo3_async._errors import ServiceUnavailable, Veo3Error
from veo3_async._metadata import Origin
from veo3_async.cluster._changes import Changes
from veo3_async.cluster._environment import chosen_servers, connect_options
from veo3_async.cluster._key import KeyMark
from veo3_async.cluster._names import Names, checked, permits, pollers
from veo3_async.cluster._nats.jetstream import Engine
from veo3_async.cluster._origin import encode_origin, made_origin
from veo3_async.cluster._permits import PERMITS
from veo3_async.cluster._rate import round_of
from veo3_async.cluster._record import decode
from veo3_async.cluster._room import check_room
from veo3_async.cluster._stats import ClusterStats, read_stats
from veo3_async.cluster._upkeep import Duty, Upkeep, for_each
from veo3_async.cluster._worker import POLLERS, Worker

if TYPE_CHECKING:
    from veo3_async._client import Veo3Client
    from veo3_async._polling.submissions import ImageSource
    from veo3_async._protocol.families import SubmitOptions

__all__ = ["Cluster"]

_log = logging.getLogger("veo3_async")

_AGAIN_SECONDS: Final = 1.0
_LEAST_KEEP: Final = 3600.0


class Cluster:
    """The watching on NATS JetStream: any process hands ids in, any worker polls them.

    Made anywhere; connects when it is first used, and comes back by itself whenever the
    connection is lost. Ended by ``async with`` or by `aclose`.

    :param servers: URL of a NATS server, or several of one cluster; None takes ``NATS_URL``, else
        the port 4222 of this machine.
    :param prefix: What the names of streams and subjects begin with: one for each API key. 1 to 64
        letters, digits, ``-`` and ``_``.
    :param replicas: Copies of each stream, 1 to 5: 3 where the server is a cluster of three.
    :param max_polls_per_second: Physical requests a second that all workers together never
        exceed, over 0; the same for all workers.
    :param ack_wait: Seconds (``float`` or ``timedelta``) after which an id of a worker that died
        goes to another; the same for all workers.
    :param keep: How long records are kept, with prompts and URLs of videos: seconds or
        ``timedelta``, at least an hour; the same for all.
    :param options: Further arguments of ``nats.connect``, such as ``user_credentials``; what is
        not given is taken from the environment: ``NATS_USER``, ``NATS_PASSWORD``, ``NATS_TOKEN``,
        ``NATS_CREDS``, ``NATS_CA``, ``NATS_CERT``, ``NATS_KEY``.
    :raises ValueError: An argument is out of its range, or a file that is named cannot be read.
    """

    def __init__(
        self,
        servers: str | Sequence[str] | None = None,
        *,
        prefix: str = "veo3",
        replicas: int = 1,
        max_polls_per_second: float = 20.0,
        ack_wait: float | datetime.timedelta = 60.0,
        keep: float | datetime.timedelta = datetime.timedelta(days=30),
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
            chosen_servers(servers, os.environ),
            connect_options(options or {}, os.environ),
            trouble=self._doubt,
        )
        self._upkeep: Final = Upkeep(
            self._engine, self._names, replicas=replicas, keep=_kept_for(keep)
        )

    def __repr__(self) -> str:
        return f"<Cluster: {self._names.prefix} on {self._engine.place}>"

    async def __aenter__(self) -> Self:
        """Connect; where NATS is away, later, when it is first used and there.

        :raises ClusterError: As `connect`.
        :raises ClientClosed: As `connect`.
        """
        try:
            await self.connect()
        except ServiceUnavailable as error:
            _log.warning("connected later, when it is used: %s", error)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def connect(self) -> None:
        """Connect, and make the streams that are missing. May be repeated.

        :raises ServiceUnavailable: No server can be reached.
        :raises ClusterError: NATS refuses the credentials, or a stream has other settings.
        :raises ClientClosed: The cluster was closed.
        """
        await self._upkeep.ensure()

    async def aclose(self) -> None:
        """Close the connection; what is watched stays watched. May be repeated."""
        await self._upkeep.aclose()
        await self._engine.aclose()

    async def watch(
        self,
        *request_ids: str,
        model: str | None = None,
        family: str | None = None,
        metadata: Any = None,  # noqa: ANN401 - whatever JSON can say
    ) -> None:
        """Hand ids in, to be polled until they are final; watching twice is watching once.

        When it returns, the server has them. As long as this process goes on, it hands in again
        what somebody removed from NATS.

        :param model: Where they are polled, as for `Veo3Client.watch`; None: by their prefix, else
            where the client of the worker polls.
        :param family: As for `Veo3Client.watch`.
        :param metadata: Anything JSON can say, up to 16 kB: it comes back in each `Transition`.
        :raises InvalidRequest: One of the ids cannot be one, or another argument; nothing is
            watched then.
        :raises ServiceUnavailable: NATS does not take them; some may be watched, try again.
        :raises ClusterError: NATS refuses.
        """
        ids = checked(request_ids)
        await self._hand_in(ids, made_origin(model, family, metadata))

    async def submit(
        self,
        client: Veo3Client,
        prompt: str,
        *,
        image: ImageSource | Sequence[ImageSource] | None = None,
        model: str | None = None,
        family: str | None = None,
        metadata: Any = None,  # noqa: ANN401 - whatever JSON can say
        webhook: str | None = None,
        extra: Mapping[str, Any] | None = None,
        **options: Unpack[SubmitOptions],
    ) -> str:
        """Submit a task, hand its id in, and return it; parameters as for `Veo3Client.submit`.

        NATS is asked before, so that nothing is paid that could not be watched.

        :raises Veo3Error: As `Veo3Client.submit`; or NATS cannot take ids, and nothing was paid; or
            it was submitted, and NATS did not take the id, which is in ``request_id`` then:
            `watch` it.
        """
        await self.connect()
        mark = KeyMark(self._engine, self._names, client)
        await mark.check()
        await check_room(self._engine, self._names)
        request_id = await client.submit(
            prompt,
            image=image,
            model=model,
            family=family,
            metadata=metadata,
            webhook=webhook,
            extra=extra,
            **options,
        )
        try:
            await self._hand_in([request_id], client.runtime.origin_of(request_id))
            await mark.accepted()
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
        :raises ClusterError: NATS refuses something, or other workers have other settings or
            another API key. Where NATS cannot be reached or can do nothing, it is waited for.
        """
        if slots < 1:
            message = f"slots is at least 1, not {slots!r}"
            raise ValueError(message)
        mark = KeyMark(self._engine, self._names, client)
        needs = functools.partial(self._work_needs, mark)
        if not await self._prepared(needs, stop):
            return
        worker = Worker(
            self._engine,
            self._names,
            self._upkeep,
            client,
            mark,
            slots=slots,
            ack_wait=self._ack_wait,
            max_rate=self._max_rate,
        )
        try:
            await worker.run(stop)
        finally:
            self._upkeep.remove(needs)

    def transitions(
        self,
        *request_ids: str,
        since: datetime.datetime | float | None = None,
        name: str | None = None,
    ) -> Changes:
        """Return the transitions of these ids, or of all where none is given.

        Any number may listen. The last transition of each id comes first, and then what changes.

        :param since: A moment (a datetime with a zone, or seconds since the epoch): what came
            since then is delivered, in place of the last transition of each id.
        :param name: A listener to all ids whose place is kept: under the same name it goes on
            after a restart with what it has not dealt with.
        :raises InvalidRequest: One of the ids cannot be one.
        :raises ValueError: There is a name and there are ids; or one of the others is none.
        """
        return Changes(
            self._engine,
            self._names,
            self._upkeep,
            checked(request_ids),
            since=since,
            name=name,
        )

    async def stats(self) -> ClusterStats:
        """Return what all workers are doing.

        :raises ServiceUnavailable: NATS does not answer, or stores nothing.
        :raises ClusterError: NATS refuses.
        """
        await self.connect()
        await check_room(self._engine, self._names)
        return await read_stats(self._engine, self._names)

    # --- parts ------------------------------------------------------------------------------

    def _doubt(self) -> None:
        self._upkeep.doubt()

    async def _hand_in(self, ids: Sequence[str], origin: Origin) -> None:
        await self.connect()
        payload = encode_origin(origin)
        await for_each(ids, functools.partial(self._watch, payload=payload))
        self._upkeep.watched.add(ids, payload)

    async def _watch(self, request_id: str, *, payload: bytes) -> None:
        """Store the message by which an id is watched, in place of that of a lost one."""
        subject = self._names.watch_of(request_id)
        if await self._engine.publish(subject, payload) is not None:
            return
        found = await self._engine.last(self._names.change, self._names.change_of(request_id))
        with contextlib.suppress(ValueError):
            record = None if found is None else decode(found[1], request_id)
            if record is not None and record.final and not record.ended:
                await self._engine.purge(self._names.watch, subject)
                await self._engine.publish(subject, payload)

    async def _prepared(self, needs: Duty, stop: asyncio.Event | anyio.Event | None) -> bool:
        """Make what workers need, as soon as NATS can; return False where it was stopped."""
        is_waiting = False
        while stop is None or not stop.is_set():
            try:
                await self._upkeep.add(needs)
            except ServiceUnavailable as error:
                if not is_waiting:
                    _log.warning("the work begins when NATS can do this: %s", error)
                is_waiting = True
                with anyio.move_on_after(_AGAIN_SECONDS):
                    await (anyio.sleep_forever() if stop is None else stop.wait())
            else:
                return True
        return False

    async def _work_needs(self, mark: KeyMark) -> list[str]:
        """Make what is missing of what workers need; return in words what that was."""
        names, engine = self._names, self._engine
        missing = []
        await mark.check()
        settings = names.rate_stream(self._replicas, self._max_rate)
        rates = await engine.ensure_stream(names.rate, settings)
        if await engine.ensure_consumer(names.watch, POLLERS, pollers(self._ack_wait)):
            missing.append(f"consumer {POLLERS}")
        if await engine.ensure_consumer(names.rate, PERMITS, permits()):
            missing.append(f"consumer {PERMITS}")
        count, _ = round_of(self._max_rate)
        if rates.messages < count:
            missing.append(f"{count - rates.messages} permits")
            await for_each(
                [names.permit(number) for number in range(count)],
                lambda permit: engine.publish(permit, b""),
            )
        return missing


def _kept_for(keep: float | datetime.timedelta) -> float:
    kept = seconds("keep", keep)
    if kept < _LEAST_KEEP:
        message = f"keep is at least an hour, not {keep!r}"
        raise ValueError(message)
    return kept
