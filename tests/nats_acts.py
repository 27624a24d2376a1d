"""What an operator does to a NATS server, and what happens to it: by hand, and by kill."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
from nats_process import NatsServer, free_port

from veo3_async import ServiceUnavailable
from veo3_async.cluster import Cluster

Act = Callable[["Place"], Awaitable[object]]

ACK_WAIT = 3.0
"""Seconds after which an id of a worker that died is polled by another."""


class Place:
    """A server of its own, its directory, and a cluster there with an operator's rights."""

    def __init__(self, directory: Path) -> None:
        self.store = directory / "store"
        self.nats = NatsServer(directory)
        self.nats.start()

    def cluster(self) -> Cluster:
        return Cluster(self.nats.url, ack_wait=ACK_WAIT, max_polls_per_second=200)


def three_servers(directory: Path) -> list[NatsServer]:
    """Return three servers of one cluster, not started."""
    ports = [free_port() for _ in range(6)]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports[3:])
    return [
        NatsServer(
            directory / str(number),
            port=ports[number],
            more=f"server_name: n{number}\n"
            f'cluster {{\n  name: three\n  listen: "127.0.0.1:{ports[3 + number]}"\n'
            f"  routes: [{routes}]\n}}",
        )
        for number in range(3)
    ]


async def connected(cluster: Cluster) -> None:
    """Connect when the servers have found each other."""
    while True:
        try:
            await cluster.connect()
        except ServiceUnavailable:
            await anyio.sleep(0.5)
        else:
            return


@contextlib.asynccontextmanager
async def operator(place: Place) -> AsyncIterator[Cluster]:
    """Yield a cluster that is connected and looks after nothing."""
    cluster = place.cluster()
    try:
        await cluster._engine.connect()
        yield cluster
    finally:
        await cluster.aclose()


async def delete_stream(place: Place, name: str) -> None:
    async with operator(place) as cluster:
        await (await cluster._engine.jetstream()).delete_stream(f"veo3_{name}")


async def purge_stream(place: Place, name: str) -> None:
    async with operator(place) as cluster:
        await (await cluster._engine.jetstream()).purge_stream(f"veo3_{name}")


async def delete_consumer(place: Place, stream: str, name: str) -> None:
    async with operator(place) as cluster:
        await (await cluster._engine.jetstream()).delete_consumer(f"veo3_{stream}", name)


async def lose_store(place: Place) -> None:
    place.nats.stop()
    shutil.rmtree(place.store)
    place.nats.start()


async def restart(place: Place) -> None:
    place.nats.stop(signal.SIGTERM)
    await anyio.sleep(0.5)
    place.nats.start()


async def kill(place: Place) -> None:
    place.nats.stop()
    await anyio.sleep(0.5)
    place.nats.start()


REMOVALS: dict[str, Act] = {
    "store lost": lose_store,
    "pollers deleted": lambda place: delete_consumer(place, "WATCH", "pollers"),
    "permits deleted": lambda place: delete_consumer(place, "RATE", "permits"),
    "rate purged": lambda place: purge_stream(place, "RATE"),
    "rate deleted": lambda place: delete_stream(place, "RATE"),
    "watch purged": lambda place: purge_stream(place, "WATCH"),
    "watch deleted": lambda place: delete_stream(place, "WATCH"),
    "changes purged": lambda place: purge_stream(place, "CHANGE"),
    "changes deleted": lambda place: delete_stream(place, "CHANGE"),
}
"""What was removed is made again by the processes that need it."""

RESTARTS: dict[str, Act] = {"server restarted": restart, "server killed": kill}
"""Nothing is lost by these."""
