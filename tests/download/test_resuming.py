"""A video that is cut, changed, moved or killed on the way comes out identical."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import pathlib
import random
import sys
from typing import Any

import pytest
from download.video_host import (
    LIFE,
    OTHER,
    SMALL,
    VIDEO,
    YEARS_AGO,
    Answer,
    Asked,
    Script,
    always,
    entries,
    environment,
    hosting,
    in_turn,
    serving,
    video,
)

from veo3_async import DownloadError
from veo3_async._download.downloader import Downloader

pytestmark = pytest.mark.anyio


async def test_fault_34_cut_at_200_random_offsets(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """A video that is cut at 200 offsets comes out identical, resumed and never begun again."""
    cuts = sorted(random.Random(34).sample(range(1, len(VIDEO)), 200))
    async with hosting(
        in_turn(*(serving(VIDEO, sent=cut) for cut in cuts), serving(VIDEO))
    ) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert hashlib.sha256(VIDEO).digest() == hashlib.sha256(path.read_bytes()).digest()
    assert len(host.asked) > 100
    assert [0] == [start for start in host.starts if not start]
    assert entries(tmp_path) == {"video.mp4"}


PAGE_IN_PLACE_OF_THE_REST = Answer(
    206,
    {"ETag": '"1"', "Content-Range": f"bytes 1000000-{len(VIDEO) - 1}/{len(VIDEO)}"},
    b"<p>503</p>" * 100,
)


def _changed(**said: str) -> Script:
    """Return a script of a server that sends a rest of another video, whatever If-Range says."""

    def answer(asked: Asked) -> Answer:
        if not asked.start:
            return Answer(200, {"ETag": '"2"'}, OTHER)
        honest = f"bytes {asked.start}-{len(OTHER) - 1}/{len(OTHER)}"
        headers = {"Content-Range": honest} | {k.replace("_", "-"): v for k, v in said.items()}
        return Answer(206, headers, OTHER[asked.start :])

    return answer


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(serving(OTHER, etag='"2"'), id="If-Range obeyed"),
        pytest.param(_changed(ETag='"2"'), id="another ETag"),
        pytest.param(_changed(), id="no ETag"),
        pytest.param(_changed(ETag='"1"', Content_Range="bytes 5-9/3145728"), id="another start"),
        pytest.param(_changed(ETag='"1"', Content_Range="bytes 1000000-3/9"), id="another total"),
        pytest.param(_changed(ETag='"1"', Content_Range="nonsense"), id="no range"),
        pytest.param(
            in_turn(always(PAGE_IN_PLACE_OF_THE_REST), serving(OTHER, etag='"2"')), id="a page"
        ),
    ],
)
async def test_fault_34_object_changed_between_two_attempts(
    downloader: Downloader, tmp_path: pathlib.Path, second: Script
) -> None:
    """A video that is swapped between two attempts is the second one, never a mixture."""
    async with hosting(in_turn(serving(VIDEO, sent=1_000_000), second)) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert OTHER == path.read_bytes()
    assert [0, 1_000_000] == host.starts[:2]


async def test_fault_34_range_is_ignored(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A server that answers a Range with the whole gets the file begun again."""
    script = in_turn(serving(VIDEO, sent=2_000_000), lambda _: Answer(200, {"ETag": '"1"'}, VIDEO))
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert VIDEO == path.read_bytes()
    assert [0, 2_000_000] == host.starts


