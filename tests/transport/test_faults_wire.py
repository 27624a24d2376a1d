"""The faults that come over the wire, each through a client that watches: what it does about them.

The numbers are those of the list of faults; "back to the schedule" means that the id stays watched
and its video is found in the end.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import datetime
import email.utils
import os
import socket
import ssl
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import aiohttp.abc
import pytest
import trustme
from broken_servers import black_hole, http, request_head, serving
from conftest import MakeClient
from virtual_time import VirtualTimeLoop, WallClock

from veo3_async import (
    AuthenticationError,
    CompletedWithoutVideo,
    FixedPacing,
    InvalidRequest,
    Phase,
    PollReport,
    QuotaExceeded,
    ServiceUnavailable,
    TaskFailed,
    TaskNotFound,
    Transition,
    UnexpectedReply,
    Veo3Client,
    Veo3Error,
    VideoTask,
    Watch,
)
from veo3_async.testing import (
    Body,
    Cut,
    Drip,
    FakeVeo3,
    Fault,
    HangUp,
    Life,
    Redirect,
    Silence,
    Status,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]

URL = "https://file.302.ai/a.mp4"
RUNNING = {"status": "video_generating", "running": True}
DONE = {"status": "completed", "running": False, "video_url": URL}
UNENDING = Life.scripted([RUNNING])
QUICK = Life.scripted([RUNNING, DONE])


def now() -> float:
    return asyncio.get_running_loop().time()


def jumping_loop() -> VirtualTimeLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop


async def collected(watch: Watch) -> list[Transition]:
    return [change async for change in watch]


async def every(seconds: float, times: int) -> AsyncIterator[int]:
    for turn in range(times):
        await asyncio.sleep(seconds)
        yield turn


def most_in_a_second(moments: list[float]) -> int:
    """Return the most moments that lie in any window of one second."""
    return max(
        bisect.bisect_left(moments, moment + 1.0) - place for place, moment in enumerate(moments)
    )


@contextlib.contextmanager
def without_debug() -> Iterator[None]:
    """Leave out asyncio's debug mode, which makes thousands of polls five times slower."""
    loop = asyncio.get_running_loop()
    debug = loop.get_debug()
    loop.set_debug(enabled=False)
    yield
    loop.set_debug(debug)


@pytest.fixture
def reports() -> list[PollReport]:
    return []


@pytest.fixture
async def veo(make_client: MakeClient, reports: list[PollReport]) -> Veo3Client:
    return make_client(on_poll=reports.append)


def kinds(reports: list[PollReport]) -> set[str]:
    return {type(report.error).__name__ for report in reports if report.error is not None}


# --- connections -----------------------------------------------------------------------------


async def test_fault_01_refused(
    server: FakeVeo3, veo: Veo3Client, reports: list[PollReport]
) -> None:
    """While nobody listens the ids wait; when somebody does again, all are found."""
    ids = [server.add(life=QUICK) for _ in range(20)]
    await server.stop()
    watch = veo.watch(*ids)
    await asyncio.sleep(300)
    assert kinds(reports) == {"ServiceUnavailable"}
    await server.start()
    assert {c.request_id for c in await collected(watch) if c.phase is Phase.COMPLETED} == set(ids)
    assert veo.stats().failures.keys() == {"connect"}


@pytest.mark.parametrize("on", ["connect", "poll"])
async def test_fault_01_a_third_is_reset(server: FakeVeo3, veo: Veo3Client, on: Any) -> None:
    """30 % of the connections or of the requests are reset: no id is lost."""
    ids = [server.add(life=Life.scripted([RUNNING] * 5 + [DONE])) for _ in range(40)]
    server.fault(HangUp(reset=True), on=on, rate=0.3)
    server.fault(HangUp(), rate=0.1)
    ends = [c for c in await collected(veo.watch(*ids)) if c.final]
    assert [e.phase for e in ends] == [Phase.COMPLETED] * 40
    assert veo.stats().failures["reset"] > 20


async def test_fault_02_a_connect_black_hole(
    make_client: MakeClient, server: FakeVeo3, reports: list[PollReport]
) -> None:
    """A connect that nobody answers fails after 10 s, again and again; others are not touched."""
    with black_hole() as port:
        stuck = make_client(base_url=f"http://127.0.0.1:{port}", on_poll=reports.append)
        watch = stuck.watch("veo3-pro:1", "veo3-pro:2")
        task = await make_client().wait(server.add(life=QUICK))
        assert task.video_url == URL
        await asyncio.sleep(100)
        assert (stuck.stats().watched, len(watch)) == (2, 2)
        await watch.aclose()
    assert kinds(reports) == {"ServiceUnavailable"}
    assert len(reports) >= 6
    assert all(report.duration == pytest.approx(10, abs=1) for report in reports)


