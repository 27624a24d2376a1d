"""Keeps what went over the wire in a file: so that a bug report shows what nobody else can see.

A line of JSON for each request and its reply, without the key, cookies, signatures of URLs and,
unless they are asked for, prompts. ``FakeVeo3.replay`` plays such a file. It is a help and no
promise: written beside the polling, in a thread, and what cannot be written is logged once.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import pathlib
import platform
import stat
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
import msgspec

from veo3_async._cancellation import ended
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.http import Call, Reply
from veo3_async._transport.redaction import Redaction

if TYPE_CHECKING:
    from veo3_async._transport.transport import Transport

__all__ = [
    "MAX_BYTES",
    "Exchange",
    "RecordedTransport",
    "Recorder",
    "Seen",
    "is_recording",
    "recorded",
]

_log: Final = logging.getLogger("veo3_async")

MAX_BYTES: Final = 16 << 20
"""Of a file. Where it would grow larger, the older half of it goes: a report is about what came
last."""
_MAX_BODY: Final = 64 << 10
"""Bytes of a body that are kept; a task has 2 kB."""
_MAX_WAITING: Final = 8 << 20
"""Bytes that wait for the disk. What comes beyond is counted, not kept."""
_BATCH_SECONDS: Final = 0.5
_LAST_SECONDS: Final = 5.0
_PRIVATE: Final = 0o600

_HEAD: Final = b'{"recording":1,'


class Exchange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request and what came of it: a line of the file."""

    at: float
    """When it was sent, seconds since the epoch of this machine's clock."""
    seconds: float
    """How long it took."""
    method: str
    path: str
    """With the query."""
    sent: str | None = None
    """The request's body; None where it has none, or is a file."""
    status: int | None = None
    """HTTP status; None where no reply came."""
    headers: dict[str, str] = {}
    body: str | None = None
    """The reply's body, decompressed; None where none came."""
    base64: bool = False
    """Whether ``body`` is in base64, for it is no UTF-8."""
    cut: int = 0
    """Bytes that the body had where it is not whole here."""
    error: str | None = None
    """Why no reply came: a kind, as in ``Stats.failures``, or ``cancelled``."""
    message: str | None = None


class Seen(msgspec.Struct, frozen=True, gc=False):
    """A request that is over; the times are as in `Exchange`."""

    call: Call
    answer: Reply | Problem | None
    """None where the request was cancelled."""
    at: float
    seconds: float

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        answered = len(self.answer.body) if isinstance(self.answer, Reply) else 0
        return 500 + len(self.call.body or b"") + answered


