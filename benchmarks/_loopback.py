"""One server for all rivals, in a process of its own: as little as speaks HTTP to each of them.

It knows the shapes of 302.AI, fal, Replicate and OpenAI, and the id is whatever stands in the
URL. All tasks run from the start of the server and end together; ``limit`` requests are served
in each second, and the others are sent away.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import functools
import itertools
import json
import multiprocessing
import multiprocessing.connection
import pathlib
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import msgspec

_UPDATED = b"1756712345678"  # in place of the sample's `status_update_time`
_ATTEMPT = b'"retry_count": '

REPLIES = pathlib.Path(__file__).parents[1] / "tests" / "replies"


LIFE = (
    ("record_pending", 3, 0),
    ("record_prompt_enhancing", 3, 0),
    ("record_video_generating", 8, 0),
    ("record_video_generation_failed_running", 3, 1),
    ("record_video_generating", 8, 1),
    ("record_video_generation_completed", 4, 1),
    ("completed", 1, 1),
)
"""The stages of a life: a sample, the polls that show it, and the attempts before."""


class Service(msgspec.Struct, frozen=True):
    """What the server does."""

    latency: float = 0.0
    """Seconds before an answer."""
    ends_after: float = 1e9
    """Seconds after which all tasks are finished."""
    limit: int | None = None
    """Requests that are served in a second, or None for all."""
    changing: bool = False
    """Whether each reply of 302.AI is a transition: another word, attempt and time."""
    lives: bool = False
    """Whether each task of 302.AI has a life of its own, of `LIFE`, from its first poll on."""


class Seen(msgspec.Struct):
    """What the server saw; times are seconds since it began."""

    requests: int = 0
    refused: int = 0
    first_seen: dict[str, float] = {}
    """When each task was asked for first."""


@contextlib.contextmanager
def serving(service: Service) -> Iterator[str]:
    """Run a server, and give its URL."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(service, theirs), daemon=True)
    process.start()
    theirs.close()  # so that a server that fails to start is noticed
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.kill()
        process.join()


def seen(url: str) -> Seen:
    """Ask a server what it saw. Blocks for a moment."""
    with urllib.request.urlopen(f"{url}/seen") as reply:
        return msgspec.json.decode(reply.read(), type=Seen)


def _serve(service: Service, pipe: multiprocessing.connection.Connection) -> None:
    async def run() -> None:
        counters = Seen(first_seen={})
        answers = _Answers(service, counters)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(answers), "127.0.0.1", backlog=4096)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


class _Answers:
    """What is said to whom."""

    def __init__(self, service: Service, counters: Seen) -> None:
        self.service = service
        self.counters = counters
        self.began = time.monotonic()
        self._second = -1
        self._served = 0
        self._bodies = {ended: _bodies(ended=ended) for ended in (False, True)}
        self._words = dict[str, int]()
        self._life = [body for body, polls in _stages() for _ in range(polls)]
        self._submitted = itertools.count()

    def to_submission(self) -> bytes:
        request_id = f"veo3-pro:{next(self._submitted):08x}-58f5-49ce-878e-40b785dd33b8"
        return _response(200, json.dumps({"task_id": request_id}).encode())

    def to(self, target: str) -> bytes:
        if target == "/seen":
            return _response(200, msgspec.json.encode(self.counters))
        now = time.monotonic() - self.began
        self.counters.requests += 1
        shape, request_id = _understood(target)
        self.counters.first_seen.setdefault(request_id, now)
        if self.service.limit is not None and self._is_too_many(now):
            self.counters.refused += 1
            return _response(429, b'{"error":{"message":"slow down"}}', "Retry-After: 1\r\n")
        body = self._bodies[now >= self.service.ends_after][shape]
        if self.service.changing:
            body = self._changed(body, request_id)
        if self.service.lives:
            poll = self._words[request_id] = self._words.get(request_id, -1) + 1
            body = self._life[min(poll, len(self._life) - 1)]
        return _response(200, body.replace(b"THE-ID", request_id.encode()))

    def _changed(self, body: bytes, request_id: str) -> bytes:
        number = self._words[request_id] = self._words.get(request_id, 0) + 1
        attempt, failed = divmod(number, 2)
        word = b"video_generation_failed" if failed else b"video_generating"
        body = body.replace(b"video_generating", word)
        body = body.replace(_ATTEMPT + b"0", _ATTEMPT + b"%d" % attempt, 1)
        return body.replace(_UPDATED, b"%d" % (time.time() * 1e3), 1)

    def _is_too_many(self, now: float) -> bool:
        if int(now) != self._second:
            self._second, self._served = int(now), 0
        self._served += 1
        return self._served > (self.service.limit or 0)


