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
EVERYBODYS: Final = {Kind.AUTHENTICATION, Kind.QUOTA, Kind.CERTIFICATE, Kind.SESSION}
PASSING: Final = {
    Kind.CONNECT,
    Kind.DNS,
    Kind.TIMEOUT,
    Kind.RESET,
    Kind.LOCAL,
    Kind.THROTTLED,
    Kind.OVERLOADED,
    Kind.SERVER,
}
COUNTED: Final = {Kind.INVALID: 1, Kind.REDIRECT: 5, Kind.UNEXPECTED: 20}
THROTTLES: Final = {Kind.THROTTLED, Kind.OVERLOADED}
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
    assert {*EVERYBODYS, *PASSING, *COUNTED, Kind.NOT_FOUND} == set(Kind)


@pytest.mark.parametrize("kind", sorted(PASSING))
def test_faults_1_to_9_pass_for_ever(kind: Kind) -> None:
    """A thousand in a row, over an hour each, and the id goes back to the schedule."""
    streak, verdicts = row(*[kind] * 1000, step=3600)
    assert set(verdicts) == {Verdict.AGAIN}
    assert streak == Streak(1000)


@pytest.mark.parametrize("kind", sorted(EVERYBODYS))
def test_faults_15_16_18_are_everybodys_at_once(kind: Kind) -> None:
    """A refused key, an empty purse or a wrong certificate stops all polling at the first."""
    assert row(kind)[1] == [Verdict.EVERYBODY]
    assert row(Kind.SERVER, Kind.NOT_FOUND, kind)[1][-1] is Verdict.EVERYBODY


def test_fault_14_an_invalid_request_is_final_at_once() -> None:
    """It would be refused the next time too."""
    assert row(Kind.INVALID)[1] == [Verdict.FINAL]


def test_fault_11_nonsense_is_final_at_the_twentieth_in_a_row() -> None:
    """Nineteen go back to the schedule, however long they take."""
    assert row(*[Kind.UNEXPECTED] * 20, step=60)[1] == [Verdict.AGAIN] * 19 + [Verdict.FINAL]


def test_fault_17_a_redirect_is_final_at_the_fifth_in_a_row() -> None:
    """Four may be a short maintenance."""
    assert row(*[Kind.REDIRECT] * 5, step=60)[1] == [Verdict.AGAIN] * 4 + [Verdict.FINAL]


@pytest.mark.parametrize(
    ("kind", "seconds"), [(Kind.UNEXPECTED, 225), (Kind.REDIRECT, 7.5)], ids=["page", "redirect"]
)
def test_faults_11_17_what_a_row_takes(kind: Kind, seconds: float) -> None:
    """By the backoff a page that says "back soon" has four minutes, a redirect 8 s."""
    streak, now = NO_FAULTS, 0.0
    while (after := after_fault(streak, kind, now))[1] is Verdict.AGAIN:
        streak = after[0]
        now += backoff(streak, kind, now, 0.5)
    assert now == pytest.approx(seconds, abs=1)


@pytest.mark.parametrize("other", sorted(PASSING | {Kind.NOT_FOUND}))
def test_fault_11_another_fault_ends_the_row(other: Kind) -> None:
    """Nineteen, another, and nineteen again are not twenty in a row."""
    nonsense = [Kind.UNEXPECTED] * 19
    assert Verdict.FINAL not in row(*nonsense, other, *nonsense)[1]


def test_fault_17_a_redirect_counts_for_four_of_other_nonsense() -> None:
    """Where both come, neither makes the other forgotten."""
    mixed = [Kind.UNEXPECTED, Kind.REDIRECT] * 4
    assert row(*mixed)[1] == [Verdict.AGAIN] * 7 + [Verdict.FINAL]


def test_fault_14_a_refusal_among_nonsense_is_final() -> None:
    """The service has spoken, whatever stood in its way before."""
    assert row(Kind.UNEXPECTED, Kind.INVALID)[1] == [Verdict.AGAIN, Verdict.FINAL]


def test_fault_13_an_unknown_id_is_tolerated_for_30_seconds() -> None:
    """Whatever the number of polls, the first at 30 s or later ends it."""
    assert row(*[Kind.NOT_FOUND] * 301, step=0.1)[1] == [Verdict.AGAIN] * 300 + [Verdict.FINAL]
    assert row(*[Kind.NOT_FOUND] * 2, step=1000)[1] == [Verdict.AGAIN, Verdict.FINAL]