class Recorder:
    """Writes exchanges to a file, in a thread.

    :param path: The file. One that is there must be a recording, and is gone on with.
    :param secret: The API key, which is taken out.
    :param host: Where the API is, for the head of the file.
    :param prompts: Whether prompts are kept.
    :param max_bytes: Size of the file that is not exceeded.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        secret: str,
        host: str = "",
        prompts: bool = False,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._path: Final = pathlib.Path(path)
        self._redaction: Final = Redaction(secret, prompts=prompts)
        self._head: Final = {"host": host, "prompts": prompts}
        self._max_bytes: Final = max_bytes
        self._waiting: list[Seen] = []
        self._waiting_bytes = 0
        self._lost = 0
        self._has_head = False
        self._has_failed = False
        self._wake: Final = asyncio.Event()
        self._writing: Final = threading.Lock()

    def __repr__(self) -> str:
        return f"<Recorder: {self._path}>"

    def take(self, seen: Seen) -> None:
        """Take note of a request that is over; to be called on the event loop."""
        if self._waiting_bytes + seen.size > _MAX_WAITING:
            self._lost += 1
            return
        self._waiting.append(seen)
        self._waiting_bytes += seen.size
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._flush()
            await anyio.sleep(_BATCH_SECONDS)

    async def aclose(self) -> None:
        """Write what is left, for 5 s at most."""
        await self._flush()

    async def _flush(self) -> None:
        """Write what waits; a cancellation comes out after that, for then somebody reads it."""
        if self._waiting and not self._writing.locked():  # a disk that hangs gets no second thread
            batch, lost = self._waiting, self._lost
            self._waiting, self._waiting_bytes, self._lost = [], 0, 0
            await ended(asyncio.ensure_future(self._written(batch, lost)))

    async def _written(self, batch: Sequence[Seen], lost: int) -> None:
        try:
            with anyio.move_on_after(_LAST_SECONDS):
                await anyio.to_thread.run_sync(self._write, batch, lost, abandon_on_cancel=True)
            self._has_failed = False
        except Exception as error:  # noqa: BLE001 - whatever it is, the polling goes on
            self._lost += lost + len(batch)
            if not self._has_failed:
                self._has_failed = True
                _log.warning("requests are not recorded, the rest goes on: %s", error)

    # --- in a thread ------------------------------------------------------------------------

    def _write(self, batch: Sequence[Seen], lost: int) -> None:
        lines = [line for seen in batch if (line := self._line(seen))]
        if lost := lost + len(batch) - len(lines):
            lines.insert(0, b'{"lost":%d}\n' % lost)
        with self._writing:
            if not self._has_head:
                lines.insert(0, self._head_line())
            self._append(b"".join(lines))
            self._has_head = True

    def _append(self, content: bytes) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)
        with open(os.open(self._path, flags, _PRIVATE), "r+b") as file:  # noqa: PTH123 - a number
            status = os.fstat(file.fileno())
            begins = file.read(len(_HEAD)) if stat.S_ISREG(status.st_mode) else b"no file"
            if begins not in {b"", _HEAD}:
                message = f"{self._path} is there and is no recording; name another file"
                raise FileExistsError(message)
            is_full = status.st_size + len(content) > self._max_bytes
            if not is_full:
                file.write(content)
        if is_full:
            self._rewrite(content)

    def _rewrite(self, content: bytes) -> None:
        """Leave the newer half of what the file would hold, with a head of its own."""
        path = self._path.resolve()
        everything = path.read_bytes() + content
        _, _, newer = everything[-self._max_bytes // 2 :].partition(b"\n")
        beside = path.with_name(f"{path.name}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with open(os.open(beside, flags, _PRIVATE), "wb") as file:  # noqa: PTH123 - a number
            file.write(self._head_line() + newer)
        beside.replace(path)
        _log.info("the recording %s is full; the older half of it was dropped", self._path)

    def _head_line(self) -> bytes:
        head = {"package": _version(), "python": platform.python_version(), "at": time.time()}
        return _HEAD + msgspec.json.encode(head | self._head)[1:] + b"\n"

    def _line(self, seen: Seen) -> bytes:
        """Return what is written of a request; nothing where it cannot be made fit to be shown."""
        with contextlib.suppress(RecursionError, ValueError):
            return msgspec.json.encode(_exchange(seen, self._redaction)) + b"\n"
        return b""


class RecordedTransport:
    """A transport of which every request is recorded."""

    def __init__(self, transport: Transport, recorder: Recorder) -> None:
        self._transport: Final = transport
        self._recorder: Final = recorder

    async def send(self, call: Call) -> Reply | Problem:
        """Make one physical request; only a cancellation is raised."""
        at, began = time.time(), time.monotonic()
        answer: Reply | Problem | None = None
        try:
            answer = await self._transport.send(call)
        finally:
            self._recorder.take(Seen(call, answer, at, time.monotonic() - began))
        return answer


def _exchange(seen: Seen, redaction: Redaction) -> Exchange:
    """Return what is written of a request."""
    call, answer = seen.call, seen.answer
    facts: dict[str, Any] = {
        "at": round(seen.at, 3),
        "seconds": round(seen.seconds, 3),
        "method": call.method,
        "path": redaction.target(call.target),
    }
    if call.body is not None:
        facts["sent"] = redaction.body(_cut(call.body)).decode(errors="replace")
    match answer:
        case None:
            return Exchange(**facts, error="cancelled")
        case Problem():
            message = redaction.body(answer.message.encode(errors="replace")).decode()
            facts |= {"error": answer.kind.value, "message": message, "status": answer.http_status}
            return Exchange(**facts)
    facts |= {"status": answer.status, "headers": redaction.headers(answer.headers)}
    if len(answer.body) > _MAX_BODY:
        facts["cut"] = len(answer.body)
    whole_or_cut = _cut(answer.body)
    body = redaction.body(whole_or_cut, beside=redaction.hidden_in(call.body))
    return Exchange(**facts, **_as_text(body))


def _cut(body: bytes) -> bytes:
    """Return the first bytes of a body, of its last character all or nothing."""
    part = body[:_MAX_BODY]
    if len(part) == len(body):
        return body
    with contextlib.suppress(UnicodeDecodeError):
        body.decode()
        return part.decode(errors="ignore").encode()
    return part


def _as_text(body: bytes) -> dict[str, Any]:
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode(), "base64": True}


def is_recording(path: pathlib.Path) -> bool:
    """Return whether a file may be written to: there is none, or one that is a recording.

    :raises OSError: It cannot be looked at.
    """
    try:
        with path.open("rb") as file:
            return file.read(len(_HEAD)) in {b"", _HEAD}
    except FileNotFoundError:
        return True


def recorded(content: bytes) -> list[Exchange]:
    """Return what a recording holds; lines that are none of an exchange are left out."""
    exchanges = list[Exchange]()
    for line in content.splitlines():
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            exchanges.append(msgspec.json.decode(line, type=Exchange))
    return exchanges


def _version() -> str:
    import importlib.metadata  # noqa: PLC0415 - takes 20 ms

    try:
        return importlib.metadata.version("veo3_async")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
