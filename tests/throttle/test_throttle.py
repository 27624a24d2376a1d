"""The throttle: how many requests go out, and when."""

from __future__ import annotations

import collections
import heapq
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from veo3_async._lifecycle.retries import NO_FAULTS, Streak, after_fault, backoff
from veo3_async._polling.agenda import Agenda, Entry
from veo3_async._protocol.errors import Kind
from veo3_async._throttle.ceiling import Ceiling
from veo3_async._throttle.cubic import Cubic, cubic_rate
from veo3_async._throttle.noise import Noise
from veo3_async._throttle.throttle import Throttle

VECTORS: Final = json.loads(
    (Path(__file__).parent / "vectors" / "aws_adaptive_retry.json").read_bytes()
)["cases"]
CUBIC_CASES: Final[dict[str, Any]] = VECTORS["adaptiveRetryCubicTestCases"]
SENDING_CASES: Final[list[dict[str, Any]]] = VECTORS["adaptiveRetryE2eTestCases"][
    "End-to-end test for client sending rates"
]["cases"]

START: Final = 1000.0
ROUNDING: Final = 1e-6


# --- the numbers that AWS publishes ---------------------------------------------------------


@pytest.mark.parametrize("name", CUBIC_CASES)
def test_cubic_rates_are_those_of_aws(name: str) -> None:
    """The curve and the cut give the published rate at each published moment."""
    given = CUBIC_CASES[name]["given"]
    cubic = Cubic(0.0)
    cubic.measured = given["last_max_rate"]
    cubic.throttled(given["last_throttle_time"])
    cubic.measured = math.inf  # the vectors leave out the bound of what is being sent
    for case in CUBIC_CASES[name]["cases"]:
        if case["response"] == "throttle":
            cubic.throttled(case["timestamp"])
        else:
            cubic.succeeded(case["timestamp"])
        assert cubic.rate == pytest.approx(case["calculated_rate"], abs=ROUNDING)


def test_sending_rates_are_those_of_aws() -> None:
    """Measured and allowed rate follow the published ones from the first request on."""
    cubic = Cubic(0.0)
    for case in SENDING_CASES:
        cubic.sent(case["timestamp"])
        if case["response"] == "throttle":
            cubic.throttled(case["timestamp"])
        else:
            cubic.succeeded(case["timestamp"])
        assert (cubic.measured, cubic.rate) == pytest.approx(
            (case["measured_tx_rate"], case["new_token_bucket_rate"]), abs=ROUNDING
        )


def test_the_curve_begins_at_the_cut_and_is_flat_at_the_old_rate() -> None:
    """β times the old rate at once, the old rate after cbrt(old · (1 - β) / C) seconds."""
    flat = (10 * 0.3 / 0.4) ** (1 / 3)
    assert [cubic_rate(10, 0), cubic_rate(10, flat)] == pytest.approx([7, 10])


def test_the_rate_is_at_most_twice_what_is_being_sent() -> None:
    """Who sends little earns no right to a flood, however long ago the cut is."""
    cubic = Cubic(0.0)
    cubic.measured = 3.0
    cubic.throttled(1.0)
    cubic.succeeded(1000.0)
    assert cubic.rate == 6


def test_a_refusal_in_the_first_half_second_is_no_stop() -> None:
    """Before a rate was measured, that of the requests so far is cut, and not to the floor."""
    cubic = Cubic(0.0)
    for moment in (0.0, 0.1, 0.2, 0.3):
        cubic.sent(moment)
    cubic.throttled(0.4)
    assert cubic.rate == pytest.approx(0.7 * 8)


# --- permits --------------------------------------------------------------------------------


def drain(throttle: Throttle, now: float) -> int:
    """Take all permits that there are at a moment."""
    count = 0
    while throttle.take(now) == 0:
        count += 1
    return count


def refuse(throttle: Throttle, now: float, *, hint: float | None = None, rand: float = 0.5) -> None:
    throttle.throttled(now, now, reason="throttled", retry_after=hint, rand=rand)