@pytest.mark.parametrize("after_headers", [False, True])
async def test_fault_03_silence(
    server: FakeVeo3, veo: Veo3Client, reports: list[PollReport], after_headers: bool
) -> None:
    """Accepted and never answered, or headers and no more: 20 s, and back to the schedule."""
    request_id = server.add(life=QUICK)
    server.fault(Silence(after_headers=after_headers), times=3)
    assert (await veo.wait(request_id)).video_url == URL
    silent = [r.duration for r in reports if r.error is not None]
    assert silent == [pytest.approx(20, abs=1)] * 3
    assert veo.stats().failures == {"timeout": 3}


async def test_fault_03_silence_of_one_id_holds_up_no_other(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """While one request hangs the others are polled as ever."""
    silent, other = server.add(life=UNENDING), server.add(life=UNENDING)
    server.fault(Silence(), request_id=silent)
    async with veo.watch(silent, other):
        await asyncio.sleep(61)
    assert len(server.polls_of(other)) == 31


async def test_fault_04_a_byte_a_second(
    server: FakeVeo3, veo: Veo3Client, reports: list[PollReport]
) -> None:
    """A reply that drips never falls silent: the total of 30 s ends it."""
    request_id = server.add(life=QUICK)
    server.fault(Drip(interval=1.0), times=2)
    assert (await veo.wait(request_id)).video_url == URL
    assert [r.duration for r in reports if r.error] == [pytest.approx(30, abs=1)] * 2
    assert veo.stats().failures == {"timeout": 2}


async def test_fault_05_hung_up_on(
    server: FakeVeo3, make_client: MakeClient, reports: list[PollReport]
) -> None:
    """Every reused connection is hung up: each call is one physical request, within the rate."""
    veo = make_client(on_poll=reports.append, max_polls_per_second=5.0)
    server.fault(HangUp(reused_only=True))
    ids = [server.add(life=Life.scripted([RUNNING] * 3 + [DONE])) for _ in range(30)]
    ends = [c for c in await collected(veo.watch(*ids)) if c.final]
    assert [e.phase for e in ends] == [Phase.COMPLETED] * 30
    assert server.received == len(reports) == veo.stats().polls
    assert kinds(reports) == {"ServiceUnavailable"}
    assert most_in_a_second([r.at for r in server.requests]) <= 5 + 1


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("at", [0, 1, 20, 60])
async def test_fault_06_a_body_that_is_cut(
    server: FakeVeo3, veo: Veo3Client, framing: Any, at: int
) -> None:
    """What came of a cut body is never a result, however its end was to be known."""
    request_id = server.add(life=Life.scripted([DONE]))
    server.fault(Cut(framing, at=at), times=3)
    watch = veo.watch(request_id)
    changes = await collected(watch)
    assert [c.phase for c in changes] == [Phase.COMPLETED]
    assert len(server.polls_of(request_id)) == 4
    assert sum(veo.stats().failures.values()) == 3


# --- what the gateway says ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        *(Status(code) for code in (408, 409, 425, 429, 500, 502, 503, 504, 599)),
        *(Status(200, err_code=code) for code in (-10003, -10008, -1024)),
        *(Status(500, err_code=code) for code in (-10003, -10008, -1024)),
        Body.html(),
        Body.html(502),
        Body.empty(),
        Body.empty(503),
        Body(b'{"error":"upstream trouble"}'),
        Body(b'{"error":{}}', 500),
    ],
    ids=lambda fault: (
        f"{fault.code} {getattr(fault, 'err_code', len(getattr(fault, 'content', '')))}"
    ),
)
async def test_fault_07_what_passes_by_itself(
    server: FakeVeo3, veo: Veo3Client, fault: Fault
) -> None:
    """A passing trouble costs polls, and neither the id nor the others."""
    request_id, other = server.add(life=QUICK), server.add(life=QUICK)
    server.fault(fault, request_id=request_id, times=5)
    changes = await collected(veo.watch(request_id, other))
    assert [c.phase for c in changes if c.request_id == request_id] == [
        Phase.GENERATING,
        Phase.COMPLETED,
    ]
    assert len(server.polls_of(request_id)) == 7
    assert len(server.polls_of(other)) == 2


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("how", ["seconds", "date"])
async def test_fault_08_retry_after_pauses_everybody(
    server: FakeVeo3, veo: Veo3Client, wall_clock: WallClock, code: int, how: str
) -> None:
    """One 429 with a hint stops the polls of all ids for that long; one request goes first."""
    ids = [server.add(life=UNENDING) for _ in range(12)]
    async with veo.watch(*ids):
        await asyncio.sleep(10)
        at = datetime.datetime.fromtimestamp(wall_clock.time() + 40, datetime.UTC)
        hint = 40 if how == "seconds" else email.utils.format_datetime(at, usegmt=True)
        server.fault(Status(code, retry_after=hint), times=1)
        await asyncio.sleep(3)
        refused_at, polls = now(), server.received
        await asyncio.sleep(35)
        assert server.received == polls
        assert veo.stats().throttle_reason in {"throttled", "overloaded"}
        await asyncio.sleep(60)
    later = [r.at for r in server.requests[polls:]]
    assert 36 <= later[0] - refused_at <= 43
    assert most_in_a_second(later) <= 21
    assert {r.request_id for r in server.requests[polls:]} == set(ids)


