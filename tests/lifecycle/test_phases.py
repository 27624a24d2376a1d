"""The state machine: what replies mean for one id."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    ARROWS,
    GRACE,
    NEW,
    PHASE_OF_STATUS,
    State,
    Until,
    end,
    grace_left,
    kept_once,
    observe,
    remembered,
)
from veo3_async._lifecycle.retries import NO_FAULTS, Verdict, after_fault
from veo3_async._models import FINAL, GenerationRequest, Phase, Transition, VideoTask
from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.families.record import decode
from veo3_async._protocol.http import Reply

REPLIES: Final = Path(__file__).parents[1] / "replies"
ID: Final = "veo3-pro:7d1f0c52-2b3e-4a55-9a0e-3f0d6d1c9b10"
PLAIN: Final = "https://file.302.ai/plain.mp4"
UPSAMPLED: Final = "https://file.302.ai/upsampled.mp4"
NAMED: Final = {"completed": "veo3-pro:68935cd4-58f5-49ce-878e-40b785dd33b8"}
START: Final = 1000.0
UNTILS: Final[tuple[Until, ...]] = ("best", "video")
UPSAMPLE: Final = GenerationRequest(enable_upsample=True)
NO_UPSAMPLE: Final = GenerationRequest(enable_upsample=False)
WITH_PLAIN: Final[dict[str, Any]] = {"video_url": PLAIN, "req": UPSAMPLE}

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


def sample(name: str, **changes: Any) -> VideoTask:
    reply = Reply(200, {}, (REPLIES / f"{name}.json").read_bytes())
    task = decode(reply, request_id=NAMED.get(name, ID), wall_now=0)
    assert isinstance(task, VideoTask)
    return msgspec.structs.replace(task, **changes)


def says(status: str, at: int | None = None, **fields: Any) -> VideoTask:
    """Make a reply with a status and a time, and nothing else but what is given."""
    return VideoTask(status=status, status_update_time=at, **fields)


class Watch:
    """Feeds replies to the machine, one each 10 s or as told, and holds what must always hold."""

    def __init__(self, until: Until = "best") -> None:
        self.until: Until = until
        self.state = NEW
        self.now = START
        self.transitions: list[Transition] = []

    @property
    def phases(self) -> list[Phase]:
        return [transition.phase for transition in self.transitions]

    @property
    def last(self) -> Transition:
        return self.transitions[-1]

    def see(self, *replies: VideoTask, step: float = 10.0) -> list[Phase]:
        """Observe replies; return the phases of all transitions so far."""
        for task in replies:
            before = self.state
            self.state, transition = observe(
                before, task, self.now, request_id=ID, until=self.until, wall_now=self.now
            )
            if before.final:
                assert (self.state, transition) == (before, None), "something after the final"
            if transition is not None:
                self.check(transition, before)
                self.transitions.append(transition)
            self.now += step
        return self.phases

    def check(self, transition: Transition, before: State) -> None:
        assert transition.previous == before.phase
        assert transition.phase == self.state.phase
        assert transition.final == (transition.phase in FINAL) == self.state.final
        assert transition.request_id == ID
        assert transition.observed_at == self.now
        assert (transition.error is not None) == (transition.phase in {F, L})


def seen(*replies: VideoTask, until: Until = "best") -> list[Phase]:
    return Watch(until).see(*replies)


# --- the lives of the wire page -------------------------------------------------------------

PENDING: Final = sample("pending")
DOWNLOADING: Final = sample("image_downloading")
GENERATING: Final = sample("video_generating")
GENERATED: Final = sample("video_generation_completed")
UPSAMPLING: Final = sample("video_upsampling")
UPSAMPLING_DONE: Final = msgspec.structs.replace(
    UPSAMPLING, status="video_upsampling_completed", status_update_time=1750855100000
)
COMPLETED: Final = sample("completed")
RETRYING: Final = sample("retrying")
AGAIN: Final = msgspec.structs.replace(GENERATING, retry_count=1, status_update_time=1750854925000)
PLAIN_REQUEST: Final = GenerationRequest(prompt="p", enable_upsample=False)

DOCUMENTED: Final = (
    PENDING,
    DOWNLOADING,
    GENERATING,
    GENERATED,
    UPSAMPLING,
    UPSAMPLING_DONE,
    COMPLETED,
)
LIVES: Final[dict[str, tuple[tuple[VideoTask, ...], list[Phase], list[Phase]]]] = {
    # its replies, what comes out under "best", and under "video"
    "documented": (DOCUMENTED, [Q, P, G, D, U, C], [Q, P, G, C]),
    "minimal": (
        (sample("pending_minimal"), GENERATING, COMPLETED),
        [Q, G, C],
        [Q, G, C],
    ),
    "without upsampling": (
        (
            msgspec.structs.replace(PENDING, req=PLAIN_REQUEST),
            msgspec.structs.replace(GENERATING, req=PLAIN_REQUEST),
            sample("completed_without_upsample"),
        ),
        [Q, G, C],
        [Q, G, C],
    ),
    "failing": ((PENDING, GENERATING, sample("failed")), [Q, G, F], [Q, G, F]),
    "retrying": (
        (PENDING, GENERATING, RETRYING, AGAIN, sample("completed_after_retries")),
        [Q, G, R, G, C],
        [Q, G, R, G, C],
    ),
    "upsampling fails": (
        (PENDING, GENERATING, GENERATED, UPSAMPLING, sample("video_upsampling_failed")),
        [Q, G, D, U, CP],
        [Q, G, C],
    ),
    "something new": (
        (PENDING, GENERATING, sample("unknown_status"), COMPLETED),
        [Q, G, X, C],
        [Q, G, X, C],
    ),
    "seen at its end only": ((COMPLETED,), [C], [C]),
}


@pytest.mark.parametrize("until", UNTILS)
@pytest.mark.parametrize("name", LIVES)
def test_a_life_gives_exactly_its_transitions(name: str, until: Until) -> None:
    """Each life of the wire page, with the phases that its rules say."""
    replies, best, video = LIVES[name]
    assert seen(*replies, until=until) == (best if until == "best" else video)


@pytest.mark.parametrize("until", UNTILS)
@pytest.mark.parametrize("name", LIVES)
def test_a_life_that_is_polled_often_gives_no_more(name: str, until: Until) -> None:
    """Each reply five times is each reply once."""
    replies, best, video = LIVES[name]
    often = [reply for reply in replies for _ in range(5)]
    assert seen(*often, until=until) == (best if until == "best" else video)


def test_a_transition_says_what_was_seen() -> None:
    """Raw status, the task itself, the time, and no error."""
    watch = Watch()
    watch.see(PENDING, GENERATING)
    assert watch.transitions[1] == Transition(
        request_id=ID,
        phase=G,
        previous=Q,
        status="video_generating",
        task=GENERATING,
        observed_at=START + 10,
        final=False,
        eta=None,
        error=None,
    )


@pytest.mark.parametrize(("status", "phase"), PHASE_OF_STATUS.items())
def test_the_table_of_statuses(status: str, phase: Phase) -> None:
    """Each of the upstream's words while the service runs and no video is there."""
    video = PLAIN if status == "completed" else None
    reply = says(status, running=True, video_url=video, req=UPSAMPLE)
    assert seen(reply) == [phase]


