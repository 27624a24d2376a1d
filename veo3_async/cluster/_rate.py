"""The rate that all workers share, as a function of time.

What is written down is a cut, and when; how the rate grows again follows from the clock, so
that growing takes no writing. Times are seconds since the epoch. The workers' clocks should agree
to about a second.
"""

from __future__ import annotations

from typing import Final

import msgspec

from veo3_async._throttle import cubic_rate

__all__ = ["FULL", "SharedRate", "after_refusal", "next_round", "rate_at", "round_of"]

_MIN_RATE: Final = 0.5
_FLIGHT: Final = 1.0  # what was sent before a cut, or together with that, says nothing new
_JITTER: Final = 0.1
_MAX_PERMITS: Final = 256
_LATE: Final = 0.1  # of a round: what is made good in the next one
_DRIFT: Final = 0.25  # of a round, by which a permit may come later to get to its place


class SharedRate(msgspec.Struct, frozen=True):
    """What the service said about the rate, for all workers."""

    last_max: float | None = None
    """Polls a second at which it last refused one; None where it never did."""
    cut_at: float = 0.0
    """When that was."""
    paused_until: float = 0.0
    """When the next poll may be sent."""


FULL: Final = SharedRate()


def rate_at(shared: SharedRate, now: float, max_rate: float) -> float:
    """Return the polls a second that all workers together may send: 0.5 to ``max_rate``.

    :param max_rate: Polls a second that are never exceeded.
    """
    if shared.last_max is None:
        return max_rate
    since = max(0.0, now - shared.cut_at)
    return min(max_rate, max(cubic_rate(shared.last_max, since), _MIN_RATE))


def after_refusal(
    shared: SharedRate,
    *,
    sent: float,
    now: float,
    max_rate: float,
    retry_after: float | None,
    rand: float,
) -> SharedRate:
    """Return what is to be written after the service sent a poll away: one cut for one flight.

    :param sent: When that poll was sent.
    :param retry_after: Seconds that the service asks everybody to wait, or None.
    :param rand: A random number, 0 ≤ rand < 1.
    """
    paused_until = shared.paused_until
    if retry_after is not None:
        jitter = rand * min(1.0, retry_after * _JITTER)
        paused_until = max(paused_until, now + retry_after + jitter)
    if sent < shared.cut_at + _FLIGHT:
        return msgspec.structs.replace(shared, paused_until=paused_until)
    return SharedRate(rate_at(shared, now, max_rate), now, paused_until)


def round_of(max_rate: float) -> tuple[int, int]:
    """Return how many permits go round, and for how many polls each of them is good."""
    count = max(1, min(_MAX_PERMITS, round(max_rate)))
    return count, max(1, round(max_rate / count))


def next_round(number: int, count: int, now: float, period: float) -> float:
    """Return the seconds after which a permit that is taken now comes round again.

    Each has its own place in the round, so that they come evenly and not all at once.

    :param number: Which of ``count`` permits, from 0.
    :param period: Seconds of a round; the result is 0.9 to 1.25 of it.
    """
    late = (now - number / count * period) % period
    if late <= _LATE * period:
        return period - late
    return period + min(period - late, _DRIFT * period)
