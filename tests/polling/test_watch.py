"""The stream of transitions: what comes out, when it ends, and what it costs the server."""

from __future__ import annotations

import asyncio
import copy
import datetime
import gc
import logging
import pickle
import re
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeClient

from veo3_async import (
    ClientClosed,
    FixedPacing,
    InvalidRequest,
    Phase,
    StillPending,
    TaskFailed,
    Transition,
    Veo3Client,
    Watch,
)
from veo3_async.testing import FakeVeo3, Life, Status

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]

Q, P, G, GD, U, R = (
    Phase.QUEUED,
    Phase.PREPARING,
    Phase.GENERATING,
    Phase.GENERATED,
    Phase.UPSAMPLING,
    Phase.RETRYING,
)
UNENDING = Life.scripted([{"status": "video_generating", "running": True}])
DONE_AT_ONCE = Life.scripted(
    [{"status": "completed", "running": False, "video_url": "https://file.302.ai/a.mp4"}]
)
QUICK = Life.scripted(
    [
        {"status": "pending", "running": True},
        {"status": "completed", "running": False, "video_url": "https://file.302.ai/a.mp4"},
    ]
)


async def collected(watch: Watch) -> list[Transition]:
    return [change async for change in watch]


def check_orderly(changes: list[Transition]) -> None:
    """Check the rules of the stream for one id."""
    assert [change.final for change in changes] == [False] * (len(changes) - 1) + [True]
    before = [None, *(change.phase for change in changes[:-1])]
    assert [change.previous for change in changes] == before
    assert all((change.error is None) or change.final for change in changes)


# --- the lives of the wire page -------------------------------------------------------------


@pytest.mark.parametrize(
    ("life", "until", "phases"),
    [
        (Life.documented(), "best", (Q, P, G, GD, U, Phase.COMPLETED)),
        (Life.documented(), "video", (Q, P, G, Phase.COMPLETED)),
        (Life.plain(), "best", (Q, P, G, Phase.COMPLETED)),
        (Life.plain(), "video", (Q, P, G, Phase.COMPLETED)),
        (Life.failing(), "best", (Q, P, G, Phase.FAILED)),
        (Life.failing(), "video", (Q, P, G, Phase.FAILED)),
        (Life.retrying(2), "best", (Q, P, G, R, G, R, G, GD, U, Phase.COMPLETED)),
        (Life.retrying(2), "video", (Q, P, G, R, G, R, G, Phase.COMPLETED)),
        (Life.upsample_failing(), "best", (Q, P, G, GD, U, R, Phase.COMPLETED_PLAIN)),
        (Life.upsample_failing(), "video", (Q, P, G, Phase.COMPLETED)),
    ],
)
async def test_each_life_makes_exactly_its_transitions(
    server: FakeVeo3, veo: Veo3Client, life: Life, until: str, phases: tuple[Phase, ...]
) -> None:
    """A life of the wire page comes out as the phases that the rules name, each once, in order."""
    request_id = server.add(life=life)
    changes = await collected(veo.watch(request_id, until=until))  # type: ignore[arg-type]
    assert tuple(change.phase for change in changes) == phases
    check_orderly(changes)
    last = changes[-1]
    assert (last.error is None) == (last.phase is not Phase.FAILED)
    wants_upsampled = life == Life.documented() or life == Life.retrying(2)
    assert (last.task.upsample_video_url is not None) == (until == "best" and wants_upsampled)
    assert (last.task.best_url is not None) == (last.phase is not Phase.FAILED)


async def test_a_failed_task_has_its_reasons(server: FakeVeo3, veo: Veo3Client) -> None:
    """The error of a final transition carries the task, the id and the service's words."""
    request_id = server.add(life=Life.failing())
    *_, last = await collected(veo.watch(request_id))
    assert isinstance(last.error, TaskFailed)
    assert last.error.request_id == request_id
    assert last.error.task == last.task
    assert "unsafe prompt" in str(last.error)


