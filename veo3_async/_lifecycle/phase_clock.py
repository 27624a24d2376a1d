"""For how long a phase has lasted: by the server's clock where it says, else since first seen."""

from __future__ import annotations

from typing import Final

import msgspec

from veo3_async._lifecycle.phases import State
from veo3_async._models import Phase
from veo3_async._pacing.policies import Progress
from veo3_async._protocol.http import Reply, server_time

__all__ = ["NOT_SEEN", "PhaseClock", "phase_age"]

_HALF_A_SECOND: Final = 0.5  # a ``Date`` is cut to whole seconds


class PhaseClock(msgspec.Struct, frozen=True, gc=False):
    """What is remembered of the present phase of one id."""

    last: Progress | None = None
    """How far it was at the last reply; None before the first. Its ``polls`` are 0 where another
    process saw the phase, and this one has no reply of it yet."""
    began: float = 0.0
    """When it began, seconds of the caller's clock."""
    entered_at: int | None = None
    """The same by the server's clock, milliseconds since the epoch, where it says."""

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

    def lasted(self, state: State, now: float) -> float:
        """Return for how many seconds it lasted, at the reply that shows its end."""
        if state.entered_at is None or self.entered_at is None:
            return max(0.0, now - self.began)
        return max(0.0, (state.entered_at - self.entered_at) / 1000)  # whenever we looked

    def after(self, state: State, reply: Reply | None, now: float, model: str) -> PhaseClock:
        """Return the clock after a reply that held a state.

        :param model: Whose task it is, as `Progress.model` says.
        """
        phase = state.phase or Phase.UNKNOWN
        if self.last is not None and self.last.phase is phase:
            return PhaseClock(self.progress(now), self.began, self.entered_at)
        age = phase_age(state, reply)
        return PhaseClock(Progress(phase=phase, age=age, model=model), now - age, state.entered_at)


NOT_SEEN: Final = PhaseClock()
"""Of an id of which no reply came yet."""


def phase_age(state: State, reply: Reply | None) -> float:
    """Return for how many seconds a phase that we see first has lasted, by the server's clock."""
    if state.entered_at is None or reply is None:
        return 0.0
    served = server_time(reply)
    return 0.0 if served is None else max(0.0, served + _HALF_A_SECOND - state.entered_at / 1000)
