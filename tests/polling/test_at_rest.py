"""Ids that rest between two polls: few bytes, and nothing of them is lost."""

from __future__ import annotations

import asyncio
import math
import sys
from typing import Any

import pytest
from conftest import MakeClient
from hypothesis import given
from hypothesis import strategies as st

from veo3_async import FixedPacing, LearnedPacing, Phase, Progress, StillPending, VideoTask
from veo3_async._lifecycle.judge import Track
from veo3_async._lifecycle.phase_clock import PhaseClock
from veo3_async._lifecycle.phases import State
from veo3_async._lifecycle.retries import NO_FAULTS, Streak
from veo3_async._polling import subscriptions
from veo3_async._polling.at_rest import packed, unpacked
from veo3_async._polling.job import Job, track_at
from veo3_async._protocol.families import Route, route_of
from veo3_async.testing import FakeVeo3, Life, Status

ROUTE = route_of("veo3-pro")
MOMENTS = st.floats(0, 1e10) | st.just(math.inf) | st.just(-math.inf)
MAYBE_MS = st.none() | st.integers(0, 2**53)
STATES = st.builds(
    State,
    phase=st.none() | st.sampled_from(Phase),
    status=st.text(st.characters(exclude_categories=["Cs"])),
    attempt=st.integers(0, 100),
    been=st.integers(0, 4095),
    entered_at=MAYBE_MS,
    updated_at=MAYBE_MS,
    video_url=st.none() | st.just("https://file.302.ai/a.mp4"),
    upsample=st.none() | st.booleans(),
    ended_since=st.none() | MOMENTS,
    fingerprint=st.none() | st.integers(0, 2**32 - 1),
    unchanged_since=st.none() | MOMENTS,
)
CLOCKS = st.builds(
    PhaseClock,
    st.builds(
        Progress,
        phase=st.sampled_from(Phase),
        age=st.floats(0, 1e6),
        previous_age=st.none() | st.floats(0, 1e6),
        polls=st.integers(0, 10**6),
        model=st.sampled_from(["", "/302/submit/veo3-pro", "veo3.1"]),
    ),
    MOMENTS,
    MAYBE_MS,
    MOMENTS,
    MOMENTS,
)
HASHES = st.none() | st.integers(-(2**63), 2**63 - 1)
TRACKS = st.builds(
    Track,
    st.just("veo3-pro:1"),
    st.just(NO_FAULTS),
    CLOCKS,
    st.booleans(),
    st.none() | st.just(ROUTE),
    interval=MOMENTS,
    reread_at=MOMENTS,
    fingerprint=HASHES,
)
CLOCK = PhaseClock(Progress(phase=Phase.GENERATING, age=3.25, model=ROUTE.path), 1e4, 1756712345678)
TRACK = Track(
    "veo3-pro:1",
    clock=CLOCK,
    is_known=True,
    route=ROUTE,
    interval=5.5,
    fingerprint=hash(b"a reply"),
)
STATE = State(Phase.GENERATING, "video_generating", 0, 4, 1756712345678, 1756712345678, None, True)

RUNNING = {"status": "video_generating", "running": True}
DONE = {"status": "completed", "running": False, "video_url": "https://file.302.ai/a.mp4"}


@given(track=TRACKS, state=STATES)
def test_what_was_packed_comes_back(track: Track, state: State) -> None:
    """Every number, word and None of it."""
    row = packed(track, state)
    assert row is not None
    assert unpacked(row, track.request_id, track.route) == (track, state)


def test_a_row_is_small() -> None:
    """It takes a quarter of what the objects take."""
    row = packed(TRACK, STATE)
    assert row is not None
    assert sys.getsizeof(row) < 240


@pytest.mark.parametrize(
    ("track", "state"),
    [
        (Track("veo3-pro:1"), STATE),
        (Track("veo3-pro:1", faults=Streak(1), clock=CLOCK), STATE),
        (Track("veo3-pro:1", clock=CLOCK, untried=(ROUTE,)), STATE),
        (TRACK, State(updated_at=10**30)),
        (TRACK, State(status="\ud800")),
        (TRACK, State(upsample=object())),  # type: ignore[arg-type] # whatever it may be
    ],
)
def test_what_makes_no_row_stays_as_it_is(track: Track, state: State) -> None:
    """No reply yet, faults, a path that was not tried yet, what no row can hold."""
    assert packed(track, state) is None