@pytest.mark.parametrize(
    "hint", ["NaN", "inf", "-5", "soon", "1e9", "", "Thu, 01 Jan 1970 00:00:00 GMT", "٣"]
)
async def test_fault_08_a_hint_that_is_none_is_ignored(
    server: FakeVeo3, veo: Veo3Client, hint: str
) -> None:
    """Nonsense in ``Retry-After`` pauses nobody."""
    request_id, other = server.add(life=QUICK), server.add(life=UNENDING)
    server.fault(Status(429, retry_after=hint.encode().decode("latin-1")), times=1)
    began = now()
    async with veo.watch(other):
        await veo.wait(request_id)
    assert now() - began < 15


async def test_fault_08_the_longest_pause_is_two_minutes(server: FakeVeo3, veo: Veo3Client) -> None:
    """A server that asks for a day gets 120 s."""
    request_id = server.add(life=QUICK)
    server.fault(Status(429, retry_after=86400), times=1)
    began = now()
    await veo.wait(request_id)
    assert 120 <= now() - began <= 130


async def test_fault_09_a_throttle_without_a_hint_cuts_the_rate(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """429 cuts the rate for all; with success it grows back to the maximum."""
    veo = make_client(pacing=FixedPacing(1.0), max_polls_per_second=20.0)
    ids = [server.add(life=UNENDING) for _ in range(25)]
    with without_debug():
        async with veo.watch(*ids):
            await asyncio.sleep(5)
            assert (veo.stats().rate, veo.stats().throttle_reason) == (20.0, None)
            server.fault(Status(429), times=1)
            seen = [veo.stats() async for _ in every(0.1, 20)]
            await asyncio.sleep(60)
            healed = veo.stats()
    cut = min(seen, key=lambda stats: stats.rate)
    assert 4 < cut.rate < 16
    assert (cut.throttle_reason, cut.watched) == ("throttled", 25)
    assert (healed.rate, healed.throttle_reason) == (20.0, None)
    assert 1 < healed.throttled_seconds < 60


async def test_fault_09_a_steady_limit_is_kept(make_client: MakeClient) -> None:
    """Under a limit that nobody tells, nearly all requests are served, and every id is polled."""
    with without_debug():
        async with FakeVeo3(rate_limit=5) as server:
            veo = make_client(base_url=server.url, pacing=FixedPacing(1.0))
            ids = [server.add(life=UNENDING) for _ in range(20)]
            async with veo.watch(*ids):
                await asyncio.sleep(200)
            refused = veo.stats().failures["throttled"]
            assert refused < server.received / 10
            assert {r.request_id for r in server.requests} == set(ids)


@pytest.mark.timeout(180)  # thousands of real requests, on a machine that may be busy
async def test_fault_10_ten_minutes_of_503(make_client: MakeClient) -> None:
    """With 5,000 ids: under the budget, memory flat, no herd afterwards, every id is found."""
    with without_debug():
        async with FakeVeo3() as server:
            veo = make_client(base_url=server.url, max_polls_per_second=100.0)
            ids = [server.add(life=Life.scripted([DONE])) for _ in range(5000)]
            server.fault(Status(503))
            watch = veo.watch(*ids)
            await asyncio.sleep(60)
            tracemalloc.start()
            try:
                before, _ = tracemalloc.get_traced_memory()
                await asyncio.sleep(540)
                after, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            during = server.received
            assert (veo.stats().watched, veo.stats().transitions) == (5000, 0)
            assert during < 600 * 100
            assert after - before < 2_000_000
            server.heal()
            ends = [c async for c in watch if c.final]
    assert {end.request_id for end in ends if end.phase is Phase.COMPLETED} == set(ids)
    assert most_in_a_second([r.at for r in server.requests[during:]]) <= 100 + 10


@pytest.mark.parametrize(
    "body",
    [
        Body.html(),
        Body.empty(),
        Body(b"null"),
        Body(b"[]"),
        Body(b"[1]" * 3),
        Body(b"\xff\xfe{}"),
        Body(b'{"status": "\xff"}'),
        Body(b"[" * 200_000),
        Body(b'{"a":' * 200_000),
        Body.huge(3_000_000),
        Body.gzip_bomb(),
        Body(b"{}"),
        Body(b"42"),
    ],
    ids=lambda body: repr(body.content[:12]),
)
async def test_fault_11_a_reply_that_is_none(server: FakeVeo3, veo: Veo3Client, body: Body) -> None:
    """Nonsense under 200: back to the schedule, and `UnexpectedReply` after 20 in a row."""
    passing, for_good = server.add(life=QUICK), server.add(life=QUICK)
    server.fault(body, request_id=passing, times=19)
    server.fault(body, request_id=for_good)
    ends = {c.request_id: c for c in await collected(veo.watch(passing, for_good)) if c.final}
    assert ends[passing].phase is Phase.COMPLETED
    error = ends[for_good].error
    assert isinstance(error, UnexpectedReply)
    assert (error.attempts, error.http_status, error.request_id) == (20, 200, for_good)
    assert len(server.polls_of(for_good)) == 20
    if 0 < len(body.content) < 100_000 and body.encoding is None:
        assert error.body == body.content.decode(errors="replace")[:2048]


async def test_fault_11_memory_is_flat_under_a_gzip_bomb(server: FakeVeo3, veo: Veo3Client) -> None:
    """64 MB behind 64 kB: what is kept of it at any moment is a few MiB at most."""
    request_id = server.add(life=QUICK)
    server.fault(Body.gzip_bomb(64_000_000), times=3)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await veo.wait(request_id)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 10_000_000


async def test_fault_42_a_reply_may_name_another_id(server: FakeVeo3, veo: Veo3Client) -> None:
    """Gateways have ids of their own: the reply to this poll is the answer."""
    server.add("veo3-pro:swapped", Life.scripted([RUNNING, DONE | {"id": "video_68935cd4"}]))
    change = [c async for c in veo.watch("veo3-pro:swapped")][-1]
    assert (change.phase, change.task.id) == (Phase.COMPLETED, "video_68935cd4")
    assert veo.stats().failures == {}


@pytest.mark.parametrize(
    ("end", "error", "seconds"),
    [
        ({"status": "failed", "status_update_time": 1767600240}, TaskFailed, 4),
        ({"status": "completed", "running": False}, CompletedWithoutVideo, 64),
        ({"status": "cancelled", "running": False}, TaskFailed, 64),
    ],
    ids=lambda value: value.get("status") if isinstance(value, dict) else "",
)
async def test_an_end_by_the_service_tells_of_its_polls(
    server: FakeVeo3, veo: Veo3Client, end: dict[str, Any], error: type[Veo3Error], seconds: float
) -> None:
    """How many there were, how long it took, and the status of the reply that said it."""
    request_id = server.add(life=Life.scripted([RUNNING, RUNNING, end]))
    with pytest.raises(error) as caught:
        await veo.wait(request_id)
    told = caught.value
    assert (told.http_status, told.attempts) == (200, len(server.polls_of(request_id)))
    assert told.elapsed == pytest.approx(seconds, abs=1)


async def test_fault_12_what_is_new_is_kept(server: FakeVeo3, veo: Veo3Client) -> None:
    """An unknown status comes out as UNKNOWN, unknown fields stay, and it goes on."""
    new = {"status": "video_dreaming", "running": True, "mood": {"calm": [1, None]}}
    request_id = server.add(life=Life.scripted([RUNNING, new, DONE | {"priority": 7}]))
    one, two, three = await collected(veo.watch(request_id))
    assert (one.phase, two.phase, three.phase) == (
        Phase.GENERATING,
        Phase.UNKNOWN,
        Phase.COMPLETED,
    )
    assert (two.status, two.task.extra) == ("video_dreaming", {"mood": {"calm": [1, None]}})
    assert three.task.extra == {"priority": 7}


@pytest.mark.parametrize(
    "refusal",
    [Status(404), Status(410), Status(404, err_code=-10010), Status(200, err_code=-10010)],
)
async def test_fault_13_an_unknown_id_is_given_half_a_minute(
    server: FakeVeo3, veo: Veo3Client, refusal: Status
) -> None:
    """Not known for 30 s since the first poll: `TaskNotFound`; known in time: as if nothing was."""
    lost, late = server.add(life=QUICK), server.add(life=QUICK)
    server.fault(refusal)
    began = now()
    watch = veo.watch(lost, late)
    await asyncio.sleep(25)
    server.heal()
    server.fault(refusal, request_id=lost)
    changes = await collected(watch)
    ends = {c.request_id: c for c in changes if c.final}
    assert ends[late].phase is Phase.COMPLETED
    assert (ends[lost].phase, ends[lost].previous) == (Phase.LOST, None)
    assert isinstance(ends[lost].error, TaskNotFound)
    assert server.polls_of(lost)[-1].at - began == pytest.approx(30, abs=1)


@pytest.mark.parametrize(
    "refusal",
    [Status(400), Status(422), Status(400, err_code=-10011), Status(200, err_code=-10009)],
)
async def test_fault_14_a_refused_id_is_final(
    server: FakeVeo3, veo: Veo3Client, refusal: Status
) -> None:
    """The service calls the request invalid: that id ends at once, and no other."""
    bad, good = server.add(life=QUICK), server.add(life=QUICK)
    server.fault(refusal, request_id=bad)
    ends = {c.request_id: c for c in await collected(veo.watch(bad, good)) if c.final}
    assert (ends[bad].phase, type(ends[bad].error)) == (Phase.FAILED, InvalidRequest)
    assert ends[good].phase is Phase.COMPLETED
    assert len(server.polls_of(bad)) == 1


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        *((Status(code), AuthenticationError) for code in (401, 403)),
        *((Status(400, err_code=c), AuthenticationError) for c in (-10001, -10002, -10005)),
        (Status(402), QuotaExceeded),
        *(
            (Status(200, err_code=c), QuotaExceeded)
            for c in (-10004, -10006, -10007, -10012, -10018)
        ),
    ],
    ids=lambda value: f"{value.code} {value.err_code}" if isinstance(value, Status) else "",
)
async def test_fault_15_and_16_a_refused_key_stops_all(
    server: FakeVeo3, veo: Veo3Client, refusal: Status, error: type[Veo3Error]
) -> None:
    """Every watcher is told at once and polling stops: not 5,000 requests with a refused key."""
    server.fault(refusal)
    ids = [server.add(life=QUICK) for _ in range(5000)]
    watches = [veo.watch(*ids), veo.watch(*ids[:10]), veo.watch(keep_open=True)]
    done = await asyncio.gather(*map(collected, watches), return_exceptions=True)
    assert [type(e) for e in done] == [error] * 3
    assert all(isinstance(e, Veo3Error) and e.http_status == refusal.code for e in done)
    await asyncio.sleep(60)
    assert server.received <= 4
    assert veo.stats().watched == 0
    server.heal()
    assert (await veo.wait(ids[0])).video_url == URL  # the ids stay what they were: pending


