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

from veo3_async._wire import Kind

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

# How many in a row of one kind an id is given; what is not named passes for ever.
_TOLERATED_TIMES: Final = {Kind.INVALID: 0, Kind.REDIRECT: 2, Kind.UNEXPECTED: 19}

_TOLERATED_SECONDS: Final = {Kind.NOT_FOUND: 30.0}
"""Right after the submit an id may be unknown for a moment; a lagging node may forget one."""

_BASE: Final = 0.5
_BASE_AFTER_THROTTLE: Final = 1.0
_CAP: Final = 30.0


class Streak(msgspec.Struct, frozen=True, gc=False):
    """Faults in a row of one id."""

    faults: int = 0
    """Of any kind, since the last state that was seen."""
    kind: Kind | None = None
    """The kind that is tolerated only so often or so long, of which there is a row."""
    times: int = 0
    """How many of that kind."""
    since: float = math.inf
    """When the row began, seconds of the monotonic clock."""


NO_FAULTS: Final = Streak()


def after_fault(streak: Streak, kind: Kind, now: float) -> tuple[Streak, Verdict]:
    """Return the streak with this fault in it, and what becomes of the id."""
    streak = _grown(streak, kind, now)
    if kind in _EVERYBODYS:
        return streak, Verdict.EVERYBODY
    if kind in _TOLERATED_TIMES and streak.times > _TOLERATED_TIMES[kind]:
        return streak, Verdict.FINAL
    if kind in _TOLERATED_SECONDS and now >= streak.since + _TOLERATED_SECONDS[kind]:
        return streak, Verdict.FINAL
    return streak, Verdict.AGAIN


def backoff(streak: Streak, kind: Kind, now: float, rand: float) -> float:
    """Return the seconds until the id is asked for again: full jitter, at most 30.

    Full jitter is uniform between 0 and the exponential bound (AWS, "Exponential Backoff And
    Jitter"). An id whose time of grace ends is asked at that end, not long after it.
    """
    base = _BASE_AFTER_THROTTLE if kind in {Kind.THROTTLED, Kind.OVERLOADED} else _BASE
    wait = float(rand * min(_CAP, base * 2.0 ** min(streak.faults, 16)))
    if streak.kind in _TOLERATED_SECONDS:
        wait = min(wait, max(0.0, streak.since + _TOLERATED_SECONDS[streak.kind] - now))
    return wait


def _grown(streak: Streak, kind: Kind, now: float) -> Streak:
    faults = streak.faults + 1
    if kind == streak.kind:
        return Streak(faults, kind, streak.times + 1, streak.since)
    if kind in _TOLERATED_TIMES or kind in _TOLERATED_SECONDS:
        return Streak(faults, kind, 1, now)
    if streak.kind in _TOLERATED_SECONDS:  # time goes on, whatever else happens
        return msgspec.structs.replace(streak, faults=faults)
    return Streak(faults)
