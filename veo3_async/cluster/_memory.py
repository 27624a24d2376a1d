"""What a worker remembers of the ids that it polled, so that it need not read their records.

A delivery of a message has a number. Who handled delivery 3 and gets delivery 4 knows that nobody
else had the id in between, so the record is still as it was. One exception is left: a worker that
froze in an earlier delivery and writes late. So what is remembered says only that a poll brought
nothing new. What is new is judged by the record itself, and written only if that is the last.
"""

from __future__ import annotations

import collections
from typing import Final

import msgspec

from veo3_async._lifecycle.judge import Track
from veo3_async._models import VideoTask
from veo3_async.cluster._record import Record

__all__ = ["Memory", "Remembered"]

_MOST: Final = 131_072  # ids, at about 1 kB

_FORGOTTEN: Final = VideoTask()


class Remembered(msgspec.Struct, gc=False):
    """What is known of one id after a delivery."""

    watch: int
    """Sequence of the message by which it is watched."""
    attempts: int
    """Number of the delivery."""
    record: Record
    """Without its texts."""
    track: Track


class Memory:
    """Records without their texts, of the ids that were polled last.

    :param most: How many; the one that was not polled for longest is forgotten.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._kept: collections.OrderedDict[str, Remembered] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, subject: str, attempts: int, record: Record, track: Track) -> None:
        """Remember what is known of an id after a delivery.

        :param subject: Under which the id is watched.
        :param attempts: Number of the delivery.
        """
        kept = self._kept.get(subject)
        if kept is None or kept.record is not record:
            kept = Remembered(record.watch, attempts, _slim(record), track)
            self._kept[subject] = kept
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        else:  # in place: of many ids the collector would have much to walk
            kept.attempts, kept.track = attempts, track
        self._kept.move_to_end(subject)

    def recall(self, subject: str, watch: int, attempts: int) -> Remembered | None:
        """Return what is known of an id, or None where somebody else may know more.

        :param watch: Sequence of the message by which the id is watched now.
        :param attempts: Number of this delivery.
        """
        kept = self._kept.get(subject)
        if kept is None or kept.watch != watch or kept.attempts != attempts - 1:
            return None
        return kept


def _slim(record: Record) -> Record:
    if record.origin.metadata is not None:
        record = msgspec.structs.replace(record, origin=record.origin._replace(metadata=None))
    change = record.change
    if change is None or change.task is _FORGOTTEN:
        return record
    slim = msgspec.structs.replace(change, task=_FORGOTTEN, error=None)
    return msgspec.structs.replace(record, change=slim)
