"""Learned pacing: where it polls, what it promises, what is left, what it keeps."""

from __future__ import annotations

import datetime
import itertools
import json
import math
import pickle
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo3_async._models import FINAL, Phase
from veo3_async._pacing.learned import LearnedPacing
from veo3_async._pacing.policies import Eta, FixedPacing, Pacing, Progress
from veo3_async._pacing.schedule import Plan, _worth

RUNNING = [phase for phase in Phase if phase not in FINAL]
ANY = st.floats(allow_nan=True, allow_infinity=True)
RAND = st.floats(0, 1, exclude_max=True)


def at(
    age: float, phase: Phase = Phase.GENERATING, *, previous_age: float | None = None
) -> Progress:
    return Progress(phase=phase, age=age, previous_age=previous_age)


def live(pacing: Pacing, *phases: tuple[Phase, float], end: Phase = Phase.COMPLETED) -> int:
    """Poll a task to its end; return how many polls it took."""
    now, began, polls = 0.0, 0.0, 0
    for (phase, lasts), (successor, _) in itertools.pairwise([*phases, (end, 0.0)]):
        last: Progress | None = None
        while now < began + lasts:
            previous = None if last is None else last.age
            last = at(now - began, phase, previous_age=previous)
            now += pacing.delay(last, 0.5)
            polls += 1
        if last is not None:
            pacing.phase_ended(last, lasts, successor)
        began += lasts
    return polls + 1


def seasoned(*durations: float, **options: Any) -> LearnedPacing:
    pacing = LearnedPacing(**options)
    for lasts in durations:
        live(pacing, (Phase.GENERATING, lasts))
    return pacing


def around(median: float, tasks: int = 200, *, sigma: float = 0.1) -> Iterator[float]:
    rng = random.Random(4)
    return (median * math.exp(rng.gauss(0, sigma)) for _ in range(tasks))


# --- when to ask ----------------------------------------------------------------------------


@pytest.mark.parametrize("phase", RUNNING)
@pytest.mark.parametrize("age", [0.0, 7.0, 300.0, 4000.0])
def test_without_history_it_is_the_interval_that_it_replaces(phase: Phase, age: float) -> None:
    """Who knows nothing asks every 10 s, in whatever phase, at whatever age."""
    assert LearnedPacing(jitter=0).delay(at(age, phase), 0.5) == pytest.approx(10, rel=0.01)


def test_it_asks_most_when_tasks_finish_most() -> None:
    """Of tasks that take about 300 s, the waits are shortest around 300 s."""
    pacing = seasoned(*around(300))
    waits = {age: pacing.delay(at(age), 0.5) for age in (10.0, 100.0, 300.0)}
    assert waits[300.0] < 3
    assert waits[10.0] > 60
    assert waits[100.0] > 30


def test_a_poll_falls_into_a_peak_and_not_behind_it() -> None:
    """From long before a sharp peak, the next poll is not later than into its beginning."""
    pacing = seasoned(*around(100, sigma=0.03))
    for age in (0.0, 20.0, 50.0, 80.0):
        assert age + pacing.delay(at(age), 0.5) < 105


def test_running_tasks_teach_as_well() -> None:
    """When a crowd has come to 200 s and none of it has ended, a young one is asked less often."""
    crowded, quiet = seasoned(*[100.0] * 10), seasoned(*[100.0] * 10)
    for _ in range(100):
        for age in range(0, 200, 10):
            crowded.delay(at(age + 10.0, previous_age=float(age)), 0.5)
    assert crowded.delay(at(95.0), 0.5) > 2 * quiet.delay(at(95.0), 0.5)


def test_before_a_task_has_ended_nothing_is_guessed() -> None:
    """The first tasks of all are polled evenly, whatever phases they have come through."""
    pacing = LearnedPacing(jitter=0)
    pacing.phase_ended(at(4.0, Phase.QUEUED), 8.0, Phase.GENERATING)
    for age in range(0, 500, 10):
        wait = pacing.delay(at(age + 10.0, previous_age=float(age)), 0.5)
        assert wait == pytest.approx(10, rel=0.01)
    assert LearnedPacing(mean_lag=4, jitter=0).delay(at(100.0), 0.5) == pytest.approx(8)