@pytest.mark.parametrize(("max_rate", "burst"), [(0.1, 1), (5, 1), (10, 1), (20, 2), (50, 5)])
def test_a_fresh_throttle_gives_its_burst_and_then_the_wait(max_rate: float, burst: int) -> None:
    """A tenth of a second's permits at once, at least one; then one each 1 / rate seconds."""
    throttle = Throttle(max_rate, START)
    assert (throttle.burst, drain(throttle, START)) == (burst, burst)
    assert throttle.take(START) == pytest.approx(1 / max_rate)
    assert throttle.take(START + 1 / max_rate) == 0


def test_quiet_hours_save_up_no_more_than_the_burst() -> None:
    """After an hour of silence the burst is what it was."""
    throttle = Throttle(20, START)
    drain(throttle, START)
    assert drain(throttle, START + 3600) == 2


def test_fault_22_a_clock_that_stands_or_steps_back_gives_nothing() -> None:
    """Permits come with time that goes on, and the way back is not counted twice."""
    throttle = Throttle(10, START)
    assert drain(throttle, START) == 1
    assert drain(throttle, START - 100) == 0
    assert drain(throttle, START) == 0
    assert drain(throttle, START + 0.1) == 1


def test_successes_change_nothing_while_nothing_was_throttled() -> None:
    """The rate is the maximum, and there is no reason to tell."""
    throttle = Throttle(20, START)
    throttle.take(START)
    throttle.succeeded(START, START + 0.1)
    assert (throttle.rate, throttle.reason) == (20, None)
    assert throttle.throttled_seconds(START + 1) == 0
    assert repr(throttle) == "<Throttle: 20 of 20/s>"


def sending(throttle: Throttle, now: float, seconds: float) -> float:
    """Send at the full rate for a while, all served at once; return the end."""
    end = now + seconds
    while now < end:
        if wait := throttle.take(now):
            now += wait
        else:
            throttle.succeeded(now, now)
    return now


def test_fault_9_a_refusal_cuts_the_rate_and_successes_regrow_it() -> None:
    """β of what was being sent at once, the maximum again within a minute, reason told."""
    throttle = Throttle(20, START)
    now = sending(throttle, START, 5)
    refuse(throttle, now)
    assert throttle.rate == pytest.approx(0.7 * 20, rel=0.05)
    assert repr(throttle) == "<Throttle: 14 of 20/s, throttled>"
    cut_at, now = now, sending(throttle, now, 60)
    assert (throttle.rate, throttle.reason) == (20, None)
    assert 10 < throttle.throttled_seconds(now) < 60
    assert throttle.throttled_seconds(cut_at) == throttle.throttled_seconds(now + 9)


def test_fault_9_one_flight_of_refusals_is_one_cut() -> None:
    """What was sent within a second of the cut, or before it, cuts no deeper."""
    throttle = Throttle(20, START)
    now = sending(throttle, START, 5)
    refuse(throttle, now)
    rate = throttle.rate
    for taken in (now - 1, now - 0.1, now, now + 0.9):
        throttle.throttled(taken, now + 1.5, reason="throttled", retry_after=None, rand=0.5)
    assert throttle.rate == rate
    throttle.throttled(now + 1, now + 1.5, reason="throttled", retry_after=None, rand=0.5)
    assert throttle.rate < rate


def test_nothing_falls_below_one_request_in_two_seconds() -> None:
    """Refusal after refusal the rate stays at 0.5, or at a lower maximum."""
    for max_rate, least in ((20, 0.5), (0.2, 0.2)):
        throttle = Throttle(max_rate, START)
        for second in range(0, 300, 2):
            throttle.take(START + second)
            refuse(throttle, START + second)
        assert throttle.rate == least


