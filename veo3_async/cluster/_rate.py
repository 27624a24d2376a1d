"""The rate that all workers share, as a function of time.

What is written down is a cut, and when; how the rate grows again follows from the clock, so
that growing takes no writing. Times are seconds since the epoch by the server's clock.

A cut is not written for what comes at any rate. Each worker finds that out for itself, from what
it was answered: so with many workers it takes longer, and more is cut until then.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from veo3_async._throttle.ceiling import (
    ROW_SECONDS,
    first_below,
    further_below,
    height_at,
    held_until,
)
from veo3_async._throttle.cubic import MIN_RATE, cubic_rate
from veo3_async._throttle.noise import PROOF_SECONDS, Noise
from veo3_async._throttle.throttle import FLIGHT_SECONDS, MAX_PAUSE, paused_for

__all__ = [
    "FULL",
    "Evidence",
    "SharedRate",
    "after_refusal",
    "is_good",
    "is_new",
    "next_round",
    "rate_at",
    "restored",
    "round_of",
    "round_seconds",
]

_MAX_PERMITS: Final = 256
_LATE: Final = 0.1  # of a round: what is made good in the next one
_GOLDEN: Final = 0.618033988749895  # spreads the numbers of permits evenly over 0 to 1
_LATE_BY: Final = 1.5  # what was measured over a second or two, while the rate grows
_FEW: Final = 6  # polls of one worker: too few to tell what is served
_DEEPEST: Final = 0.1  # of the rate: what is left at least, for one worker sees little of it
_EVERYBODY_ROW: Final = 10  # ids refused in a row: by chance, where one node of three refuses, once
_DRIFT: Final = 0.25  # of a round, by which a permit may come later to get to its place


class SharedRate(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the service said about the rate, for all workers."""

    last_max: float | None = None
    """Polls a second at which it last refused one; None where it never did."""
    cut_at: float = 0.0
    """When that was."""
    paused_until: float = 0.0
    """When the next poll may be sent."""
    is_found: bool = False
    """Whether `last_max` is what was served while most was refused."""
    ceiling: float | None = None
    """Polls a second a little below a limit; None where none is known."""
    held_until: float = 0.0
    """When the ceiling begins to rise, to see whether the limit is still there."""
    step: float = 0.0
    """Share of the rate by which the ceiling came down last."""


FULL: Final = SharedRate()


def rate_at(shared: SharedRate, now: float, max_rate: float) -> float:
    """Return the polls a second that all workers together may send: 0.5 to ``max_rate``.

    :param max_rate: Polls a second that are never exceeded.
    """
    if shared.last_max is None:
        return max_rate
    rate = cubic_rate(shared.last_max, max(0.0, now - shared.cut_at))
    if shared.ceiling is not None:
        rate = min(rate, height_at(shared.ceiling, shared.held_until, now))
    return min(max_rate, max(rate, MIN_RATE))


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
    sending: float = math.inf,
    found: float | None = None,
) -> SharedRate:
    """Return what is to be written after the service sent a poll away.

    :param cuts: Whether that says something about the rate, and something new.
    :param retry_after: Seconds that everybody is to wait, or None. Over 120 it is not believed.
    :param rand: A random number, 0 ≤ rand < 1.
    :param sending: Polls a second that all workers send: where they may send more, that says
        nothing of what is served.
    :param found: Polls a second that are served while most is refused, or None where most is
        served.
    """
    if retry_after is not None and retry_after <= MAX_PAUSE:
        until = max(shared.paused_until, now + paused_for(retry_after, rand))
        shared = msgspec.structs.replace(shared, paused_until=until)
    if not cuts:
        return shared
    allowed = rate_at(shared, now, max_rate)
    rate = max(MIN_RATE, min(allowed, sending))
    if found is not None:
        rate = max(MIN_RATE, min(rate, max(found, rate * _DEEPEST)))
    ceiling, step, held = _ceiling_after(shared, now, rate, is_found=found is not None)
    return SharedRate(
        last_max=rate,
        cut_at=now,
        paused_until=shared.paused_until,
        is_found=found is not None,
        ceiling=ceiling,
        held_until=held,
        step=step,
    )


def restored(shared: SharedRate, now: float, proved: float) -> SharedRate:
    """Return what is to be written where a refusal was none for the rate.

    :param proved: Polls a second that were served lately.
    """
    if shared.ceiling is None or shared.ceiling >= proved:
        return shared
    return msgspec.structs.replace(shared, ceiling=proved, held_until=now)


