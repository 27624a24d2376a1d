"""Refusals that come at any rate, and how they differ from those of a limit."""

from __future__ import annotations

import math
from typing import Final

from veo3_async._throttle.share import Share

__all__ = ["PROOF_SECONDS", "Noise"]

# Chosen with `tests/throttle/test_servers.py`: without these statistics, chance that refuses one
# request in 200 leaves half of 20 a second, and a seventh of 100.
PROOF_SECONDS: Final = 10.0
"""Over so long what was served counts as proved."""

_PROOF_HALF_LIFE: Final = 300.0  # seconds

_BELOW_ANY_LIMIT: Final = 2 / 3  # of what was proved

_DOUBT: Final = 0.85  # what a refusal below the limit leaves of the proof

_MEMORY: Final = 100  # requests, of which the share is that is refused

_NOISE_HALF_LIFE: Final = 60.0  # seconds

_LEAST_NOISE: Final = 0.001  # less of it is forgotten

_MUCH_NOISE: Final = 0.1  # more than a few ids account for: one node of three, or of eight

_MOST_NOISE: Final = 0.5  # more of it is a limit, or an outage

_NOISE_FACTOR: Final = 2.0

_NOISE_MARGIN: Final = 0.05  # chance: five standard deviations of 2 %, smoothed as it is


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
        self._refused = Share(_MEMORY)
        self._served = 0
        self._began = now
        self._share = 0.0
        self._found_at = -math.inf

    def succeeded(self, now: float) -> None:
        """Count a request that was served."""
        self._refused.count(befallen=False)
        self._served += 1
        if (elapsed := now - self._began) >= PROOF_SECONDS:
            faded = self.proved * 2.0 ** (-elapsed / _PROOF_HALF_LIFE)
            self.proved = max(self._served / elapsed, faded)
            self._served, self._began = 0, now

    def refused(self) -> None:
        """Count a request that was not served."""
        self._refused.count(befallen=True)

    def forget(self, now: float, proved: float) -> None:
        """Take no more for proved than this: what was served at once was within a window."""
        self.proved = min(self.proved, proved)
        self._served, self._began = 0, now

    def is_much(self, now: float) -> bool:
        """Return whether a whole part of the service refuses, at any rate and whoever asks."""
        return self.share(now) >= _MUCH_NOISE

    def share(self, now: float) -> float:
        """Return the share that was refused below the limit; it is forgotten in minutes."""
        return self._share * math.exp2((self._found_at - now) / _NOISE_HALF_LIFE)

    def explains(self, now: float, rate: float) -> bool:
        """Return whether a refusal says nothing about the rate, and learn from that.

        :param rate: Requests a second that were allowed.
        """
        refused = self._refused.value
        if rate < _BELOW_ANY_LIMIT * self.proved and refused < _MOST_NOISE:
            self._share, self._found_at = refused, now
            self.proved *= _DOUBT
            return True
        share = self.share(now)
        if share < _LEAST_NOISE:
            return False
        if refused <= min(_NOISE_FACTOR * share + _NOISE_MARGIN, _MOST_NOISE):
            return True
        self._share = 0.0  # more is refused than below the limit: that is lower than it was
        self.proved = self._served / max(now - self._began, 1.0)
        return False
