"""The state machine on any sequence of replies."""

from __future__ import annotations

import math
from typing import Final

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from phase_lives import DOCUMENTED, LIVES
from watching import ID, PLAIN, UNTILS, UPSAMPLED, Watch, says

from veo3_async._errors import StillPending
from veo3_async._lifecycle.phases import GRACE, NEW, Until, end, grace_left, observe
from veo3_async._models import Phase, SourceImage, VideoTask
from veo3_async._protocol.families.record import PHASE_OF_WORD, task_of

L: Final = Phase.LOST
# --- any sequence at all --------------------------------------------------------------------

WORDS: Final = st.sampled_from([*PHASE_OF_WORD, "video_polishing", "x_failed", "", "Cancelled"])
URLS: Final = st.none() | st.sampled_from([PLAIN, UPSAMPLED])
TIMES: Final = st.none() | st.integers(-1, 20) | st.integers(max_value=10**18)
COUNTS: Final = st.none() | st.integers(0, 3) | st.integers()
BOOLS: Final = st.none() | st.booleans()
MADE_UP: Final = st.builds(
    VideoTask,
    status=WORDS | st.text(),
    phase=st.sampled_from(sorted(set(Phase) - {L})),
    ended=st.booleans(),
    wants_upsample=BOOLS,
    status_update_time=TIMES,
    completed_at=TIMES,
    retry_count=COUNTS,
    images=st.just(()) | st.just((SourceImage(status="\ud83d"),)),
    video_url=URLS,
    upsample_video_url=st.none() | st.none() | st.none() | st.just(UPSAMPLED),
    failure_reason=st.none() | st.just("e"),
)
"""What no family would ever say, too."""
RUNNING: Final = st.fixed_dictionaries(
    {"id": st.just(ID), "status": WORDS.filter(lambda w: w not in {"completed", "failed"})},
    optional={
        "running": BOOLS,
        "status_update_time": TIMES,
        "created_at": TIMES,
        "completed_at": TIMES,
        "retry_count": COUNTS,
        "max_retries": COUNTS,
        "error": st.none() | st.text() | st.just({"err_code": -10004, "message": "m"}),
        "error_message": st.none() | st.text(),
        "video_generation_error": st.none() | st.text(),
        "video_generation_status": st.just("MEDIA_GENERATION_STATUS_FAILED"),
        "upsample_status": st.sampled_from(
            ["MEDIA_GENERATION_STATUS_FAILED", "MEDIA_GENERATION_STATUS_SUCCESSFUL"]
        ),
        "needs_safe_enhancement": BOOLS,
    },
).map(task_of)
"""Whatever a task says whose word is not final."""
SAMPLES: Final = st.sampled_from([reply for replies, _, _ in LIVES.values() for reply in replies])

OURS: Final = {"phase", "failure_reason", "family", "ended", "wants_upsample", "extra"}
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
    for reply in [*replies, says("failed", 10**19, running=False)]:
        is_new = reply.upsample_video_url not in known
        if reply.video_url and not watch.state.final:
            known.add(reply.video_url)
        count = len(watch.transitions)
        watch.see(reply, step=step)
        assert watch.state.final or not (reply.upsample_video_url and is_new)
        for transition in watch.transitions[count:]:
            assert not known or transition.task.video_url in known
            assert not known or transition.error is None
            assert (
                transition.phase not in {Phase.COMPLETED, Phase.COMPLETED_PLAIN}
                or transition.task.best_url
            )
    assert watch.state.final


@given(st.lists(RUNNING, max_size=20), st.sampled_from(UNTILS), STEPS)
def test_fault_44_any_sequence_of_words_that_are_not_final_makes_no_final(
    replies: list[VideoTask], until: Until, step: float
) -> None:
    """Whatever ``running``, retries, times and errors say, unless it is called off for 60 s."""
    watch = Watch(until)
    for reply in replies:
        watch.see(reply, step=step)
        if watch.state.final:
            assert reply.ended
            break


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
