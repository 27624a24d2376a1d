"""What can be seen of a watch: reports, statistics, logs and representations."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging

import pytest
from conftest import MakeClient
from over_the_wire import QUICK, UNENDING, collected

from veo3_async import (
    FixedPacing,
    Phase,
    PollReport,
    StillPending,
    Veo3Client,
    Watch,
)
from veo3_async.testing import Body, FakeVeo3, Life, Status

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]


async def test_on_poll_reports_match_the_servers_log(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """Every request that arrives has its report, in order, and no other is reported."""
    reports: list[PollReport] = []
    veo = make_client(on_poll=reports.append)
    ids = [server.add(life=Life.retrying()) for _ in range(3)]
    server.fault(Status(500), rate=0.2)
    server.fault(Body.html(), rate=0.2)
    await collected(veo.watch(*ids))
    for request_id in ids:
        own = [r for r in reports if r.request_id == request_id]
        assert [r.attempt for r in own] == list(range(1, len(own) + 1))
        assert len(own) == len(server.polls_of(request_id))
        assert own[-1].next_poll_in is None
        sent = [r.at for r in server.polls_of(request_id)]
        waits = [r.next_poll_in or 0.0 for r in own[:-1]]
        gaps = [later - earlier for earlier, later in itertools.pairwise(sent)]
        assert gaps == pytest.approx(waits, abs=0.5)
    assert len(reports) == server.received == veo.stats().polls
    assert {r.status for r in reports} == {200, 500}
    assert {type(r.error).__name__ for r in reports} == {
        "NoneType",
        "ServiceUnavailable",
        "UnexpectedReply",
    }


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError])
async def test_fault_25_a_raising_hook_is_logged_once(
    server: FakeVeo3,
    make_client: MakeClient,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
) -> None:
    """What ``on_poll`` raises is said once and changes nothing."""

    def hook(report: PollReport) -> None:
        raise error(report.request_id)

    veo = make_client(on_poll=hook)
    request_id = server.add()
    assert [c.phase for c in await collected(veo.watch(request_id))] == [
        Phase.QUEUED,
        Phase.PREPARING,
        Phase.GENERATING,
        Phase.GENERATED,
        Phase.UPSAMPLING,
        Phase.COMPLETED,
    ]
    said = [r for r in caplog.records if r.name == "veo3_async"]
    assert [r.levelno for r in said] == [logging.ERROR]
    assert "on_poll" in said[0].getMessage()


async def test_stats_say_what_goes_on(server: FakeVeo3, veo: Veo3Client) -> None:
    """Watched, polls, transitions, failures by kind, rate and lag are what happened."""
    before = veo.stats()
    assert (before.watched, before.polls, before.oldest, before.lag_p50) == (0, 0, None, None)
    ids = [server.add(life=UNENDING) for _ in range(3)]
    server.fault(Status(500), times=2)
    server.fault(Body.empty(), times=1)
    async with veo.watch(*ids):
        await asyncio.sleep(20)
        now = veo.stats()
    assert (now.watched, now.in_flight, now.transitions) == (3, 0, 3)
    assert now.polls == server.received
    assert now.failures == {"server": 2, "unexpected": 1}
    assert (now.rate, now.throttle_reason, now.throttled_seconds) == (20.0, None, 0.0)
    assert now.oldest == pytest.approx(20)
    assert now.lag_p50 is not None
    assert now.lag_p95 is not None
    assert now.lag_p50 <= now.lag_p95


async def test_the_requests_of_single_calls_do_not_count_as_watched(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """`fetch` is in the polls of `stats`, and watches nothing."""
    await veo.fetch(server.add())
    assert (veo.stats().polls, veo.stats().watched) == (1, 0)


async def test_repr_shows_the_state(server: FakeVeo3, veo: Veo3Client) -> None:
    """A client and a watch say what they are doing."""
    assert repr(veo) == f"<Veo3Client: {server.url}, idle>"
    watch = veo.watch(server.add(life=UNENDING), "veo3-pro:another")
    assert repr(watch) == "<Watch: 2 ids, 0 unread>"
    assert "2 ids" in repr(veo)
    await asyncio.sleep(1)
    assert repr(watch) == "<Watch: 2 ids, 1 unread>"
    await watch.aclose()
    assert repr(watch) == "<Watch: closed, 0 ids, 0 unread>"
    await veo.aclose()
    assert repr(veo) == f"<Veo3Client: {server.url}, closed>"


async def test_request_ids_are_those_that_are_unfinished(server: FakeVeo3, veo: Veo3Client) -> None:
    """`request_ids` and ``len`` shrink with every end."""
    done, running = server.add(life=QUICK), server.add(life=UNENDING)
    watch = veo.watch(done, running)
    assert watch.request_ids == {done, running}
    await asyncio.sleep(10)
    assert watch.request_ids == {running}
    assert len(watch) == 1
    await watch.aclose()


async def test_nothing_is_known_of_the_time_left_with_a_fixed_pacing(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """`eta` is None where nothing was learned."""
    request_id = server.add(life=UNENDING)
    watch = veo.watch(request_id)
    change = await anext(watch)
    assert (change.eta, watch.eta(request_id), watch.eta("veo3-pro:another")) == (None, None, None)
    await watch.aclose()


async def test_a_watch_survives_the_scope_that_it_was_made_in(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """Polling is nobody's child: a cancelled scope of the caller does not stop it."""
    ids = [server.add(life=Life.plain()) for _ in range(2)]
    watches: list[Watch] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            watches.append(veo.watch(ids[0]))
            await veo.wait(ids[1])
    assert (await collected(watches[0]))[-1].phase is Phase.COMPLETED


async def test_fault_40_a_task_in_which_nothing_changes_is_logged_once_and_then_lost(
    server: FakeVeo3, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A line after half an hour; after two hours the watch ends, and it can be watched again."""
    veo = make_client(pacing=FixedPacing(20.0))
    caplog.set_level(logging.WARNING, "veo3_async")
    request_id = server.add(life=Life.scripted([{"status": "video_generating", "running": True}]))
    ends = [change async for change in veo.watch(request_id) if change.final]
    assert [(end.phase, type(end.error)) for end in ends] == [(Phase.LOST, StillPending)]
    [line] = [r.getMessage() for r in caplog.records if r.name == "veo3_async"]
    assert "without a change" in line
    server.heal()
    assert (await anext(veo.watch(request_id))).phase is Phase.GENERATING
