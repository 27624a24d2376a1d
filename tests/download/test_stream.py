"""A video as a stream: the same checks, the same resumption, and no file."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import pytest
from download.video_host import (
    ID,
    OTHER,
    SMALL,
    VIDEO,
    Answer,
    Asked,
    Script,
    Stalled,
    always,
    dripping,
    hosting,
    in_turn,
    refresher,
    serving,
    video,
)

from veo3_async import ClientClosed, DownloadError, VideoTask
from veo3_async._download.downloader import Downloader
from veo3_async._download.stream import VideoStream

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]


async def read(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


async def read_until_error(stream: VideoStream) -> tuple[bytes, DownloadError]:
    """Return what was given out before the error, and the error."""
    given = bytearray()
    with pytest.raises(DownloadError) as caught:
        async for piece in stream:
            given += piece
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    return bytes(given), caught.value


async def test_whole_video(downloader: Downloader) -> None:
    """The bytes come in order, and nothing is asked before the first is wanted."""
    async with hosting(serving(VIDEO)) as host:
        stream = downloader.stream(host.url)
        assert (0, None) == (stream.done, stream.total)
        first = await anext(stream)
        assert len(VIDEO) == stream.total
        assert VIDEO == first + await read(stream)
    assert "<VideoStream: closed, 3145728 bytes of 3145728>" == repr(stream)
    assert 1 == len(host.asked)


async def test_fault_34_stream_cut_at_200_random_offsets(downloader: Downloader) -> None:
    """A stream that is cut 200 times goes on at the exact byte, and is never begun again."""
    cuts = sorted(random.Random(35).sample(range(1000, len(VIDEO)), 200))
    async with hosting(
        in_turn(*(serving(VIDEO, sent=cut) for cut in cuts), serving(VIDEO))
    ) as host:
        assert VIDEO == await read(downloader.stream(host.url))
    assert [0] == [start for start in host.starts if not start]
    assert sorted(host.starts) == host.starts


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
@pytest.mark.parametrize("has_length", [True, False])
async def test_fault_34_stream_without_a_validator(
    downloader: Downloader, etag: str | None, *, has_length: bool
) -> None:
    """Where nothing names the object the beginning is read over, compared, and not given twice."""
    cuts = [
        serving(VIDEO, etag=etag, sent=n, has_length=has_length) for n in (9000, 5000, 2_000_000)
    ]
    async with hosting(in_turn(*cuts, serving(VIDEO, etag=etag, has_length=has_length))) as host:
        assert VIDEO == await read(downloader.stream(host.url))
    assert [None] * 4 == [asked.headers.get("range") for asked in host.asked]


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(serving(OTHER, etag='"2"'), id="If-Range obeyed"),
        pytest.param(serving(OTHER, etag=None), id="no name"),
        pytest.param(serving(video(2000), etag='"2"'), id="shorter"),
        pytest.param(serving(VIDEO[:5000] + OTHER[5000:-9], etag='"2"'), id="same beginning"),
    ],
)
@pytest.mark.parametrize("validator", ['"1"', None])
async def test_fault_34_stream_of_an_object_that_changed(
    downloader: Downloader, second: Script, validator: str | None
) -> None:
    """What was given out cannot be taken back: an object that is another is an error."""
    script = in_turn(serving(VIDEO, etag=validator, sent=1_000_000), second)
    async with hosting(script) as host:
        given, error = await read_until_error(downloader.stream(host.url))
    assert VIDEO[:1_000_000] == given
    assert "changed on the server after 1000000 bytes" in error.message


async def test_fault_34_stream_of_a_changed_object_that_is_cut(downloader: Downloader) -> None:
    """A new object that is cut while it is compared is not continued under its new name."""
    script = in_turn(
        serving(VIDEO, sent=1_000_000),
        serving(OTHER, etag='"2"', sent=500_000),
        serving(OTHER, etag='"2"'),
    )
    async with hosting(script) as host:
        given, _ = await read_until_error(downloader.stream(host.url))
    assert VIDEO[:1_000_000] == given
    assert ['"1"', '"1"'] == [asked.headers["if-range"] for asked in host.asked[1:]]


@pytest.mark.parametrize("seed", range(40))
async def test_fault_34_streams_are_never_mixed(downloader: Downloader, seed: int) -> None:
    """Whatever is cut, renamed, swapped and chunked: what comes is a beginning of one video."""
    rng = random.Random(seed)
    bodies = {'"1"': video(200_000, 1), '"2"': video(200_000 + rng.choice([0, 9]), 2), None: b""}

    def answer(asked: Asked) -> Answer:
        etag = rng.choice(['"1"', '"1"', '"1"', '"2"']) if seed % 2 else '"1"'
        named = rng.choice([etag, etag, None])
        script = serving(
            bodies[etag],
            etag=named,
            sent=rng.choice([None, rng.randrange(200_000)]),
            has_length=rng.random() < 0.7,
        )
        return script(asked)

    given = bytearray()
    async with hosting(answer) as host:
        try:
            async for piece in downloader.stream(host.url):
                given += piece
        except DownloadError:
            assert any(body.startswith(bytes(given)) for body in bodies.values())
        else:
            assert bytes(given) in bodies.values()


@pytest.mark.parametrize("container", [SMALL, b"\x1aE\xdf\xa3" + random.Random(1).randbytes(9000)])
async def test_fault_58_stream_of_chunks(downloader: Downloader, container: bytes) -> None:
    """Chunks end with their last one, whatever the container; without it they go on."""

    def chunked(end: bytes) -> Script:
        body = b"%x\r\n%b\r\n" % (len(container), container)
        headers = {"Transfer-Encoding": "chunked"}
        return always(Answer(200, headers, body + end, has_length=False))

    async with hosting(in_turn(chunked(b""), chunked(b"0\r\n\r\n"))) as host:
        assert container == await read(downloader.stream(host.url))
    assert 2 == len(host.asked)


@pytest.mark.parametrize(("size", "every"), [(1, 0.0001), (7, 0.0001), (1000, 0.001), (1 << 20, 0)])
async def test_fault_34_stream_of_unknown_length(
    downloader: Downloader, size: int, every: float
) -> None:
    """Without a length and without chunks the boxes prove the end, in whatever pieces they come."""
    body = video(3000 if size < 1000 else 300_000) + b"\0\0\0\x08free"

    def answer(asked: Asked) -> Answer:
        cut = None if asked.start else len(body) // 2
        answered = serving(body, sent=cut, has_length=False)(asked)
        return dataclasses.replace(answered, drip=(size, every))

    async with hosting(answer) as host:
        assert body == await read(downloader.stream(host.url))
    assert [0, len(body) // 2] == host.starts


async def test_fault_34_stream_that_cannot_be_proved(downloader: Downloader) -> None:
    """Bytes of no known kind, without a length or chunks, have no end that can be believed."""
    async with hosting(serving(b"\0" * 5000, has_length=False)) as host:
        _, error = await read_until_error(downloader.stream(host.url))
    assert "does not prove it" in error.message


async def test_fault_58_stream_of_a_page(downloader: Downloader) -> None:
    """Not a byte of a page is given out."""
    page = Answer(200, {"Content-Type": "video/mp4"}, b"<html>soon</html>" * 99)
    async with hosting(always(page)) as host:
        given, error = await read_until_error(downloader.stream(host.url))
    assert b"" == given
    assert "a text in place of the video" in error.message


async def test_fault_59_stream_of_an_expired_url(downloader: Downloader) -> None:
    """A URL that expires in the middle is asked for anew, and the next byte follows."""
    script = in_turn(serving(SMALL, sent=5000), always(Answer(403)), serving(SMALL))
    async with hosting(script) as host:
        _, refresh = refresher(f"{host.url}?sign=2")
        task = VideoTask(id=ID, video_url=f"{host.url}?sign=1")
        assert SMALL == await read(downloader.stream(task, refresh=refresh))
    assert [0, 5000, 5000] == host.starts


async def test_fault_59_stream_from_a_url_of_another_path(downloader: Downloader) -> None:
    """A fresh URL with another path is read from the beginning, and compared."""
    script = in_turn(serving(SMALL, sent=5000), always(Answer(404)), serving(SMALL))
    async with hosting(script) as host:
        _, refresh = refresher(host.url.replace("video", "copy"))
        task = VideoTask(id=ID, video_url=host.url)
        assert SMALL == await read(downloader.stream(task, refresh=refresh))
    assert [0, 5000, 0] == host.starts


async def test_stream_that_is_given_up(downloader: Downloader) -> None:
    """A server that brings nothing more is given up after 8 attempts."""
    script = in_turn(serving(SMALL, sent=5000), always(Answer(502)))
    async with hosting(script) as host:
        given, error = await read_until_error(downloader.stream(host.url))
    assert SMALL[:5000] == given
    assert (502, 9) == (error.http_status, error.attempts)
    assert "kept" not in error.message


# --- those who stop -----------------------------------------------------------------------------


async def _broken_off(stream: VideoStream) -> None:
    async for _ in stream:
        break


async def _left(stream: VideoStream) -> None:
    async with stream:
        await anext(stream)


async def _closed(stream: VideoStream) -> None:
    await anext(stream)
    await stream.aclose()


@pytest.mark.parametrize("leave", [_broken_off, _left, _closed])
async def test_fault_24_consumer_stops(
    downloader: Downloader, leave: Callable[[VideoStream], Awaitable[None]]
) -> None:
    """The connection is closed with the stream: by a close, or as soon as it is forgotten."""
    async with hosting(dripping(5000, every=5.0)) as host:
        await leave(downloader.stream(host.url))
        gc.collect()
        while host.open:
            await asyncio.sleep(1)
    assert 1 == len(host.asked)


async def test_fault_24_a_slow_consumer_slows_the_server(downloader: Downloader) -> None:
    """What nobody has read is not fetched, and a consumer that sleeps is no slow link."""
    large = video(64 << 20)
    sent = 0

    def answer(asked: Asked) -> Answer:
        return dataclasses.replace(serving(large)(asked), drip=(1 << 16, 0.0), then=count)

    async def count() -> None:
        nonlocal sent
        sent = len(large)

    async with hosting(answer) as host, downloader.stream(host.url) as stream:
        first = await anext(stream)
        await asyncio.sleep(100)
        assert 0 == sent
        assert large[len(first) :] == await read(stream)
    assert [0] == host.starts


async def test_fault_23_stream_cancelled(downloader: Downloader, stalled: Stalled) -> None:
    """A cancelled reading closes the connection; the stream is over."""
    stream = downloader.stream(stalled.host.url)
    with anyio.move_on_after(5) as scope:
        await read(stream)
    assert scope.cancelled_caught
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    stalled.go_on.set()


async def test_fault_31_stream_of_a_closed_client(downloader: Downloader) -> None:
    """Closing the downloader ends its streams, and a stream cannot be begun after it."""
    async with hosting(dripping(5000, every=5.0)) as host:
        stream = downloader.stream(host.url)
        await anext(stream)
        await downloader.aclose()
        with pytest.raises(ClientClosed):
            await anext(stream)
        with pytest.raises(ClientClosed):
            downloader.stream(host.url)


async def test_stream_of_what_has_no_video(downloader: Downloader) -> None:
    """What cannot be downloaded cannot be streamed."""
    with pytest.raises(DownloadError, match="has no video"):
        downloader.stream(VideoTask(id=ID, status="pending"))
    with pytest.raises(TypeError):
        downloader.stream(b"https://file.302.ai/x")  # type: ignore[arg-type]
    _, error = await read_until_error(downloader.stream("ftp://file.302.ai/x"))
    assert "not https" in error.message
    assert 0 == error.attempts
