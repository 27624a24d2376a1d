"""The state machine: its rules, one by one."""

from __future__ import annotations

from typing import Any, Final

import pytest
import wire
from hypothesis import given
from hypothesis import strategies as st
from watching import (
    EPOCH,
    ID,
    NO_UPSAMPLE,
    PLAIN,
    START,
    UNTILS,
    UPSAMPLE,
    UPSAMPLED,
    WITH_PLAIN,
    Watch,
    sample,
    says,
    seen,
)

from veo3_async._errors import (
    CompletedWithoutVideo,
    InvalidRequest,
    StillPending,
    TaskFailed,
    TaskNotFound,
    UnexpectedReply,
    Veo3Error,
)
from veo3_async._lifecycle.phases import (
    GRACE,
    NEW,
    STANDSTILL,
    State,
    Until,
    end,
    grace_left,
    kept_once,
    observe,
    remembered,
    standstill_left,
)
from veo3_async._lifecycle.retries import NO_FAULTS, Verdict, after_fault
from veo3_async._models import FINAL, Phase, Transition, VideoTask

Q, P, G, D, U = (
    Phase.QUEUED,
    Phase.PREPARING,
    Phase.GENERATING,
    Phase.GENERATED,
    Phase.UPSAMPLING,
)
R, X, C, CP, F, L = (
    Phase.RETRYING,
    Phase.UNKNOWN,
    Phase.COMPLETED,
    Phase.COMPLETED_PLAIN,
    Phase.FAILED,
    Phase.LOST,
)
GENERATING: Final = sample("record_video_generating")
GENERATED: Final = sample("record_video_generation_completed")
UPSAMPLING: Final = sample("record_video_upsampling")
COMPLETED: Final = sample("record_completed_in_data")
COMPLETE: Final = {"video_url": PLAIN, "upsample_video_url": UPSAMPLED}


# --- rule 1 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", sorted(FINAL))
def test_rule_1_nothing_follows_a_final(phase: Phase) -> None:
    """Not even a better video, and the state stays as it is."""
    state = State(phase=phase)
    for reply in (GENERATING, COMPLETED, sample("record_failed")):
        assert observe(state, reply, START, request_id=ID, wall_now=0) == (state, None)


# --- rule 2 -----------------------------------------------------------------------------------


def test_fault_21_trap_7_replies_can_go_backwards() -> None:
    """An older one changes nothing, terminal stays terminal."""
    pending = sample("record_pending")
    assert seen(GENERATING, pending, GENERATING, GENERATED, pending) == [G, D]
    assert seen(UPSAMPLING, GENERATING) == [U]
    assert seen(COMPLETED, GENERATING, sample("record_failed")) == [C]
    assert seen(sample("record_failed"), GENERATING, COMPLETED) == [F]


def test_fault_21_rule_2_an_older_time_changes_nothing() -> None:
    """Not the phase, not the status, not the attempt."""
    watch = Watch()
    watch.see(says("video_generating", 200))
    state = watch.state
    watch.see(
        says("video_generation_failed", 199, running=True),
        says("video_upsampling", 199, retry_count=2),
        says("brand_new", 199),
    )
    assert watch.phases == [G]
    assert (watch.state.status, watch.state.attempt) == (state.status, state.attempt)
    assert watch.see(says("video_upsampling", 200)) == [G, U]