async def test_fault_34_more_than_announced(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A rest that is longer than its Content-Range says is not trusted; the video begins again."""

    def too_long(asked: Asked) -> Answer:
        said = {"ETag": '"1"', "Content-Range": f"bytes {asked.start}-99999/100000"}
        return Answer(206, said, SMALL[asked.start :] + b"more", has_length=False)

    script = in_turn(serving(SMALL, sent=5000), too_long, serving(SMALL))
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert SMALL == path.read_bytes()
    assert [0, 5000, 0] == host.starts


async def test_fault_34_416_is_no_proof_of_an_end(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """A 416 that names the length we have, of the object we have, may be said of any range."""
    no_end = video(100_000)[:-1]  # so its boxes do not prove it, and it is asked for again
    script = in_turn(serving(no_end, has_length=False), serving(no_end))
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert no_end == path.read_bytes()
    assert [0, len(no_end), 0] == host.starts


async def test_fault_34_416_where_the_object_shrank(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """A 416 of a shorter object begins the download again."""
    shrunk = Answer(416, {"ETag": '"2"', "Content-Range": f"bytes */{len(SMALL)}"})
    script = in_turn(serving(VIDEO, sent=1_000_000), always(shrunk), serving(SMALL, etag='"2"'))
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert SMALL == path.read_bytes()
    assert [0, 1_000_000, 0] == host.starts


async def test_fault_34_416_without_a_range(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A 416 to a request for the whole is an error, not a loop."""
    async with hosting(always(Answer(416))) as host:
        with pytest.raises(DownloadError, match="HTTP 416") as caught:
            await downloader.download(host.url, tmp_path / "video.mp4")
    assert 416 == caught.value.http_status
    assert 1 == len(host.asked)


@pytest.mark.parametrize("etag", ['W/"1"', None, "unquoted"])
async def test_fault_34_without_a_strong_validator(
    downloader: Downloader, tmp_path: pathlib.Path, etag: str | None
) -> None:
    """Where nothing names the object for sure, a cut download begins again, without a Range."""
    script = in_turn(serving(VIDEO, etag=etag, sent=2_000_000), serving(VIDEO, etag=etag))
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert VIDEO == path.read_bytes()
    assert [None, None] == [asked.headers.get("range") for asked in host.asked]


@pytest.mark.parametrize(
    ("date", "is_strong"),
    [("Wed, 06 Aug 2025 13:47:12 GMT", True), ("Wed, 06 Aug 2025 13:47:11 GMT", False)],
)
async def test_fault_34_resumed_by_a_date(
    downloader: Downloader, tmp_path: pathlib.Path, date: str, *, is_strong: bool
) -> None:
    """A Last-Modified is a validator only when it was a minute old at the time of the reply."""
    headers: Any = YEARS_AGO | {"Date": date}
    script = in_turn(
        serving(SMALL, etag=None, sent=5000, **headers), serving(SMALL, etag=None, **headers)
    )
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert SMALL == path.read_bytes()
    assert [0, 5000 if is_strong else 0] == host.starts


async def test_fault_34_unknown_length(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """Without a length the boxes prove the end: what is cut goes on, what is whole is taken."""
    script = in_turn(
        serving(SMALL, has_length=False, sent=50_000), serving(SMALL, has_length=False)
    )
    async with hosting(script) as host:
        seen: list[tuple[int, int | None]] = []
        path = await downloader.download(
            host.url, tmp_path / "video.mp4", progress=lambda *now: seen.append(now)
        )
    assert SMALL == path.read_bytes()
    assert [0, 50_000] == host.starts
    assert seen[0][1] is None
    assert (len(SMALL), len(SMALL)) == seen[-1]


async def test_fault_34_unknown_length_without_boxes(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """Without a length, bytes that are no mp4 cannot be proved whole, and no file appears."""
    async with hosting(serving(b"\0" * 5000, has_length=False)) as host:
        with pytest.raises(DownloadError, match="does not prove it"):
            await downloader.download(host.url, tmp_path / "video.mp4")
    assert "video.mp4" not in entries(tmp_path)


async def test_fault_34_no_video_keeps_what_is_there(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """A page in place of the rest costs nothing of what an earlier attempt has brought."""
    page = Answer(200, {}, b"<html>maintenance</html>")
    script = in_turn(serving(SMALL, sent=5000), always(page), serving(SMALL))
    async with hosting(script) as host:
        with pytest.raises(DownloadError, match="5000 bytes are kept"):
            await downloader.download(host.url, tmp_path / "video.mp4")
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert SMALL == path.read_bytes()
    assert [0, 5000, 5000] == host.starts


async def test_fault_36_file_that_came_meanwhile(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """A file that comes while the video does is not touched; the video is kept, not asked again."""
    final = tmp_path / "video.mp4"

    def answer(asked: Asked) -> Answer:
        final.write_text("mine")
        return serving(SMALL)(asked)

    async with hosting(answer) as host:
        with pytest.raises(DownloadError, match="overwrite replaces it"):
            await downloader.download(host.url, final)
        assert "mine" == final.read_text()
        await downloader.download(host.url, final, overwrite=True)
    assert SMALL == final.read_bytes()
    assert 1 == len(host.asked)
    assert {"video.mp4"} == entries(tmp_path)


@pytest.mark.real_time
async def test_fault_37_killed_on_the_way(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A process killed in the middle leaves what the next one goes on from."""
    record = tmp_path / "video.mp4.part.json"
    slowly = dataclasses.replace(serving(VIDEO)(Asked("/", {}, 0)), drip=(1 << 20, 2.1))
    async with hosting(in_turn(always(slowly), serving(VIDEO))) as host:
        child = await asyncio.create_subprocess_exec(
            sys.executable, LIFE, host.url, tmp_path / "video.mp4", env=environment()
        )
        while not (kept := _kept(record)):
            await asyncio.sleep(0.01)
        child.kill()
        await child.wait()
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert VIDEO == path.read_bytes()
    assert 0 < kept <= host.starts[1] < len(VIDEO)


def _kept(record: pathlib.Path) -> int:
    try:
        return int(json.loads(record.read_text())["done"])
    except (FileNotFoundError, ValueError):
        return 0