def test_the_table_is_the_list_of_the_wire_page() -> None:
    """Every status that was seen has its phase, and no phase of ours is out of reach."""
    assert set(PHASE_OF_STATUS) == {
        *("pending", "image_downloading", "video_generating", "video_generation_completed"),
        *("video_upsampling", "video_upsampling_completed", "completed"),
        *("video_generation_failed", "video_upsampling_failed", "failed", "error"),
    }
    assert {*PHASE_OF_STATUS.values(), X} == set(Phase) - FINAL
    assert FINAL == {C, CP, F, L}


# --- the seven traps ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "phase"),
    [
        ({"running": True}, R),
        ({"running": True, "retry_count": 3, "max_retries": 3}, R),
        ({"running": False}, F),
        ({"running": False, "retry_count": 0, "max_retries": 3}, F),
        ({"retry_count": 2, "max_retries": 3}, R),
        ({"retry_count": 3, "max_retries": 3}, F),
        ({"retry_count": 4, "max_retries": 3}, F),
        ({"retry_count": 0, "max_retries": 0}, F),
        ({"retry_count": 3}, R),
        ({"max_retries": 3}, R),
        ({}, R),
    ],
)
@pytest.mark.parametrize(
    "status", ["video_generation_failed", "video_upsampling_failed", "image_downloading_failed"]
)
def test_trap_1_a_failure_can_be_an_attempt(
    status: str, fields: dict[str, Any], phase: Phase
) -> None:
    """``running`` says whether it is the end; where it is absent, the count of retries."""
    assert seen(says(status, **fields)) == [phase]


@pytest.mark.parametrize("status", ["failed", "error"])
@pytest.mark.parametrize(
    ("fields", "phase"),
    [
        ({}, F),
        ({"retry_count": 0, "max_retries": 3}, F),
        ({"running": False}, F),
        ({"running": True}, R),
    ],
)
def test_trap_1_a_plain_failure_is_final_unless_it_runs(
    status: str, fields: dict[str, Any], phase: Phase
) -> None:
    """``failed`` and ``error`` are the end where ``running`` is absent."""
    assert seen(says(status, **fields)) == [phase]


