"""What this process watches: the ids that it handed in, and those that its listeners wait for."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable
from typing import Final

__all__ = ["Watched"]

_MOST: Final = 131_072


class Watched:
    """Ids that are not known to be final, with the payloads by which they are watched.

    :param most: How many; the one that came first is forgotten.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._payloads: collections.OrderedDict[str, bytes] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._payloads)

    def add(self, request_ids: Iterable[str], payload: bytes = b"") -> None:
        """Remember ids; one that is known stays as it was handed in."""
        for request_id in request_ids:
            self._payloads.setdefault(request_id, payload)
            if len(self._payloads) > self._most:
                self._payloads.popitem(last=False)

    def discard(self, request_id: str) -> None:
        """Forget an id that is final."""
        self._payloads.pop(request_id, None)

    def oldest(self, most: int | None) -> list[tuple[str, bytes]]:
        """Return ids with their payloads, those that were returned longest ago first.

        :param most: How many; None for all.
        """
        chosen = list(itertools.islice(self._payloads.items(), most))
        for request_id, _ in chosen:
            self._payloads.move_to_end(request_id)
        return chosen
