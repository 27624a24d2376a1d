"""The Discord bot of the cookbook, in the real discord.py, beside a service that refuses."""

from __future__ import annotations

import asyncio
import json
import pathlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cookbook_life import RECIPES, poll_by_poll, recipe
from cookbook_lives import lives
from discord_api import DiscordApi, discord_service

from veo3_async import LearnedPacing
from veo3_async.testing import FakeVeo3, Life, Status, Video

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.filterwarnings("ignore:'audioop':DeprecationWarning"),
    pytest.mark.timeout(300),
]
PERSON = 5


@asynccontextmanager
async def running_bot(
    api: DiscordApi, veo: FakeVeo3, patch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """Run the bot of the recipe in this loop, beside both services."""
    pytest.importorskip("discord", reason="discord.py is not installed")
    import yarl  # noqa: PLC0415
    from discord.gateway import DiscordWebSocket  # noqa: PLC0415
    from discord.http import Route  # noqa: PLC0415

    patch.setattr(LearnedPacing, "delay", lambda *_: 0.02)
    patch.setenv("AI302_API_KEY", veo.api_key)
    patch.setenv("AI302_BASE_URL", veo.url)
    async with discord_service(api) as url:
        patch.setattr(Route, "BASE", f"{url}/api")
        patch.setattr(
            DiscordWebSocket, "DEFAULT_GATEWAY", yarl.URL(url).with_scheme("ws") / "gateway"
        )
        bot = recipe("discord_bot").VideoBot()
        running = asyncio.create_task(bot.start("token"))
        try:
            await until(api, lambda: api.gateway or running.done())
            yield
        finally:
            await bot.close()
            await running


async def until(api: DiscordApi, seen: Callable[[], object]) -> None:
    """Wait until something can be seen in Discord."""
    async with asyncio.timeout(100):
        while not seen():
            await api.changed.wait()


def ends(api: DiscordApi, person: int) -> list[str]:
    """Return the last words that a person sees, in place or as a new message."""
    said = [message["content"] for message in api.channels[person].values()]
    return [each for each in said if each.startswith(("No video: ", "Your video:", "The conn"))]


def rings(api: DiscordApi, person: int) -> int:
    return sum(message["reply"] is not None for message in api.channels[person].values())


LIVES: list[Any] = [
    pytest.param({}, "Your video:", 1, id="a video"),
    pytest.param({"video": Video(size=11_000_000)}, "Your video: http", 0, id="over 10 MB"),
    pytest.param({"service_limit": 1000}, "Your video: http", 0, id="413"),
    pytest.param({"deleted": True}, "Your video:", 1, id="the message was deleted"),
    pytest.param({"interaction_seconds": 0.3}, "Your video:", 1, id="the interaction is over"),
    pytest.param({"life": Life.failing()}, "No video: the service gave", 0, id="failed"),
    pytest.param({"status": Status(402, err_code=-10004)}, "No video: ", 0, id="no money"),
    pytest.param({"status": Status(400, err_code=-10011)}, "No video: ", 0, id="refused"),
]


@pytest.mark.parametrize(("trouble", "words", "files"), LIVES)
async def test_a_slash_command_ends_with_the_video_or_the_reason(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    trouble: dict[str, Any],
    words: str,
    files: int,
) -> None:
    """The answer to the command shows the phases, and becomes a file, a link or the reason."""
    monkeypatch.chdir(tmp_path)
    api = DiscordApi(flood=0.1, interaction_seconds=trouble.get("interaction_seconds", 900.0))
    life = poll_by_poll(trouble.get("life", Life.documented()))
    async with (
        FakeVeo3(speed=200, lives=[life], video=trouble.get("video")) as veo,
        running_bot(api, veo, monkeypatch),
    ):
        if "status" in trouble:
            veo.fault(trouble["status"], on="submit")
        await api.ask(PERSON, "a paper boat")
        if "service_limit" in trouble:
            api.max_upload = trouble["service_limit"]
        if "deleted" in trouble:
            await until(api, lambda: api.channels[PERSON] and veo.ids)
            api.channels[PERSON].clear()
        await until(api, lambda: ends(api, PERSON))
        ((end, message),) = [
            (each["content"], each)
            for each in api.channels[PERSON].values()
            if each["content"] in ends(api, PERSON)
        ]
        assert end.startswith(words)
        assert len(message["files"]) == files
    if "status" not in trouble:
        (post,) = [request for request in veo.requests if request.method == "POST"]
        assert json.loads(post.body) == {"text_prompt": "a paper boat"}


async def test_a_late_answer_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Where Discord does not wait any more, nothing is submitted that nobody would see."""
    monkeypatch.chdir(tmp_path)
    api = DiscordApi(answer_seconds=0.0)
    async with FakeVeo3(speed=200) as veo, running_bot(api, veo, monkeypatch):
        assert [command["name"] for command in api.commands] == ["video"]
        await api.ask(PERSON, "a paper boat")
        await until(api, lambda: 404 in api.statuses)
    assert veo.ids == []


PROGRAM = """
import asyncio, runpy
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route
from veo3_async import LearnedPacing, Veo3Client
LearnedPacing.delay = lambda *_: 0.1
Veo3Client("key")  # imports aiohttp
recipe = runpy.run_path(sys.argv[1])
Route.BASE = sys.argv[2] + "/api"
DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(sys.argv[2]).with_scheme("ws") / "gateway"

def live():
    recipe["VideoBot"]().run("token", log_handler=None)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_forty_people_get_their_video_or_the_reason_once(tmp_path: pathlib.Path) -> None:
    """Through rate limits, kill -9 and failures: each person sees one end, and pays once."""
    pytest.importorskip("discord", reason="discord.py is not installed")
    chance = random.Random(40)
    api = DiscordApi(flood=0.1, seed=40, interaction_seconds=3.0)
    people = range(1, 41)
    async with (
        discord_service(api) as url,
        FakeVeo3(speed=100, lives=Life.mixed, seed=40) as veo,
        lives(
            PROGRAM,
            str(RECIPES / "discord_bot.py"),
            url,
            folder=tmp_path,
            environment={"AI302_API_KEY": veo.api_key, "AI302_BASE_URL": veo.url},
        ) as bot,
    ):
        for first in range(1, 41, 10):
            asked = range(1, first + 10)
            await bot.begin()
            await until(api, lambda: api.gateway)
            for person in asked[-10:]:
                await api.ask(person, f"the boat of {person}")
            # Discord gives an interaction once: who is not answered yet sees that, and asks again.
            await until(api, lambda: is_answered(api, asked))  # noqa: B023 - awaited here
            await some_requests(api, chance, asked)
            await bot.kill()
            await until(api, lambda: not api.gateway)
            await bot.begin()
            await some_requests(api, chance, asked)
            await bot.kill()
            await until(api, lambda: not api.gateway)
        await bot.begin()
        await until(api, lambda: all(ends(api, person) for person in people))
        await bot.kill()
    prompts = Counter(json.loads(each.body)["text_prompt"] for each in veo.requests if each.body)
    assert {person: ends(api, person) for person in people if len(ends(api, person)) != 1} == {}
    assert {person: rings(api, person) for person in people if rings(api, person) > 1} == {}
    assert set(prompts.values()) == {1}
    # Killed between noting an order down and sending it: nobody can know, and that is said.
    unsent = [person for person in people if f"the boat of {person}" not in prompts]
    assert all(ends(api, person)[0].startswith("The connection") for person in unsent)
    assert {200, 429} <= set(api.statuses)


def is_answered(api: DiscordApi, people: Iterable[int]) -> bool:
    first = [next(iter(api.channels[person].values()), None) for person in people]
    return all(message is not None and not message.get("thinking") for message in first)


async def some_requests(api: DiscordApi, chance: random.Random, asked: Iterable[int]) -> None:
    """Wait until the bot was at work for a while, or has none left."""
    enough = len(api.statuses) + chance.randint(5, 60)
    await until(
        api,
        lambda: len(api.statuses) >= enough or all(ends(api, person) for person in asked),
    )
