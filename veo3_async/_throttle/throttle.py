"""How fast we may ask: one estimate for one key.

A token bucket bounds the physical requests. A refusal for the rate cuts it, successes let it grow
again along CUBIC's curve. Where ids are refused one after another, and none is served between
them, all ids wait: as long as ``Retry-After`` says, or by gaps that double, and one request
alone finds out whether that was long enough. Where no answer comes at all, little is sent.
Time is an argument, in seconds of any monotonic clock.
"""

from __future__ import annotations

import math
from typing import Final

from veo3_async._throttle.blockade import Blockade
from veo3_async._throttle.ceiling import Ceiling
from veo3_async._throttle.cubic import MIN_RATE, Cubic
from veo3_async._throttle.noise import Noise
from veo3_async._throttle.share import Share
from veo3_async._throttle.silence import FIRST_GAP, Silence
from veo3_async._throttle.window import Window, limit_of

__all__ = ["FLIGHT_SECONDS", "MAX_PAUSE", "Permit", "Throttle", "paused_for"]

FLIGHT_SECONDS: Final = 1.0
"""Limits are counted by the second, so refusals within one of a cut are those of one flight."""

MAX_PAUSE: Final = 120.0
"""Seconds: a longer ``Retry-After`` is not believed."""

_BURST_SECONDS: Final = 0.1  # what the rate earns in so long may go at once
_FULL: Final = 1 - 1e-9  # a bucket that is asked just when it fills may miss one by rounding

_PAUSE_JITTER: Final = 0.1  # of the pause
_FAILED_PROBE_PAUSE: Final = 1.0  # seconds, and twice that after each further one
_MAX_FAILED_PROBE_PAUSE: Final = 30.0

_ANSWERS: Final = 20  # of which the share is that is put off
_MOST: Final = 0.5

_SILENT: Final = "silent"  # why little is sent while no answers come


def paused_for(retry_after: float, rand: float) -> float:
    """Return the seconds of a pause that the server asked for: a tenth longer, at most by 1 s.

    :param rand: A random number, 0 ≤ rand < 1, which spreads those that got the same hint.
    """
    return retry_after + rand * min(1.0, retry_after * _PAUSE_JITTER)


