"""The bytes decide: what the labels of a reply say is no reason to lose a video."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from download.video_host import (
    ID,
    SMALL,
    VIDEO,
    Answer,
    Asked,
    Script,
    always,
    entries,
    hosting,
    in_turn,
    refresher,
    serving,
)

from veo3_async import DownloadError, VideoTask
from veo3_async._download.downloader import Downloader

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/html; charset=utf-8"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json"},
        {"Content-Type": "application/problem+json"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "multipart/byteranges; boundary=x"},
        {"Content-Encoding": "aws-chunked"},
        {"Content-Encoding": "utf-8"},
        {"Content-Encoding": "binary"},
        {"Content-Encoding": "none, identity"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "br"},
        {"Content-Security-Policy": "x" * 60_000},
    ],
)
async def test_fault_58_wrong_labels(
    downloader: Downloader, tmp_path: pathlib.Path, headers: Any
) -> None:
    """A video comes under any label, and its rest after a cut as well."""
    script = in_turn(serving(SMALL, sent=5000, **headers), serving(SMALL, **headers))
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert SMALL == path.read_bytes()
    assert len(host.asked) <= 3


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "video/mp4"}, b"\r\n<!DOCTYPE html><p>503"),
        ({"Content-Type": "application/octet-stream"}, b'{"error": {"err_code": -10003}}'),
        ({"Content-Type": "video/mp4"}, "视频不存在".encode() * 100),
        ({"Content-Type": "video/mp4"}, b"\x89PNG\r\n\x1a\n" + bytes(900)),
        ({"Content-Type": "video/mp4"}, b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(9)),
        ({"Content-Encoding": "gzip"}, b"\x1f\x8b\x08\0" + bytes(900)),
        ({"Content-Encoding": "aws-chunked, br"}, b"\x8b\x01\x80" * 300),
    ],
)
async def test_fault_58_no_video(
    downloader: Downloader, tmp_path: pathlib.Path, headers: dict[str, str], body: bytes
) -> None:
    """Texts, pictures and compressed bytes in place of a video are refused and leave nothing."""
    async with hosting(always(Answer(200, headers, body))) as host:
        with pytest.raises(DownloadError, match="the server sent"):
            await downloader.download(host.url, tmp_path / "video.mp4")
    assert 1 == len(host.asked)
    assert set() == entries(tmp_path)


async def test_fault_59_page_of_an_expired_url(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """A page under HTTP 200 may say that the URL has expired: a fresh one is asked for."""
    page = Answer(200, {}, b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>")
    async with hosting(in_turn(always(page), serving(SMALL))) as host:
        _, refresh = refresher(f"{host.url}?sign=2")
        task = VideoTask(id=ID, video_url=host.url)
        path = await downloader.download(task, tmp_path, refresh=refresh)
    assert SMALL == path.read_bytes()


async def test_fault_58_head_that_comes_byte_by_byte(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """What a body is, is not judged by a first byte that came alone."""
    pieces = in_turn(
        always(Answer(200, {}, b"G" + bytes(3000), drip=(1, 0.001))),
        always(Answer(200, {}, b"<" + b"x" * 3000, drip=(1, 0.001))),
    )
    async with hosting(pieces) as host:
        path = await downloader.download(host.url, tmp_path / "a.ts")
        assert b"G" + bytes(3000) == path.read_bytes()
        with pytest.raises(DownloadError, match="a text"):
            await downloader.download(host.url, tmp_path / "b.mp4")


def _whole_as_a_part(_: Asked) -> Answer:
    said = f"bytes 0-{len(SMALL) - 1}/{len(SMALL)}"
    return Answer(206, {"Content-Range": said, "ETag": '"1"'}, SMALL)


def _by_halves(asked: Asked) -> Answer:
    end = min(len(SMALL), asked.start + len(SMALL) // 2)
    said = f"bytes {asked.start}-{end - 1}/{len(SMALL)}"
    return Answer(206, {"Content-Range": said, "ETag": '"1"'}, SMALL[asked.start : end])


@pytest.mark.parametrize(
    ("script", "requests"),
    [
        (_whole_as_a_part, 1),
        (in_turn(serving(SMALL, sent=5000), _whole_as_a_part), 2),
        (_by_halves, 2),
        (lambda _: Answer(203, {"ETag": '"1"'}, SMALL), 1),
    ],
    ids=["206 to a plain GET", "206 of the whole for a rest", "206 of a half", "203"],
)
async def test_fault_58_statuses(
    downloader: Downloader, tmp_path: pathlib.Path, script: Script, requests: int
) -> None:
    """A whole video is one under 203 and 206, too."""
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert SMALL == path.read_bytes()
    assert requests == len(host.asked)


WEBM = b"\x1aE\xdf\xa3" + VIDEO[100:50_000]


@pytest.mark.parametrize("body", [SMALL, SMALL[:-9], WEBM], ids=["mp4", "odd mp4", "webm"])
async def test_fault_58_chunks_end_with_the_last(
    downloader: Downloader, tmp_path: pathlib.Path, body: bytes
) -> None:
    """A chunked body is whole with its last chunk, and not before, whatever the container."""

    def chunked(end: bytes) -> Answer:
        framed = b"".join(
            b"%x\r\n%b\r\n" % (len(piece), piece)
            for piece in (body[i : i + 7000] for i in range(0, len(body), 7000))
        )
        return Answer(200, {"Transfer-Encoding": "chunked"}, framed + end, has_length=False)

    script = in_turn(always(chunked(b"")), always(chunked(b"0\r\n\r\n")))
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert body == path.read_bytes()
    assert 2 == len(host.asked)


async def test_fault_34_lying_416_makes_no_cut_file_final(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """A server without lengths that calls any range unsatisfiable gets no part made the whole."""

    def answer(asked: Asked) -> Answer:
        if asked.start:
            said = {"Content-Range": f"bytes */{asked.start}", "ETag": '"1"'}
            return Answer(416, said)
        cut = None if len(host.asked) > 4 else 30_000 + len(host.asked)
        return Answer(200, {"ETag": '"1"'}, SMALL, cut, has_length=False)

    async with hosting(answer) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert SMALL == path.read_bytes()


async def test_agent_of_a_browser(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """Some hosts refuse what Python's clients call themselves."""
    async with hosting(serving(SMALL)) as host:
        await downloader.download(host.url, tmp_path / "video.mp4")
    assert host.asked[0].headers["user-agent"].startswith("Mozilla/5.0")


async def test_reply_that_the_parser_refuses_is_named(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """What is no HTTP is an error that says what is wrong with it."""
    async with hosting(always(Answer(200, {"Content-Length": "5, 6"}, has_length=False))) as host:
        with pytest.raises(DownloadError, match=r"not HTTP that can be read \(.*Content-Length"):
            await downloader.download(host.url, tmp_path / "video.mp4")