def test_trap_1_a_failed_attempt_goes_back_to_generating() -> None:
    """Each attempt shows its own phases, the video of the last one is the result."""
    watch = Watch()
    for attempt in range(3):
        watch.see(
            says("video_generating", retry_count=attempt),
            says("video_generation_failed", running=True, retry_count=attempt),
        )
    watch.see(says("completed", retry_count=3, upsample_video_url=UPSAMPLED))
    assert watch.phases == [G, R, G, R, G, R, C]


def test_trap_2_a_completed_task_can_carry_errors() -> None:
    """What went wrong in earlier attempts ends nothing."""
    watch = Watch()
    watch.see(sample("completed_after_retries"))
    assert (watch.phases, watch.last.error) == ([C], None)
    assert watch.last.task.video_generation_error is not None


@pytest.mark.parametrize("until", UNTILS)
def test_trap_3_the_plain_video_comes_before_the_upsampled_one(until: Until) -> None:
    """``"best"`` waits for the upsampled one, ``"video"`` is content with the plain."""
    watch = Watch(until)
    watch.see(GENERATED)
    assert watch.phases == ([D] if until == "best" else [C])
    watch.see(UPSAMPLING, COMPLETED)
    assert watch.last.task.upsample_video_url == (
        COMPLETED.upsample_video_url if until == "best" else None
    )


def test_trap_3_an_upsampling_that_fails_for_good_ends_with_the_plain_video() -> None:
    """And the phase says that it is the plain one."""
    watch = Watch()
    watch.see(UPSAMPLING, sample("video_upsampling_failed", video_url=None))
    assert (watch.phases, watch.last.error) == ([U, CP], None)
    assert watch.last.task.video_url == UPSAMPLING.video_url


@pytest.mark.parametrize("until", UNTILS)
def test_trap_4_completed_can_precede_a_url(until: Until) -> None:
    """A poll or two without a video are no transition and no end."""
    watch = Watch(until)
    watch.see(GENERATING, *[says("completed", running=False)] * 2)
    assert watch.phases == [G]
    watch.see(says("completed", running=False, video_url=PLAIN, upsample_video_url=UPSAMPLED))
    assert watch.phases == [G, C]


@pytest.mark.parametrize("status", ["pending", "video_upsampling", "video_polishing", "failed", ""])
def test_trap_4_a_url_can_precede_completed(status: str) -> None:
    """The URL decides, whatever the word."""
    assert seen(says(status, running=True, upsample_video_url=UPSAMPLED)) == [C]
    assert seen(says(status, running=True, video_url=PLAIN), until="video") == [C]
    assert seen(says(status, running=True, video_url=PLAIN, req=NO_UPSAMPLE)) == [C]


def test_fault_21_trap_5_replies_can_go_backwards() -> None:
    """An older one changes nothing, terminal stays terminal."""
    assert seen(GENERATING, PENDING, DOWNLOADING, GENERATING, GENERATED, PENDING) == [G, D]
    assert seen(COMPLETED, GENERATING, PENDING, sample("failed")) == [C]
    assert seen(sample("failed"), GENERATING, COMPLETED) == [F]


def test_trap_6_right_after_the_submit_the_id_may_be_unknown() -> None:
    """It is asked for again, and the first state that is seen is its first transition."""
    reply = Reply(404, {}, (REPLIES / "404_not_found.json").read_bytes())
    problem = decode(reply, request_id=ID, wall_now=0)
    assert isinstance(problem, Problem)
    assert after_fault(NO_FAULTS, problem.kind, START)[1] is Verdict.RETRY
    assert seen(PENDING) == [Q]


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error": {"err_code": -10008}}'])
def test_trap_7_a_success_can_be_an_outage(body: bytes) -> None:
    """It never comes to the machine: there is no task to observe, and the id goes on."""
    problem = decode(Reply(200, {}, body), request_id=ID, wall_now=0)
    assert isinstance(problem, Problem)
    assert problem.kind in {Kind.UNEXPECTED, Kind.OVERLOADED}
    assert after_fault(NO_FAULTS, problem.kind, START)[1] is Verdict.RETRY


# --- the rules ------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", sorted(FINAL))
def test_rule_1_nothing_follows_a_final(phase: Phase) -> None:
    """Not even a better video, and the state stays as it is."""
    state = State(phase=phase)
    for reply in (*DOCUMENTED, sample("failed")):
        assert observe(state, reply, START, request_id=ID, wall_now=0) == (state, None)


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
    assert (watch.phases, watch.state) == ([G], state)
    assert watch.see(says("video_upsampling", 200)) == [G, U]


