"""What a fault means for its id, and when the id is asked for again."""

from __future__ import annotations

import math
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo3_async._lifecycle.retries import NO_FAULTS, Streak, Verdict, after_fault, backoff
from veo3_async._protocol.errors import Kind

START: Final = 1000.0
FATAL: Final = {Kind.AUTHENTICATION, Kind.QUOTA, Kind.SESSION}
TRANSIENT: Final = {
    Kind.CONNECT,
    Kind.DNS,
    Kind.TIMEOUT,
    Kind.RESET,
    Kind.LOCAL,
    Kind.THROTTLED,
    Kind.OVERLOADED,
    Kind.NO_CHANNEL,
    Kind.SERVER,
    Kind.CERTIFICATE,
    Kind.UNEXPECTED,
}
THROTTLES: Final = {Kind.THROTTLED, Kind.OVERLOADED, Kind.NO_CHANNEL}
KINDS: Final = st.sampled_from(Kind)


def row(*kinds: Kind, start: Streak = NO_FAULTS, step: float = 0.0) -> tuple[Streak, list[Verdict]]:
    """Let faults happen one after another; return the streak and what became of the id."""
    streak, verdicts = start, []
    for place, kind in enumerate(kinds):
        streak, verdict = after_fault(streak, kind, START + place * step)
        verdicts.append(verdict)
    return streak, verdicts


def test_every_kind_has_its_place() -> None:
    """No kind of fault is left out of the rules below."""
    assert {*FATAL, *TRANSIENT, Kind.INVALID, Kind.NOT_FOUND} == set(Kind)


@pytest.mark.parametrize("kind", sorted(TRANSIENT))
def test_faults_1_to_9_pass_for_ever(kind: Kind) -> None:
    """A thousand in a row, over an hour each, and the id goes back to the schedule."""
    streak, verdicts = row(*[kind] * 1000, step=3600)
    assert set(verdicts) == {Verdict.RETRY}
    assert streak == Streak(1000)


@pytest.mark.parametrize("kind", sorted(FATAL))
def test_faults_15_16_what_is_wrong_with_the_key_is_fatal_at_once(kind: Kind) -> None:
    """A refused key, an empty balance or a closed session stops all polling at the first."""
    assert row(kind)[1] == [Verdict.FATAL]
    assert row(Kind.SERVER, Kind.NOT_FOUND, kind)[1][-1] is Verdict.FATAL


def test_fault_14_an_invalid_request_is_final_at_once() -> None:
    """It would be refused the next time too."""
    assert row(Kind.INVALID)[1] == [Verdict.FINAL]


def test_fault_14_a_refusal_among_foreign_replies_is_final() -> None:
    """The API has spoken, whatever stood in its way before."""
    assert row(Kind.UNEXPECTED, Kind.INVALID)[1] == [Verdict.RETRY, Verdict.FINAL]


def test_fault_13_an_unknown_id_is_tolerated_for_30_seconds() -> None:
    """Whatever the number of polls, the first at 30 s or later ends it."""
    assert row(*[Kind.NOT_FOUND] * 301, step=0.1)[1] == [Verdict.RETRY] * 300 + [Verdict.FINAL]
    assert row(*[Kind.NOT_FOUND] * 2, step=1000)[1] == [Verdict.RETRY, Verdict.FINAL]


def test_fault_13_an_id_of_which_a_state_was_seen_is_given_10_minutes() -> None:
    """A node that has lost it is more likely than a mistake of the caller's."""
    streak, verdicts = NO_FAULTS, []
    for second in range(0, 601, 60):
        streak, verdict = after_fault(streak, Kind.NOT_FOUND, START + second, is_known=True)
        verdicts.append(verdict)
    assert verdicts == [Verdict.RETRY] * 10 + [Verdict.FINAL]


@pytest.mark.parametrize("other", sorted(TRANSIENT))
def test_faults_10_13_after_a_fault_that_passes_the_30_seconds_begin_anew(other: Kind) -> None:
    """Unknown for a moment before an outage and after it is not unknown for 30 s."""
    kinds = [Kind.NOT_FOUND, *[other] * 60, *[Kind.NOT_FOUND] * 31]
    assert row(*kinds, step=1)[1] == [*[Verdict.RETRY] * 91, Verdict.FINAL]


