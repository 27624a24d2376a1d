"""What is learned of the tasks of one model, and the schedule that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from veo3_async._models import FINAL, Phase
from veo3_async._pacing.hazard import Evidence, Kept, rounded
from veo3_async._pacing.policies import Progress
from veo3_async._pacing.schedule import Knobs, Plan

__all__ = ["ModelKnowledge", "OfModel", "PhaseKnowledge"]

# A plan costs as much as some hundred decisions, so it serves for many: for an eighth of all
# that was ever learned, and at most for so much; the end of a task is the better part of it.
# Measured by `python -m benchmarks pacing`, as is what follows.
_STALE_SHARE: Final = 1 / 8
_STALE_MOST: Final = 512
_WEIGHT_OF_END: Final = 16

# Of two ways to begin, the even one is never worse than what it replaces: every so many tasks
# halve what is left of it.
_TASKS_TO_TRUST: Final = 3


class PhaseKnowledge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of one phase."""

    lasted: Kept
    followed_by: dict[Phase, float]


class ModelKnowledge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of one model."""

    tasks: int = 0
    phases: dict[Phase, PhaseKnowledge] = {}


class OfModel:
    """Evidence of how long phases last and what follows them, and the plan made of it.

    :param half_life: Tasks after which what was learned from one counts half.
    """

    __slots__ = (
        "_evidence",
        "_followed",
        "_half_life",
        "_knobs",
        "_learned",
        "_plan",
        "_stale_at",
        "tasks",
    )

    def __init__(self, knobs: Knobs, half_life: float) -> None:
        self._knobs = knobs
        self._half_life = half_life
        self.tasks = 0
        """Tasks that were seen to end."""
        self._evidence: dict[Phase, Evidence] = {}
        self._followed: dict[Phase, dict[Phase, float]] = {}
        self._plan: Plan | None = None
        self._learned = 0
        self._stale_at = 0.0
        """So much learned, and the plan is made anew."""

    def wait(self, progress: Progress, age: float, polls: float) -> float:
        """Return the seconds until so many polls are due, and learn that the phase goes on."""
        evidence = self._known(progress.phase)
        if progress.previous_age is not None:
            evidence.went_on(progress.previous_age, progress.age)
        self._learned += 1
        return self.current().wait(progress.phase, age, polls)

    def phase_ended(self, last: Progress, lasted: float, successor: Phase) -> bool:
        """Learn how long a phase lasted and what followed; return whether a task has ended."""
        evidence = self._known(last.phase)
        evidence.went_on(last.age, lasted)
        if successor is Phase.LOST:
            return False
        evidence.ended_at(lasted)
        followed = self._followed[last.phase]
        kept = 2 ** (-1 / self._half_life)
        for other in followed:
            followed[other] *= kept
        followed[successor] = followed.get(successor, 0.0) + 1
        if successor not in FINAL:
            return False
        self.tasks += 1
        self._learned += _WEIGHT_OF_END
        return True

    def kept(self) -> ModelKnowledge:
        """Return what is to be kept."""
        return ModelKnowledge(
            self.tasks,
            {
                phase: PhaseKnowledge(
                    lasted=seen.kept(),
                    followed_by={
                        successor: rounded(weight)
                        for successor, weight in self._followed[phase].items()
                        if rounded(weight)
                    },
                )
                for phase, seen in self._evidence.items()
            },
        )

    def restored(self, knowledge: ModelKnowledge) -> OfModel:
        """Return the same with what was kept.

        :raises ValueError: It is not sound.
        """
        other = OfModel(self._knobs, self._half_life)
        for phase, known in knowledge.phases.items():
            other._known(phase).learn(known.lasted)
            other._followed[phase] = dict(known.followed_by)
        other.tasks = knowledge.tasks
        return other

    def current(self) -> Plan:
        """Return the plan, made anew where enough was learned since."""
        if self._plan is None or self._learned > self._stale_at:
            self._stale_at = self._learned + min(_STALE_MOST, self._learned * _STALE_SHARE)
            evidence = self._evidence or {Phase.QUEUED: Evidence(self._half_life)}
            hazards = {phase: seen.hazard() for phase, seen in evidence.items()}
            odds = {phase: _shares(self._followed.get(phase, {})) for phase in evidence}
            trust = 1 - 2 ** (-self.tasks / _TASKS_TO_TRUST)
            self._plan = Plan(hazards, odds, self._knobs, trust=trust)
        return self._plan

    def _known(self, phase: Phase) -> Evidence:
        if phase not in self._evidence:
            self._evidence[phase] = Evidence(self._half_life)
            self._followed[phase] = {}
            self._plan = None
        return self._evidence[phase]


def _shares(weights: Mapping[Phase, float]) -> dict[Phase, float]:
    total = sum(weights.values())
    return {phase: weight / total for phase, weight in weights.items()}