def _understood(target: str) -> tuple[str, str]:
    """Return whose protocol a request is of, and the id in it."""
    path, _, query = target.partition("?")
    if query.startswith("request_id="):
        return "302", urllib.parse.unquote(query.removeprefix("request_id="))
    parts = path.split("/")
    match parts[1:]:
        case ["fal", request_id, "status"]:
            return "fal", request_id
        case ["fal", request_id]:
            return "fal result", request_id
        case ["v1", "predictions", request_id]:
            return "replicate", request_id
    return "openai", parts[-1]


def _stages() -> Iterator[tuple[bytes, int]]:
    """Yield what is said in each stage of a life, and how often."""
    began = time.time() * 1e3
    for number, (sample, polls, attempts) in enumerate(LIFE):
        content = json.loads((REPLIES / f"{sample}.json").read_text())
        content |= {"id": "THE-ID", "retry_count": attempts, "created_at": int(began)}
        content |= {"status_update_time": int(began) + 1 + number}
        yield json.dumps(content, indent=2).encode(), polls


def _bodies(*, ended: bool) -> dict[str, bytes]:
    sample = "completed" if ended else "record_video_generating"
    ours = json.loads((REPLIES / f"{sample}.json").read_text())
    shapes: dict[str, Any] = {
        "302": ours | {"id": "THE-ID", "status_update_time": int(_UPDATED)},
        "fal": {"status": "COMPLETED" if ended else "IN_PROGRESS", "logs": None, "metrics": {}},
        "fal result": {"video": {"url": "https://example.com/video.mp4"}},
        "replicate": {
            "id": "THE-ID",
            "model": "google/veo-3",
            "version": "1",
            "status": "succeeded" if ended else "processing",
            "input": {"prompt": "a lighthouse in a storm"},
            "output": "https://example.com/video.mp4" if ended else None,
            "logs": "",
            "error": None,
            "metrics": {},
            "created_at": "2026-01-01T00:00:00Z",
            "started_at": "2026-01-01T00:00:00Z",
            "completed_at": None,
            "urls": {},
        },
        "openai": {
            "id": "THE-ID",
            "object": "video",
            "model": "sora-2",
            "status": "completed" if ended else "in_progress",
            "progress": 100 if ended else 40,
            "created_at": 1_790_000_000,
            "seconds": "8",
            "size": "1280x720",
        },
    }
    return {shape: json.dumps(content, indent=2).encode() for shape, content in shapes.items()}


_RUNNING = _bodies(ended=False)["302"]


def still_running(request_id: str) -> bytes:
    """Return what the server says of a task that has not ended."""
    return _RUNNING.replace(b"THE-ID", request_id.encode())


@functools.lru_cache(maxsize=1)
def _http_date(now: int) -> str:
    return email.utils.formatdate(now, usegmt=True)


def _response(status: int, body: bytes, headers: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status} {'OK' if status == 200 else 'Too Many Requests'}\r\n"
        f"Server: loopback\r\nDate: {_http_date(int(time.time()))}\r\n"
        f"Content-Type: application/json; charset=utf-8\r\n{headers}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    def __init__(self, answers: _Answers) -> None:
        self._answers = answers
        self._unread = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while (request := self._next_request()) is not None:
            method, target, _ = request.split(b" ", 2)
            if method == b"POST":
                answer = self._answers.to_submission()
            else:
                answer = self._answers.to(target.decode())
            if latency := self._answers.service.latency:
                asyncio.get_running_loop().call_later(latency, self._transport.write, answer)
            else:
                self._transport.write(answer)

    def _next_request(self) -> bytes | None:
        """Return the head of the next request that is there as a whole."""
        head, end, rest = self._unread.partition(b"\r\n\r\n")
        length = 0
        if head.startswith(b"POST"):
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if not end or len(rest) < length:
            return None
        self._unread = rest[length:]
        return head
