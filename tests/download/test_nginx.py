"""Downloads from a real nginx, the most common server of files there is."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pathlib
import random
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from veo3_async import DownloadError, Phase, Veo3Client
from veo3_async._download.downloader import Downloader

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.skipif(NGINX is None, reason="needs nginx"),
]

CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    log_format short '$status $uri "$http_range" "$http_if_range" "$http_authorization"';
    access_log {folder}/access.log short;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    limit_req_zone $http_authorization zone=key:1m rate=20r/s;
    types {{ video/mp4 mp4; text/html html; }}
    server {{
        listen 127.0.0.1:{port};
        root {folder}/files;
        location /slow/ {{ alias {folder}/files/; limit_rate_after 1m; limit_rate 100k; }}
        location /plain/ {{ alias {folder}/files/; etag off; max_ranges 0; }}
        location /302/submit/veo3-pro {{
            limit_req zone=key burst=2 nodelay;
            limit_req_status 429;
            alias {folder}/files/task.json;
        }}
        location /moved/ {{ return 302 /video.mp4; }}
    }}
}}
"""


class Nginx(msgspec.Struct):
    """A running nginx."""

    folder: pathlib.Path
    port: int

    def url(self, place: str = "") -> str:
        """Return the URL of the video, in a place with other rules."""
        return f"http://127.0.0.1:{self.port}/{place}video.mp4"

    @property
    def video(self) -> pathlib.Path:
        """The video that is served."""
        return self.folder / "files" / "video.mp4"

    def served(self, seed: int, size: int = 2_000_000) -> str:
        """Put another video into its place and return its digest."""
        head = b"\0\0\0\x10ftypisom\0\0\2\0" + b"\0\0\0\x08moov"
        body = random.Random(seed).randbytes(size)
        fresh = self.video.with_suffix(".new")
        fresh.write_bytes(head + struct.pack(">I4s", size + 8, b"mdat") + body)
        os.utime(fresh, (1_700_000_000 + seed, 1_700_000_000 + seed))
        fresh.replace(self.video)
        return digest(self.video)

    def log(self, lines: int) -> list[str]:
        """Return what was asked for, once so many requests have been logged."""
        while len(found := (self.folder / "access.log").read_text().splitlines()) < lines:
            time.sleep(0.01)
        return found


def digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    assert NGINX is not None
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)
    (folder / "files").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "conf").write_text(CONFIGURATION.format(folder=folder, port=port))
    user = ["-g", f"user {folder.owner()};"] if os.geteuid() == 0 else []
    command = [NGINX, "-p", str(folder), "-c", str(folder / "conf"), *user]
    process = subprocess.Popen(command)
    try:
        wait_for(port)
        yield Nginx(folder, port)
    finally:
        process.terminate()
        process.wait()


def wait_for(port: int) -> None:
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            return
    pytest.fail("nginx does not listen")


@pytest.fixture
def nginx(running: Nginx) -> Nginx:
    (running.folder / "access.log").write_text("")
    running.served(0)
    return running


@pytest.fixture
async def downloader() -> AsyncIterator[Downloader]:
    downloader = Downloader(allow_private=True)
    yield downloader
    await downloader.aclose()


async def break_off(downloader: Downloader, url: str, path: pathlib.Path) -> None:
    """Cancel a download as soon as the first MiB has come."""

    def progress(done: int, _total: int | None) -> None:
        if done > 1 << 20:
            call.cancel()

    call = asyncio.create_task(downloader.download(url, path, progress=progress))
    await asyncio.wait([call])
    assert call.cancelled()


