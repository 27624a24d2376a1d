"""Which share of the last requests something befell."""

from __future__ import annotations

from typing import Final

__all__ = ["Share"]


class Share:
    """A share that is smoothed over so many requests; until then it is the mean of all.

    Smoothed from zero, a third would look like a tenth for as long.

    :param requests: Over how many, at least 1.
    """

    __slots__ = ("_counted", "_requests", "value")

    def __init__(self, requests: int) -> None:
        self._requests: Final = requests
        self._counted = 0
        self.value: float = 0.0
        """0 to 1; 0 before the first request."""

    def count(self, *, befallen: bool) -> None:
        """Count a request."""
        if self._counted < self._requests:
            self._counted += 1
        self.value += (befallen - self.value) / self._counted
