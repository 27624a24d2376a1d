"""What can be asked for, and how it is asked."""

from __future__ import annotations

import pathlib

import pytest
from download.video_host import (
    ID,
    SMALL,
    Answer,
    always,
    hosting,
    in_turn,
    serving,
)

from veo3_async import DownloadError, VideoTask
from veo3_async._download.downloader import Downloader

pytestmark = pytest.mark.anyio


async def test_task_without_a_video(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A task that has no video cannot be downloaded, and the error has the service's reason."""
    pending = VideoTask(id=ID, status="pending")
    failed = VideoTask(id=ID, status="failed", failure_reason="unsafe prompt")
    for task, said in ((pending, "'pending'"), (failed, "'failed': unsafe prompt")):
        with pytest.raises(DownloadError, match="has no video; the service says") as caught:
            await downloader.download(task, tmp_path)
        assert caught.value.message.endswith(said)
        assert ID == caught.value.request_id


async def test_neither_task_nor_url(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """What is neither a task nor a URL is the caller's mistake."""
    with pytest.raises(TypeError, match="bytes"):
        await downloader.download(b"https://file.302.ai/x", tmp_path)  # type: ignore[arg-type]


async def test_best_video_is_taken(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """Of two videos the upsampled one is downloaded."""
    async with hosting(serving(SMALL)) as host:
        base = host.url.removesuffix("video.mp4")
        task = VideoTask(id=ID, video_url=f"{base}a", upsample_video_url=f"{base}b")
        await downloader.download(task, tmp_path)
    assert ["/b"] == [asked.target for asked in host.asked]


async def test_resume_is_not_wanted(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """With ``resume=False`` what an earlier call left is forgotten."""
    script = in_turn(serving(SMALL, sent=5000), always(Answer(400)), serving(SMALL))
    async with hosting(script) as host:
        with pytest.raises(DownloadError):
            await downloader.download(host.url, tmp_path / "video.mp4")
        path = await downloader.download(host.url, tmp_path / "video.mp4", resume=False)
    assert SMALL == path.read_bytes()
    assert [0, 5000, 0] == host.starts


async def test_url_goes_out_as_it_is(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A signed URL arrives unchanged; only what no URL may hold is encoded."""
    async with hosting(serving(SMALL)) as host:
        signed = "/a%2Fb%7e;c?X-Sig=a%2Bb+c/=&t=\u00fc d"
        await downloader.download(host.url.replace("/video.mp4", signed), tmp_path)
    assert ["/a%2Fb%7e;c?X-Sig=a%2Bb+c/=&t=%C3%BC%20d"] == [asked.target for asked in host.asked]
