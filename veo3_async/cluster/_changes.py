"""The iterator over what all workers see."""

from __future__ import annotations

import contextlib
import datetime
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

import anyio

from veo3_async._errors import ServiceUnavailable, Veo3Error
from veo3_async._models import Phase, Transition
from veo3_async.cluster._names import Names, Settings, listener, request_id_of
from veo3_async.cluster._nats.jetstream import Engine
from veo3_async.cluster._nats.pull import Message, Pull
from veo3_async.cluster._record import Record, decode

__all__ = ["Changes"]

_log = logging.getLogger("veo3_async")

_FORGOTTEN_SECONDS: Final = 300.0
_MAX_FILTERS: Final = 100  # subjects that the server sorts out; more are sorted out here
_AGAIN_SECONDS: Final = 1.0
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Changes:
    """Transitions of ids, whoever polls them; an async iterator and async context manager.

    Who comes late gets the last transition of each id first, and then what changes. Each change
    comes once, in order by id. It ends when all the ids that were given are final.
    """

    def __init__(
        self,
        engine: Engine,
        names: Names,
        connect: Callable[[], Awaitable[None]],
        request_ids: Sequence[str],
        *,
        replicas: int,
        since: datetime.datetime | float | None,
        name: str | None,
    ) -> None:
        if name is not None and (request_ids or not _NAME.fullmatch(name)):
            message = (
                "a named listener listens to all ids, and its name is 1 to 64 letters, digits, "
                f"- and _: not {name!r} with {len(request_ids)} ids"
            )
            raise ValueError(message)
        self._engine = engine
        self._names = names
        self._connect = connect
        self._wanted = set(request_ids)
        self._all = not request_ids
        self._settings = listener(replicas)
        self._begin = _beginning(since)
        self._durable = name is not None
        self._name = name or f"listener-{uuid.uuid4().hex}"
        self._pull: Pull | None = None
        self._exit = contextlib.AsyncExitStack()
        self._message: Message | None = None
        self._position = 0
        self._floor = 0
        self._serials: dict[str, int] = {}
        self._closed = False

    def __repr__(self) -> str:
        of = "all ids" if self._all else f"{len(self._wanted)} ids"
        return f"<Changes: {self._name}, {of}>"

    async def __aenter__(self) -> Self:
        await self._opened()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Transition:
        """Return the next change; the one before counts as dealt with.

        :raises ServiceUnavailable: NATS cannot be reached, at the first time.
        :raises ClusterError: NATS refuses to tell.
        """
        while not self._closed and (self._all or self._wanted):
            pull = await self._opened()
            await self._deal_with_last()
            message = await pull.next()
            if message is None:
                await self._look_after_consumer()
                continue
            try:
                change = await self._new_in(message)
            except BaseException:
                await message.hand_back()
                raise
            self._message = message
            if change is not None:
                return change
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Listen no more; a named listener can go on later. May be repeated."""
        self._closed = True
        with (
            anyio.move_on_after(2.0, shield=True),
            contextlib.suppress(Veo3Error),
        ):
            message, self._message = self._message, None
            if message is not None and (self._all or self._wanted):
                await message.again()
            elif message is not None:
                await message.read()
            await self._exit.aclose()
            if self._pull is not None and not self._durable:
                self._pull = None
                await self._engine.remove_consumer(self._names.change, self._name)

    async def _opened(self) -> Pull:
        if self._pull is not None:
            return self._pull
        await self._connect()
        await self._make_consumer()
        pull = self._engine.pull(self._names.change, self._name)
        self._pull = await self._exit.enter_async_context(pull)
        return self._pull

    async def _make_consumer(self) -> None:
        settings: Settings = {**self._settings, **self._beginning(), **self._filter()}
        stream = self._names.change
        if not self._durable:
            await self._engine.add_listener(
                stream, self._name, settings, inactive_threshold=_FORGOTTEN_SECONDS
            )
            return
        found = await self._engine.consumer(stream, self._name)
        if found is not None:
            self._floor = found.floor
            settings = self._settings  # where it began is long past
        await self._engine.ensure_consumer(stream, self._name, settings)

    def _beginning(self) -> dict[str, Any]:
        if self._position:
            return {"deliver_policy": "by_start_sequence", "opt_start_seq": self._position + 1}
        return self._begin

    def _filter(self) -> dict[str, Any]:
        if self._all or len(self._wanted) > _MAX_FILTERS:
            return {"filter_subjects": [self._names.any_change]}
        return {"filter_subjects": sorted(self._names.change_of(i) for i in self._wanted)}

    async def _deal_with_last(self) -> None:
        message, self._message = self._message, None
        if message is not None:
            await message.read()

    async def _look_after_consumer(self) -> None:
        """Make the consumer anew where a server that died has taken it along."""
        try:
            if await self._engine.consumer(self._names.change, self._name) is None:
                await self._make_consumer()
        except ServiceUnavailable as error:
            _log.info("listening waits for NATS: %s", error)
            await anyio.sleep(_AGAIN_SECONDS)

    async def _new_in(self, message: Message) -> Transition | None:
        """Return the transition of a message, if it was not told yet and is not of a past life."""
        if message.sequence <= self._position:
            return None  # delivered again, for it took long to deal with
        change = None
        try:
            record = decode(message.data, request_id_of(message.subject))
        except ValueError as error:
            _log.error("a message of %s is passed over: %s", self._names.change, error)
        else:
            if self._is_new(record, message.sequence) and not await self._lives_again(record):
                change = record.change
                self._note(record)
        self._position = message.sequence
        return change

    def _is_new(self, record: Record, sequence: int) -> bool:
        wanted = self._all or record.request_id in self._wanted
        told = self._serials.get(record.request_id, 0)
        news = record.news or sequence
        return record.change is not None and wanted and record.serial > told and news > self._floor

    def _note(self, record: Record) -> None:
        self._serials[record.request_id] = record.serial
        if record.final:
            del self._serials[record.request_id]
            self._wanted.discard(record.request_id)

    async def _lives_again(self, record: Record) -> bool:
        """Return whether a lost id is watched once more, so that its end is none to wait for."""
        if self._all or not record.final or record.state.phase is not Phase.LOST:
            return False
        subject = self._names.watch_of(record.request_id)
        while True:
            try:
                watch = await self._engine.last(self._names.watch, subject, fresh=True)
            except ServiceUnavailable as error:
                _log.info("listening waits for NATS: %s", error)
                await anyio.sleep(_AGAIN_SECONDS)
            else:
                return watch is not None and watch[0] != record.watch


def _beginning(since: datetime.datetime | float | None) -> dict[str, Any]:
    if since is None:
        return {"deliver_policy": "last_per_subject"}
    if isinstance(since, datetime.datetime):
        if since.tzinfo is None:
            message = "since is a datetime with a zone, or seconds since the epoch"
            raise ValueError(message)
        moment = since.astimezone(datetime.UTC)
    else:
        moment = datetime.datetime.fromtimestamp(since, datetime.UTC)
    return {"deliver_policy": "by_start_time", "opt_start_time": moment}
