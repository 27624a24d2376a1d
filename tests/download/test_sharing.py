"""Progress, several downloads at once, and callers who leave."""

from __future__ import annotations

import asyncio
import itertools
import pathlib
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import anyio
import pytest
from download.video_host import (
    ID,
    SMALL,
    VIDEO,
    Answer,
    Stalled,
    always,
    dripping,
    entries,
    hosting,
    in_turn,
    open_files,
    serving,
)

from veo3_async import ClientClosed, DownloadError, VideoTask
from veo3_async._download.downloader import Downloader

pytestmark = pytest.mark.anyio


async def test_progress_is_reported_ten_times_a_second_at_most(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """Of 100 pieces in a second every tenth is reported, and the end."""
    clock, seen = asyncio.get_running_loop().time, []
    async with hosting(dripping(1000, every=0.01)) as host:
        await downloader.download(
            host.url, tmp_path / "video.mp4", progress=lambda *now: seen.append((clock(), *now))
        )
    assert 9 <= len(seen) <= 12
    assert all(b[0] - a[0] >= 0.1 for a, b in itertools.pairwise(seen[:-1]))
    assert (len(SMALL), len(SMALL)) == seen[-1][1:]


async def test_fault_25_progress_raises(
    downloader: Downloader,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
    blocking_calls: list[str],
) -> None:
    """What a progress callback raises is logged once, and the download goes on."""
    calls = 0

    def progress(*_: object) -> None:
        nonlocal calls
        calls += 1
        message = "a bar that is broken"
        raise ValueError(message)

    async with hosting(dripping(5000, every=1.0)) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4", progress=progress)
    assert SMALL == path.read_bytes()
    assert calls > 10
    assert ["veo3_async"] == [record.name for record in caplog.records if record.exc_info]
    blocking_calls.clear()  # pytest's log handler writes to a file


async def test_four_downloads_run_at_once(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """Ten videos come four at a time."""
    async with hosting(dripping(50_000, every=1.0)) as host, asyncio.TaskGroup() as group:
        calls = [
            group.create_task(downloader.download(host.url, tmp_path / f"{n}")) for n in range(10)
        ]
        await asyncio.wait(calls)
        assert 10 == len(host.asked)
        assert 4 == host.most_open


async def test_the_wait_for_a_turn_is_no_part_of_a_download(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """An error counts its seconds from the first request on, and has none where none was made."""
    script = in_turn(*[dripping(50_000, every=20.0)] * 4, always(Answer(400)))
    async with hosting(script) as host:
        first = [asyncio.create_task(downloader.download(host.url, tmp_path / c)) for c in "abcd"]
        await asyncio.sleep(1)
        with pytest.raises(DownloadError) as asked:
            await downloader.download(host.url, tmp_path / "e")
        await asyncio.wait(first)
    assert 1 == asked.value.attempts
    assert 0.0 == pytest.approx(asked.value.elapsed, abs=0.1)
    with pytest.raises(DownloadError) as refused:
        await downloader.download("ftp://file.302.ai/a.mp4", tmp_path / "f")
    assert (0, None) == (refused.value.attempts, refused.value.elapsed)


async def test_same_file_twice_is_one_download(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """Two calls for one video and one path make one request and get the same file."""
    (tmp_path / "link").symlink_to(tmp_path)
    async with hosting(serving(VIDEO)) as host:
        task = VideoTask(id=ID, video_url=host.url)
        calls = (downloader.download(task, path) for path in (tmp_path, tmp_path / "link"))
        first, second = await asyncio.gather(*calls)
    assert first == second == tmp_path / "veo3-pro-68935cd4-58f5-49ce-878e-40b785dd33b8.mp4"
    assert VIDEO == first.read_bytes()
    assert 1 == len(host.asked)


async def test_two_videos_for_one_path(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """Of two calls for two videos and one path one is refused, and the other goes on."""
    path = tmp_path / "video.mp4"
    async with hosting(serving(SMALL)) as host:
        urls = (host.url, f"{host.url}?other")
        calls = (downloader.download(url, path) for url in urls)
        ends = await asyncio.gather(*calls, return_exceptions=True)
    assert path in ends
    assert [f"another download is writing {path}"] == [str(e) for e in ends if e != path]


async def test_first_caller_leaves(
    downloader: Downloader, tmp_path: pathlib.Path, stalled: Stalled
) -> None:
    """A first caller who is cancelled does not take the video from the second."""
    calls = [
        asyncio.create_task(downloader.download(stalled.host.url, tmp_path / "video.mp4"))
        for _ in range(2)
    ]
    await stalled.arrived.wait()
    calls[0].cancel()
    await asyncio.wait([calls[0]])
    stalled.go_on.set()
    assert VIDEO == (await calls[1]).read_bytes()
    assert calls[0].cancelled()
    assert 2 == len(stalled.host.asked)


async def test_last_caller_leaves(
    downloader: Downloader, tmp_path: pathlib.Path, stalled: Stalled
) -> None:
    """When all callers are cancelled the download has ended; a new call has all it received."""
    path, url = tmp_path / "video.mp4", stalled.host.url
    calls = [asyncio.create_task(downloader.download(url, path)) for _ in range(2)]
    await stalled.arrived.wait()
    await asyncio.sleep(0.5)  # all has come, and nothing is written yet
    for call in calls:
        call.cancel()
    again = asyncio.create_task(downloader.download(url, path))
    await asyncio.wait(calls)
    assert VIDEO == (await again).read_bytes()
    assert [0, 2_000_000] == stalled.host.starts
    assert repr(downloader) == "<Downloader: 0 running, 4 at once>"


async def test_fault_31_closed_meanwhile_and_before(
    downloader: Downloader, tmp_path: pathlib.Path, stalled: Stalled
) -> None:
    """Closing ends a running download with `ClientClosed`, and none can be begun after it."""
    call = asyncio.create_task(downloader.download(stalled.host.url, tmp_path / "video.mp4"))
    await stalled.arrived.wait()
    await downloader.aclose()
    assert [] == open_files(tmp_path)
    assert "<Downloader: closed>" == repr(downloader)
    with pytest.raises(ClientClosed):
        await call
    with pytest.raises(ClientClosed):
        await downloader.download(stalled.host.url, tmp_path / "other.mp4")
    await downloader.aclose()
    assert "video.mp4" not in entries(tmp_path)


class Counted(Coroutine[Any, Any, Any]):
    """A coroutine that calls back each time it is about to wait."""

    def __init__(self, inner: Coroutine[Any, Any, Any], report: Callable[[], None]) -> None:
        self._inner = inner
        self._report = report

    def send(self, value: Any) -> Any:
        awaited = self._inner.send(value)
        self._report()
        return awaited

    def throw(self, *error: Any) -> Any:
        return self._inner.throw(*error)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()


async def _cancelled_at(number: int, call: Coroutine[Any, Any, object]) -> bool:
    """Run a call, cancel it when its tasks wait so many times; return whether it ended first."""
    loop, waits = asyncio.get_running_loop(), 0

    def report() -> None:
        nonlocal waits
        waits += 1
        if waits == number:
            loop.call_soon(running.cancel)

    def factory(
        loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        is_ours = coro.cr_code.co_filename.endswith("downloader.py")  # type: ignore[attr-defined]
        return asyncio.Task(Counted(coro, report) if is_ours else coro, loop=loop, **options)

    loop.set_task_factory(factory)  # type: ignore[arg-type]
    try:
        running = loop.create_task(call)
        await asyncio.wait([running])
    finally:
        loop.set_task_factory(None)
    return not running.cancelled()


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").is_dir(), reason="needs /proc")
async def test_fault_23_cancelled_at_every_await(
    tmp_path: pathlib.Path,
) -> None:
    """Wherever a download is cancelled, no file, task or connection stays; the next finishes it."""
    before = asyncio.all_tasks()
    is_over, number = False, 0
    while not is_over:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        async with hosting(in_turn(serving(VIDEO, sent=1_500_000), serving(VIDEO))) as host:
            downloader = Downloader(allow_private=True)
            call = downloader.download(host.url, folder / "video.mp4")
            is_over = await _cancelled_at(number, call)
            assert [] == open_files(folder)
            assert entries(folder) <= {"video.mp4", "video.mp4.part", "video.mp4.part.json"}
            path = await downloader.download(host.url, folder / "video.mp4", overwrite=True)
            assert VIDEO == path.read_bytes()
            await downloader.aclose()
        assert entries(folder) == {"video.mp4"}
        path.unlink()
    assert number > 15
    assert before == asyncio.all_tasks()


async def test_fault_23_cancelled_by_an_anyio_scope(
    downloader: Downloader, tmp_path: pathlib.Path, stalled: Stalled
) -> None:
    """A cancelled scope, which cancels again and again, ends a download as cleanly."""
    with anyio.CancelScope() as scope:
        arrived = asyncio.ensure_future(stalled.arrived.wait())
        arrived.add_done_callback(lambda _: scope.cancel())
        await downloader.download(stalled.host.url, tmp_path / "video.mp4")
    assert scope.cancelled_caught
    assert [] == open_files(tmp_path)
    assert "video.mp4" not in entries(tmp_path)
    assert "0 running" in repr(downloader)
