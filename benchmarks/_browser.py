"""A real Chromium without a window, spoken to by its debugging protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import pathlib
import shutil
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")

_OPTIONS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-port=0",
    "--window-size=720,720",
)
_PATIENCE: Final = 60.0


class Page:
    """One page, and what it shows."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._calls = 0

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, awaited where it is a promise."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def wait_until(self, expression: str) -> None:
        """Return once an expression is true."""
        async with asyncio.timeout(_PATIENCE):
            while not await self.evaluate(expression):
                await asyncio.sleep(0.02)

    async def picture(self) -> bytes:
        """Return what is on the screen as PNG."""
        answer = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"])

    async def call(self, method: str, **params: Any) -> Any:
        self._calls += 1
        await self._socket.send_json({"id": self._calls, "method": method, "params": params})
        while (answer := await self._socket.receive_json()).get("id") != self._calls:
            pass
        assert "error" not in answer, answer
        return answer["result"]


@contextlib.asynccontextmanager
async def chromium(profile: pathlib.Path) -> AsyncIterator[Page]:
    """Start a browser with an empty profile, and yield its first page."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *_OPTIONS,
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "HOME": str(profile)},
    )
    try:
        port = await _port(profile / "DevToolsActivePort")
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.get("/json") as reply:
                (target,) = [each for each in await reply.json() if each["type"] == "page"]
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        process.kill()
        await process.wait()


async def _port(file: pathlib.Path) -> int:
    """Return the port that the browser writes down once it listens."""
    async with asyncio.timeout(_PATIENCE):
        while not file.exists() or not file.read_text().strip():
            await asyncio.sleep(0.02)
    return int(file.read_text().split()[0])
