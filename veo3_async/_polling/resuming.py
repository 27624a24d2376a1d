"""Tasks that a journal knows: which of them are left, and in what order they are asked first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from anyio import to_thread

from veo3_async._learned_store import exchange
from veo3_async._lifecycle.judge import OF_MANY_MODELS, model_of_route
from veo3_async._lifecycle.places import polled_at
from veo3_async._models import Transition
from veo3_async._pacing.first_polls import Kind, Sighting, expected, first_polls
from veo3_async._pacing.learned import LearnedPacing
from veo3_async._pacing.policies import Eta, FixedPacing, Pacing
from veo3_async._protocol.families import Route

if TYPE_CHECKING:
    from veo3_async._journal.journal import Journal
    from veo3_async._journal.rows import Watched

__all__ = ["LeftOver", "Ordered", "in_order", "left_over"]

_T = TypeVar("_T")

_IGNORANT: Final = FixedPacing()

_AT_ONCE: Final = 500
"""Tasks that are put in order on the loop; more of them go to a thread."""


class Ordered(NamedTuple):
    """Tasks in the order in which they are asked first."""

    tasks: Sequence[Watched]
    waits: Sequence[float]
    """Seconds until each of them is due, rising."""


class LeftOver(NamedTuple):
    """What an earlier process left in a journal."""

    unfinished: Sequence[Watched]
    ends: Sequence[Transition]
    """Of those that remain to be delivered."""


async def left_over(journal: Journal, pacing: Pacing) -> LeftOver:
    """Return what is left in a journal, and let the pacing know what it knew.

    :raises JournalError: It cannot be read.
    """
    if isinstance(pacing, LearnedPacing):
        await exchange(pacing, journal)  # who is asked first is as well chosen as what it knows
    unfinished = await journal.unfinished()
    # Read after those that run: what ends in between is in both, and not in none.
    ended = await journal.undelivered()
    return LeftOver(unfinished, [task.final for task in ended if task.final is not None])


async def in_order(
    tasks: Sequence[Watched], pacing: Pacing, default: Route, rate: float
) -> Ordered:
    """Return tasks with those first that have most likely ended, as `first_polls` says.

    :param default: Where an id is polled of which nothing is known.
    :param rate: Polls a second.
    """
    wall_now = time.time()
    sightings = await _aside(len(tasks), lambda: _sightings(tasks, default, wall_now))
    etas = {}
    for kind in dict.fromkeys(sighting.kind for sighting in sightings):
        etas[kind] = _expected(pacing, kind)  # here: a pacing is only asked on the loop
        await asyncio.sleep(0)
    polls = await _aside(len(tasks), lambda: first_polls(sightings, etas, rate))
    return Ordered([tasks[place] for place in polls.order], polls.waits)


async def _aside(count: int, work: Callable[[], _T]) -> _T:
    return work() if count <= _AT_ONCE else await to_thread.run_sync(work)


def _expected(pacing: Pacing, kind: Kind) -> Eta | None:
    try:
        return expected(pacing, kind)
    except Exception:  # noqa: BLE001 - it will say so after the first poll, and that is fatal
        return expected(_IGNORANT, kind)


def _sightings(tasks: Iterable[Watched], default: Route, wall_now: float) -> list[Sighting]:
    models: dict[tuple[str | None, ...], str] = {}
    sightings = []
    for task in tasks:
        where: tuple[str | None, ...] = (task.family, task.path, task.model)
        if task.path is None:
            where = (task.request_id,)  # its prefix says it
        if (model := models.get(where)) is None:
            model = models[where] = _model(task, default)
        is_begin_known = bool(task.was_seen) or task.model is not None
        sightings.append(Sighting((model, task.phase), wall_now - task.since, is_begin_known))
    return sightings


def _model(task: Watched, default: Route) -> str:
    """Return whose task it is, as `Progress.model` says."""
    if task.family == OF_MANY_MODELS and task.model is not None:
        return task.model
    return model_of_route(polled_at(task.request_id, task.origin, default))