ENDS: Final[dict[str, tuple[VideoTask, Phase]]] = {
    "failed": (says("failed", 100, running=False), F),
    "failed without a word on running": (says("failed", 100), F),
    "an attempt, the last": (says("x_failed", 100, retry_count=3, max_retries=3), F),
    "cancelled": (says("cancelled", 100, running=False), F),
    "completed": (says("completed", 100, running=False), F),
    "completed, plain": (says("completed", 100, running=False, video_url=PLAIN), C),
    "completed, not upsampled": (says("completed", 100, running=False, **WITH_PLAIN), CP),
}


@pytest.mark.parametrize("name", ENDS)
def test_fault_21_rule_2_an_older_end_is_believed_after_the_grace(name: str) -> None:
    """One clock that is ahead does not hide the end for good: told for 60 s, it is one."""
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
    watch.see(says("completed", 200, running=False))
    watch.see(*[says("video_generating", 100, running=True)] * 6)
    assert (watch.phases, grace_left(watch.state, watch.now)) == ([], None)
    assert watch.see(says("completed", 200, running=False)) == [F]


def test_rule_2_a_time_of_zero_is_none() -> None:
    """A field that the service never set is not older than everything."""
    watch = Watch()
    watch.see(says("video_generating", 200), says("completed", 0, upsample_video_url=UPSAMPLED))
    assert (watch.phases, watch.state.updated_at) == ([G, C], 200)


def test_fault_21_rule_2_the_video_of_an_older_reply_exists() -> None:
    """It makes no transition, and is there when the end comes without one; a newer one stays."""
    watch = Watch()
    watch.see(says("video_upsampling", 200), says("completed", 100, video_url=PLAIN))
    assert watch.phases == [U]
    watch.see(says("video_upsampling", 150, video_url="https://older"))
    watch.see(says("video_upsampling_failed", 300, running=False))
    assert (watch.phases, watch.last.task.video_url) == ([U, CP], PLAIN)


@pytest.mark.parametrize(
    ("until", "old"),
    [
        ("best", says("completed", 100, upsample_video_url=UPSAMPLED)),
        ("video", says("completed", 100, upsample_video_url=UPSAMPLED)),
        ("video", says("video_generation_completed", 100, video_url=PLAIN)),
        ("best", says("video_generating", upsample_video_url=UPSAMPLED)),
    ],
)
def test_fault_21_rule_2_an_older_reply_with_the_video_that_was_asked_for_ends_it(
    until: Until, old: VideoTask
) -> None:
    """It was paid for and is there, even if the server's clock has been set back for good."""
    watch = Watch(until)
    watch.see(says("video_upsampling", 200, req=UPSAMPLE), old)
    assert (watch.phases, watch.last.task.best_url) == ([U, C], old.best_url)


def test_fault_21_rule_2_an_older_reply_brings_the_best_of_both() -> None:
    """The plain video of the newer reply stays beside the upsampled one of the older."""
    watch = Watch()
    watch.see(says("video_upsampling", 200, video_url=PLAIN))
    watch.see(says("completed", 100, upsample_video_url=UPSAMPLED))
    assert (watch.last.task.video_url, watch.last.task.best_url) == (PLAIN, UPSAMPLED)


@pytest.mark.parametrize(
    ("before", "after", "phases"),
    [
        (says("video_generating"), says("pending"), [G]),
        (says("video_upsampling", 200), says("video_generating"), [U]),
        (says("video_upsampling"), says("video_generating", 200), [U]),
        (says("video_upsampling", retry_count=1), says("pending", retry_count=0), [U]),
        (says("video_upsampling", retry_count=1), says("pending", retry_count=2), [U, Q]),
        (says("video_upsampling", 100), says("video_generating", 200), [U, G]),
        (says("video_generation_failed", running=True), says("pending"), [R, Q]),
        (says("brand_new"), says("pending"), [X, Q]),
        (says("video_generating"), says("brand_new"), [G, X]),
        (says("video_upsampling", req=UPSAMPLE), says("completed", running=True), [U]),
    ],
)
def test_fault_21_rule_2_without_a_time_the_phase_tells_what_is_old(
    before: VideoTask, after: VideoTask, phases: list[Phase]
) -> None:
    """Going back within an attempt is old; a new attempt, or a newer time, is not."""
    assert seen(before, after) == phases


def test_rule_2_an_end_is_not_old_without_a_time() -> None:
    """``completed`` after the upsampling is the end of it, not a step back to generated."""
    watch = Watch()
    watch.see(says("video_upsampling", video_url=PLAIN), says("completed", running=False))
    assert grace_left(watch.state, watch.now) == GRACE - 10


