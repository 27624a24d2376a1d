"""A limit over seconds or a minute: so many requests, and then none until the next window."""

from __future__ import annotations

import math
from typing import Final

from veo3_async._throttle.blockade import Opening

__all__ = ["Window", "limit_of"]

# Chosen with the limiters of `benchmarks/_limiters.py`, from 10 in 5 s to 120 in a minute.
_MIN_COUNT: Final = 8  # requests; fewer served between two refusals may be chance
_MIN_SECONDS: Final = 5.0  # what is counted over less is held by an even rate

_KNOWN: Final = 1.3
"""At most so many times too long: then wait the longest that it may be, else ask early once."""

_HOLD_PERIODS: Final = 2.0  # before it is tried whether the window is shorter

_GROWTH: Final = 0.01  # of the rate, at first, doubling after two periods


class Window:
    """Permits for a service that counts over a window: at once, and then none until the next.

    An even rate would come later to the end: of 60 a minute, the last would have to wait.

    :param count: Permits in a window.
    :param seconds: That a window lasts.
    :param now: When this one began, with one permit.
    """

    __slots__ = ("_began", "_count", "_known_since", "_seconds", "_taken", "is_fresh")

    def __init__(self, count: int, seconds: float, now: float) -> None:
        self._count = count
        self._seconds = seconds
        self._known_since = now
        self._began = now
        self._taken = 1
        self.is_fresh = False
        """Whether nothing that was sent in this window was served yet."""

    @property
    def rate(self) -> float:
        """Permits a second, in the long run."""
        return self._count / self._seconds

    def wait(self, now: float) -> float:
        """Return the seconds until the next permit, 0 where there is one."""
        seconds = self._count / self.grown(now)
        if now >= self._began + seconds:
            self._began, self._taken, self.is_fresh = now, 0, True
        if self._taken < self._count:
            return 0.0
        return max(math.ulp(now), self._began + seconds - now)

    def taken(self) -> None:
        """Count a permit."""
        self._taken += 1

    def served(self, sent: float) -> bool:
        """Return whether this request is the first of the window that was served."""
        if not self.is_fresh or sent < self._began:
            return False
        self.is_fresh = False
        return True

    def grown(self, now: float) -> float:
        """Return the permits a second at present: a little more after each time all went well."""
        periods = (now - self._known_since) / self._seconds - _HOLD_PERIODS
        if periods <= 0:
            return self.rate
        return self.rate * (1 + _GROWTH * math.exp2(min(periods / 2, 64.0)))


def limit_of(opening: Opening, now: float, *, is_exact: bool) -> Window | float:
    """Return what a blockade says of the limit: a window, or requests a second.

    A service that served many in a short while, and none for a longer one, counts over a window.

    :param is_exact: Whether the service said when it would end.
    """
    at_least, at_most = opening.at_least, opening.at_most
    if (
        opening.served >= _MIN_COUNT
        and at_most >= _MIN_SECONDS
        and opening.serving < opening.blocked
    ):
        known = is_exact or at_most < _KNOWN * at_least
        return Window(opening.served, at_most if known else at_least, now)
    seconds = at_most if is_exact else math.sqrt(at_least * at_most)
    return opening.served / seconds if seconds else math.inf
