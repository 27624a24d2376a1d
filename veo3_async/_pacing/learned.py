"""The pacing that learns when tasks finish, and asks most when they finish most.

With f the density and S the survival function of the time until a phase ends, the rate of
polls ρ that gives the least mean lag ∫ f/(2ρ) for a given number of polls ∫ ρS is
proportional to √(f/S), the square root of the hazard. Its size is the user's to say.
"""

from __future__ import annotations

import collections
import datetime
import math
from collections.abc import Mapping
from typing import Any, Final, Literal, Self, TypedDict, Unpack

import msgspec

from veo3_async._arguments import seconds, share
from veo3_async._models import Phase
from veo3_async._pacing.hazard import DOCUMENTED_SECONDS, LEAST, MOST
from veo3_async._pacing.of_model import ModelKnowledge, OfModel, PhaseKnowledge
from veo3_async._pacing.policies import Eta, Pacing, Progress
from veo3_async._pacing.prior import guessed_eta
from veo3_async._pacing.schedule import LOOKS, Knobs

__all__ = ["LearnedPacing", "pacing_or_learned"]

_REPLACED_INTERVAL: Final = 10.0  # seconds: what the vendor's own web client asks at
_DEFAULT_POLLS: Final = round(DOCUMENTED_SECONDS / _REPLACED_INTERVAL + LOOKS)

_SHORTEST: Final = 0.001  # seconds: no poll takes less
_LONGEST: Final = 1e9  # seconds, 31 years: still told apart to a microsecond

_MOST_MODELS: Final = 32
"""Whose knowledge is kept, a few kB each."""


class _Options(TypedDict, total=False):
    polls_per_task: float | None
    mean_lag: float | datetime.timedelta | None
    min_interval: float | datetime.timedelta
    max_interval: float | datetime.timedelta
    jitter: float
    half_life: float


class _Knowledge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    tasks: int
    phases: dict[Phase, PhaseKnowledge]
    """Of tasks whose model is not known."""
    models: dict[str, ModelKnowledge] | msgspec.UnsetType = msgspec.UNSET


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

    Until it has seen tasks finish, it asks at an even rate, by default every 10 s. Each model
    (`Progress.model`) is learned by itself, for one of 40 s and one of 6 minutes would blur each
    other; of more than 32 the one that was not asked for longest is forgotten.
    """

    __slots__ = ("_knobs", "_models", "half_life", "jitter", "tasks")

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
        """Tasks that were seen to end, of all models."""
        self._models: collections.OrderedDict[str, OfModel] = collections.OrderedDict()

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
        """Requests that a task will take on average, by what is known now, over all models."""
        return self._average([(one.tasks, one.current().expected_polls) for one in self._all()])

    @property
    def expected_lag(self) -> float:
        """Seconds from the end of a task to the poll that sees it, on average, likewise."""
        return self._average([(one.tasks, one.current().expected_lag) for one in self._all()])

    def delay(self, progress: Progress, rand: float) -> float:
        """Return the seconds until this id is to be asked for again, and learn that it goes on.

        Any numbers give an interval within the bounds.
        """
        step = 1 + self.jitter * (2 * rand - 1)
        wait = self._of(progress.model).wait(progress, _sound(progress.age), step)
        return max(self._knobs.min_interval, min(self._knobs.max_interval, wait))

    def phase_ended(self, last: Progress, lasted: float, successor: Phase) -> None:
        """Learn that a phase of some task lasted so many seconds, and what came after it.

        A task that was lost from sight (`Phase.LOST`) has not ended, for all that is known.
        """
        if self._of(last.model).phase_ended(last, lasted, successor):
            self.tasks += 1

    def eta(self, progress: Progress) -> Eta | None:
        """Return what is left until the video is there, for tasks that get that far.

        A guess (`Eta.is_guess`) until some task of the model was seen to go from this phase all the
        way to its video, if not the same task at each step. None for a phase that is final.
        """
        age = _sound(progress.age)
        left = self._of(progress.model).current().left(progress.phase, age)
        return guessed_eta(progress) if left is None else left

    def to_dict(self) -> dict[str, Any]:
        """Return what was learned, as values that any JSON encoder takes; a few kB a model.

        The options are not part of it: knowledge outlives a change of mind.
        """
        models = {name: one.kept() for name, one in self._models.items()}
        unnamed = models.pop("", ModelKnowledge())
        knowledge = _Knowledge(
            version=1, tasks=self.tasks, phases=unnamed.phases, models=models or msgspec.UNSET
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
        named = {} if knowledge.models is msgspec.UNSET else dict(knowledge.models)
        if knowledge.phases:
            of_named = sum(one.tasks for one in named.values())
            unnamed = ModelKnowledge(max(0, knowledge.tasks - of_named), knowledge.phases)
            named = {"": unnamed, **named}
        restored = {name: self._made().restored(one) for name, one in named.items()}
        self._models = collections.OrderedDict(list(restored.items())[-_MOST_MODELS:])
        self.tasks = knowledge.tasks

    def _of(self, model: str) -> OfModel:
        """Return what is known of a model; the one that was not asked for longest is forgotten.

        One of which nothing is known begins with what was learned of tasks without a model.
        """
        if (known := self._models.get(model)) is None:
            unnamed = self._models.get("")
            known = self._made() if unnamed is None else self._made().restored(unnamed.kept())
            self._models[model] = known
            if len(self._models) > _MOST_MODELS:
                self._models.popitem(last=False)
        self._models.move_to_end(model)
        return known

    def _made(self) -> OfModel:
        return OfModel(self._knobs, self.half_life)

    def _all(self) -> list[OfModel]:
        return list(self._models.values()) or [self._made()]

    def _average(self, values: list[tuple[int, float]]) -> float:
        """Return a mean that tasks weigh; before the first task all models weigh alike."""
        weights = [tasks for tasks, _ in values]
        if not any(weights):
            weights = [1] * len(values)
        return sum(w * v for w, (_, v) in zip(weights, values, strict=True)) / sum(weights)


def _sound(age: float) -> float:
    return min(max(0.0, age), _LONGEST)  # in this order NaN becomes 0


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
        named = {} if knowledge.models is msgspec.UNSET else knowledge.models
        all_phases = [knowledge.phases, *(one.phases for one in named.values())]
        weights = [
            weight
            for phases in all_phases
            for known in phases.values()
            for weight in known.followed_by.values()
        ]
        tasks = [knowledge.tasks, *(one.tasks for one in named.values())]
        is_sound = all(0 <= each <= MOST for each in tasks)
        if is_sound and all(LEAST <= weight <= MOST for weight in weights):
            return knowledge
        fault = "a count is below 0 or not finite"
    message = f"not what LearnedPacing.to_dict() returns, or of another version: {fault}"
    raise ValueError(message)


def pacing_or_learned(pacing: object) -> Pacing:
    """Return a pacing as it came, or a new `LearnedPacing` for None.

    :raises TypeError: It is neither.
    """
    if pacing is None:
        return LearnedPacing()
    if not isinstance(pacing, Pacing):
        message = f"pacing is a Pacing, such as FixedPacing(10), not {pacing!r}"
        raise TypeError(message)
    return pacing
