"""The iterator over what all workers see."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime
import logging
import re
import time
from collections.abc import Sequence
from typing import Any, Final, Self

import anyio

from veo3_async._errors import ServiceUnavailable, Veo3Error
from veo3_async._models import Phase, Transition
from veo3_async.cluster._bookmark import Bookmark
from veo3_async.cluster._names import Names, request_id_of
from veo3_async.cluster._nats.feed import Entry, Feed
from veo3_async.cluster._nats.jetstream import Engine
from veo3_async.cluster._origin import encode_origin
from veo3_async.cluster._record import Record, decode
from veo3_async.cluster._unread import Unread
from veo3_async.cluster._upkeep import Upkeep
from veo3_async.cluster._watched import Watched

__all__ = ["Changes"]

_log = logging.getLogger("veo3_async")

_MAX_FILTERS: Final = 100  # subjects that the server sorts out; more are sorted out here
_AGAIN_SECONDS: Final = 1.0
_HAND_IN_SECONDS: Final = 30.0
"""After so long without a word of ids, their listener makes sure that they are watched."""
_SAVE_SECONDS: Final = 1.0
"""How often a named listener saves its place while it has something to read."""
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Changes:
    """Transitions of ids, whoever polls them; an async iterator and async context manager.

    Who comes late gets the last transition of each id first, and then what changes. Each change
    comes once, in order by id. It ends when all the ids that were given are final. Where somebody
    removed changes from NATS before they were read here, the log says so, and what is still
    watched goes on from its present state.
    """

    def __init__(
        self,
        engine: Engine,
        names: Names,
        upkeep: Upkeep,
        request_ids: Sequence[str],
        *,
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
        self._upkeep = upkeep
        self._name = name
        self._bookmark = None if name is None else Bookmark(engine, names, name)
        self._beginning = _beginning(since)
        self._unread = Unread(request_ids)
        self._open = Watched()
        self._gaps = 0
        self._feed: Feed | None = None
        self._created: datetime.datetime | None = None
        self._exit = contextlib.AsyncExitStack()
        self._entries: collections.deque[Entry] = collections.deque()
        self._given = 0
        self._dealt_with = 0
        self._save_at = 0.0
        self._hand_in_at = 0.0
        self._is_waiting = False
        self._closed = False

    def __repr__(self) -> str:
        of = "all ids" if self._unread.is_for_all else f"{len(self._unread.wanted)} ids"
        return f"<Changes: {self._name or 'unnamed'}, {of}>"

    async def __aenter__(self) -> Self:
        await self._waited()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Transition:
        """Return the next change; the one before counts as dealt with.

        As long as NATS cannot be reached it waits.

        :raises ClusterError: NATS refuses to tell.
        """
        self._dealt_with = self._given
        while not self._closed and not self._unread.is_over:
            if not self._entries:
                await self._refill()
                continue
            if self._bookmark is not None and time.monotonic() >= self._save_at:
                await self._save(self._bookmark)
            change = await self._read(self._entries[0])
            self._given = self._entries.popleft().sequence
            if change is not None:
                return change
            self._dealt_with = self._given
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Listen no more; a named listener can go on later. May be repeated."""
        self._closed = True
        with anyio.move_on_after(2.0, shield=True), contextlib.suppress(Veo3Error):
            if self._bookmark is not None:
                await self._bookmark.save(self._dealt_with, self._created)
            await self._exit.aclose()

    # --- the stream ---------------------------------------------------------------------------

    async def _waited(self) -> Feed:
        """Return the feed, as soon as NATS can be reached."""
        while True:
            try:
                return await self._opened()
            except ServiceUnavailable as error:
                await self._wait(error)

    async def _wait(self, error: ServiceUnavailable) -> None:
        if not self._is_waiting:
            _log.warning("listening waits for NATS: %s", error)
        self._is_waiting = True
        await anyio.sleep(_AGAIN_SECONDS)
        self._upkeep.check()

    async def _opened(self) -> Feed:
        if self._feed is not None:
            return self._feed
        await self._upkeep.ensure()
        place = (0, None) if self._bookmark is None else await self._bookmark.load()
        unread = self._unread
        if unread.is_for_all or len(unread.wanted) > _MAX_FILTERS:
            subjects = [self._names.any_change]
        else:
            subjects = sorted(self._names.change_of(name) for name in unread.wanted)
        feed = await self._exit.enter_async_context(
            self._engine.feed(self._names.change, subjects, self._beginning)
        )
        if place[0]:
            feed.resume(*place)
            self._created = place[1]
            self._unread = Unread((), place[0])
        self._feed = feed
        self._hand_in_at = asyncio.get_running_loop().time() + _HAND_IN_SECONDS
        return feed

    async def _refill(self) -> None:
        try:
            feed = await self._opened()
            if self._bookmark is not None:
                await self._bookmark.save(self._dealt_with, self._created)
            entries = await feed.batch()
        except ServiceUnavailable as error:
            self._upkeep.doubt()
            await self._wait(error)
            return
        self._upkeep.check()
        self._is_waiting = False
        if self._created is not None and feed.created != self._created:
            self._unread.began_anew()
            self._given = self._dealt_with = 0
        self._created = feed.created
        if feed.gaps > self._gaps:
            self._gaps = feed.gaps
            self._hand_in_open()
        self._entries.extend(entries)
        self._watch_for(entries)

    def _hand_in_open(self) -> None:
        """Hand in ids whose end may be among what was missed: their workers let go of them."""
        for request_id, payload in self._open.oldest(None):
            self._upkeep.watched.add([request_id], payload)
        self._upkeep.doubt()

    def _watch_for(self, entries: Sequence[Entry]) -> None:
        """Hand in, by the upkeep, ids of which nothing is heard: whoever watched them is gone."""
        now = asyncio.get_running_loop().time()
        if entries:
            self._hand_in_at = now + _HAND_IN_SECONDS
        elif now >= self._hand_in_at:
            self._hand_in_at = now + _HAND_IN_SECONDS
            self._upkeep.watched.add(self._unread.wanted)
            self._upkeep.doubt()

    async def _save(self, bookmark: Bookmark) -> None:
        self._save_at = time.monotonic() + _SAVE_SECONDS
        try:
            await bookmark.save(self._dealt_with, self._created)
        except ServiceUnavailable as error:
            _log.warning("the place of the listener %s is saved later: %s", self._name, error)

    # --- records ------------------------------------------------------------------------------

    async def _read(self, entry: Entry) -> Transition | None:
        """Return the transition of a record, if it is unread and not of a past life."""
        try:
            record = decode(entry.data, request_id_of(entry.subject))
        except ValueError as error:
            _log.error("a message of %s is passed over: %s", self._names.change, error)
            return None
        change = self._unread.unread_in(record, entry.sequence)
        if change is None or await self._lives_again(record):
            return None
        self._unread.delivered(record, entry.sequence)
        if record.ended:
            self._open.discard(record.request_id)
            self._upkeep.watched.discard(record.request_id)
            return change
        payload = encode_origin(record.origin)
        self._open.add([record.request_id], payload)
        if not self._unread.is_for_all:
            self._upkeep.watched.add([record.request_id], payload)
        return change

    async def _lives_again(self, record: Record) -> bool:
        """Return whether a lost id is watched once more, so that its end is none to wait for."""
        if self._unread.is_for_all or not record.final or record.state.phase is not Phase.LOST:
            return False
        subject = self._names.watch_of(record.request_id)
        while True:
            try:
                watch = await self._engine.last(self._names.watch, subject, fresh=True)
            except ServiceUnavailable as error:
                await self._wait(error)
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
