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
    own."""


_E = TypeVar("_E", bound=Entry)


class _Crowd(list[_E]):
    """Those of one moment, in the order they came, and some that have left."""

    __slots__ = ("due", "left", "taken")

    def __init__(self, due: float) -> None:
        self.due = due
        self.taken = 0
        """So many at the beginning are not looked at any more."""
        self.left = 0
        """So many of the others are due at another moment now, or at none."""

    def join(self, entry: _E) -> None:
        if self.left:
            self.sweep()  # or one that comes back would be here twice
        entry.due = self.due  # one number for all of them: memory
        self.append(entry)

    def leave(self) -> None:
        self.left += 1
        if self.left > _COMPACT_ABOVE and self.left * 2 > len(self) - self.taken:
            self.sweep()

    def sweep(self) -> None:
        self[:] = [entry for entry in self[self.taken :] if entry.due == self.due]
        self.taken = self.left = 0

    def take(self) -> _E:
        while (entry := self[self.taken]).due != self.due:
            self.taken += 1
            self.left -= 1
        self.taken += 1
        return entry

    def is_over(self) -> bool:
        return self.taken + self.left == len(self)


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
            there.leave()
            if not there.is_over():
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
        entry = there.take() if isinstance(there, _Crowd) else there
        if not isinstance(there, _Crowd) or there.is_over():
            heapq.heappop(self._moments)
            del self._due[due]
        entry.due = None
        self._count -= 1
        return due, entry

    def clear(self) -> None:
        """Take everything out."""
        for there in self._due.values():
            for entry in there if isinstance(there, _Crowd) else (there,):
                entry.due = None
        self._due.clear()
        self._moments.clear()
        self._count = 0
