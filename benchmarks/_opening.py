"""What is run in a fresh interpreter: a loop that is running gets its first client."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

from veo3_async import Veo3Client

from ._ticker import Ticker

SETTLED = 0.3
"""Seconds until the loop has done what a loop does first."""


async def nothing(_: str) -> None:
    await asyncio.sleep(SETTLED)


async def ours(url: str) -> None:
    async with Veo3Client("no-key", base_url=url) as veo:
        await veo.fetch("veo3-pro:1")


async def aiohttp_on_the_loop(url: str) -> None:
    import aiohttp  # noqa: PLC0415 - that is what is measured

    async with aiohttp.ClientSession() as session, session.get(f"{url}/302/submit/veo3-pro"):
        pass


WAYS: dict[str, Callable[[str], Awaitable[None]]] = {
    f.__name__: f for f in (nothing, ours, aiohttp_on_the_loop)
}


async def main(way: str, url: str) -> None:
    ticker = Ticker(0.001)
    ticking = asyncio.create_task(ticker.run())
    await asyncio.sleep(SETTLED)
    ticker.reset()
    await WAYS[way](url)
    await asyncio.sleep(0.01)  # so that the last stall is seen
    ticking.cancel()
    sys.stdout.write(f"{ticker.latest * 1e3} {ticker.own * 1e3}\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
