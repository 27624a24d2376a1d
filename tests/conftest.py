"""What every test gets: virtual time, no blocking calls on the loop, a server and a client.

``VEO3_TEST_LOOP=eager`` runs all of them with eager tasks (Python 3.12 or later), and
``VEO3_TEST_LOOP=uvloop`` on uvloop. ``VEO3_TEST_SYSTEM=without-posix`` takes from the package what
only POSIX has, and leaves out the tests that are marked ``posix``.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ClassVar

import blockbuster
import coverage
import hypothesis
import pytest
import uvloop
from virtual_time import (
    VirtualTimeSelectorLoop,
    VirtualTimeUvloop,
    WallClock,
    threads_stop_the_clock,
)
from without_posix import take_posix_away
from xdist.scheduler import LoadScopeScheduling

# The tests start hundreds of interpreters, whose start is half as long where code is compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

WITHOUT_POSIX = os.environ.get("VEO3_TEST_SYSTEM") == "without-posix"
if WITHOUT_POSIX:
    take_posix_away("veo3_async")

from veo3_async import FixedPacing, Veo3Client  # noqa: E402 - without POSIX, from the beginning
from veo3_async.testing import FakeVeo3  # noqa: E402 - the same

# A shared machine is now and then slow for seconds: no example is too slow here.
hypothesis.settings.register_profile(
    "veo3_async",
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("veo3_async")

MakeClient = Callable[..., Veo3Client]

LONG = ("slow", "timeout")
"""Markers of what takes long: those of the first take longest."""
TOGETHER = ("tests/test_cookbook_telegram.py", "tests/lifecycle/test_server_clocks.py")
"""Files of which one process runs all tests: they share imports, or figures, that take seconds."""


def pytest_configure(config: pytest.Config) -> None:
    """Make our markers known, and the loop that was asked for the one that all things run on."""
    config.addinivalue_line("markers", "real_time: the loop's clock is the machine's own")
    config.addinivalue_line("markers", "posix: about what only POSIX has")
    asyncio.set_event_loop_policy(POLICIES[LOOP]())


def pytest_unconfigure() -> None:
    """Keep what was measured: a worker of xdist that takes 10 s to end is killed."""
    if (measured := coverage.Coverage.current()) is not None:
        measured.save()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Let ``-n auto`` run what is more than a few files side by side: most of it waits."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None
    if config.args and all(".py" in argument for argument in config.args):
        return 0
    return 4 + max(2, len(os.sched_getaffinity(0)))


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives the next test to whoever has time, and a file of those above as if it were one test."""

    def _split_scope(self, nodeid: str) -> str:
        path, _, _ = nodeid.partition("::")
        return path if path in TOGETHER else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest, so that the end does not wait for one of them."""
    if WITHOUT_POSIX:
        items[:] = [item for item in items if item.get_closest_marker("posix") is None]
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in LONG])


def pytest_collection_finish() -> None:
    """Let no collection of garbage look through thousands of tests that are to come."""
    gc.collect()
    gc.freeze()


# --- the loops --------------------------------------------------------------------------------

LOOP = os.environ.get("VEO3_TEST_LOOP", "selector")


class EagerPolicy(asyncio.DefaultEventLoopPolicy):
    """asyncio's own loops, whose tasks begin to run while they are made."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return eager(super().new_event_loop())


def eager(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]  # since 3.12
    return loop


POLICIES: dict[str, Callable[[], asyncio.AbstractEventLoopPolicy]] = {
    "selector": asyncio.DefaultEventLoopPolicy,
    "eager": EagerPolicy,
    "uvloop": uvloop.EventLoopPolicy,
}
VIRTUAL_TIME: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "selector": VirtualTimeSelectorLoop,
    "eager": lambda: eager(VirtualTimeSelectorLoop()),
    "uvloop": VirtualTimeUvloop,
}


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run asynchronous tests in virtual time, but for those that are marked ``real_time``."""
    if request.node.get_closest_marker("real_time") is not None:
        return "asyncio", {}
    return "asyncio", {"loop_factory": VIRTUAL_TIME[LOOP]}


class _Blocked(blockbuster.BlockingError):
    """A blocking call on the loop; noted, for the library may take it for a fault and go on."""

    noted: ClassVar[list[str]] = []

    def __init__(self, func: str) -> None:
        super().__init__(func)
        self.noted.append(func)


@pytest.fixture(scope="session", autouse=True)
def _watch_for_blocking_calls() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, blockbuster.blockbuster_ctx("veo3_async") as calls:
        patch.setattr(blockbuster.blockbuster, "BlockingError", _Blocked)
        # Where log records go to is the app's choice; here it is a file of pytest's.
        for name in ("io.TextIOWrapper.write", "io.BufferedWriter.write"):
            calls.functions[name].can_block_in("logging/__init__.py", "emit")
        _let_coverage_lock(calls.functions["threading.Lock.acquire"])
        yield


def _let_coverage_lock(acquire: blockbuster.BlockBusterFunction) -> None:
    """Let the tracer of one thread wait for another's: no frame shows that the lock is its own."""
    can_block = acquire.can_block_predicate

    def coverage_or(lock: object, *args: Any, **options: Any) -> bool:
        measured = coverage.Coverage.current()
        collector = None if measured is None else measured._collector
        of_coverage = collector is not None and lock is collector.data_lock
        return of_coverage or can_block(lock, *args, **options)

    acquire.deactivate()
    acquire.can_block_predicate = coverage_or
    acquire.activate()


@pytest.fixture(autouse=True)
def blocking_calls() -> Iterator[list[str]]:
    """Fail a test in which the library makes a blocking call on the event loop."""
    _Blocked.noted.clear()
    yield _Blocked.noted
    assert _Blocked.noted == []


@pytest.fixture(scope="session", autouse=True)
def _threads_stop_the_clock() -> Iterator[None]:
    with threads_stop_the_clock():
        yield


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """Hear what a shell lets those ignore that it runs in the background, and all they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AI302_API_KEY", "AI302_KEY", "AI302_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def wall_clock(
    anyio_backend: object,  # noqa: ARG001 - the clock belongs to its loop
    monkeypatch: pytest.MonkeyPatch,
) -> WallClock:
    """Replace ``time.time`` by a clock that runs with the loop's and can be set."""
    clock = WallClock()
    monkeypatch.setattr(time, "time", clock.time)
    return clock


@pytest.fixture
async def server(anyio_backend: object) -> AsyncIterator[FakeVeo3]:  # noqa: ARG001 - runs in it
    """Yield a running fake of the service at its real speed: virtual time makes it quick."""
    async with FakeVeo3() as server:
        yield server


@pytest.fixture
async def make_client(server: FakeVeo3) -> AsyncIterator[MakeClient]:
    """Yield a function that makes clients of the server, with any option; they are closed."""
    clients = []

    def make(**options: Any) -> Veo3Client:
        options = {"base_url": server.url, "pacing": FixedPacing(2.0, jitter=0.0), **options}
        clients.append(Veo3Client(options.pop("api_key", server.api_key), **options))
        return clients[-1]

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
async def veo(make_client: MakeClient) -> Veo3Client:
    """Return a client of the server that polls every 2 s."""
    return make_client()


@pytest.fixture
async def no_task_left(anyio_backend: object) -> AsyncIterator[None]:  # noqa: ARG001 - of its loop
    """Check that no task outlives a test and its fixtures; to be asked for by ``usefixtures``."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before
    assert {task for task in left if "TestRunner" not in repr(task.get_coro())} == set()
