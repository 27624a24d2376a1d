"""What is left of a task while nothing was learned yet: documented durations, said to be a guess.

302.AI's page and other gateways of the format have veo3-pro's tasks take 3 to 6 minutes. How long
those of other models take is not documented: the same median stands for them, in a wider range.
"""

from __future__ import annotations

from typing import Final

from veo3_async._models import Phase
from veo3_async._pacing.policies import Eta, Progress

__all__ = ["guessed_eta"]

_DOCUMENTED: Final = Eta(180.0, 270.0, 360.0, is_guess=True)
_NOT_DOCUMENTED: Final = Eta(60.0, 270.0, 900.0, is_guess=True)
_MODEL: Final = "veo3-pro"

_LEFT_AT_BEGIN: Final = {
    Phase.QUEUED: 1.0,
    Phase.PREPARING: 0.97,
    Phase.GENERATING: 0.9,
    Phase.GENERATED: 0.35,
    Phase.UPSAMPLING: 0.33,
    Phase.RETRYING: 1.0,
    Phase.UNKNOWN: 0.5,
}
"""Shares of the whole that are left when a phase begins; a guess likewise."""

_LEAST_LEFT: Final = 0.1
"""Share of the whole that is left of a task that takes longer than it should."""


def guessed_eta(progress: Progress) -> Eta | None:
    """Return what may be left until the video; None for a task that is over."""
    share = _LEFT_AT_BEGIN.get(progress.phase)
    if share is None:
        return None
    whole = _DOCUMENTED if _MODEL in progress.model else _NOT_DOCUMENTED
    age = max(0.0, progress.age)  # in this order NaN becomes 0
    low, median, high = (
        max(share * seconds - age, _LEAST_LEFT * share * seconds)
        for seconds in (whole.low, whole.median, whole.high)
    )
    return Eta(low, median, high, is_guess=True)
