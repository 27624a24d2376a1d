"""Fault 32: the key is in the ``Authorization`` of requests to the API's host, and nowhere else.

A canary is looked for in whatever the library prints, raises, pickles, logs or writes. It reaches
the client through the environment, so that no frame of a test holds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import logging
import pickle
import sys
import traceback
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from veo3_async import FixedPacing, PollReport, Progress, Veo3Client, Veo3Error
from veo3_async.testing import (
    Body,
    Cut,
    FakeVeo3,
    Fault,
    HangUp,
    Life,
    Redirect,
    Silence,
    Slow,
    Status,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]

CANARY = "sk-canary-7f3a9c51d2e84b06"
ECHO = f"your key {CANARY} is Bearer {CANARY}"

DONE = {"status": "completed", "running": False, "video_url": "https://file.302.ai/a.mp4"}
RUNNING = {"status": "video_generating", "running": True}

FAULTS: tuple[Fault, ...] = (
    Status(401),
    Status(402),
    Status(404),
    Status(500),
    Body(f'{{"error":{{"err_code":-10001,"message":"{ECHO}"}}}}'.encode(), 401),
    Body(f'{{"error":{{"err_code":-10011,"message":"{ECHO}"}}}}'.encode(), 400),
    Body(f'{{"error":"{ECHO}"}}'.encode()),
    Body(f"<html>{ECHO}</html>".encode(), 418, "text/html"),
    Body(f"{ECHO}".encode() * 100_000),
    Body(b'{"status":"failed","running":false,"video_generation_error":"%s"}' % ECHO.encode()),
    Body(b'{"status":"%s","%s":{"%s":["%s"]}}' % ((ECHO.encode(),) * 4)),
    Redirect(f"http://127.0.0.1:9/?key={CANARY}"),
    HangUp(),
    HangUp(reset=True),
    Cut("chunked"),
    Silence(),
)


@pytest.fixture
async def server(anyio_backend: object) -> AsyncIterator[FakeVeo3]:  # noqa: ARG001 - runs in it
    async with FakeVeo3(api_key=CANARY) as server:
        yield server


@pytest.fixture
def reports() -> list[PollReport]:
    return []


@pytest.fixture
async def veo(
    server: FakeVeo3, monkeypatch: pytest.MonkeyPatch, reports: list[PollReport]
) -> AsyncIterator[Veo3Client]:
    monkeypatch.setenv("AI302_API_KEY", CANARY)
    pacing = FixedPacing(2.0)
    async with Veo3Client(base_url=server.url, pacing=pacing, on_poll=reports.append) as veo:
        yield veo


@pytest.fixture(autouse=True)
def _nothing_printed_or_logged(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
        gc.collect()
    printed = capfd.readouterr()
    records = [(r.getMessage(), vars(r), r.exc_text) for r in caplog.records]
    assert CANARY not in caplog.text + repr(records)
    assert CANARY not in printed.out + printed.err
    assert CANARY not in "".join(str(warning.message) for warning in said)


def check(*values: object) -> None:
    """Look for the canary in what values show of themselves, three public attributes deep."""
    for value in values:
        for shown in shown_by(value, depth=3):
            assert CANARY not in shown


def shown_by(value: object, *, depth: int) -> Iterator[str]:
    yield from (repr(value), str(value), f"{value}")
    with contextlib.suppress(TypeError, AttributeError, pickle.PicklingError):
        yield pickle.dumps(value).decode("latin-1")
    if isinstance(value, BaseException):
        yield from all_told_by(value)
        yield repr(vars(value)) + repr(value.args)
    if depth == 0 or isinstance(value, str | bytes | int | float | type | None):
        return
    names = [name for name in dir(value) if not name.startswith("_")]
    for name in names:
        attribute = getattr(value, name, None)
        if not callable(attribute):
            yield from shown_by(attribute, depth=depth - 1)


def all_told_by(error: BaseException) -> Iterator[str]:
    """Yield the traceback with the locals of every frame, causes, contexts and groups included."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    yield "".join(shown.format(chain=True))
    for other in (error.__cause__, error.__context__):
        if other is not None:
            yield from all_told_by(other)


