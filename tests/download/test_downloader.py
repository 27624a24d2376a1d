"""Downloads against a host that does exactly what a test says, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import itertools
import json
import logging
import os
import pathlib
import random
import re
import shutil
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any

import anyio
import pytest

from veo3_async import ClientClosed, DownloadError, VideoTask
from veo3_async._download import http
from veo3_async._download.downloader import Downloader
from veo3_async._download.transfer import Fetch

pytestmark = pytest.mark.anyio

LIFE = pathlib.Path(__file__).with_name("download_life.py")
ID = "veo3-pro:68935cd4-58f5-49ce-878e-40b785dd33b8"
YEARS_AGO = {"Last-Modified": "Wed, 06 Aug 2025 13:46:12 GMT"}


def film(size: int, seed: int = 0) -> bytes:
    """Return an mp4 of three boxes, so many bytes long."""
    head = b"\0\0\0\x18ftypisom\0\0\2\0isommp41" + b"\0\0\0\x08moov"
    body = random.Random(seed).randbytes(size - len(head) - 8)
    return head + struct.pack(">I4s", len(body) + 8, b"mdat") + body


FILM = film(3 << 20)
OTHER = film(3 << 20, seed=1)
SMALL = film(100_000)


@dataclasses.dataclass
class Asked:
    """One request as it came."""

    target: str
    headers: dict[str, str]
    at: float
    """Seconds of the loop's clock."""

    @property
    def start(self) -> int:
        said = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", "bytes=0-"))
        assert said is not None
        return int(said[1])


