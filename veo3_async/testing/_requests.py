"""A request as the fake gets it, what it gets back, and how many are let in."""

from __future__ import annotations

import urllib.parse
from collections import deque
from collections.abc import Mapping
from typing import Final

import msgspec

from veo3_async.testing._account import UPLOAD, is_account
from veo3_async.testing._faults import Fault, Where
from veo3_async.testing._replies import Answer

__all__ = ["Outcome", "Received", "Window"]


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """One request as it arrived."""

    method: str
    """Such as ``GET``."""
    path: str
    """Decoded, without the query."""
    target: str
    """Path and query exactly as they were on the wire."""
    request_id: str | None
    """The decoded id of the task, of the query or the path, or None where there is none."""
    headers: Mapping[str, str]
    """Request headers, case-insensitive; the key is in ``Authorization``."""
    body: bytes
    """Empty for a GET."""
    at: float
    """Seconds of the loop's clock."""
    connection: int
    """Number of its connection, from 1 in order of arrival."""
    reused: bool
    """Whether it was not the first request of its connection."""

    @property
    def where(self) -> Where:
        """What the faults call it."""
        if self.path.startswith("/files/"):
            return "file"
        if self.path == UPLOAD:
            return "upload"
        if is_account(self.path):
            return "account"
        return "submit" if self.method == "POST" else "poll"

    @property
    def query(self) -> dict[str, str]:
        """The decoded query; of a name that comes twice the last."""
        return dict(urllib.parse.parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    def __repr__(self) -> str:  # without the headers: the key is in them
        return f"<Received {self.method} {self.target} at={self.at:.3f} on={self.connection}>"


class Outcome(msgspec.Struct, frozen=True):
    """The truth, and what goes wrong with its delivery."""

    answer: Answer
    fault: Fault | None = None


class Window:
    """At most ``rate`` requests in any second (one in ``1 / rate`` seconds, for a rate below 1)."""

    def __init__(self, rate: float) -> None:
        if rate <= 0:
            message = f"rate_limit is above 0, not {rate!r}"
            raise ValueError(message)
        self._most: Final = max(1, int(rate))
        self._length: Final = self._most / rate
        self._admitted: Final[deque[float]] = deque()

    def admits(self, now: float) -> bool:
        while self._admitted and self._admitted[0] <= now - self._length:
            self._admitted.popleft()
        if len(self._admitted) >= self._most:
            return False
        self._admitted.append(now)
        return True