# --- where it goes to ----------------------------------------------------------------------------


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308, 300, 304])
async def test_fault_17_a_redirect(server: FakeVeo3, veo: Veo3Client, code: int) -> None:
    """It is not followed, the other host hears nothing, and it is `UnexpectedReply`."""
    request_id = server.add(life=QUICK)
    async with FakeVeo3() as other:
        server.fault(Redirect(f"{other.url}/302/submit/veo3-pro?request_id=1", code))
        *_, end = await collected(veo.watch(request_id))
        assert other.connections == 0
    assert isinstance(end.error, UnexpectedReply)
    assert end.error.http_status == code
    assert server.received == 20


@pytest.mark.parametrize(
    "page",
    [
        *(Body.html(code) for code in (200, 400, 401, 402, 403, 404, 503)),
        Body(b'{"status":"error","message":"upstream timeout"}'),
    ],
    ids=lambda page: f"{page.code} {len(getattr(page, 'content', ''))}",
)
async def test_faults_11_14_15_a_page_before_the_api_ends_nothing(
    server: FakeVeo3, veo: Veo3Client, page: Fault
) -> None:
    """Maintenance, a firewall, a load balancer: it is not the API that speaks, and it passes."""
    ids = [server.add(life=QUICK) for _ in range(20)]
    watch = veo.watch(*ids)
    await asyncio.sleep(1)
    server.fault(page)
    await asyncio.sleep(20)
    server.heal()
    ends = [c for c in await collected(watch) if c.final]
    assert [c.phase for c in ends] == [Phase.COMPLETED] * 20


