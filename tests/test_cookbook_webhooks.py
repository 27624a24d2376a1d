"""The recipes for webhooks, in the real frameworks: the fake posts to them over real HTTP."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import os
import pathlib
import signal
import sys
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from broken_servers import unused_port
from cookbook_apps import Serve, answers, served_by_aiohttp, served_by_uvicorn
from cookbook_life import RECIPES, recipe
from cookbook_lives import lives

from veo3_async.testing import FakeVeo3, Life, Status

pytestmark = [pytest.mark.anyio, pytest.mark.real_time, pytest.mark.timeout(300)]

NAMES = ["webhook_fastapi", "webhook_aiohttp"]
APPS: list[Any] = [
    pytest.param("webhook_fastapi", served_by_uvicorn, id="fastapi"),
    pytest.param("webhook_aiohttp", served_by_aiohttp, id="aiohttp"),
]


@pytest.fixture
async def fast(
    anyio_backend: object,  # noqa: ARG001 - runs in its loop
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
) -> AsyncIterator[FakeVeo3]:
    """Yield a fast fake of the service that the environment points at, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    async with FakeVeo3(speed=200) as server:
        monkeypatch.setenv("AI302_API_KEY", server.api_key)
        monkeypatch.setenv("AI302_BASE_URL", server.url)
        monkeypatch.setenv("PUBLIC_URL", "http://127.0.0.1:9")  # until the app has its port
        yield server


