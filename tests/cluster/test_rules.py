"""Rules of the cluster that need no server: what is lost, what is unread, what is believed."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo3_async._errors import InvalidRequest, StillPending, TaskNotFound
from veo3_async._lifecycle.judge import Context
from veo3_async._lifecycle.phases import STANDSTILL
from veo3_async._lifecycle.places import submitted_to
from veo3_async._metadata import Origin
from veo3_async._models import Phase, Transition, VideoTask
from veo3_async._pacing.policies import FixedPacing
from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.http import Reply
from veo3_async.cluster._clock import ServerClock
from veo3_async.cluster._origin import decode_origin, encode_origin, made_origin
from veo3_async.cluster._permits import believed
from veo3_async.cluster._rate import FULL, SharedRate
from veo3_async.cluster._record import Record, decode, encode
from veo3_async.cluster._step import Step, begun, step, step_bug, track_of
from veo3_async.cluster._unread import Unread
from veo3_async.cluster._watched import Watched

ID = "veo3-pro:68935cd4-58f5-49ce-878e-40b785dd33b8"
NOW = 1_770_000_000.0
AT_WORK = VideoTask(
    id=ID, status="video_generating", phase=Phase.GENERATING, running=True, status_update_time=1
)
NOT_FOUND = Problem(kind=Kind.NOT_FOUND, message="no such task", err_code=-10010, from_api=True)
OUTAGE = Problem(kind=Kind.SERVER, message="outage")


def polled(known: Record, answer: VideoTask | Problem, now: float) -> Step:
    """Poll once, as a worker that takes the id over."""
    done = step(
        known,
        track_of(known),
        answer,
        reply=None if isinstance(answer, Problem) else Reply(200, {}, b""),
        pacing=FixedPacing(10, jitter=0),
        context=Context(now, now, 0.5, 3, 9.0),
    )
    return msgspec.structs.replace(done, record=decode(encode(done.record), ID))


def stalled() -> Record:
    """Return an id that has stood still for so long that listeners heard that it is lost."""
    first = polled(begun(None, ID, 1), AT_WORK, NOW).record
    return polled(first, AT_WORK, NOW + STANDSTILL).record


# --- what the service did not end -----------------------------------------------------------


def test_fault_40_an_id_that_stands_still_is_delivered_once_and_not_let_go() -> None:
    """Listeners hear once that it is lost; it is asked for again, less and less often."""
    lost = stalled()
    assert lost.change is not None
    assert isinstance(lost.change.error, StillPending)
    assert lost.final
    assert not lost.ended
    at = lost.change.observed_at
    delays = []
    for hours in (0, 1, 2, 20):
        later = polled(lost, AT_WORK, at + 3600 * hours)
        assert encode(lost) == encode(later.record)
        delays.append(later.delay)
    assert [600.0, 3600.0, 7200.0, 21600.0] == delays


def test_fault_40_a_lost_id_that_moves_again_is_followed_to_its_end() -> None:
    """The next reply that says something else begins a new life, which ends as any other."""
    lost = stalled()
    moved = polled(lost, msgspec.structs.replace(AT_WORK, status_update_time=2), NOW + 9000)
    assert moved.record.serial == lost.serial + 1
    assert moved.delay == 10.0
    done = msgspec.structs.replace(
        AT_WORK,
        status="completed",
        phase=Phase.COMPLETED,
        running=False,
        ended=True,
        upsample_video_url="https://file.302.ai/a.mp4",
    )
    ended = polled(moved.record, done, NOW + 9100)
    assert ended.record.ended
    assert ended.delay is None


def test_fault_40_an_outage_tells_nobody_anything_of_a_lost_id() -> None:
    """What goes wrong with a poll of a lost id is counted, and never delivered again."""
    lost = stalled()
    for answer in (OUTAGE, NOT_FOUND):
        after = polled(lost, answer, NOW + STANDSTILL + 1)
        assert lost.serial == after.record.serial
        assert after.record.final
        assert after.delay == 600.0


def test_fault_40_the_service_may_end_what_was_lost() -> None:
    """An id that the API itself has not known for long is delivered as that, and let go."""
    record, now = stalled(), NOW + STANDSTILL
    for _ in range(3):
        now += 600
        after = polled(record, NOT_FOUND, now)
        record = after.record
    assert record.ended
    assert after.delay is None
    assert record.change is not None
    assert isinstance(record.change.error, TaskNotFound)


def test_a_key_that_is_refused_at_a_lost_id_ends_the_work() -> None:
    """What concerns all ids is fatal, whatever id it came with."""
    refused = Problem(kind=Kind.AUTHENTICATION, message="refused", from_api=True)
    assert polled(stalled(), refused, NOW + 9000).fatal is not None


def test_an_internal_error_lets_no_id_go() -> None:
    """A bug of ours is delivered once, and the id is asked for again."""
    context = Context(NOW, NOW, 0.5, 3, 9.0)
    known = polled(begun(None, ID, 1), AT_WORK, NOW).record
    lost = step_bug(known, track_of(known), ZeroDivisionError(), context)
    assert (True, False, 600.0) == (lost.record.final, lost.record.ended, lost.delay)
    again = step_bug(lost.record, lost.track, ZeroDivisionError(), context)
    assert (lost.record, 600.0) == (again.record, again.delay)


# --- what a listener has not read ------------------------------------------------------------


def record_of(phase: Phase, previous: Phase | None = None, *, brought_by: int = 0) -> Record:
    change = Transition(
        request_id=ID,
        phase=phase,
        previous=previous,
        status="",
        task=VideoTask(id=ID),
        observed_at=NOW,
        final=phase in {Phase.COMPLETED, Phase.LOST},
    )
    return Record(request_id=ID, watch=1, serial=1, brought_by=brought_by, change=change)


def read(unread: Unread, record: Record, sequence: int) -> Phase | None:
    change = unread.unread_in(record, sequence)
    if change is not None:
        unread.delivered(record, sequence)
    return None if change is None else change.phase


def test_fault_67_after_a_purge_what_is_new_is_told() -> None:
    """A worker that sees an id anew after a purge begins to count anew; the end is delivered."""
    for unread in (Unread([ID]), Unread([])):
        assert Phase.GENERATING is read(unread, record_of(Phase.GENERATING), 7)
        assert read(unread, record_of(Phase.GENERATING), 8) is None
        change = unread.unread_in(record_of(Phase.COMPLETED), 9)
        assert change is not None
        assert (Phase.GENERATING, True) == (change.previous, change.final)


def test_fault_67_a_stream_that_was_made_again_begins_at_1() -> None:
    """The numbers of another stream are compared with none of the old one."""
    unread = Unread([])
    read(unread, record_of(Phase.GENERATING), 700)
    unread.began_anew()
    assert read(unread, record_of(Phase.GENERATING), 1) is None
    assert Phase.COMPLETED is read(unread, record_of(Phase.COMPLETED), 2)


def test_an_end_is_delivered_once_whatever_is_recorded_afterwards() -> None:
    """An id that was handed in again after a loss ends again, and who heard that hears nothing."""
    one, every = Unread([ID]), Unread([])
    for unread in (one, every):
        assert Phase.COMPLETED is read(unread, record_of(Phase.COMPLETED), 7)
        assert read(unread, record_of(Phase.COMPLETED), 8) is None
    assert one.is_over
    assert not every.is_over


def test_what_was_lost_may_come_again_to_who_listens_to_all() -> None:
    """To be lost is no end of a task."""
    unread = Unread([])
    assert Phase.LOST is read(unread, record_of(Phase.LOST), 7)
    assert Phase.GENERATING is read(unread, record_of(Phase.GENERATING), 8)


def test_a_record_that_keeps_count_is_delivered_to_who_comes_late_only() -> None:
    """It repeats the last transition, which has a place of its own."""
    unread = Unread([])
    assert Phase.GENERATING is read(unread, record_of(Phase.GENERATING), 7)
    assert read(unread, record_of(Phase.GENERATING, brought_by=7), 9) is None
    assert Phase.GENERATING is read(Unread([]), record_of(Phase.GENERATING, brought_by=7), 9)
    assert read(Unread([], floor=8), record_of(Phase.GENERATING, brought_by=7), 9) is None


# --- what is watched -------------------------------------------------------------------------


@given(st.lists(st.sampled_from("abcdefgh")))
def test_what_is_watched_has_a_bound(names: list[str]) -> None:
    """The last ids are kept, each as it was handed in first."""
    watched = Watched(3)
    for number, name in enumerate(names):
        watched.add([name], str(number).encode())
    assert len(watched) == min(3, len(set(names)))
    assert len(watched) == len(watched.oldest(None))


def test_ids_are_looked_after_in_turn() -> None:
    """Those that were looked at come last in the next round; those that are final, never."""
    watched = Watched()
    watched.add("abcd")
    assert ["a", "b"] == [name for name, _ in watched.oldest(2)]
    watched.discard("c")
    assert ["d", "a"] == [name for name, _ in watched.oldest(2)]


# --- what travels with an id -----------------------------------------------------------------


def test_an_origin_comes_back_from_its_payload() -> None:
    """Where nothing is said, nothing is sent."""
    assert b"" == encode_origin(Origin())
    for origin in (Origin(), Origin("queue", "/q", {"chat": 1}), Origin(metadata=[None])):
        assert origin == decode_origin(encode_origin(origin))
    with pytest.raises(ValueError, match="not an origin"):
        decode_origin(b"{")


def test_a_route_is_that_of_the_model() -> None:
    """A family or a model says where an id is polled; neither leaves it to the worker."""
    assert submitted_to(made_origin(None, None, {"chat": 1})) is None
    route = submitted_to(made_origin("veo3-fast", None, None))
    assert route is not None
    assert "veo3-fast" in route.path
    with pytest.raises(InvalidRequest):
        made_origin(None, "none", None)


def test_metadata_goes_with_every_record() -> None:
    """It is in the transition that a record brings."""
    origin = Origin("record", "/302/submit/veo3-pro", {"chat": 1})
    record = polled(begun(None, ID, 1, origin), AT_WORK, NOW).record
    assert origin == record.origin
    assert record.change is not None
    assert {"chat": 1} == record.change.metadata
    assert Origin("queue", "/q") == begun(record, ID, 1, Origin("queue", "/q")).origin


# --- clocks ----------------------------------------------------------------------------------


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_fault_8_68_nobody_waits_longer_than_the_cap(paused: float, cut: float) -> None:
    """Whatever somebody wrote, by whatever clock, the pause and the cut are of the past or soon."""
    shared = believed(SharedRate(5.0, NOW + cut, NOW + paused), NOW)
    assert shared.paused_until <= NOW + 121
    assert shared.cut_at <= NOW + 5
    assert FULL == believed(FULL, NOW)


def test_fault_68_the_clock_is_the_server_s() -> None:
    """A machine that is ten minutes ahead says what the server says; slow answers say nothing."""
    clock = ServerClock()
    clock.heard(100.0, 100.2, NOW)
    offset = clock.offset
    clock.heard(100.0, 102.0, NOW + 600)
    assert offset == pytest.approx(clock.offset, abs=5.0)
