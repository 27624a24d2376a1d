"""Who is due: entries by their moments, the longest overdue first.

Moments are in a heap, and those that are due at one moment in a list: the many that go together
take a few bytes each, and the garbage collector has nothing to walk. Adding, taking and dropping
are O(log n); nothing here looks at all entries, but for a compaction whose cost is spread over the
drops that made it necessary.
"""

from __future__ import annotations

import heapq
from typing import Final, Generic, TypeVar

import msgspec

__all__ = ["Agenda", "Entry"]

_COMPACT_ABOVE: Final = 64


class Entry(msgspec.Struct, gc=False):
    """What an agenda holds; derive from it."""

    due: float | None = None
    """When it is due, seconds of the monotonic clock; None while it is in no agenda. The agenda's
    own, as is `place`."""
    place: int = 0
    """Where it stands among those of the same moment."""


_E = TypeVar("_E", bound=Entry)


class _Crowd(list[_E | None]):
    """Those of one moment, in the order they came; None where one has left, but at the end."""

    __slots__ = ("due", "gone")

    def __init__(self, due: float) -> None:
        self.due = due
        self.gone = 0
        """So many at the beginning have left."""

    def join(self, entry: _E) -> None:
        entry.due = self.due  # one number for all of them: memory
        entry.place = len(self)
        self.append(entry)

    def leave(self, entry: _E) -> None:
        self[entry.place] = None
        while self and self[-1] is None:
            self.pop()

    def longest_here(self) -> _E:
        while (entry := self[self.gone]) is None:
            self.gone += 1
        return entry


class Agenda(Generic[_E]):
    """Entries by the moment they are due; equal moments in the order they were added."""

    __slots__ = ("_count", "_due", "_moments")

    def __init__(self) -> None:
        self._due: dict[float, _E | _Crowd[_E]] = {}
        """An entry where it is the only one of its moment."""
        self._moments: list[float] = []
        """A heap of them all, and of some that are over."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<Agenda: {self._count} entries>"

    def put(self, entry: _E, due: float) -> None:
        """Plan an entry, or plan it anew; seconds of the monotonic clock."""
        if entry.due is not None:
            self.drop(entry)
        self._count += 1
        there = self._due.get(due)
        if there is None:
            self._due[due] = entry
            entry.due = due
            heapq.heappush(self._moments, due)
        else:
            if not isinstance(there, _Crowd):
                alone, there = there, _Crowd(due)
                there.join(alone)
                self._due[due] = there
            there.join(entry)

    def drop(self, entry: _E) -> None:
        """Take an entry out, if it is in."""
        if (due := entry.due) is None:
            return
        self._count -= 1
        entry.due = None
        there = self._due[due]
        if isinstance(there, _Crowd):
            there.leave(entry)
            if there:
                return
        del self._due[due]
        if len(self._moments) > 2 * len(self._due) + _COMPACT_ABOVE:
            self._moments = list(self._due)
            heapq.heapify(self._moments)

    def next_due(self) -> float | None:
        """Return when the first entry is due, or None where there is none."""
        moments = self._moments
        while moments:
            if moments[0] in self._due:
                return moments[0]
            heapq.heappop(moments)
        return None

    def take(self) -> tuple[float, _E]:
        """Take out the entry that is due first, and return when it is or was due.

        :raises IndexError: There is none; ask `next_due` before.
        """
        due = self.next_due()
        if due is None:
            message = "nothing is due"
            raise IndexError(message)
        there = self._due[due]
        if isinstance(there, _Crowd):
            entry = there.longest_here()
            self.drop(entry)
            return due, entry
        heapq.heappop(self._moments)
        del self._due[due]
        there.due = None
        self._count -= 1
        return due, there

    def clear(self) -> None:
        """Take everything out."""
        for there in self._due.values():
            for entry in there if isinstance(there, _Crowd) else (there,):
                if entry is not None:
                    entry.due = None
        self._due.clear()
        self._moments.clear()
        self._count = 0