@contextlib.asynccontextmanager
async def tls_server(context: ssl.SSLContext) -> AsyncIterator[tuple[int, list[list[str]]]]:
    heads: list[list[str]] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await request_head(reader))
        writer.write(
            http(b'{"status":"completed","running":false,"video_url":"%s"}' % URL.encode())
        )
        await writer.drain()

    async with serving(handler, ssl=context) as port:
        yield port, heads


def certificate(authority: trustme.CA, fault: str) -> ssl.SSLContext:
    """Return the context of a server whose certificate has a fault."""
    host = "another.example" if fault == "wrong host" else "127.0.0.1"
    year = datetime.timedelta(days=365)
    ended = datetime.datetime.now(datetime.UTC) - year if fault == "expired" else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host, not_after=ended).configure_cert(context)
    return context


@pytest.mark.parametrize("fault", ["unknown authority", "expired", "wrong host"])
async def test_fault_18_a_certificate_that_proves_nothing(
    make_client: MakeClient, fault: str
) -> None:
    """Every watcher is told at once and clearly, and the key was not sent."""
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    if fault != "unknown authority":
        authority.configure_trust(trusting)
    async with (
        tls_server(certificate(authority, fault)) as (port, heads),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session,
    ):
        veo = make_client(base_url=f"https://127.0.0.1:{port}", session=session)
        watches = [veo.watch("veo3-pro:1"), veo.watch("veo3-pro:2")]
        began = now()
        done = await asyncio.gather(*map(collected, watches), return_exceptions=True)
        assert now() - began < 1
        await veo.aclose()
    assert [type(e) for e in done] == [ServiceUnavailable] * 2
    assert "certificate" in str(done[0])
    assert heads == []


async def test_fault_18_an_own_session_checks_certificates(make_client: MakeClient) -> None:
    """Without a borrowed session an unknown authority is refused, too."""
    async with tls_server(certificate(trustme.CA(), "unknown authority")) as (port, heads):
        veo = make_client(base_url=f"https://127.0.0.1:{port}")
        with pytest.raises(ServiceUnavailable, match="certificate"):
            await veo.wait("veo3-pro:1")
        with pytest.raises(ServiceUnavailable, match="certificate"):
            await veo.fetch("veo3-pro:1")
        await veo.aclose()
    assert heads == []