def test_one_that_is_lost_from_sight_has_not_ended() -> None:
    """A watch that gives up at 50 s says nothing about tasks that finish then."""
    pacing = seasoned(*around(300))
    before = pacing.delay(at(40.0), 0.5)
    for _ in range(50):
        pacing.phase_ended(at(40.0, previous_age=30.0), 50.0, Phase.LOST)
    assert pacing.tasks == 200
    assert pacing.delay(at(40.0), 0.5) >= before


def test_jitter_moves_a_wait_both_ways() -> None:
    """Random numbers at both ends shorten and lengthen a wait by the share."""
    pacing = LearnedPacing(jitter=0.5)
    waits = [pacing.delay(at(0.0), rand) for rand in (0.0, 0.5, 1.0)]
    assert waits == pytest.approx([5, 10, 15], rel=0.01)


@pytest.mark.parametrize(("unseen", "expected"), [(0.0, 0.2), (0.5, 0.6), (1.0, 1.0)])
def test_a_phase_that_is_over_too_soon_lends_its_worth(unseen: float, expected: float) -> None:
    """Where the video follows before the next poll, the change before it is worth the video."""
    odds = {
        Phase.GENERATING: {Phase.GENERATED: 1.0},
        Phase.GENERATED: {Phase.COMPLETED: 1.0},
    }
    worth = _worth(odds, {Phase.GENERATING: 0.0, Phase.GENERATED: unseen})
    assert worth == pytest.approx({Phase.GENERATING: expected, Phase.GENERATED: 1.0})


def test_every_second_of_a_watched_task_counts_once() -> None:
    """From the first look to the end, not only up to the last poll before it."""
    pacing = LearnedPacing(5, half_life=1e6)
    live(pacing, (Phase.GENERATING, 95.0))
    exposed = pacing.to_dict()["phases"]["generating"]["lasted"]["exposed"]
    assert sum(exposed) == pytest.approx(95, rel=0.01)


def test_a_phase_that_nobody_came_to_before_is_polled_as_any() -> None:
    """A status that the service invents tomorrow gets a wait, and the rest goes on."""
    pacing = seasoned(*around(300))
    assert 1 <= pacing.delay(at(5.0, Phase.UNKNOWN), 0.5) <= 120
    assert pacing.delay(at(300.0), 0.5) < 3


# --- what it costs and brings ---------------------------------------------------------------


@pytest.mark.parametrize("polls", [10, 35, 80])
def test_it_spends_what_it_was_set_to(polls: float) -> None:
    """After some tasks the polls of one are within a tenth of the knob, and of what it says."""
    pacing = seasoned(*around(300, 150), polls_per_task=polls)
    spent = [live(pacing, (Phase.GENERATING, lasts)) for lasts in around(300, 100)]
    assert sum(spent) / 100 == pytest.approx(polls, rel=0.1)
    assert pacing.expected_polls == pytest.approx(polls, rel=0.01)


def test_one_budget_is_spread_over_all_phases() -> None:
    """A life of five phases, one of them repeated, costs what the knob says, not five times it."""
    pacing = LearnedPacing(30)
    rng = random.Random(5)

    def one() -> int:
        retried = (
            [(Phase.GENERATING, 60 * rng.uniform(0.5, 1.5)), (Phase.RETRYING, 15.0)]
            if rng.random() < 0.3
            else []
        )
        return live(
            pacing,
            (Phase.QUEUED, 10 * rng.uniform(0.5, 1.5)),
            *retried,
            (Phase.GENERATING, 180 * rng.uniform(0.7, 1.3)),
            (Phase.GENERATED, 2.0),
            (Phase.UPSAMPLING, 80 * rng.uniform(0.7, 1.3)),
        )

    for _ in range(150):
        one()
    assert sum(one() for _ in range(100)) / 100 == pytest.approx(30, rel=0.12)


def test_a_wanted_lag_is_what_the_expected_polls_pay_for() -> None:
    """Given the lag, the polls follow; given those polls, the lag follows."""
    known = seasoned(*around(300)).to_dict()
    by_lag = LearnedPacing.from_dict(known, mean_lag=2.0)
    assert by_lag.expected_lag == pytest.approx(2.0, rel=0.01)
    by_polls = LearnedPacing.from_dict(known, polls_per_task=by_lag.expected_polls)
    assert by_polls.expected_lag == pytest.approx(2.0, rel=0.02)


