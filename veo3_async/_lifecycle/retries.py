"""What a fault means for the id it befell, and when that id is asked for again.

A transient fault never ends a watch. Only the API's own word ends an id: an error object about
this id. What the API says of the key ends every watch. Whatever comes from anybody else is an
outage, and `contact` decides how long a client that hears nothing but that goes on.
"""

from __future__ import annotations

import enum
import math
from typing import Final

import msgspec

from veo3_async._protocol.errors import NO_CAPACITY, Kind

__all__ = ["NO_FAULTS", "Streak", "Verdict", "after_fault", "backoff"]


class Verdict(enum.Enum):
    """What becomes of an id after a fault."""

    RETRY = "retry"
    """It goes back to the schedule."""
    FINAL = "final"
    """The fault is the end of this id."""
    FATAL = "fatal"
    """No id can be polled: all watchers get the error, and polling stops."""


_FATAL: Final = frozenset({Kind.AUTHENTICATION, Kind.QUOTA, Kind.SESSION})

_UNKNOWN_SECONDS: Final = 30.0
"""How long an id may be unknown: right after the submit it is for a moment, and a lagging node
may forget it."""

_FORGOTTEN_SECONDS: Final = 600.0
"""The same for an id of which a state was seen: it exists, so a node that has lost it is more
likely than a mistake of the caller's."""

_BASE: Final = 0.5
_BASE_AFTER_THROTTLE: Final = 1.0
_CAP: Final = 30.0
_LEAST_CAP: Final = 1.0

_HINT_JITTER: Final = 0.1
"""Of a ``Retry-After``, by which the wait is longer, at most by 1 s: spreads those who got the
same."""


class Streak(msgspec.Struct, frozen=True, gc=False):
    """Faults of one id since the last state that was seen."""

    faults: int = 0
    """Of any kind."""
    unknown_since: float = math.inf
    """When the API first said that it does not know the id, seconds of the caller's clock. Any
    other fault makes it begin anew, for an outage confirms nothing; infinite if it did not say
    so since then."""


NO_FAULTS: Final = Streak()


def after_fault(
    streak: Streak, kind: Kind, now: float, *, is_known: bool = False
) -> tuple[Streak, Verdict]:
    """Return the streak with this fault in it, and what becomes of the id.

    :param is_known: Whether a state of this id was ever seen.
    """
    since = min(streak.unknown_since, now) if kind is Kind.NOT_FOUND else math.inf
    streak = Streak(streak.faults + 1, since)
    if kind in _FATAL:
        return streak, Verdict.FATAL
    if kind is Kind.INVALID or now >= since + _tolerated(is_known=is_known):
        return streak, Verdict.FINAL
    return streak, Verdict.RETRY


def backoff(
    streak: Streak,
    kind: Kind,
    now: float,
    rand: float,
    *,
    retry_after: float | None = None,
    is_known: bool = False,
    interval: float = math.inf,
) -> float:
    """Return the seconds until the id is asked for again: full jitter, at most 30, or as told.

    Full jitter is uniform between 0 and the exponential bound (AWS, "Exponential Backoff And
    Jitter"). An id whose time of grace ends is asked at that end, not long after it.

    An outage that says nothing about the rate makes no id wait longer than its pacing does (or
    1 s), so that all of them are seen again soon after it.

    :param retry_after: Seconds that the server asks this id to wait at least, or None.
    :param interval: Seconds that the pacing has last said between two polls.
    """
    base = _BASE_AFTER_THROTTLE if kind in NO_CAPACITY else _BASE
    wait = float(rand * min(_CAP, base * 2.0 ** min(streak.faults, 16)))
    if kind not in NO_CAPACITY:
        wait = min(wait, max(interval, _LEAST_CAP))
    if retry_after is not None:
        return max(wait, retry_after + rand * min(1.0, retry_after * _HINT_JITTER))
    if now < (end := streak.unknown_since + _tolerated(is_known=is_known)):
        wait = min(wait, end - now)
    return wait


def _tolerated(*, is_known: bool) -> float:
    return _FORGOTTEN_SECONDS if is_known else _UNKNOWN_SECONDS
