"""Who polls beside us, each as its users do it: with its own polling helper where it has one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import aiohttp
from yarl import URL

from veo3_async import FixedPacing, LearnedPacing, Pacing, Progress, Veo3Client

from ._report import OURS, installed

PATH = "/302/submit/veo3-pro"
KEY = "no-key"

Count = Callable[[], int]
Contender = Callable[[str, Sequence[str], int], contextlib.AbstractAsyncContextManager[Count]]


def request_ids(count: int) -> list[str]:
    return [f"veo3-pro:{n:08x}-58f5-49ce-878e-40b785dd33b8" for n in range(count)]


class AtOnce(FixedPacing):
    """Decides as a fixed interval does, and comes back at once."""

    def delay(self, progress: Progress, rand: float) -> float:
        super().delay(progress, rand)
        return 0.0


class AtOnceLearning(LearnedPacing):
    """Learns all that can be learned, and comes back at once."""

    def delay(self, progress: Progress, rand: float) -> float:
        super().delay(progress, rand)
        return 0.0


@contextlib.asynccontextmanager
async def ours(
    url: str,
    ids: Sequence[str],
    in_flight: int,
    *,
    pacing: Pacing | None = None,
    journal: pathlib.Path | None = None,
) -> AsyncIterator[Count]:
    """Poll through ``watch()``, as often as the connections allow."""
    async with (
        Veo3Client(
            KEY,
            base_url=url,
            pacing=pacing or AtOnce(),
            journal=journal,
            max_polls_per_second=1e6,
            max_connections=in_flight,
        ) as veo,
        veo.watch(*ids) as changes,
    ):

        async def consume() -> None:
            async for _ in changes:
                pass

        consumer = asyncio.create_task(consume())
        yield lambda: veo.stats().polls
        consumer.cancel()


def ours_learning(
    url: str, ids: Sequence[str], in_flight: int
) -> contextlib.AbstractAsyncContextManager[Count]:
    return ours(url, ids, in_flight, pacing=AtOnceLearning())


@contextlib.asynccontextmanager
async def polling(
    poll: Callable[[str], Awaitable[object]], ids: Sequence[str], in_flight: int
) -> AsyncIterator[Count]:
    """Poll in as many tasks as are to be in flight."""
    polls = itertools.count()
    done = 0

    async def work(mine: Sequence[str]) -> None:
        nonlocal done
        for request_id in itertools.cycle(mine):
            await poll(request_id)
            done = next(polls)

    tasks = [asyncio.create_task(work(ids[n::in_flight])) for n in range(in_flight)]

    def count() -> int:
        for task in tasks:
            if task.done():
                task.result()  # raises what ended it
        return done

    try:
        yield count
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def asked_by_hand(session: aiohttp.ClientSession, url: str, request_id: str) -> Any:
    """Return the state of a task as one asks for it by hand."""
    async with session.get(
        url + PATH,
        params={"request_id": request_id},
        headers={"Authorization": f"Bearer {KEY}"},
    ) as response:
        return await response.json()


@contextlib.asynccontextmanager
async def bare(url: str, ids: Sequence[str], in_flight: int) -> AsyncIterator[Count]:
    """Do what one writes by hand: no schedule, no limits, no faults."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)) as session:

        async def poll(request_id: str) -> None:
            # Here as it stands, for another call would make the rival slower.
            async with session.get(
                url + PATH,
                params={"request_id": request_id},
                headers={"Authorization": f"Bearer {KEY}"},
            ) as response:
                task = await response.json()
                assert not task.get("video_url")

        async with polling(poll, ids, in_flight) as count:
            yield count


@contextlib.asynccontextmanager
async def tuned(url: str, ids: Sequence[str], in_flight: int) -> AsyncIterator[Count]:
    """Fetch the bytes and do nothing with them, with all that a poll does not need taken out."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    headers = {"Authorization": f"Bearer {KEY}"}
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout, headers=headers
    ) as session:

        async def poll(request_id: str) -> None:
            target = URL(f"{url}{PATH}?request_id={request_id}", encoded=True)
            response = await session.get(target, allow_redirects=False)
            await response.content.readany()
            response.release()

        async with polling(poll, ids, in_flight) as count:
            yield count


@contextlib.asynccontextmanager
async def plain_httpx(url: str, ids: Sequence[str], in_flight: int) -> AsyncIterator[Count]:
    """Do the same as the bare loop with httpx."""
    import httpx  # noqa: PLC0415 - not always installed

    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=120) as client:

        async def poll(request_id: str) -> None:
            response = await client.get(
                PATH,
                params={"request_id": request_id},
                headers={"Authorization": f"Bearer {KEY}"},
            )
            assert not response.json().get("video_url")

        async with polling(poll, ids, in_flight) as count:
            yield count


async def fal_client_of(url: str) -> tuple[Any, Callable[[str], Any]]:
    """Return fal's own HTTP client, and what makes a handle that it polls here.

    The URLs of a handle come with the answer to a submission, so a server may say any.
    """
    import fal_client  # noqa: PLC0415 - not always installed

    client = await fal_client.AsyncClient(key=KEY)._client  # noqa: SLF001 - what submit() uses

    def handle(request_id: str) -> Any:
        task = f"{url}/fal/{request_id.replace(':', '-')}"
        return fal_client.AsyncRequestHandle(
            request_id=request_id,
            response_url=task,
            status_url=f"{task}/status",
            cancel_url=f"{task}/cancel",
            client=client,
        )

    return client, handle


@contextlib.asynccontextmanager
async def fal(url: str, ids: Sequence[str], in_flight: int) -> AsyncIterator[Count]:
    """Poll with the handles of fal-client."""
    client, handle_of = await fal_client_of(url)
    handles = {request_id: handle_of(request_id) for request_id in ids}
    async with client:

        async def poll(request_id: str) -> None:
            await handles[request_id].status()

        async with polling(poll, ids, in_flight) as count:
            yield count


CONTENDERS: dict[str, Contender] = {
    OURS: ours,
    f"{OURS}, learned pacing": ours_learning,
    "bare aiohttp": bare,
    "tuned aiohttp": tuned,
}
if installed("httpx"):
    CONTENDERS["httpx"] = plain_httpx
if installed("fal_client"):
    CONTENDERS["fal-client"] = fal
