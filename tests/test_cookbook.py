"""The recipes for scripts: what they bring is on disk, and what fails costs only itself."""

from __future__ import annotations

import asyncio
import os
import pathlib
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest
from cookbook_life import RECIPES, poll_by_poll, recipe

from veo3_async import LearnedPacing
from veo3_async.testing import FakeVeo3, Life

pytestmark = [pytest.mark.anyio, pytest.mark.real_time]


@pytest.fixture
async def fast(
    anyio_backend: object,  # noqa: ARG001 - runs in its loop
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
) -> AsyncIterator[FakeVeo3]:
    """Yield a fast fake of the service that the environment points at, in an empty folder."""
    monkeypatch.setattr(LearnedPacing, "delay", lambda *_: 0.02)
    monkeypatch.chdir(tmp_path)
    async with FakeVeo3(speed=200, lives=[poll_by_poll(Life.documented())]) as server:
        monkeypatch.setenv("AI302_API_KEY", server.api_key)
        monkeypatch.setenv("AI302_BASE_URL", server.url)
        yield server


async def test_many_videos_come_through_a_borrowed_session(
    fast: FakeVeo3, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Videos are on disk, a failure costs only itself, and the session is the caller's still."""
    good, bad = fast.add(), fast.add(life=Life.failing())
    async with aiohttp.ClientSession() as session:
        (file,) = await recipe("many_at_once").videos(session, [good, bad], tmp_path)
        assert not session.closed
    (url,) = {request.path for request in fast.requests if request.path.startswith("/files/")}
    assert file.read_bytes() == fast.video_of(url)
    assert f"{bad}: the service gave" in capsys.readouterr().out


@pytest.mark.timeout(300)
async def test_many_videos_are_brought_as_the_head_of_the_recipe_says(
    fast: FakeVeo3, tmp_path: pathlib.Path
) -> None:
    """The command in its docstring works in an empty folder: the folder for videos is made."""
    ids = [fast.add(life=Life(Life.plain().stages[-1:], upsample=False)) for _ in range(2)]
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, RECIPES / "many_at_once.py", "ids.txt", "videos/"),
        env={**os.environ},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    files = {str(file.relative_to(tmp_path)) for file in (tmp_path / "videos").iterdir()}
    assert {
        str(pathlib.Path(line).relative_to(tmp_path)) for line in said.decode().split()
    } == files
    assert len(files) == len(ids)
