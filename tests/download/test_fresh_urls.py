"""A URL that does not give the video any more is asked for anew."""

from __future__ import annotations

import pathlib

import pytest
from download.video_host import (
    ID,
    SMALL,
    Answer,
    Asked,
    always,
    hosting,
    in_turn,
    refresher,
    serving,
)

from veo3_async import DownloadError, VideoTask
from veo3_async._download.downloader import Downloader

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 410, 418, 451, 499])
async def test_fault_59_expired_url_is_asked_for_anew(
    downloader: Downloader, tmp_path: pathlib.Path, status: int
) -> None:
    """An expired URL is replaced by a fresh one, and the download goes on where it was."""
    script = in_turn(serving(SMALL, sent=5000), always(Answer(status)), serving(SMALL))
    async with hosting(script) as host:
        _, refresh = refresher(f"{host.url}?sign=2")
        task = VideoTask(id=ID, video_url=f"{host.url}?sign=1")
        path = await downloader.download(task, tmp_path, refresh=refresh)
    assert SMALL == path.read_bytes()
    targets = [asked.target.partition("?")[2] for asked in host.asked]
    assert ["sign=1", "sign=1", "sign=2"] == targets
    assert [0, 5000, 5000] == host.starts


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 503])
async def test_fault_59_url_that_is_given_up(
    downloader: Downloader, tmp_path: pathlib.Path, status: int
) -> None:
    """What is waited out in vain may be the URL's fault: a fresh one is tried before the end."""

    def answer(asked: Asked) -> Answer:
        return serving(SMALL)(asked) if asked.target.endswith("2") else Answer(status)

    async with hosting(answer) as host:
        _, refresh = refresher(f"{host.url}?sign=2")
        task = VideoTask(id=ID, video_url=f"{host.url}?sign=1")
        path = await downloader.download(task, tmp_path, refresh=refresh)
    assert SMALL == path.read_bytes()
    assert 9 == len(host.asked)


async def test_fault_34_fresh_url_of_another_path(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """A fresh URL with another path is another object, even with the same ETag."""
    script = in_turn(serving(SMALL, sent=5000), always(Answer(403)), serving(SMALL))
    async with hosting(script) as host:
        _, refresh = refresher(host.url.replace("video", "upsampled"))
        task = VideoTask(id=ID, video_url=host.url)
        path = await downloader.download(task, tmp_path, refresh=refresh)
    assert SMALL == path.read_bytes()
    assert [0, 5000, 0] == host.starts


async def test_fault_34_expired_twice(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A fresh URL is asked for once; when that one does not work either, it is an error."""
    async with hosting(always(Answer(403))) as host:
        left, refresh = refresher(f"{host.url}?2", f"{host.url}?3")
        task = VideoTask(id=ID, video_url=host.url)
        with pytest.raises(DownloadError, match="HTTP 403 Forbidden") as caught:
            await downloader.download(task, tmp_path, refresh=refresh)
    assert [f"{host.url}?3"] == left
    assert (ID, 403, 2) == (
        caught.value.request_id,
        caught.value.http_status,
        caught.value.attempts,
    )


async def test_fault_34_expired_bare_url(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """For a bare URL there is nobody to ask for a fresh one."""
    async with hosting(always(Answer(410))) as host:
        with pytest.raises(DownloadError, match="HTTP 410 Gone"):
            await downloader.download(host.url, tmp_path)


async def test_fault_34_no_fresh_url(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A service that answers with the same expired URL ends the download."""
    async with hosting(always(Answer(403))) as host:
        _, refresh = refresher(host.url)
        with pytest.raises(
            DownloadError, match="HTTP 403 Forbidden, and the service has no other URL"
        ):
            await downloader.download(
                VideoTask(id=ID, video_url=host.url), tmp_path, refresh=refresh
            )
    assert 1 == len(host.asked)