async def test_many_ids_are_one_stream_in_which_each_is_orderly(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """A bad id among good ones ends with its error, and the others with their videos."""
    veo = make_client(max_polls_per_second=1000.0)
    ids = [server.add(life=QUICK) for _ in range(200)]
    failing = server.add(life=Life.scripted([{"id": "x", "status": "failed", "running": False}]))
    unknown = "veo3-pro:nobody-knows-it"
    changes = await collected(veo.watch(*ids, failing, unknown))
    by_id: dict[str, list[Transition]] = {}
    for change in changes:
        by_id.setdefault(change.request_id, []).append(change)
    for own in by_id.values():
        check_orderly(own)
    assert {i: own[-1].phase for i, own in by_id.items()} == {
        **dict.fromkeys(ids, Phase.COMPLETED),
        failing: Phase.FAILED,
        unknown: Phase.LOST,
    }


async def test_an_id_given_twice_is_watched_once(server: FakeVeo3, veo: Veo3Client) -> None:
    """Repeating an id changes neither the stream nor the polls."""
    request_id = server.add(life=QUICK)
    watch = veo.watch(request_id, request_id)
    watch.add(request_id)
    assert len(watch) == 1
    assert [c.phase for c in await collected(watch)] == [Q, Phase.COMPLETED]
    assert len(server.polls_of(request_id)) == 2


async def test_a_watch_of_nothing_ends_at_once(veo: Veo3Client) -> None:
    """Without an id there is nothing to wait for."""
    assert await collected(veo.watch()) == []


async def test_an_impossible_id_is_refused_before_anything_is_watched(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """One bad id among good ones: nothing is sent, and `add` adds none of them either."""
    good = server.add(life=QUICK)
    with pytest.raises(InvalidRequest):
        veo.watch(good, "")
    watch = veo.watch(keep_open=True)
    with pytest.raises(InvalidRequest):
        watch.add(good, "a\nb")
    assert len(watch) == 0
    await asyncio.sleep(10)
    assert server.received == 0
    await watch.aclose()


# --- several watchers ------------------------------------------------------------------------


async def test_watchers_of_one_id_share_its_polls(server: FakeVeo3, veo: Veo3Client) -> None:
    """Ten watchers cost the server one poll more than one, and each sees the whole life."""
    alone = server.add(life=Life.documented())
    *_, last = await collected(veo.watch(alone))
    shared = server.add(life=Life.documented())
    streams = await asyncio.gather(*(collected(veo.watch(shared)) for _ in range(10)))
    assert all([c.phase for c in s] == [Q, P, G, GD, U, Phase.COMPLETED] for s in streams)
    assert len(server.polls_of(shared)) <= len(server.polls_of(alone)) + 1
    assert last.phase is Phase.COMPLETED


async def test_each_watcher_has_its_own_until(server: FakeVeo3, veo: Veo3Client) -> None:
    """The one that wants any video ends first; the other goes on to the upsampled one."""
    request_id = server.add(life=Life.documented())
    best, video = await asyncio.gather(
        collected(veo.watch(request_id)), collected(veo.watch(request_id, until="video"))
    )
    assert [c.phase for c in video] == [Q, P, G, Phase.COMPLETED]
    assert [c.phase for c in best] == [Q, P, G, GD, U, Phase.COMPLETED]
    assert video[-1].task.upsample_video_url is None
    assert best[-1].task.upsample_video_url is not None


async def test_a_watcher_that_comes_late_sees_the_present_state_at_once(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """It need not wait for the next poll that is planned, nor for a change."""
    veo = make_client(pacing=FixedPacing(1000.0, jitter=0.0))
    request_id = server.add(life=UNENDING)
    first = veo.watch(request_id)
    assert (await anext(first)).phase is G
    began = asyncio.get_running_loop().time()
    second = veo.watch(request_id)
    change = await anext(second)
    assert (change.phase, change.previous) == (G, None)
    assert asyncio.get_running_loop().time() - began < 1
    await first.aclose()
    await second.aclose()


async def test_a_finished_id_can_be_watched_again(server: FakeVeo3, veo: Veo3Client) -> None:
    """A later watch of a finished id brings its end again, with one poll."""
    request_id = server.add(life=QUICK)
    await collected(veo.watch(request_id))
    polls = len(server.polls_of(request_id))
    [change] = await collected(veo.watch(request_id))
    assert (change.phase, change.final) == (Phase.COMPLETED, True)
    assert len(server.polls_of(request_id)) == polls + 1


async def test_a_watch_may_be_read_by_several_tasks(server: FakeVeo3, veo: Veo3Client) -> None:
    """Each transition goes to one reader, and all readers come to an end."""
    ids = [server.add(life=QUICK) for _ in range(5)]
    watch = veo.watch(*ids)
    parts = await asyncio.gather(*(collected(watch) for _ in range(3)))
    ends = sorted(c.request_id for part in parts for c in part if c.final)
    assert ends == sorted(ids)


async def unacknowledged(veo: Veo3Client) -> set[str | None]:
    return {task.request_id for task in await veo.pending()}


async def test_fault_24_a_reader_answers_for_its_own_ends_only(
    server: FakeVeo3, make_client: MakeClient, tmp_path: Path
) -> None:
    """With a journal, an end is unacknowledged until the reader that took it asks for the next."""
    veo = make_client(journal=tmp_path / "veo3.db")
    first, second = server.add(life=DONE_AT_ONCE), server.add(life=DONE_AT_ONCE)
    watch = veo.watch(keep_open=True)
    dealt = asyncio.Event()

    async def slow() -> None:
        async for _ in watch:
            await dealt.wait()

    one = asyncio.create_task(slow())
    watch.add(first)
    await asyncio.sleep(1)
    other = asyncio.create_task(collected(watch))
    watch.add(second)
    await asyncio.sleep(1)
    assert await unacknowledged(veo) == {first}
    dealt.set()
    await asyncio.sleep(1)
    assert await unacknowledged(veo) == set()
    await watch.aclose()
    await asyncio.wait([one, other])


@pytest.mark.parametrize("breaks_off", ["raises", "is cancelled"])
async def test_fault_24_what_a_reader_had_not_dealt_with_stays_unacknowledged(
    server: FakeVeo3, make_client: MakeClient, tmp_path: Path, breaks_off: str
) -> None:
    """A reader that raises leaves its end unacknowledged, however the others go on and leave."""
    veo = make_client(journal=tmp_path / "veo3.db")
    ids = [server.add(life=DONE_AT_ONCE) for _ in range(3)]

    async def bad() -> None:
        async for change in watch:
            if breaks_off == "raises":
                raise KeyError(change.request_id)
            await asyncio.sleep(1000)

    async with veo.watch(*ids) as watch:
        reader = asyncio.create_task(bad())
        await asyncio.sleep(5)
        reader.cancel()
        await asyncio.wait([reader])
        seen = {change.request_id for change in await collected(watch)}
    assert await unacknowledged(veo) == set(ids) - seen
    assert len(seen) == 2
    assert reader.cancelled() or isinstance(reader.exception(), KeyError)


async def test_an_end_may_be_asked_for_in_a_task_of_its_own(
    server: FakeVeo3, make_client: MakeClient, tmp_path: Path
) -> None:
    """A task that returned has acknowledged its end; ``wait_for`` of Python 3.11 makes such."""
    veo = make_client(journal=tmp_path / "veo3.db")
    ids = [server.add(life=DONE_AT_ONCE) for _ in range(2)]
    async with veo.watch(*ids) as watch:
        first = await asyncio.create_task(anext(watch))
        assert await unacknowledged(veo) == set(ids)
        second = await asyncio.create_task(anext(watch))
        assert await unacknowledged(veo) == {second.request_id} == set(ids) - {first.request_id}
    assert await unacknowledged(veo) == set()


# --- adding and discarding -------------------------------------------------------------------


async def test_ids_are_added_while_it_runs(server: FakeVeo3, veo: Veo3Client) -> None:
    """A chain in which each end brings the next id is one stream."""
    waiting = [server.add(life=QUICK) for _ in range(5)]
    seen: list[str] = []
    watch = veo.watch(waiting[0])
    async for change in watch:
        if change.final:
            seen.append(change.request_id)
            watch.add(*waiting[len(seen) : len(seen) + 1])
    assert seen == waiting


async def test_the_timeout_holds_for_ids_that_are_added_after_an_end(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """The time of the whole watch goes on although for a moment nothing was unfinished."""
    first, second = server.add(life=QUICK), server.add(life=UNENDING)
    ends: list[Transition] = []
    watch = veo.watch(first, timeout=60)
    async for change in watch:
        if change.final:
            ends.append(change)
            if change.request_id == first:
                watch.add(second)
    assert [(end.request_id, end.phase) for end in ends] == [
        (first, Phase.COMPLETED),
        (second, Phase.LOST),
    ]


async def test_discarded_ids_are_neither_yielded_nor_polled(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """Discarding takes unread transitions too; with the last id the stream ends."""
    kept, dropped = server.add(life=QUICK), server.add(life=UNENDING)
    watch = veo.watch(kept, dropped)
    await asyncio.sleep(5)
    watch.discard(dropped, "veo3-pro:never-watched")
    polls = len(server.polls_of(dropped))
    assert {c.request_id for c in await collected(watch)} == {kept}
    await asyncio.sleep(60)
    assert len(server.polls_of(dropped)) == polls


async def test_discarding_the_last_id_ends_who_waits(server: FakeVeo3, veo: Veo3Client) -> None:
    """A reader that waits for the next transition comes to an end."""
    request_id = server.add(life=UNENDING)
    watch = veo.watch(request_id)
    await anext(watch)
    reader = asyncio.create_task(collected(watch))
    await asyncio.sleep(1)
    watch.discard(request_id)
    assert await reader == []


async def test_an_open_watch_ends_only_when_it_is_closed(server: FakeVeo3, veo: Veo3Client) -> None:
    """With ``keep_open`` a stream outlives its ids, takes more, and ends by `aclose`."""
    watch = veo.watch(keep_open=True)
    reader = asyncio.create_task(collected(watch))
    for _ in range(3):
        await asyncio.sleep(100)
        watch.add(server.add(life=QUICK))
    await asyncio.sleep(100)
    assert not reader.done()
    await watch.aclose()
    assert sum(c.final for c in await reader) == 3


async def test_a_closed_watch_takes_no_ids(server: FakeVeo3, veo: Veo3Client) -> None:
    """`add` after `aclose` says so, and closing twice does no harm."""
    watch = veo.watch(server.add(life=UNENDING))
    await watch.aclose()
    await watch.aclose()
    with pytest.raises(ClientClosed, match="make another"):
        watch.add("veo3-pro:another")
    assert await collected(watch) == []


@pytest.mark.parametrize("keep_open", [True, False])
async def test_fault_30_a_watch_whose_time_is_over_takes_no_ids(
    server: FakeVeo3, veo: Veo3Client, keep_open: bool
) -> None:
    """Nothing would end them: `add` after the timeout says so, read to its end or not."""
    watch = veo.watch(server.add(life=UNENDING), keep_open=keep_open, timeout=10)
    await asyncio.sleep(11)
    with pytest.raises(ClientClosed, match="make another"):
        watch.add(server.add())
    assert isinstance((await collected(watch))[-1].error, StillPending)
    with pytest.raises(ClientClosed, match="make another"):
        watch.add(server.add())
    assert await collected(watch) == []
    assert veo.stats().watched == 0


async def test_a_watch_that_has_ended_with_its_last_id_takes_no_ids(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """Its time no longer runs, so an id that came now would never end."""
    watch = veo.watch(server.add(life=QUICK), timeout=60)
    await collected(watch)
    with pytest.raises(ClientClosed, match="make another"):
        watch.add(server.add(life=UNENDING))
    assert await collected(watch) == []


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
async def test_clients_and_watches_are_not_copied(
    server: FakeVeo3, veo: Veo3Client, how: Callable[[object], object]
) -> None:
    """A copy would end the original when it is dropped; it is refused, and the original goes on."""
    watch = veo.watch(server.add(life=QUICK))
    for original in (veo, watch):
        with pytest.raises(TypeError, match="make another"):
            how(original)
    gc.collect()
    assert [change.phase for change in await collected(watch)][-1] is Phase.COMPLETED


# --- ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [30, 30.0, datetime.timedelta(seconds=30)])
async def test_fault_30_a_timeout_ends_every_unfinished_id(
    server: FakeVeo3, veo: Veo3Client, timeout: float | datetime.timedelta
) -> None:
    """What is unfinished then is `StillPending`, what was finished is not, all can go on."""
    done, running = server.add(life=QUICK), [server.add(life=UNENDING) for _ in range(20)]
    began = asyncio.get_running_loop().time()
    changes = await collected(veo.watch(done, *running, timeout=timeout))
    assert asyncio.get_running_loop().time() - began == pytest.approx(30)
    ends = {c.request_id: c for c in changes if c.final}
    assert ends.pop(done).phase is Phase.COMPLETED
    assert set(ends) == set(running)
    for end in ends.values():
        assert (end.phase, end.previous, end.status) == (Phase.LOST, G, "video_generating")
        assert isinstance(end.error, StillPending)
        assert isinstance(end.error, TimeoutError)
        assert (end.error.elapsed, end.error.attempts > 1) == (30, True)
    assert (await anext(veo.watch(running[0]))).phase is G


async def test_fault_30_wait_raises_still_pending(server: FakeVeo3, veo: Veo3Client) -> None:
    """A `wait` whose time is over raises what can be caught as a `TimeoutError`."""
    request_id = server.add(life=UNENDING)
    with pytest.raises(StillPending) as caught:
        await veo.wait(request_id, timeout=5)
    assert caught.value.request_id == request_id
    assert caught.value.task is not None
    assert caught.value.task.status == "video_generating"
    with pytest.raises(TimeoutError):
        await veo.wait(request_id, timeout=5)


async def test_fault_30_the_timeout_of_what_cannot_be_reached_says_why(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """Where the last polls brought nothing, `StillPending` has the last trouble."""
    request_id = server.add(life=UNENDING)
    watch = veo.watch(request_id, timeout=60)
    await anext(watch)
    server.fault(Status(500))
    error = (await collected(watch))[-1].error
    assert isinstance(error, StillPending)
    assert "brought no state" in error.message
    assert "Internal Server Error" in error.message


async def test_fault_10_an_outage_is_in_the_log_once(
    server: FakeVeo3, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """WARNING after half a minute without any state, INFO when it is over, DEBUG for each fault."""
    veo = make_client(pacing=FixedPacing(30.0))
    caplog.set_level(logging.DEBUG, "veo3_async")
    ids = [server.add(life=QUICK) for _ in range(60)]  # so that one is asked for every second
    server.fault(Status(500))
    reader = asyncio.create_task(collected(veo.watch(*ids)))
    await asyncio.sleep(600)
    said = [r for r in caplog.records if r.levelno > logging.DEBUG]
    assert [r.levelname for r in said] == ["WARNING"]
    assert "no poll has brought a state for 3" in said[0].getMessage()
    faults = [r.getMessage() for r in caplog.records if r.levelno == logging.DEBUG]
    assert len(faults) == veo.stats().failures["server"]
    assert all(any(request_id in fault for fault in faults) for request_id in ids)
    server.heal()
    assert sum(change.final for change in await reader) == len(ids)
    said = [r for r in caplog.records if r.levelno > logging.DEBUG and not hasattr(r, "request_id")]
    assert [r.levelname for r in said] == ["WARNING", "INFO"]
    assert "again, after 6" in said[-1].getMessage()


async def test_a_timeout_of_one_watcher_leaves_the_other_alone(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """The id goes on being polled for whoever still wants it."""
    request_id = server.add(life=Life.documented())
    patient = asyncio.create_task(collected(veo.watch(request_id)))
    *_, last = await collected(veo.watch(request_id, timeout=20))
    assert isinstance(last.error, StillPending)
    assert [c.phase for c in await patient] == [Q, P, G, GD, U, Phase.COMPLETED]


async def test_fault_40_nothing_changes_for_an_hour(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """It goes on until the caller's own timeout, and `stats` shows the age of the oldest."""
    veo = make_client(pacing=FixedPacing(10.0))
    request_id = server.add(life=UNENDING)
    watch = veo.watch(request_id, timeout=3700)
    await asyncio.sleep(3600)
    assert veo.stats().oldest == pytest.approx(3600)
    first, last = await collected(watch)
    assert (first.phase, first.final) == (G, False)
    assert isinstance(last.error, StillPending)
    assert len(server.polls_of(request_id)) == pytest.approx(370, abs=20)


async def test_fault_24_who_breaks_off_stops_the_polls_of_his_ids(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """Breaking out of the loop and dropping the watch stops its polls, and no others."""
    mine, other = server.add(life=UNENDING), server.add(life=UNENDING)
    kept = veo.watch(other)
    async for _ in veo.watch(mine, other):
        break
    gc.collect()
    await asyncio.sleep(10)
    polls = len(server.polls_of(mine)), len(server.polls_of(other))
    await asyncio.sleep(100)
    assert len(server.polls_of(mine)) == polls[0]
    assert len(server.polls_of(other)) == pytest.approx(polls[1] + 50, abs=1)
    assert veo.stats().watched == 1
    await kept.aclose()


async def test_fault_24_who_raises_harms_nobody_else(server: FakeVeo3, veo: Veo3Client) -> None:
    """An error in the body of one loop ends that watch alone."""
    ids = [server.add(life=Life.plain()) for _ in range(2)]

    async def raising() -> None:
        async with veo.watch(*ids) as changes:
            async for _ in changes:
                raise KeyError

    other = asyncio.create_task(collected(veo.watch(*ids)))
    with pytest.raises(KeyError):
        await raising()
    assert sum(c.phase is Phase.COMPLETED for c in await other) == 2


async def test_fault_24_who_never_reads_delays_nobody_and_loses_no_end(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """A stopped consumer costs nothing, and finds every final state when it comes back."""
    ids = [server.add(life=Life.documented()) for _ in range(2)]
    sleepy, busy = veo.watch(*ids), veo.watch(*ids)
    assert sum(c.final for c in await collected(busy)) == 2
    assert veo.stats().watched == 0
    late = await collected(sleepy)
    assert [c.request_id for c in late if c.final] != []
    assert {c.request_id for c in late if c.final} == set(ids)


async def test_fault_24_unread_transitions_are_bounded(server: FakeVeo3, veo: Veo3Client) -> None:
    """At most 16 transitions of an id wait; what is left out are detours, and the order holds."""
    retries = [
        {"status": status, "running": True, "retry_count": attempt}
        for attempt in range(200)
        for status in ("video_generating", "video_generation_failed")
    ]
    end = {"status": "completed", "running": False, "video_url": "https://file.302.ai/a.mp4"}
    request_id = server.add(life=Life.scripted([*retries, end]))
    watch = veo.watch(request_id)
    while veo.stats().watched:
        await asyncio.sleep(2)
        (unread,) = re.findall(r"(\d+) unread", repr(watch))
        assert int(unread) <= 16
    changes = await collected(watch)
    check_orderly(changes)
    assert changes[-1].phase is Phase.COMPLETED


async def test_a_watch_that_is_collected_stops_its_polls(server: FakeVeo3, veo: Veo3Client) -> None:
    """Garbage collection of a `Watch` ends its subscription, and nothing holds it."""
    request_id = server.add(life=UNENDING)
    watch = veo.watch(request_id, timeout=100_000)
    await anext(watch)
    gone = weakref.ref(watch)
    del watch
    gc.collect()
    assert gone() is None
    await asyncio.sleep(10)
    assert veo.stats().watched == 0
    polls = server.received
    await asyncio.sleep(100)
    assert server.received == polls


async def test_a_watch_may_be_closed_from_another_task(server: FakeVeo3, veo: Veo3Client) -> None:
    """Who iterates comes to an end, not to an error."""
    request_id = server.add(life=UNENDING)
    watch = veo.watch(request_id)
    reader = asyncio.create_task(collected(watch))
    await asyncio.sleep(10)
    await watch.aclose()
    assert [c.phase for c in await reader] == [G]
