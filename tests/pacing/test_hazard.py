"""The estimator: ends over seconds at risk, what still runs counted, old evidence fading."""

from __future__ import annotations

import bisect
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo3_async._pacing.hazard import (
    BINS,
    DOCUMENTED_SECONDS,
    EDGES,
    WIDTHS,
    Evidence,
    Integral,
    Kept,
)

PRIOR = 1 / DOCUMENTED_SECONDS
AGES = st.floats(allow_nan=True, allow_infinity=True)


def rate_at(evidence: Evidence, age: float) -> float:
    return evidence.hazard()[bisect.bisect(EDGES, age) - 1]


def ended(ages: list[float], half_life: float = 50.0) -> Evidence:
    evidence = Evidence(half_life)
    for age in ages:
        evidence.went_on(0.0, age)
        evidence.ended_at(age)
    return evidence


def steady(rate: float, *, tasks: int, seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    return [rng.expovariate(rate) for _ in range(tasks)]


# --- what is learned ------------------------------------------------------------------------


def test_nothing_seen_is_the_documented_task() -> None:
    """Without evidence the hazard is the same at every age: one end in 334.7 s."""
    assert Evidence(50).hazard() == pytest.approx([PRIOR] * BINS)


def test_a_constant_hazard_is_found() -> None:
    """Of tasks that end at random once in 100 s, the hazard is 1/100 wherever they are seen."""
    evidence = ended(steady(0.01, tasks=4000), half_life=1000)
    assert [rate_at(evidence, age) for age in (10, 30, 100, 200)] == pytest.approx(
        [0.01] * 4, rel=0.15
    )


def test_a_peak_is_found_where_it_is() -> None:
    """Tasks that end around 90 s or 340 s give a high hazard there, a low one between."""
    rng = random.Random(2)
    evidence = ended([rng.gauss(*rng.choice([(90, 5), (340, 20)])) for _ in range(300)])
    assert rate_at(evidence, 92) > 20 * rate_at(evidence, 200)
    assert rate_at(evidence, 345) > 20 * rate_at(evidence, 200)
    assert rate_at(evidence, 40) < PRIOR


def test_scattered_ends_are_no_peaks() -> None:
    """Thirty tasks that end at random leave the hazard nearly even between 20 s and 150 s."""
    evidence = ended(steady(0.01, tasks=30))
    hazard = evidence.hazard()[bisect.bisect(EDGES, 20) : bisect.bisect(EDGES, 150)]
    assert max(hazard) < 3 * min(hazard)


def test_what_runs_counts_as_not_ended() -> None:
    """Tasks that are still running at 200 s lower the hazard before it, though none has ended."""
    evidence = ended([100.0] * 5)
    finished_only = rate_at(evidence, 100)
    for _ in range(50):
        evidence.went_on(0.0, 200.0)
    assert rate_at(evidence, 100) < finished_only / 5


def test_pieces_of_a_wait_count_as_the_whole() -> None:
    """Seconds at risk that are given poll by poll are the same evidence as all at once."""
    whole, pieces = Evidence(50), Evidence(50)
    whole.went_on(3.0, 77.0)
    for since in range(3, 77, 2):
        pieces.went_on(float(since), since + 2.0)
    assert pieces.kept().exposed == pytest.approx(whole.kept().exposed, rel=0.01)
    assert sum(whole.kept().exposed) == pytest.approx(74.0, rel=0.02)


def test_old_evidence_fades_by_tasks() -> None:
    """After a half-life of tasks that came so far and went on, an end counts half."""
    evidence = ended([60.0], half_life=10)
    before = sum(evidence.kept().ended.values())
    for _ in range(10):
        evidence.went_on(0.0, 100.0)
    assert sum(evidence.kept().ended.values()) == pytest.approx(before / 2, rel=1e-3)


def test_evidence_of_one_age_does_not_fade_by_tasks_of_another() -> None:
    """A crowd that all ends early leaves what is known of late ages as it was."""
    evidence = ended([400.0] * 30)
    before = evidence.kept()
    for _ in range(500):
        evidence.went_on(0.0, 20.0)
        evidence.ended_at(20.0)
    after = evidence.kept()
    late = bisect.bisect(EDGES, 21.0)
    assert after.exposed[late:] == before.exposed[late:]
    assert {place: end for place, end in after.ended.items() if place > late} == before.ended


def test_a_shift_is_followed() -> None:
    """When tasks come to take 300 s instead of 100 s, fifty of them move the peak."""
    rng = random.Random(3)
    evidence = ended([rng.gauss(100, 10) for _ in range(300)])
    for age in [rng.gauss(300, 30) for _ in range(50)]:
        evidence.went_on(0.0, age)
        evidence.ended_at(age)
    assert rate_at(evidence, 310) > rate_at(evidence, 105)


def test_many_ends_at_one_moment_are_seen_sharply() -> None:
    """A sharp peak is not smeared: far from it by a fifth, the hazard is small."""
    evidence = ended([100.0] * 100)
    assert rate_at(evidence, 100) > 50 * rate_at(evidence, 80)


@given(st.lists(st.tuples(AGES, AGES), max_size=30))
def test_any_ages_give_a_hazard(ages: list[tuple[float, float]]) -> None:
    """Clocks that run backwards, zeros, years and no numbers at all leave a finite hazard."""
    evidence = Evidence(1)
    for since, until in ages:
        evidence.went_on(since, until)
        evidence.ended_at(until)
    assert len(evidence.hazard()) == BINS
    assert all(0 < rate < math.inf for rate in evidence.hazard())


@pytest.mark.parametrize(
    ("since", "until"),
    [(5, 5), (9, 5), (-1, 5), (math.nan, 5), (5, math.nan), (5, math.inf), (math.inf, math.inf)],
)
def test_senseless_ages_teach_nothing(since: float, until: float) -> None:
    """A wait that did not last, or not a number of seconds, is no evidence."""
    evidence = Evidence(50)
    evidence.went_on(since, until)
    assert evidence.kept() == Evidence(50).kept()


def test_the_last_bin_takes_what_is_beyond() -> None:
    """Tasks that last for days end in a bin without end, and weigh as one task each."""
    evidence = Evidence(50)
    evidence.went_on(1e6, 1e9)
    evidence.ended_at(1e9)
    kept = evidence.kept()
    assert list(kept.ended) == [BINS - 1]
    assert kept.exposed[-1] <= WIDTHS[-1]


# --- what is kept ---------------------------------------------------------------------------


def test_what_is_kept_is_known_again() -> None:
    """Evidence that was stored and learned gives the same hazard, to the digits stored."""
    evidence, again = ended(steady(0.01, tasks=100)), Evidence(50)
    again.learn(evidence.kept())
    assert again.hazard() == pytest.approx(evidence.hazard(), rel=0.01)
    assert again.kept() == evidence.kept()


def test_what_is_as_good_as_forgotten_is_not_kept() -> None:
    """Thousandths of a task are left out."""
    evidence = ended([60.0], half_life=1)
    for _ in range(10):
        evidence.went_on(0.0, 61.0)
    assert evidence.kept().ended == {}


@pytest.mark.parametrize(
    "kept",
    [
        Kept(ended={BINS: 1.0}, exposed=[]),
        Kept(ended={-1: 1.0}, exposed=[]),
        Kept(ended={}, exposed=[1.0] * (BINS + 1)),
    ],
)
def test_evidence_of_other_bins_is_refused(kept: Kept) -> None:
    """Bins that do not exist are not guessed at."""
    with pytest.raises(ValueError, match="more than"):
        Evidence(50).learn(kept)


@pytest.mark.parametrize("number", [-1.0, math.nan, math.inf, 1e300])
def test_evidence_that_counts_nothing_is_refused(number: float) -> None:
    """Numbers that no counting gives are refused, wherever they stand."""
    for kept in (Kept(ended={3: number}, exposed=[]), Kept(ended={}, exposed=[1.0, number])):
        with pytest.raises(ValueError, match="not below 0"):
            Evidence(50).learn(kept)


# --- the integral ---------------------------------------------------------------------------


@given(st.floats(0, 1e6), st.floats(1e-6, 100))
def test_the_integral_of_a_constant_is_a_product(age: float, rate: float) -> None:
    """So many events a second, for so many seconds."""
    integral = Integral([rate] * BINS)
    assert integral.until(age) == pytest.approx(rate * age, rel=1e-9, abs=1e-12)
    assert integral.reaches(rate * age) == pytest.approx(age, rel=1e-9, abs=1e-9)


@given(st.lists(st.floats(1e-4, 10), min_size=BINS, max_size=BINS), st.floats(0, 1e5))
def test_reaching_is_the_inverse_of_integrating(rates: list[float], age: float) -> None:
    """The age until which there are as many events as until an age is that age."""
    integral = Integral(rates)
    assert integral.reaches(integral.until(age)) == pytest.approx(age, rel=1e-6, abs=1e-6)


def test_no_events_are_reached_at_once() -> None:
    """Ages begin at 0, whatever number is asked for."""
    assert Integral([0.5] * BINS).reaches(0.0) == 0.0
    assert Integral([0.5] * BINS).until(-1.0) == -0.5


@given(st.floats(1e-3, 10))
def test_what_is_spent_is_the_mean_duration(rate: float) -> None:
    """A phase that ends at a constant rate lasts its inverse, all bins together."""
    assert sum(Integral([rate] * BINS).spent()) == pytest.approx(1 / rate)