@dataclasses.dataclass
class Answer:
    """One reply; ``sent`` is how much of the body goes out before the connection is closed."""

    status: int = 200
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: bytes = b""
    sent: int | None = None
    has_length: bool = True
    drip: tuple[int, float] | None = None
    """Bytes of a piece, and seconds between two."""
    then: Callable[[], Awaitable[None]] | None = None

    async def write(self, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {self.status} X", *(f"{k}: {v}" for k, v in self.headers.items())]
        if self.has_length:
            lines.append(f"Content-Length: {len(self.body)}")
        writer.write("\r\n".join([*lines, "Connection: close\r\n\r\n"]).encode("latin-1"))
        body = self.body[: self.sent]
        size, pause = self.drip or (len(body) + 1, 0.0)
        for first in range(0, len(body), size):
            await asyncio.sleep(pause if first else 0)
            writer.write(body[first : first + size])
            await writer.drain()
        if self.then is not None:
            await self.then()


Script = Callable[[Asked], Answer]


class Host:
    """Answers on loopback by a script, and remembers what it was asked."""

    def __init__(self, answer: Script, scheme: str = "http") -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.open = 0
        self.most_open = 0
        self.scheme = scheme
        self.port = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/film.mp4"

    @property
    def waits(self) -> list[float]:
        """Seconds between two requests."""
        return [b.at - a.at for a, b in itertools.pairwise(self.asked)]

    @property
    def starts(self) -> list[int]:
        return [asked.start for asked in self.asked]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            fields = (line.split(": ", 1) for line in lines)
            headers = {name.lower(): value for name, value in fields}
            asked = Asked(first.split(" ")[1], headers, asyncio.get_running_loop().time())
            self.asked.append(asked)
            await self.answer(asked).write(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()


@contextlib.asynccontextmanager
async def hosting(answer: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Host]:
    host = Host(answer, "https" if tls else "http")
    if tls is not None:  # in debug mode asyncio makes a refused handshake an error of the loop
        asyncio.get_running_loop().set_debug(False)
    server = await asyncio.start_server(host.serve, "127.0.0.1", 0, ssl=tls)
    host.port = server.sockets[0].getsockname()[1]
    try:
        yield host
    finally:
        server.close()
        while host.open:
            await asyncio.sleep(0.01)


def serving(
    body: bytes,
    *,
    etag: str | None = '"1"',
    sent: int | None = None,
    has_length: bool = True,
    **headers: str,
) -> Script:
    """Return a script that obeys Range and If-Range, and cuts after so many bytes of the film."""
    more = headers | ({"ETag": etag} if etag else {})

    def answer(asked: Asked) -> Answer:
        is_same = asked.headers.get("if-range") in {etag, more.get("Last-Modified")}
        if not asked.start or not is_same:
            return Answer(200, more, body, sent, has_length)
        if asked.start >= len(body):
            return Answer(416, more | {"Content-Range": f"bytes */{len(body)}"})
        said = {"Content-Range": f"bytes {asked.start}-{len(body) - 1}/{len(body)}"}
        left = None if sent is None else max(0, sent - asked.start)
        return Answer(206, more | said, body[asked.start :], left, has_length)

    return answer


def dripping(size: int, *, every: float) -> Script:
    """Return a script that sends the small film in pieces, so many seconds apart."""
    return lambda asked: dataclasses.replace(serving(SMALL)(asked), drip=(size, every))


def in_turn(*scripts: Script) -> Script:
    """Return a script that is another for each request, and stays with the last."""
    turns = iter(scripts)
    current: list[Script] = []

    def answer(asked: Asked) -> Answer:
        current[:] = [next(turns, *current)]
        return current[0](asked)

    return answer


def always(answer: Answer) -> Script:
    return lambda _: answer


@pytest.fixture
async def downloader() -> AsyncIterator[Downloader]:
    downloader = Downloader()
    yield downloader
    await downloader.aclose()


def entries(folder: pathlib.Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


# --- 34: cuts, ranges, changes ------------------------------------------------------------------


async def test_fault_34_cut_at_200_random_offsets(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """A film that is cut at 200 offsets comes out identical, resumed and never begun again."""
    cuts = sorted(random.Random(34).sample(range(1, len(FILM)), 200))
    async with hosting(in_turn(*(serving(FILM, sent=cut) for cut in cuts), serving(FILM))) as host:
        path = await downloader.download(host.url, tmp_path / "film.mp4")
    assert hashlib.sha256(FILM).digest() == hashlib.sha256(path.read_bytes()).digest()
    assert len(host.asked) > 100
    assert [0] == [start for start in host.starts if not start]
    assert entries(tmp_path) == {"film.mp4"}


def _changed(**said: str) -> Script:
    """Return a script of a server that sends a rest of another film, whatever If-Range says."""

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
        pytest.param(_changed(ETag='"1"', Content_Type="text/html"), id="HTML"),
    ],
)
async def test_fault_34_object_changed_between_two_attempts(
    downloader: Downloader, tmp_path: pathlib.Path, second: Script
) -> None:
    """A film that is swapped between two attempts is the second one, never a mixture."""
    async with hosting(in_turn(serving(FILM, sent=1_000_000), second)) as host:
        path = await downloader.download(host.url, tmp_path / "film.mp4")
    assert OTHER == path.read_bytes()
    assert [0, 1_000_000] == host.starts[:2]


async def test_fault_34_range_is_ignored(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A server that answers a Range with the whole gets the file begun again."""
    script = in_turn(serving(FILM, sent=2_000_000), lambda _: Answer(200, {"ETag": '"1"'}, FILM))
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "film.mp4")
    assert FILM == path.read_bytes()
    assert [0, 2_000_000] == host.starts


async def test_fault_34_more_than_announced(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A rest that is longer than its Content-Range says is not trusted; the film begins again."""

    def too_long(asked: Asked) -> Answer:
        said = {"ETag": '"1"', "Content-Range": f"bytes {asked.start}-99999/100000"}
        return Answer(206, said, SMALL[asked.start :] + b"more", has_length=False)

    script = in_turn(serving(SMALL, sent=5000), too_long, serving(SMALL))
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "film.mp4")
    assert SMALL == path.read_bytes()
    assert [0, 5000, 0] == host.starts


async def test_fault_34_416_where_all_is_here(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """A 416 that names the length we have, of the object we have, is the end of the download."""
    no_end = film(100_000)[:-1]  # so its boxes do not prove it, and it is asked for again
    script = in_turn(serving(no_end, has_length=False), serving(no_end))
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "film.mp4")
    assert no_end == path.read_bytes()
    assert [0, len(no_end)] == host.starts


async def test_fault_34_416_where_the_object_shrank(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """A 416 of a shorter object begins the download again."""
    shrunk = Answer(416, {"ETag": '"2"', "Content-Range": f"bytes */{len(SMALL)}"})
    script = in_turn(serving(FILM, sent=1_000_000), always(shrunk), serving(SMALL, etag='"2"'))
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "film.mp4")
    assert SMALL == path.read_bytes()
    assert [0, 1_000_000, 0] == host.starts


async def test_fault_34_416_without_a_range(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A 416 to a request for the whole is an error, not a loop."""
    async with hosting(always(Answer(416))) as host:
        with pytest.raises(DownloadError, match="HTTP 416") as caught:
            await downloader.download(host.url, tmp_path / "film.mp4")
    assert 416 == caught.value.http_status
    assert 1 == len(host.asked)


@pytest.mark.parametrize("etag", ['W/"1"', None, "unquoted"])
async def test_fault_34_without_a_strong_validator(
    downloader: Downloader, tmp_path: pathlib.Path, etag: str | None
) -> None:
    """Where nothing names the object for sure, a cut download begins again, without a Range."""
    script = in_turn(serving(FILM, etag=etag, sent=2_000_000), serving(FILM, etag=etag))
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "film.mp4")
    assert FILM == path.read_bytes()
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
        path = await downloader.download(host.url, tmp_path / "film.mp4")
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
            host.url, tmp_path / "film.mp4", progress=lambda *now: seen.append(now)
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
            await downloader.download(host.url, tmp_path / "film.mp4")
    assert "film.mp4" not in entries(tmp_path)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "text/html; charset=utf-8"}, SMALL),
        ({"Content-Type": "application/json"}, SMALL),
        ({"Content-Type": "application/problem+json"}, SMALL),
        ({"Content-Type": "multipart/byteranges; boundary=x"}, SMALL),
        ({"Content-Type": "video/mp4"}, b"\r\n<!DOCTYPE html><p>503"),
        ({"Content-Type": "application/octet-stream"}, b'{"error": {"err_code": -10003}}'),
        ({"Content-Encoding": "gzip"}, SMALL),
    ],
)
async def test_fault_34_no_film(
    downloader: Downloader, tmp_path: pathlib.Path, headers: dict[str, str], body: bytes
) -> None:
    """HTML, JSON and encoded bytes in place of a film are refused and leave nothing."""
    async with hosting(always(Answer(200, headers, body))) as host:
        with pytest.raises(DownloadError):
            await downloader.download(host.url, tmp_path / "film.mp4")
    assert 1 == len(host.asked)
    assert set() == entries(tmp_path)


async def test_fault_34_no_film_keeps_what_is_there(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """A page in place of the rest costs nothing of what an earlier attempt has brought."""
    page = Answer(200, {}, b"<html>maintenance</html>")
    script = in_turn(serving(SMALL, sent=5000), always(page), serving(SMALL))
    async with hosting(script) as host:
        with pytest.raises(DownloadError, match="5000 bytes are kept"):
            await downloader.download(host.url, tmp_path / "film.mp4")
        path = await downloader.download(host.url, tmp_path / "film.mp4")
    assert SMALL == path.read_bytes()
    assert [0, 5000, 5000] == host.starts


async def test_fault_36_file_that_came_meanwhile(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """A file that comes while the film does is not touched; the film is kept, not asked again."""
    final = tmp_path / "film.mp4"

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
    assert {"film.mp4"} == entries(tmp_path)


# --- 34: expired URLs ---------------------------------------------------------------------------


def refresher(*urls: str) -> tuple[list[str], Callable[[], Coroutine[Any, Any, VideoTask]]]:
    """Return what hands out one URL after another, and the list of those it has not."""
    left = list(urls)

    async def refresh() -> VideoTask:
        await asyncio.sleep(0)
        return VideoTask(id=ID, video_url=left.pop(0))

    return left, refresh


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_fault_34_expired_url_is_asked_for_anew(
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


async def test_fault_34_fresh_url_of_another_path(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """A fresh URL with another path is another object, even with the same ETag."""
    script = in_turn(serving(SMALL, sent=5000), always(Answer(403)), serving(SMALL))
    async with hosting(script) as host:
        _, refresh = refresher(host.url.replace("film", "upsampled"))
        task = VideoTask(id=ID, video_url=host.url)
        path = await downloader.download(task, tmp_path, refresh=refresh)
    assert SMALL == path.read_bytes()
    assert [0, 5000, 0] == host.starts


async def test_fault_34_expired_twice(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A fresh URL is asked for once; when that one does not work either, it is an error."""
    async with hosting(always(Answer(403))) as host:
        left, refresh = refresher(f"{host.url}?2", f"{host.url}?3")
        task = VideoTask(id=ID, video_url=host.url)
        with pytest.raises(DownloadError, match="expired") as caught:
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
        with pytest.raises(DownloadError, match="fetch the task for a fresh one"):
            await downloader.download(host.url, tmp_path)


async def test_fault_34_no_fresh_url(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A service that answers with the same expired URL ends the download."""
    async with hosting(always(Answer(403))) as host:
        _, refresh = refresher(host.url)
        with pytest.raises(DownloadError, match="no fresh one"):
            await downloader.download(
                VideoTask(id=ID, video_url=host.url), tmp_path, refresh=refresh
            )
    assert 1 == len(host.asked)


@pytest.mark.real_time
async def test_fault_37_killed_on_the_way(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A process killed in the middle leaves what the next one goes on from."""
    record = tmp_path / "film.mp4.part.json"
    slowly = dataclasses.replace(serving(FILM)(Asked("/", {}, 0)), drip=(1 << 20, 2.1))
    async with hosting(in_turn(always(slowly), serving(FILM))) as host:
        child = await asyncio.create_subprocess_exec(
            sys.executable, LIFE, host.url, tmp_path / "film.mp4", env=environment()
        )
        while not (kept := _kept(record)):
            await asyncio.sleep(0.01)
        child.kill()
        await child.wait()
        path = await downloader.download(host.url, tmp_path / "film.mp4")
    assert FILM == path.read_bytes()
    assert 0 < kept <= host.starts[1] < len(FILM)


def _kept(record: pathlib.Path) -> int:
    try:
        return int(json.loads(record.read_text())["done"])
    except (FileNotFoundError, ValueError):
        return 0


def environment() -> dict[str, str]:
    root = str(LIFE.parent.parent)
    return os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


# --- passing faults -----------------------------------------------------------------------------


async def test_passing_faults_are_waited_out(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """5xx, 429 and a connection that ends before the reply are tried again; Retry-After holds."""
    script = in_turn(
        always(Answer(500)),
        always(Answer(429, {"Retry-After": "7"})),
        always(Answer(503, {"Retry-After": "-1"})),
        always(Answer(200, {}, b"")),
        serving(SMALL, sent=0),
        serving(SMALL),
    )
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "film.mp4")
    assert SMALL == path.read_bytes()
    assert 6 == len(host.asked)
    bounds = [(0, 1), (7, 11), (0, 8), (0, 8), (0, 16)]
    in_bounds = [low <= w <= high for w, (low, high) in zip(host.waits, bounds, strict=True)]
    assert [True] * 5 == in_bounds


async def test_passing_faults_without_end(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """After 8 attempts in a row without a new byte it says what is kept; the next call goes on."""
    script = in_turn(serving(SMALL, sent=5000), *[always(Answer(502))] * 8, serving(SMALL))
    async with hosting(script) as host:
        with pytest.raises(DownloadError) as caught:
            await downloader.download(f"{host.url}?sign=secret", tmp_path / "film.mp4")
        assert entries(tmp_path) == {"film.mp4.part", "film.mp4.part.json"}
        path = await downloader.download(f"{host.url}?sign=secret", tmp_path / "film.mp4")
    assert SMALL == path.read_bytes()
    assert [0, *[5000] * 9] == host.starts
    assert (502, 9) == (caught.value.http_status, caught.value.attempts)
    assert "5000 bytes are kept in" in caught.value.message
    assert "secret" not in str(caught.value)


async def test_old_bytes_earn_no_patience(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A server that always cuts at the same byte and knows no Range is given up in the end."""
    async with hosting(serving(SMALL, etag=None, sent=5000)) as host:
        with pytest.raises(DownloadError, match="8 times in a row") as caught:
            await downloader.download(host.url, tmp_path / "film.mp4")
    assert 9 == len(host.asked)
    assert sum(host.waits) == pytest.approx(caught.value.elapsed, abs=0.1)


@pytest.mark.parametrize("status", [400, 401, 402, 405, 451])
async def test_permanent_refusals(
    downloader: Downloader, tmp_path: pathlib.Path, status: int
) -> None:
    """What another try would not change is an error at once."""
    async with hosting(always(Answer(status))) as host:
        with pytest.raises(DownloadError, match=f"HTTP {status}"):
            await downloader.download(host.url, tmp_path / "film.mp4")
    assert 1 == len(host.asked)
    assert set() == entries(tmp_path)


async def test_slow_link_is_left_for_a_better_one(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """Under 1 kB/s for 30 s the connection is given up, and another goes on with the rest."""
    script = in_turn(dripping(5000, every=6.0), dripping(30_000, every=29.0))
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "film.mp4")
    assert SMALL == path.read_bytes()
    assert [0, 25_000] == host.starts
    assert 30.0 <= host.waits[0] < 32.0


@pytest.fixture
def _slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whatever is done on disk take 40 s of the loop's clock."""

    async def in_thread(fetch: Fetch, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(40)
        return await real(fetch, *args, **kwargs)

    real = Fetch._in_thread
    monkeypatch.setattr(Fetch, "_in_thread", in_thread)


@pytest.fixture
def _film_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_MAX_BYTES", len(FILM) - 1)


@pytest.mark.usefixtures("_slow_disk")
@pytest.mark.parametrize("has_length", [True, False])
async def test_a_slow_disk_is_no_slow_link(
    downloader: Downloader, tmp_path: pathlib.Path, *, has_length: bool
) -> None:
    """However long it takes to write, to prove the end and to sync, the film is asked for once."""
    async with hosting(serving(FILM, has_length=has_length)) as host:
        path = await downloader.download(host.url, tmp_path / "film.mp4")
    assert FILM == path.read_bytes()
    assert [0] == host.starts


@pytest.mark.usefixtures("_slow_disk", "_film_too_large")
async def test_what_is_too_large_is_removed_from_a_slow_disk(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """To remove it is not cut short, and it is not asked for again."""
    async with hosting(serving(FILM, has_length=False)) as host:
        with pytest.raises(DownloadError, match="the limit"):
            await downloader.download(host.url, tmp_path / "film.mp4")
    assert [0] == host.starts
    assert set() == entries(tmp_path)


@pytest.mark.usefixtures("_slow_disk")
async def test_a_slow_link_is_left_beside_a_slow_disk(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """The clock of the link goes on where it stood when the disk was done."""
    script = in_turn(dripping(100, every=2.0), serving(SMALL))
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "film.mp4")
    assert SMALL == path.read_bytes()
    assert 2 == len(host.asked)


async def test_no_connection_is_a_passing_fault(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """A host that nobody listens on is tried 8 times, and leaves nothing behind."""
    async with hosting(serving(SMALL)) as host:
        url = host.url
    with pytest.raises(DownloadError, match="no connection was made, 8 times") as caught:
        await downloader.download(url, tmp_path / "film.mp4")
    assert 8 == caught.value.attempts
    assert set() == entries(tmp_path)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
async def test_fault_18_certificate(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A server that cannot prove who it is is not asked again."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    command = [*request.split(), "-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    async with hosting(serving(SMALL), tls) as host:
        with pytest.raises(DownloadError, match="certificate") as caught:
            await downloader.download(host.url, tmp_path / "film.mp4")
    assert 1 == caught.value.attempts


# --- size ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_film_too_large")
@pytest.mark.parametrize("has_length", [True, False])
async def test_size_cap(
    downloader: Downloader, tmp_path: pathlib.Path, *, has_length: bool
) -> None:
    """A film over the limit is refused, before or while it comes, and leaves nothing."""
    async with hosting(serving(FILM, has_length=has_length)) as host:
        with pytest.raises(DownloadError, match="the limit"):
            await downloader.download(host.url, tmp_path / "film.mp4")
    assert set() == entries(tmp_path)


async def test_the_limit_is_two_gibibytes(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """What is announced to be a byte larger is refused, and not a byte of it is taken."""
    length = {"Content-Length": str(2 * 1024**3 + 1)}
    answer = Answer(headers=length, body=SMALL, has_length=False)
    async with hosting(always(answer)) as host:
        with pytest.raises(DownloadError, match="more than 2147483648, the limit"):
            await downloader.download(host.url, tmp_path / "film.mp4")


# --- 35, 32: redirects and secrets --------------------------------------------------------------


async def test_fault_35_redirects_are_followed_without_secrets(
    downloader: Downloader, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to 5 redirects are followed; no key, cookie, proxy or netrc goes along."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("AI302_API_KEY", "sk-secret")

    def hop(asked: Asked) -> Answer:
        if (number := len(host.asked)) > 5:
            return serving(SMALL)(asked)
        return Answer(302, {"Location": f"/{number}?q=1#part", "Set-Cookie": "a=b; Path=/"})

    async with hosting(hop) as host:
        path = await downloader.download(host.url, tmp_path / "film.mp4")
    assert SMALL == path.read_bytes()
    assert ["/film.mp4", *(f"/{n}?q=1" for n in range(1, 6))] == [a.target for a in host.asked]
    names = {name for asked in host.asked for name in asked.headers}
    assert names == {"host", "accept", "accept-encoding", "user-agent"}


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://file.302.ai/x", "not https"),
        ("https://file.302.ai/x", "outside the family"),
        ("https://me:hunter2@127.0.0.1/x", "user name"),
        ("https://10.0.0.1/x", "outside the family"),
        ("/film.mp4", "in a circle"),
        ("ftp://127.0.0.1/x", "not https"),
        ("https://[/x", "not a URL"),
    ],
)
async def test_fault_35_redirects_that_are_refused(
    downloader: Downloader, tmp_path: pathlib.Path, location: str, reason: str
) -> None:
    """A redirect to another scheme, host or user, or in a circle, is an error at once."""
    async with hosting(always(Answer(302, {"Location": location}))) as host:
        with pytest.raises(DownloadError, match=reason) as caught:
            await downloader.download(host.url, tmp_path / "film.mp4")
    assert 1 == len(host.asked)
    assert "hunter2" not in str(caught.value)


async def test_fault_35_too_many_redirects(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """The sixth redirect is one too many."""
    async with hosting(lambda _: Answer(307, {"Location": f"/{len(host.asked)}"})) as host:
        with pytest.raises(DownloadError, match="more than 5 times"):
            await downloader.download(host.url, tmp_path / "film.mp4")
    assert 6 == len(host.asked)


@pytest.mark.parametrize(
    "url", ["http://file.302.ai/x.mp4", "https://me:it@file.302.ai/x", "file:///etc/passwd", "x"]
)
async def test_fault_35_first_url(downloader: Downloader, tmp_path: pathlib.Path, url: str) -> None:
    """The URL itself is https without a user, or http on this machine."""
    with pytest.raises(DownloadError) as caught:
        await downloader.download(url, tmp_path / "film.mp4")
    assert 0 == caught.value.attempts
    assert set() == entries(tmp_path)


async def test_fault_32_signed_urls_stay_secret(
    downloader: Downloader,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
    blocking_calls: list[str],
) -> None:
    """The query of a URL is in no error and no log line."""
    caplog.set_level(logging.DEBUG)
    script = in_turn(always(Answer(500)), serving(SMALL, sent=0), always(Answer(404)))
    async with hosting(script) as host:
        with pytest.raises(DownloadError) as caught:
            await downloader.download(f"{host.url}?sign=secret", tmp_path / "film.mp4")
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret" not in f"{error} {error!r} {error.__dict__}"
        error = error.__context__
    assert "asked again in" in caplog.text
    assert "secret" not in caplog.text
    blocking_calls.clear()  # pytest's log handler writes to a file


# --- 25: progress -------------------------------------------------------------------------------


async def test_progress_is_told_ten_times_a_second_at_most(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """Of 100 pieces in a second every tenth is reported, and the end."""
    clock, seen = asyncio.get_running_loop().time, []
    async with hosting(dripping(1000, every=0.01)) as host:
        await downloader.download(
            host.url, tmp_path / "film.mp4", progress=lambda *now: seen.append((clock(), *now))
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
        path = await downloader.download(host.url, tmp_path / "film.mp4", progress=progress)
    assert SMALL == path.read_bytes()
    assert calls > 10
    assert ["veo3_async"] == [record.name for record in caplog.records if record.exc_info]
    blocking_calls.clear()  # pytest's log handler writes to a file


# --- several at once ----------------------------------------------------------------------------


async def test_four_downloads_run_at_once(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """Ten films come four at a time."""
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
    """Two calls for one film and one path make one request and get the same file."""
    (tmp_path / "link").symlink_to(tmp_path)
    async with hosting(serving(FILM)) as host:
        task = VideoTask(id=ID, video_url=host.url)
        calls = (downloader.download(task, path) for path in (tmp_path, tmp_path / "link"))
        first, second = await asyncio.gather(*calls)
    assert first == second == tmp_path / "veo3-pro-68935cd4-58f5-49ce-878e-40b785dd33b8.mp4"
    assert FILM == first.read_bytes()
    assert 1 == len(host.asked)


async def test_two_films_for_one_path(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """Of two calls for two films and one path one is refused, and the other goes on."""
    path = tmp_path / "film.mp4"
    async with hosting(serving(SMALL)) as host:
        urls = (host.url, f"{host.url}?other")
        calls = (downloader.download(url, path) for url in urls)
        ends = await asyncio.gather(*calls, return_exceptions=True)
    assert path in ends
    assert [f"another download is writing {path}"] == [str(e) for e in ends if e != path]


@dataclasses.dataclass
class Stalled:
    """A host that sends a part of a film and waits for the test."""

    host: Host
    arrived: asyncio.Event
    go_on: asyncio.Event


@pytest.fixture
async def stalled() -> AsyncIterator[Stalled]:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        arrived.set()
        await go_on.wait()

    def first(asked: Asked) -> Answer:
        return dataclasses.replace(serving(FILM, sent=2_000_000)(asked), then=wait)

    async with hosting(in_turn(first, serving(FILM))) as host:
        yield Stalled(host, arrived, go_on)
        go_on.set()


async def test_first_caller_leaves(
    downloader: Downloader, tmp_path: pathlib.Path, stalled: Stalled
) -> None:
    """A first caller who is cancelled does not take the film from the second."""
    calls = [
        asyncio.create_task(downloader.download(stalled.host.url, tmp_path / "film.mp4"))
        for _ in range(2)
    ]
    await stalled.arrived.wait()
    calls[0].cancel()
    await asyncio.wait([calls[0]])
    stalled.go_on.set()
    assert FILM == (await calls[1]).read_bytes()
    assert calls[0].cancelled()
    assert 2 == len(stalled.host.asked)


async def test_last_caller_leaves(
    downloader: Downloader, tmp_path: pathlib.Path, stalled: Stalled
) -> None:
    """When all callers are cancelled the download has ended; a new call has all it received."""
    path, url = tmp_path / "film.mp4", stalled.host.url
    calls = [asyncio.create_task(downloader.download(url, path)) for _ in range(2)]
    await stalled.arrived.wait()
    await asyncio.sleep(0.5)  # all has come, and nothing is written yet
    for call in calls:
        call.cancel()
    again = asyncio.create_task(downloader.download(url, path))
    await asyncio.wait(calls)
    assert FILM == (await again).read_bytes()
    assert [0, 2_000_000] == stalled.host.starts
    assert repr(downloader) == "<Downloader: 0 running, 4 at once>"


async def test_fault_31_closed_meanwhile_and_before(
    downloader: Downloader, tmp_path: pathlib.Path, stalled: Stalled
) -> None:
    """Closing ends a running download with `ClientClosed`, and none can be begun after it."""
    call = asyncio.create_task(downloader.download(stalled.host.url, tmp_path / "film.mp4"))
    await stalled.arrived.wait()
    await downloader.aclose()
    assert [] == open_files(tmp_path)
    assert "<Downloader: closed>" == repr(downloader)
    with pytest.raises(ClientClosed):
        await call
    with pytest.raises(ClientClosed):
        await downloader.download(stalled.host.url, tmp_path / "other.mp4")
    await downloader.aclose()
    assert "film.mp4" not in entries(tmp_path)


# --- 23: cancellation ---------------------------------------------------------------------------


class Counted(Coroutine[Any, Any, Any]):
    """A coroutine that tells each time it is about to wait."""

    def __init__(self, inner: Coroutine[Any, Any, Any], tell: Callable[[], None]) -> None:
        self._inner = inner
        self._tell = tell

    def send(self, value: Any) -> Any:
        awaited = self._inner.send(value)
        self._tell()
        return awaited

    def throw(self, *error: Any) -> Any:
        return self._inner.throw(*error)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()


def open_files(folder: pathlib.Path) -> list[str]:
    links = []
    for handle in pathlib.Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(str(handle.readlink()))
    return [link for link in links if link.startswith(str(folder))]


async def _cancelled_at(number: int, call: Coroutine[Any, Any, object]) -> bool:
    """Run a call, cancel it when its tasks wait so many times; return whether it ended first."""
    loop, waits = asyncio.get_running_loop(), 0

    def tell() -> None:
        nonlocal waits
        waits += 1
        if waits == number:
            loop.call_soon(running.cancel)

    def factory(
        loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        is_ours = coro.cr_code.co_filename.endswith("downloader.py")  # type: ignore[attr-defined]
        return asyncio.Task(Counted(coro, tell) if is_ours else coro, loop=loop, **options)

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
        async with hosting(in_turn(serving(FILM, sent=1_500_000), serving(FILM))) as host:
            downloader = Downloader()
            call = downloader.download(host.url, folder / "film.mp4")
            is_over = await _cancelled_at(number, call)
            assert [] == open_files(folder)
            assert entries(folder) <= {"film.mp4", "film.mp4.part", "film.mp4.part.json"}
            path = await downloader.download(host.url, folder / "film.mp4", overwrite=True)
            assert FILM == path.read_bytes()
            await downloader.aclose()
        assert entries(folder) == {"film.mp4"}
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
        await downloader.download(stalled.host.url, tmp_path / "film.mp4")
    assert scope.cancelled_caught
    assert [] == open_files(tmp_path)
    assert "film.mp4" not in entries(tmp_path)
    assert "0 running" in repr(downloader)


# --- what can be asked for ----------------------------------------------------------------------


async def test_task_without_a_video(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A task that has no video cannot be downloaded, and the service's reason is told."""
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
        base = host.url.removesuffix("film.mp4")
        task = VideoTask(id=ID, video_url=f"{base}a", upsample_video_url=f"{base}b")
        await downloader.download(task, tmp_path)
    assert ["/b"] == [asked.target for asked in host.asked]


async def test_resume_is_not_wanted(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """With ``resume=False`` what an earlier call left is forgotten."""
    script = in_turn(serving(SMALL, sent=5000), always(Answer(400)), serving(SMALL))
    async with hosting(script) as host:
        with pytest.raises(DownloadError):
            await downloader.download(host.url, tmp_path / "film.mp4")
        path = await downloader.download(host.url, tmp_path / "film.mp4", resume=False)
    assert SMALL == path.read_bytes()
    assert [0, 5000, 0] == host.starts


async def test_url_goes_out_as_it_is(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A signed URL arrives unchanged; only what no URL may hold is encoded."""
    async with hosting(serving(SMALL)) as host:
        signed = "/a%2Fb%7e;c?X-Sig=a%2Bb+c/=&t=\u00fc d"
        await downloader.download(host.url.replace("/film.mp4", signed), tmp_path)
    assert ["/a%2Fb%7e;c?X-Sig=a%2Bb+c/=&t=%C3%BC%20d"] == [asked.target for asked in host.asked]
