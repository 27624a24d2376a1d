"""What happens while a change is being written to the journal."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from conftest import MakeClient

from veo3_async import FixedPacing, Journal, Phase, PollReport, Transition, Veo3Client
from veo3_async.testing import FakeVeo3, Life

pytestmark = pytest.mark.anyio

WAITING = Life.scripted([{"status": "pending"}])


class Disk:
    """A journal that writes a change when the test lets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writing = asyncio.Event()
        self.ready = asyncio.Event()
        record = Journal.record

        async def slowly(journal: Journal, change: Transition, **options: bool) -> None:
            self.writing.set()
            await self.ready.wait()
            await record(journal, change, **options)

        monkeypatch.setattr(Journal, "record", slowly)


@pytest.fixture
def reports() -> list[PollReport]:
    return []


@pytest.fixture
def veo(make_client: MakeClient, tmp_path: Path, reports: list[PollReport]) -> Veo3Client:
    return make_client(
        journal=tmp_path / "veo3.db", pacing=FixedPacing(60, jitter=0), on_poll=reports.append
    )


async def test_who_comes_then_is_not_kept_waiting(
    server: FakeVeo3, veo: Veo3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second watcher gets the phase at once, and not after the interval of the first."""
    disk, name = Disk(monkeypatch), server.add(life=WAITING)
    first = veo.watch(name)
    await disk.writing.wait()
    second = veo.watch(name)
    await asyncio.sleep(1)
    disk.ready.set()
    async with asyncio.timeout(5):
        assert Phase.QUEUED is (await anext(first)).phase is (await anext(second)).phase


async def test_an_id_that_is_discarded_then_is_not_due_again(
    server: FakeVeo3,
    veo: Veo3Client,
    reports: list[PollReport],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The report of its last poll says that nobody watches it any more."""
    disk, name = Disk(monkeypatch), server.add(life=WAITING)
    watch = veo.watch(name)
    await disk.writing.wait()
    watch.discard(name)
    disk.ready.set()
    await asyncio.sleep(1)
    assert [report.next_poll_in for report in reports] == [None]


async def test_a_slow_disk_is_no_slow_request(
    server: FakeVeo3,
    veo: Veo3Client,
    reports: list[PollReport],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The duration of a poll is that of its request."""
    disk = Disk(monkeypatch)
    async with veo.watch(server.add(life=WAITING)):
        await disk.writing.wait()
        await asyncio.sleep(20)
        disk.ready.set()
        await asyncio.sleep(1)
    (report,) = reports
    assert report.duration < 1


async def test_a_change_that_cannot_become_a_row_ends_its_id_alone(
    server: FakeVeo3, veo: Veo3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong with one of them, the other ids are watched to their ends."""
    poisoned, other = server.add(life=Life.plain()), server.add(life=Life.plain())
    record = Journal.record

    async def break_down(journal: Journal, change: Transition, **options: bool) -> None:
        if change.request_id == poisoned:
            raise RecursionError
        await record(journal, change, **options)

    monkeypatch.setattr(Journal, "record", break_down)
    async with veo.watch(poisoned, other) as changes:
        ends = {change.request_id: change async for change in changes if change.final}
    assert ends[other].phase is Phase.COMPLETED
    assert ends[poisoned].phase is Phase.LOST
    assert "internal error" in str(ends[poisoned].error)