@contextlib.asynccontextmanager
async def running(
    name: str, serve: Serve, names: ModuleType | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """Run the app of a recipe where the service reaches it; yield a session that talks to it."""
    names = names or recipe(name)
    async with serve(names) as url, aiohttp.ClientSession(url) as session:
        names.__dict__["PUBLIC_URL"] = url
        yield session


async def submitted(session: aiohttp.ClientSession) -> str:
    async with session.post("/videos", json={"prompt": "a paper boat"}) as reply:
        assert reply.status == 202
        return str((await reply.json())["id"])


async def ended(session: aiohttp.ClientSession, request_id: str) -> tuple[int, bytes]:
    """Return what is answered once a video is no longer under way."""
    while True:
        async with session.get(f"/videos/{request_id}") as reply:
            if reply.status != 202:
                return reply.status, await reply.read()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(("name", "serve"), APPS)
async def test_the_webhook_brings_the_video(fast: FakeVeo3, name: str, serve: Serve) -> None:
    """Polls alone would take minutes; the file is on disk, and is served."""
    videos = set()
    async with running(name, serve) as session:
        ids = [await submitted(session) for _ in range(5)]
        for request_id in ids:
            status, content = await ended(session, request_id)
            assert status == 200
            videos.add(content)
        assert all(len(fast.polls_of(request_id)) <= 4 for request_id in ids)
    files = {request.path for request in fast.requests if request.path.startswith("/files/")}
    assert videos == {fast.video_of(path) for path in files}
    assert len(videos) == len(ids)


@pytest.mark.parametrize(("name", "serve"), APPS)
async def test_a_failure_has_its_reason(fast: FakeVeo3, name: str, serve: Serve) -> None:
    """The service's own words are kept in place of the video."""
    fast.lives = [Life.failing()]
    async with running(name, serve) as session:
        status, content = await ended(session, await submitted(session))
    assert status == 410
    assert b"unsafe" in content


@pytest.mark.parametrize(("name", "serve"), APPS)
async def test_a_stranger_is_told_nothing_and_costs_nothing(
    fast: FakeVeo3, name: str, serve: Serve
) -> None:
    """Unknown tokens, videos and paths are a 404, an empty prompt a 400; nothing was sent."""
    pathlib.Path("secret.mp4").write_bytes(b"private")
    async with running(name, serve) as session:
        for path in ("/veo/guessed", "/veo/%2E%2E"):
            async with session.post(path, data=b"{" * 100_000) as reply:
                assert reply.status == 404
        for path in ("/videos/301504317665393", "/videos/..%2Fsecret", "/videos/%2E%2E%2Fsecret"):
            async with session.get(path) as reply:
                assert (reply.status, b"private" in await reply.read()) == (404, False)
        for body, status in (({"prompt": " "}, {400}), ({}, {400, 422}), ([], {400, 422})):
            async with session.post("/videos", json=body) as reply:
                assert reply.status in status
    assert [request for request in fast.requests if request.method == "POST"] == []


@pytest.mark.parametrize(("name", "serve"), APPS)
async def test_a_refused_key_is_said_and_waited_out(
    fast: FakeVeo3, name: str, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is under way goes on once the key is good again."""
    names = recipe(name)
    names.__dict__["TRY_AGAIN"] = 0.2
    async with running(name, serve, names) as session:
        refused = Status(401, err_code=-10001)
        fast.fault(refused, on="poll")
        request_id = await submitted(session)
        said = ""
        while "until this is mended" not in said:
            await asyncio.sleep(0.05)
            said += capsys.readouterr().out
        fast.heal(refused)
        status, _ = await ended(session, request_id)
    assert status == 200
    assert [request.method for request in fast.requests].count("POST") == 1


@pytest.mark.parametrize("name", NAMES)
async def test_a_copy_in_an_empty_folder_runs_and_ends_on_ctrl_c(
    fast: FakeVeo3, tmp_path: pathlib.Path, name: str
) -> None:
    """What a user copies is a program; Ctrl-C ends it at once, with a video under way."""
    fast.lives = [Life.scripted([{"status": "processing"}])]
    port = unused_port()
    url = f"http://127.0.0.1:{port}"
    (tmp_path / "mine.py").write_text((RECIPES / f"{name}.py").read_text())
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        "mine.py",
        cwd=tmp_path,
        env=os.environ | {"PORT": str(port), "PUBLIC_URL": url},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with aiohttp.ClientSession(url) as session:
            await answers(session, f"{url}/videos/1", 404)
            await submitted(session)
            program.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(program.communicate(), 20)
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    assert program.returncode == 0
    assert b"Traceback" not in errors


FASTAPI = """
import asyncio, runpy
import uvicorn
from veo3_async import Veo3Client
Veo3Client("key")  # imports aiohttp
recipe = runpy.run_path(sys.argv[1])

def live():
    uvicorn.run(recipe["app"], port=int(sys.argv[2]), log_level="error")
"""
AIOHTTP = """
import runpy
recipe = runpy.run_path(sys.argv[1])
from aiohttp import web

def live():
    web.run_app(recipe["make_app"](), host="127.0.0.1", port=int(sys.argv[2]), print=None)
"""


@pytest.mark.parametrize(
    ("name", "program"),
    [
        pytest.param("webhook_fastapi", FASTAPI, id="fastapi"),
        pytest.param("webhook_aiohttp", AIOHTTP, id="aiohttp"),
    ],
)
async def test_fault_37_what_is_killed_goes_on_and_takes_its_webhooks(
    fast: FakeVeo3, tmp_path: pathlib.Path, name: str, program: str
) -> None:
    """The tokens are in the journal: webhooks of tasks of the first life reach the second."""
    port = unused_port()
    url = f"http://127.0.0.1:{port}"
    fast.lives = lambda rng: Life.documented().stretched(rng)
    environment = {
        "AI302_API_KEY": fast.api_key,
        "AI302_BASE_URL": fast.url,
        "PUBLIC_URL": url,
    }
    async with (
        lives(
            program,
            str(RECIPES / f"{name}.py"),
            str(port),
            folder=tmp_path,
            environment=environment,
        ) as app,
        aiohttp.ClientSession(url) as session,
    ):
        await app.begin()
        await answers(session, f"{url}/videos/1", 404)
        ids = [await submitted(session) for _ in range(5)]
        await app.kill()
        await app.begin()
        await answers(session, f"{url}/videos/1", 404)
        assert {(await ended(session, request_id))[0] for request_id in ids} == {200}
        assert all(len(fast.polls_of(request_id)) <= 6 for request_id in ids)
    assert [request.method for request in fast.requests].count("POST") == 5


def test_both_are_one_program() -> None:
    """What becomes of a video does not depend on the framework."""
    fastapi, plain = (
        {
            ast.unparse(node).partition(":")[0].partition(" = ")[0]: ast.get_source_segment(
                text, node
            )
            for text in [(RECIPES / f"{name}.py").read_text()]
            for node in ast.parse(text).body
        }
        for name in NAMES
    )
    shared = ("MODEL", "FOLDER", "READERS", "class Videos", "def file_of(request_id")
    assert [fastapi[part] for part in shared] == [plain[part] for part in shared]