def _ceiling_after(
    shared: SharedRate, now: float, rate: float, *, is_found: bool
) -> tuple[float | None, float, float]:
    """Return ceiling, step, and until when it is held, after a cut at this rate."""
    if not is_found and shared.ceiling is None:
        return None, 0.0, 0.0  # it may be chance: CUBIC finds the way
    if is_found or now >= shared.held_until:
        height, step = first_below(rate, shared.ceiling or math.inf)
    elif now - shared.cut_at <= ROW_SECONDS:  # still on the way down
        height, step = further_below(rate, shared.step)
    else:
        return shared.ceiling, shared.step, shared.held_until
    # What was found in so short a time may be too little, so that is looked at soon.
    return height, step, now + ROW_SECONDS if is_found else held_until(height, now)


def is_good(shared: SharedRate, number: int, now: float, max_rate: float) -> bool:
    """Return whether a permit that comes now is good for polls.

    All of them come round at the full rate, so that a new one is felt at once. As many are good
    as make it up, evenly over a round and from one round to the next.

    :param number: Which permit, from 0.
    """
    share = rate_at(shared, now, max_rate) / max_rate
    count, _ = round_of(max_rate)
    place = math.floor(now / round_seconds(max_rate)) * count + number
    return share >= 1 or (place * _GOLDEN) % 1 < share


def round_seconds(max_rate: float) -> float:
    """Return the seconds in which all permits come round."""
    count, worth = round_of(max_rate)
    return count * worth / max_rate


class Evidence:
    """What one worker's own polls say of refusals that come at any rate.

    What was allowed to all counts as proved only as far as that many were sent, as far as one
    worker can tell: from its own polls, and the number of workers.

    :param now: Seconds of a monotonic clock, as everywhere here.
    """

    __slots__ = ("_began", "_due", "_noise", "_recent", "_row", "_served")

    def __init__(self, now: float) -> None:
        self._noise: Final = Noise(now)
        self._recent: Final = _Recent(now)
        self._row: Final[set[str]] = set()
        self._began = now
        self._served = 0
        self._due = 0.0  # seconds that so many polls of all take at the rate that was allowed

    @property
    def proved(self) -> float:
        """Polls a second that were served."""
        return self._noise.proved

    @property
    def is_everybody_refused(self) -> bool:
        """Whether it is not one id, or one node, that is refused."""
        return len(self._row) >= _EVERYBODY_ROW

    def found(self, now: float, workers: int) -> float | None:
        """Return the polls a second that are served of all; None where not most are refused."""
        served, refused = self._recent.rates(now)
        if served + refused < _FEW or refused <= served:
            return None
        return served * workers

    def sending(self, now: float, workers: int) -> float:
        """Return about how many polls a second all send; infinite where too little is known."""
        polls = sum(self._recent.rates(now))
        return math.inf if polls < _FEW else polls * workers * _LATE_BY

    def answered(
        self, now: float, whose: str, *, allowed: float, workers: int, served: bool
    ) -> None:
        """Count a poll of this worker.

        :param whose: The id that was polled.
        :param allowed: Polls a second that all together might send then.
        :param workers: How many share these, at least 1.
        :param served: False where it was sent away for want of capacity.
        """
        self._due += 1 / allowed
        self._recent.count(now, served=served)
        if served:
            self._served += 1
            self._row.clear()
            self._noise.succeeded(now)
        else:
            self._row.add(whose)
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


class _Recent:
    """What was served and refused in the last one to two seconds."""

    __slots__ = ("_before", "_began", "_refused", "_second", "_served")

    def __init__(self, now: float) -> None:
        self._began = now
        self._second = math.floor(now)
        self._before = (0, 0)
        self._served = self._refused = 0

    def count(self, now: float, *, served: bool) -> None:
        """Count a poll."""
        self._turn(now)
        if served:
            self._served += 1
        else:
            self._refused += 1

    def rates(self, now: float) -> tuple[float, float]:
        """Return how many a second were served, and refused."""
        self._turn(now)
        seconds = max(1.0, now - max(self._began, self._second - 1))
        served, refused = self._before
        return (served + self._served) / seconds, (refused + self._refused) / seconds

    def _turn(self, now: float) -> None:
        if (second := math.floor(now)) != self._second:
            is_next = second == self._second + 1
            self._before = (self._served, self._refused) if is_next else (0, 0)
            self._served, self._refused, self._second = 0, 0, second


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
