"""The pacing that learns when tasks finish, and asks most when they finish most.

With f the density and S the survival function of the time until a phase ends, the rate of
polls ρ that gives the least mean lag ∫ f/(2ρ) for a given number of polls ∫ ρS is
proportional to √(f/S), the square root of the hazard. Its size is the user's to say.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from typing import Any, Final, Literal, Self, TypedDict, Unpack

import msgspec

from veo3_async._arguments import seconds, share
from veo3_async._models import FINAL, Phase
from veo3_async._pacing.hazard import DOCUMENTED_SECONDS, LEAST, MOST, Evidence, Kept, rounded
from veo3_async._pacing.policies import Eta, Progress
from veo3_async._pacing.schedule import LOOKS, Knobs, Plan

__all__ = ["LearnedPacing"]

_REPLACED_INTERVAL: Final = 10.0  # seconds: what the vendor's own web client asks at
_DEFAULT_POLLS: Final = round(DOCUMENTED_SECONDS / _REPLACED_INTERVAL + LOOKS)

# A plan costs as much as some hundred decisions, so it serves for many: for an eighth of all
# that was ever told, and at most for so much news; the end of a task is the better part of it.
_NEWS_SHARE: Final = 1 / 8
_NEWS_MOST: Final = 512
_NEWS_OF_END: Final = 16

# Of two ways to begin, the even one is never worse than what it replaces: every so many tasks
# halve what is left of it.
_TASKS_TO_TRUST: Final = 3

_SHORTEST: Final = 0.001  # seconds: no poll takes less
_LONGEST: Final = 1e9  # seconds, 31 years: still told apart to a microsecond


class _Options(TypedDict, total=False):
    polls_per_task: float | None
    mean_lag: float | datetime.timedelta | None
    min_interval: float | datetime.timedelta
    max_interval: float | datetime.timedelta
    jitter: float
    half_life: float


class _PhaseKnowledge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    lasted: Kept
    followed_by: dict[Phase, float]


class _Knowledge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    tasks: int
    phases: dict[Phase, _PhaseKnowledge]


class LearnedPacing:
    """Ask when tasks are likely to finish, and learn when that is from every task watched.

    Give one of the first two, or neither; the other follows and can be read.

    :param polls_per_task: What to spend: requests from the first look at a task to the one
        that finds it finished, on average, at least 2. The default is 35, what a fixed
        interval of 10 s costs for the task on 302.AI's page (334.7 s).
    :param mean_lag: What to get: seconds (``float`` or ``timedelta``) from the moment a task
        is finished to the poll that sees it, on average; between half of ``min_interval`` and
        half of ``max_interval``. None: as little as ``polls_per_task`` allows.
    :param min_interval: Seconds (``float`` or ``timedelta``) between two polls of one id, at
        least; not below a millisecond.
    :param max_interval: Seconds between two polls of one id, at most; also where nothing ever
        happened so far.
    :param jitter: Share of a wait, 0 to 1, by which it may be shorter or longer, so that ids
        that began together drift apart.
    :param half_life: Tasks after which what was learned from one counts half, at least 1. Few
        follow a change of the service sooner, many know it better.
    :raises TypeError: A duration is neither a number nor a ``timedelta``.
    :raises ValueError: A number is out of its range, or both of the first two were given.

    Until it has seen tasks finish, it asks at an even rate, by default every 10 s.
    """

    __slots__ = (
        "_evidence",
        "_followed",
        "_heard",
        "_knobs",
        "_news",
        "_plan",
        "half_life",
        "jitter",
        "tasks",
    )

    def __init__(
        self,
        polls_per_task: float | None = None,
        mean_lag: float | datetime.timedelta | None = None,
        *,
        min_interval: float | datetime.timedelta = 1.0,
        max_interval: float | datetime.timedelta = 120.0,
        jitter: float = 0.05,
        half_life: float = 50.0,
    ) -> None:
        self._knobs: Final = _knobs(polls_per_task, mean_lag, min_interval, max_interval)
        self.jitter: Final = share("jitter", jitter)
        self.half_life: Final = _at_least("half_life", half_life, 1)
        self.tasks: int = 0
        self._evidence: dict[Phase, Evidence] = {}
        self._followed: dict[Phase, dict[Phase, float]] = {}
        self._plan: Plan | None = None
        self._heard = 0
        self._news = 0

    def __repr__(self) -> str:
        knob = (
            f"mean_lag={self._knobs.mean_lag:g}"
            if self._knobs.polls_per_task is None
            else f"polls_per_task={self._knobs.polls_per_task:g}"
        )
        return (
            f"LearnedPacing({knob}, tasks={self.tasks}, "
            f"expected_polls={self.expected_polls:.1f}, expected_lag={self.expected_lag:.1f})"
        )

    @property
    def expected_polls(self) -> float:
        """Requests that a task will take on average, by what is known now."""
        return self._current().expected_polls

    @property
    def expected_lag(self) -> float:
        """Seconds from the end of a task to the poll that sees it, on average, as known now."""
        return self._current().expected_lag

    def delay(self, progress: Progress, rand: float) -> float:
        """Return the seconds until this id is to be asked for again, and learn that it goes on.

        Any numbers give an interval within the bounds.
        """
        evidence = self._known(progress.phase)
        if progress.previous_age is not None:
            evidence.went_on(progress.previous_age, progress.age)
        self._hear(1)
        step = 1 + self.jitter * (2 * rand - 1)
        wait = self._current().wait(progress.phase, _sound(progress.age), step)
        return max(self._knobs.min_interval, min(self._knobs.max_interval, wait))

    def phase_ended(self, last: Progress, lasted: float, successor: Phase) -> None:
        """Learn that a phase of some task lasted so many seconds, and what came after it.

        A task that was lost from sight (`Phase.LOST`) has not ended, for all that is known.
        """
        evidence = self._known(last.phase)
        evidence.went_on(last.age, lasted)
        if successor is Phase.LOST:
            return
        evidence.ended_at(lasted)
        followed = self._followed[last.phase]
        for other in followed:
            followed[other] *= 2 ** (-1 / self.half_life)
        followed[successor] = followed.get(successor, 0.0) + 1
        if successor in FINAL:
            self.tasks += 1
            self._hear(_NEWS_OF_END)

    def eta(self, progress: Progress) -> Eta | None:
        """Return what is left until the video is there, for tasks that get that far.

        None until some task was seen to go from this phase all the way to its video, if not
        the same task at each step.
        """
        return self._current().left(progress.phase, _sound(progress.age))

    def to_dict(self) -> dict[str, Any]:
        """Return what was learned, as values that any JSON encoder takes; a few kB.

        The options are not part of it: knowledge outlives a change of mind.
        """
        knowledge = _Knowledge(
            version=1,
            tasks=self.tasks,
            phases={
                phase: _PhaseKnowledge(
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
        plain: dict[str, Any] = msgspec.to_builtins(knowledge, str_keys=True)
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, object], **options: Unpack[_Options]) -> Self:
        """Return a pacing that knows what another had learned.

        :param data: What `to_dict` returned, as it is or through JSON.
        :param options: As for the class.
        :raises ValueError: It is of another version, or no such thing.
        """
        pacing = cls(**options)
        pacing.restore(data)
        return pacing

    def restore(self, data: Mapping[str, object]) -> None:
        """Know what another pacing had learned, in place of what is known; options stay.

        :param data: What `to_dict` returned, as it is or through JSON.
        :raises ValueError: It is of another version, or no such thing; nothing is changed.
        """
        knowledge = _knowledge(data)
        evidence = {phase: Evidence(self.half_life) for phase in knowledge.phases}
        for phase, known in knowledge.phases.items():
            evidence[phase].learn(known.lasted)
        self._evidence = evidence
        self._followed = {p: dict(known.followed_by) for p, known in knowledge.phases.items()}
        self.tasks = knowledge.tasks
        self._plan = None

    def _known(self, phase: Phase) -> Evidence:
        if phase not in self._evidence:
            self._evidence[phase] = Evidence(self.half_life)
            self._followed[phase] = {}
            self._plan = None
        return self._evidence[phase]

    def _hear(self, news: int) -> None:
        self._heard += news
        self._news += news

    def _current(self) -> Plan:
        stale = self._news > min(_NEWS_MOST, self._heard * _NEWS_SHARE)
        if self._plan is None or stale:
            self._news = 0
            evidence = self._evidence or {Phase.QUEUED: Evidence(self.half_life)}
            hazards = {phase: seen.hazard() for phase, seen in evidence.items()}
            odds = {phase: _shares(self._followed.get(phase, {})) for phase in evidence}
            self._plan = Plan(
                hazards, odds, self._knobs, trust=1 - 2 ** (-self.tasks / _TASKS_TO_TRUST)
            )
        return self._plan


def _sound(age: float) -> float:
    return min(max(0.0, age), _LONGEST)  # in this order NaN becomes 0


def _shares(weights: Mapping[Phase, float]) -> dict[Phase, float]:
    total = sum(weights.values())
    return {phase: weight / total for phase, weight in weights.items()}


def _knobs(
    polls_per_task: float | None,
    mean_lag: float | datetime.timedelta | None,
    min_interval: float | datetime.timedelta,
    max_interval: float | datetime.timedelta,
) -> Knobs:
    low = _at_least("min_interval", seconds("min_interval", min_interval), _SHORTEST)
    high = seconds("max_interval", max_interval)
    if high < low:
        message = f"max_interval ({high:g} s) is below min_interval ({low:g} s)"
        raise ValueError(message)
    if mean_lag is None:
        polls = _DEFAULT_POLLS if polls_per_task is None else polls_per_task
        polls = _at_least("polls_per_task", polls, 2)
        return Knobs(polls_per_task=polls, min_interval=low, max_interval=high)
    if polls_per_task is not None:
        message = "give polls_per_task or mean_lag, not both: the other follows"
        raise ValueError(message)
    lag = seconds("mean_lag", mean_lag)
    if not low / 2 <= lag <= high / 2:
        message = (
            f"mean_lag is {low / 2:g} to {high / 2:g} s, half of min_interval to half of "
            f"max_interval, not {lag:g}; change these, or it"
        )
        raise ValueError(message)
    return Knobs(polls_per_task=None, mean_lag=lag, min_interval=low, max_interval=high)


def _at_least(name: str, value: float, least: float) -> float:
    if not (math.isfinite(value) and value >= least):
        message = f"{name} is a finite number of at least {least:g}, not {value!r}"
        raise ValueError(message)
    return value


def _knowledge(data: object) -> _Knowledge:
    try:
        knowledge = msgspec.convert(data, _Knowledge, str_keys=True)
    except (msgspec.ValidationError, OverflowError, RecursionError) as error:
        fault = str(error)
    else:
        weights = [w for known in knowledge.phases.values() for w in known.followed_by.values()]
        if 0 <= knowledge.tasks <= MOST and all(LEAST <= weight <= MOST for weight in weights):
            return knowledge
        fault = "a count is below 0 or not finite"
    message = f"not what LearnedPacing.to_dict() returns, or of another version: {fault}"
    raise ValueError(message)
