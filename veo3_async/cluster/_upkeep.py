"""Looks after the engine: what somebody removed from it is made again, and said.

An operator deletes a consumer, purges a stream, or loses the whole store of a server: the server
is there and everything seems well, but nothing is polled any more. So what was made is compared
with what is there, every 10 s, at each sign of trouble, and before a submission costs money.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import datetime
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import anyio

from veo3_async._cancellation import ended
from veo3_async._errors import ClientClosed, ServiceUnavailable, Veo3Error
from veo3_async.cluster._errors import ClusterError
from veo3_async.cluster._names import Names
from veo3_async.cluster._nats.errors import NoJetStreamError
from veo3_async.cluster._nats.jetstream import Engine
from veo3_async.cluster._nats.state import StreamState
from veo3_async.cluster._record import Record, decode
from veo3_async.cluster._watched import Watched

__all__ = ["Duty", "Upkeep", "for_each"]

_log = logging.getLogger("veo3_async")

_T = TypeVar("_T")

Duty = Callable[[], Awaitable[list[str]]]
"""Makes what one part of the cluster needs; returns in words what was missing."""

_LOOK_SECONDS: Final = 10.0
_AGAIN_SECONDS: Final = 1.0
_LEAST_SECONDS: Final = 0.5  # between two looks, however much trouble there is
_SILENT_SECONDS: Final = 30.0  # a server that starts has its JetStream long before
_LOOKED_AFTER: Final = 1024  # ids at one look
_IN_FLIGHT: Final = 128


class Upkeep:
    """What must be at the engine: made where it is missing, as long as this process goes on.

    :param replicas: Copies of each stream.
    :param keep: Seconds for which records are kept.
    """

    def __init__(self, engine: Engine, names: Names, *, replicas: int, keep: float) -> None:
        self.watched: Final = Watched()
        self._engine = engine
        self._names = names
        self._streams = names.streams(replicas, keep)
        self._duties: list[Duty] = []
        self._created: dict[str, datetime.datetime | None] = {}
        self._looking = anyio.Lock()
        self._looked_at: float | None = None
        self._silent_since = math.inf
        self._is_doubtful = asyncio.Event()
        self._failure: Veo3Error | None = None
        self._failed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def doubt(self) -> None:
        """Look soon: something does not answer as it should."""
        self._is_doubtful.set()

    def check(self) -> None:
        """Raise what makes waiting senseless.

        :raises ClusterError: Something is missing and cannot be made again.
        """
        if self._failure is not None:
            raise self._failure

    async def failed(self) -> None:
        """Wait until waiting is senseless, and raise why.

        :raises ClusterError: As `check`.
        """
        await self._failed.wait()
        self.check()

    async def ensure(self) -> None:
        """See that everything is there, at this moment or within the last second.

        :raises ServiceUnavailable: NATS cannot be reached, or cannot do it now.
        :raises ClusterError: Something is missing and cannot be made, or has other settings.
        :raises ClientClosed: The cluster was closed.
        """
        await self._engine.connect()
        loop = asyncio.get_running_loop()
        async with self._looking:
            if (
                self._looked_at is None
                or self._is_doubtful.is_set()
                or loop.time() >= self._looked_at + _AGAIN_SECONDS
            ):
                await self._look()
        if self._task is None:
            self._task = loop.create_task(
                self._run(),
                name="veo3_async cluster",
                context=contextvars.Context(),  # the caller's cancel scopes are not ours
            )

    async def add(self, duty: Duty) -> None:
        """Do a duty now, and look after what it makes until `remove`.

        :raises ServiceUnavailable: As `ensure`.
        :raises ClusterError: As `ensure`.
        """
        await self.ensure()
        async with self._looking:
            await duty()
            self._duties.append(duty)

    def remove(self, duty: Duty) -> None:
        """Look after something no longer."""
        if duty in self._duties:
            self._duties.remove(duty)

    async def aclose(self) -> None:
        """Look after nothing any more. May be repeated."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await ended(task)

    # --- looking ------------------------------------------------------------------------------

    async def _run(self) -> None:
        wait = _LOOK_SECONDS
        while True:
            with anyio.move_on_after(wait):
                await self._is_doubtful.wait()
                await anyio.sleep(_LEAST_SECONDS)
            wait = _LOOK_SECONDS
            try:
                async with self._looking:
                    await self._look()
            except ServiceUnavailable as error:
                _log.debug("the streams are looked at again in a second: %s", error)
                wait = _AGAIN_SECONDS
            except ClientClosed:
                return
            except Veo3Error as error:
                self._fail(error)
            except Exception as bug:  # noqa: BLE001 - whoever waits must not wait for ever
                _log.exception("internal error, please report it: the streams are not looked after")
                self._fail(ServiceUnavailable(f"internal error, please report it: {bug!r}"))

    def _fail(self, error: Veo3Error) -> None:
        if self._failure is None:
            _log.error("NATS needs its operator: %s", error)
        self._failure = error
        self._failed.set()
        self._engine.wake()

    async def _look(self) -> None:
        """See that everything is there.

        :raises ClusterError: As `ensure`; or there was no JetStream for half a minute.
        """
        now = asyncio.get_running_loop().time()
        try:
            await self._look_at_all()
        except NoJetStreamError as error:
            self._silent_since = min(self._silent_since, now)
            if now - self._silent_since < _SILENT_SECONDS:
                raise
            message = f"{error}; start the server with JetStream (-js), or name one that has it"
            raise ClusterError(message) from None
        self._silent_since = math.inf

    async def _look_at_all(self) -> None:
        self._is_doubtful.clear()
        missing: list[str] = []
        states: dict[str, StreamState] = {}
        for name, settings in self._streams.items():
            states[name] = await self._engine.ensure_stream(name, settings)
            before = self._created.get(name)
            self._created[name] = states[name].created
            if before is not None and before != states[name].created:
                missing.append(f"stream {name}")
        for duty in self._duties:
            missing += await duty()
        watch = states[self._names.watch]
        is_lost = f"stream {self._names.watch}" in missing
        handed_in = 0
        if is_lost or watch.messages < len(self.watched):
            handed_in = await self._hand_in_again(None if is_lost else _LOOKED_AFTER)
        self._looked_at = asyncio.get_running_loop().time()
        self._failure = None
        self._failed.clear()
        if missing or handed_in:
            _log.warning(
                "removed from NATS at %s, and made again: %s; ids handed in again: %d",
                self._engine.place,
                ", ".join(missing) or "nothing",
                handed_in,
            )

    async def _hand_in_again(self, most: int | None) -> int:
        """Hand in what this process watches and has not ended; return how many were missing."""
        count = 0

        async def hand_in(item: tuple[str, bytes]) -> None:
            nonlocal count
            request_id, payload = item
            record = await self._record(request_id)
            if record is not None and record.ended:
                self.watched.discard(request_id)
            elif await self._engine.publish(self._names.watch_of(request_id), payload) is not None:
                count += 1

        await for_each(self.watched.oldest(most), hand_in)
        return count

    async def _record(self, request_id: str) -> Record | None:
        subject = self._names.change_of(request_id)
        found = await self._engine.last(self._names.change, subject, fresh=True)
        with contextlib.suppress(ValueError):
            return None if found is None else decode(found[1], request_id)
        return None


async def for_each(items: Sequence[_T], call: Callable[[_T], Awaitable[object]]) -> None:
    """Call for each item, many at once; the first error of ours ends it and is raised."""
    rest = iter(items)
    failures: list[Veo3Error] = []

    async def work() -> None:
        for item in rest:
            if failures:
                return
            try:
                await call(item)
            except Veo3Error as error:
                failures.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(min(_IN_FLIGHT, len(items))):
            tasks.start_soon(work)
    if failures:
        raise failures[0]
