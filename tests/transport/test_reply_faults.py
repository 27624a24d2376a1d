"""Faults that a reply brings, each through a client that watches.

The numbers are those of the list of faults; "back to the schedule" means that the id stays watched
and its video is found in the end.
"""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import socket
import tracemalloc
from typing import Any

import pytest
from broken_servers import http, request_head, serving
from conftest import MakeClient
from over_the_wire import (
    DONE,
    QUICK,
    RUNNING,
    UNENDING,
    URL,
    collected,
    every,
    most_in_a_second,
    now,
    without_debug,
)
from virtual_time import WallClock

from veo3_async import (
    AuthenticationError,
    CompletedWithoutVideo,
    FixedPacing,
    InvalidRequest,
    Phase,
    QuotaExceeded,
    TaskFailed,
    TaskNotFound,
    Veo3Client,
    Veo3Error,
    VideoTask,
)
from veo3_async.testing import (
    Body,
    FakeVeo3,
    Fault,
    Life,
    Status,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]


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
async def test_fault_08_a_hint_binds_the_id_that_it_came_with(
    server: FakeVeo3, veo: Veo3Client, wall_clock: WallClock, code: int, how: str
) -> None:
    """One 429 with a hint stops the polls of its id for that long, and those of no other."""
    ids = [server.add(life=UNENDING) for _ in range(12)]
    async with veo.watch(*ids):
        await asyncio.sleep(10)
        at = datetime.datetime.fromtimestamp(wall_clock.time() + 40, datetime.UTC)
        hint = 40 if how == "seconds" else email.utils.format_datetime(at, usegmt=True)
        server.fault(Status(code, retry_after=hint), request_id=ids[0], times=1)
        await asyncio.sleep(3)
        refused_at = server.polls_of(ids[0])[-1].at
        others = [len(server.polls_of(each)) for each in ids[1:]]
        await asyncio.sleep(60)
    assert 38 <= server.polls_of(ids[0])[-1].at - refused_at
    later = [r.at for r in server.polls_of(ids[0]) if r.at > refused_at]
    assert 38 <= later[0] - refused_at <= 45
    assert all(len(server.polls_of(i)) > n + 20 for i, n in zip(ids[1:], others, strict=True))


async def test_fault_08_all_wait_while_all_are_refused(server: FakeVeo3, veo: Veo3Client) -> None:
    """A service that refuses everything is asked by one id at a time, whatever it says."""
    ids = [server.add(life=UNENDING) for _ in range(40)]
    async with veo.watch(*ids):
        await asyncio.sleep(10)
        server.fault(Status(429, retry_after=30))
        await asyncio.sleep(10)
        polls = server.received
        await asyncio.sleep(15)
        assert server.received - polls <= 2
        server.heal()
        await asyncio.sleep(60)
        assert {r.request_id for r in server.requests[polls:]} == set(ids)


@pytest.mark.parametrize(
    "hint", ["NaN", "inf", "-5", "soon", "1e9", "", "Thu, 01 Jan 1970 00:00:00 GMT", "٣"]
)
async def test_fault_08_a_hint_that_is_none_is_ignored(
    server: FakeVeo3, veo: Veo3Client, hint: str
) -> None:
    """A ``Retry-After`` that cannot be read pauses nobody."""
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
    """Under an undocumented limit nearly all requests are served, and every id is polled."""
    with without_debug():
        async with FakeVeo3(rate_limit=5) as server:
            veo = make_client(base_url=server.url, pacing=FixedPacing(1.0))
            ids = [server.add(life=UNENDING) for _ in range(20)]
            async with veo.watch(*ids):
                await asyncio.sleep(200)
            refused = veo.stats().failures["throttled"]
            assert refused < server.received / 10
            assert {r.request_id for r in server.requests} == set(ids)


@pytest.mark.timeout(300)  # thousands of real requests, on a machine that may be busy
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
        Body.gzip_bomb(8_000_000),
        Body(b"{}"),
        Body(b"42"),
    ],
    ids=lambda body: repr(body.content[:12]),
)
async def test_fault_11_a_reply_that_is_none(server: FakeVeo3, veo: Veo3Client, body: Body) -> None:
    """What is not the API's under 200 is an outage: forty in a row end nothing."""
    await veo.wait(server.add(life=QUICK))  # so that the client knows the API
    request_id = server.add(life=QUICK)
    server.fault(body, request_id=request_id, times=40)
    assert (await veo.wait(request_id)).video_url == URL
    assert len(server.polls_of(request_id)) == 42
    assert sum(veo.stats().failures.values()) == 40


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


async def test_fault_42_a_reply_of_another_watched_task(server: FakeVeo3, veo: Veo3Client) -> None:
    """Another one's video is not handed out: the connection is closed, and asked again."""
    other = server.add()
    server.add("veo3-pro:swapped", Life.scripted([RUNNING, DONE | {"id": other}, DONE]))
    ends = [c async for c in veo.watch("veo3-pro:swapped", other) if c.final]
    assert {c.request_id: c.task.id for c in ends}["veo3-pro:swapped"] != other
    assert veo.stats().failures == {"unexpected": 1}


@pytest.mark.parametrize(
    ("end", "error", "seconds"),
    [
        ({"status": "failed", "status_update_time": 1767600240}, TaskFailed, 4),
        ({"status": "completed", "running": False}, CompletedWithoutVideo, 64),
        ({"status": "cancelled", "running": False}, TaskFailed, 64),
    ],
    ids=lambda value: value.get("status") if isinstance(value, dict) else "",
)
async def test_an_end_by_the_service_has_the_number_of_its_polls(
    server: FakeVeo3, veo: Veo3Client, end: dict[str, Any], error: type[Veo3Error], seconds: float
) -> None:
    """How many there were, how long it took, and the status of the reply that said it."""
    request_id = server.add(life=Life.scripted([RUNNING, RUNNING, end]))
    with pytest.raises(error) as caught:
        await veo.wait(request_id)
    raised = caught.value
    assert (raised.http_status, raised.attempts) == (200, len(server.polls_of(request_id)))
    assert raised.elapsed == pytest.approx(seconds, abs=1)


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
    """Every watcher gets the error at once, and no 5,000 requests go out with a refused key."""
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
    """A stream that had its end yields nothing more, whatever the service would say later."""
    request_id = server.add(life=Life.scripted([DONE, RUNNING]))
    open_watch = veo.watch(request_id, keep_open=True)
    assert (await anext(open_watch)).final
    await asyncio.sleep(60)
    assert repr(open_watch) == "<Watch: 0 ids, 0 unread>"
    await open_watch.aclose()


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
