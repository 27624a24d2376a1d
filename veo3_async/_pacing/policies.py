"""When to ask again for one id.

A pacing gets how far an id is and returns seconds. It is asked only after a reply that held a
state; what comes after a fault is the backoff of `_lifecycle.retries`.
"""

from __future__ import annotations

import datetime
import math
from typing import Final, Protocol, runtime_checkable

import msgspec

from veo3_async._arguments import seconds, share
from veo3_async._models import Phase

__all__ = ["BackoffPacing", "Eta", "FixedPacing", "Pacing", "Progress"]


class Progress(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How far one id is, at the moment of a reply."""

    phase: Phase
    """The phase that the reply put it in."""
    age: float
    """Seconds that this phase has lasted: by the server's clock where it says so, else since we saw
    it first. Never negative."""
    previous_age: float | None = None
    """``age`` at the reply before, if that was in the same phase; None for the first in it."""
    polls: int = 1
    """Replies in this phase so far, this one included."""
    model: str = ""
    """Whose task it is: the model, or the path that names it; empty where that is not known."""


class Eta(msgspec.Struct, frozen=True, gc=False):
    """Seconds that are left until the video is there, as a median and an 80 % range."""

    low: float
    """10th percentile."""
    median: float
    """50th percentile."""
    high: float
    """90th percentile."""
    is_guess: bool = False
    """Whether it comes from documented durations: no task of the model was seen to end yet."""


@runtime_checkable
class Pacing(Protocol):
    """When to ask again; hand an object of your own to ``Veo3Client(pacing=…)``.

    All methods are plain functions, called on the event loop: they must be quick. One pacing
    may serve any number of ids; what it needs to know of one comes with every call.
    """

    def delay(self, progress: Progress, rand: float) -> float:
        """Return the seconds until this id is to be asked for again.

        Called once for every reply that leaves the id in a phase that is not final, so that it
        may learn from it: the phase has lasted from ``previous_age`` to ``age`` and goes on.

        :param rand: A random number, 0 ≤ rand < 1, for jitter.
        """

    def phase_ended(self, last: Progress, lasted: float, successor: Phase) -> None:
        """Learn that a phase of some task lasted so many seconds, and what came after it.

        :param last: What ``delay`` got at the last reply in that phase.
        :param successor: The phase that was seen next; a final one at the end.
        """

    def eta(self, progress: Progress) -> Eta | None:
        """Return what is left until the video is there, or None where nothing is known."""


class FixedPacing:
    """Ask at a fixed interval.

    :param interval: Seconds (``float`` or ``timedelta``) between two polls of one id, over 0.
        The default is what the vendor's own web client uses.
    :param jitter: Share of the interval, 0 to 1, by which a wait may be shorter or longer, so
        that ids that began together drift apart.
    :raises ValueError: A number is out of its range.
    """

    __slots__ = ("interval", "jitter")

    def __init__(self, interval: float | datetime.timedelta = 10.0, *, jitter: float = 0.1) -> None:
        self.interval: Final = seconds("interval", interval)
        self.jitter: Final = share("jitter", jitter)

    def __repr__(self) -> str:
        return f"FixedPacing({self.interval:g}, jitter={self.jitter:g})"

    def delay(self, progress: Progress, rand: float) -> float:  # noqa: ARG002 - fixed
        """Return the interval, jittered."""
        return _jittered(self.interval, self.jitter, rand)

    def phase_ended(self, last: Progress, lasted: float, successor: Phase) -> None:
        """Learn nothing."""

    def eta(self, progress: Progress) -> None:
        """Know nothing."""


class BackoffPacing:
    """Ask at an interval that grows with every reply in the same phase.

    :param initial: Seconds (``float`` or ``timedelta``) before the second poll of a phase.
    :param maximum: Seconds that the interval grows up to, at least ``initial``.
    :param factor: What it is multiplied by after each poll, at least 1.
    :param jitter: Share of the interval, 0 to 1, by which a wait may be shorter or longer.
    :raises ValueError: A number is out of its range.

    Usual elsewhere, and the laziest exactly when tasks finish; prefer another pacing.
    """

    __slots__ = ("factor", "initial", "jitter", "maximum")

    def __init__(
        self,
        initial: float | datetime.timedelta = 1.0,
        maximum: float | datetime.timedelta = 30.0,
        *,
        factor: float = 1.5,
        jitter: float = 0.1,
    ) -> None:
        self.initial: Final = seconds("initial", initial)
        self.maximum: Final = seconds("maximum", maximum)
        if self.maximum < self.initial:
            message = f"maximum ({self.maximum:g} s) is below initial ({self.initial:g} s)"
            raise ValueError(message)
        if not (math.isfinite(factor) and factor >= 1):
            message = f"factor is a number of at least 1, not {factor!r}"
            raise ValueError(message)
        self.factor: Final = factor
        self.jitter: Final = share("jitter", jitter)

    def __repr__(self) -> str:
        return f"BackoffPacing({self.initial:g}, {self.maximum:g}, factor={self.factor:g})"

    def delay(self, progress: Progress, rand: float) -> float:
        """Return the interval of this many polls in the phase, jittered."""
        try:
            grown = self.initial * self.factor ** (progress.polls - 1)
        except OverflowError:
            grown = self.maximum
        return _jittered(min(grown, self.maximum), self.jitter, rand)

    def phase_ended(self, last: Progress, lasted: float, successor: Phase) -> None:
        """Learn nothing."""

    def eta(self, progress: Progress) -> None:
        """Know nothing."""


def _jittered(interval: float, jitter: float, rand: float) -> float:
    return interval * (1 + jitter * (2 * rand - 1))
