"""The state machine on whole lives of the wire page."""

from __future__ import annotations

from typing import Final

import pytest
from phase_lives import GENERATING, LIVES, PENDING
from watching import (
    ID,
    NO_UPSAMPLE,
    PLAIN,
    START,
    UNTILS,
    UPSAMPLED,
    WITH_PLAIN,
    Watch,
    says,
    seen,
)

from veo3_async._lifecycle.phases import ARROWS, Until
from veo3_async._models import Phase, Transition, VideoTask

Q, P, G, D, U = (
    Phase.QUEUED,
    Phase.PREPARING,
    Phase.GENERATING,
    Phase.GENERATED,
    Phase.UPSAMPLING,
)
R, X, C, CP, F = (
    Phase.RETRYING,
    Phase.UNKNOWN,
    Phase.COMPLETED,
    Phase.COMPLETED_PLAIN,
    Phase.FAILED,
)


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


# --- the arrows -----------------------------------------------------------------------------

FAILED_UPSAMPLING: Final = says("video_upsampling_failed", 1, **WITH_PLAIN)
ATTEMPT: Final = says("video_generation_failed", 1, running=False, retry_count=1)

PAIRS: Final[dict[tuple[Phase | None, Phase], tuple[VideoTask, ...]]] = {
    (None, Q): (says("pending"),),
    (Q, P): (says("pending"), says("image_downloading")),
    (Q, G): (says("pending"), says("video_generating")),
    (P, G): (says("prompt_enhancing"), says("video_generating")),
    (P, R): (says("image_downloading"), says("image_downloading_failed")),
    (G, D): (says("video_generating"), says("video_generation_completed", **WITH_PLAIN)),
    (G, R): (says("video_generating"), says("video_generation_failed")),
    (G, C): (says("video_generating"), says("completed", video_url=PLAIN, req=NO_UPSAMPLE)),
    (G, F): (says("video_generating"), says("failed")),
    (D, U): (
        says("video_generation_completed", **WITH_PLAIN),
        says("video_upsampling", **WITH_PLAIN),
    ),
    (D, C): (
        says("video_generation_completed", **WITH_PLAIN),
        says("completed", upsample_video_url=UPSAMPLED),
    ),
    (D, CP): (says("video_generation_completed", **WITH_PLAIN), says("failed", **WITH_PLAIN)),
    (U, R): (says("video_upsampling"), says("video_upsampling_failed")),
    (U, C): (says("video_upsampling"), says("completed", upsample_video_url=UPSAMPLED)),
    (U, CP): (says("video_upsampling", **WITH_PLAIN), says("failed")),
    (R, Q): (ATTEMPT, says("pending", 2, retry_count=1)),
    (R, P): (ATTEMPT, says("prompt_enhancing", 2, retry_count=1)),
    (R, G): (ATTEMPT, says("video_generating", 2, retry_count=1)),
    (R, U): (FAILED_UPSAMPLING, says("video_upsampling", 2)),
    (R, C): (FAILED_UPSAMPLING, says("completed", 2, upsample_video_url=UPSAMPLED)),
    (R, CP): (FAILED_UPSAMPLING, says("failed", 2)),
    (R, F): (ATTEMPT, says("failed", 2)),
}


def test_every_arrow_has_its_pair() -> None:
    """The pairs above are the arrows of the table, no more and no less."""
    assert set(PAIRS) == {(start, end) for start, ends in ARROWS.items() for end in ends}


@pytest.mark.parametrize("arrow", PAIRS, ids=lambda arrow: f"{arrow[0]}-{arrow[1]}")
def test_an_arrow_is_exhibited(arrow: tuple[Phase | None, Phase]) -> None:
    """Two replies that are seen one after the other take it."""
    assert seen(*PAIRS[arrow]) == [phase for phase in arrow if phase is not None]


@pytest.mark.parametrize("until", UNTILS)
@pytest.mark.parametrize("name", sorted(LIVES.keys() - {"seen at its end only"}))
def test_a_life_that_is_seen_whole_keeps_to_the_arrows(name: str, until: Until) -> None:
    """But for phases that fell between two polls, and for UNKNOWN, there is no other way."""
    watch = Watch(until)
    watch.see(*LIVES[name][0])
    for transition in watch.transitions:
        if X not in {transition.previous, transition.phase} and transition.phase is not F:
            assert transition.phase in reachable(transition.previous)


def reachable(start: Phase | None) -> set[Phase]:
    found: set[Phase] = set()
    fresh = set(ARROWS.get(start, ()))
    while fresh:
        found |= fresh
        fresh = {end for phase in fresh for end in ARROWS.get(phase, ())} - found
    return found
