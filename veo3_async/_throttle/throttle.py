"""How fast we may ask: one estimate for one key.

A token bucket bounds the physical requests. A throttling reply cuts its rate, successes grow
it again along CUBIC's curve; ``Retry-After`` pauses everybody, and one request alone finds
out whether the pause was long enough. Time is an argument, in seconds of any monotonic clock.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = [
    "FLIGHT_SECONDS",
    "MIN_RATE",
    "PROOF_SECONDS",
    "Ceiling",
    "Cubic",
    "Noise",
    "Throttle",
    "cubic_rate",
    "paused_for",
]

MIN_RATE: Final = 0.5
"""Requests a second: nothing falls below it. AWS's adaptive mode has the same floor."""

PROOF_SECONDS: Final = 10.0
"""Over so long what was served counts as proved."""

FLIGHT_SECONDS: Final = 1.0
"""Limits are counted by the second, so refusals within one of a cut are those of one flight."""

# CUBIC, as AWS's adaptive retry mode has it.
_BETA: Final = 0.7  # what a cut leaves of the rate
_SCALE: Final = 0.4  # requests a second, per cubic second of growth
_SMOOTHING: Final = 0.8  # weight of the latest half second in what is being sent

_BURST_SECONDS: Final = 0.1
_FULL: Final = 1 - 1e-9  # a bucket that is asked just when it fills may miss one by rounding

# The rest was chosen by simulation, against the servers of the tests: limits of four kinds, with
# and without refusals of another kind.
_STEP: Final = 0.05  # of the rate, that a cut takes at least
_MAX_STEP: Final = 0.25  # the same after several in a row, each twice the one before
_GROWTH: Final = 0.01  # of the height, by which the first look for a limit rises
_GROWTH_SECONDS: Final = 3.0  # in which that doubles
_HOLD_REQUESTS: Final = 400  # until the next look, for a look costs a refusal
_HOLD: Final = 10.0  # seconds that it takes at least
_MAX_HOLD: Final = 120.0
_ROW_SECONDS: Final = 10.0  # refusals farther apart are no limit, but single ids or chance

_PROOF_HALF_LIFE: Final = 300.0  # seconds
_BELOW_ANY_LIMIT: Final = 2 / 3  # of what was proved
_DOUBT: Final = 0.85  # what a refusal below the limit leaves of the proof
_MEMORY: Final = 1 / 100  # of a request, in the share that is refused
_NOISE_HALF_LIFE: Final = 60.0  # seconds
_LEAST_NOISE: Final = 0.001  # less of it is forgotten
_MOST_NOISE: Final = 0.4  # more of it is an outage
_NOISE_FACTOR: Final = 2.0
_NOISE_MARGIN: Final = 0.05  # chance: five standard deviations of 2 %, smoothed as it is

_PAUSE_JITTER: Final = 0.1  # of the pause
_FAILED_PROBE_PAUSE: Final = 1.0  # seconds, and twice that after each further one
_MAX_FAILED_PROBE_PAUSE: Final = 30.0


class Cubic:
    """The sending rate as AWS's adaptive retry mode finds it (after RFC 8312, CUBIC).

    Rates are requests a second. Held against the numbers AWS publishes for its SDKs.
    """

    __slots__ = (
        "_bucket",
        "_count",
        "_enabled",
        "_last_max",
        "_last_throttle",
        "measured",
        "rate",
    )

    def __init__(self, now: float) -> None:
        self.rate = MIN_RATE
        """What may be sent, once something was throttled."""
        self.measured = 0.0
        """What is being sent, smoothed over half seconds."""
        self._bucket = math.floor(now * 2) / 2
        self._count = 0
        self._last_max = 0.0
        self._last_throttle = now
        self._enabled = False

    def sent(self, now: float) -> None:
        """Count a request."""
        self._count += 1
        if now >= self._bucket + 1 / 2:
            bucket = math.floor(now * 2) / 2
            current = self._count / (bucket - self._bucket)
            self.measured = current * _SMOOTHING + self.measured * (1 - _SMOOTHING)
            self._count = 0
            self._bucket = bucket

    def succeeded(self, now: float) -> None:
        """Grow along the curve, at most to twice of what is being sent."""
        self._set(cubic_rate(self._last_max, now - self._last_throttle))

    def throttled(self, now: float) -> None:
        """Cut the rate."""
        used = min(self._being_sent, self.rate) if self._enabled else self._being_sent
        self._enabled = True
        self._last_max = used
        self._last_throttle = now
        self._set(used * _BETA)

    def _set(self, calculated: float) -> None:
        self.rate = max(min(calculated, 2 * self._being_sent), MIN_RATE)

    @property
    def _being_sent(self) -> float:
        # AWS knows nothing before the first half second is over, and crawls for seconds after a
        # refusal in it: what was sent so far is a fair guess.
        return self.measured or 2.0 * self._count