# --- pauses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "rand", "pause"), [(10, 0, 10), (10, 0.5, 10.5), (120, 0.5, 120.5), (2, 0.5, 2.1)]
)
def test_fault_8_retry_after_pauses_everybody(hint: float, rand: float, pause: float) -> None:
    """Nothing goes out before the hint and its jitter (a tenth, at most 1 s) are over."""
    throttle = Throttle(20, START)
    throttle.take(START)
    refuse(throttle, START, hint=hint, rand=rand)
    assert throttle.take(START) == pytest.approx(pause)
    assert throttle.take(START + pause - 0.001) == pytest.approx(0.001)
    assert throttle.throttled_seconds(START + pause) == pytest.approx(pause)
    assert throttle.take(START + pause + 0.001) == 0


def test_fault_8_one_probe_follows_a_pause() -> None:
    """Nobody goes beside the probe, and no herd behind it: the bucket is empty."""
    throttle = Throttle(50, START)
    now = sending(throttle, START, 5)
    refuse(throttle, now, hint=5, rand=0.0)
    probe = now + 5.1
    assert throttle.take(probe) == 0
    assert [throttle.take(probe + t) for t in (0, 1, 1000)] == [math.inf] * 3
    throttle.succeeded(now, probe + 1)  # of another that was long under way
    assert throttle.take(probe + 1) == math.inf
    throttle.succeeded(probe, probe + 2)
    assert 0 < throttle.take(probe + 2) < math.inf


def test_fault_8_a_refused_probe_without_a_hint_pauses_longer_and_longer() -> None:
    """Half to all of 1, 2, 4, … 30 s; a probe that passes begins anew."""
    throttle = Throttle(20, START)
    throttle.take(START)
    refuse(throttle, START, hint=1, rand=0.0)
    now, pauses = START + 2, []
    for end in (refuse, refuse, fail, fail, refuse, refuse, refuse):
        assert throttle.take(now) == 0
        end(throttle, now, rand=0.0)
        pauses.append(round(throttle.take(now), 6))
        now += 60
    assert pauses == [0.5, 1, 2, 4, 8, 15, 15]
    throttle.take(now)
    throttle.succeeded(now, now)
    throttle.pause(now, now, reason="local", rand=0.0)
    assert throttle.take(now) == pytest.approx(0.5)


def fail(throttle: Throttle, now: float, *, rand: float = 0.5) -> None:
    throttle.failed(now, now, rand=rand)


def test_a_refused_probe_with_a_hint_pauses_as_the_hint_says() -> None:
    """The server's word wins over our guess."""
    throttle = Throttle(20, START)
    throttle.take(START)
    refuse(throttle, START, hint=1, rand=0.0)
    throttle.take(START + 2)
    refuse(throttle, START + 2, hint=7, rand=0.0)
    assert throttle.take(START + 2) == pytest.approx(7)


def test_an_abandoned_probe_lets_another_be_the_probe() -> None:
    """The next permit is a probe again, and alone."""
    throttle = Throttle(20, START)
    throttle.take(START)
    refuse(throttle, START, hint=1, rand=0.0)
    assert throttle.take(START + 2) == 0
    throttle.abandoned(START)  # not the probe
    assert throttle.take(START + 2) == math.inf
    throttle.abandoned(START + 2)
    assert throttle.take(START + 4) == 0
    assert throttle.take(START + 8) == math.inf


def test_a_pause_that_grew_while_the_probe_was_out_gets_its_own_probe() -> None:
    """The probe passed, but a later word asked for silence: after it one goes alone again."""
    throttle = Throttle(20, START)
    throttle.take(START)
    throttle.take(START)
    refuse(throttle, START, hint=1, rand=0.0)
    probe = START + 2
    throttle.take(probe)
    throttle.throttled(START, probe + 1, reason="throttled", retry_after=10, rand=0.0)
    throttle.succeeded(probe, probe + 2)
    assert throttle.take(probe + 2) == pytest.approx(9)
    assert throttle.take(probe + 12) == 0
    assert throttle.take(probe + 13) == math.inf


