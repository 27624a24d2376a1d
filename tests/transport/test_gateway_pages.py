"""Pages of a gateway in front of the API, by a real nginx that loses its upstream."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import shutil
import tempfile
from collections.abc import AsyncIterator

import pytest
from broken_servers import unused_port

from veo3_async import FixedPacing, Phase, PollReport, Veo3Client
from veo3_async.testing import FakeVeo3, Life

pytestmark = [pytest.mark.anyio, pytest.mark.real_time, pytest.mark.slow, pytest.mark.timeout(300)]

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
PAGES = (
    "return 404;",
    "proxy_pass http://127.0.0.1:9;",  # its own 502
    "return 302 https://maintenance.invalid/;",
    'return 403 "error code: 1020";',
)
INTERVAL = 5.0
"""Seconds between two polls of an id."""
CONFIGURATION = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;
  fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{ listen 127.0.0.1:{port}; keepalive_requests 100000; location / {{ {rule} }} }}
}}
"""


class Gateway:
    """An nginx whose only rule is changed while it runs."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self.port = unused_port()
        self._process: asyncio.subprocess.Process | None = None

    async def obey(self, rule: str) -> None:
        """Serve by another rule from now on."""
        path = self._folder / "nginx.conf"
        text = CONFIGURATION.format(folder=self._folder, port=self.port, rule=rule)
        await asyncio.to_thread(path.write_text, text)
        assert NGINX is not None
        if self._process is not None:
            reload = await asyncio.create_subprocess_exec(
                NGINX, "-c", str(path), "-p", str(self._folder), "-s", "reload", stderr=-3
            )
            await reload.wait()
            return
        self._process = await asyncio.create_subprocess_exec(
            NGINX, "-c", str(path), "-p", str(self._folder), stderr=-3
        )
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return

    async def aclose(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            await self._process.wait()


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    if NGINX is None:
        pytest.skip("nginx is not installed")
    with tempfile.TemporaryDirectory() as folder:  # where nginx's own user may look, too
        gateway = Gateway(pathlib.Path(folder))
        try:
            yield gateway
        finally:
            await gateway.aclose()


async def test_faults_7_11_13_15_17_a_gateway_without_its_upstream_loses_nothing(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """500 ids, 60 s of pages: none ends, one warning, all there two intervals after it is over."""
    caplog.set_level(logging.WARNING, "veo3_async")
    states: set[str] = set()

    def note(report: PollReport) -> None:
        if report.error is None:
            states.add(report.request_id)

    async with FakeVeo3(record=False) as server:
        upstream = f"proxy_pass {server.url}; proxy_http_version 1.1;"
        running = Life.scripted([{"status": "video_generating", "running": False}])
        ids = [server.add(life=running) for _ in range(500)]
        await gateway.obey(upstream)
        async with Veo3Client(
            server.api_key,
            base_url=f"http://127.0.0.1:{gateway.port}",
            pacing=FixedPacing(INTERVAL),
            max_polls_per_second=400,
            on_poll=note,
        ) as veo:
            watch = veo.watch(*ids)
            for _ in ids:
                assert (await anext(watch)).phase is Phase.GENERATING
            for page in PAGES:
                await gateway.obey(page)
                await asyncio.sleep(60 / len(PAGES))
                assert len(watch) == len(ids)
            await gateway.obey(upstream)
            states.clear()
            await asyncio.sleep(2 * INTERVAL)
            assert len(states) == len(ids)
            assert len(watch) == len(ids)
            assert sum(veo.stats().failures.values()) > len(ids)
            await watch.aclose()
    said = [record for record in caplog.records if record.name == "veo3_async"]
    assert [record.levelname for record in said] == ["WARNING"]