def test_fault_21_rule_2_seconds_and_milliseconds_are_compared_in_one_unit() -> None:
    """One node of a gateway tells the one, another the other."""
    assert seen(says("video_upsampling", 5000), says("video_generating", None)) == [U]
    older = wire.task_of(
        {"id": ID, "status": "video_generating", "status_update_time": EPOCH // 1000}
    )
    newer = wire.task_of(
        {"id": ID, "status": "video_generation_failed", "status_update_time": EPOCH // 1000 + 9}
    )
    assert seen(says("video_upsampling", 5000), older) == [U]
    assert seen(says("video_upsampling", 5000), newer) == [U, R]


ENDS: Final[dict[str, tuple[VideoTask, Phase]]] = {
    "failed": (says("failed", 100, running=False), F),
    "cancelled": (says("cancelled", 100, running=False), F),
    "completed": (says("completed", 100, running=False), F),
    "completed, plain": (says("completed", 100, running=False, video_url=PLAIN), C),
    "completed, not upsampled": (says("completed", 100, running=False, **WITH_PLAIN), CP),
}


@pytest.mark.parametrize("name", ENDS)
def test_fault_21_rule_2_an_older_end_is_believed_after_the_grace(name: str) -> None:
    """One clock that is ahead does not hide the end for good: said for 60 s, it is one."""
    end_, phase = ENDS[name]
    watch = Watch()
    watch.see(says("video_generating", 200, running=True), *[end_] * 6)
    assert watch.phases == [G]
    assert grace_left(watch.state, watch.now - 1) == 1
    assert watch.see(end_) == [G, phase]


@pytest.mark.parametrize("name", ENDS)
def test_fault_21_rule_2_an_older_end_is_not_believed_while_newer_replies_come(name: str) -> None:
    """A stale cache among nodes that know better ends nothing, however long it goes on."""
    running = says("video_generating", 200, running=True)
    assert seen(*[running, *[ENDS[name][0]] * 5] * 20) == [G]


def test_rule_2_an_older_reply_that_runs_takes_no_end_back() -> None:
    """It says nothing, neither for the end nor against it, and calls for no haste."""
    watch = Watch()
    watch.see(says("completed", 200))
    watch.see(*[says("video_generating", 100)] * 6)
    assert (watch.phases, grace_left(watch.state, watch.now)) == ([], None)
    assert watch.see(says("completed", 200)) == [F]


def test_fault_21_rule_2_the_video_of_an_older_reply_exists() -> None:
    """It makes no transition, and is there when the end comes without one; a newer one stays."""
    watch = Watch()
    watch.see(says("video_upsampling", 200), says("video_generating", 100, video_url=PLAIN))
    assert watch.phases == [U]
    watch.see(says("video_upsampling", 150, video_url="https://older"))
    watch.see(says("failed", 300))
    assert (watch.phases, watch.last.task.video_url) == ([U, CP], PLAIN)


@pytest.mark.parametrize(
    ("until", "old"),
    [
        ("best", says("completed", 100, upsample_video_url=UPSAMPLED)),
        ("video", says("completed", 100, upsample_video_url=UPSAMPLED)),
        ("video", says("video_generation_completed", 100, video_url=PLAIN)),
        ("best", says("video_generating", upsample_video_url=UPSAMPLED)),
    ],
    ids=["best", "video", "plain", "no time"],
)
def test_fault_21_rule_2_an_older_reply_with_the_video_that_was_asked_for_ends_it(
    until: Until, old: VideoTask
) -> None:
    """It was paid for and is there, even if the server's clock has been set back for good."""
    watch = Watch(until)
    watch.see(says("video_upsampling", 200, req=UPSAMPLE), old)
    assert (watch.phases, watch.last.task.best_url) == ([U, C], old.best_url)


@pytest.mark.parametrize(
    ("before", "after", "phases"),
    [
        (says("video_generating"), says("pending"), [G]),
        (says("video_upsampling", 200), says("video_generating"), [U]),
        (says("video_upsampling"), says("video_generating", 200), [U]),
        (says("video_upsampling", retry_count=1), says("pending", retry_count=0), [U]),
        (says("video_upsampling", retry_count=1), says("pending", retry_count=2), [U, Q]),
        (says("video_upsampling", 100), says("video_generating", 200), [U, G]),
        (says("video_generation_failed"), says("pending"), [R, Q]),
        (says("brand_new"), says("pending"), [X, Q]),
        (says("video_generating"), says("brand_new"), [G, X]),
        (says("video_upsampling", req=UPSAMPLE), says("completed"), [U]),
    ],
    ids=range(10),
)
def test_fault_21_rule_2_without_a_time_the_phase_tells_what_is_old(
    before: VideoTask, after: VideoTask, phases: list[Phase]
) -> None:
    """Going back within an attempt is old; a new attempt, or a newer time, is not."""
    assert seen(before, after) == phases


# --- rule 3 -----------------------------------------------------------------------------------


def test_rule_3_a_url_once_seen_is_kept() -> None:
    """Replies that leave it out do not lose it; a newer URL replaces it."""
    watch = Watch()
    watch.see(says("video_generation_completed", video_url="https://1", req=UPSAMPLE))
    watch.see(says("video_upsampling"))
    assert watch.last.task.video_url == "https://1"
    watch.see(says("video_upsampling_completed", video_url=PLAIN), says("brand_new"))
    assert watch.last.task.video_url == PLAIN


@pytest.mark.parametrize("status", ["pending", "video_upsampling", "video_polishing", "failed"])
def test_trap_6_rule_3_a_url_can_precede_completed(status: str) -> None:
    """The URL decides, whatever the word."""
    assert seen(says(status, running=True, upsample_video_url=UPSAMPLED)) == [C]
    assert seen(says(status, running=True, video_url=PLAIN), until="video") == [C]
    assert seen(says(status, running=True, video_url=PLAIN, req=NO_UPSAMPLE)) == [C]


@pytest.mark.parametrize("until", UNTILS)
def test_trap_6_rule_5_completed_can_precede_a_url(until: Until) -> None:
    """A poll or two without a video are no transition and no end."""
    watch = Watch(until)
    watch.see(GENERATING, *[sample("record_completed_no_url")] * 2)
    assert watch.phases == [G]
    assert watch.see(says("completed", 334_000, **COMPLETE)) == [G, C]


@pytest.mark.parametrize(
    "hint",
    [
        {"req": UPSAMPLE},
        {"upsample_generation_id": "u"},
        {"upsample_status": "MEDIA_GENERATION_STATUS_PENDING"},
    ],
    ids=["request", "handle", "status"],
)
def test_rule_3_what_shows_that_an_upsampling_was_asked_for_is_remembered(
    hint: dict[str, Any],
) -> None:
    """The request, or any trace of an upsampling: a bare end later is not the plain video's."""
    plain = says("completed", video_url=PLAIN)
    assert seen(says("video_generating", **hint), plain) == [G, D]
    assert seen(says("video_upsampling"), plain) == [U, D]
    assert seen(says("video_generating"), plain) == [G, C]
    assert seen(says("video_upsampling", req=NO_UPSAMPLE), plain) == [U, C]


def test_trap_5_rule_3_a_single_url_that_was_the_plain_one_before_still_is() -> None:
    """A gateway with one field says completed a poll before it changes the URL."""
    page = wire.content("record_completed_url_is_upsampled")
    early = wire.task_of(page | {"video_url": GENERATED.video_url})
    late = wire.task_of(page)
    assert early.upsample_video_url == GENERATED.video_url
    watch = Watch()
    assert watch.see(GENERATED, early) == [D]
    assert watch.see(late) == [D, C]
    assert watch.last.task.best_url == page["video_url"]
    assert seen(late) == [C]
    watch = Watch()
    assert watch.see(GENERATED, *[early] * 7) == [D, CP]


# --- rule 4 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("running", [None, True, False])
def test_rule_4_failed_is_final_at_once(running: bool | None) -> None:
    """Whatever ``running`` says; the reason is in the error."""
    watch = Watch()
    watch.see(says("video_generating"), says("failed", running=running, error="blocked"))
    assert watch.phases == [G, F]
    error = watch.last.error
    assert isinstance(error, TaskFailed)
    assert (error.request_id, error.task) == (ID, watch.last.task)
    assert error.message == "the service gave the task up: blocked"


def test_rule_4_a_failure_may_have_no_reason() -> None:
    """Then the message says so."""
    watch = Watch()
    watch.see(sample("record_failed_no_reason"))
    assert watch.last.error is not None
    assert watch.last.error.message.endswith(": no reason given")


@pytest.mark.parametrize("req", [UPSAMPLE, None])
def test_rule_4_a_failure_with_a_plain_video_ends_with_it(req: Any) -> None:
    """Also with one that an earlier reply had, and with no error."""
    watch = Watch()
    assert watch.see(says("failed", video_url=PLAIN, req=req)) == [CP]
    watch = Watch()
    watch.see(says("video_upsampling", video_url=PLAIN, req=req), says("failed"))
    assert (watch.phases, watch.last.error) == ([U, CP], None)
    assert watch.last.task.video_url == PLAIN
    assert watch.last.task.phase is CP


@pytest.mark.parametrize(
    "name",
    [
        *("video_generation_failed_running", "video_generation_failed_waiting"),
        *("video_generation_failed_last_attempt", "video_upsampling_failed"),
        *("video_generating_in_pool", "video_generation_completed_in_pool", "pending"),
    ],
)
def test_fault_44_rule_4_what_waits_in_the_pool_has_not_ended(name: str) -> None:
    """However often it is said, for the two hours in which something may change."""
    watch = Watch()
    watch.see(*[sample(f"record_{name}")] * int(STANDSTILL / 10))
    assert len(watch.phases) == 1
    assert not watch.state.final
    assert grace_left(watch.state, watch.now) is None
    assert watch.see(COMPLETED)[-1] is C


def test_trap_1_rule_4_each_attempt_shows_its_phases() -> None:
    """The video of the last one is the result."""
    watch = Watch()
    for attempt in range(3):
        watch.see(
            says("video_generating", retry_count=attempt),
            says("video_generation_failed", running=False, retry_count=attempt, max_retries=2),
        )
    watch.see(says("completed", retry_count=3, upsample_video_url=UPSAMPLED))
    assert watch.phases == [G, R, G, R, G, R, C]


# --- rule 5 -----------------------------------------------------------------------------------


def test_rule_5_an_end_without_the_upsampled_video_waits_a_minute() -> None:
    """Then the plain one is the result."""
    watch = Watch()
    ended = says("completed", **WITH_PLAIN)
    watch.see(*[ended] * 6)
    assert (watch.phases, grace_left(watch.state, watch.now - 1)) == ([D], 1)
    assert watch.see(ended) == [D, CP]
    assert (watch.last.error, watch.last.task.phase) == (None, CP)


def test_rule_5_an_upsampling_that_failed_is_not_waited_for() -> None:
    """Neither is one that nobody asked for."""
    failed = "MEDIA_GENERATION_STATUS_FAILED"
    assert seen(says("completed", video_url=PLAIN, upsample_status=failed)) == [CP]
    assert seen(says("completed", video_url=PLAIN)) == [C]
    assert seen(says("video_generating", video_url=PLAIN), says("completed")) == [G, C]


@pytest.mark.parametrize("until", UNTILS)
def test_fault_39_rule_5_completed_without_any_video(until: Until) -> None:
    """Asked again for 60 s, then final with the server's reason."""
    watch = Watch(until)
    ended = says("completed", running=False, error_message="no quota left upstream")
    watch.see(says("video_generating"), *[ended] * 6)
    assert watch.phases == [G]
    assert watch.see(ended) == [G, F]
    error = watch.last.error
    assert isinstance(error, CompletedWithoutVideo)
    assert error.message == "completed for 60 s, and no video: no quota left upstream"
    assert (error.request_id, error.task) == (ID, watch.last.task)


@pytest.mark.parametrize("until", UNTILS)
@pytest.mark.parametrize(
    "word", ["canceled", "Cancelled", "EXPIRED", "timeout", "rejected", "blocked"]
)
def test_fault_12_rule_5_words_that_sound_like_an_end_are_one_after_a_minute(
    word: str, until: Until
) -> None:
    """Gateways in between have them."""
    watch = Watch(until)
    stopped = says(word, 5, error_message="by the operator")
    watch.see(*[stopped] * 6)
    assert watch.phases == [X]
    assert grace_left(watch.state, watch.now - 1) == 1
    assert watch.see(stopped) == [X, F]
    error = watch.last.error
    assert isinstance(error, TaskFailed)
    assert error.message == f"the service has said {word!r} for 60 s: by the operator"
    assert (error.request_id, error.task) == (ID, watch.last.task)


def test_fault_12_rule_5_a_word_that_is_taken_back_was_no_end() -> None:
    """A minute in all is not a minute without a break; with a plain video that is the result."""
    cancelled, running = says("cancelled", 5), says("video_generating", 5)
    assert seen(*[*[cancelled] * 6, running] * 20) == [X, G]
    assert seen(*[says("cancelled", **WITH_PLAIN)] * 7) == [X, CP]


@pytest.mark.parametrize("word", ["error", "success", "brand_new", "image_downloading_failed"])
def test_fault_12_rule_5_other_words_run(word: str) -> None:
    """They are forwarded, and nothing ends."""
    watch = Watch()
    watch.see(*[says(word, 5)] * 100)
    assert len(watch.phases) == 1
    assert not watch.state.final


@given(st.floats(0, 1e7), st.floats(0, 59.9))
def test_fault_39_the_end_of_the_grace_is_hit_exactly(since: float, later: float) -> None:
    """Who polls again when `grace_left` is over has waited long enough, or nearly so once."""
    watch = Watch()
    watch.now = since
    watch.see(says("completed"), step=later)
    polls = 0
    while not watch.state.final:
        wait = grace_left(watch.state, watch.now)
        assert wait is not None
        watch.now += wait
        watch.see(says("completed"), step=0.0)
        polls += 1
        assert polls <= 3
    assert watch.now == pytest.approx(since + GRACE)


# --- rule 6 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [None, PLAIN])
def test_fault_40_rule_6_where_nothing_changes_for_two_hours_sight_is_lost(
    url: str | None,
) -> None:
    """LOST, with the plain video if there is one; it is no word of the service."""
    watch = Watch()
    reply = says("video_upsampling", 5, running=True, video_url=url, req=UPSAMPLE)
    watch.see(*[reply] * int(STANDSTILL / 10))
    assert watch.phases == [U]
    assert standstill_left(NEW, watch.now) is None
    assert standstill_left(watch.state, watch.now - 1) == 1
    assert standstill_left(watch.state, watch.now) == 0
    assert watch.see(reply) == [U, L]
    assert isinstance(watch.last.error, StillPending)
    assert "2 h" in watch.last.error.message
    assert watch.last.task.video_url == url


@pytest.mark.parametrize(
    "change",
    [
        {"status": "video_polishing"},
        {"status_update_time": EPOCH + 6},
        {"retry_count": 1},
        {"images": [{"status": "completed"}]},
        {"video_url": PLAIN},
    ],
    ids=["status", "time", "retries", "image", "url"],
)
def test_fault_40_rule_6_any_change_begins_the_two_hours_anew(change: dict[str, Any]) -> None:
    """Of the status, its time, the retries, an image or a URL."""
    body = {"id": ID, "status": "video_upsampling", "status_update_time": EPOCH + 5}
    watch = Watch()
    watch.see(wire.task_of(body), step=STANDSTILL - 1)
    watch.see(wire.task_of(body | change), step=STANDSTILL - 1)
    watch.see(wire.task_of(body | change), step=1)
    assert not watch.state.final
    watch.see(wire.task_of(body | change))
    assert watch.last.phase is L


def test_fault_40_rule_6_old_replies_that_change_are_changes() -> None:
    """A server whose clock was set back for good still works on the task."""
    watch = Watch()
    watch.see(says("video_generating", 10**6))
    watch.see(*[says("video_generating", at) for at in range(1000)], step=60)
    assert (watch.phases, watch.state.final) == ([G], False)


def test_fault_40_rule_6_a_fingerprint_is_the_same_in_every_process() -> None:
    """A cluster keeps it between two polls, which may be two machines'."""
    watch = Watch()
    watch.see(GENERATING)
    assert watch.state.fingerprint == 229_184_624


# --- rule 7 -----------------------------------------------------------------------------------


def test_rule_7_a_phase_is_told_once_an_attempt() -> None:
    """Back and forth within an attempt is nothing new; the next attempt is."""
    watch = Watch()
    there_and_back = [says("video_generating", at, retry_count=0) for at in (1, 3, 5)]
    between = [says("video_upsampling", at, retry_count=0) for at in (2, 4, 6)]
    for pair in zip(there_and_back, between, strict=True):
        watch.see(*pair)
    assert watch.phases == [G, U]
    assert watch.see(says("video_generating", 7, retry_count=1)) == [G, U, G]


def test_rule_7_a_reply_of_an_attempt_that_is_over_is_nothing_new() -> None:
    """Even with a newer time."""
    assert seen(
        says("video_generating", 1, retry_count=2), says("video_upsampling", 2, retry_count=1)
    ) == [G]


def test_fault_12_unknown_statuses_are_forwarded_once_an_attempt_and_it_goes_on() -> None:
    """UNKNOWN with the raw word beside it."""
    watch = Watch()
    watch.see(says("brand_new", 1), says("newer_still", 2), says("video_generating", 3))
    assert [(t.phase, t.status) for t in watch.transitions] == [
        (X, "brand_new"),
        (G, "video_generating"),
    ]
    assert watch.state.status == "video_generating"


# --- ends that are not the service's word -------------------------------------------------------


def test_trap_11_right_after_the_submit_the_id_may_be_unknown() -> None:
    """It is asked for again, and the first state that is seen is its first transition."""
    problem = wire.problem_of(wire.sample("error_not_found"), 404)
    assert after_fault(NO_FAULTS, problem.kind, START)[1] is Verdict.RETRY
    assert seen(sample("record_pending")) == [Q]


@pytest.mark.parametrize(
    ("error", "phase"),
    [
        (InvalidRequest("m"), F),
        (TaskNotFound("m"), L),
        (UnexpectedReply("m"), L),
        (StillPending("m"), L),
    ],
)
def test_an_end_by_an_error(error: Veo3Error, phase: Phase) -> None:
    """FAILED where the service refuses the id, LOST where only the sight of it is lost."""
    watch = Watch()
    watch.see(sample("record_video_generation_completed", retry_count=2))
    assert end(watch.state, error, request_id=ID, wall_now=5.0) == Transition(
        request_id=ID,
        phase=phase,
        previous=D,
        status="video_generation_completed",
        task=VideoTask(
            id=ID,
            status="video_generation_completed",
            phase=D,
            status_update_time=GENERATED.status_update_time,
            retry_count=2,
            video_url=GENERATED.video_url,
        ),
        observed_at=5.0,
        final=True,
        error=error,
    )


def test_an_end_of_an_id_that_never_answered() -> None:
    """Of it only the id is known; what the error knows more is told."""
    error = TaskNotFound("m")
    assert end(NEW, error, request_id=ID, wall_now=0).task == VideoTask(id=ID)
    assert end(NEW, error, request_id=ID, wall_now=0).previous is None
    assert remembered(NEW, ID) == VideoTask(id=ID)
    error.task = GENERATING
    assert end(NEW, error, request_id=ID, wall_now=0).task is GENERATING


def test_the_server_says_when_a_phase_began() -> None:
    """By its own clock: the last change of the status, or the completion."""
    watch = Watch()
    watch.see(GENERATING)
    assert watch.state.entered_at == GENERATING.status_update_time
    watch.see(says("video_upsampling"))
    assert watch.state.entered_at is None
    watch.see(says("completed", 9_000_000, completed_at=EPOCH + 5, upsample_video_url=UPSAMPLED))
    assert watch.state.entered_at == EPOCH + 5
    watch = Watch()
    watch.see(says("completed", 7, upsample_video_url=UPSAMPLED))
    assert watch.state.entered_at == EPOCH + 7


def test_a_word_is_kept_once_and_not_for_ever() -> None:
    """A million ids share the word of their status, and words that are made up go again."""
    word, same = b"status".decode(), b"status".decode()
    assert word is not same
    assert kept_once(word) is kept_once(same)
    made_up = [kept_once(f"status {number}") for number in range(1000)]
    assert kept_once.cache_info().currsize < len(made_up)
