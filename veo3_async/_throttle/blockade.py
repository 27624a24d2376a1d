"""Whether a service refuses all ids, or some, or one of its nodes does."""

from __future__ import annotations

import math
from typing import Final

import msgspec

__all__ = ["Blockade", "Opening"]

# Chosen with `python -m benchmarks rate_limit`, whose limiters are of 23 kinds.
_CONFIRMED: Final = 10
"""Different ids refused one after another, none served between them: by chance that is once in
59,000 requests where one node of three refuses."""

_CONFIRMED_AGAIN: Final = 3  # where it is known that the service counts over a window

_MIN_GAP: Final = 1.0  # seconds
_MAX_GAP: Final = 300.0
_MAX_OUTAGE_GAP: Final = 30.0  # of an outage, no request makes it longer


class Opening(msgspec.Struct, frozen=True):
    """The end of a blockade, and what was served from the opening before until it began."""

    served: int
    """Requests."""
    serving: float
    """Seconds in which they were served."""
    at_least: float
    """Seconds from the opening before to the last refusal."""
    at_most: float
    """Seconds from the opening before to this one."""

    @property
    def blocked(self) -> float:
        """Seconds since the last request that was served."""
        return self.at_most - self.serving


class Blockade:
    """Refusals that concern all ids: of many ids in a row, and none was served between them.

    While there is one, single probes go. Each probe of another id that is refused doubles the
    gap to the next, from 1 s to 5 min, for a ban may begin anew with each refused request. A few
    ids that are always refused never hold up the others for long: they double it no further.

    :param now: The present, as everywhere here in seconds of a monotonic clock.
    """

    __slots__ = (
        "_began",
        "_confirmed",
        "_last_refused",
        "_last_served",
        "_opened",
        "_refused",
        "_served",
        "is_on",
    )

    def __init__(self, now: float) -> None:
        self.is_on = False
        self._refused: set[str] = set()
        self._began = now  # when the first request of the row was sent
        self._confirmed = 0  # ids in the row when it became a blockade
        self._opened = now
        self._served = 0
        self._last_served = now
        self._last_refused = now

    @property
    def row(self) -> int:
        """Different ids that were refused one after another."""
        return len(self._refused)

    def gap(self, *, may_be_ban: bool) -> float:
        """Return the seconds until the next probe: 1, doubling to 300 for a ban, else to 30."""
        longest = _MAX_GAP if may_be_ban else _MAX_OUTAGE_GAP
        return min(longest, _MIN_GAP * 2.0 ** min(len(self._refused) - self._confirmed, 16))

    def served(self, sent: float) -> None:
        """Count a request that was served.

        :param sent: When it was sent.
        """
        self._served += 1
        self._last_served = max(self._last_served, sent)
        if self._refused and not self.is_on and sent >= self._began:
            self._refused.clear()

    def refused(self, sent: float, whose: str, *, has_window: bool, is_probe: bool) -> None:
        """Count a request that was refused.

        :param whose: The id, or another name of it.
        :param has_window: Whether it is known that the service counts over a window.
        """
        self._last_refused = max(self._last_refused, sent)
        if self.is_on and not is_probe:
            return  # sent before it was known
        if not self._refused:
            self._began = sent
        self._refused.add(whose)
        if not self.is_on and len(self._refused) >= (
            _CONFIRMED_AGAIN if has_window else _CONFIRMED
        ):
            self.is_on = True
            self._confirmed = len(self._refused)

    def window_opened(self, sent: float) -> None:
        """Count what is served from this request on, the first of a window."""
        self._opened = sent
        self._served = 0

    def ended(self, sent: float) -> Opening:
        """End it, for a probe was served that was sent at this moment."""
        opening = Opening(
            served=self._served,
            serving=max(0.0, self._last_served - self._opened),
            at_least=max(0.0, self._last_refused - self._opened),
            at_most=max(math.ulp(1.0), sent - self._opened),
        )
        self.is_on = False
        self._refused.clear()
        self._began = self._opened = self._last_served = sent
        self._served = 1
        return opening