def test_rule_3_a_url_once_seen_is_kept() -> None:
    """Replies that leave it out do not lose it; a newer URL replaces it."""
    watch = Watch()
    watch.see(says("video_generation_completed", video_url="https://1", req=UPSAMPLE))
    watch.see(says("video_upsampling"))
    assert watch.last.task.video_url == "https://1"
    watch.see(says("video_upsampling_completed", video_url=PLAIN), says("brand_new"))
    assert watch.last.task.video_url == PLAIN


@pytest.mark.parametrize(
    ("reply", "phase"),
    [
        (says("x", video_url=PLAIN, req=NO_UPSAMPLE), C),
        (says("x", video_url=PLAIN, req=UPSAMPLE), X),
        (says("x", video_url=PLAIN), X),
        (says("x", video_url=PLAIN, req=GenerationRequest()), X),
        (says("x", video_url=PLAIN, upsample_video_url=UPSAMPLED, req=NO_UPSAMPLE), C),
        (says("x", upsample_video_url=UPSAMPLED), C),
    ],
)
def test_rule_3_the_video_that_was_asked_for_ends_it(reply: VideoTask, phase: Phase) -> None:
    """The plain one where no other was asked for; where nobody said, a running task goes on."""
    assert seen(reply) == [phase]


@pytest.mark.parametrize(
    "hint",
    [
        {"req": UPSAMPLE},
        {"upsample_generation_id": "u"},
        {"upsample_status": "MEDIA_GENERATION_STATUS_PENDING"},
    ],
)
def test_rule_3_what_shows_that_an_upsampling_was_asked_for(hint: dict[str, Any]) -> None:
    """The request, or any trace of an upsampling; it is remembered."""
    plain = says("completed", running=False, video_url=PLAIN)
    assert seen(says("video_generating", **hint), plain) == [G, D]
    assert seen(says("video_upsampling"), plain) == [U, D]
    assert seen(says("video_generating"), plain) == [G, C]
    assert seen(says("video_upsampling", req=NO_UPSAMPLE), plain) == [U, C]


@pytest.mark.parametrize(
    ("upstream", "service", "reason"),
    [
        ("unsafe", "[400]", "unsafe"),
        (None, "[400]", "[400]"),
        (None, None, "no reason given"),
    ],
)
def test_rule_4_the_reason_is_told(upstream: str | None, service: str | None, reason: str) -> None:
    """The upstream's first, else the service's, else that there is none."""
    watch = Watch()
    watch.see(says("failed", video_generation_error=upstream, error_message=service))
    error = watch.last.error
    assert isinstance(error, TaskFailed)
    assert (error.request_id, error.task) == (ID, watch.last.task)
    assert error.message == f"the service gave the task up: {reason}"


@pytest.mark.parametrize("status", ["failed", "error", "video_upsampling_failed"])
@pytest.mark.parametrize(("request_", "phase"), [(UPSAMPLE, CP), (None, None), (NO_UPSAMPLE, C)])
def test_rule_5_a_final_failure_with_a_video_ends_with_the_video(
    status: str, request_: GenerationRequest | None, phase: Phase | None
) -> None:
    """The plain one, and no error."""
    if phase is None:
        phase = CP if "upsampl" in status else C
    watch = Watch()
    watch.see(says(status, running=False, video_url=PLAIN, req=request_))
    assert (watch.phases, watch.last.error) == ([phase], None)


def test_rule_6_an_end_without_the_upsampled_video_waits_a_minute() -> None:
    """Then the plain one is the result."""
    watch = Watch()
    ended = says("completed", running=False, video_url=PLAIN, req=UPSAMPLE)
    watch.see(*[ended] * 6)
    assert (watch.phases, grace_left(watch.state, watch.now - 1)) == ([D], 1)
    assert watch.see(ended) == [D, CP]
    assert watch.last.error is None


def test_rule_6_an_upsampling_that_failed_is_not_waited_for() -> None:
    """Neither is one that nobody asked for."""
    failed = "MEDIA_GENERATION_STATUS_FAILED"
    assert seen(says("completed", video_url=PLAIN, upsample_status=failed)) == [CP]
    assert seen(says("completed", video_url=PLAIN)) == [C]
    assert seen(says("brand_new", running=False, video_url=PLAIN)) == [C]


@pytest.mark.parametrize("until", UNTILS)
def test_fault_39_rule_6_completed_without_any_video(until: Until) -> None:
    """Asked again for 60 s, then final with the server's reason."""
    watch = Watch(until)
    ended = says("completed", running=False, error_message="no quota left upstream")
    watch.see(GENERATING, *[ended] * 6)
    assert watch.phases == [G]
    assert watch.see(ended) == [G, F]
    error = watch.last.error
    assert isinstance(error, CompletedWithoutVideo)
    assert error.message == "completed for 60 s, and no video: no quota left upstream"
    assert (error.request_id, error.task) == (ID, watch.last.task)


