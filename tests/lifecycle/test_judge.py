"""The step that the poller and the workers of a cluster share."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo3_async._errors import AuthenticationError, TaskNotFound, UnexpectedReply
from veo3_async._lifecycle.judge import (
    UNCHANGED,
    Answer,
    Context,
    Track,
    View,
    judge,
    judge_bug,
)
from veo3_async._lifecycle.phases import NEW
from veo3_async._models import Phase, Transition, VideoTask
from veo3_async._pacing.learned import LearnedPacing
from veo3_async._pacing.policies import BackoffPacing, FixedPacing, Pacing, Progress
from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.families import read, route_of
from veo3_async._protocol.http import Reply
from veo3_async.cluster._record import decode as read_record
from veo3_async.cluster._record import encode
from veo3_async.cluster._step import begun, step

ID = "veo3-pro:68935cd4-58f5-49ce-878e-40b785dd33b8"
START = 1_770_000_000.0
URL = "https://file.302.ai/gpt/imgs/a.mp4"


def task(status: str, **more: object) -> VideoTask:
    """Return what the client reads of such a reply."""
    body = msgspec.json.encode({"id": ID, "status": status, "running": True, **more})
    task = read(route_of("veo3-pro"), Reply(200, {}, body), request_id=ID, wall_now=START)
    assert isinstance(task, VideoTask)
    return task


def context(now: float, attempts: int = 1) -> Context:
    return Context(now, now, 0.5, attempts, now - START)


NOT_FOUND = Problem(
    kind=Kind.NOT_FOUND, message="no such task", http_status=404, err_code=-10010, from_api=True
)
REPLIES: list[Answer] = [
    task("pending"),
    task("image_downloading"),
    task("video_generating", status_update_time=1_770_000_100_000),
    task("video_generation_failed", retry_count=1, max_retries=3),
    task("video_generation_completed", video_url=URL),
    task("video_upsampling", video_url=URL, req={"enable_upsample": True}),
    task("completed", running=False),
    task("completed", running=False, video_url=URL, upsample_video_url=URL),
    task("failed", running=False, video_generation_error="blocked", status_update_time=1),
    Problem(kind=Kind.SERVER, message="a fault", http_status=500),
    Problem(kind=Kind.THROTTLED, message="slowly", http_status=429, retry_after=7.0),
    Problem(kind=Kind.UNEXPECTED, message="a page", http_status=404),
    NOT_FOUND,
]
sequences = st.lists(
    st.tuples(st.sampled_from(REPLIES), st.floats(0.1, 100)), min_size=1, max_size=25
)
PACINGS = [lambda: BackoffPacing(1, 30), LearnedPacing, lambda: FixedPacing(10)]


def plain(change: Transition | None) -> object:
    """Return a transition so that two of them compare, error and all."""
    if change is None:
        return None
    error = None if change.error is None else (type(change.error), vars(change.error))
    return msgspec.structs.replace(change, error=None), error


@pytest.mark.parametrize("make_pacing", PACINGS, ids=["backoff", "learned", "fixed"])
@given(sequence=sequences)
def test_poller_and_worker_judge_alike(
    make_pacing: type[Pacing], sequence: list[tuple[Answer, float]]
) -> None:
    """Any replies and faults give both the same transitions, delays and knowledge.

    The worker's record goes through its JSON between two polls, as it does in the cluster.
    """
    of_poller, of_worker = make_pacing(), make_pacing()
    track, view = Track(ID), View(NEW)
    record, remembered, now = begun(None, ID, 1), Track(ID), START
    for attempts, (answer, later) in enumerate(sequence, start=1):
        now += later
        reply = None if isinstance(answer, Problem) else Reply(200, {}, b"")
        here = context(now, attempts)
        ruling = judge(track, [view], answer, reply=reply, pacing=of_poller, context=here)
        after = step(record, remembered, answer, reply=reply, pacing=of_worker, context=here)
        [judged] = ruling.views
        change = after.record.change if after.record.serial > record.serial else None
        assert plain(judged.change) == plain(change)
        assert ruling.delay == after.delay
        assert judged.state == after.record.state
        if ruling.delay is None:
            break
        track, view = ruling.track, View(judged.state)
        record, remembered = read_record(encode(after.record), ID), after.track
    if isinstance(of_poller, LearnedPacing) and isinstance(of_worker, LearnedPacing):
        assert of_poller.to_dict() == of_worker.to_dict()


def test_each_watcher_gets_what_it_waits_for() -> None:
    """One is content with the plain video, and the task is not over for the other."""
    views = [View(NEW, "video"), View(NEW, "best")]
    answer = task("video_upsampling", video_url=URL, req={"enable_upsample": True})
    ruling = judge(
        Track(ID), views, answer, reply=None, pacing=FixedPacing(10), context=context(START)
    )
    phases = [view.change and (view.change.phase, view.change.final) for view in ruling.views]
    assert phases == [(Phase.COMPLETED, True), (Phase.UPSAMPLING, False)]
    assert (ruling.ends_task, ruling.delay is None) == (False, False)


def test_fault_15_what_is_wrong_with_the_key_is_fatal() -> None:
    """No view changes: the tasks go on, and can be watched again."""
    problem = Problem(kind=Kind.AUTHENTICATION, message="refused", err_code=-10001, from_api=True)
    ruling = judge(
        Track(ID), [View(NEW)], problem, reply=None, pacing=FixedPacing(10), context=context(START)
    )
    assert isinstance(ruling.fatal, AuthenticationError)
    assert [view.change for view in ruling.views] == [None]


def test_fault_13_the_end_of_an_unknown_id_ends_the_task() -> None:
    """With the counts of the poll that showed it, in an error of its own for each watcher."""
    track, views = Track(ID), [View(NEW), View(NEW, "video")]
    for second in (0, 30):
        ruling = judge(
            track,
            views,
            NOT_FOUND,
            reply=None,
            pacing=FixedPacing(10),
            context=context(START + second, 2),
        )
        track = ruling.track
    assert (ruling.ends_task, ruling.delay) == (True, None)
    errors = [view.change.error for view in ruling.views if view.change]
    assert [type(error) for error in errors] == [TaskNotFound] * 2
    assert errors[0] is not errors[1]
    assert [(e.attempts, e.elapsed, e.err_code) for e in errors if e] == [(2, 30.0, -10010)] * 2


def test_fault_8_the_hint_of_a_throttle_binds_its_id() -> None:
    """The id waits at least as long as the server asks."""
    problem = Problem(kind=Kind.THROTTLED, message="slowly", http_status=429, retry_after=50.0)
    ruling = judge(
        Track(ID), [View(NEW)], problem, reply=None, pacing=FixedPacing(10), context=context(START)
    )
    assert ruling.delay is not None
    assert 50 <= ruling.delay <= 51


def test_nothing_new_goes_on_in_the_same_phase() -> None:
    """The same bytes bring no transition, and count for the pacing."""
    pacing = BackoffPacing(1, 30, jitter=0)
    ruling = judge(
        Track(ID),
        [View(NEW)],
        task("pending"),
        reply=None,
        pacing=pacing,
        context=context(START),
    )
    delays = [ruling.delay]
    for second in (1, 2, 3):
        ruling = judge(
            ruling.track,
            [View(ruling.views[0].state)],
            UNCHANGED,
            reply=None,
            pacing=pacing,
            context=context(START + second),
        )
        assert ruling.views[0].change is None
        delays.append(ruling.delay)
    assert delays == [1.0, 1.5, 2.25, 3.375]


def test_the_same_bytes_are_read_again_when_time_decides() -> None:
    """A task that is completed without a video is asked for at the end of its grace, and read."""
    ruling = judge(
        Track(ID),
        [View(NEW)],
        task("completed", running=False),
        reply=None,
        pacing=FixedPacing(300, jitter=0),
        context=context(START),
    )
    assert (ruling.delay, ruling.track.reread_at) == (60.0, START + 60.0)


@pytest.mark.parametrize("said", ["kling-21", "sora-2"])
def test_each_model_of_the_unified_endpoint_is_learned_by_itself(said: str) -> None:
    """One path serves them all, and neither the journal nor an id says which it is."""
    route = msgspec.structs.replace(route_of(said), model="")
    ended: list[str] = []

    class Notes(FixedPacing):
        def phase_ended(self, last: Progress, lasted: float, successor: Phase) -> None:
            del lasted, successor
            ended.append(last.model)

    track, view = Track("1", route=route), View(NEW)
    for second, status in enumerate(("pending", "processing", "failed")):
        body = msgspec.json.encode({"task_id": "1", "model": said, "status": status})
        answer = read(route, Reply(200, {}, body), request_id="1", wall_now=START)
        here = context(START + second)
        ruling = judge(track, [view], answer, reply=None, pacing=Notes(), context=here)
        track, view = ruling.track, View(ruling.views[0].state)
    assert ended == [said, said]


def test_fault_7_what_was_seen_is_seen_again_within_an_interval_after_an_outage() -> None:
    """However long it lasts; of what was never seen no interval is known."""
    page = Problem(kind=Kind.UNEXPECTED, message="a page", http_status=404)
    fresh, seen = Track(ID), Track(ID)
    ruling = judge(
        seen,
        [View(NEW)],
        task("video_generating"),
        reply=None,
        pacing=FixedPacing(5, jitter=0),
        context=context(START),
    )
    seen = ruling.track
    for second in range(100):
        rulings = [
            judge(
                track,
                [View(NEW)],
                page,
                reply=None,
                pacing=FixedPacing(5),
                context=context(START + second),
            )
            for track in (fresh, seen)
        ]
        fresh, seen = (ruling.track for ruling in rulings)
    assert [ruling.delay for ruling in rulings] == [15, 5]


@pytest.mark.parametrize("method", ["delay", "phase_ended", "eta"])
def test_an_error_of_the_pacing_is_fatal(method: str) -> None:
    """It serves all ids, so it is not the end of one."""

    class Broken(FixedPacing):
        pass

    def fail(*_: object) -> float:
        raise LookupError(method)

    setattr(Broken, method, fail)
    ruling = judge(
        Track(ID), [View(NEW)], task("pending"), reply=None, pacing=Broken(), context=context(START)
    )
    if ruling.fatal is None:
        ruling = judge(
            ruling.track,
            [View(ruling.views[0].state)],
            task("video_generating"),
            reply=None,
            pacing=Broken(),
            context=context(START),
        )
    assert repr(ruling.fatal) == repr(LookupError(method))


def test_a_bug_ends_its_id_alone_and_as_lost() -> None:
    """The error asks to report it, and the task is owed."""
    ruling = judge_bug(Track(ID), [View(NEW)], OverflowError("oops"), context(START + 3, 4))
    [view] = ruling.views
    assert view.change is not None
    assert (view.change.phase, view.change.final) == (Phase.LOST, True)
    assert isinstance(view.change.error, UnexpectedReply)
    assert "OverflowError" in view.change.error.message
    assert (view.change.error.attempts, view.change.error.elapsed) == (4, 3.0)
