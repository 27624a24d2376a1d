"""The face of the library: what a client is made with, its single calls, and its lifetime."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeClient

from veo3_async import (
    AuthenticationError,
    BackoffPacing,
    ClientClosed,
    FixedPacing,
    InvalidRequest,
    Pacing,
    Phase,
    PollReport,
    QuotaExceeded,
    ServiceUnavailable,
    TaskFailed,
    TaskNotFound,
    UnexpectedReply,
    Veo3Client,
    Veo3Error,
    VideoTask,
)
from veo3_async._protocol import families
from veo3_async._protocol.families import Route, read
from veo3_async._protocol.http import Reply
from veo3_async._transport.transport import Transport
from veo3_async.testing import Body, FakeVeo3, Fault, HangUp, Life, Slow, Status, Video

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]

REPLIES = Path(__file__).parent / "replies"
RUNNING = {"status": "video_generating", "running": True}
DONE = {"status": "completed", "running": False, "video_url": "https://file.302.ai/a.mp4"}
QUICK = Life.scripted([RUNNING, DONE])
UNENDING = Life.scripted([RUNNING])


# --- how it is made ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"api_key": 7}, AuthenticationError, "int"),
        ({"base_url": "api.302.ai"}, ValueError, "base_url"),
        ({"base_url": "ftp://api.302.ai"}, ValueError, "base_url"),
        ({"base_url": "https://user@api.302.ai"}, ValueError, "user"),
        ({"base_url": "https://api.302.ai?a=b"}, ValueError, "query"),
        ({"base_url": 7}, ValueError, "base_url"),
        ({"model": "../x"}, InvalidRequest, "model"),
        ({"model": ""}, InvalidRequest, "model"),
        ({"pacing": 10}, TypeError, "Pacing"),
        ({"max_polls_per_second": 0}, ValueError, "max_polls_per_second"),
        ({"max_polls_per_second": float("nan")}, ValueError, "max_polls_per_second"),
        ({"max_polls_per_second": "20"}, TypeError, "max_polls_per_second"),
        ({"max_connections": 0}, ValueError, "max_connections"),
        ({"max_connections": 0.5}, TypeError, "max_connections"),
        ({"max_connections": float("inf")}, TypeError, "max_connections"),
        ({"max_connections": True}, TypeError, "max_connections"),
        ({"request_timeout": -1}, ValueError, "request_timeout"),
        ({"request_timeout": None}, TypeError, "request_timeout"),
        ({"on_poll": 7}, TypeError, "on_poll"),
    ],
    ids=str,
)
def test_bad_options_are_named(options: dict[str, Any], error: type[Exception], said: str) -> None:
    """A wrong argument is refused at once, with the name of what is wrong."""
    with pytest.raises(error, match=said):
        Veo3Client(**{"api_key": "test-key"} | options)


def test_a_hook_that_is_awaited_is_refused() -> None:
    """``on_poll`` is called, so a coroutine function is a mistake."""

    async def hook(report: PollReport) -> None:
        """Never run."""

    with pytest.raises(TypeError, match="plain function"):
        Veo3Client("test-key", on_poll=hook)


@pytest.mark.parametrize(
    ("environment", "given", "used"),
    [
        ({"AI302_API_KEY": "first", "AI302_KEY": "second"}, None, "first"),
        ({"AI302_KEY": "second"}, None, "second"),
        ({"AI302_API_KEY": "first"}, "given", "given"),
    ],
)
async def test_where_the_key_comes_from(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], given: str | None, used: str
) -> None:
    """The argument, else ``AI302_API_KEY``, else ``AI302_KEY``."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    async with FakeVeo3(api_key=used) as server, Veo3Client(given, base_url=server.url) as veo:
        assert (await veo.fetch(server.add())).status == "pending"


