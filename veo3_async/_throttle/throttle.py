"""How fast we may ask: one estimate for one key.

A token bucket bounds the physical requests. A throttling reply cuts its rate, successes grow
it again along CUBIC's curve; ``Retry-After`` pauses everybody, and one request alone finds
out whether the pause was long enough. Time is an argument, in seconds of any monotonic clock.
"""

from __future__ import annotations

import math
from typing import Final

from veo3_async._throttle.ceiling import Ceiling
from veo3_async._throttle.cubic import MIN_RATE, Cubic
from veo3_async._throttle.noise import Noise

__all__ = [
    "FLIGHT_SECONDS",
    "Permit",
    "Throttle",
    "paused_for",
]


FLIGHT_SECONDS: Final = 1.0
"""Limits are counted by the second, so refusals within one of a cut are those of one flight."""


_BURST_SECONDS: Final = 0.1
_FULL: Final = 1 - 1e-9  # a bucket that is asked just when it fills may miss one by rounding


_PAUSE_JITTER: Final = 0.1  # of the pause
_FAILED_PROBE_PAUSE: Final = 1.0  # seconds, and twice that after each further one
_MAX_FAILED_PROBE_PAUSE: Final = 30.0


def paused_for(retry_after: float, rand: float) -> float:
    """Return the seconds of a pause that the server asked for: a tenth longer, at most by 1 s.

    :param rand: A random number, 0 ≤ rand < 1, which spreads those who were told the same.
    """
    return retry_after + rand * min(1.0, retry_after * _PAUSE_JITTER)


class Permit:
    """The right to send one request; equal to nothing but itself."""

    __slots__ = ("given_at",)

    def __init__(self, given_at: float) -> None:
        self.given_at: Final = given_at
        """When `Throttle.take` gave it, seconds."""

    def __repr__(self) -> str:
        return f"<Permit: {self.given_at:g}>"