async def outcome_of(work: Callable[[], Any]) -> object:
    try:
        return await work()
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - all are looked at
        return error


async def changes_of(veo: Veo3Client, request_id: str) -> object:
    return [change async for change in veo.watch(request_id, timeout=300)]


@pytest.mark.parametrize(
    "fault", FAULTS, ids=[f"{n} {type(f).__name__}" for n, f in enumerate(FAULTS)]
)
async def test_fault_32_errors_do_not_have_the_key(
    server: FakeVeo3, veo: Veo3Client, reports: list[PollReport], fault: Fault
) -> None:
    """Whatever goes wrong, also where the server echoes the key, no error has it."""
    asyncio.get_running_loop().set_debug(enabled=True)
    request_id = server.add(life=Life.scripted([RUNNING, DONE]))
    server.fault(fault)
    fetched = await outcome_of(lambda: veo.fetch(request_id))
    waited = await outcome_of(lambda: veo.wait(request_id, timeout=300))
    changes = await outcome_of(lambda: changes_of(veo, request_id))
    check(fetched, waited, changes, *reports, veo, veo.stats())
    if isinstance(changes, list):
        check(*changes)
    assert reports


async def test_fault_32_nothing_that_a_task_brings_has_the_key(
    server: FakeVeo3, veo: Veo3Client, reports: list[PollReport]
) -> None:
    """From submission to download, with everything that a caller can reach on the way."""
    watch = veo.watch(server.add(life=Life.retrying()))
    async for change in watch:
        check(change, watch, veo, veo.stats())
    check(*reports)
    assert {r.headers["Authorization"] for r in server.requests} == {f"Bearer {CANARY}"}
    assert CANARY not in repr(server.requests) + repr(server)


@pytest.mark.parametrize("how", ["cancel", "timeout", "wait_for", "close"])
@pytest.mark.parametrize(
    "fault", [Silence(), Silence(after_headers=True), Slow(50)], ids=lambda value: repr(value)[:40]
)
async def test_fault_32_a_request_that_is_cut_short_does_not_have_the_key(
    server: FakeVeo3, veo: Veo3Client, how: str, fault: Fault
) -> None:
    """A cancellation or a timeout in the middle of a request has no frame with the key in it."""
    request_id = server.add()
    server.fault(fault)

    async def timed() -> None:
        async with asyncio.timeout(1):
            await veo.fetch(request_id)

    if how == "timeout":
        end = await outcome_of(timed)
    elif how == "wait_for":
        end = await outcome_of(lambda: asyncio.wait_for(veo.fetch(request_id), 1))
    else:
        task = asyncio.create_task(veo.fetch(request_id))
        await asyncio.sleep(1)
        await veo.aclose() if how == "close" else task.cancel()
        end = await outcome_of(lambda: task)
    assert isinstance(end, BaseException)
    check(end)


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "nonsense"},
        {"base_url": "https://user:password@api.302.ai"},
        {"model": "../.."},
        {"pacing": 7},
        {"max_polls_per_second": -1},
        {"max_connections": 0},
        {"request_timeout": "soon"},
        {"on_poll": 7},
    ],
    ids=str,
)
@pytest.mark.parametrize("given", [True, False])
def test_fault_32_a_bad_argument_does_not_show_the_good_key(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], given: bool
) -> None:
    """The frames of the constructor do not hold the key, given or found."""
    monkeypatch.setenv("AI302_API_KEY", CANARY)
    with pytest.raises((Veo3Error, ValueError, TypeError)) as caught:
        if given:
            Veo3Client(CANARY, **options)
        else:
            Veo3Client(**options)
    check(caught.value)


@pytest.mark.parametrize("tail", ["\n", " ", "\0", "é"])
@pytest.mark.parametrize("given", [True, False])
def test_fault_32_a_bad_key_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, tail: str, given: bool
) -> None:
    """A key that is refused for its form is in no message and no frame."""
    if "\0" in tail and not given:
        pytest.skip("the environment holds no NUL")
    if not given:
        monkeypatch.setenv("AI302_KEY", CANARY + tail)
    with pytest.raises(Veo3Error) as caught:
        Veo3Client(CANARY + tail) if given else Veo3Client()
    check(caught.value)