async def test_the_base_url_may_come_from_the_environment(
    server: FakeVeo3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``AI302_BASE_URL`` is used where none is given; a slash at its end does no harm."""
    monkeypatch.setenv("AI302_BASE_URL", server.url + "/")
    async with Veo3Client("test-key") as veo:
        assert (await veo.fetch(server.add())).status == "pending"
    assert server.requests[0].path == "/302/submit/veo3-pro"


@pytest.mark.parametrize(
    ("model", "request_id", "asked"),
    [
        ("veo3-pro", "veo3-pro:1", "veo3-pro"),
        ("veo3-pro", "veo3-fast:1", "veo3-fast"),
        ("veo3-fast", "1", "veo3-fast"),
        ("veo3-pro", "veo9:1", "veo3-pro"),
    ],
)
async def test_an_id_is_asked_for_under_its_model(
    server: FakeVeo3, make_client: MakeClient, model: str, request_id: str, asked: str
) -> None:
    """The model that an id names is its path; the client's is for those that name none."""
    server.add(request_id, QUICK)
    await make_client(model=model).fetch(request_id)
    assert server.requests[0].path == f"/302/submit/{asked}"


# --- wait and fetch ----------------------------------------------------------------------------


async def test_the_documented_reply_is_decoded_in_full(server: FakeVeo3, veo: Veo3Client) -> None:
    """Every field of the page's example arrives over HTTP, Chinese prompt and media id included."""
    request_id = "veo3-pro:68935cd4-58f5-49ce-878e-40b785dd33b8"
    server.add(request_id, Life.scripted([(REPLIES / "completed.json").read_bytes()]))
    task = await veo.wait(request_id)
    assert task == await veo.fetch(request_id)
    assert task.req is not None
    assert "骑" in task.req.prompt or any(ord(c) > 0x4E00 for c in task.req.prompt)
    assert task.images[0].media_id
    assert (task.extra, task.req.extra, task.images[0].extra) == ({}, {}, {})
    assert task.best_url == task.upsample_video_url != task.video_url


async def test_wait_returns_the_finished_task(server: FakeVeo3, veo: Veo3Client) -> None:
    """The task that the final transition carries is what `wait` returns."""
    task = await veo.wait(server.add())
    assert (task.status, task.running) == ("completed", False)
    assert task.best_url == task.upsample_video_url


async def test_wait_until_any_video(server: FakeVeo3, veo: Veo3Client) -> None:
    """With ``until="video"`` it returns with the first video, before the upsampling ends."""
    task = await veo.wait(server.add(), until="video")
    assert task.status == "video_generation_completed"
    assert (task.video_url is not None, task.upsample_video_url) == (True, None)


async def test_wait_raises_what_ended_the_task(server: FakeVeo3, veo: Veo3Client) -> None:
    """A failed task and an unknown id are raised, with what is known of them."""
    failing = server.add(life=Life.failing())
    with pytest.raises(TaskFailed) as failed:
        await veo.wait(failing)
    assert failed.value.task is not None
    assert (failed.value.request_id, failed.value.task.status) == (failing, "failed")
    with pytest.raises(TaskNotFound) as unknown:
        await veo.wait("veo3-pro:unknown")
    assert (unknown.value.http_status, unknown.value.err_code) == (404, -10010)
    assert unknown.value.attempts > 1
    assert unknown.value.elapsed == pytest.approx(30, abs=1)


@pytest.mark.parametrize("until", ["", "plain", None])
async def test_until_is_one_of_two(veo: Veo3Client, until: Any) -> None:
    """Another word is refused at once."""
    with pytest.raises(ValueError, match="until"):
        veo.watch("veo3-pro:1", until=until)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), datetime.timedelta(0)])
async def test_a_timeout_is_above_zero(veo: Veo3Client, timeout: Any) -> None:
    """A time that is none is refused at once; for ever is None."""
    with pytest.raises(ValueError, match="timeout"):
        veo.watch("veo3-pro:1", timeout=timeout)


@pytest.mark.parametrize(
    ("options", "error"),
    [({"until": "plain"}, ValueError), ({"timeout": 0}, ValueError), ({"timeout": "1"}, TypeError)],
    ids=str,
)
async def test_waiting_and_resuming_refuse_what_watching_refuses(
    make_client: MakeClient, tmp_path: Path, options: Any, error: type[Exception]
) -> None:
    """Whoever watches, a word or a time that is none is refused with the same error."""
    veo = make_client(journal=tmp_path / "veo3.db")
    with pytest.raises(error):
        veo.watch("veo3-pro:1", **options)
    with pytest.raises(error):
        await veo.wait("veo3-pro:1", **options)
    with pytest.raises(error):
        await veo.resume(**options)


