"""What a fault means for the id it befell, and when that id is asked for again.

A passing fault never ends a watch. The table says what is tolerated and for how long; what
exceeds it is final for the id, and what is wrong with the key or the server's identity is
everybody's.
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

    AGAIN = "again"
    """It goes back to the schedule."""
    FINAL = "final"
    """The fault is the end of this watch."""
    EVERYBODY = "everybody"
    """No id can be polled: all watchers are told, and polling stops."""


_EVERYBODYS: Final = frozenset({Kind.AUTHENTICATION, Kind.QUOTA, Kind.CERTIFICATE, Kind.SESSION})

_NONSENSE: Final = {Kind.UNEXPECTED: 1, Kind.REDIRECT: 4}
"""What a reply that is not the API's counts for. An API does not redirect: a short maintenance may
be four in a row, the fifth comes after about 8 s."""

_TOLERATED_NONSENSE: Final = 19
"""How much of it in a row an id is given: by `backoff` that is about four minutes of pages that
say "back soon"."""

_TOLERATED_SECONDS: Final = 30.0
"""How long an id may be unknown: right after the submit it is for a moment, and a lagging node
may forget it."""

_BASE: Final = 0.5
_BASE_AFTER_THROTTLE: Final = 1.0
_CAP: Final = 30.0


class Streak(msgspec.Struct, frozen=True, gc=False):
    """Faults of one id since the last state that was seen."""

    faults: int = 0
    """Of any kind."""
    nonsense: int = 0
    """How much the last ones count for, if they were replies and not the API's."""
    since: float = math.inf
    """When the id was first unknown, seconds of the monotonic clock. A fault that passes makes it
    begin anew, for an outage confirms nothing; infinite if it was not since then."""


NO_FAULTS: Final = Streak()


def after_fault(streak: Streak, kind: Kind, now: float) -> tuple[Streak, Verdict]:
    """Return the streak with this fault in it, and what becomes of the id."""
    streak = _grown(streak, kind, now)
    if kind in _EVERYBODYS:
        return streak, Verdict.EVERYBODY
    return streak, Verdict.FINAL if _is_too_much(streak, kind, now) else Verdict.AGAIN


def backoff(streak: Streak, kind: Kind, now: float, rand: float) -> float:
    """Return the seconds until the id is asked for again: full jitter, at most 30.

    Full jitter is uniform between 0 and the exponential bound (AWS, "Exponential Backoff And
    Jitter"). An id whose time of grace ends is asked at that end, not long after it.
    """
    base = _BASE_AFTER_THROTTLE if kind in NO_CAPACITY else _BASE
    wait = float(rand * min(_CAP, base * 2.0 ** min(streak.faults, 16)))
    if now < (end := streak.since + _TOLERATED_SECONDS):
        wait = min(wait, end - now)
    return wait


def _grown(streak: Streak, kind: Kind, now: float) -> Streak:
    faults = streak.faults + 1
    since = streak.since
    if kind is Kind.NOT_FOUND:
        since = min(since, now)
    elif kind not in _NONSENSE:
        since = math.inf
    nonsense = streak.nonsense + _NONSENSE[kind] if kind in _NONSENSE else 0
    return Streak(faults, nonsense, since)


def _is_too_much(streak: Streak, kind: Kind, now: float) -> bool:
    if kind is Kind.NOT_FOUND:
        return now >= streak.since + _TOLERATED_SECONDS
    return kind is Kind.INVALID or streak.nonsense > _TOLERATED_NONSENSE