def test_less_lag_costs_more_polls() -> None:
    """A timedelta is a lag as well, and half of it is not to be had for the same."""
    known = seasoned(*around(300)).to_dict()
    costs = [
        LearnedPacing.from_dict(known, mean_lag=lag).expected_polls
        for lag in (datetime.timedelta(seconds=4), 2.0, 1.0)
    ]
    assert costs == sorted(costs)
    assert costs[2] > 1.8 * costs[1]


def test_bounds_win_over_the_knob_and_it_says_so() -> None:
    """1,000 polls of a task, at least 5 s apart, are too many: the pacing says how many fit."""
    pacing = LearnedPacing(1000, min_interval=5)
    assert pacing.delay(at(0.0), 0.5) == 5
    assert pacing.expected_polls == pytest.approx(334.7 / 5 + 1.5, rel=0.01)
    assert pacing.expected_lag == pytest.approx(2.5, rel=0.01)


def test_too_few_polls_end_at_the_longest_interval() -> None:
    """Two polls a task are the first look and the last; between them it is as long as allowed."""
    assert LearnedPacing(2, max_interval=60, jitter=0).delay(at(0.0), 0.5) == pytest.approx(60)


def test_it_finds_the_video_sooner_than_the_interval_it_replaces() -> None:
    """For as many polls as a fixed 10 s, the lag is less than two thirds."""
    durations = list(around(300, sigma=0.35, tasks=400))
    fixed = [live(FixedPacing(jitter=0), (Phase.GENERATING, lasts)) for lasts in durations[200:]]
    pacing = seasoned(*durations[:200], polls_per_task=sum(fixed) / 200)
    assert pacing.expected_lag < 5.0 * 0.65


# --- what is left ---------------------------------------------------------------------------


def test_nothing_known_is_a_guess() -> None:
    """The documented task is a start for polling; it is no promise about this service."""
    pacing = LearnedPacing()
    pacing.delay(at(0.0), 0.5)
    begun, upsampling = pacing.eta(at(0.0)), pacing.eta(at(0.0, Phase.UPSAMPLING))
    assert begun is not None
    assert upsampling is not None
    assert (begun.is_guess, upsampling.is_guess) == (True, True)
    assert upsampling.median < begun.median
    assert pacing.eta(at(0.0, Phase.COMPLETED)) is None


@pytest.mark.parametrize("model", ["/302/submit/veo3-pro", "veo3-pro-frames", "sora-2", ""])
@pytest.mark.parametrize("phase", [phase for phase in Phase if not phase.is_final])
def test_a_guess_has_a_range_and_never_ends(model: str, phase: Phase) -> None:
    """Of any model in any phase, for a task of any age something is left, ever less."""
    before = math.inf
    for age in (0.0, 30.0, 200.0, 1e5, math.inf, math.nan):
        left = LearnedPacing().eta(Progress(phase=phase, age=age, model=model))
        assert left is not None
        assert left.is_guess
        assert 0 < left.low < left.median < left.high < 1000
        if not math.isnan(age):
            assert left.median <= before
            before = left.median


def test_the_guess_goes_by_the_documented_minutes() -> None:
    """A whole task of veo3-pro takes 3 to 6 minutes; of others nothing is documented."""
    pacing = LearnedPacing()
    new = Progress(phase=Phase.QUEUED, age=0.0, model="/302/submit/veo3-pro")
    assert pacing.eta(new) == Eta(180.0, 270.0, 360.0, is_guess=True)
    other = pacing.eta(msgspec.structs.replace(new, model="sora-2"))
    assert other is not None
    assert (other.low, other.high) == (60.0, 900.0)


def test_what_was_learned_is_no_guess() -> None:
    """From the first task that was seen on, it is that."""
    left = seasoned(60.0).eta(at(0.0))
    assert left is not None
    assert not left.is_guess


def test_what_is_left_shrinks_with_age() -> None:
    """Of tasks that take about 300 s, some 200 s are left at 100 s, in a range about that."""
    left = seasoned(*around(300)).eta(at(100.0))
    assert left is not None
    assert left.low < left.median < left.high
    assert left.median == pytest.approx(200, rel=0.05)
    assert (left.low, left.high) == pytest.approx((165, 245), rel=0.1)


def test_what_is_late_has_still_time_left() -> None:
    """A task older than most others at their end gets an ETA that is not in the past."""
    left = seasoned(*around(300)).eta(at(380.0))
    assert left is not None
    assert left.low > 0
    assert 5 < left.median < 100