@pytest.mark.parametrize(("source", "path"), [(7, "."), ("https://file.302.ai/a.mp4", 7)])
async def test_a_download_is_of_a_task_or_a_url_to_a_path(
    veo: Veo3Client, source: Any, path: Any
) -> None:
    """Anything else is a `TypeError`."""
    with pytest.raises(TypeError):
        await veo.download(source, path)


async def test_a_download_raises_what_the_service_says_of_a_task_whose_url_expired(
    server: FakeVeo3, veo: Veo3Client, tmp_path: Path
) -> None:
    """Asked for a fresh URL, it may not know the task any more."""
    task = VideoTask(id="veo3-pro:gone", video_url=server.serve("a.mp4", Video(size=1000)))
    server.fault(Status(403), on="file")
    with pytest.raises(TaskNotFound):
        await veo.download(task, tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_an_id_is_text(veo: Veo3Client) -> None:
    """An id of another type is a `TypeError` that names the type."""
    with pytest.raises(TypeError, match="int"):
        veo.watch(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="list"):
        await veo.fetch(["veo3-pro:1"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fault", [Status(500), HangUp(), Body.html(), Status(503)], ids=lambda value: repr(value)[:40]
)
async def test_fetch_tries_four_times(server: FakeVeo3, veo: Veo3Client, fault: Fault) -> None:
    """Three faults are passed over; the fourth is raised, with the count."""
    request_id = server.add()
    server.fault(fault, times=3)
    assert (await veo.fetch(request_id)).status
    assert server.received == 4
    server.fault(fault, times=4)
    with pytest.raises((ServiceUnavailable, UnexpectedReply)) as caught:
        await veo.fetch(request_id)
    assert (server.received, caught.value.attempts) == (8, 4)
    assert caught.value.request_id == request_id


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Status(404), TaskNotFound),
        (Status(400), InvalidRequest),
        (Status(401), AuthenticationError),
        (Status(402), QuotaExceeded),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_fetch_does_not_repeat_what_is_certain(
    server: FakeVeo3, veo: Veo3Client, fault: Fault, error: type[Veo3Error]
) -> None:
    """One look is one request where the answer would not change."""
    server.fault(fault)
    with pytest.raises(error):
        await veo.fetch("veo3-pro:1")
    assert server.received == 1


async def test_fault_31_a_fetch_that_waits_for_its_next_try_ends_with_the_close(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """The pause after a fault, up to 4 s, is cut short."""
    server.fault(Status(500))
    fetching = asyncio.create_task(veo.fetch(server.add()))
    while not veo.stats().failures:
        await asyncio.sleep(0)
    await settled()
    await veo.aclose()
    await settled()
    assert isinstance(fetching.done() and fetching.exception(), ClientClosed)
    await asyncio.wait([fetching])


async def settled() -> None:
    """Let everything run that waits for nothing; no time passes."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_refused_fetch_is_no_matter_of_the_watchers(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """An error of a single call is raised to its caller, and polling goes on."""
    request_id = server.add()
    watch = veo.watch(request_id)
    await anext(watch)
    server.fault(Status(401), times=1, request_id="veo3-pro:another")
    with pytest.raises(AuthenticationError):
        await veo.fetch("veo3-pro:another")
    assert [c.phase async for c in watch][-1] is Phase.COMPLETED


async def test_single_calls_go_before_what_is_due(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """A look at one id does not wait behind a thousand that are due."""
    veo = make_client(max_polls_per_second=10.0)
    ids = [server.add(life=UNENDING) for _ in range(1000)]
    async with veo.watch(*ids):
        await asyncio.sleep(5)
        began = asyncio.get_running_loop().time()
        await veo.fetch(ids[-1])
        assert asyncio.get_running_loop().time() - began <= 0.2


async def test_a_short_request_timeout_bounds_every_part(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """``request_timeout`` below the connect and the read timeout takes their place."""
    reports: list[PollReport] = []
    veo = make_client(request_timeout=datetime.timedelta(seconds=3), on_poll=reports.append)
    request_id = server.add(life=QUICK)
    server.fault(Slow(5), times=2)
    await veo.wait(request_id)
    assert [r.duration for r in reports if r.error] == [pytest.approx(3, abs=0.1)] * 2


# --- its lifetime ------------------------------------------------------------------------------


async def test_it_starts_with_the_first_use_and_connects_with_the_first_request(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """Made and entered it costs the server nothing; it may be ended without having been used."""
    async with veo as entered:
        assert entered is veo
        await asyncio.sleep(100)
    assert server.connections == 0
    await Veo3Client("test-key").aclose()


async def test_it_may_be_opened_and_closed_in_different_tasks(server: FakeVeo3) -> None:
    """A bot makes it in one handler and closes it in another."""
    veo = Veo3Client("test-key", base_url=server.url)
    assert (await asyncio.create_task(veo.fetch(server.add()))).status
    await asyncio.create_task(veo.aclose())
    with pytest.raises(ClientClosed):
        await veo.fetch("veo3-pro:1")


async def test_connections_are_closed_with_it(server: FakeVeo3, veo: Veo3Client) -> None:
    """After `aclose` the server has no connection of it left."""
    ids = [server.add(life=UNENDING) for _ in range(5)]
    async with veo.watch(*ids):
        await asyncio.sleep(10)
    await veo.aclose()
    await asyncio.sleep(1)
    assert server.open_connections == 0


async def test_what_cannot_be_closed_keeps_nothing_else_open(
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """A part that raises is logged, `aclose` returns, and the journal is free for the next one."""

    async def broken(_: object) -> None:
        raise LookupError

    with monkeypatch.context() as patch:
        patch.setattr(Transport, "aclose", broken)
        veo = make_client(journal=tmp_path / "veo3.db")
        async with veo:
            await veo.pending()
    assert [r.levelname for r in caplog.records if r.name == "veo3_async"] == ["ERROR"]
    async with make_client(journal=tmp_path / "veo3.db") as another:
        assert await another.pending() == []


async def test_an_error_in_its_context_comes_out_alone(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """What is raised in ``async with`` is what is raised: no group, no context of ours."""
    with pytest.raises(KeyError) as caught:
        async with make_client() as veo:
            veo.watch(server.add())
            raise KeyError
    assert caught.value.__context__ is None


async def test_the_pacings_of_the_library_are_pacings(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """Each of them brings a life to its end."""
    for pacing in (None, FixedPacing(5), BackoffPacing(1, 20)):
        assert pacing is None or isinstance(pacing, Pacing)
        task = await make_client(pacing=pacing).wait(server.add(life=Life.plain()))
        assert task.video_url


async def test_clients_do_not_share_anything(server: FakeVeo3, make_client: MakeClient) -> None:
    """Closing one, or a refused key of one, does not touch another."""
    request_id = server.add()
    good, bad, closed = make_client(), make_client(api_key="refused"), make_client()
    watch = good.watch(request_id)
    closed.watch(request_id)
    with pytest.raises(AuthenticationError):
        await bad.wait(request_id)
    await closed.aclose()
    assert [c.phase async for c in watch][-1] is Phase.COMPLETED


async def test_a_bug_met_in_a_reply_leaves_no_permit_behind(
    server: FakeVeo3, veo: Veo3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a reply does to us is raised, and the probe that it answered is over."""
    request_id = server.add()
    server.fault(Status(503, retry_after=1), times=1)

    def broken(route: Route, reply: Reply, **options: Any) -> object:
        if reply.status == 200:
            raise LookupError
        return read(route, reply, **options)

    with monkeypatch.context() as patch:
        patch.setattr(families, "read", broken)
        with pytest.raises(LookupError):
            await veo.fetch(request_id)
    async with asyncio.timeout(60):
        assert (await veo.fetch(request_id)).id == request_id
