"""For how long a phase has lasted: by the server's clock where that can be, else by ours.

The server's times are exact where they are right. But clocks are set wrong, times stay as they
were, and the ``Date`` may be a proxy's: so they are believed only as far as they agree with when
we saw a phase first and last.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from veo3_async._lifecycle.phases import STANDSTILL, State
from veo3_async._models import Phase
from veo3_async._pacing.policies import Progress
from veo3_async._protocol.http import Reply, server_time

__all__ = ["NOT_SEEN", "PhaseClock", "phase_age"]

_HALF_A_SECOND: Final = 0.5  # a ``Date`` is cut to whole seconds
_SLACK: Final = 2.0
"""Seconds by which the server's times may differ from ours: cut to seconds, and on their way."""


class PhaseClock(msgspec.Struct, frozen=True, gc=False):
    """What is remembered of the present phase of one id. All times are of the caller's clock."""

    last: Progress | None = None
    """How far it was at the last reply; None before the first. Its ``polls`` are 0 where another
    process saw the phase, and this one has no reply of it yet."""
    began: float = 0.0
    """When it began."""
    entered_at: int | None = None
    """The same by the server's clock, milliseconds since the epoch, where it says."""
    seen_at: float = math.inf
    """When it was seen first; infinite where another process has seen it."""
    not_before: float = -math.inf
    """When the phase before it was seen last, so that it began later; infinitely long ago where
    that is not known."""

    def progress(self, now: float) -> Progress:
        """Return how far it is at a reply that shows the same phase as the last one."""
        last = self.last
        assert last is not None  # noqa: S101 - there was a reply
        return Progress(
            phase=last.phase,
            age=max(0.0, now - self.began),
            previous_age=last.age if last.polls else None,
            polls=last.polls + 1,
            model=last.model,
        )

    def goes_on(self, now: float) -> PhaseClock:
        """Return the clock after a reply that shows the same phase as the last one."""
        progress = self.progress(now)
        return PhaseClock(progress, self.began, self.entered_at, self.seen_at, self.not_before)

    def lasted(self, state: State, now: float) -> float:
        """Return for how many seconds it lasted, at the reply that shows its end."""
        seen_last = self._seen_last()
        if state.entered_at is not None and self.entered_at not in {None, state.entered_at}:
            said = (state.entered_at - (self.entered_at or 0)) / 1000  # whenever we looked
            if seen_last - self.seen_at - _SLACK <= said <= now - self.not_before + _SLACK:
                return max(0.0, said)
        return max(0.0, now - (self.seen_at if math.isfinite(self.seen_at) else self.began))

    def after(self, state: State, reply: Reply | None, now: float, model: str) -> PhaseClock:
        """Return the clock after a reply that held a state.

        :param model: Whose task it is, as `Progress.model` says.
        """
        phase = state.phase or Phase.UNKNOWN
        if self.last is not None and self.last.phase is phase:
            return self.goes_on(now)
        not_before = self._seen_last()
        age = _believed(phase_age(state, reply), now - not_before)
        progress = Progress(phase=phase, age=age, model=model)
        return PhaseClock(progress, now - age, state.entered_at, now, not_before)

    def _seen_last(self) -> float:
        """Return when the phase was seen last."""
        if self.last is None or not self.last.polls:
            return -math.inf
        return self.began + self.last.age


NOT_SEEN: Final = PhaseClock()
"""Of an id of which no reply came yet."""


def phase_age(state: State, reply: Reply | None) -> float | None:
    """Return for how many seconds a phase that we see first has lasted, by the server's clock.

    None where the server does not say.
    """
    if state.entered_at is None or reply is None:
        return None
    served = server_time(reply)
    return None if served is None else served + _HALF_A_SECOND - state.entered_at / 1000


def _believed(age: float | None, most: float) -> float:
    """Return an age that can be: what the server says, else half of what is possible.

    :param most: Seconds since the phase before was seen; infinite where it was not.
    """
    if age is not None and -_SLACK <= age <= min(most + _SLACK, STANDSTILL):
        return min(max(0.0, age), most)
    return most / 2 if math.isfinite(most) else 0.0
