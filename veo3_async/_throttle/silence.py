"""Requests of which nothing is heard: all at once they reach a server that wakes."""

from __future__ import annotations

from typing import Final

__all__ = ["Silence"]

# What may be on the wire when nothing comes back. A held link or a stopped server lets it all
# arrive within one second, in which not more than the rate and its burst should.
_SECONDS: Final = 0.5
_MIN_UNANSWERED: Final = 2.0  # one that hangs holds up nobody

_LATENCIES: Final = 2.0  # a slow server has as much under way, and answers all the time

_SMOOTHING: Final = 0.25  # weight of the last answer in the latency

FIRST_GAP: Final = 2.0
"""Seconds after which a probe looks whether the silence is over."""


class Silence:
    """How many requests were sent since something was heard last.

    :param now: The present.
    """

    __slots__ = ("_broken", "_latency", "is_on", "unanswered")

    def __init__(self, now: float) -> None:
        self.is_on = False
        self.unanswered = 0
        """Requests since the last answer. What timed out is among them: it may arrive yet."""
        self._latency = 0.0
        self._broken = now

    def sent(self) -> None:
        """Count a request."""
        self.unanswered += 1

    def was_not_sent(self) -> None:
        """Count one less: it never went out."""
        self.unanswered = max(0, self.unanswered - 1)

    def is_too_long(self, rate: float) -> bool:
        """Return whether no more should go out, but for a probe.

        :param rate: Requests a second that are allowed.
        """
        unanswered = self.unanswered
        return (
            unanswered >= _MIN_UNANSWERED
            and unanswered >= rate * _SECONDS
            and unanswered >= rate * _LATENCIES * self._latency
        )

    def heard(self, sent: float, now: float) -> int:
        """Count an answer to what was sent at a moment; return how many arrived with it.

        0 where there was no silence.
        """
        if sent >= self._broken:  # of one silence, one answer is measured
            self._latency += (now - sent - self._latency) * _SMOOTHING
        unanswered, self.unanswered = self.unanswered, 0
        if not self.is_on:
            return 0
        self.is_on = False
        self._broken = now
        return unanswered