@pytest.mark.parametrize("other", [Kind.UNEXPECTED, Kind.REDIRECT])
def test_fault_13_nonsense_does_not_stop_the_30_seconds(other: Kind) -> None:
    """An unknown id behind a page that says "back soon" now and then is unknown all the time."""
    kinds = [Kind.NOT_FOUND, other, other, Kind.NOT_FOUND]
    assert row(*kinds, step=9.99)[1] == [Verdict.AGAIN] * 4
    assert row(*kinds, step=10)[1] == [*[Verdict.AGAIN] * 3, Verdict.FINAL]


@pytest.mark.parametrize("other", sorted(PASSING))
def test_faults_10_13_after_a_fault_that_passes_the_30_seconds_begin_anew(other: Kind) -> None:
    """Unknown for a moment before an outage and after it is not unknown for 30 s."""
    kinds = [Kind.NOT_FOUND, *[other] * 60, *[Kind.NOT_FOUND] * 31]
    assert row(*kinds, step=1)[1] == [*[Verdict.AGAIN] * 91, Verdict.FINAL]


@pytest.mark.parametrize("between", [1, 2, 19])
def test_faults_11_13_an_unknown_id_among_nonsense_ends(between: int) -> None:
    """Each has its own limit, and neither takes the other's back."""
    kinds = [Kind.NOT_FOUND, *[Kind.UNEXPECTED] * between]
    verdicts = row(*kinds * 40, step=1.0)[1]
    assert verdicts.index(Verdict.FINAL) == next(n for n in range(30, 60) if n % len(kinds) == 0)


@given(st.lists(st.sampled_from([Kind.UNEXPECTED, Kind.REDIRECT, Kind.NOT_FOUND]), min_size=80))
def test_faults_11_13_17_what_does_not_pass_does_not_go_on_for_ever(kinds: list[Kind]) -> None:
    """Without a state and without a passing fault an id ends, however its replies alternate."""
    assert Verdict.FINAL in row(*kinds, step=1.0)[1]


def test_a_reply_that_holds_a_state_ends_every_row() -> None:
    """`NO_FAULTS` is where an id begins again."""
    assert NO_FAULTS == Streak(0, 0, math.inf)
    assert row(*[Kind.NOT_FOUND] * 2, step=29)[1] == [Verdict.AGAIN] * 2
    assert row(Kind.NOT_FOUND, step=58)[1] == [Verdict.AGAIN]


@given(st.lists(KINDS, max_size=50))
def test_all_faults_count_for_the_backoff(kinds: list[Kind]) -> None:
    """The streak counts faults of any kind, mixed as they come."""
    assert row(*kinds)[0].faults == len(kinds)


# --- when it is asked for again -------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(PASSING))
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


@given(
    st.floats(0, 1e7),
    st.floats(0, 29.999),
    st.lists(st.sampled_from([Kind.UNEXPECTED, Kind.NOT_FOUND]), max_size=9),
)
def test_fault_13_the_end_of_the_grace_is_hit_exactly(
    since: float, later: float, others: list[Kind]
) -> None:
    """The poll at the end of the 30 s is neither too early to count nor a backoff too late."""
    streak, _ = after_fault(NO_FAULTS, Kind.NOT_FOUND, since)
    now = since + later
    for kind in [Kind.NOT_FOUND, *others, Kind.NOT_FOUND, *[Kind.NOT_FOUND] * 5]:
        streak, verdict = after_fault(streak, kind, now)
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


def test_fault_11_past_the_grace_nonsense_is_waited_out() -> None:
    """An id that was unknown 31 s ago, behind a page since, is not asked for without a pause."""
    streak, _ = row(Kind.NOT_FOUND, Kind.UNEXPECTED, step=31)
    assert backoff(streak, Kind.UNEXPECTED, START + 31, 0.5) == 1


def test_trap_6_right_after_the_submit_an_id_may_be_unknown() -> None:
    """Unknown for a moment and then known: the id was never lost."""
    streak, verdicts = row(*[Kind.NOT_FOUND] * 3, step=5)
    assert verdicts == [Verdict.AGAIN] * 3
    assert backoff(streak, Kind.NOT_FOUND, START + 10, 0.5) <= 2