def test_a_probe_at_the_moment_of_the_refusal_is_not_mistaken_for_what_was_refused() -> None:
    """With ``Retry-After: 0`` the probe is later than all that was under way, if by a hair."""
    throttle = Throttle(50, START)
    assert [throttle.take(START), throttle.take(START)] == [0, 0]
    refuse(throttle, START, hint=0, rand=0.0)
    wait = throttle.take(START)
    assert 0 < wait < ROUNDING
    assert throttle.take(START + wait) == 0
    throttle.succeeded(START, START + 1)  # the other of the two
    assert throttle.take(START + 1) == math.inf


@pytest.mark.parametrize(("rand", "pause"), [(0.0, 0.5), (0.5, 0.75)])
def test_fault_26_a_local_trouble_pauses_everybody(rand: float, pause: float) -> None:
    """Half a second to a second, with a reason, and a second later all is as before."""
    throttle = Throttle(20, START)
    now = sending(throttle, START, 5)
    throttle.pause(now, now, reason="local", rand=rand)
    assert (round(throttle.take(now), 6), throttle.reason) == (pause, "local")
    now += 1
    assert throttle.take(now) == 0
    throttle.succeeded(now, now)
    sending(throttle, now, 1)
    assert (throttle.rate, throttle.reason) == (20, None)


def test_fault_26_after_a_local_trouble_the_rate_is_what_it_was() -> None:
    """A pause of our own says nothing about what the server can take."""
    throttle = Throttle(200, START)
    throttle.take(START)
    throttle.pause(START, START + 30, reason="local", rand=0.5)
    assert (throttle.reason is None, throttle.rate) == (False, 200)
    now = START + 32
    assert not throttle.take(now)
    throttle.succeeded(now, now)
    assert (throttle.reason is None, throttle.rate) == (True, 200)


def test_a_failure_that_was_no_probe_changes_nothing() -> None:
    """Ids have their own backoff; what says nothing of capacity cuts no rate."""
    throttle = Throttle(20, START)
    drain(throttle, START)
    throttle.failed(START, START + 1, rand=0.5)
    assert (throttle.rate, throttle.reason, throttle.take(START + 1)) == (20, None, 0)


# --- the ceiling ----------------------------------------------------------------------------


def test_a_ceiling_stays_below_a_refused_rate_and_rises_by_small_steps() -> None:
    """5 % below for 10 s, then 1 % up, and twice that after each 3 s."""
    ceiling = Ceiling()
    ceiling.succeeded(START, 60)
    assert ceiling.height == math.inf
    ceiling.refused(60)
    ceiling.cut(START, 60)
    heights = {}
    for second in (0, 9, 10, 13, 16, 10_000):
        ceiling.succeeded(START + second, 60)
        heights[second] = ceiling.height
    assert heights == pytest.approx(
        {0: 57, 9: 57, 10: 57.57, 13: 58.14, 16: 59.28, 10_000: 57 * (1 + 0.01 * 2**64)}
    )


def test_a_ceiling_that_is_refused_at_once_comes_down_faster() -> None:
    """5, 10, 20, 25, 25 % while it is on its way down."""
    ceiling = Ceiling()
    heights = []
    for second in range(5):
        ceiling.cut(START + second, 100)
        heights.append(ceiling.height)
    assert heights == pytest.approx([95, 90, 80, 75, 75])


def test_a_ceiling_that_was_kept_for_a_while_is_the_floor_of_the_next() -> None:
    """What is refused on the way up says nothing against where that began."""
    ceiling = Ceiling()
    ceiling.cut(START, 100)
    ceiling.cut(START + 60, 97)
    assert ceiling.height == pytest.approx(95)
    ceiling.cut(START + 61, 95)
    assert ceiling.height == pytest.approx(95 * 0.9)


