"""The recipes for a page with server-sent events, in the real frameworks and in a real browser."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cookbook_apps import Serve, answers, served, served_by_aiohttp, served_by_uvicorn
from cookbook_life import RECIPES, poll_by_poll, recipe
from cookbook_lives import lives

from benchmarks._browser import CHROMIUM, chromium
from veo3_async import LearnedPacing
from veo3_async.testing import FakeVeo3, Life

pytestmark = [pytest.mark.anyio, pytest.mark.real_time]

PENDING = {"status": "pending", "status_update_time": 1750854823164}
TINY = pathlib.Path(__file__).with_name("tiny.webm")

APPS: list[Any] = [
    pytest.param("sse_fastapi", served_by_uvicorn, id="fastapi"),
    pytest.param("sse_aiohttp", served_by_aiohttp, id="aiohttp"),
]


@pytest.fixture
async def fast(
    anyio_backend: object,  # noqa: ARG001 - runs in its loop
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
) -> AsyncIterator[FakeVeo3]:
    """Yield a fast fake of the service that the environment points at, in an empty folder."""
    monkeypatch.setattr(LearnedPacing, "delay", lambda *_: 0.02)
    monkeypatch.chdir(tmp_path)
    async with (
        serving(TINY) as files,
        FakeVeo3(speed=200, lives=[poll_by_poll(Life.documented())], files_url=files) as server,
    ):
        monkeypatch.setenv("AI302_API_KEY", server.api_key)
        monkeypatch.setenv("AI302_BASE_URL", server.url)
        yield server


@contextlib.asynccontextmanager
async def serving(file: pathlib.Path) -> AsyncIterator[str]:
    """Serve one video under every name, and yield where."""

    async def answer(_: web.Request) -> web.FileResponse:
        return web.FileResponse(file)

    app = web.Application()
    app.router.add_get("/files/{name}", answer)
    async with served(app) as url:
        yield url


@contextlib.asynccontextmanager
async def running(name: str, serve: Serve) -> AsyncIterator[aiohttp.ClientSession]:
    """Run the app of a recipe, and yield a session that talks to it."""
    async with serve(recipe(name)) as url, aiohttp.ClientSession(url) as session:
        yield session


class Event:
    """One block of an event stream."""

    def __init__(self, block: str) -> None:
        fields = dict(line.partition(": ")[::2] for line in block.splitlines())
        self.id: str | None = fields.get("id")
        self.retry: str | None = fields.get("retry")
        self.data: dict[str, Any] | None = json.loads(fields["data"]) if "data" in fields else None


async def events_of(
    session: aiohttp.ClientSession, request_id: str, last: str | None = None
) -> list[Event]:
    """Read a stream to its end."""
    headers = {} if last is None else {"Last-Event-ID": last}
    async with session.get(f"/videos/{request_id}/events", headers=headers) as response:
        assert response.content_type == "text/event-stream"
        return [Event(block) for block in (await response.text()).split("\n\n") if block]


@pytest.mark.parametrize(("name", "serve"), APPS)
async def test_a_prompt_becomes_a_stream_that_ends_with_the_video(
    fast: FakeVeo3, name: str, serve: Serve
) -> None:
    """Each phase is one event with an id, the last one is final and has the video."""
    async with running(name, serve) as session:
        async with session.post("/videos", json={"prompt": "a paper boat"}) as reply:
            request_id = (await reply.json())["id"]
        head, *events = await events_of(session, request_id)
    (post,) = [request for request in fast.requests if request.method == "POST"]
    assert json.loads(post.body) == {"text_prompt": "a paper boat"}
    assert head.retry == "3000"
    said = [event.data for event in events if event.data]
    assert [each["final"] for each in said] == [False] * (len(said) - 1) + [True]
    assert "generating" in [each["phase"] for each in said]
    assert said[-1]["phase"] == "completed"
    assert said[-1]["url"].endswith(".mp4")
    assert len({event.id for event in events}) == len(events)


@pytest.mark.parametrize(("name", "serve"), APPS)
async def test_a_finished_video_is_answered_without_a_poll(
    fast: FakeVeo3, name: str, serve: Serve
) -> None:
    """Who comes late gets all of it, who comes again the rest, who has it all is sent away."""
    request_id = fast.add()
    async with running(name, serve) as session:
        _, *events = await events_of(session, request_id)
        polls = len(fast.polls_of(request_id))
        again = [await events_of(session, request_id) for _ in range(14)]
        _, *rest = await events_of(session, request_id, events[-2].id)
        _, *restarted = await events_of(session, request_id, "0-99")
        last = {"Last-Event-ID": str(events[-1].id)}
        async with session.get(f"/videos/{request_id}/events", headers=last) as reply:
            assert reply.status == 204
    assert {len(each) - 1 for each in again} == {len(events)}
    assert len(restarted) == len(events)
    assert [event.id for event in rest] == [events[-1].id]
    assert len(fast.polls_of(request_id)) == polls


@pytest.mark.parametrize(("name", "serve"), APPS)
async def test_a_failure_has_its_reason(fast: FakeVeo3, name: str, serve: Serve) -> None:
    """The final event of a failed task says why, in the service's words."""
    request_id = fast.add(life=poll_by_poll(Life.failing()))
    async with running(name, serve) as session:
        *_, end = await events_of(session, request_id)
    assert end.data is not None
    assert (end.data["final"], end.data["phase"], end.data["url"]) == (True, "failed", None)
    assert "unsafe" in end.data["reason"]


