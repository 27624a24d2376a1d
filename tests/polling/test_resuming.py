"""After a restart: whose first poll comes first, and what is read and written for it."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeClient

from veo3_async import (
    Eta,
    FixedPacing,
    Journal,
    LearnedPacing,
    Phase,
    Progress,
    Transition,
    Veo3Client,
    VideoTask,
    Watch,
)
from veo3_async._polling.resuming import in_order
from veo3_async._protocol.families import route_of
from veo3_async.testing import FakeVeo3, Life

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]

LIMIT = 20.0
RUNNING = {"status": "video_generating", "running": True}
DONE = {"status": "completed", "running": False, "video_url": "https://file.302.ai/a.mp4"}
MEDIANS = {"veo3-pro": 300.0, "veo3-fast": 40.0}
"""Seconds that a task of each model takes, give or take a fifth."""


class Knowing(FixedPacing):
    """Knows how long tasks take, and hardly ever asks again."""

    def __init__(self) -> None:
        super().__init__(1000.0, jitter=0)

    def eta(self, progress: Progress) -> Eta:  # type: ignore[override] # it knows
        median = MEDIANS[progress.model.rpartition("/")[2]]
        return Eta(median / 1.3, median, median * 1.3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "veo3.db"


def seen(request_id: str, phase: Phase, at: float) -> Transition:
    return Transition(
        request_id=request_id,
        phase=phase,
        previous=None,
        status=phase.value,
        task=VideoTask(id=request_id),
        observed_at=at,
        final=False,
    )


async def left_behind(
    server: FakeVeo3, path: Path, count: int, rng: random.Random
) -> dict[str, bool]:
    """Leave tasks of both models and all ages in a journal; return whether each has ended."""
    ended = {}
    async with Journal(path) as journal:
        for _ in range(count):
            model = rng.choice(list(MEDIANS))
            age, takes = rng.uniform(0, 400), MEDIANS[model] * rng.lognormvariate(0, 0.2)
            life = Life.scripted([DONE if takes < age else RUNNING])
            request_id = server.add(life=life, model=model)
            ended[request_id] = takes < age
            await journal.record(seen(request_id, Phase.GENERATING, time.time() - age))
    return ended


async def waiting(watch: Watch, ended: dict[str, bool]) -> float:
    """Return for how many seconds a finished video waits on average."""
    began, waits = asyncio.get_running_loop().time(), []
    async with watch as changes:
        async for change in changes:
            if change.final:
                waits.append(asyncio.get_running_loop().time() - began)
            if len(waits) == sum(ended.values()):
                break
    return statistics.fmean(waits)


async def late(*_: object) -> None:
    await asyncio.Event().wait()


async def resumed(veo: Veo3Client, _: dict[str, bool]) -> Watch:
    return await veo.resume()


async def watched(veo: Veo3Client, ended: dict[str, bool]) -> Watch:
    return veo.watch(*ended)


@pytest.mark.parametrize("way", [resumed, watched])
async def test_finished_videos_wait_half_as_long_as_in_order_of_arrival(
    server: FakeVeo3, make_client: MakeClient, path: Path, way: Callable[..., Any]
) -> None:
    """By the ages in the journal, and what is known of each model; whoever hands in the ids."""
    ended = await left_behind(server, path, 800, random.Random(3))
    veo = make_client(journal=path, pacing=Knowing(), max_polls_per_second=LIMIT)
    arrival = statistics.fmean(n / LIMIT for n, is_over in enumerate(ended.values()) if is_over)

    assert 0.3 < statistics.fmean(ended.values()) < 0.7
    assert await waiting(await way(veo, ended), ended) < 0.6 * arrival


async def test_the_ages_alone_shorten_the_waiting(
    server: FakeVeo3, make_client: MakeClient, path: Path
) -> None:
    """A pacing that knows nothing leaves the documented minutes: the oldest go first."""
    ages = random.Random(5).sample(range(1000), 100)
    async with Journal(path) as journal:
        names = [server.add(life=Life.scripted([DONE if a > 500 else RUNNING])) for a in ages]
        for name, age in zip(names, ages, strict=True):
            await journal.accept([name], at=time.time() - age)
    veo = make_client(journal=path, pacing=FixedPacing(1000), max_polls_per_second=LIMIT)
    async with await veo.resume():
        await asyncio.sleep(len(names) / LIMIT)
    age_of = dict(zip(names, ages, strict=True))
    asked = [age_of[request.request_id or ""] for request in server.requests]

    assert asked[:50] == sorted(ages, reverse=True)[:50]


async def test_what_was_learned_before_the_restart_gives_the_order(
    server: FakeVeo3, make_client: MakeClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal keeps it, and it is known before the first poll: a quick model goes first."""
    learned = LearnedPacing()
    for model, seconds in MEDIANS.items():
        for _ in range(30):
            last = Progress(phase=Phase.GENERATING, age=0.0, model=f"/302/submit/{model}")
            learned.phase_ended(last, seconds, Phase.COMPLETED)
    first = make_client(journal=path, pacing=learned)
    async with first:
        await first.pending()
    async with Journal(path) as journal:
        for model, age in (("veo3-pro", 200), ("veo3-fast", 100), ("veo3-pro", 500)):
            name = server.add(f"{model}:{age}", Life.scripted([RUNNING]), model=model)
            await journal.record(seen(name, Phase.GENERATING, time.time() - age))
    monkeypatch.setattr("veo3_async._runtime.keep_learned", late)  # it may come second
    veo = make_client(journal=path, pacing=LearnedPacing(), max_polls_per_second=1.0)
    async with await veo.resume():
        await asyncio.sleep(5)

    asked = dict.fromkeys(request.request_id for request in server.requests)
    assert list(asked) == ["veo3-fast:100", "veo3-pro:500", "veo3-pro:200"]


