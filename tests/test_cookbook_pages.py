"""The recipes for a page with server-sent events, in the real frameworks and in a real browser."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import pathlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from browser import CHROMIUM, chromium
from cookbook_life import RECIPES, poll_by_poll, recipe

from veo3_async import LearnedPacing
from veo3_async.testing import FakeVeo3, Life

pytestmark = [pytest.mark.anyio, pytest.mark.real_time]

PENDING = {"status": "pending", "status_update_time": 1750854823164}
TINY = pathlib.Path(__file__).with_name("tiny.webm")

Serve = Callable[[Any], contextlib.AbstractAsyncContextManager[str]]


@contextlib.asynccontextmanager
async def served_by_uvicorn(names: Any) -> AsyncIterator[str]:
    uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    server = names.Server(uvicorn.Config(names.app, port=0, log_level="warning", lifespan="on"))
    server.capture_signals = contextlib.nullcontext
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await running


@contextlib.asynccontextmanager
async def served_by_aiohttp(names: Any) -> AsyncIterator[str]:
    runner = web.AppRunner(names.make_app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


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
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


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
@pytest.mark.timeout(180)
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


def test_both_pages_are_one_program() -> None:
    """What is told of a task, and the page that shows it, do not depend on the framework."""
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
