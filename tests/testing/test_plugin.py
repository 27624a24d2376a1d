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


def run_tests(tests: str, *plugins: str, cwd: Path, **ini: str) -> str:
    """Return what pytest says of these tests with these plugins, and no others."""
    (cwd / "test_users.py").write_text(tests)
    lines = [f"{name} = {value}" for name, value in ini.items()]
    (cwd / "pytest.ini").write_text("\n".join(["[pytest]", *lines]))
    loaded = ["no:veo3_async", "veo3_async.testing.plugin", "no:cacheprovider", *plugins]
    options = [word for plugin in loaded for word in ("-p", plugin)]
    done = run("-m", "pytest", "-q", "--strict-markers", "-W", "error", "-rs", *options, cwd=cwd)
    return done.stdout + done.stderr


def test_the_fixture_runs_under_anyios_plugin(tmp_path: Path) -> None:
    """A test gets a server that listens, and its marker sets the options."""
    assert "2 passed" in run_tests(TESTS, "no:asyncio", cwd=tmp_path)


CONNECT = """
import asyncio

import pytest
import pytest_asyncio

from veo3_async import Veo3Client


async def connect(server):
    async with Veo3Client(server.api_key, base_url=server.url) as veo:
        assert (await veo.fetch(server.add())).id
"""
ASYNCIO = """
@pytest.mark.asyncio
@pytest.mark.veo3_server(api_key="other")
async def test_asyncio(veo3_server):
    assert veo3_server.api_key == "other"
    await connect(veo3_server)


@pytest.mark.asyncio(loop_scope="module")
async def test_asyncio_of_a_module(veo3_server):
    await connect(veo3_server)


@pytest_asyncio.fixture
async def mine(veo3_server):
    await connect(veo3_server)
    yield veo3_server


@pytest.mark.asyncio
async def test_fixture_of_ones_own(mine):
    await connect(mine)
"""
ANYIO = """
@pytest.mark.anyio
async def test_anyio(veo3_server):
    await connect(veo3_server)
"""
AUTO = """
async def test_without_a_marker(veo3_server):
    await connect(veo3_server)
"""
SCOPES = {"asyncio_default_fixture_loop_scope": "function"}


def test_the_fixture_runs_under_pytest_asyncio(tmp_path: Path) -> None:
    """In strict mode and in auto mode, on a loop of any scope, and under one's own fixtures."""
    said = run_tests(CONNECT + ASYNCIO, "no:anyio", cwd=tmp_path, **SCOPES)
    assert "3 passed" in said, said
    said = run_tests(
        CONNECT + ASYNCIO + AUTO, "no:anyio", cwd=tmp_path, asyncio_mode="auto", **SCOPES
    )
    assert "4 passed" in said, said


def test_the_fixture_runs_under_both_with_trio_installed(tmp_path: Path) -> None:
    """Each test has its server on its own loop; on trio, where nothing of ours runs, it says so."""
    said = run_tests(CONNECT + ASYNCIO + ANYIO, cwd=tmp_path, **SCOPES)
    assert "4 passed, 1 skipped" in said, said
    assert "veo3_async runs on asyncio" in said


def test_a_test_that_two_plugins_run_is_told_so(tmp_path: Path) -> None:
    """pytest-asyncio in auto mode takes anyio's tests as well; that is said, and nothing hangs."""
    said = run_tests(CONNECT + ANYIO + AUTO, cwd=tmp_path, asyncio_mode="auto", **SCOPES)
    assert "1 passed, 2 errors" in said, said
    assert "asyncio_mode = strict" in said


def test_a_test_that_no_plugin_runs_is_told_so(tmp_path: Path) -> None:
    """A test without a loop fails at once, with what to do about it, instead of hanging."""
    said = run_tests("def test_sync(veo3_server): pass", cwd=tmp_path, **SCOPES)
    assert "veo3_server runs on the event loop of an async test" in said
    said = run_tests(AUTO, cwd=tmp_path, **SCOPES)
    assert "pytest.mark.anyio" in said


def test_the_plugin_does_not_load_aiohttp(tmp_path: Path) -> None:
    """Every run of pytest imports the plugin: it must be cheap."""
    code = "import sys, veo3_async.testing.plugin; sys.exit('aiohttp' in sys.modules)"
    assert run("-c", code, cwd=tmp_path).returncode == 0


def test_an_unknown_name_is_an_attribute_error(tmp_path: Path) -> None:
    """The lazy module refuses what it does not have."""
    code = "from veo3_async.testing import FakeVeo4"
    done = run("-c", code, cwd=tmp_path)
    assert "cannot import name 'FakeVeo4'" in done.stderr
