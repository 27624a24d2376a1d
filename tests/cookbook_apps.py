"""The apps of recipes, served in this process by the real frameworks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

__all__ = ["Serve", "answers", "served_by_aiohttp", "served_by_uvicorn"]

Serve = Callable[[Any], contextlib.AbstractAsyncContextManager[str]]


@contextlib.asynccontextmanager
async def served_by_uvicorn(names: Any) -> AsyncIterator[str]:
    uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    make = getattr(names, "Server", uvicorn.Server)
    server = make(uvicorn.Config(names.app, port=0, log_level="warning", lifespan="on"))
    server.capture_signals = contextlib.nullcontext
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


def served_by_aiohttp(names: Any) -> contextlib.AbstractAsyncContextManager[str]:
    return served(names.make_app())


@contextlib.asynccontextmanager
async def served(app: web.Application, **options: Any) -> AsyncIterator[str]:
    """Serve an application of aiohttp, and yield where."""
    runner = web.AppRunner(app, **options)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def answers(session: aiohttp.ClientSession, url: str, status: int = 200) -> None:
    """Return when a program is up, which answers so."""
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(url) as reply:
                assert reply.status == status
                return
        await asyncio.sleep(0.02)
