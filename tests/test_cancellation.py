"""Cancelled on purpose: at every await, from every side, and by the end of the loop (fault 23).

After it there is no task, no open connection and no warning, and what else was going on goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pathlib
import signal
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import anyio
import pytest
from conftest import MakeClient

from veo3_async import ClientClosed, FixedPacing, Phase, StillPending, Veo3Client, Watch
from veo3_async._transport.transport import Transport
from veo3_async.testing import FakeVeo3, Life, Silence, Slow, Status

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]

DONE = {"status": "completed", "running": False, "video_url": "https://file.302.ai/a.mp4"}
RUNNING = {"status": "video_generating", "running": True}
QUICK = Life.scripted([RUNNING, DONE])
UNENDING = Life.scripted([RUNNING])

Scenario = Callable[[Veo3Client, str], Coroutine[Any, Any, object]]


class NotReachedError(Exception):
    """The coroutine had ended before the await at which it was to be cancelled."""


@types.coroutine
def cancelled_at(
    place: int, coroutine: Coroutine[Any, Any, object], *, late: bool
) -> Generator[Any, None, object]:
    """Run a coroutine and cancel its task at one of its awaits, counted from 0.

    :param late: When what it waits for is done already, and it does not know that yet.
    """
    task = asyncio.current_task()
    assert task is not None
    awaits = 0
    send, value = coroutine.send, None
    while True:
        try:
            future = send(value)
        except StopIteration as stop:
            if awaits <= place:
                raise NotReachedError from None
            return stop.value
        if awaits == place:
            if future is None or not late:
                task.cancel()
            else:
                blocking, future._asyncio_future_blocking = (
                    future._asyncio_future_blocking,
                    False,
                )
                future.add_done_callback(lambda _: task.cancel())
                future._asyncio_future_blocking = blocking
        awaits += 1
        try:
            value = yield future
            send = coroutine.send
        except BaseException as error:  # noqa: BLE001 - it goes where it belongs
            send, value = coroutine.throw, error


async def settled() -> None:
    """Give what was cancelled a moment to end, without letting a timer fire."""
    for _ in range(20):
        await asyncio.sleep(0)


async def iterate(veo: Veo3Client, request_id: str) -> object:
    return [change.phase async for change in veo.watch(request_id)]


async def iterate_in_context(veo: Veo3Client, request_id: str) -> object:
    async with veo.watch(request_id) as changes:
        return [change.phase async for change in changes]


async def wait(veo: Veo3Client, request_id: str) -> object:
    return await veo.wait(request_id, timeout=1000)


async def fetch(veo: Veo3Client, request_id: str) -> object:
    return await veo.fetch(request_id)


async def fetch_behind_a_queue(veo: Veo3Client, request_id: str) -> object:
    async with veo.watch(*(f"veo3-pro:{n}" for n in range(3)), request_id):
        return await veo.fetch(request_id)


async def close(veo: Veo3Client, request_id: str) -> None:
    watch = veo.watch(request_id)
    await anext(watch)
    await veo.aclose()


async def close_watch(veo: Veo3Client, request_id: str) -> None:
    watch = veo.watch(request_id)
    await anext(watch)
    await watch.aclose()


async def whole_context(veo: Veo3Client, request_id: str) -> object:
    async with veo:
        return await veo.wait(request_id)


SCENARIOS = (
    iterate,
    iterate_in_context,
    wait,
    fetch,
    fetch_behind_a_queue,
    close,
    close_watch,
    whole_context,
)


@pytest.mark.parametrize("late", [False, True], ids=["waiting", "just done"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
async def test_fault_23_cancelled_at_every_await(
    server: FakeVeo3, make_client: MakeClient, scenario: Scenario, late: bool
) -> None:
    """Wherever it is cancelled, the cancellation comes out and the client is as good as before."""
    places = 0
    with contextlib.suppress(NotReachedError):
        for place in range(1000):
            places = place
            await _cancel_once(server, make_client, scenario, place, late=late)
    assert places >= 1


async def _cancel_once(
    server: FakeVeo3, make_client: MakeClient, scenario: Scenario, place: int, *, late: bool
) -> None:
    veo, others = make_client(max_polls_per_second=5.0), make_client()
    request_id = server.add(life=QUICK)
    bystander = asyncio.create_task(iterate(others, server.add(life=QUICK)))
    victim = cancelled_at(place, scenario(veo, request_id), late=late)
    [end] = await asyncio.gather(asyncio.create_task(_run(victim)), return_exceptions=True)
    assert await bystander == [Phase.GENERATING, Phase.COMPLETED]
    gc.collect(1)  # the watch is in a circle with the traceback of its end
    await asyncio.sleep(5)  # what was on its way for others is back
    assert (veo.stats().watched, veo.stats().in_flight) == (0, 0)
    if "closed" not in repr(veo):
        assert (await veo.wait(request_id)).video_url
    await veo.aclose()
    await others.aclose()
    await settled()
    assert [t for t in asyncio.all_tasks() if t.get_name().startswith("veo3_async")] == []
    if isinstance(end, NotReachedError):
        raise end
    assert isinstance(end, asyncio.CancelledError)


async def _run(awaitable: Awaitable[object]) -> object:
    return await awaitable


@pytest.mark.parametrize("turns", range(0, 30, 2))
@pytest.mark.parametrize("silent", [False, True])
async def test_fault_23_closed_at_any_moment(
    server: FakeVeo3, make_client: MakeClient, turns: int, silent: bool
) -> None:
    """Whatever a client is doing, `aclose` raises in all who wait, and leaves no connection."""
    if silent:
        server.fault(Silence())
    veo = make_client()
    ids = [server.add(life=UNENDING) for _ in range(3)]
    waiting = [asyncio.create_task(work(veo, ids[0])) for work in (iterate, wait, fetch)]
    for _ in range(turns):
        await asyncio.sleep(0)
    await veo.aclose()
    done = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
    assert {type(end) for end in done[:2]} == {ClientClosed}
    assert isinstance(done[2], ClientClosed) or not silent
    await asyncio.sleep(1)
    assert (server.in_flight, server.open_connections) == (0, 0)
    received = server.received
    await asyncio.sleep(100)
    assert server.received == received


async def test_fault_23_a_cancelled_request_leaves_no_connection_in_use(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """The connection whose answer nobody waits for is closed, not kept for the next request."""
    request_id = server.add(life=UNENDING)
    server.fault(Slow(10), times=1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await veo.fetch(request_id)
    await asyncio.sleep(0.1)
    assert (server.in_flight, server.open_connections) == (0, 0)
    await veo.fetch(request_id)
    assert [r.connection for r in server.requests] == [1, 2]


async def test_fault_23_a_cancelled_fetch_gives_its_turn_back(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """Calls that are cancelled while they queue hold up nobody."""
    veo = make_client(max_connections=1)
    request_id = server.add(life=UNENDING)
    server.fault(Slow(30), times=1)
    first = asyncio.create_task(veo.fetch(request_id))
    await asyncio.sleep(1)
    queued = [asyncio.create_task(veo.fetch(request_id)) for _ in range(5)]
    await asyncio.sleep(1)
    for task in (first, *queued[:4]):
        task.cancel()
    assert (await queued[4]).status == "video_generating"
    assert (server.received, veo.stats().in_flight) == (2, 0)


@pytest.mark.parametrize("how", ["asyncio.timeout", "wait_for", "move_on_after", "own"])
async def test_fault_23_every_kind_of_timeout(server: FakeVeo3, veo: Veo3Client, how: str) -> None:
    """A timeout of the caller's choice ends the wait at its time, and leaves nothing watched."""
    request_id = server.add(life=UNENDING)
    began = asyncio.get_running_loop().time()
    if how == "move_on_after":
        with anyio.move_on_after(25) as scope:
            await veo.wait(request_id)
        assert scope.cancelled_caught
    else:
        with pytest.raises(TimeoutError) as caught:
            if how == "asyncio.timeout":
                async with asyncio.timeout(25):
                    await veo.wait(request_id)
            elif how == "wait_for":
                await asyncio.wait_for(veo.wait(request_id), 25)
            else:
                await veo.wait(request_id, timeout=25)
        assert isinstance(caught.value, StillPending) == (how == "own")
    assert asyncio.get_running_loop().time() - began == pytest.approx(25)
    await settled()
    assert veo.stats().watched == 0
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_fault_23_a_failing_sibling_cancels_the_watch(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """In a task group that fails, the watch ends with it, and the client goes on."""
    request_id = server.add(life=UNENDING)

    async def fail() -> None:
        await asyncio.sleep(10)
        raise KeyError

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(iterate(veo, request_id))
            group.create_task(fail())
    assert [type(e) for e in caught.value.exceptions] == [KeyError]
    gc.collect()
    await settled()
    assert veo.stats().watched == 0
    assert (await veo.fetch(request_id)).status == "video_generating"


async def test_fault_23_a_watch_in_a_cancelled_scope_ends_there(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """Leaving ``async with`` in a scope that is cancelled already neither hangs nor raises."""
    request_id = server.add(life=UNENDING)
    with anyio.CancelScope() as scope:
        async with veo.watch(request_id) as changes:
            await anext(changes)
            scope.cancel()
            await anext(changes)
    assert scope.cancelled_caught
    with anyio.CancelScope() as scope:
        scope.cancel()
        await veo.aclose()
    assert "closed" in repr(veo)


async def test_closing_twice_at_once(server: FakeVeo3, veo: Veo3Client) -> None:
    """Two tasks that close the same client both come back."""
    watch = veo.watch(server.add(life=UNENDING))
    await anext(watch)
    await asyncio.gather(veo.aclose(), veo.aclose(), veo.aclose())
    await veo.aclose()
    assert server.open_connections == 0


@pytest.mark.parametrize("how", ["cancelled", "closed again"])
async def test_fault_23_closing_is_complete_however_often_it_is_cancelled(
    server: FakeVeo3,
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    how: str,
) -> None:
    """Whoever cancels the closing waits until all is closed, and gets its cancellation then."""

    async def slow_aclose(transport: Transport) -> None:
        await asyncio.sleep(10)
        await aclose(transport)

    async def app() -> None:
        async with veo:
            async for _ in veo.watch(server.add(life=UNENDING)):
                pass

    aclose = Transport.aclose
    monkeypatch.setattr(Transport, "aclose", slow_aclose)
    veo = make_client(journal=tmp_path / "veo3.db")
    running = asyncio.create_task(app())
    others = []
    await asyncio.sleep(5)
    for _ in range(4):
        if how == "closed again" and running.cancelling():
            others.append(asyncio.create_task(veo.aclose()))  # cancels the polling once more
        else:
            running.cancel()
        await asyncio.sleep(1)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert veo.runtime._runner is not None
    assert veo.runtime._runner.done()
    assert server.open_connections == 0
    await asyncio.gather(*others)
    async with make_client(journal=tmp_path / "veo3.db") as another:
        assert len(await another.pending()) == 1


async def test_a_stopped_polling_does_not_swallow_a_cancellation(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """A call that is cancelled in the moment in which its turn is refused is cancelled."""
    veo = make_client(max_connections=1)
    request_id = server.add(life=UNENDING)
    server.fault(Silence())
    watch = veo.watch(request_id)
    await asyncio.sleep(1)
    queued = asyncio.create_task(veo.fetch(request_id))
    await settled()
    veo.runtime.started().dispatcher._stop()
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    await watch.aclose()


async def test_a_fetch_between_two_tries_ends_with_the_client(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """While it waits to ask again, closing ends it with `ClientClosed`."""
    server.fault(Status(500))
    task = asyncio.create_task(veo.fetch(server.add()))
    while not server.received:
        await asyncio.sleep(0)
    await settled()
    await veo.aclose()
    with pytest.raises(ClientClosed):
        await asyncio.wait_for(task, 10)


# --- ends of loops and processes -----------------------------------------------------------------


def test_fault_23_the_loop_is_shut_down_with_the_client_open() -> None:
    """``asyncio.run`` that ends while a client is open: watchers are cancelled, nothing is left."""
    raised: list[BaseException] = []
    kept: list[Veo3Client] = []

    async def watcher(watch: Watch) -> None:
        try:
            async for _ in watch:
                pass
        except BaseException as error:
            raised.append(error)
            raise

    async def main() -> None:
        async with FakeVeo3() as server:
            veo = Veo3Client("test-key", base_url=server.url, pacing=FixedPacing(0.01))
            kept.append(veo)
            task = asyncio.create_task(watcher(veo.watch(server.add(life=UNENDING))))
            while server.received < 3:
                await asyncio.sleep(0.01)
            assert not task.done()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())
        kept.clear()
        gc.collect()
    assert [type(error) for error in raised] == [asyncio.CancelledError]


def test_fault_23_the_loop_is_shut_down_as_the_polling_begins() -> None:
    """A loop that ends in the same breath in which an id is watched leaves no warning either."""
    kept: list[object] = []

    async def main() -> None:
        veo = Veo3Client("test-key", base_url="http://127.0.0.1:9")
        kept.extend((veo, veo.watch("veo3-pro:1")))

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        asyncio.run(main())
        kept.clear()
        gc.collect()
    assert [str(warning.message) for warning in said] == []


def test_a_forgotten_client_says_so() -> None:
    """One that is dropped while its loop runs warns, ends its polling, closes its connections."""

    async def main() -> None:
        async with FakeVeo3() as server:
            veo = Veo3Client("test-key", base_url=server.url)
            await veo.fetch(server.add())
            assert server.open_connections == 1
            with pytest.warns(ResourceWarning, match="never closed"):
                del veo
                gc.collect()
            while server.open_connections or polling():
                await asyncio.sleep(0.01)

    def polling() -> list[asyncio.Task[object]]:
        return [task for task in asyncio.all_tasks() if task.get_name() == "veo3_async"]

    asyncio.run(main())


def test_fault_31_another_loop_is_refused() -> None:
    """A client, and a watch, that belong to one loop raise in another, and hang in none."""
    veo = Veo3Client("test-key", base_url="http://127.0.0.1:9")
    watches: list[Watch] = []

    async def first() -> None:
        watches.append(veo.watch("veo3-pro:1"))
        await asyncio.sleep(0.01)

    async def second() -> None:
        for use in (veo.fetch, veo.wait):
            with pytest.raises(ClientClosed, match="another event loop"):
                await use("veo3-pro:1")
        with pytest.raises(ClientClosed, match="another event loop"):
            veo.watch("veo3-pro:1")
        with pytest.raises(ClientClosed):
            await anext(watches[0])
        with pytest.raises(ClientClosed, match="another event loop"):
            await veo.aclose()

    asyncio.run(first())
    asyncio.run(second())


@pytest.mark.real_time
async def test_fault_31_another_thread_is_refused(server: FakeVeo3, veo: Veo3Client) -> None:
    """While the first loop runs, a second one in a thread gets `ClientClosed` at once."""
    watch = veo.watch(server.add(life=UNENDING))

    async def elsewhere() -> list[str]:
        said = []
        uses: list[Callable[[], Awaitable[object]]] = [
            lambda: anext(watch),
            lambda: veo.fetch("veo3-pro:1"),
            veo.aclose,
        ]
        for use in uses:
            with pytest.raises(ClientClosed, match="another event loop") as caught:
                await use()
            said.append(str(caught.value))
        return said

    assert len(await asyncio.to_thread(asyncio.run, elsewhere())) == 3
    assert (await anext(watch)).phase is Phase.GENERATING
    await watch.aclose()


async def test_fault_31_used_after_close(veo: Veo3Client) -> None:
    """Everything says that the client was closed; closing again does not."""
    await veo.aclose()
    await veo.aclose()
    for use in (veo.fetch, veo.wait):
        with pytest.raises(ClientClosed, match="closed"):
            await use("veo3-pro:1")
    with pytest.raises(ClientClosed, match="closed"):
        veo.watch("veo3-pro:1")
    with pytest.raises(ClientClosed, match="closed"):
        async with veo:
            pass
    assert veo.stats().watched == 0


def test_watching_needs_a_running_loop() -> None:
    """Outside of one, `watch` says so at once, and the client can be used later."""
    veo = Veo3Client("test-key", base_url="http://127.0.0.1:9")
    with pytest.raises(RuntimeError, match="no running event loop"):
        veo.watch("veo3-pro:1")


FORK = """
import asyncio, os, sys
from veo3_async import *
from veo3_async.testing import FakeVeo3, Life

RUNNING = {"status": "video_generating", "running": True}

async def in_child(veo, watch):
    said = []
    other = "veo3-pro:1"
    for use in (lambda: veo.fetch(other), lambda: anext(watch), lambda: veo.wait(other)):
        try:
            await asyncio.wait_for(use(), 5)
        except ClientClosed as error:
            said.append(str(error))
    return said

async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is no matter here
    async with FakeVeo3(api_key="key") as server:
        async with Veo3Client("key", base_url=server.url, pacing=FixedPacing(0.05)) as veo:
            watch = veo.watch(server.add(life=Life.scripted([RUNNING])))
            await anext(watch)
            read, write = os.pipe()
            if (pid := os.fork()) == 0:
                asyncio._set_running_loop(None)
                said = asyncio.Runner().run(in_child(veo, watch))
                os.write(write, "; ".join(said).encode())
                os._exit(0)
            os.close(write)
            while os.waitpid(pid, os.WNOHANG) == (0, 0):
                await asyncio.sleep(0.05)
            print(os.read(read, 4096).decode())
            before = server.received
            await asyncio.sleep(0.3)
            print(server.received > before)

asyncio.run(main())
"""


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-X", "dev", "-W", "error", "-c", script],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_fault_31_after_a_fork() -> None:
    """The child gets a clear error for everything, and the parent's polling does not suffer."""
    done = run_script(FORK)
    assert done.stderr == ""
    said, goes_on = done.stdout.splitlines()
    assert said.count("fork") == 2
    assert said.count("another event loop") == 1
    assert goes_on == "True"


INTERRUPTED = """
import asyncio
from veo3_async import *
from veo3_async.testing import FakeVeo3, Life, Silence

RUNNING = {"status": "video_generating", "running": True}

async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is no matter here
    async with FakeVeo3(api_key="key") as server:
        silent = server.add(life=Life.scripted([RUNNING]))
        server.fault(Silence(), request_id=silent)
        async with Veo3Client("key", base_url=server.url, pacing=FixedPacing(0.05)) as veo:
            async for change in veo.watch(silent, server.add(life=Life.scripted([RUNNING]))):
                print("watching", flush=True)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_fault_23_control_c() -> None:
    """One Ctrl-C ends the process at once, with nothing on stderr: no task, no socket is left."""
    with subprocess.Popen(
        [sys.executable, "-P", "-X", "dev", "-W", "error", "-c", INTERRUPTED],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "watching\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (out, err, process.returncode) == ("interrupted\n", "", 0)


@pytest.fixture
async def many(server: FakeVeo3) -> list[str]:
    return [server.add(life=UNENDING) for _ in range(2000)]


async def test_closing_with_thousands_due_sends_nothing_more(
    server: FakeVeo3, make_client: MakeClient, many: list[str]
) -> None:
    """While 32 requests hang and 2,000 ids are due, closing is the end of the requests."""
    server.fault(Silence())
    veo = make_client(max_polls_per_second=10_000.0)
    watch = veo.watch(*many)
    await asyncio.sleep(1)
    assert server.in_flight == 32
    received = server.received
    began = time.monotonic()
    await veo.aclose()
    assert time.monotonic() - began < 10
    await asyncio.sleep(1)
    assert (server.received, server.in_flight) == (received, 0)
    with pytest.raises(ClientClosed):
        await anext(watch)