def test_a_reply_that_holds_a_state_ends_every_row() -> None:
    """`NO_FAULTS` is where an id begins again."""
    assert NO_FAULTS == Streak(0, math.inf)
    assert row(*[Kind.NOT_FOUND] * 2, step=29)[1] == [Verdict.RETRY] * 2
    assert row(Kind.NOT_FOUND, step=58)[1] == [Verdict.RETRY]


@given(st.lists(KINDS, max_size=50))
def test_all_faults_count_for_the_backoff(kinds: list[Kind]) -> None:
    """The streak counts faults of any kind, mixed as they come."""
    assert row(*kinds)[0].faults == len(kinds)


# --- when it is asked for again -------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(TRANSIENT))
@pytest.mark.parametrize(
    ("faults", "bound"), [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (7, 30), (100_000, 30)]
)
def test_the_backoff_is_full_jitter(kind: Kind, faults: int, bound: float) -> None:
    """Uniform from 0 to base · 2ⁿ, base 0.5 s, after a throttle 1 s, and at most 30 s."""
    if kind in THROTTLES:
        bound = min(30, 2 * bound)
    waits = [backoff(Streak(faults), kind, START, rand) for rand in (0.0, 0.25, 0.5, 1.0)]
    assert waits == [0, bound / 4, bound / 2, bound]


@given(
    st.lists(st.tuples(KINDS, st.floats(0, 100)), min_size=1, max_size=60),
    st.floats(0, 1, exclude_max=True),
)
def test_the_backoff_is_never_over_30_seconds_nor_under_0(
    faults: list[tuple[Kind, float]], rand: float
) -> None:
    """Whatever happened before."""
    streak, now = NO_FAULTS, START
    for kind, later in faults:
        streak, _ = after_fault(streak, kind, now)
        assert 0 <= backoff(streak, kind, now, rand) <= 30
        now += later


@pytest.mark.parametrize("kind", sorted(TRANSIENT))
def test_fault_7_an_outage_makes_no_id_wait_longer_than_its_pacing(kind: Kind) -> None:
    """Or 1 s; what says something about the rate does, and so does what the server asks for."""
    streak = Streak(10)
    waits = [backoff(streak, kind, START, 0.9, interval=seconds) for seconds in (0.1, 5, 28)]
    assert waits == ([27.0] * 3 if kind in THROTTLES else [1, 5, 27])
    assert backoff(streak, kind, START, 0.0, interval=5, retry_after=20.0) == 20


@given(
    st.floats(0, 1e7),
    st.floats(0, 29.999),
)
def test_fault_13_the_end_of_the_grace_is_hit_exactly(since: float, later: float) -> None:
    """The poll at the end of the 30 s is neither too early to count nor a backoff too late."""
    streak, _ = after_fault(NO_FAULTS, Kind.NOT_FOUND, since)
    now = since + later
    for _ in range(7):
        streak, verdict = after_fault(streak, Kind.NOT_FOUND, now)
        if verdict is Verdict.FINAL:
            break
    polls = 0
    while verdict is not Verdict.FINAL:
        now += backoff(streak, Kind.NOT_FOUND, now, 0.999999)
        streak, verdict = after_fault(streak, Kind.NOT_FOUND, now)
        polls += 1
        assert polls <= 3
    assert now == pytest.approx(since + 30)


def test_fault_10_past_the_grace_an_outage_is_waited_out() -> None:
    """An id that was unknown before the service broke down is not asked for without a pause."""
    streak, _ = row(Kind.NOT_FOUND, *[Kind.SERVER] * 100, step=6)
    assert backoff(streak, Kind.SERVER, START + 600, 0.5) == 15


@given(st.floats(0.001, 120), st.floats(0, 1, exclude_max=True), KINDS)
def test_fault_8_an_id_waits_at_least_as_long_as_it_was_asked_to(
    hint: float, rand: float, kind: Kind
) -> None:
    """And at most a tenth, or a second, longer than that or than its own backoff."""
    streak, _ = after_fault(NO_FAULTS, kind, START)
    wait = backoff(streak, kind, START, rand, retry_after=hint)
    assert hint <= wait <= max(2.0, hint + min(1.0, hint / 10))


def test_trap_6_right_after_the_submit_an_id_may_be_unknown() -> None:
    """Unknown for a moment and then known: the id was never lost."""
    streak, verdicts = row(*[Kind.NOT_FOUND] * 3, step=5)
    assert verdicts == [Verdict.RETRY] * 3
    assert backoff(streak, Kind.NOT_FOUND, START + 10, 0.5) <= 2