def test_what_rests_shares_its_track() -> None:
    """One serves all ids that are polled there."""
    assert track_at(ROUTE) is track_at(Route(ROUTE.family, ROUTE.path))
    assert track_at(ROUTE, is_known=True) == Track("", route=ROUTE, is_known=True)


class Resting:
    """Counts the polls after which an id rests."""

    def __init__(self) -> None:
        self.rests = 0


@pytest.fixture
def resting(monkeypatch: pytest.MonkeyPatch) -> Resting:
    """Let every id rest, as those of a crowd do."""
    counter, rest = Resting(), Job.rest

    def counted(job: Job) -> None:
        rest(job)
        counter.rests += job.row is not None

    monkeypatch.setattr(subscriptions, "_MANY", 0)
    monkeypatch.setattr(Job, "rest", counted)
    return counter


pytestmark = pytest.mark.anyio


async def phases_of(watch: Any) -> list[tuple[Phase | None, Phase]]:
    return [(change.previous, change.phase) async for change in watch]


class Noting(FixedPacing):
    """A pacing that notes what it gets."""

    def __init__(self) -> None:
        super().__init__(5.0, jitter=0.0)
        self.got: list[tuple[Phase, int, bool, str]] = []

    def delay(self, progress: Progress, rand: float) -> float:
        first = progress.previous_age is None
        self.got.append((progress.phase, progress.polls, first, progress.model))
        return super().delay(progress, rand)


async def test_a_life_is_seen_as_if_nothing_had_rested(
    server: FakeVeo3, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, resting: Resting
) -> None:
    """Every change once, each after the one before; and the pacing gets the same."""
    found = []
    for many in (0, 1000):
        monkeypatch.setattr(subscriptions, "_MANY", many)
        veo = make_client(pacing=(pacing := Noting()))
        found.append((await phases_of(veo.watch(server.add())), pacing.got))
        await veo.aclose()
    assert found[0] == found[1]
    assert found[0][0][-1] == (Phase.UPSAMPLING, Phase.COMPLETED)
    assert resting.rests > 10


async def test_who_joins_an_id_that_rests_is_brought_up_to_date(
    server: FakeVeo3, make_client: MakeClient, resting: Resting
) -> None:
    """Without a poll of its own, and both see the end."""
    veo = make_client(pacing=FixedPacing(100))
    request_id = server.add(life=Life.scripted([RUNNING, RUNNING, DONE]))
    first = veo.watch(request_id)
    assert (await anext(first)).phase is Phase.GENERATING
    await asyncio.sleep(1)
    assert resting.rests == 1
    second = veo.watch(request_id)
    assert (await anext(second)).phase is Phase.GENERATING
    assert len(server.polls_of(request_id)) == 1
    assert await phases_of(first) == await phases_of(second) != []


async def test_who_gives_up_an_id_that_rests_gets_what_is_known(
    server: FakeVeo3, make_client: MakeClient, resting: Resting
) -> None:
    """The task of `StillPending` is the last that was seen, and an eta is there meanwhile."""
    veo = make_client(pacing=LearnedPacing())
    request_id = server.add(life=Life.scripted([RUNNING]))
    watch = veo.watch(request_id, timeout=30)
    assert (await anext(watch)).phase is Phase.GENERATING
    await asyncio.sleep(1)
    assert watch.eta(request_id) is not None
    [end] = [change async for change in watch]
    assert isinstance(end.error, StillPending)
    assert isinstance(end.error.task, VideoTask)
    assert end.error.task.status == "video_generating"
    assert resting.rests >= 1


async def test_faults_keep_an_id_awake_and_it_rests_again_after_them(
    server: FakeVeo3, make_client: MakeClient, resting: Resting
) -> None:
    """The streak of its faults goes on, and ends."""
    veo = make_client(pacing=FixedPacing(5))
    request_id = server.add(life=Life.scripted([RUNNING] * 3 + [DONE]))
    async with veo.watch(request_id) as changes:
        assert (await anext(changes)).phase is Phase.GENERATING
        before = resting.rests
        server.fault(Status(500), times=3)
        assert (await anext(changes)).phase is Phase.COMPLETED
    assert resting.rests > before
