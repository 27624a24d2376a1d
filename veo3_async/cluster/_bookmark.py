"""How far a named listener is, so that it can go on after a restart."""

from __future__ import annotations

import datetime
from typing import Final

import msgspec

from veo3_async.cluster._names import Names
from veo3_async.cluster._nats.jetstream import Engine

__all__ = ["Bookmark"]


class _Place(msgspec.Struct, frozen=True):
    sequence: int
    created: datetime.datetime | None = None


class Bookmark:
    """The place of a named listener in the stream of records."""

    def __init__(self, engine: Engine, names: Names, name: str) -> None:
        self._engine = engine
        self._names = names
        self._entry: Final = names.entry(f"listener.{name}")
        self._saved = _Place(0)

    async def load(self) -> tuple[int, datetime.datetime | None]:
        """Return the sequence up to which all is dealt with, and when its stream was made.

        0 and None for a listener that is new.

        :raises ServiceUnavailable: NATS does not answer.
        """
        found = await self._engine.last(self._names.shared, self._entry, fresh=True)
        try:
            place = msgspec.json.decode(found[1], type=_Place) if found else _Place(0)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            place = _Place(0)
        self._saved = place
        return place.sequence, place.created

    async def save(self, sequence: int, created: datetime.datetime | None) -> None:
        """Write down that all up to a sequence is dealt with.

        :raises ServiceUnavailable: NATS does not store it.
        """
        place = _Place(sequence, created)
        if sequence == 0 or place == self._saved:
            return
        await self._engine.publish(self._entry, msgspec.json.encode(place))
        self._saved = place
