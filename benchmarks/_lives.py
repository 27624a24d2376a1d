"""Whole lives of tasks: submitted, polled to their ends, and every change of them written down."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import aiohttp

from veo3_async import Veo3Client

from ._report import OURS
from ._rivals import KEY, PATH, AtOnce, asked_by_hand

PROMPT: Final = "a lighthouse in a storm"
BY_HAND: Final = "aiohttp and sqlite3 by hand"

Live = Callable[[], Awaitable[object]]
"""Makes one video, from the submission to its end."""
Way = Callable[[str, pathlib.Path, int], contextlib.AbstractAsyncContextManager[Live]]


@contextlib.asynccontextmanager
async def ours(url: str, path: pathlib.Path, at_once: int) -> AsyncIterator[Live]:
    async with Veo3Client(
        KEY,
        base_url=url,
        pacing=AtOnce(),
        journal=path,
        max_polls_per_second=1e6,
        max_connections=at_once,
    ) as veo:
        yield lambda: veo.generate(PROMPT)


@contextlib.asynccontextmanager
async def without_journal(url: str, _: pathlib.Path, at_once: int) -> AsyncIterator[Live]:
    async with Veo3Client(
        KEY, base_url=url, pacing=AtOnce(), max_polls_per_second=1e6, max_connections=at_once
    ) as veo:
        yield lambda: veo.generate(PROMPT)


@contextlib.asynccontextmanager
async def by_hand(url: str, path: pathlib.Path, at_once: int) -> AsyncIterator[Live]:
    """Do what one writes by hand, with a row for each task that is committed with each change."""
    connector = aiohttp.TCPConnector(limit=at_once)
    async with aiohttp.ClientSession(connector=connector) as session:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE tasks (id TEXT PRIMARY KEY, status TEXT, url TEXT)")

            async def live() -> None:
                headers = {"Authorization": f"Bearer {KEY}"}
                async with session.post(
                    url + PATH, json={"prompt": PROMPT}, headers=headers
                ) as response:
                    request_id = (await response.json())["task_id"]
                with connection:
                    row = (request_id, "", None)
                    connection.execute("INSERT INTO tasks VALUES (?, ?, ?)", row)
                status = ""
                while status != "completed":
                    task = await asked_by_hand(session, url, request_id)
                    if task["status"] != status:
                        status = task["status"]
                        _write(connection, request_id, task)

            yield live


def _write(connection: sqlite3.Connection, request_id: str, task: Mapping[str, Any]) -> None:
    with connection:
        row = (task["status"], task.get("upsample_video_url"), request_id)
        connection.execute("UPDATE tasks SET status = ?, url = ? WHERE id = ?", row)


WAYS: Final[Mapping[str, Way]] = {
    OURS: ours,
    f"{OURS}, without a journal": without_journal,
    BY_HAND: by_hand,
}


async def cost(way: Way, url: str, *, at_once: int, warm_up: int, lives: int) -> float:
    """Return the CPU time of one life, in milliseconds."""
    with tempfile.TemporaryDirectory() as directory:
        async with way(url, pathlib.Path(directory, "veo3.db"), at_once) as live:
            await _lived(live, at_once, warm_up)
            began = time.process_time()
            await _lived(live, at_once, lives)
            return (time.process_time() - began) / lives * 1e3


async def _lived(live: Live, at_once: int, lives: int) -> None:
    left = iter(range(lives))

    async def work(mine: Iterable[int]) -> None:
        for _ in mine:
            await live()

    await asyncio.gather(*(work(left) for _ in range(at_once)))
