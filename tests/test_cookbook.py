"""The recipes for bots and scripts, each in the real framework that it is for."""

from __future__ import annotations

import asyncio
import json
import pathlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cookbook_life import poll_by_poll, recipe

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


class BotApi:
    """A stand-in for Telegram's Bot API: one message comes in, what is answered is kept."""

    def __init__(self, text: str) -> None:
        self.calls: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self._text = text
        self._told = False

    async def handle(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        fields = dict(await request.post())
        if method == "getMe":
            return self._ok({"id": 1, "is_bot": True, "first_name": "bot", "username": "a_bot"})
        if method == "getUpdates":
            if self._told:
                await asyncio.sleep(0.2)
                return self._ok([])
            self._told = True
            return self._ok([{"update_id": 1, "message": self._message(self._text, command=True)}])
        self.calls.put_nowait((method, fields))
        return self._ok(self._message(str(fields.get("text", ""))))

    def _message(self, text: str, *, command: bool = False) -> dict[str, Any]:
        message = {
            "message_id": 7,
            "date": 1,
            "chat": {"id": 5, "type": "private"},
            "from": {"id": 5, "is_bot": False, "first_name": "who asks"},
            "text": text,
        }
        length = text.find(" ")
        entity = {"type": "bot_command", "offset": 0, "length": length}
        return message | {"entities": [entity]} if command else message

    def _ok(self, result: object) -> web.Response:
        return web.json_response({"ok": True, "result": result})


@pytest.fixture
async def bot_api(anyio_backend: object) -> AsyncIterator[tuple[BotApi, str]]:  # noqa: ARG001
    api = BotApi("/video a paper boat")
    app = web.Application()
    app.router.add_route("*", "/bot{token}/{method}", api.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield api, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
def aiogram() -> Iterator[Any]:
    aiogram = pytest.importorskip("aiogram", reason="aiogram is not installed")
    yield aiogram
    # It keeps the last updates in a cache. With them the time zones of pydantic-core lived on into
    # the end of the interpreter, where to free them crashes it now and then.
    aiogram.types.Update.event_type.fget.cache_clear()


@pytest.mark.timeout(180)  # aiogram takes its time to be imported
async def test_aiogram_bot_answers_with_the_video(
    aiogram: Any, fast: FakeVeo3, bot_api: tuple[BotApi, str]
) -> None:
    """A command becomes a task, the message follows its phases, and the video is sent."""
    from aiogram.client.session.aiohttp import AiohttpSession  # noqa: PLC0415
    from aiogram.client.telegram import TelegramAPIServer  # noqa: PLC0415

    api, url = bot_api
    session = AiohttpSession(api=TelegramAPIServer.from_base(url))
    bot = aiogram.Bot("1:token", session=session)
    running = asyncio.create_task(recipe("telegram_bot").main(bot))
    calls: list[tuple[str, dict[str, Any]]] = []
    while not calls or calls[-1][0] != "sendVideo":
        calls.append(await asyncio.wait_for(api.calls.get(), 60))
    running.cancel()
    await asyncio.wait({running})
    (post,) = [r for r in fast.requests if r.method == "POST"]
    assert json.loads(post.body) == {"text_prompt": "a paper boat"}
    assert calls[0][1]["text"] == "queued"
    assert any("generating" in fields.get("text", "") for _, fields in calls)
    assert str(calls[-1][1]["video"]).startswith(fast.url)


class Said:
    """What a command of discord.py needs of its context, and what it answered."""

    def __init__(self, bot: Any) -> None:
        self.bot = bot
        self.answers: list[str] = []

    async def reply(self, text: str) -> None:
        self.answers.append(text)

    def typing(self) -> Any:
        return asyncio.Semaphore()


@pytest.mark.filterwarnings("ignore:'audioop':DeprecationWarning")
@pytest.mark.parametrize(("life", "answer"), [(Life.plain(), "http"), (Life.failing(), "no video")])
async def test_discord_bot_replies_with_the_video(fast: FakeVeo3, life: Life, answer: str) -> None:
    """The bot of discord.py starts, runs its command and ends; only the gateway is missing."""
    pytest.importorskip("discord", reason="discord.py is not installed")
    bot = recipe("discord_bot").bot
    await bot.setup_hook()
    submit = bot.veo.submit
    request_id = fast.add(life=life)
    bot.veo.submit = lambda prompt: asyncio.sleep(0, request_id) if prompt else submit(prompt)
    context = Said(bot)
    await bot.get_command("video").callback(context, prompt="a paper boat")
    await bot.close()
    (said,) = context.answers
    assert said.startswith(answer)
    assert "closed" in repr(bot.veo)


async def test_many_videos_come_through_a_borrowed_session(
    fast: FakeVeo3, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Videos are on disk, a failure costs only itself, and the session is the caller's still."""
    good, bad = fast.add(), fast.add(life=Life.failing())
    async with aiohttp.ClientSession() as session:
        (file,) = await recipe("many_at_once").videos(session, [good, bad], tmp_path)
        assert not session.closed
    (url,) = {request.path for request in fast.requests if request.path.startswith("/files/")}
    assert file.read_bytes() == fast.film_of(url)
    assert f"{bad}: the service gave" in capsys.readouterr().out
