"""Who is due: a heap of entries, the longest overdue first.

Adding, taking and dropping are O(log n); nothing here looks at all entries, but for a
compaction whose cost is spread over the drops that made it necessary.
"""

from __future__ import annotations

import heapq
from typing import Final, Generic, TypeVar

import msgspec

__all__ = ["Agenda", "Entry"]

_COMPACT_ABOVE: Final = 64


class Entry(msgspec.Struct, gc=False):
    """What an agenda holds; derive from it."""

    ticket: int = 0
    """Number of the entry's place in the heap, 0 while it has none. The agenda's own."""


_E = TypeVar("_E", bound=Entry)


class Agenda(Generic[_E]):
    """Entries by the moment they are due; equal moments in the order they were added."""

    __slots__ = ("_dead", "_heap", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _E]] = []
        self._serial = 0
        self._dead = 0

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def __repr__(self) -> str:
        return f"<Agenda: {len(self)} entries>"

    def put(self, entry: _E, due: float) -> None:
        """Plan an entry, or plan it anew; seconds of the monotonic clock."""
        self.drop(entry)
        self._serial += 1
        entry.ticket = self._serial
        heapq.heappush(self._heap, (due, self._serial, entry))

    def drop(self, entry: _E) -> None:
        """Take an entry out, if it is in."""
        if not entry.ticket:
            return
        entry.ticket = 0
        self._dead += 1
        if self._dead > _COMPACT_ABOVE and self._dead * 2 > len(self._heap):
            self._heap = [item for item in self._heap if item[2].ticket == item[1]]
            heapq.heapify(self._heap)
            self._dead = 0

    def next_due(self) -> float | None:
        """Return when the first entry is due, or None where there is none."""
        heap = self._heap
        while heap:
            due, serial, entry = heap[0]
            if entry.ticket == serial:
                return due
            heapq.heappop(heap)
            self._dead -= 1
        return None

    def take(self) -> tuple[float, _E]:
        """Take out the entry that is due first, and return when it is or was due.

        :raises IndexError: There is none; ask `next_due` before.
        """
        while True:
            due, serial, entry = heapq.heappop(self._heap)
            if entry.ticket == serial:
                entry.ticket = 0
                return due, entry
            self._dead -= 1

    def clear(self) -> None:
        """Take everything out."""
        for _, _, entry in self._heap:
            entry.ticket = 0
        self._heap.clear()
        self._dead = 0
