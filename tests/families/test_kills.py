"""Each family's whole life with the process killed in between: nothing is lost, or paid twice."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import pathlib
from collections.abc import AsyncIterator, Callable, Iterable

import msgspec
import pytest
from cookbook_life import poll_by_poll
from cookbook_lives import Lives, lives

from veo3_async import FixedPacing, Journal, Phase, Veo3Client
from veo3_async.testing import FakeVeo3, Life, Silence

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.posix,
    pytest.mark.timeout(300),
]

MODELS = {
    "veo3-pro": "/302/submit/veo3-pro",
    "veo3": "/302/submit/veo3",
    "veo3.1": "/302/submit/veo3-v2",
    "google-veo3.1": "/302/v2/video/create",
}
"""One of each family, and where it is posted."""

PROGRAM = """
import asyncio, os
from veo3_async import FixedPacing, Veo3Client
Veo3Client("key")  # imports aiohttp

async def main():
    facts = os.open("facts", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    pacing = FixedPacing(0.05)
    async with Veo3Client(journal="veo3.db", pacing=pacing, max_polls_per_second=500) as veo:
        if not os.path.exists("begun"):
            open("begun", "w").close()
            posts = [veo.submit("a lamp", model=model) for model in sys.argv[1:]]
            watch = veo.watch(*await asyncio.gather(*posts))
        else:
            watch = await veo.resume()
        async for change in watch:
            os.write(facts, f"{change.request_id} {change.phase} {change.final}\\n".encode())
    os.write(facts, b"all over\\n")

def live():
    asyncio.run(main())
"""


@pytest.fixture
async def server(anyio_backend: object) -> AsyncIterator[FakeVeo3]:  # noqa: ARG001 - runs in it
    """Yield a fake whose tasks go on with the polls, so that a kill falls where it is meant to."""
    life = poll_by_poll(Life.documented())
    stages = [msgspec.structs.replace(stage, polls=6) for stage in life.stages[:-1]]
    life = msgspec.structs.replace(life, stages=(*stages, life.stages[-1]))
    async with FakeVeo3(lives=[life]) as server:
        yield server


@contextlib.asynccontextmanager
async def programs(
    server: FakeVeo3, folder: pathlib.Path, models: Iterable[str]
) -> AsyncIterator[Lives]:
    """Let a program submit tasks of these models in its first life, and resume in the others."""
    environment = {"AI302_API_KEY": server.api_key, "AI302_BASE_URL": server.url}
    async with lives(PROGRAM, *models, folder=folder, environment=environment) as program:
        yield program


def facts(folder: pathlib.Path) -> list[str]:
    """Return what all lives have seen."""
    path = folder / "facts"
    return path.read_text().splitlines() if path.exists() else []


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def posted_to(server: FakeVeo3) -> list[str]:
    return sorted(request.path for request in server.requests if request.method == "POST")


async def test_fault_37_what_is_killed_twice_sees_each_end_once(
    server: FakeVeo3, tmp_path: pathlib.Path
) -> None:
    """Submitted in one life, seen through in the next two: one POST and one end for each task."""
    models = [model for model in MODELS for _ in range(5)]

    def are_polled(times: int) -> bool:
        polls = [len(server.polls_of(request_id)) for request_id in server.ids]
        return len(polls) == len(models) and min(polls) >= times

    async with programs(server, tmp_path, models) as program:
        for times in (4, 20):
            await program.begin()
            await until(functools.partial(are_polled, times))
            await program.kill()
            assert not any(line.endswith("True") for line in facts(tmp_path))
        await program.begin()
        await until(lambda: "all over" in facts(tmp_path))
    ends = collections.Counter(line for line in facts(tmp_path) if line.endswith("True"))
    assert ends == {f"{request_id} completed True": 1 for request_id in server.ids}
    assert posted_to(server) == sorted(MODELS[model] for model in models)
    async with Journal(tmp_path / "veo3.db") as journal:
        assert await journal.pending() == []


async def test_faults_33_37_what_is_killed_while_it_submits_never_posts_again(
    server: FakeVeo3, tmp_path: pathlib.Path
) -> None:
    """Nobody knows whether it arrived: the next life finds it in doubt, and a person settles it."""
    server.fault(Silence(), on="submit")
    async with programs(server, tmp_path, MODELS) as program:
        await program.begin()
        await until(lambda: len(server.ids) == len(MODELS))
        await program.kill()
        server.heal()
        await program.begin()
        await until(lambda: "all over" in facts(tmp_path))
    async with Veo3Client(
        server.api_key,
        base_url=server.url,
        journal=tmp_path / "veo3.db",
        pacing=FixedPacing(0.02),
        max_polls_per_second=500,
    ) as veo:
        doubtful = await veo.pending()
        assert [task.request_id for task in doubtful] == [None] * len(MODELS)
        posted = [request.path for request in server.requests if request.method == "POST"]
        for task in doubtful:
            [place] = [n for n, path in enumerate(posted) if path == MODELS[task.model or ""]]
            await veo.settle(task.key, server.ids[place])
        ends = [change async for change in await veo.resume() if change.final]
    assert {change.request_id for change in ends} == set(server.ids)
    assert {change.phase for change in ends} == {Phase.COMPLETED}
    assert posted_to(server) == sorted(MODELS.values())
