"""Which records bring a listener something new: by their place in the stream. Pure."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from veo3_async._models import Phase, Transition
from veo3_async.cluster._record import Record

__all__ = ["Unread"]

_MOST_ENDED: Final = 65_536


class Unread:
    """What a listener has delivered of each id.

    A record is new by the sequence of the record that brought its transition. Numbers that count
    the transitions of an id do not serve: they begin anew where somebody purges the stream.

    :param request_ids: The ids that are listened to; none for all.
    :param floor: Sequence up to which all was delivered by an earlier process.
    """

    def __init__(self, request_ids: Iterable[str], floor: int = 0) -> None:
        self.wanted: Final = set(request_ids)
        """Ids that are listened to and not final."""
        self.is_for_all: Final = not self.wanted
        self._floor = floor
        self._delivered: dict[str, tuple[int, Phase]] = {}
        self._ended: collections.OrderedDict[str, None] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._delivered)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be delivered."""
        return not self.is_for_all and not self.wanted

    def began_anew(self) -> None:
        """Take in that the stream was made again: its sequences begin at 1."""
        self._floor = 0
        self._delivered = {
            request_id: (0, phase) for request_id, (_, phase) in self._delivered.items()
        }

    def unread_in(self, record: Record, sequence: int) -> Transition | None:
        """Return the transition of a record if it was not delivered yet.

        :param sequence: Of the record, in its stream.
        """
        change = record.change
        if change is None or not self._is_wanted(record.request_id):
            return None
        floor, phase = self._delivered.get(record.request_id, (0, None))
        if (record.brought_by or sequence) <= max(floor, self._floor):
            return None
        if change.previous is None and phase is not None:
            # Its records were removed, so a worker saw it for the first time once more.
            return None if change.phase is phase else replace(change, previous=phase)
        return change

    def delivered(self, record: Record, sequence: int) -> None:
        """Take in that the transition of a record was delivered."""
        request_id, change = record.request_id, record.change
        assert change is not None  # noqa: S101 - it was delivered
        if not change.final:
            self._delivered[request_id] = (record.brought_by or sequence, change.phase)
            return
        self._delivered.pop(request_id, None)
        self.wanted.discard(request_id)
        if self.is_for_all and change.phase is not Phase.LOST:
            self._ended[request_id] = None
            if len(self._ended) > _MOST_ENDED:
                self._ended.popitem(last=False)

    def _is_wanted(self, request_id: str) -> bool:
        if self.is_for_all:
            return request_id not in self._ended
        return request_id in self.wanted