def cubic_rate(last_max: float, since: float) -> float:
    """Return the rate on CUBIC's curve so many seconds after a cut at the rate ``last_max``.

    It begins at β × ``last_max``, is flat where it comes back to ``last_max``, and then probes.
    """
    flat = math.cbrt(last_max * (1 - _BETA) / _SCALE)
    return float(_SCALE * (since - flat) ** 3 + last_max)


def paused_for(retry_after: float, rand: float) -> float:
    """Return the seconds of a pause that the server asked for: a tenth longer, at most by 1 s.

    :param rand: A random number, 0 ≤ rand < 1, which spreads those who were told the same.
    """
    return retry_after + rand * min(1.0, retry_after * _PAUSE_JITTER)


class Ceiling:
    """A rate kept a little below a steady limit.

    CUBIC alone runs into such a limit every few seconds. So once most requests are served and
    one is refused, stay under that rate; look again after 400 requests (10 s to 2 minutes), by
    small steps that double every 3 s.
    """

    __slots__ = ("_base", "_last_cut", "_served", "_step", "_until", "height")

    def __init__(self) -> None:
        self.height = math.inf
        """Requests a second; infinite while no limit is known."""
        self._base = math.inf
        self._step = _STEP
        self._until = -math.inf
        self._last_cut = -math.inf
        self._served = 1.0  # share since the last cut, smoothed over about a second

    def succeeded(self, now: float, rate: float) -> None:
        """Count a request that was served, and rise when the time has come.

        :param rate: Requests a second that are allowed.
        """
        self._count(rate, served=True)
        if now >= self._until and self._base < math.inf:
            steps = 2.0 ** min((now - self._until) / _GROWTH_SECONDS, 64.0)
            self.height = self._base * (1 + _GROWTH * steps)

    def refused(self, rate: float) -> None:
        """Count a request that was not served."""
        self._count(rate, served=False)

    def cut(self, now: float, rate: float) -> None:
        """Come down to a little below a rate at which some were refused."""
        served, self._served = self._served, 1.0
        if served < 1 / 2:
            return  # an outage, or a limit that is far exceeded: CUBIC finds the way
        before, self._last_cut = self._last_cut, now
        if now >= self._until:  # it looked for the limit, or met the first one
            self._step = _STEP
            below = rate * min(1 - _STEP, served)
            # What is refused above a height that was kept for a while does not disprove that.
            kept = self._base if rate / 2 < self._base < rate else 0.0
            self.height = max(kept, below)
        elif now - before <= _ROW_SECONDS:  # still on the way down
            self._step = min(_MAX_STEP, self._step * 2)
            self.height = rate * min(1 - self._step, served)
        else:
            return
        self._base = self.height
        self._until = now + min(_MAX_HOLD, max(_HOLD, _HOLD_REQUESTS / self.height))

    def restore(self, now: float, rate: float) -> None:
        """Come back to a rate that was proved, for it was no limit that refused."""
        if self.height < rate:
            self.height = self._base = rate
            self._until = now

    def _count(self, rate: float, *, served: bool) -> None:
        self._served += (served - self._served) / (1 + rate)