async def test_fault_18_a_good_certificate_is_good(make_client: MakeClient) -> None:
    """The same servers with nothing wrong serve: the tests above fail for the right reason."""
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with (
        tls_server(certificate(authority, "none")) as (port, heads),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session,
    ):
        veo = make_client(base_url=f"https://127.0.0.1:{port}", session=session)
        assert (await veo.wait("veo3-pro:1")).video_url == URL
        await veo.aclose()
    assert len(heads) == 1


async def test_fault_19_a_name_that_is_not_resolved_passes(
    server: FakeVeo3, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the name server is away the ids wait; afterwards they are found."""
    broken, known = True, socket.getaddrinfo
    lookups = 0

    def resolve(host: str, *args: Any, **options: Any) -> Any:
        nonlocal lookups
        lookups += 1
        if broken:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return known("127.0.0.1" if host == "api.internal" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    port = server.url.rpartition(":")[2]
    veo = make_client(base_url=f"http://api.internal:{port}")
    ids = [server.add(life=QUICK) for _ in range(5)]
    watch = veo.watch(*ids)
    await asyncio.sleep(60)
    assert veo.stats().failures.keys() == {"dns"}
    broken = False
    assert sum(c.phase is Phase.COMPLETED for c in await collected(watch)) == 5
    assert lookups > 5


class Names(aiohttp.abc.AbstractResolver):
    """A resolver that takes its time, counts, and can move the host."""

    def __init__(self, address: str, port: int) -> None:
        self.address, self.port, self.lookups = address, port, 0

    async def resolve(
        self,
        host: str,
        port: int = 0,  # noqa: ARG002 - ours is another
        family: socket.AddressFamily = socket.AF_INET,
    ) -> list[aiohttp.abc.ResolveResult]:
        self.lookups += 1
        await asyncio.sleep(1.0)
        return [
            {
                "hostname": host,
                "host": self.address,
                "port": self.port,
                "family": family,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
        ]

    async def close(self) -> None:
        """Do nothing."""


async def test_fault_19_one_lookup_for_all_and_a_new_address_is_found(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """20 ids at once ask for the name once; when the host moves, all follow."""
    port = int(server.url.rpartition(":")[2])
    names = Names("127.0.0.1", port)
    # An address is kept for 10 s of the machine's clock, which stands still here.
    connector = aiohttp.TCPConnector(resolver=names, limit=32, ttl_dns_cache=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        veo = make_client(
            base_url="http://api.internal",
            session=session,
            pacing=FixedPacing(10.0),
            max_polls_per_second=100,
        )
        ids = [server.add(life=UNENDING) for _ in range(20)]
        async with veo.watch(*ids):
            await asyncio.sleep(1.9)
            assert (names.lookups, server.received) == (1, 20)
            async with FakeVeo3() as moved:
                for request_id in ids:
                    moved.add(request_id, UNENDING)
                names.address, names.port = "127.0.0.1", int(moved.url.rpartition(":")[2])
                await server.stop()
                await asyncio.sleep(120)
                assert {r.request_id for r in moved.requests} == set(ids)
        await veo.aclose()


# --- replies in disorder ------------------------------------------------------------------------


async def test_fault_21_replies_out_of_order(server: FakeVeo3, veo: Veo3Client) -> None:
    """An older ``status_update_time`` changes nothing; a video that was seen is not lost."""

    def said(status: str, at: int, **more: object) -> dict[str, object]:
        return {"status": status, "running": True, "status_update_time": at, **more}

    replies = [
        said("video_generating", 2000),
        said("pending", 1000),
        said("video_generation_completed", 3000, video_url=URL, upsample_status="PENDING"),
        said("video_generating", 2000),
        said("video_upsampling", 4000),
        said("video_generating", 2000),
        said("completed", 5000, running=False, upsample_video_url=URL + "?big"),
        said("video_generating", 2000),
    ]
    request_id = server.add(life=Life.scripted(replies))
    changes = await collected(veo.watch(request_id))
    assert [c.phase for c in changes] == [
        Phase.GENERATING,
        Phase.GENERATED,
        Phase.UPSAMPLING,
        Phase.COMPLETED,
    ]
    assert (changes[-1].task.video_url, changes[-1].task.best_url) == (URL, URL + "?big")
    assert len(server.polls_of(request_id)) == 7


async def test_fault_21_terminal_is_terminal(server: FakeVeo3, veo: Veo3Client) -> None:
    """A stream that had its end tells nothing more, whatever the service would say later."""
    request_id = server.add(life=Life.scripted([DONE, RUNNING]))
    open_watch = veo.watch(request_id, keep_open=True)
    assert (await anext(open_watch)).final
    await asyncio.sleep(60)
    assert repr(open_watch) == "<Watch: 0 ids, 0 unread>"
    await open_watch.aclose()


# --- clocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [3600, -3600, 86400 * 365])
async def test_fault_22_the_wall_clock_jumps(
    server: FakeVeo3, veo: Veo3Client, wall_clock: WallClock, shift: float
) -> None:
    """The schedule does not notice; only ``observed_at`` tells the new time."""
    request_id = server.add(life=Life.plain())
    watch = veo.watch(request_id)
    first = await anext(watch)
    began = now()
    wall_clock.shift(shift)
    rest = await collected(watch)
    assert [c.phase for c in rest] == [Phase.PREPARING, Phase.GENERATING, Phase.COMPLETED]
    assert now() - began == pytest.approx(231, abs=3)
    assert rest[-1].observed_at - first.observed_at == pytest.approx(231 + shift, abs=3)
    gaps = [b.at - a.at for a, b in zip(server.requests, server.requests[1:], strict=False)]
    assert max(gaps) < 3


@pytest.mark.parametrize("gap", [30.0, 3600.0])
async def test_fault_22_no_burst_on_waking(
    server: FakeVeo3, make_client: MakeClient, gap: float
) -> None:
    """A blocked loop or a machine that slept: what is overdue goes out at the rate, not at once."""
    veo = make_client(max_polls_per_second=10.0, pacing=FixedPacing(10.0))
    ids = [server.add(life=UNENDING) for _ in range(90)]
    async with veo.watch(*ids):
        await asyncio.sleep(30)
        before = server.received
        jumping_loop().jump(gap)
        woke = now()
        await asyncio.sleep(20)
    later = [r.at for r in server.requests[before:]]
    assert later[0] >= woke
    assert most_in_a_second(later) <= 10 + 1
    assert {r.request_id for r in server.requests[before:]} == set(ids)


# --- this machine ---------------------------------------------------------------------------------

EXHAUSTED = """
import asyncio, resource, socket
from veo3_async import FixedPacing, Veo3Client
from veo3_async.testing import FakeVeo3, Life
from virtual_time import VirtualTimeSelectorLoop

DONE = {"status": "completed", "running": False, "video_url": "https://file.302.ai/a.mp4"}

async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is no matter here
    reports = []
    async with FakeVeo3(api_key="key") as server:
        ids = [server.add(life=Life.scripted([DONE])) for _ in range(10)]
        async with Veo3Client("key", base_url=server.url, on_poll=reports.append) as veo:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            taken = [socket.socket()]
            resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0].fileno() + 1, hard))
            watch = veo.watch(*ids)
            await asyncio.sleep(60)
            troubles = len(reports)
            stats = veo.stats()
            print(stats.failures, stats.watched, stats.throttle_reason, server.received)
            print("paused" if troubles <= 12 else troubles)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            taken[0].close()
            print(sum([change.final async for change in watch]))

