"""The pytest fixture ``veo3_server``: a `FakeVeo3` that runs on the test's event loop.

With anyio's plugin (``@pytest.mark.anyio``) and with pytest-asyncio in auto mode it works as it
is. pytest-asyncio in strict mode takes only its own fixtures, so put into ``conftest.py``::

    @pytest_asyncio.fixture
    async def veo3_server():
        async with FakeVeo3(speed=1000) as server:
            yield server

A marker sets the options: ``@pytest.mark.veo3_server(speed=50, rate_limit=20)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from veo3_async.testing import FakeVeo3

__all__ = ["pytest_configure", "veo3_server"]


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "veo3_server(**options): options of the server, see FakeVeo3"
    )


@pytest.fixture
async def veo3_server(request: pytest.FixtureRequest) -> AsyncIterator[FakeVeo3]:
    """Yield a running `FakeVeo3`, with the options of the marker ``veo3_server``.

    Its speed is 1,000 where the marker says nothing: the documented life takes 0.33 s.
    """
    from veo3_async.testing import FakeVeo3  # noqa: PLC0415 - loads aiohttp

    marker = request.node.get_closest_marker("veo3_server")
    options = {"speed": 1000.0} | (marker.kwargs if marker is not None else {})
    async with FakeVeo3(**options) as server:
        yield server