async def test_whole_video_and_redirect(
    nginx: Nginx, downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """A video comes as it is, by a redirect too, and no key goes along."""
    first = await downloader.download(nginx.url(), tmp_path / "a.mp4")
    second = await downloader.download(nginx.url("moved/"), tmp_path / "b.mp4")
    assert {digest(nginx.video)} == {digest(first), digest(second)}
    plain = '"-" "-" "-"'
    lines = [f"200 /video.mp4 {plain}", f"302 /moved/video.mp4 {plain}", f"200 /video.mp4 {plain}"]
    assert lines == nginx.log(3)


async def test_range_and_if_range_behind_limit_rate(
    nginx: Nginx, downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """What a slow server has sent is kept, and the rest asked for by Range and If-Range."""
    for _ in range(3):
        await break_off(downloader, nginx.url("slow/"), tmp_path / "video.mp4")
    path = await downloader.download(nginx.url("slow/"), tmp_path / "video.mp4")
    assert digest(nginx.video) == digest(path)
    statuses = [line.split(" ")[0] for line in nginx.log(4)]
    assert ["200", "206", "206", "206"] == statuses


async def test_object_changed(nginx: Nginx, downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A video that was replaced meanwhile is fetched anew, by nginx's own judgement of If-Range."""
    await break_off(downloader, nginx.url("slow/"), tmp_path / "video.mp4")
    wanted = nginx.served(1, size=1 << 20)
    path = await downloader.download(nginx.url("slow/"), tmp_path / "video.mp4")
    assert wanted == digest(path)
    first, second = nginx.log(2)
    assert first.startswith('200 /slow/video.mp4 "-"')
    assert second.startswith('200 /slow/video.mp4 "bytes=')


async def test_416(nginx: Nginx, downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A Range behind the end is answered with 416, and the video comes out right all the same."""
    await break_off(downloader, nginx.url("slow/"), tmp_path / "video.mp4")
    record = tmp_path / "video.mp4.part.json"
    kept = msgspec.json.decode(record.read_bytes())
    size = nginx.video.stat().st_size
    record.write_bytes(
        msgspec.json.encode(kept | {"url": nginx.url(), "done": size, "total": None})
    )
    (tmp_path / "video.mp4.part").write_bytes(nginx.video.read_bytes())
    path = await downloader.download(nginx.url(), tmp_path / "video.mp4")
    assert digest(nginx.video) == digest(path)
    # nginx does not say which video the 416 is of, so that it ends here is not believed.
    asked = [line.split('" ')[0] for line in nginx.log(3)[1:]]
    assert [f'416 /video.mp4 "bytes={size}-', '200 /video.mp4 "-'] == asked


async def test_server_without_ranges_and_etag(
    nginx: Nginx, downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """Where only a date names the video and Range is ignored, the download begins again."""
    url = nginx.url("plain/")
    await break_off(downloader, nginx.url("slow/"), tmp_path / "video.mp4")
    record = tmp_path / "video.mp4.part.json"
    kept = msgspec.json.decode(record.read_bytes())
    date = "Tue, 14 Nov 2023 22:13:20 GMT"
    record.write_bytes(msgspec.json.encode(kept | {"url": url, "validator": date}))
    path = await downloader.download(url, tmp_path / "video.mp4")
    assert digest(nginx.video) == digest(path)
    assert nginx.log(2)[1].startswith('200 /plain/video.mp4 "bytes=')
    assert f'"{date}"' in nginx.log(2)[1]


async def test_missing_video(nginx: Nginx, downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A video that is gone is an error that says so."""
    nginx.video.unlink()
    with pytest.raises(DownloadError, match="HTTP 404 Not Found") as caught:
        await downloader.download(nginx.url(), tmp_path / "video.mp4")
    assert 404 == caught.value.http_status


async def test_fault_9_a_real_limit_of_requests_loses_no_task(running: Nginx) -> None:
    """Behind ``limit_req`` of 20 a second every id gets its video, whatever 429s it met."""
    done = json.loads(
        (pathlib.Path(__file__).parents[1] / "replies" / "completed.json").read_text()
    )
    del done["id"]  # it is the answer for all of them
    (running.folder / "files" / "task.json").write_text(json.dumps(done))
    ids = [f"veo3-pro:{number}" for number in range(60)]
    async with Veo3Client(
        "a-key-of-its-own", base_url=f"http://127.0.0.1:{running.port}", max_polls_per_second=100
    ) as veo:
        ends = {c.request_id: c.phase async for c in veo.watch(*ids) if c.final}
        stats = veo.stats()
    assert ends == dict.fromkeys(ids, Phase.COMPLETED)
    refused = 0
    while refused < stats.failures["throttled"]:  # a line is written after its reply
        refused = sum(line.startswith("429 /302/") for line in running.log(stats.polls))
        await asyncio.sleep(0.01)
    assert 0 < refused == stats.failures["throttled"]