@pytest.mark.parametrize(("name", "serve"), APPS)
async def test_what_cannot_be_asked_for_is_refused_in_words(
    fast: FakeVeo3, name: str, serve: Serve
) -> None:
    """A bad id is a 404, an empty prompt a 400, each with the reason; nothing is submitted."""
    async with running(name, serve) as session:
        async with session.get("/videos/%0A/events") as reply:
            assert (reply.status, list(await reply.json())) == (404, ["reason"])
        async with session.post("/videos", json={"prompt": " "}) as reply:
            assert (reply.status, list(await reply.json())) == (400, ["reason"])
    assert fast.requests == []


@pytest.mark.parametrize(("name", "serve"), APPS)
async def test_a_silent_stream_has_heartbeats_and_ends_with_the_app(
    fast: FakeVeo3, name: str, serve: Serve
) -> None:
    """A task that waits sends comments, and an open stream does not keep the app from ending."""
    request_id = fast.add(life=Life.scripted([PENDING]))
    names = recipe(name)
    names.__dict__["HEARTBEAT"] = 0.02
    async with aiohttp.ClientSession() as reader:
        async with serve(names) as url:
            response = await reader.get(f"{url}/videos/{request_id}/events")
            async for line in response.content:
                if line.startswith(b":"):
                    break
        text = (await response.read()).decode()
    assert '"final": true' not in text


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize(("name", "serve"), APPS)
@pytest.mark.timeout(300)
async def test_the_page_plays_the_video_in_chromium(
    fast: FakeVeo3, tmp_path: pathlib.Path, name: str, serve: Serve
) -> None:
    """A prompt typed into the page ends in a playing video, and in a closed stream."""
    names = recipe(name)
    async with serve(names) as url, chromium(tmp_path / "profile") as page:
        await page.call("Page.addScriptToEvaluateOnNewDocument", source=COUNTING)
        await page.call("Page.enable")
        await page.open(url)
        await page.wait_until("document.readyState == 'complete' && !!document.forms[0]")
        await page.evaluate("form.prompt.value = 'a paper boat'; form.requestSubmit()")
        await page.wait_until("video.currentTime > 0 && !video.hidden")
        said = json.loads(await page.evaluate("JSON.stringify(said)"))
        assert [change["final"] for change in said] == [False] * (len(said) - 1) + [True]
        assert await page.evaluate("[source.readyState, sources, phase.textContent]") == [
            2,
            1,
            "Here it is.",
        ]
        (request_id,) = fast.ids
        polls = len(fast.polls_of(request_id))
        await page.call("Page.reload")
        await page.wait_until("window.said?.at(-1)?.final && video.currentTime > 0")
        assert len(fast.polls_of(request_id)) == polls


COUNTING = """
window.said = []; window.sources = 0;
window.EventSource = class extends EventSource {
  constructor(url) {
    super(url);
    window.sources += 1;
    this.addEventListener("message", message => window.said.push(JSON.parse(message.data)));
  }
};
"""


