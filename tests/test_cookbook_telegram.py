"""The Telegram bot of the cookbook, in the real aiogram, beside a service that refuses."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import pathlib
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cookbook_life import RECIPES, poll_by_poll, recipe
from cookbook_lives import lives
from telegram_api import TelegramApi, telegram

from veo3_async import LearnedPacing
from veo3_async.testing import FakeVeo3, Life, Status, Video

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.timeout(300),  # aiogram takes its time to be imported
    pytest.mark.posix,  # a SIGTERM ends the bot
]
PERSON = 5


@pytest.fixture
def aiogram() -> Iterator[Any]:
    aiogram = pytest.importorskip("aiogram", reason="aiogram is not installed")
    yield aiogram
    # It keeps the last updates in a cache. With them the time zones of pydantic-core lived on into
    # the end of the interpreter, where to free them crashes it now and then.
    aiogram.types.Update.event_type.fget.cache_clear()


@asynccontextmanager
async def running_bot(
    aiogram: Any, api: TelegramApi, veo: FakeVeo3, patch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """Run the bot of the recipe in this loop, beside both services."""
    from aiogram.client.session.aiohttp import AiohttpSession  # noqa: PLC0415
    from aiogram.client.telegram import TelegramAPIServer  # noqa: PLC0415

    patch.setattr(LearnedPacing, "delay", lambda *_: 0.02)
    patch.setenv("AI302_API_KEY", veo.api_key)
    patch.setenv("AI302_BASE_URL", veo.url)
    async with telegram(api) as url:
        session = AiohttpSession(api=TelegramAPIServer.from_base(url))
        bot = aiogram.Bot("1:token", session=session)
        running = asyncio.create_task(recipe("telegram_bot").main(bot, polling_timeout=1))
        await until(api, lambda: api.is_polled)
        try:
            yield
        finally:
            signal.raise_signal(signal.SIGTERM)  # as an operator ends it
            await running


async def until(api: TelegramApi, seen: Callable[[], object]) -> None:
    """Wait until something can be seen in Telegram."""
    async with asyncio.timeout(100):
        while not seen():
            await api.changed.wait()


def ends(api: TelegramApi, chat: int) -> list[str]:
    """Return the last words and the videos that a person sees, in place or as a new message."""
    messages = api.chats[chat].values()
    return [str(message["video"]) for message in messages if "video" in message] + [
        message["text"]
        for message in messages
        if message.get("text", "").startswith(("No video", "Your video: ", "The connection"))
    ]


def rings(api: TelegramApi, chat: int) -> int:
    return sum(
        message.get("text", "").endswith(":") and message["reply_to"] is not None
        for message in api.chats[chat].values()
    )


async def test_the_message_follows_the_task_and_becomes_the_video(
    aiogram: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """A command becomes a task, one message shows its phases and then the video, and it rings."""
    monkeypatch.chdir(tmp_path)
    api = TelegramApi()
    async with (
        FakeVeo3(speed=200, lives=[poll_by_poll(Life.documented())]) as veo,
        running_bot(aiogram, api, veo, monkeypatch),
    ):
        api.ask(PERSON, "/video a paper boat")
        await until(api, lambda: rings(api, PERSON))
    (post,) = [request for request in veo.requests if request.method == "POST"]
    assert json.loads(post.body) == {"text_prompt": "a paper boat"}
    (video,) = ends(api, PERSON)
    assert video.startswith(veo.url)
    assert Counter(method for method, _ in api.calls)["editMessageText"] >= 4
    assert len(api.chats[PERSON]) == 2


REFUSALS: list[Any] = [
    pytest.param({"video": Video(size=21_000_000)}, "file", id="over 20 MB"),
    pytest.param({"video": Video(size=51_000_000)}, "link", id="over 50 MB"),
    pytest.param({"urls": False}, "file", id="no URL is taken"),
    pytest.param({"deleted": True}, "url", id="the message was deleted"),
    pytest.param({"life": Life.failing()}, "No video: the service gave", id="failed"),
    pytest.param({"status": Status(402, err_code=-10004)}, "No video: ", id="no money"),
    pytest.param({"status": Status(400, err_code=-10011)}, "No video: ", id="refused"),
]


@pytest.mark.parametrize(("trouble", "outcome"), REFUSALS)
async def test_a_video_comes_in_another_way_or_the_reason_does(
    aiogram: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    trouble: dict[str, Any],
    outcome: str,
) -> None:
    """By URL, else as a file, else as a link; else in words: once, with a ring."""
    monkeypatch.chdir(tmp_path)
    api = TelegramApi(flood=0.1)
    api.takes_urls = trouble.get("urls", True)
    life = poll_by_poll(trouble.get("life", Life.plain()))
    async with (
        FakeVeo3(speed=200, lives=[life], video=trouble.get("video")) as veo,
        running_bot(aiogram, api, veo, monkeypatch),
    ):
        if "status" in trouble:
            veo.fault(trouble["status"], on="submit")
        api.ask(PERSON, "/video a paper boat")
        if "deleted" in trouble:
            await until(api, lambda: api.chats[PERSON])
            api.delete(PERSON)
        await until(api, lambda: ends(api, PERSON))
        (end,) = ends(api, PERSON)
        if outcome == "file":
            assert len(end) == 64
        elif outcome == "link":
            assert end.startswith(f"Your video: {veo.url}")
        elif outcome == "url":
            assert end.startswith(veo.url)
        else:
            assert end.startswith(outcome)


PROGRAM = """
import asyncio, runpy
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from veo3_async import LearnedPacing, Veo3Client
LearnedPacing.delay = lambda *_: 0.1
Veo3Client("key")  # imports aiohttp
recipe = runpy.run_path(sys.argv[1])