@pytest.mark.parametrize(("rate", "hold"), [(1000, 10), (20, 400 / 19), (5, 400 / 4.75), (1, 120)])
def test_a_limit_is_looked_at_after_as_many_requests(rate: float, hold: float) -> None:
    """After 400, for a look costs a refusal; 10 s to 2 minutes."""
    ceiling = Ceiling()
    ceiling.cut(START, rate)
    held = ceiling.height
    ceiling.succeeded(START + hold - 0.01, rate)
    assert ceiling.height == held
    ceiling.succeeded(START + hold + 0.01, rate)
    assert ceiling.height > held


def test_an_outage_leaves_no_ceiling() -> None:
    """Where most is refused, nothing is learned of a limit: recovery is not held back."""
    ceiling = Ceiling()
    for _ in range(20):
        ceiling.refused(20)
    ceiling.cut(START, 20)
    assert ceiling.height == math.inf


def test_a_ceiling_comes_down_to_the_share_that_was_served() -> None:
    """A quarter refused since the last cut, and smoothed, is more than 5 %."""
    ceiling = Ceiling()
    for _ in range(5):
        ceiling.refused(20)
    ceiling.cut(START, 20)
    assert ceiling.height == pytest.approx(20 * (20 / 21) ** 5)


# --- against servers ------------------------------------------------------------------------

LIMIT: Final = 20

Server = Callable[[float], bool]


def sliding_window(limit: Callable[[float], float] = lambda _: LIMIT) -> Server:
    served: collections.deque[float] = collections.deque()

    def admits(now: float) -> bool:
        while served and served[0] <= now - 1:
            served.popleft()
        if len(served) >= limit(now):
            return False
        served.append(now)
        return True

    return admits


def token_bucket(capacity: float = LIMIT) -> Server:
    tokens, refilled = capacity, 0.0

    def admits(now: float) -> bool:
        nonlocal tokens, refilled
        tokens, refilled = min(capacity, tokens + (now - refilled) * LIMIT), now
        if tokens < 1:
            return False
        tokens -= 1
        return True

    return admits


def strict_spacing() -> Server:
    return token_bucket(1)


def fixed_window() -> Server:
    counts: collections.Counter[int] = collections.Counter()

    def admits(now: float) -> bool:
        counts[math.floor(now)] += 1
        return counts[math.floor(now)] <= LIMIT

    return admits


def talk(
    admits: Server,
    throttle: Throttle,
    seconds: float,
    *,
    latency: float = 0.2,
    hint: float | None = None,
    seed: int = 0,
    in_flight: int = 32,
) -> list[tuple[float, bool]]:
    """Send as fast as the throttle lets for a while; return the moments and what was served.

    Replies take half to one and a half of the latency.
    """
    rng = random.Random(seed)
    flights: list[tuple[float, float, bool]] = []
    log = []
    now = START
    while now < START + seconds:
        wait = throttle.take(now) if len(flights) < in_flight else math.inf
        if not wait:
            served = admits(now - START)
            log.append((now - START, served))
            heapq.heappush(flights, (now + latency * (0.5 + rng.random()), now, served))
        elif flights and flights[0][0] <= now + wait:
            now, taken, served = heapq.heappop(flights)
            if served:
                throttle.succeeded(taken, now)
            else:
                throttle.throttled(
                    taken, now, reason="throttled", retry_after=hint, rand=rng.random()
                )
        else:
            now += wait
    return log


@pytest.mark.parametrize("hint", [None, 1.0])
@pytest.mark.parametrize("max_rate", [20, 50])
@pytest.mark.parametrize("server", [sliding_window, token_bucket, fixed_window, strict_spacing])
def test_fault_9_a_steady_limit_is_found_and_kept(
    server: Callable[[], Server], max_rate: float, hint: float | None
) -> None:
    """After 10 s at most 1 % is refused and at least 85 % of the limit is used.

    80 % where the server asks for a second's pause each time that we look for its limit.
    """
    least = 0.85 if hint is None else 0.8
    for seed in range(3):
        log = talk(server(), Throttle(max_rate, START), 120, hint=hint, seed=seed)
        late = [served for moment, served in log if moment >= 10]
        assert late.count(False) <= 0.01 * len(late)
        assert late.count(True) >= least * LIMIT * 110