def test_what_is_left_sums_up_the_phases_to_come() -> None:
    """From the queue on, the median is about the sum of the phases until the video."""
    pacing = LearnedPacing()
    for generating in around(200):
        live(
            pacing,
            (Phase.QUEUED, 20.0),
            (Phase.GENERATING, generating),
            (Phase.UPSAMPLING, generating / 2),
            end=Phase.COMPLETED_PLAIN,
        )
    left = pacing.eta(at(0.0, Phase.QUEUED))
    assert left is not None
    assert left.median == pytest.approx(320, rel=0.05)
    assert left == pacing.eta(at(0.0, Phase.QUEUED))


def test_attempts_that_fail_lengthen_what_is_left() -> None:
    """Where half of all attempts are repeated, the high end of the range holds two of them."""
    pacing = LearnedPacing()
    for retried in [True, False] * 100:
        attempt = ((Phase.GENERATING, 100.0), (Phase.RETRYING, 20.0)) if retried else ()
        live(pacing, *attempt, (Phase.GENERATING, 100.0))
    left = pacing.eta(at(0.0))
    assert left is not None
    assert left.low < 110
    assert left.high > 210


def test_tasks_that_fail_are_no_time_to_the_video() -> None:
    """What is left is left for tasks that make it; who only ever saw failures guesses."""
    pacing = LearnedPacing()
    for _ in range(50):
        live(pacing, (Phase.GENERATING, 60.0), end=Phase.FAILED)
    left = pacing.eta(at(0.0))
    assert left is not None
    assert left.is_guess
    assert pacing.tasks == 50


def test_the_range_holds_the_truth_as_often_as_it_says() -> None:
    """After 200 tasks the 10-90 % range holds 75 to 90 % of the next ones, at any age."""
    pacing = seasoned(*around(300, sigma=0.35))
    rng, held = random.Random(6), []
    for _ in range(2000):
        lasts = 300 * math.exp(rng.gauss(0, 0.35))
        age = rng.uniform(0, lasts)
        left = pacing.eta(at(age))
        assert left is not None
        held.append(left.low <= lasts - age <= left.high)
    assert 0.75 <= sum(held) / len(held) <= 0.9


# --- any history ----------------------------------------------------------------------------

EVENTS = st.one_of(
    st.builds(
        Progress,
        phase=st.sampled_from(RUNNING),
        age=ANY,
        previous_age=st.none() | ANY,
        polls=st.integers(),
    ),
    st.tuples(
        st.builds(Progress, phase=st.sampled_from(RUNNING), age=ANY),
        ANY,
        st.sampled_from(list(Phase)),
    ),
)


def waits_of(pacing: LearnedPacing, history: list[Any], rand: float) -> list[float]:
    waits = []
    for event in history:
        if isinstance(event, Progress):
            waits.append(pacing.delay(event, rand))
        else:
            pacing.phase_ended(*event)
    return waits


@given(st.lists(EVENTS, max_size=15), st.builds(at, ANY, st.sampled_from(list(Phase))), RAND)
def test_any_history_gives_a_wait_within_the_bounds(
    history: list[Any], now: Progress, rand: float
) -> None:
    """Zeros, years, no numbers, clocks running backwards: at least 2 s, at most 30 s, always."""
    pacing = LearnedPacing(min_interval=2, max_interval=30, jitter=1)
    waits = [*waits_of(pacing, history, rand), pacing.delay(now, rand)]
    assert all(2 <= wait <= 30 for wait in waits)
    assert 0 < pacing.expected_polls < math.inf
    assert 0.99 <= pacing.expected_lag <= 15.01
    left = pacing.eta(now)
    assert left is None or 0 <= left.low <= left.median <= left.high < math.inf


@given(st.lists(EVENTS, max_size=15), RAND)
def test_the_same_history_gives_the_same_waits(history: list[Any], rand: float) -> None:
    """There is no chance in it but the numbers it is given."""
    assert waits_of(LearnedPacing(), history, rand) == waits_of(LearnedPacing(), history, rand)


