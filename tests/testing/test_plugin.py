"""The pytest plugin: a running server for each test that asks for one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

TESTS = """
import asyncio

import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def test_it_runs(veo3_server):
    port = int(veo3_server.url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()


@pytest.mark.veo3_server(speed=50, api_key="other")
async def test_it_takes_options(veo3_server):
    assert veo3_server.api_key == "other"
    begun = asyncio.get_running_loop().time()
    assert 6 < veo3_server.ends_at(veo3_server.add()) - begun < 7
"""


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # Installed, the plugin has an entry point; here it is loaded by name in either case.
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_fixture_runs_under_anyios_plugin(tmp_path: Path) -> None:
    """A test gets a server that listens, and its marker sets the options."""
    (tmp_path / "test_users.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    loaded = ("-p", "no:veo3_async", "-p", "veo3_async.testing.plugin", "-p", "no:cacheprovider")
    done = run("-m", "pytest", "-q", "--strict-markers", "-W", "error", *loaded, cwd=tmp_path)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_does_not_load_aiohttp(tmp_path: Path) -> None:
    """Every run of pytest imports the plugin: it must be cheap."""
    code = "import sys, veo3_async.testing.plugin; sys.exit('aiohttp' in sys.modules)"
    assert run("-c", code, cwd=tmp_path).returncode == 0


def test_an_unknown_name_is_an_attribute_error(tmp_path: Path) -> None:
    """The lazy module refuses what it does not have."""
    code = "from veo3_async.testing import FakeVeo4"
    done = run("-c", code, cwd=tmp_path)
    assert "cannot import name 'FakeVeo4'" in done.stderr