def refusing(share: float, seed: int) -> Server:
    """Send some away at any rate: single ids, or a channel that comes and goes."""
    rng = random.Random(seed)
    return lambda _: rng.random() >= share


@pytest.mark.parametrize("max_rate", [20, 100])
@pytest.mark.parametrize("share", [0.001, 0.005, 0.02, 0.1, 0.3])
def test_fault_7_refusals_that_come_at_any_rate_do_not_slow_us_down(
    share: float, max_rate: float
) -> None:
    """Cutting does not stop them, so after a minute three quarters of the rate are used."""
    log = talk(refusing(share, 1), Throttle(max_rate, START), 360, seed=1)
    assert len([moment for moment, _ in log if moment >= 60]) >= 0.75 * max_rate * 300


@pytest.mark.parametrize("hint", [None, 1.0])
@pytest.mark.parametrize("limit", [LIMIT / 2, LIMIT / 5])
def test_fault_9_a_limit_that_falls_is_found_again(limit: float, hint: float | None) -> None:
    """What was served under the old limit does not make the new one look like chance for long."""
    for seed in range(3):
        admits = sliding_window(lambda now: LIMIT if now < 120 else limit)
        log = talk(admits, Throttle(50, START), 480, hint=hint, seed=seed)
        late = [was_served for moment, was_served in log if moment >= 240]
        assert late.count(False) <= 0.01 * len(late)
        assert late.count(True) >= 0.75 * limit * 240


@pytest.mark.parametrize("share", [0.005, 0.02])
def test_fault_7_a_limit_is_found_among_refusals_of_another_kind(share: float) -> None:
    """Whatever else refuses, most of the limit is used, and little is sent beyond it."""
    for seed in range(3):
        limited, chance = sliding_window(), refusing(share, seed)
        log = talk(
            lambda now: chance(now) and limited(now),  # noqa: B023 - ends in this round
            Throttle(50, START),
            660,
            seed=seed,
        )
        late = [was_served for moment, was_served in log if moment >= 60]
        assert late.count(False) <= (share + 0.05) * len(late)
        assert late.count(True) >= 0.5 * LIMIT * 600


def test_noise_is_what_is_refused_below_the_proved_rate() -> None:
    """A refusal at half of what was served is none of the rate; one at that rate may be."""
    noise = Noise(START)
    for number in range(400):
        noise.succeeded(START + number / 20)
    noise.refused()
    assert not noise.explains(START + 20, 20)
    assert noise.explains(START + 20, 10)
    assert noise.explains(START + 21, 20)


def test_noise_is_forgotten() -> None:
    """Ten minutes later a refusal may be one of a limit again."""
    noise = Noise(START)
    for number in range(400):
        noise.succeeded(START + number / 20)
    noise.refused()
    assert noise.explains(START + 20, 10)
    assert not noise.explains(START + 620, 20)


def test_more_than_the_noise_is_a_limit() -> None:
    """Where more is refused than there was noise, it was taken for noise in error."""
    noise = Noise(START)
    for number in range(400):
        noise.succeeded(START + number / 20)
    noise.refused()
    assert noise.explains(START + 20, 12)
    for _ in range(20):
        noise.refused()
    assert not noise.explains(START + 22, 20)
    assert not noise.explains(START + 22, 12)


def test_fault_8_retry_after_0_again_and_again_stays_in_the_budget() -> None:
    """A server that refuses all with ``Retry-After: 0`` gets fewer requests, not more."""
    log = talk(lambda _: False, Throttle(20, START), 120, hint=0.0)
    budget = Budget(Throttle(20, START))
    for moment, _ in log:
        budget.spend(START + moment)
    assert len([moment for moment, _ in log if moment > 60]) <= 0.5 * 60 + 1


