"""The pytest fixture ``veo3_server``: a `FakeVeo3` that runs on the test's event loop.

It works as it is under anyio's plugin (``@pytest.mark.anyio``) and under pytest-asyncio, strict or
auto, whatever the scope of the loop is, also with both of them in one run, but not for one test. A
marker sets the options: ``@pytest.mark.veo3_server(speed=50, rate_limit=20)``.
"""

from __future__ import annotations

import inspect
import types
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from veo3_async.testing import FakeVeo3

__all__ = ["pytest_configure", "veo3_server"]

_LOOP_SCOPES: Final = ("function", "class", "module", "package", "session")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, and the fixtures that pytest-asyncio runs, where it is there."""
    config.addinivalue_line(
        "markers", "veo3_server(**options): options of the server, see FakeVeo3"
    )
    if config.pluginmanager.hasplugin("asyncio"):
        config.pluginmanager.register(_asyncio_fixtures())


@pytest.fixture
def veo3_server(request: pytest.FixtureRequest) -> FakeVeo3:
    """Return a running `FakeVeo3`, with the options of the marker ``veo3_server``.

    Its speed is 1,000 where the marker says nothing: the documented life takes 0.33 s.
    """
    server: FakeVeo3 = request.getfixturevalue(_fixture_for(request))
    return server


def _fixture_for(request: pytest.FixtureRequest) -> str:
    """Return the fixture that runs on the loop on which the test does."""
    if not inspect.iscoroutinefunction(inspect.unwrap(request.function)):
        pytest.fail("veo3_server runs on the event loop of an async test", pytrace=False)
    marker = request.node.get_closest_marker("asyncio")
    if marker is not None and request.config.pluginmanager.hasplugin("asyncio"):
        if "anyio_backend" in request.fixturenames:
            pytest.fail(
                "pytest-asyncio and anyio's plugin both run this test: take one of the markers "
                "out, or put asyncio_mode = strict",
                pytrace=False,
            )
        scope = marker.kwargs.get("loop_scope") or marker.kwargs.get("scope")
        return f"_veo3_server_{scope or request.config.getini('asyncio_default_test_loop_scope')}"
    if "anyio_backend" not in request.fixturenames:
        pytest.fail(
            "no plugin runs this test: mark it with pytest.mark.anyio or pytest.mark.asyncio",
            pytrace=False,
        )
    backend = request.getfixturevalue("anyio_backend")
    if (backend if isinstance(backend, str) else backend[0]) != "asyncio":
        pytest.skip("veo3_async runs on asyncio")
    return "_veo3_server_anyio"


async def _served(request: pytest.FixtureRequest) -> AsyncIterator[FakeVeo3]:
    from veo3_async.testing import FakeVeo3  # noqa: PLC0415 - loads aiohttp

    marker = request.node.get_closest_marker("veo3_server")
    options = {"speed": 1000.0} | (marker.kwargs if marker is not None else {})
    async with FakeVeo3(**options) as server:
        yield server


_veo3_server_anyio = pytest.fixture(name="_veo3_server_anyio")(_served)


def _asyncio_fixtures() -> types.ModuleType:
    """Return a plugin with a fixture for each scope of pytest-asyncio's loops."""
    import pytest_asyncio  # noqa: PLC0415 - it is there

    plugin = types.ModuleType("veo3_async_asyncio")
    for scope in _LOOP_SCOPES:
        name = f"_veo3_server_{scope}"

        async def served(request: pytest.FixtureRequest) -> AsyncIterator[FakeVeo3]:
            async for server in _served(request):
                yield server

        setattr(plugin, name, pytest_asyncio.fixture(loop_scope=scope, name=name)(served))
    return plugin
