"""Whom to ask first after a restart: those that have most likely ended."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo3_async._models import Phase
from veo3_async._pacing.first_polls import (
    Kind,
    Remainder,
    Sighting,
    expected,
    first_polls,
)
from veo3_async._pacing.learned import LearnedPacing
from veo3_async._pacing.policies import BackoffPacing, Eta, FixedPacing, Progress

PRO: Kind = ("/302/submit/veo3-pro", Phase.GENERATING)
FAST: Kind = ("/302/submit/veo3-fast", Phase.GENERATING)
OVER: Kind = ("/302/submit/veo3-pro", Phase.COMPLETED_PLAIN)
ETAS: dict[Kind, Eta | None] = {
    PRO: Eta(200.0, 300.0, 450.0),
    FAST: Eta(40.0, 60.0, 90.0),
    OVER: None,
}
UNHURRIED = 1e-3  # polls a second: no turn of the limit comes before anything else


def order(*sightings: Sighting, rate: float = UNHURRIED) -> list[int]:
    return list(first_polls(sightings, ETAS, rate).order)


# --- the chance that it is over ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "running"),
    [(0.0, 1.0), (200.0, 0.9), (300.0, 0.5), (450.0, 0.1), (1e9, 0.0), (-5.0, 1.0)],
)
def test_the_percentiles_of_what_is_left_are_those_of_the_chance(
    age: float, running: float
) -> None:
    """One in ten has its video at the low end, half of them at the median, nine at the high end."""
    assert Remainder(ETAS[PRO]).running(age) == pytest.approx(running, abs=1e-3)


def test_of_what_has_ended_nothing_runs() -> None:
    """Whatever its age."""
    assert Remainder(None).running(0.0) == 0.0


NUMBERS = st.floats()


@given(NUMBERS, NUMBERS, NUMBERS, st.lists(st.floats(0, 1e8), min_size=2))
def test_any_numbers_give_a_chance_that_falls_with_age(
    low: float, median: float, high: float, ages: list[float]
) -> None:
    """A pacing of the user's own may say anything, infinities and no numbers included."""
    remainder = Remainder(Eta(low, median, high))
    chances = [remainder.running(age) for age in sorted(ages)]
    assert all(0 <= chance <= 1 for chance in chances)
    assert chances == sorted(chances, reverse=True)


# --- what is known ----------------------------------------------------------------------------


@pytest.mark.parametrize("pacing", [FixedPacing(), BackoffPacing(), LearnedPacing()], ids=repr)
@pytest.mark.parametrize("phase", [phase for phase in Phase if not phase.is_final])
def test_where_nothing_was_learned_the_documented_minutes_stand(
    pacing: FixedPacing, phase: Phase
) -> None:
    """So that the ages and the phases alone give an order."""
    eta = expected(pacing, ("veo3-pro", phase))
    assert eta is not None
    assert eta.is_guess


def test_what_was_learned_of_a_model_is_what_is_expected() -> None:
    """A model whose tasks took 40 s is expected to take 40 s."""
    pacing = LearnedPacing()
    for _ in range(30):
        last = Progress(phase=Phase.GENERATING, age=39.0, model=FAST[0])
        pacing.phase_ended(last, 40.0, Phase.COMPLETED)
    eta = expected(pacing, FAST)
    assert eta is not None
    assert not eta.is_guess
    assert eta.median == pytest.approx(40, rel=0.1)


@pytest.mark.parametrize("phase", [Phase.COMPLETED, Phase.COMPLETED_PLAIN, Phase.FAILED])
def test_nothing_is_left_of_what_has_ended(phase: Phase) -> None:
    """Where the journal has the last word, and its end was not written, it is asked first."""
    assert expected(FixedPacing(), ("veo3-pro", phase)) is None


def test_one_that_was_lost_from_sight_may_be_anywhere() -> None:
    """To lose sight of a task is no end of it."""
    lost, unknown = (
        expected(FixedPacing(), ("veo3-pro", phase)) for phase in (Phase.LOST, Phase.UNKNOWN)
    )
    assert lost == unknown is not None


# --- the order --------------------------------------------------------------------------------


def test_the_older_of_a_kind_goes_first() -> None:
    """What began earlier has more likely ended."""
    assert order(*(Sighting(PRO, age) for age in (10.0, 500.0, 250.0, 320.0))) == [1, 3, 2, 0]


def test_a_young_one_of_a_quick_model_goes_before_an_old_one_of_a_slow_model() -> None:
    """It is the chance that counts, not the age."""
    assert order(Sighting(PRO, 280.0), Sighting(FAST, 80.0), Sighting(OVER, 0.0)) == [2, 1, 0]


def test_one_of_any_age_stands_before_those_that_have_hardly_ended() -> None:
    """An id from elsewhere may be as old as can be: even odds, and better ones as it ages."""
    unknown = [Sighting(PRO, age, is_begin_known=False) for age in (0.0, 250.0)]
    assert order(*unknown, Sighting(PRO, 299.0), Sighting(PRO, 500.0)) == [3, 1, 0, 2]


def test_equals_keep_the_order_of_arrival() -> None:
    """Nothing known of any of them: as they came."""
    assert order(*(Sighting(PRO, 0.0, is_begin_known=False) for _ in range(5))) == [0, 1, 2, 3, 4]


# --- when -------------------------------------------------------------------------------------


def test_who_has_likely_ended_is_due_at_once_and_the_others_when_they_have() -> None:
    """Until then the limit has room for who comes new, and for who was asked already."""
    ages = (300.0, 299.0, 250.0, 900.0)
    polls = first_polls([Sighting(PRO, age) for age in ages], ETAS, UNHURRIED)
    assert list(polls.order) == [3, 0, 1, 2]
    assert polls.waits == pytest.approx([0, 0, 1, 50])


def test_nobody_is_due_later_than_in_its_turn() -> None:
    """What the limit can do at once, it does: of three ids beside 20/s the last is due in 0.1 s."""
    polls = first_polls([Sighting(PRO, age) for age in (1.0, 2.0, 3.0)], ETAS, 20.0)
    assert list(polls.order) == [2, 1, 0]
    assert polls.waits == pytest.approx([0, 0.05, 0.1])


SIGHTINGS = st.builds(
    Sighting, st.sampled_from(list(ETAS)), st.floats(-1e3, 1e9), is_begin_known=st.booleans()
)


@given(st.lists(SIGHTINGS), st.floats(1e-3, 1e6))
def test_each_is_asked_once_in_its_turn_at_the_latest(
    sightings: list[Sighting], rate: float
) -> None:
    """Every task has its place, none waits for longer than its turn, and the waits rise."""
    polls = first_polls(sightings, ETAS, rate)
    assert sorted(polls.order) == list(range(len(sightings)))
    assert list(polls.waits) == sorted(polls.waits)
    assert all(0 <= wait <= turn / rate for turn, wait in enumerate(polls.waits))
    assert not any(math.isnan(wait) for wait in polls.waits)


@given(st.lists(SIGHTINGS))
def test_the_order_is_that_of_the_chances(sightings: list[Sighting]) -> None:
    """Among those of which the begin is known, nobody stands before one that has likelier ended."""
    known = [sighting for sighting in sightings if sighting.is_begin_known]
    polls = first_polls(known, ETAS, UNHURRIED)
    chances = [Remainder(ETAS[known[n].kind]).running(known[n].age) for n in polls.order]
    likely = [chance for chance in chances if chance <= 0.5]
    assert likely == sorted(likely)
    assert chances[: len(likely)] == likely