with asyncio.Runner(loop_factory=VirtualTimeSelectorLoop) as runner:
    runner.run(main())
"""


def run_script(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-X", "dev", "-W", "error", "-c", script],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_fault_26_out_of_file_descriptors() -> None:
    """Nobody can connect: all pause, one tries now and then, and when it is over all are found."""
    done = run_script(EXHAUSTED)
    assert done.stderr == ""
    first, *rest = done.stdout.splitlines()
    assert first.startswith("{'local': ")
    assert first.endswith(" 10 local 0")
    assert rest == ["paused", "10"]


# --- thousands at once ----------------------------------------------------------------------------


@pytest.mark.timeout(180)  # thousands of real requests, on a machine that may be busy
async def test_fault_27_five_thousand_at_once(make_client: MakeClient) -> None:
    """First polls are spread out under the limit, in the order of adding, each id once."""
    with without_debug():
        async with FakeVeo3() as server:
            veo = make_client(
                base_url=server.url,
                max_polls_per_second=200.0,
                pacing=FixedPacing(3600.0),
            )
            ids = [server.add(life=UNENDING) for _ in range(5000)]
            async with veo.watch(*ids):
                await asyncio.sleep(5000 / 200 + 2)
                asked = [r.request_id for r in server.requests]
                assert (len(asked), set(asked)) == (len(ids), set(ids))
                # Those that are on their way at the same time may overtake one another.
                place = {request_id: number for number, request_id in enumerate(ids)}
                assert all(abs(place[each or ""] - now) < 20 for now, each in enumerate(asked))
                assert most_in_a_second([r.at for r in server.requests]) <= 200 + 20


async def test_fault_41_no_id_starves(make_client: MakeClient) -> None:
    """With ten times more due than may be sent, the longest overdue goes first: all come round."""
    with without_debug():
        async with FakeVeo3() as server:
            veo = make_client(
                base_url=server.url,
                max_polls_per_second=30.0,
                pacing=FixedPacing(1.0, jitter=1.0),
            )
            ids = [server.add(life=UNENDING) for _ in range(300)]
            async with veo.watch(*ids):
                await asyncio.sleep(25)
                veo.watch(server.add(life=UNENDING))  # one that comes into the crowd
                await asyncio.sleep(25)
            gaps = [
                b.at - a.at
                for i in ids
                for a, b in zip(server.polls_of(i), server.polls_of(i)[1:], strict=False)
            ]
    assert {len(server.polls_of(i)) for i in ids} <= {4, 5, 6}
    assert max(gaps) < 10 + 2 + 1


# --- ids and keys ---------------------------------------------------------------------------------

IDS = (
    "veo3-pro:68935cd4-58f5-49ce-878e-40b785dd33b8",
    "a%3Ab",
    "a&request_id=b",
    "a#b",
    "a+b c",
    "a/../b?c=d;e",
    "%",
    "任务-é-🎬",
    "x" * 1024,
)


@pytest.mark.parametrize("request_id", IDS, ids=lambda i: i[:20].encode("unicode_escape").decode())
async def test_fault_28_an_id_arrives_as_it_is(
    server: FakeVeo3, veo: Veo3Client, request_id: str
) -> None:
    """Whatever is in an id, the server reads exactly it, and nothing but it."""
    server.add(request_id, QUICK)
    assert (await veo.fetch(request_id)).status == "video_generating"
    assert (await veo.wait(request_id)).video_url == URL
    assert {r.request_id for r in server.requests} == {request_id}
    assert {r.path for r in server.requests} == {"/302/submit/veo3-pro"}


async def test_fault_28_a_colon_is_sent_as_it_is(server: FakeVeo3, veo: Veo3Client) -> None:
    """On the wire the ``:`` of an id is a ``:``, as in the page's example."""
    server.add(IDS[0], QUICK)
    await veo.fetch(IDS[0])
    assert server.requests[0].target == f"/302/submit/veo3-pro?request_id={IDS[0]}"


