"""How an answer goes out: whole, late, in part, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import http
import socket
import struct
from typing import TYPE_CHECKING, Final

from aiohttp import web

from veo3_async.testing._faults import Cut, Drip, HangUp, Silence, Slow
from veo3_async.testing._videos import Excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from veo3_async.testing._replies import Answer
    from veo3_async.testing._requests import Outcome

__all__ = ["deliver", "hang_up"]

# Closing with a zero linger time sends a reset instead of an orderly end (socket(7)).
_NO_LINGER: Final = struct.pack("ii", 1, 0)


async def deliver(request: web.BaseRequest, outcome: Outcome) -> web.StreamResponse:
    """Send an answer as its fault wants it, and return what aiohttp is to finish."""
    answer = outcome.answer
    match outcome.fault:
        case None:
            return await _whole(request, answer)
        case Slow(seconds):
            await asyncio.sleep(seconds)
            return await _whole(request, answer)
        case HangUp(reset):
            hang_up(request.transport, reset=reset)
        case Silence(after_headers):
            if after_headers:
                await _start(request, answer, framing="length")
            await asyncio.get_running_loop().create_future()
        case Drip(interval):
            await _start(request, answer, framing="length")
            await _drip(request, answer, interval)
        case Cut(framing, at):
            await _start(request, answer, framing=framing)
            most = len(answer.body) // 2 if at is None else at
            await _write(request, _limited(_chunks(answer), most))
        case _:
            raise AssertionError(outcome.fault)
    return _broken_off(request)


def hang_up(transport: asyncio.Transport | None, *, reset: bool) -> None:
    """Close a connection, by a TCP reset if wanted."""
    if transport is None:  # it is closed
        return
    if reset:
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.abort()
    else:
        transport.close()


async def _whole(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    if isinstance(answer.body, bytes):
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(answer.body) if answer.sized else None
    # A client that goes in the middle of a video is no trouble of the server's.
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        for chunk in answer.body.chunks():
            await response.write(chunk)
    return response


async def _start(request: web.BaseRequest, answer: Answer, *, framing: str) -> None:
    # aiohttp's responses cannot be made to lie about their length, its writer can.
    headers = web.StreamResponse(headers=answer.headers).headers
    if framing == "length":
        headers["Content-Length"] = str(len(answer.body))
    elif framing == "chunked":
        headers["Transfer-Encoding"] = "chunked"
        request.writer.enable_chunking()
    else:
        headers["Connection"] = "close"
    phrase = http.HTTPStatus(answer.status).phrase
    await request.writer.write_headers(f"HTTP/1.1 {answer.status} {phrase}", headers)
    request.writer.send_headers()


async def _write(request: web.BaseRequest, chunks: Iterable[bytes]) -> None:
    with contextlib.suppress(ConnectionError):
        for chunk in chunks:
            await request.writer.write(chunk)


async def _drip(request: web.BaseRequest, answer: Answer, interval: float) -> None:
    for chunk in _chunks(answer):
        for byte in chunk:
            await asyncio.sleep(interval)
            await _write(request, (bytes((byte,)),))


def _chunks(answer: Answer) -> Iterable[bytes]:
    return answer.body.chunks() if isinstance(answer.body, Excerpt) else (answer.body,)


def _limited(chunks: Iterable[bytes], most: int) -> Iterable[bytes]:
    for chunk in chunks:
        if most <= 0:
            return
        yield chunk[:most]
        most -= len(chunk)


def _broken_off(request: web.BaseRequest) -> web.StreamResponse:
    # aiohttp finds the connection closed when it sends this, and takes it for the client's doing.
    if request.transport is not None:
        request.transport.close()
    return web.Response()
