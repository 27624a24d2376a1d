"""When it is worth a line in the log that nothing comes: once, and once more when it is over."""

from __future__ import annotations

from typing import Final

from veo3_async._protocol.errors import Kind

__all__ = ["Outage"]

_LOGGED_AFTER: Final = 30.0
"""Seconds. What passes in less is usual: a deployment, a reconnect, a pause after a 429."""

_OWN_WORD: Final = frozenset({Kind.NOT_FOUND, Kind.INVALID})


class Outage:
    """The polls of a client that brought nothing since the last one that brought a state."""

    __slots__ = ("_is_logged", "since")

    def __init__(self) -> None:
        self.since: float | None = None
        """When the first of them came back, monotonic seconds; None where the last one brought
        a state."""
        self._is_logged = False

    def failed(self, kind: Kind, now: float) -> float | None:
        """Take in a poll without a state, and return the seconds that are to be logged, if any."""
        if kind in _OWN_WORD:
            return None  # on one id: the service is there
        if self.since is None:
            self.since = now
        lasted = now - self.since
        if self._is_logged or lasted < _LOGGED_AFTER:
            return None
        self._is_logged = True
        return lasted

    def ended(self, now: float) -> float | None:
        """Take in a state, and return the seconds that it took, if the outage was logged."""
        lasted = None if self.since is None or not self._is_logged else now - self.since
        self.since, self._is_logged = None, False
        return lasted
