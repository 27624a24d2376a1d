"""A host of videos that does exactly what a test says, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import os
import pathlib
import random
import re
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from veo3_async import VideoTask

LIFE = pathlib.Path(__file__).with_name("download_life.py")


ID = "veo3-pro:68935cd4-58f5-49ce-878e-40b785dd33b8"


YEARS_AGO = {"Last-Modified": "Wed, 06 Aug 2025 13:46:12 GMT"}


def video(size: int, seed: int = 0) -> bytes:
    """Return an mp4 of three boxes, so many bytes long."""
    head = b"\0\0\0\x18ftypisom\0\0\2\0isommp41" + b"\0\0\0\x08moov"
    body = random.Random(seed).randbytes(size - len(head) - 8)
    return head + struct.pack(">I4s", len(body) + 8, b"mdat") + body


VIDEO = video(3 << 20)


OTHER = video(3 << 20, seed=1)


SMALL = video(100_000)


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
            if writer.is_closing():  # who asked has gone: uvloop raises then
                return
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
        return f"{self.scheme}://127.0.0.1:{self.port}/video.mp4"

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
    """Return a script that obeys Range and If-Range, and cuts after so many bytes of the video."""
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
    """Return a script that sends the small video in pieces, so many seconds apart."""
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


def entries(folder: pathlib.Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


@dataclasses.dataclass
class Stalled:
    """A host that sends a part of a video and waits for the test."""

    host: Host
    arrived: asyncio.Event
    go_on: asyncio.Event


def refresher(*urls: str) -> tuple[list[str], Callable[[], Coroutine[Any, Any, VideoTask]]]:
    """Return what hands out one URL after another, and the list of those it has not."""
    left = list(urls)

    async def refresh() -> VideoTask:
        await asyncio.sleep(0)
        return VideoTask(id=ID, video_url=left.pop(0))

    return left, refresh


def open_files(folder: pathlib.Path) -> list[str]:
    links = []
    for handle in pathlib.Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(str(handle.readlink()))
    return [link for link in links if link.startswith(str(folder))]


def environment() -> dict[str, str]:
    root = str(LIFE.parent.parent)
    return os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