@pytest.mark.parametrize("until", UNTILS)
@pytest.mark.parametrize(
    ("status", "phase"),
    [
        *((word, X) for word in ("cancelled", "expired", "rejected", "timeout", "")),
        *(("image_downloading", P), ("video_generating", G), ("video_upsampling", U)),
    ],
)
def test_rule_6_a_service_that_has_stopped_is_believed_whatever_its_word(
    status: str, phase: Phase, until: Until
) -> None:
    """``running: false`` is final, and new words turn up: after the grace it has failed."""
    watch = Watch(until)
    stopped = says(status, 5, running=False, error_message="by the operator")
    watch.see(*[stopped] * 6)
    assert watch.phases == [phase]
    assert grace_left(watch.state, watch.now - 1) == 1
    assert watch.see(stopped) == [phase, F]
    error = watch.last.error
    assert isinstance(error, TaskFailed)
    assert error.message == f"the service has stopped, and said {status!r}: by the operator"
    assert (error.request_id, error.task) == (ID, watch.last.task)


@pytest.mark.parametrize("status", ["cancelled", "video_upsampling"])
def test_rule_6_a_service_that_has_stopped_leaves_its_plain_video(status: str) -> None:
    """It is the result, with no error."""
    watch = Watch()
    stopped = says(status, running=False, **WITH_PLAIN)
    assert watch.see(*[stopped] * 7)[-1] is CP
    assert watch.last.error is None


def test_rule_6_a_task_in_the_queue_has_not_ended() -> None:
    """It does not run yet; nobody says that it never will."""
    queued = says("pending", running=False)
    watch = Watch()
    assert watch.see(*[queued] * 100, GENERATING) == [Q, G]
    assert seen(says("pending", running=False, video_url=PLAIN)) == [C]


def test_fault_39_a_service_that_runs_on_has_not_ended() -> None:
    """The 60 s begin anew with the next end; a completed task that runs is waited for."""
    watch = Watch()
    ended = says("completed", running=False)
    watch.see(ended, ended, says("video_upsampling"), *[ended] * 6)
    assert watch.phases == [U]
    running = says("completed", running=True)
    assert seen(*[running] * 1000) == []
    assert grace_left(NEW, START) is None


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


def test_rule_7_a_phase_is_told_once_an_attempt() -> None:
    """Back and forth within an attempt is nothing new; the next attempt is."""
    watch = Watch()
    there_and_back = [says("video_generating", at, retry_count=0) for at in (1, 3, 5)]
    between = [says("video_upsampling", at, retry_count=0) for at in (2, 4, 6)]
    for pair in zip(there_and_back, between, strict=True):
        watch.see(*pair)
    assert watch.phases == [G, U]
    assert watch.see(says("video_generating", 7, retry_count=1)) == [G, U, G]


def test_rule_7_a_reply_of_an_attempt_that_is_over_is_no_news() -> None:
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


def test_fault_40_nothing_changes_for_a_day() -> None:
    """One transition, no end, and a state that does not grow."""
    watch = Watch()
    watch.see(*[GENERATING] * 8640)
    assert (watch.phases, watch.state.final) == ([G], False)
    assert watch.see(COMPLETED) == [G, C]


# --- the arrows -----------------------------------------------------------------------------

RETRY: Final = says("video_generation_failed", 1, running=True, retry_count=1)
FAILED_UPSAMPLING: Final = says("video_upsampling_failed", 1, running=True, **WITH_PLAIN)

PAIRS: Final[dict[tuple[Phase | None, Phase], tuple[VideoTask, ...]]] = {
    (None, Q): (says("pending"),),
    (Q, P): (says("pending"), says("image_downloading")),
    (Q, G): (says("pending"), says("video_generating")),
    (P, G): (says("image_downloading"), says("video_generating")),
    (P, R): (says("image_downloading"), says("image_downloading_failed", running=True)),
    (G, D): (says("video_generating"), says("video_generation_completed", **WITH_PLAIN)),
    (G, R): (says("video_generating"), says("video_generation_failed", running=True)),
    (G, C): (says("video_generating"), says("completed", video_url=PLAIN, req=NO_UPSAMPLE)),
    (G, F): (says("video_generating"), says("failed", running=False)),
    (D, U): (
        says("video_generation_completed", **WITH_PLAIN),
        says("video_upsampling", **WITH_PLAIN),
    ),
    (D, C): (
        says("video_generation_completed", **WITH_PLAIN),
        says("completed", upsample_video_url=UPSAMPLED),
    ),
    (D, CP): (
        says("video_generation_completed", **WITH_PLAIN),
        says("completed", upsample_status="MEDIA_GENERATION_STATUS_FAILED"),
    ),
    (U, R): (says("video_upsampling"), says("video_upsampling_failed", running=True)),
    (U, C): (says("video_upsampling"), says("completed", upsample_video_url=UPSAMPLED)),
    (U, CP): (
        says("video_upsampling", **WITH_PLAIN),
        says("video_upsampling_failed", running=False),
    ),
    (R, G): (RETRY, says("video_generating", 2, retry_count=1)),
    (R, U): (FAILED_UPSAMPLING, says("video_upsampling", 2)),
    (R, C): (FAILED_UPSAMPLING, says("completed", 2, upsample_video_url=UPSAMPLED)),
    (R, CP): (FAILED_UPSAMPLING, says("video_upsampling_failed", 2, running=False)),
    (R, F): (RETRY, says("video_generation_failed", 2, running=False)),
}


