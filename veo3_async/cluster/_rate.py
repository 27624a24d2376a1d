"""The rate that all workers share, as a function of time.

What is written down is a cut, and when; how the rate grows again follows from the clock, so
that growing takes no writing. Times are seconds since the epoch. The workers' clocks should agree
to about a second.

A cut is not written for what comes at any rate. Each worker finds that out for itself, from what
it was told: so with many workers it takes longer, and more is cut until then.
"""

from __future__ import annotations

from typing import Final

import msgspec

from veo3_async._throttle.cubic import MIN_RATE, cubic_rate
from veo3_async._throttle.noise import PROOF_SECONDS, Noise
from veo3_async._throttle.throttle import FLIGHT_SECONDS, MAX_PAUSE, paused_for

__all__ = [
    "FULL",
    "Evidence",
    "SharedRate",
    "after_refusal",
    "is_new",
    "next_round",
    "rate_at",
    "round_of",
]

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
    return min(max_rate, max(cubic_rate(shared.last_max, since), MIN_RATE))


def is_new(shared: SharedRate, sent: float) -> bool:
    """Return whether a refusal says more than the last cut.

    :param sent: When the poll was sent that was refused.
    """
    return sent >= shared.cut_at + FLIGHT_SECONDS


def after_refusal(
    shared: SharedRate,
    *,
    cuts: bool,
    now: float,
    max_rate: float,
    retry_after: float | None,
    rand: float,
) -> SharedRate:
    """Return what is to be written after the service sent a poll away.

    :param cuts: Whether that says something about the rate, and something new.
    :param retry_after: Seconds that the service asks everybody to wait, or None. Over 120 it is
        not believed.
    :param rand: A random number, 0 ≤ rand < 1.
    """
    paused_until = shared.paused_until
    if retry_after is not None and retry_after <= MAX_PAUSE:
        paused_until = max(paused_until, now + paused_for(retry_after, rand))
    if cuts:
        return SharedRate(rate_at(shared, now, max_rate), now, paused_until)
    return msgspec.structs.replace(shared, paused_until=paused_until)


class Evidence:
    """What one worker's own polls say of refusals that come at any rate.

    What was allowed to all counts as proved only as far as that many were sent, as far as one
    worker can tell: from its own polls, and the number of workers.

    :param now: Seconds of a monotonic clock, as everywhere here.
    """

    __slots__ = ("_began", "_due", "_noise", "_served")

    def __init__(self, now: float) -> None:
        self._noise: Final = Noise(now)
        self._began = now
        self._served = 0
        self._due = 0.0  # seconds that so many polls of all take at the rate that was allowed

    def answered(self, now: float, *, allowed: float, workers: int, served: bool) -> None:
        """Count a poll of this worker.

        :param allowed: Polls a second that all together might send then.
        :param workers: How many share these, at least 1.
        :param served: False where it was sent away for want of capacity.
        """
        self._due += 1 / allowed
        if served:
            self._served += 1
            self._noise.succeeded(now)
        else:
            self._noise.refused()
        elapsed = now - self._began
        if elapsed >= PROOF_SECONDS:
            proved = self._served / max(self._due, elapsed / workers)
            self._noise.proved = max(self._noise.proved, proved)
            self._began, self._served, self._due = now, 0, 0.0

    def explains(self, now: float, allowed: float) -> bool:
        """Return whether a refusal says nothing about the rate, and learn from that.

        :param allowed: Polls a second that all together may send.
        """
        return self._noise.explains(now, allowed)


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
