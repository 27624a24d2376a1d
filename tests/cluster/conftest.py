"""A nats-server, a fake of the service, and clusters with streams of one test alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from nats_process import NatsServer

from veo3_async import (
    FixedPacing,
    Veo3Client,
)
from veo3_async.cluster import Cluster
from veo3_async.testing import FakeVeo3

MakeCluster = Callable[..., Cluster]


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def server(anyio_backend: object) -> AsyncIterator[FakeVeo3]:  # noqa: ARG001 - runs in it
    """Yield a fake of the service whose tasks take seconds."""
    async with FakeVeo3(speed=300) as server:
        yield server


@pytest.fixture
async def make_cluster(
    nats: NatsServer, request: pytest.FixtureRequest
) -> AsyncIterator[MakeCluster]:
    """Yield a function that makes clusters with streams of this test alone; they are closed."""
    made = []
    prefix = request.node.name[:60].translate(str.maketrans("_[].", "----"))

    def make(**options: Any) -> Cluster:
        options = {"prefix": prefix, "max_polls_per_second": 200, "ack_wait": 3, **options}
        made.append(Cluster(options.pop("servers", nats.url), **options))
        return made[-1]

    yield make
    for cluster in made:
        await cluster.aclose()


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> Cluster:
    return make_cluster()


@pytest.fixture
async def veo(server: FakeVeo3) -> AsyncIterator[Veo3Client]:
    client = Veo3Client(
        server.api_key, base_url=server.url, pacing=FixedPacing(0.1), max_polls_per_second=200
    )
    async with client:
        yield client
