"""What a client counts, and what it logs at INFO: for who operates a bot."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from veo3_async import TaskFailed, Veo3Client
from veo3_async.testing import FakeVeo3, Life, Status

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]


async def test_stats_count_ends_submissions_and_downloads(
    server: FakeVeo3, veo: Veo3Client, tmp_path: Path
) -> None:
    """Each is counted once, however many watch it, and what was there already is no download."""
    assert (veo.stats().ends, veo.stats().last_reply_age) == ({}, None)
    server.lives = [Life.plain(), Life.failing()]
    good, bad = await veo.submit("a storm"), await veo.submit("the sea")
    async with veo.watch(good, bad) as first, veo.watch(good, bad) as second:
        async for _ in first:
            pass
        async for _ in second:
            pass
    task = await veo.fetch(good)
    path = await veo.download(task, tmp_path)
    await veo.download(task, tmp_path)
    stats = veo.stats()
    assert stats.ends == {"completed": 1, "failed": 1}
    assert (stats.submissions, stats.downloads) == (2, 1)
    assert stats.downloaded_bytes == path.stat().st_size


async def test_the_age_of_the_last_good_reply_is_that_of_no_fault(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """A reply that brings no state makes it no younger."""
    request_id = server.add(life=Life.documented())
    await veo.fetch(request_id)
    assert (veo.stats().last_reply_age or 0.0) < 1.0
    await asyncio.sleep(2)
    server.fault(Status(500))
    with pytest.raises(Exception, match="500"):
        await veo.fetch(request_id)
    assert (veo.stats().last_reply_age or 0.0) > 1.0


@pytest.mark.posix
async def test_info_lines_say_what_became_of_a_task(
    server: FakeVeo3, veo: Veo3Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Submitted, each phase, the end, downloaded: a line each, with the id as a field."""
    caplog.set_level(logging.INFO, "veo3_async")
    server.lives = [Life.plain(), Life.failing()]
    good, bad = await veo.submit("a storm"), await veo.submit("the sea")
    path = await veo.download(await veo.wait(good), tmp_path)
    with pytest.raises(TaskFailed):
        await veo.wait(bad)
    said = {good: list[str](), bad: list[str]()}
    for record in caplog.records:
        assert record.levelno == logging.INFO
        said[record.request_id].append(record.getMessage())  # type: ignore[attr-defined]
    assert said[good][0] == f"{good} submitted to veo3-pro"
    assert said[good][-2] == f"{good} is completed"
    assert said[good][-1] == f"{good} downloaded to {path}, {path.stat().st_size} bytes"
    assert said[bad][-1].startswith(f"{bad} is failed: the service gave the task up: ")