def live():
    async def main():
        session = AiohttpSession(api=TelegramAPIServer.from_base(sys.argv[2]))
        await recipe["main"](Bot("1:token", session=session), polling_timeout=1)

    asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(importlib.util.find_spec("aiogram") is None, reason="aiogram is missing")
async def test_forty_people_get_their_video_or_the_reason_once(tmp_path: pathlib.Path) -> None:
    """Through flood control, kill -9 and failures: each person sees one end, and pays once."""
    chance = random.Random(40)
    api = TelegramApi(flood=0.15, seed=40)
    people = range(1, 41)
    async with (
        telegram(api) as url,
        FakeVeo3(speed=100, lives=Life.mixed, seed=40) as veo,
        lives(
            PROGRAM,
            str(RECIPES / "telegram_bot.py"),
            url,
            folder=tmp_path,
            environment={"AI302_API_KEY": veo.api_key, "AI302_BASE_URL": veo.url},
        ) as bot,
    ):
        for first in range(1, 41, 10):
            for person in range(first, first + 10):
                api.ask(person, f"/video the boat of {person}")
            for _ in range(2):
                await bot.begin()
                await some_calls(api, chance, range(1, first + 10))
                await bot.kill()
        await bot.begin()
        await until(api, lambda: all(ends(api, person) for person in people))
        await bot.kill()
        api.is_polled = False
        await bot.begin()  # nothing is delivered again
        await until(api, lambda: api.is_polled)
    prompts = Counter(json.loads(each.body)["text_prompt"] for each in veo.requests if each.body)
    assert {person: ends(api, person) for person in people if len(ends(api, person)) != 1} == {}
    assert {person: rings(api, person) for person in people if rings(api, person) > 1} == {}
    assert set(prompts.values()) == {1}
    # Killed between noting an order down and sending it: nobody can know, and that is said.
    unsent = [person for person in people if f"the boat of {person}" not in prompts]
    assert all(ends(api, person)[0].startswith("The connection") for person in unsent)
    assert {200, 429} <= {status for _, status in api.calls}


async def some_calls(api: TelegramApi, chance: random.Random, asked: Iterable[int]) -> None:
    """Wait until the bot was at work for a while, or has none left."""
    enough = len(api.calls) + chance.randint(5, 60)
    await until(api, lambda: len(api.calls) >= enough or all(ends(api, person) for person in asked))