def test_every_arrow_has_its_pair() -> None:
    """The pairs below are the arrows of the table, no more and no less."""
    assert set(PAIRS) == {(start, end) for start, ends in ARROWS.items() for end in ends}


@pytest.mark.parametrize("arrow", PAIRS, ids=lambda arrow: f"{arrow[0]}-{arrow[1]}")
def test_an_arrow_is_exhibited(arrow: tuple[Phase | None, Phase]) -> None:
    """Two replies that are seen one after the other take it."""
    assert seen(*PAIRS[arrow]) == [phase for phase in arrow if phase is not None]


@pytest.mark.parametrize("until", UNTILS)
@pytest.mark.parametrize("name", [name for name in LIVES if name != "seen at its end only"])
def test_a_life_that_is_seen_whole_keeps_to_the_arrows(name: str, until: Until) -> None:
    """But for phases that fell between two polls, and for UNKNOWN, there is no other way."""
    watch = Watch(until)
    watch.see(*LIVES[name][0])
    for transition in watch.transitions:
        if X not in {transition.previous, transition.phase}:
            assert transition.phase in reachable(transition.previous)


def reachable(start: Phase | None) -> set[Phase]:
    found: set[Phase] = set()
    fresh = set(ARROWS.get(start, ()))
    while fresh:
        found |= fresh
        fresh = {end for phase in fresh for end in ARROWS.get(phase, ())} - found
    return found