async def test_fault_32_a_client_is_not_pickled_or_copied(
    server: FakeVeo3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a new client nor one in use can be pickled with the key in it."""
    monkeypatch.setenv("AI302_API_KEY", CANARY)
    veo = Veo3Client(base_url=server.url)
    for _ in range(2):
        for part in (veo, veo.runtime, vars(veo.runtime)):
            with pytest.raises(TypeError):
                pickle.dumps(part)
            with pytest.raises(TypeError):
                copy.deepcopy(part)
        assert CANARY not in repr(vars(veo)) + repr(vars(veo.runtime))
        await veo.fetch(server.add())
    await veo.aclose()


async def test_fault_32_the_error_of_a_broken_pacing_does_not_have_the_key(
    server: FakeVeo3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of the caller's that ends the polling is logged and raised without the key."""
    monkeypatch.setenv("AI302_API_KEY", CANARY)

    class Broken(FixedPacing):
        def delay(self, progress: Progress, rand: float) -> float:
            raise LookupError(progress, rand)

    def hook(report: PollReport) -> None:
        raise LookupError(report)

    async with Veo3Client(base_url=server.url, pacing=Broken(), on_poll=hook) as veo:
        end = await outcome_of(lambda: veo.wait(server.add()))
    assert isinstance(end, LookupError)
    check(end)


async def test_fault_32_the_warning_of_a_forgotten_client_does_not_have_the_key(
    server: FakeVeo3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warning about a client that was never closed shows its state, not its key."""
    monkeypatch.setenv("AI302_API_KEY", CANARY)
    veo = Veo3Client(base_url=server.url)
    await veo.fetch(server.add())
    del veo
    gc.collect()
    await asyncio.sleep(1)


async def test_fault_32_other_hosts_do_not_get_the_key(
    server: FakeVeo3, veo: Veo3Client, tmp_path: Path
) -> None:
    """A redirect is not followed, and a download is keyless, from our own host, too."""
    async with FakeVeo3() as other:
        server.fault(Redirect(f"{other.url}/302/submit/veo3-pro"), times=1)
        with pytest.raises(Veo3Error):
            await veo.fetch("veo3-pro:1")
        assert other.connections == 0
    task = await veo.wait(server.add())
    await veo.download(task, tmp_path / "a.mp4")
    files = [r for r in server.requests if r.where == "file"]
    assert files
    assert not any("Authorization" in r.headers for r in files)
    assert not any(CANARY in repr(dict(r.headers)) for r in files)


async def test_fault_32_the_journal_does_not_have_it(
    server: FakeVeo3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not a byte of the key is on the disk, also when the server echoes it into a result."""
    monkeypatch.setenv("AI302_API_KEY", CANARY)
    echo = {"status": "failed", "status_update_time": 1767600240, "video_generation_error": ECHO}
    async with Veo3Client(base_url=server.url, journal=tmp_path / "veo3.db") as veo:
        await veo.submit("a lighthouse")
        for life in (Life.scripted([DONE | {"error_message": ECHO}]), Life.scripted([echo])):
            async for _ in veo.watch(server.add(life=life)):
                on_disk = [p.read_bytes() for p in tmp_path.iterdir()]
    on_disk += [p.read_bytes() for p in tmp_path.iterdir()]
    assert any(on_disk)
    assert not any(CANARY.encode() in content for content in on_disk)


async def test_the_canary_is_found_where_it_is(server: FakeVeo3) -> None:
    """The search would find it: aiohttp's own errors hold it in their frames."""
    headers = {"Authorization": f"Bearer {CANARY}"}
    server.fault(Redirect("http://[::1"))
    async with aiohttp.ClientSession() as session:
        try:
            await session.get(f"{server.url}/302/submit/veo3-pro?request_id=1", headers=headers)
        except aiohttp.ClientError as error:
            del headers
            with pytest.raises(AssertionError):
                check(error)
        else:
            pytest.fail("aiohttp followed it")
    assert sys.exc_info() == (None, None, None)
