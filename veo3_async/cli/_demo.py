"""The whole way without a key and without a network, on a fake service in this process."""

from __future__ import annotations

import itertools
import random
import time
from typing import Final

import msgspec

from veo3_async import Eta, LearnedPacing, Pacing, Phase, Progress, Stats, Veo3Client, testing
from veo3_async._protocol.families.record import PHASE_OF_WORD
from veo3_async.cli._follow import WatchOptions, follow
from veo3_async.cli._view import View
from veo3_async.live._board import Board
from veo3_async.testing import Life, Stage

__all__ = ["Demo", "ScaledPacing"]

_LIVES: Final = (
    (Life.documented(), Phase.COMPLETED),
    (Life.retrying(), Phase.COMPLETED),
    (Life.documented(), Phase.COMPLETED),
    (Life.plain(), Phase.COMPLETED),
    (Life.documented(), Phase.COMPLETED),
    (Life.failing(), Phase.FAILED),
    (Life.documented(), Phase.COMPLETED),
    (Life.upsample_failing(), Phase.COMPLETED_PLAIN),
    (Life.documented(), Phase.COMPLETED),
    (Life.retrying(2), Phase.COMPLETED),
)
"""What becomes of the tasks, in turn, and how each must end."""

_SIGMA: Final = 0.2  # the longest of 25 lives then takes 25 s at 20 × speed
_SEED: Final = 302
_MAX_RATE: Final = 200.0  # it is our own server

_SEEN_BEFORE: Final = 40
_PROMPTS: Final = (
    "a lighthouse in a storm",
    "a paper boat on a mountain stream",
    "snow falling upwards over a quiet town",
    "an octopus who conducts an orchestra",
    "the last tram of the night, seen from a roof",
)


class ScaledPacing:
    """A pacing for a service that runs faster than the real one.

    The pacing within sees the real one's seconds, so it may know what is known of that.

    :param speed: The factor, above 0.
    """

    def __init__(self, pacing: Pacing, speed: float) -> None:
        self._pacing: Final = pacing
        self._speed: Final = speed

    def delay(self, progress: Progress, rand: float) -> float:
        """Return the seconds until the next poll."""
        return self._pacing.delay(self._slow(progress), rand) / self._speed

    def phase_ended(self, last: Progress, lasted: float, successor: Phase) -> None:
        """Learn how long a phase lasted."""
        self._pacing.phase_ended(self._slow(last), lasted * self._speed, successor)

    def eta(self, progress: Progress) -> Eta | None:
        """Return what is left."""
        eta = self._pacing.eta(self._slow(progress))
        if eta is None:
            return None
        low, median, high = (each / self._speed for each in (eta.low, eta.median, eta.high))
        return msgspec.structs.replace(eta, low=low, median=median, high=high)

    def _slow(self, progress: Progress) -> Progress:
        previous = progress.previous_age
        return msgspec.structs.replace(
            progress,
            age=progress.age * self._speed,
            previous_age=None if previous is None else previous * self._speed,
        )


def _experienced(rng: random.Random) -> LearnedPacing:
    """Return the pacing of a program that has watched some tasks before, so that it has ETAs."""
    pacing = LearnedPacing()
    for _ in range(_SEEN_BEFORE):
        lived = _phases(Life.random(rng))
        ends = [phase for phase, _ in lived[1:]] + [Phase.COMPLETED]
        for (phase, seconds), successor in zip(lived, ends, strict=True):
            pacing.phase_ended(Progress(phase=phase, age=0.0), seconds, successor)
    return pacing


def _phases(life: Life) -> list[tuple[Phase, float]]:
    """Return the phases of a life before its end, and how many seconds each lasts."""
    *stages, _ = life.stages
    return [
        (phase, sum(stage.seconds or 0.0 for stage in of_phase))
        for phase, of_phase in itertools.groupby(stages, _phase_of)
    ]


def _phase_of(stage: Stage) -> Phase:
    word = stage.says.get("status") if isinstance(stage.says, dict) else None
    return PHASE_OF_WORD.get(str(word), Phase.UNKNOWN)


class Demo:
    """Tasks of every kind, submitted and watched to their end.

    The pacing knows such tasks already, as that of a program does that runs for some time.

    :param tasks: How many.
    :param speed: Factor by which they run faster than real ones.
    """

    def __init__(self, tasks: int, speed: float) -> None:
        rng = random.Random(_SEED)
        cast = [_LIVES[n % len(_LIVES)] for n in range(tasks)]
        lives = [life.stretched(rng, _SIGMA) for life, _ in cast]
        self._server: Final = testing.FakeVeo3(speed=speed, lives=lives, seed=_SEED, record=False)
        self._ends: Final = [end for _, end in cast]
        self._pacing: Final = ScaledPacing(_experienced(rng), speed)
        self._stats: Stats | None = None

    async def play(self, board: Board, view: View) -> None:
        """Submit all, and watch until all have ended."""
        async with self._server as server, self._client(server.url) as veo:
            for n in range(len(self._ends)):
                request_id = await veo.submit(_PROMPTS[n % len(_PROMPTS)])
                board.add(request_id, now=time.time())
            await follow(veo, veo.watch(*board.rows), board, view, WatchOptions())
            self._stats = veo.stats()

    def ended_well(self, board: Board) -> bool:
        """Return whether every task has ended as its life must."""
        return [row.phase for row in board.rows.values()] == self._ends

    def polls_per_task(self) -> float:
        """Return the requests that the watching took."""
        return 0.0 if self._stats is None else self._stats.polls / len(self._ends)

    def _client(self, url: str) -> Veo3Client:
        return Veo3Client(
            self._server.api_key,
            base_url=url,
            pacing=self._pacing,
            max_polls_per_second=_MAX_RATE,
        )