class Budget:
    """Holds every window against ``max_rate · t + burst``.

    How far the requests are ahead of the rate may not rise by more than the burst, whenever
    one begins to count.
    """

    def __init__(self, throttle: Throttle) -> None:
        self.throttle = throttle
        self.count = 0
        self.least = math.inf

    def spend(self, now: float) -> None:
        ahead = self.count - self.throttle.max_rate * (now - START)
        self.least = min(self.least, ahead)
        assert ahead + 1 - self.least <= self.throttle.burst + ROUNDING
        self.count += 1


def test_the_budget_sees_one_request_too_many() -> None:
    """Two at once and one each 50 ms is all that 20 a second allow, after any silence."""
    budget = Budget(Throttle(20, START))
    for moment in (0, 0, 0.05, 0.1, 7, 7, 7.05):
        budget.spend(START + moment)
    with pytest.raises(AssertionError):
        budget.spend(START + 7.09)


class Id(Entry, kw_only=True):
    """One of a crowd."""

    streak: Streak = NO_FAULTS
    polls: int = 0


@pytest.mark.parametrize("hint", [None, 5.0])
def test_fault_10_an_outage_of_ten_minutes_and_5000_ids(hint: float | None) -> None:
    """Few requests while it lasts, the whole rate a minute after, no burst, no id forgotten."""
    rng = random.Random(1)
    throttle, agenda = Throttle(20, START), Agenda[Id]()
    ids = [Id() for _ in range(5000)]
    for one in ids:
        agenda.put(one, START)
    flights: list[tuple[float, int, float, Id]] = []
    moments: list[float] = []
    budget = Budget(throttle)
    now, outage = START, START + 600
    while now < outage + 400:
        due = agenda.next_due()
        wait = max(0.0, due - now) if due is not None else math.inf
        wait = wait or throttle.take(now)
        if not wait:
            one = agenda.take()[1]
            one.polls += now >= outage
            moments.append(now)
            budget.spend(now)
            heapq.heappush(flights, (now + 0.2, len(moments), now, one))
        elif flights and flights[0][0] <= now + wait:
            now, _, taken, one = heapq.heappop(flights)
            if taken < outage:
                one.streak, _ = after_fault(one.streak, Kind.OVERLOADED, now)
                throttle.throttled(
                    taken, now, reason="overloaded", retry_after=hint, rand=rng.random()
                )
                agenda.put(one, now + backoff(one.streak, Kind.OVERLOADED, now, rng.random()))
            else:
                throttle.succeeded(taken, now)
                agenda.put(one, now + 10)
        else:
            now += wait
    assert len(agenda) + len(flights) == 5000
    assert len([m for m in moments if START + 60 <= m < outage]) <= 0.5 * 540 + 1
    assert len([m for m in moments if outage + 60 <= m < outage + 360]) >= 0.95 * 20 * 300
    assert all(one.polls for one in ids)


# --- any interleaving -----------------------------------------------------------------------

RANDS: Final = st.sampled_from([0.0, 0.25, 0.999])
HINTS: Final = st.one_of(st.none(), st.sampled_from([0.0, 0.01, 1.0, 120.0]))