@pytest.mark.parametrize(
    "request_id", ["", " ", "a\nb", "a\r\nX: y", "a\x00", " a", "a ", "\ud800", "x" * 10240]
)
async def test_fault_28_an_impossible_id_is_refused_here(
    server: FakeVeo3, veo: Veo3Client, request_id: str
) -> None:
    """What can only be a mistake is named, and nothing is sent."""
    with pytest.raises(InvalidRequest, match="not a request id"):
        veo.watch(request_id)
    with pytest.raises(InvalidRequest):
        await veo.wait(request_id)
    with pytest.raises(InvalidRequest):
        await veo.fetch(request_id)
    assert server.connections == 0


@pytest.mark.parametrize(
    "key", ["", "sk-with\nnewline", "sk-nul\0", "sk with space", " sk-padded", "sk-ключ", "sk\x7f"]
)
@pytest.mark.parametrize("source", ["argument", "AI302_API_KEY", "AI302_KEY"])
def test_fault_29_an_impossible_key_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, key: str, source: str
) -> None:
    """The error names where it came from, says what is wrong, and does not show it."""
    if source != "argument" and "\0" in key:
        pytest.skip("the environment holds no NUL")
    if source != "argument":
        monkeypatch.setenv(source, key)
    with pytest.raises(AuthenticationError) as caught:
        Veo3Client(key if source == "argument" else None)
    assert (source if source != "argument" else "the API key") in str(caught.value)
    assert not key.strip() or key.strip() not in str(caught.value)


def test_fault_29_no_key_says_how_to_give_one() -> None:
    """Without a key the error names the variable to set."""
    with pytest.raises(AuthenticationError, match="AI302_API_KEY"):
        Veo3Client()


# --- ends that are none ---------------------------------------------------------------------------


async def test_fault_39_completed_without_a_url(server: FakeVeo3, veo: Veo3Client) -> None:
    """Asked again for 60 s; then `CompletedWithoutVideo` with the server's reason."""
    empty = {"status": "completed", "running": False, "error_message": "lost in the store"}
    for_good = server.add(life=Life.scripted([RUNNING, empty]))
    late = server.add(life=Life.scripted([RUNNING, *[empty] * 10, DONE]))
    began = now()
    ends = {c.request_id: c for c in await collected(veo.watch(for_good, late)) if c.final}
    assert ends[late].phase is Phase.COMPLETED
    error = ends[for_good].error
    assert ends[for_good].phase is Phase.FAILED
    assert isinstance(error, CompletedWithoutVideo)
    assert "lost in the store" in str(error)
    assert isinstance(error.task, VideoTask)
    assert now() - began == pytest.approx(62, abs=1)


async def test_ipv6_is_served(make_client: MakeClient) -> None:
    """A base URL may be an address in brackets."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    async with FakeVeo3(host="::1") as server:
        veo = make_client(base_url=server.url)
        assert (await veo.fetch(server.add())).id == server.ids[0]
        await veo.aclose()


async def test_a_base_url_may_have_a_prefix(make_client: MakeClient) -> None:
    """A gateway under a path is asked under that path."""
    heads: list[list[str]] = []

    async def gateway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await request_head(reader))
        writer.write(http(b'{"status":"pending"}'))
        await writer.drain()

    async with serving(gateway) as port:
        veo = make_client(base_url=f"http://127.0.0.1:{port}/team/a/")
        await veo.fetch("veo3-pro:1")
        await veo.aclose()
    assert heads[0][0] == "GET /team/a/302/submit/veo3-pro?request_id=veo3-pro:1 HTTP/1.1"
