"""Downloads as a client makes them: where its videos may lie follows from where its API is."""

from __future__ import annotations

import pathlib
import random

import pytest
from download.video_host import Answer, Asked, always, entries, hosting, in_turn, serving, video

from veo3_async import DownloadError, Veo3Client, VideoTask
from veo3_async._download.downloader import Downloader
from veo3_async.testing import FakeVeo3, Life

pytestmark = pytest.mark.anyio


async def test_fault_35_public_api_leads_to_no_private_address(
    tmp_path: pathlib.Path,
) -> None:
    """Beside the public API nothing on this machine is asked for, whatever the service says."""
    async with hosting(always(Answer(200))) as host, Veo3Client("a-key-of-its-own") as veo:
        url = f"http://127.0.0.1:{host.port}/_shutdown"
        for source in (url, VideoTask(id="veo3-pro:1", video_url=url)):
            with pytest.raises(DownloadError, match="not public"):
                await veo.download(source, tmp_path)
    assert [] == host.asked
    assert set() == entries(tmp_path)


async def test_fault_61_end_that_is_delivered_again(
    server: FakeVeo3, veo: Veo3Client, tmp_path: pathlib.Path
) -> None:
    """A bot that is killed after a download finds the video when it starts again."""
    request_id = server.add(life=Life.documented())
    task = await veo.wait(request_id)
    path = await veo.download(task, tmp_path)
    server.expire_urls(request_id)
    async with Veo3Client(server.api_key, base_url=server.url) as next_life:
        again = await next_life.fetch(request_id)
        assert task.best_url != again.best_url
        assert path == await next_life.download(again, tmp_path)
    assert server.video_of(str(task.best_url)) == path.read_bytes()


@pytest.mark.parametrize("seed", range(60))
async def test_fault_34_files_are_never_mixed(
    downloader: Downloader, tmp_path: pathlib.Path, seed: int
) -> None:
    """Whatever is cut, renamed, swapped and chunked: what gets the name is one video, whole."""
    rng = random.Random(seed)
    bodies = {'"1"': video(100_000, 1), '"2"': video(100_000 + rng.choice([0, 9]), 2)}

    def answer(asked: Asked) -> Answer:
        etag = rng.choice(['"1"', '"1"', '"2"'])
        script = serving(
            bodies[etag],
            etag=rng.choice([etag, etag, f"W/{etag}", None]),
            sent=rng.choice([None, rng.randrange(100_000)]),
            has_length=rng.random() < 0.7,
        )
        return script(asked)

    async with hosting(in_turn(answer)) as host:
        try:
            path = await downloader.download(host.url, tmp_path / "video.mp4")
        except DownloadError:
            assert not (tmp_path / "video.mp4").exists()
        else:
            assert path.read_bytes() in bodies.values()