class Interleavings(RuleBasedStateMachine):
    """Anything that may happen to a throttle, in any order, beside what must hold."""

    @initialize(max_rate=st.sampled_from([0.2, 0.5, 1.0, 7.0, 20.0, 50.0, 1000.0]))
    def begin(self, max_rate: float) -> None:
        self.now = START
        self.throttle = Throttle(max_rate, START)
        self.budget = Budget(self.throttle)
        self.out: list[float] = []
        self.silent_until = -math.inf
        self.probe_due = False
        self.probe: float | None = None

    def ask(self) -> float:
        wait = self.throttle.take(self.now)
        if wait:
            return wait
        assert self.now >= self.silent_until, "a permit during a pause"
        assert self.probe is None, "a permit beside the probe"
        self.budget.spend(self.now)
        self.out.append(self.now)
        if self.probe_due:
            self.probe = self.now
        return 0.0

    def silence(self, seconds: float) -> None:
        self.silent_until = max(self.silent_until, self.now + seconds)
        self.probe_due = True

    def end(self, index: int) -> tuple[float, bool]:
        taken = self.out.pop(index % len(self.out))
        was_probe = taken == self.probe
        if was_probe:
            self.probe = None
        return taken, was_probe

    @rule(seconds=st.one_of(st.sampled_from([0.0, 1e-9, 0.05, 0.5, 1.0]), st.floats(0, 200)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(most=st.integers(1, 60))
    def rush(self, most: int) -> None:
        """Take what there is at this moment."""
        while most and not self.ask():
            most -= 1

    @rule(most=st.integers(1, 30))
    def come_when_told(self, most: int) -> None:
        """Wait as long as told and take: the word is kept, but for rounding."""
        for _ in range(most):
            waits = 0
            while wait := self.ask():
                if wait == math.inf:
                    assert self.probe is not None, "nobody's end is waited for"
                    return
                waits += 1
                assert waits <= 3, "told to wait again and again"
                self.now += wait

    @precondition(lambda self: self.out)
    @rule(index=st.integers(0))
    def succeed(self, index: int) -> None:
        taken, was_probe = self.end(index)
        if was_probe:
            self.probe_due = self.now <= self.silent_until
        self.throttle.succeeded(taken, self.now)

    @precondition(lambda self: self.out)
    @rule(index=st.integers(0), hint=HINTS, rand=RANDS)
    def throttle_it(self, index: int, hint: float | None, rand: float) -> None:
        taken, was_probe = self.end(index)
        self.throttle.throttled(taken, self.now, reason="throttled", retry_after=hint, rand=rand)
        if hint is not None or was_probe:
            self.silence(0.5 if hint is None else hint)
        assert self.throttle.reason == "throttled"

    @precondition(lambda self: self.out)
    @rule(index=st.integers(0), rand=RANDS)
    def fail(self, index: int, rand: float) -> None:
        taken, was_probe = self.end(index)
        self.throttle.failed(taken, self.now, rand=rand)
        if was_probe:
            self.silence(0.5)

    @precondition(lambda self: self.out)
    @rule(index=st.integers(0))
    def abandon(self, index: int) -> None:
        self.throttle.abandoned(self.end(index)[0])

    @rule(rand=RANDS)
    def pause(self, rand: float) -> None:
        self.throttle.pause(self.now, self.now, reason="local", rand=rand)
        self.silence(0.5)
        self.probe = None

    @invariant()
    def rate_is_bounded(self) -> None:
        most = self.throttle.max_rate
        assert min(0.5, most) <= self.throttle.rate <= most
        assert (self.throttle.reason is None) <= (self.throttle.rate == most)
        assert 0 <= self.throttle.throttled_seconds(self.now) <= self.now - START

    def teardown(self) -> None:
        """When every permit's end was told and time passes, a permit is given."""
        if hasattr(self, "throttle"):
            while self.out:
                self.succeed(0)
            self.now = max(self.now, self.silent_until) + 40
            assert self.ask() == 0


Interleavings.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestInterleavings = Interleavings.TestCase
TestInterleavings.pytestmark = [pytest.mark.timeout(120)]  # type: ignore[attr-defined]


def test_fault_26_one_shortage_is_one_pause() -> None:
    """Thirty requests that fail for want of descriptors at once pause for a second, not for 30."""
    throttle = Throttle(1000.0, START)
    taken = [START + number / 1000 for number in range(30)]
    assert [throttle.take(moment) for moment in taken] == [0.0] * 30
    for moment in taken:
        throttle.pause(moment, START + 1, reason="local", rand=0.5)
    assert 0 < throttle.take(START + 1) <= 1