def _capacity(pace: float) -> float:
    return max(1.0, pace * _BURST_SECONDS)


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
        "_blockade",
        "_ceiling",
        "_cubic",
        "_failed_probes",
        "_hinted_until",
        "_last_cut",
        "_limited",
        "_limited_seconds",
        "_noise",
        "_pace_before",
        "_pause_began",
        "_paused_until",
        "_probe",
        "_probe_due",
        "_put_off",
        "_reason",
        "_refilled",
        "_silence",
        "_tokens",
        "_was_hinted",
        "_window",
        "max_rate",
    )

    def __init__(self, max_rate: float, now: float) -> None:
        self.max_rate: Final = max_rate
        self._tokens = self.burst
        self._refilled = now
        self._limited = False
        self._limited_seconds = 0.0
        self._reason: str | None = None
        # how fast
        self._cubic: Cubic = Cubic(now)
        self._ceiling: Ceiling = Ceiling()
        self._noise: Noise = Noise(now)
        self._last_cut = -math.inf
        self._window: Window | None = None
        self._put_off: Share = Share(_ANSWERS)  # for another reason than the rate
        # whether at all
        self._silence: Silence = Silence(now)
        self._blockade: Blockade = Blockade(now)
        self._pace_before = max_rate  # when the first id of a row was refused
        self._hinted_until = math.inf  # the shortest hint of a row
        self._was_hinted = False
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
        if self._window is None:
            return self._pace
        return min(self.max_rate, max(min(self._pace, self._window.rate), MIN_RATE))

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
        if wait := self._wait(now):
            return wait
        self._tokens -= 1
        self._cubic.sent(now)
        self._silence.sent()
        permit = Permit(now)
        if self._probe_due:
            self._probe = permit
        elif self._window is not None:
            self._window.taken()
        return permit

    def _wait(self, now: float) -> float:
        pace = self._refill(now)
        if now >= self._paused_until and not self._probe_due and self._silence.is_too_long(pace):
            self._silence.is_on = True
            self._limit(_SILENT)
            self._pause(now + FIRST_GAP)
        if now < self._paused_until:
            return self._paused_until - now
        if self._probe is not None:
            return math.inf
        if self._window is not None and not self._probe_due and (wait := self._window.wait(now)):
            return wait
        return 0.0 if self._tokens >= _FULL else (1 - self._tokens) / pace

    # --- how a permit ends ------------------------------------------------------------------

    def succeeded(self, permit: Permit, now: float, *, is_served: bool = True) -> None:
        """Learn that the server took a request, whatever it said but that it comes too fast.

        :param is_served: Whether it did more than to put us off.
        """
        self._put_off.count(befallen=not is_served)
        self._hear(permit, now)
        is_probe = self._probe is permit
        if self._limited:  # else nothing here changes the rate, and there is no probe
            self._refill(now)
            self._end_probe(permit, now, passed=True)
        if is_probe and self._blockade.is_on:
            self._open(permit, now)
        else:
            if self._window is not None and self._window.served(permit.given_at):
                self._blockade.window_opened(permit.given_at)
            self._blockade.served(permit.given_at)
        self._grow(permit, now)

    def throttled(
        self,
        permit: Permit,
        now: float,
        *,
        whose: str,
        reason: str,
        retry_after: float | None,
        may_be_ban: bool,
        rand: float,
    ) -> None:
        """Learn that the server refused a request for its rate.

        :param whose: The id, or another name of it: the trouble of one id does not stop the others.
        :param reason: What `reason` is to say.
        :param retry_after: Seconds that the server asks for, or None.
        :param may_be_ban: Whether each refused request may make it longer, as a 429 says, and not
            an outage.
        :param rand: A random number, 0 ≤ rand < 1.
        """
        self._hear(permit, now)
        self._refill(now)
        is_probe = self._end_probe(permit, now, passed=False)
        was_blocked = self._blockade.is_on
        self._note_hint(now, retry_after, rand, is_alone=is_probe)
        self._blockade.refused(
            permit.given_at, whose, has_window=self._window is not None, is_probe=is_probe
        )
        self._limit(reason)
        if not was_blocked:
            self._cut(permit, now)
        if self._blockade.is_on:
            if is_probe or not was_blocked:
                self._wait_for_opening(now, rand, may_be_ban=may_be_ban)
        elif is_probe:
            self._pause_for_probe(now, rand)

    def failed(
        self, permit: Permit, now: float, *, is_sent: bool, is_answered: bool, rand: float
    ) -> None:
        """Learn that a request ended without a word about the rate.

        :param is_sent: Whether it went out: False where there was no connection.
        :param is_answered: Whether anything came back.
        """
        if is_answered:
            self._hear(permit, now)
        elif not is_sent:
            self._silence.was_not_sent()
        self._refill(now)
        if self._end_probe(permit, now, passed=False):
            self._pause_for_probe(now, rand)

    def abandoned(self, permit: Permit) -> None:
        """Learn that a request was given up by our side."""
        self._silence.was_not_sent()
        if self._probe is permit:
            self._probe = None

    def pause(self, permit: Permit, now: float, *, reason: str, rand: float) -> None:
        """Send nothing for about a second, for a trouble on this machine; longer if it lasts.

        What was sent before the last such pause began says nothing new.
        """
        self._silence.was_not_sent()
        self._refill(now)
        if permit.given_at < self._pause_began:
            return
        self._pause_began = now
        self._limit(reason)
        self._probe = None
        self._pause_for_probe(now, rand)

    def hint_binds(self, now: float, *, is_about_rate: bool) -> bool:
        """Return whether an id must wait as long as ``Retry-After`` says.

        False where a part of the service refuses whoever asks: the hint is that node's, and the
        next request will most likely meet another one.

        :param is_about_rate: Whether the refusal was for the rate: that may be the id's own. What
            is refused for another reason is refused to all, and binds while most of it is.
        """
        return not self._noise.is_much(now) if is_about_rate else self._put_off.value >= _MOST

    # --- how fast ---------------------------------------------------------------------------

    @property
    def _pace(self) -> float:
        """Requests a second, but for a window."""
        if not self._limited or self._last_cut == -math.inf:  # a pause alone says nothing of a rate
            return self.max_rate
        return min(self.max_rate, max(min(self._cubic.rate, self._ceiling.height), MIN_RATE))

    def _grow(self, permit: Permit, now: float) -> None:
        self._noise.succeeded(now)
        if permit.given_at >= self._last_cut:
            self._ceiling.succeeded(now, self._pace)
        if not self._limited:
            return
        self._cubic.succeeded(now)
        if self._window is not None and self._window.grown(now) >= self.max_rate:
            self._window = None
        if self.rate >= self.max_rate and not self._probe_due:
            self._limited = False

    def _cut(self, permit: Permit, now: float) -> None:
        allowed = self._pace
        self._noise.refused()
        if permit.given_at >= self._last_cut:
            self._ceiling.refused(allowed)
        # What was sent before the cut, or is counted together with that, says nothing new.
        if permit.given_at >= self._last_cut + FLIGHT_SECONDS:
            if not self._noise.explains(now, allowed):
                self._last_cut = now
                self._ceiling.cut(now, allowed)
                self._cubic.throttled(now)
            else:
                self._ceiling.restore(now, self._noise.proved, share=self._noise.share(now))
        self._tokens = min(self._tokens, _capacity(self._pace))

    def _open(self, permit: Permit, now: float) -> None:
        """Go on after a blockade, by what it says of the limit."""
        opening = self._blockade.ended(permit.given_at)
        if not opening.served:
            return
        limit = limit_of(opening, permit.given_at, is_exact=self._was_hinted)
        if isinstance(limit, Window):
            self._window = limit
            self._ceiling = Ceiling()
            self._last_cut = -math.inf
            limit = limit.rate
        else:
            self._window = None
            if self._pace_before < self.max_rate:  # a ban says less of the rate than that
                limit = max(limit, math.sqrt(limit * self._pace_before))
            limit = max(MIN_RATE, min(limit, self._pace_before))
            self._ceiling.found(limit, now + opening.blocked)  # what costs much is tried late
            self._cubic.found(limit, now)
            self._last_cut = now
        self._noise.forget(now, limit)

    # --- whether at all ---------------------------------------------------------------------

    def _hear(self, permit: Permit, now: float) -> None:
        if arrived := self._silence.heard(permit.given_at, now):
            self._refill(now)
            self._tokens = -float(arrived)  # they reach the server now, and count now
            self._failed_probes = 0
            if not self._blockade.is_on:
                self._paused_until = min(self._paused_until, now)
                self._probe_due, self._probe = False, None

    def _note_hint(
        self, now: float, retry_after: float | None, rand: float, *, is_alone: bool
    ) -> None:
        if is_alone or not self._blockade.row:
            self._hinted_until = math.inf
            self._pace_before = self._pace
        believed = retry_after is not None and retry_after <= MAX_PAUSE
        until = now + paused_for(retry_after, rand) if believed and retry_after else now
        self._hinted_until = min(self._hinted_until, until)

    def _wait_for_opening(self, now: float, rand: float, *, may_be_ban: bool) -> None:
        self._was_hinted = self._hinted_until > now
        gap = self._blockade.gap(may_be_ban=may_be_ban)
        self._pause(self._hinted_until if self._was_hinted else now + paused_for(gap, rand))

    def _refill(self, now: float) -> float:
        """Earn what the time since the last look is worth; return the pace."""
        pace = self._pace
        if now > self._refilled:
            elapsed = now - self._refilled
            self._refilled = now
            self._tokens += elapsed * pace
            if self._limited:
                self._limited_seconds += elapsed
        self._tokens = min(self._tokens, _capacity(pace))
        return pace

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
            self._tokens = min(0.0, self._tokens)
        return not passed
