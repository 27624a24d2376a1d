"""For how long a phase has lasted, by the server's clock."""

from __future__ import annotations

from typing import Final

from veo3_async._lifecycle.phases import State
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.http import Reply, server_time

__all__ = ["phase_age"]

_HALF_A_SECOND: Final = 0.5  # a ``Date`` is cut to whole seconds


def phase_age(state: State, answer: Reply | Problem) -> float:
    """Return for how many seconds a phase that we see first has lasted, by the server's clock."""
    if state.entered_at is None or not isinstance(answer, Reply):
        return 0.0
    served = server_time(answer)
    return 0.0 if served is None else max(0.0, served + _HALF_A_SECOND - state.entered_at / 1000)