@pytest.mark.parametrize(
    "durations",
    [[], [300.0], [300.0] * 200, [0.0] * 200, [86400.0 * 365] * 20, [0.0, 86400.0 * 365] * 20],
    ids=["none", "one", "all equal", "zeros", "years", "both"],
)
def test_odd_lives_stay_within_the_bounds(durations: list[float]) -> None:
    """Histories that no service has leave every wait of a whole life within its bounds."""
    pacing = LearnedPacing()
    for lasts in durations:
        pacing.phase_ended(at(0.0), lasts, Phase.COMPLETED)
    ages = [0.0, 1e-9, 1.0, 299.0, 301.0, 1e4, 1e5, 1e9, 1e300]
    assert all(1 <= pacing.delay(at(age), rand) <= 120 for age in ages for rand in (0, 0.99))


def test_it_remembers_no_task() -> None:
    """Ten thousand tasks take no more memory than ten did."""

    def size(pacing: LearnedPacing) -> int:
        return len(pickle.dumps(pacing.to_dict())) // 64  # a count takes a byte more or less

    pacing = seasoned(*[100.0] * 10)
    before = size(pacing)
    for _ in range(10_000):
        pacing.phase_ended(at(99.0), 100.0, Phase.COMPLETED)
    assert size(pacing) <= before + 1