async def test_who_comes_new_does_not_wait_for_those_that_have_hardly_ended(
    server: FakeVeo3, make_client: MakeClient, path: Path
) -> None:
    """A hundred tasks of a second ago take their turns, and a new one is asked for at once."""
    async with Journal(path) as journal:
        for _ in range(100):
            name = server.add(life=Life.scripted([RUNNING]))
            await journal.record(seen(name, Phase.GENERATING, time.time()))
    veo = make_client(journal=path, pacing=Knowing(), max_polls_per_second=1.0)
    async with await veo.resume():
        await asyncio.sleep(10)
        fresh = server.add(life=Life.scripted([DONE]))
        async with asyncio.timeout(4):
            await veo.wait(fresh)
        await asyncio.sleep(210)
        asked = {request.request_id for request in server.requests}

    assert len(asked) == 101, "somebody has starved"


async def test_what_the_journal_has_is_not_written_again(
    server: FakeVeo3, make_client: MakeClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To resume reads; the ids are pending already."""
    name = server.add(life=Life.scripted([DONE]))
    async with Journal(path) as journal:
        await journal.accept([name], at=time.time())
    monkeypatch.delattr(Journal, "accept")
    [end] = [change async for change in await make_client(journal=path).resume()]

    assert (end.request_id, end.phase) == (name, Phase.COMPLETED)


async def test_a_task_that_ends_while_it_is_read_comes_once(
    server: FakeVeo3, make_client: MakeClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another watch of the same client may write its end down between two parts of the reading."""
    names = [server.add(life=Life.scripted([RUNNING])) for _ in range(2)]
    veo = make_client(journal=path, pacing=FixedPacing(5))
    async with veo:
        async with veo.watch(*names) as changes:
            for _ in names:
                await anext(changes)
        unfinished = Journal.unfinished

        async def ends_meanwhile(journal: Journal) -> list[Any]:
            found = await unfinished(journal)
            end = seen(names[0], Phase.COMPLETED, time.time())
            await journal.record(
                Transition(**{f: getattr(end, f) for f in end.__struct_fields__} | {"final": True})
            )
            return found

        monkeypatch.setattr(Journal, "unfinished", ends_meanwhile)
        watch = await veo.resume()
        assert watch.request_ids == {names[1]}
        assert (await anext(watch)).phase is Phase.COMPLETED
        await asyncio.sleep(20)
        assert [change.request_id for change in [await anext(watch)]] == [names[1]]
        await watch.aclose()


async def test_thousands_are_resumed_without_holding_up_the_loop(
    make_client: MakeClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of them have ended, and half go on: others get their turn in between, each comes out."""
    names = [f"veo3-pro:{number}" for number in range(6000)]
    end = {"previous": None, "final": True, "status": "completed", "task": VideoTask()}
    async with Journal(path) as journal:
        await journal.accept(names, at=0.0)
        await asyncio.gather(
            *(
                journal.record(
                    Transition(request_id=name, phase=Phase.COMPLETED, observed_at=1.0, **end)  # type: ignore[arg-type]
                )
                for name in names[::2]
            )
        )
    veo = make_client(journal=path, max_polls_per_second=0.001)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    undelivered = Journal.undelivered

    async def read_last(journal: Journal) -> list[Any]:
        nonlocal turns
        found = await undelivered(journal)
        turns = 0  # while it was read there were many
        return found

    monkeypatch.setattr(Journal, "undelivered", read_last)
    ticking = asyncio.create_task(others())
    watch = await veo.resume()
    assert turns >= 10
    assert watch.request_ids == set(names[1::2])
    assert {(await anext(watch)).request_id for _ in names[::2]} == set(names[::2])
    while veo.stats().watched < 3000:
        await asyncio.sleep(0)
    ticking.cancel()
    await watch.aclose()


class Asked(FixedPacing):
    """Notes whose tasks it is asked for."""

    def __init__(self) -> None:
        super().__init__(1000)
        self.models = list[str]()

    def eta(self, progress: Progress) -> None:
        self.models.append(progress.model)


async def test_a_pacing_is_asked_once_for_each_model_as_it_is_after_a_poll(path: Path) -> None:
    """By its path where that names the model, and by what was submitted where many share one."""
    async with Journal(path) as journal:
        v2: dict[str, Any] = {
            "image": None,
            "at": 0.0,
            "family": "unified",
            "path": "/302/v2/video/create",
        }
        for number, model in enumerate(["kling-v2", "veo3.1", "kling-v2"]):
            key = await journal.intend("a storm", model=model, **v2)
            await journal.submitted(key, f"u-{number}", at=0.0)
        await journal.accept(["veo3-fast:1", "veo3-fast:2", "5"], at=0.0)
        tasks, asked = await journal.unfinished(), Asked()
        ordered, _ = await in_order(tasks, asked, route_of("veo3-pro"), 20.0)

    records = ["/302/submit/veo3-fast", "/302/submit/veo3-pro"]
    assert sorted(asked.models) == sorted([*records, "kling-v2", "veo3.1"])
    assert {task.request_id for task in ordered} == {task.request_id for task in tasks}


class Broken(FixedPacing):
    """A pacing of the user's own that raises where it is asked what is left."""

    def eta(self, progress: Progress) -> None:
        raise ZeroDivisionError(progress.phase)


async def test_a_pacing_that_raises_still_ends_the_watch_and_not_the_polling(
    server: FakeVeo3, make_client: MakeClient, path: Path
) -> None:
    """Asked for the order it is ignored; what it raises comes out where it always did."""
    async with Journal(path) as journal:
        for _ in range(3):
            await journal.accept([server.add(life=Life.scripted([RUNNING]))], at=time.time())
    veo = make_client(journal=path, pacing=Broken())
    with pytest.raises(ZeroDivisionError):
        await anext(await veo.resume())
