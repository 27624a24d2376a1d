"""What several tests of downloads get."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest
from download.video_host import (
    VIDEO,
    Answer,
    Asked,
    Stalled,
    hosting,
    in_turn,
    serving,
)

from veo3_async._download import http
from veo3_async._download.downloader import Downloader
from veo3_async._download.file_download import FileDownload


@pytest.fixture
async def downloader() -> AsyncIterator[Downloader]:
    downloader = Downloader(allow_private=True)
    yield downloader
    await downloader.aclose()


@pytest.fixture
async def stalled() -> AsyncIterator[Stalled]:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        arrived.set()
        await go_on.wait()

    def first(asked: Asked) -> Answer:
        return dataclasses.replace(serving(VIDEO, sent=2_000_000)(asked), then=wait)

    async with hosting(in_turn(first, serving(VIDEO))) as host:
        yield Stalled(host, arrived, go_on)
        go_on.set()


@pytest.fixture
def _slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whatever is done on disk take 40 s of the loop's clock."""

    async def in_thread(fetch: FileDownload, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(40)
        return await real(fetch, *args, **kwargs)

    real = FileDownload._in_thread
    monkeypatch.setattr(FileDownload, "_in_thread", in_thread)


@pytest.fixture
def _video_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_MAX_BYTES", len(VIDEO) - 1)