@pytest.mark.parametrize("name", ["sse_fastapi", "sse_aiohttp"])
async def test_a_copy_in_an_empty_folder_runs_and_ends_on_ctrl_c(
    fast: FakeVeo3, tmp_path: pathlib.Path, name: str
) -> None:
    """What a user copies is a program; Ctrl-C ends it at once and cleanly, with a stream open."""
    request_id = fast.add(life=Life.scripted([PENDING]))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    (tmp_path / "mine.py").write_text((RECIPES / f"{name}.py").read_text())
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        "mine.py",
        cwd=tmp_path,
        env=os.environ | {"PORT": str(port)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with aiohttp.ClientSession() as session:
            await answers(session, url)
            async with session.get(f"{url}/videos/{request_id}/events") as stream:
                await stream.content.readuntil(b"queued")
                program.send_signal(signal.SIGINT)
                await stream.read()
        _, errors = await asyncio.wait_for(program.communicate(), 20)
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    assert program.returncode == 0
    assert b"Traceback" not in errors


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


UVICORN = """
import asyncio, runpy
import uvicorn
from veo3_async import LearnedPacing, Veo3Client
LearnedPacing.delay = lambda *_: 0.1
Veo3Client("key")  # imports aiohttp
recipe = runpy.run_path(sys.argv[1])

def live():
    config = uvicorn.Config(recipe["app"], port=int(sys.argv[2]), log_level="error")
    asyncio.run(recipe["Server"](config).serve())
"""
AIOHTTP = """
import runpy
from veo3_async import LearnedPacing
LearnedPacing.delay = lambda *_: 0.1
recipe = runpy.run_path(sys.argv[1])
from aiohttp import web

def live():
    web.run_app(recipe["make_app"](), host="127.0.0.1", port=int(sys.argv[2]), print=None)
"""


class Reader:
    """What a browser does with a stream: it connects again, from where it was, to the end."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.said: list[dict[str, Any]] = []
        self.connects = 0

    @property
    def ends(self) -> list[dict[str, Any]]:
        return [each for each in self.said if each["final"]]

    async def read(self) -> None:
        last = ""
        async with aiohttp.ClientSession() as session:
            while not self.ends:
                self.connects += 1
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(self.url, headers={"Last-Event-ID": last}) as reply:
                        assert reply.status == 200
                        async for line in reply.content:
                            name, _, value = line.decode().strip().partition(": ")
                            if name == "id":
                                last = value
                            if name == "data":
                                self.said.append(json.loads(value))
                await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "program"),
    [
        pytest.param("sse_fastapi", UVICORN, id="fastapi"),
        pytest.param("sse_aiohttp", AIOHTTP, id="aiohttp"),
    ],
)
async def test_forty_pages_get_their_video_or_the_reason_once(
    anyio_backend: object,  # noqa: ARG001 - runs in its loop
    tmp_path: pathlib.Path,
    name: str,
    program: str,
) -> None:
    """Through rate limits, kill -9 and failures: each page sees one end, and pays once."""
    chance = random.Random(40)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with (
        FakeVeo3(speed=150, lives=Life.mixed, seed=40, rate_limit=60) as veo,
        lives(
            program,
            str(RECIPES / f"{name}.py"),
            str(port),
            folder=tmp_path,
            environment={"AI302_API_KEY": veo.api_key, "AI302_BASE_URL": veo.url},
        ) as app,
        aiohttp.ClientSession() as session,
        asyncio.TaskGroup() as reading,
    ):
        readers: list[Reader] = []
        while len(readers) < 40:
            await app.begin()
            await answers(session, url)
            for _ in range(10):
                prompt = {"prompt": f"the boat of {len(readers)}"}
                async with session.post(f"{url}/videos", json=prompt) as reply:
                    request_id = (await reply.json())["id"]
                readers.append(Reader(f"{url}/videos/{request_id}/events"))
                reading.create_task(readers[-1].read())
            enough = said_to(readers) + chance.randint(1, 40)
            while said_to(readers) < enough and not all(each.ends for each in readers):
                await asyncio.sleep(0.01)
            await app.kill()
        await app.begin()
        while not all(each.ends for each in readers):
            await asyncio.sleep(0.01)
    assert {len(each.ends) for each in readers} == {1}
    assert all(end["url"] or end["reason"] for each in readers for end in each.ends)
    assert any(end["reason"] for each in readers for end in each.ends)
    assert max(each.connects for each in readers) >= 2
    assert len(veo.ids) == 40


def said_to(readers: Iterable[Reader]) -> int:
    return sum(len(each.said) for each in readers)


def test_both_pages_are_one_program() -> None:
    """The events of a task, and the page that shows them, do not depend on the framework."""
    fastapi, plain = (
        {
            statement: ast.get_source_segment(text, node)
            for text in [(RECIPES / f"{name}.py").read_text()]
            for node in ast.parse(text).body
            for statement in [ast.unparse(node).partition(":")[0].partition(" = ")[0]]
        }
        for name in ("sse_fastapi", "sse_aiohttp")
    )
    shared = ("class Task", "class Videos", "PAGE")
    assert [fastapi[part] for part in shared] == [plain[part] for part in shared]