class Noise:
    """Refusals that come at any rate: of single ids, of a channel of the service, by chance.

    What was served over 10 s is below the limit. So what is refused at less than two thirds of the
    most that was served lately is not refused for the rate; and for some minutes no more than
    such a share of refusals, and what chance adds to it, says anything about it. A limit that
    fell looks the same at first, so with each refusal the proof counts less, until it is renewed.
    """

    __slots__ = ("_began", "_found_at", "_refused", "_served", "_share", "proved")

    def __init__(self, now: float) -> None:
        self.proved = 0.0
        """Requests a second that were served."""
        self._refused = 0.0  # share, smoothed over a hundred requests
        self._served = 0
        self._began = now
        self._share = 0.0
        self._found_at = -math.inf

    def succeeded(self, now: float) -> None:
        """Count a request that was served."""
        self._refused -= self._refused * _MEMORY
        self._served += 1
        if (elapsed := now - self._began) >= PROOF_SECONDS:
            faded = self.proved * 2.0 ** (-elapsed / _PROOF_HALF_LIFE)
            self.proved = max(self._served / elapsed, faded)
            self._served, self._began = 0, now

    def refused(self) -> None:
        """Count a request that was not served."""
        self._refused += (1 - self._refused) * _MEMORY

    def explains(self, now: float, rate: float) -> bool:
        """Return whether a refusal says nothing about the rate, and learn from that.

        :param rate: Requests a second that were allowed.
        """
        if rate < _BELOW_ANY_LIMIT * self.proved and self._refused < _MOST_NOISE:
            self._share, self._found_at = self._refused, now
            self.proved *= _DOUBT
            return True
        share = self._share * 2.0 ** ((self._found_at - now) / _NOISE_HALF_LIFE)
        if share < _LEAST_NOISE:
            return False
        if self._refused <= min(_NOISE_FACTOR * share + _NOISE_MARGIN, _MOST_NOISE):
            return True
        self._share = 0.0  # more is refused than below the limit: that is lower than it was
        self.proved = self._served / max(now - self._began, 1.0)
        return False


class Throttle:
    """Permits for physical requests.

    Every permit that `take` gives ends in exactly one of `succeeded`, `throttled`, `failed`,
    `pause` and `abandoned`, with the time at which it was given.

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
        "_probe_due",
        "_probe_taken",
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
        self._probe_taken: float | None = None
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

    def take(self, now: float) -> float:
        """Take a permit and return 0, or return the seconds after which to ask again.

        ``inf`` says that the end of another's request decides.
        """
        if now <= self._paused_until:  # the probe is known by its time, later than all before
            return math.nextafter(self._paused_until, math.inf) - now
        if self._probe_taken is not None:
            return math.inf
        self._refill(now)
        if self._tokens < _FULL:
            return (1 - self._tokens) / self.rate
        self._tokens = max(0.0, self._tokens - 1)
        self._cubic.sent(now)
        if self._probe_due:
            self._probe_taken = now
        return 0.0

    def succeeded(self, taken: float, now: float) -> None:
        """Learn that the server served a request, whatever it said."""
        if self._limited:  # else nothing here changes the rate, and there is no probe
            self._refill(now)
            self._end_probe(taken, now, passed=True)
        self._noise.succeeded(now)
        if taken >= self._last_cut:
            self._ceiling.succeeded(now, self.rate)
        if not self._limited:
            return
        self._cubic.succeeded(now)
        if self.rate >= self.max_rate and not self._probe_due:
            self._limited = False

    def throttled(
        self, taken: float, now: float, *, reason: str, retry_after: float | None, rand: float
    ) -> None:
        """Learn that the server sent a request away for want of capacity.

        :param reason: What `reason` is to say.
        :param retry_after: Seconds that the server asks for, or None.
        :param rand: A random number, 0 ≤ rand < 1.
        """
        self._refill(now)
        probe_failed = self._end_probe(taken, now, passed=False)
        allowed = self.rate
        self._noise.refused()
        if taken >= self._last_cut:
            self._ceiling.refused(allowed)
        self._limit(reason)
        # What was sent before the cut, or is counted together with that, says nothing new.
        if taken >= self._last_cut + FLIGHT_SECONDS:
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

    def failed(self, taken: float, now: float, *, rand: float) -> None:
        """Learn that a request ended without a word about capacity."""
        self._refill(now)
        if self._end_probe(taken, now, passed=False):
            self._pause_for_probe(now, rand)

    def abandoned(self, taken: float) -> None:
        """Learn that a request was given up by our side."""
        if self._probe_taken == taken:
            self._probe_taken = None

    def pause(self, taken: float, now: float, *, reason: str, rand: float) -> None:
        """Send nothing for about a second, for a trouble on this machine; longer if it lasts.

        What was sent before the last such pause began says nothing new.
        """
        self._refill(now)
        if taken < self._pause_began:
            return
        self._pause_began = now
        self._limit(reason)
        self._probe_taken = None
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

    def _end_probe(self, taken: float, now: float, *, passed: bool) -> bool:
        """Return whether this request was the probe, and it did not pass."""
        if self._probe_taken is None or self._probe_taken != taken:
            return False
        self._probe_taken = None
        if passed:
            self._probe_due = now <= self._paused_until  # another reply asked for a longer pause
            self._failed_probes = 0
            self._tokens = 0.0
        return not passed