# --- ends that are not the service's word ---------------------------------------------------


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
    watch.see(sample("video_generation_completed", retry_count=2))
    assert end(watch.state, error, request_id=ID, wall_now=5.0) == Transition(
        request_id=ID,
        phase=phase,
        previous=D,
        status="video_generation_completed",
        task=VideoTask(
            id=ID,
            status="video_generation_completed",
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
    watch.see(says("completed", 7 * 10**15, completed_at=5, upsample_video_url=UPSAMPLED))
    assert watch.state.entered_at == 5
    watch = Watch()
    watch.see(says("completed", 7, upsample_video_url=UPSAMPLED))
    assert watch.state.entered_at == 7


# --- any sequence at all --------------------------------------------------------------------

STATUSES: Final = st.sampled_from([*PHASE_OF_STATUS, "video_polishing", "x_failed", ""]) | st.text()
URLS: Final = st.none() | st.sampled_from([PLAIN, UPSAMPLED])
TIMES: Final = st.none() | st.integers(-1, 20) | st.integers()
COUNTS: Final = st.none() | st.integers(0, 3) | st.integers()
BOOLS: Final = st.none() | st.booleans()
MADE_UP: Final = st.builds(
    VideoTask,
    status=STATUSES,
    running=BOOLS,
    status_update_time=TIMES,
    completed_at=TIMES,
    retry_count=COUNTS,
    max_retries=COUNTS,
    req=st.none() | st.builds(GenerationRequest, enable_upsample=BOOLS),
    video_url=URLS,
    upsample_generation_id=st.none() | st.just("u"),
    upsample_status=st.none()
    | st.sampled_from(["MEDIA_GENERATION_STATUS_FAILED", "MEDIA_GENERATION_STATUS_PENDING"]),
    upsample_video_url=st.none() | st.none() | st.none() | st.just(UPSAMPLED),
    error_message=st.none() | st.just("e"),
)
SAMPLES: Final = st.sampled_from([reply for replies, _, _ in LIVES.values() for reply in replies])
FIELDS: Final = tuple(field.name for field in msgspec.structs.fields(VideoTask))


@st.composite
def truncated(draw: st.DrawFn) -> VideoTask:
    """Draw a sample, and leave out some of its fields."""
    reply = draw(SAMPLES)
    dropped = draw(st.sets(st.sampled_from(FIELDS)))
    kept = {name: getattr(reply, name) for name in FIELDS if name not in dropped}
    return VideoTask(**kept)


@st.composite
def interleaved(draw: st.DrawFn) -> list[VideoTask]:
    """Draw two lives whose replies come mixed, each in its order, some of them repeated."""
    lives = [list(draw(st.sampled_from(list(LIVES.values())))[0]) for _ in range(2)]
    mixed = []
    while any(lives):
        life = draw(st.sampled_from([life for life in lives if life]))
        mixed += [life.pop(0)] * draw(st.integers(1, 3))
    return mixed


SEQUENCES: Final = st.one_of(
    st.lists(SAMPLES, max_size=30),
    st.lists(truncated(), max_size=20),
    st.permutations(DOCUMENTED).map(list),
    interleaved(),
    st.lists(MADE_UP, max_size=20),
    st.lists(SAMPLES | truncated() | MADE_UP, max_size=30),
)
STEPS: Final = st.sampled_from([0.0, 10.0, 61.0])


@given(SEQUENCES, st.sampled_from(UNTILS), STEPS)
def test_any_sequence_gives_an_orderly_stream(
    replies: list[VideoTask], until: Until, step: float
) -> None:
    """At most one final and nothing after it, no phase twice in an attempt, a chain of phases."""
    watch = Watch(until)
    told: set[tuple[Phase, int]] = set()
    attempt = 0
    for reply in replies:
        count = len(watch.transitions)
        watch.see(reply, step=step)
        attempt = max(attempt, watch.state.attempt)
        for transition in watch.transitions[count:]:
            assert (transition.phase, attempt) not in told
            told.add((transition.phase, attempt))
    assert [t.previous for t in watch.transitions] == [None, *watch.phases][:-1] or not replies
    assert [t.final for t in watch.transitions if t.final] in ([], [True])
    assert not any(t.final for t in watch.transitions[:-1])


@given(SEQUENCES, st.sampled_from(UNTILS), STEPS)
def test_any_sequence_loses_no_video(replies: list[VideoTask], until: Until, step: float) -> None:
    """The best video ends it; a plain one is in every later transition, and no failure follows."""
    watch = Watch(until)
    known: set[str] = set()
    for reply in [*replies, says("failed", 10**30, running=False)]:
        if reply.video_url and not watch.state.final:
            known.add(reply.video_url)
        count = len(watch.transitions)
        watch.see(reply, step=step)
        assert watch.state.final or not reply.upsample_video_url
        for transition in watch.transitions[count:]:
            assert not known or transition.task.video_url in known
            assert not known or transition.error is None
            assert transition.phase not in {C, CP} or transition.task.best_url
    assert watch.state.final


@given(SEQUENCES, st.sampled_from(UNTILS), STEPS)
def test_any_sequence_is_judged_the_same_again(
    replies: list[VideoTask], until: Until, step: float
) -> None:
    """The machine is a function of what it was given, and changes none of it."""
    before = msgspec.structs.asdict(NEW), [msgspec.structs.asdict(reply) for reply in replies]
    first, second = Watch(until), Watch(until)
    assert first.see(*replies, step=step) == second.see(*replies, step=step)
    assert first.state == second.state
    assert before == (
        msgspec.structs.asdict(NEW),
        [msgspec.structs.asdict(reply) for reply in replies],
    )


@given(SEQUENCES, SEQUENCES, st.sampled_from(UNTILS))
def test_any_two_ids_do_not_disturb_each_other(
    first: list[VideoTask], second: list[VideoTask], until: Until
) -> None:
    """Interleaved replies of two ids give each the stream that it would have alone."""
    alone, here, there = Watch(until), Watch(until), Watch(until)
    for place in range(max(len(first), len(second))):
        here.see(*first[place : place + 1])
        there.see(*second[place : place + 1])
    alone.see(*first)
    assert here.phases == alone.phases


@given(MADE_UP, st.floats(allow_nan=False, allow_infinity=False))
def test_any_state_ends_by_an_error(reply: VideoTask, now: float) -> None:
    """Whatever was seen, the caller's own timeout gives one orderly final."""
    state, transition = observe(NEW, reply, now, request_id=ID, wall_now=now)
    if not state.final:
        final = end(state, StillPending("m"), request_id=ID, wall_now=now)
        assert (final.final, final.phase) == (True, L)
        assert final.previous == (transition and transition.phase)
    left = grace_left(state, now)
    assert left is None or math.isclose(left, GRACE, abs_tol=abs(now) * 1e-12)


def test_a_word_is_kept_once_and_not_for_ever() -> None:
    """A million ids share the word of their status, and words that are made up go again."""
    word, same = b"status".decode(), b"status".decode()
    assert word is not same
    assert kept_once(word) is kept_once(same)
    made_up = [kept_once(f"status {number}") for number in range(1000)]
    assert kept_once.cache_info().currsize < len(made_up)