def test_a_plan_serves_for_many_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The costly part is done rarely: of thousands of polls, not one in a hundred plans anew."""
    made = []
    plan = Plan.__init__

    def counted(self: Plan, *args: Any, **options: Any) -> None:
        made.append(1)
        plan(self, *args, **options)

    monkeypatch.setattr(Plan, "__init__", counted)
    polls = sum(live(pacing, (Phase.GENERATING, 300.0)) for pacing in [LearnedPacing()] * 300)
    assert len(made) < polls / 100


# --- what was learned is kept ---------------------------------------------------------------


def test_knowledge_survives_json() -> None:
    """A pacing made from what another had learned asks about as often, and has an ETA."""
    known = seasoned(*around(300))
    again = LearnedPacing.from_dict(json.loads(json.dumps(known.to_dict())))
    for age in (10.0, 100.0, 250.0, 300.0, 500.0):
        assert again.delay(at(age), 0.5) == pytest.approx(known.delay(at(age), 0.5), rel=0.1)
    left, before = again.eta(at(50.0)), known.eta(at(50.0))
    assert isinstance(left, Eta)
    assert isinstance(before, Eta)
    assert left.median == pytest.approx(before.median, rel=0.02)
    assert again.tasks == 200


def test_knowledge_takes_a_few_kilobytes() -> None:
    """A life through every phase, a thousand times, is kept in less than 10 kB."""
    pacing = LearnedPacing()
    for lasts in around(100, 1000, sigma=0.5):
        live(pacing, *((phase, lasts) for phase in RUNNING))
    assert len(json.dumps(pacing.to_dict())) < 10_000


def test_options_are_not_knowledge() -> None:
    """What is restored into a pacing leaves its options as they are; garbage changes nothing."""
    pacing = LearnedPacing(12, half_life=20)
    pacing.restore(seasoned(*around(300)).to_dict())
    assert pacing.expected_polls == pytest.approx(12, rel=0.01)
    assert (pacing.half_life, pacing.tasks) == (20, 200)
    with pytest.raises(ValueError, match="another version"):
        pacing.restore({"version": 2})
    assert pacing.tasks == 200


def test_what_was_forgotten_is_not_kept() -> None:
    """A successor that was not seen for long does not stand in the knowledge with a 0."""
    pacing = LearnedPacing(half_life=1)
    live(pacing, (Phase.GENERATING, 50.0), end=Phase.FAILED)
    for _ in range(20):
        live(pacing, (Phase.GENERATING, 50.0))
    kept = pacing.to_dict()["phases"]["generating"]["followed_by"]
    assert kept == {"completed": pytest.approx(2.0, rel=0.01)}


SOUND = {
    "version": 1,
    "tasks": 1,
    "phases": {
        "generating": {
            "lasted": {"ended": {"7": 1.0}, "exposed": [1.0, 2]},
            "followed_by": {"completed": 1.0},
        }
    },
}


def changed(**changes: Any) -> dict[str, Any]:
    phase = {**SOUND["phases"]["generating"], **changes}  # type: ignore[index]
    return {**SOUND, "phases": {"generating": phase}}


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        None,
        "version",
        {**SOUND, "version": 2},
        {**SOUND, "version": "1"},
        {**SOUND, "tasks": -1},
        {**SOUND, "tasks": 1.5},
        {**SOUND, "tasks": 10**400},
        {**SOUND, "more": 1},
        {**SOUND, "phases": {"dancing": SOUND["phases"]["generating"]}},  # type: ignore[index]
        changed(followed_by={"completed": math.nan}),
        changed(followed_by={"completed": 0.0}),
        changed(followed_by={"completed": 1e300}),
        changed(followed_by={"nowhere": 1.0}),
        changed(lasted={"ended": {"7": "many"}, "exposed": []}),
        changed(lasted={"ended": {"x": 1.0}, "exposed": []}),
        changed(lasted={"ended": {"9999": 1.0}, "exposed": []}),
        changed(lasted={"ended": {}, "exposed": [math.inf]}),
        changed(lasted={"ended": {}, "exposed": [-1.0]}),
        changed(lasted={"ended": {}, "exposed": [10**400]}),
        changed(lasted=None),
    ],
)
def test_what_is_no_knowledge_is_refused(data: Any) -> None:
    """Another version, odd types and impossible numbers are a ValueError that says what it was."""
    with pytest.raises(ValueError, match=r"evidence|not what LearnedPacing\.to_dict\(\) returns"):
        LearnedPacing.from_dict(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | ANY | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=8,
)
NUMBERS = ANY | st.integers()
NEARLY = st.fixed_dictionaries(
    {
        "version": st.just(1),
        "tasks": st.integers(),
        "phases": st.dictionaries(
            st.sampled_from([str(phase) for phase in Phase]),
            st.fixed_dictionaries(
                {
                    "lasted": st.fixed_dictionaries(
                        {
                            "ended": st.dictionaries(
                                st.integers(-1, 170).map(str), st.floats(0, 1e10) | NUMBERS
                            ),
                            "exposed": st.lists(st.floats(0, 1e10) | NUMBERS),
                        }
                    ),
                    "followed_by": st.dictionaries(
                        st.sampled_from([str(phase) for phase in Phase]),
                        st.floats(1e-4, 1e10) | NUMBERS,
                    ),
                }
            ),
        ),
    }
)


@given(NEARLY | JSON, st.sampled_from(RUNNING), st.floats(0, 1e5))
def test_whatever_is_restored_it_works_or_is_refused(data: Any, phase: Phase, age: float) -> None:
    """Any JSON is a ValueError, or knowledge with which every wait is within its bounds."""
    try:
        pacing = LearnedPacing.from_dict(data)
    except ValueError:
        return
    assert 1 <= pacing.delay(at(age, phase), 0.5) <= 120
    assert 0 < pacing.expected_polls < math.inf
    left = pacing.eta(at(age, phase))
    assert left is None or 0 <= left.low <= left.median <= left.high < math.inf
    assert LearnedPacing.from_dict(json.loads(json.dumps(pacing.to_dict()))).tasks == pacing.tasks


# --- options --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"polls_per_task": 30, "mean_lag": 3}, "give polls_per_task or mean_lag, not both"),
        ({"polls_per_task": 1}, "polls_per_task is a finite number of at least 2, not 1"),
        ({"polls_per_task": 0}, "polls_per_task is a finite number of at least 2, not 0"),
        ({"polls_per_task": math.inf}, "polls_per_task is a finite number of at least 2, not inf"),
        ({"polls_per_task": math.nan}, "polls_per_task is a finite number of at least 2, not nan"),
        ({"mean_lag": 0}, "mean_lag is a finite number of seconds above 0, not 0"),
        ({"mean_lag": 0.1}, "mean_lag is 0.5 to 60 s, .* not 0.1; change these, or it"),
        ({"mean_lag": 100}, "mean_lag is 0.5 to 60 s, .* not 100; change these, or it"),
        ({"min_interval": -1}, "min_interval is a finite number of seconds above 0, not -1"),
        ({"min_interval": 1e-9}, "min_interval is a finite number of at least 0.001, not 1e-09"),
        ({"max_interval": math.inf}, "max_interval is a finite number of seconds above 0, not inf"),
        (
            {"min_interval": 20, "max_interval": 10},
            r"max_interval \(10 s\) is below min_interval \(20 s\)",
        ),
        ({"jitter": 2}, "jitter is between 0 and 1, not 2"),
        ({"half_life": 0.5}, "half_life is a finite number of at least 1, not 0.5"),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any], said: str) -> None:
    """Options that make no sense are refused when the pacing is made, by name and with a way."""
    with pytest.raises(ValueError, match=f"^{said}"):
        LearnedPacing(**options)


@pytest.mark.parametrize("name", ["polls_per_task", "half_life", "jitter", "mean_lag"])
def test_an_option_of_another_type_is_refused(name: str) -> None:
    """Text is no number."""
    options: dict[str, Any] = {name: "5"}
    with pytest.raises(TypeError):
        LearnedPacing(**options)


def test_its_state_is_shown() -> None:
    """The knob, the tasks learned from, and what follows, are in the repr."""
    assert repr(LearnedPacing()) == (
        "LearnedPacing(polls_per_task=35, tasks=0, expected_polls=35.0, expected_lag=5.0)"
    )
    assert repr(LearnedPacing(mean_lag=5)).startswith("LearnedPacing(mean_lag=5, tasks=0, ")


def test_looking_changes_nothing() -> None:
    """Asking for the expectations, the repr or an ETA leaves the next wait as it was."""
    looked, quiet = LearnedPacing(jitter=0), LearnedPacing(jitter=0)
    assert repr(looked)
    assert looked.eta(at(5.0)) == quiet.eta(at(5.0))
    for age in range(0, 300, 10):
        progress = at(age + 10.0, previous_age=float(age))
        assert looked.delay(progress, 0.5) == quiet.delay(progress, 0.5)


# --- models ---------------------------------------------------------------------------------


def of_model(model: str, seconds: float, pacing: LearnedPacing, tasks: int = 60) -> None:
    """Let a pacing see tasks of a model that all last so long."""
    for _ in range(tasks):
        last = Progress(phase=Phase.GENERATING, age=0.0, model=model)
        pacing.delay(last, 0.5)
        pacing.phase_ended(last, seconds, Phase.COMPLETED)


def test_two_models_do_not_blur_each_other() -> None:
    """One of 40 s and one of 6 minutes: each has the schedule and the ETA that it has alone."""
    both = LearnedPacing(polls_per_task=20)
    of_model("fast", 40.0, both)
    of_model("slow", 360.0, both)
    for model, seconds in (("fast", 40.0), ("slow", 360.0)):
        alone = LearnedPacing(polls_per_task=20)
        of_model(model, seconds, alone)
        for age in (1.0, 30.0, 200.0, 350.0):
            here = Progress(phase=Phase.GENERATING, age=age, model=model)
            assert both.eta(here) == alone.eta(here)
            assert both.delay(here, 0.5) == alone.delay(here, 0.5)
    assert both.tasks == 120


def test_what_is_learned_of_models_comes_back() -> None:
    """Through JSON, each by its name."""
    pacing = LearnedPacing()
    of_model("fast", 40.0, pacing)
    of_model("", 100.0, pacing)
    again = LearnedPacing.from_dict(json.loads(json.dumps(pacing.to_dict())))
    assert again.tasks == pacing.tasks == 120
    for model in ("fast", ""):
        here = Progress(phase=Phase.GENERATING, age=5.0, model=model)
        eta, same = pacing.eta(here), again.eta(here)
        assert eta is not None
        assert same is not None
        assert same.median == pytest.approx(eta.median, rel=0.01)


def test_the_model_that_was_not_asked_for_longest_is_forgotten() -> None:
    """Of any number of models 32 are kept, so memory is bounded."""
    pacing = LearnedPacing()
    for number in range(100):
        of_model(f"model {number}", 60.0, pacing, tasks=1)
    assert len(pacing.to_dict()["models"]) == 32
    for number, is_forgotten in ((99, False), (0, True)):
        here = Progress(phase=Phase.GENERATING, age=1.0, model=f"model {number}")
        left = pacing.eta(here)
        assert left is not None
        assert left.is_guess is is_forgotten


def test_a_new_model_begins_with_what_was_learned_without_one() -> None:
    """What was learned before models were distinguished is of use; each goes on by itself."""
    pacing = LearnedPacing()
    of_model("", 100.0, pacing)
    here = Progress(phase=Phase.GENERATING, age=5.0, model="fast")
    eta = pacing.eta(here)
    assert eta is not None
    assert eta.median == pytest.approx(95, abs=5)
    of_model("fast", 20.0, pacing, tasks=300)
    later, unnamed = pacing.eta(here), pacing.eta(msgspec.structs.replace(here, model=""))
    assert later is not None
    assert unnamed is not None
    assert later.median < 20 < unnamed.median