class Throttle:
    """Permits for physical requests.

    Every permit that `take` gives is settled by exactly one of `succeeded`, `throttled`, `failed`,
    `pause` and `abandoned`.

    :param max_rate: Requests a second that are never exceeded, over 0.
    :param now: The present.

    In any window of t seconds at most ``max_rate * t + burst`` permits are given.
    """

    __slots__ = (
        "_ceiling",
        "_cubic",
        "_failed_probes",
        "_last_cut",
        "_limited",
        "_limited_seconds",
        "_noise",
        "_pause_began",
        "_paused_until",
        "_probe",
        "_probe_due",
        "_reason",
        "_refilled",
        "_tokens",
        "max_rate",
    )

    def __init__(self, max_rate: float, now: float) -> None:
        self.max_rate: Final = max_rate
        self._cubic: Cubic = Cubic(now)
        self._tokens = self.burst
        self._refilled = now
        self._limited = False
        self._limited_seconds = 0.0
        self._reason: str | None = None
        self._last_cut = -math.inf
        self._ceiling: Ceiling = Ceiling()
        self._noise: Noise = Noise(now)
        self._pause_began = -math.inf
        self._paused_until = -math.inf
        self._probe_due = False
        self._probe: Permit | None = None
        self._failed_probes = 0

    def __repr__(self) -> str:
        limited = f", {self._reason}" if self._limited else ""
        return f"<Throttle: {self.rate:.3g} of {self.max_rate:.3g}/s{limited}>"

    @property
    def burst(self) -> float:
        """Requests that may go out at once: what a tenth of a second earns, at least one."""
        return max(1.0, self.max_rate * _BURST_SECONDS)

    @property
    def rate(self) -> float:
        """Requests a second that are allowed at present."""
        if not self._limited or self._last_cut == -math.inf:  # a pause alone says nothing of a rate
            return self.max_rate
        return min(self.max_rate, max(min(self._cubic.rate, self._ceiling.height), MIN_RATE))

    @property
    def reason(self) -> str | None:
        """Why `rate` is below its maximum or nothing is sent, or None where neither is so."""
        return self._reason if self._limited else None

    def throttled_seconds(self, now: float) -> float:
        """Return for how long there has been a `reason`, in all."""
        self._refill(now)
        return self._limited_seconds

    def take(self, now: float) -> Permit | float:
        """Return a permit, or the seconds after which to ask again, above 0.

        ``inf`` says that the end of another's request decides.
        """
        if now < self._paused_until:
            return self._paused_until - now
        if self._probe is not None:
            return math.inf
        self._refill(now)
        if self._tokens < _FULL:
            return (1 - self._tokens) / self.rate
        self._tokens = max(0.0, self._tokens - 1)
        self._cubic.sent(now)
        permit = Permit(now)
        if self._probe_due:
            self._probe = permit
        return permit

    def succeeded(self, permit: Permit, now: float) -> None:
        """Learn that the server served a request, whatever it said."""
        if self._limited:  # else nothing here changes the rate, and there is no probe
            self._refill(now)
            self._end_probe(permit, now, passed=True)
        self._noise.succeeded(now)
        if permit.given_at >= self._last_cut:
            self._ceiling.succeeded(now, self.rate)
        if not self._limited:
            return
        self._cubic.succeeded(now)
        if self.rate >= self.max_rate and not self._probe_due:
            self._limited = False

    def throttled(
        self, permit: Permit, now: float, *, reason: str, retry_after: float | None, rand: float
    ) -> None:
        """Learn that the server sent a request away for want of capacity.

        :param reason: What `reason` is to say.
        :param retry_after: Seconds that the server asks for, or None.
        :param rand: A random number, 0 ≤ rand < 1.
        """
        self._refill(now)
        probe_failed = self._end_probe(permit, now, passed=False)
        allowed = self.rate
        self._noise.refused()
        if permit.given_at >= self._last_cut:
            self._ceiling.refused(allowed)
        self._limit(reason)
        # What was sent before the cut, or is counted together with that, says nothing new.
        if permit.given_at >= self._last_cut + FLIGHT_SECONDS:
            self._cut(now, allowed)
        self._tokens = min(self._tokens, self._capacity())
        if retry_after is not None:
            self._pause(now + paused_for(retry_after, rand))
        elif probe_failed:
            self._pause_for_probe(now, rand)

    def _cut(self, now: float, allowed: float) -> None:
        if self._noise.explains(now, allowed):
            self._ceiling.restore(now, self._noise.proved)
            return
        self._last_cut = now
        self._ceiling.cut(now, allowed)
        self._cubic.throttled(now)

    def failed(self, permit: Permit, now: float, *, rand: float) -> None:
        """Learn that a request ended without a word about capacity."""
        self._refill(now)
        if self._end_probe(permit, now, passed=False):
            self._pause_for_probe(now, rand)

    def abandoned(self, permit: Permit) -> None:
        """Learn that a request was given up by our side."""
        if self._probe is permit:
            self._probe = None

    def pause(self, permit: Permit, now: float, *, reason: str, rand: float) -> None:
        """Send nothing for about a second, for a trouble on this machine; longer if it lasts.

        What was sent before the last such pause began says nothing new.
        """
        self._refill(now)
        if permit.given_at < self._pause_began:
            return
        self._pause_began = now
        self._limit(reason)
        self._probe = None
        self._pause_for_probe(now, rand)

    def _refill(self, now: float) -> None:
        if now > self._refilled:
            elapsed = now - self._refilled
            self._refilled = now
            self._tokens += elapsed * self.rate
            if self._limited:
                self._limited_seconds += elapsed
        self._tokens = min(self._tokens, self._capacity())

    def _capacity(self) -> float:
        return max(1.0, self.rate * _BURST_SECONDS)

    def _limit(self, reason: str) -> None:
        self._limited = True
        self._reason = reason

    def _pause(self, until: float) -> None:
        self._paused_until = max(self._paused_until, until)
        self._probe_due = True

    def _pause_for_probe(self, now: float, rand: float) -> None:
        bound = _FAILED_PROBE_PAUSE * 2.0 ** min(self._failed_probes, 16)
        self._failed_probes += 1
        self._pause(now + min(_MAX_FAILED_PROBE_PAUSE, bound) * (1 + rand) / 2)

    def _end_probe(self, permit: Permit, now: float, *, passed: bool) -> bool:
        """Return whether this request was the probe, and it did not pass."""
        if self._probe is not permit:
            return False
        self._probe = None
        if passed:
            self._probe_due = now < self._paused_until  # another reply asked for a longer pause
            self._failed_probes = 0
            self._tokens = 0.0
        return not passed
