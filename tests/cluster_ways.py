"""How a test works, listens and waits at a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio

from veo3_async import (
    Transition,
    Veo3Client,
)
from veo3_async.cluster import Changes, Cluster
from veo3_async.testing import Life

MakeCluster = Callable[..., Cluster]
ENDLESS = Life.scripted([{"status": "video_generating", "running": True}])


@contextlib.asynccontextmanager
async def working(cluster: Cluster, client: Veo3Client, **options: Any) -> AsyncIterator[None]:
    """Let a worker run beside; it is asked to stop at the end."""
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def work() -> None:
            await cluster.work(client, stop=stop, **options)

        tasks.start_soon(work)
        yield
        stop.set()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what something else will do."""
    with anyio.fail_after(30):
        while not condition():
            await anyio.sleep(0.01)


async def all_ended(cluster: Cluster) -> None:
    """Wait until nothing is watched."""
    with anyio.fail_after(30):
        while (await cluster.stats()).outstanding:
            await anyio.sleep(0.05)


async def begun(cluster: Cluster) -> None:
    """Wait until a worker is at work."""
    with anyio.fail_after(30):
        while not (await cluster.stats()).workers:
            await anyio.sleep(0.02)


async def delivered_to(changes: Changes, *, within: float = 30) -> dict[str, list[Transition]]:
    """Return what a listener hears until its ids are final, by id."""
    heard: dict[str, list[Transition]] = {}
    with anyio.fail_after(within):
        async with changes:
            async for change in changes:
                heard.setdefault(change.request_id, []).append(change)
    return heard
