"""The throttle: how many requests go out, and when."""

from __future__ import annotations

import collections
import math
from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from veo3_async._throttle.throttle import Permit, Throttle

from ._budget import ROUNDING, START, Budget


def take(throttle: Throttle, now: float) -> Permit:
    """Take a permit that is there."""
    permit = throttle.take(now)
    assert isinstance(permit, Permit), f"no permit for {permit} s"
    return permit


def wait(throttle: Throttle, now: float) -> float:
    """Return how long there is no permit."""
    seconds = throttle.take(now)
    assert not isinstance(seconds, Permit)
    return seconds


def drain(throttle: Throttle, now: float) -> int:
    """Take all permits that there are at a moment."""
    count = 0
    while isinstance(throttle.take(now), Permit):
        count += 1
    return count


def settle_refused(
    throttle: Throttle,
    permit: Permit,
    now: float,
    *,
    whose: str = "an id",
    hint: float | None = None,
    rand: float = 0.0,
    may_be_ban: bool = True,
) -> None:
    throttle.throttled(
        permit,
        now,
        whose=whose,
        reason="throttled",
        retry_after=hint,
        may_be_ban=may_be_ban,
        rand=rand,
    )


def refuse(
    throttle: Throttle,
    now: float,
    *,
    whose: str = "an id",
    hint: float | None = None,
    may_be_ban: bool = True,
) -> float:
    """Wait for a permit, which is refused at once; return when that was."""
    while not isinstance(permit := throttle.take(now), Permit):
        now += permit
    settle_refused(throttle, permit, now, whose=whose, hint=hint, may_be_ban=may_be_ban)
    return now


def refuse_all(throttle: Throttle, now: float, *, until: float | None = None) -> float:
    """Refuse one id after another until everybody waits; return when that was.

    :param until: The moment that the hints name.
    """
    for number in range(10):
        hint = None if until is None else until - now
        now = refuse(throttle, now, whose=f"id {number}", hint=hint)
    return now


def sending(throttle: Throttle, now: float, seconds: float) -> float:
    """Send at the full rate for a while, all served at once; return the end."""
    end = now + seconds
    while now < end:
        permit = throttle.take(now)
        if isinstance(permit, Permit):
            throttle.succeeded(permit, now)
        else:
            now += permit
    return now


# --- permits ---


@pytest.mark.parametrize(("max_rate", "burst"), [(0.1, 1), (5, 1), (10, 1), (20, 2), (50, 5)])
def test_a_fresh_throttle_gives_its_burst_and_then_the_wait(max_rate: float, burst: int) -> None:
    """A tenth of a second's permits at once, at least one; then one each 1 / rate seconds."""
    throttle = Throttle(max_rate, START)
    assert (throttle.burst, drain(throttle, START)) == (burst, burst)
    assert throttle.take(START) == pytest.approx(1 / max_rate)
    assert isinstance(throttle.take(START + 1 / max_rate), Permit)


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
    """The rate is the maximum, and there is no reason for less."""
    throttle = Throttle(20, START)
    throttle.succeeded(take(throttle, START), START + 0.1)
    assert (throttle.rate, throttle.reason) == (20, None)
    assert throttle.throttled_seconds(START + 1) == 0
    assert repr(throttle) == "<Throttle: 20 of 20/s>"


def test_fault_9_a_refusal_cuts_the_rate_and_successes_regrow_it() -> None:
    """β of what was being sent at once, the maximum again within a minute, with a reason."""
    throttle = Throttle(20, START)
    now = sending(throttle, START, 5)
    refuse(throttle, now)
    assert throttle.rate == pytest.approx(0.7 * 20, rel=0.05)
    assert repr(throttle) == "<Throttle: 14 of 20/s, throttled>"
    cut_at, now = now, sending(throttle, now + 1, 60)
    assert (throttle.rate, throttle.reason) == (20, None)
    assert 10 < throttle.throttled_seconds(now) < 60
    assert throttle.throttled_seconds(cut_at) == throttle.throttled_seconds(now + 9)


def test_fault_9_one_flight_of_refusals_is_one_cut() -> None:
    """What was sent within a second of the cut, or before it, cuts no deeper."""
    throttle = Throttle(20, START)
    now = sending(throttle, START, 5)
    early = [Permit(now - 1), Permit(now - 0.1), Permit(now), Permit(now + 0.9)]
    refuse(throttle, now)
    rate = throttle.rate
    for permit in early:
        settle_refused(throttle, permit, now + 1.5)
    assert throttle.rate == rate
    settle_refused(throttle, Permit(now + 1), now + 1.5)
    assert throttle.rate < rate


def test_nothing_falls_below_one_request_in_two_seconds() -> None:
    """Refusal after refusal of one id the rate stays at 0.5, or at a lower maximum."""
    for max_rate, least in ((20, 0.5), (0.2, 0.2)):
        throttle = Throttle(max_rate, START)
        for second in range(0, 600, 6):
            refuse(throttle, START + second)
        assert throttle.rate == least


# --- everybody waits ------------------------------------------------------------------------


@pytest.mark.parametrize("hint", [None, 5.0, 120.0])
def test_fault_8_what_is_refused_to_one_id_stops_nobody_else(hint: float | None) -> None:
    """However often it is refused, and whatever hint comes with it, the next one goes soon."""
    throttle = Throttle(50, START)
    now = sending(throttle, START, 5)
    for _ in range(30):
        before, now = now, refuse(throttle, now, hint=hint)
        assert now - before < 3


@pytest.mark.parametrize("hint", [10.0, 120.0])
def test_fault_8_all_ids_wait_as_hinted_while_all_are_refused(hint: float) -> None:
    """After ten ids in a row nothing goes before the moment that the hints name."""
    throttle = Throttle(50, START)
    now = sending(throttle, START, 5)
    end = now + hint
    now = refuse_all(throttle, now, until=end)
    assert now + wait(throttle, now) == pytest.approx(end)
    assert wait(throttle, end - 0.001) == pytest.approx(0.001)
    take(throttle, end + ROUNDING)


@pytest.mark.parametrize("hint", [None, 121.0, 3600.0])
def test_fault_8_a_pause_over_the_cap_is_never_believed(hint: float | None) -> None:
    """``Retry-After: 3600`` stops nobody for longer than no hint does: for a second."""
    throttle = Throttle(50, START)
    now = START
    for number in range(10):
        now = refuse(throttle, now, whose=f"id {number}", hint=hint)
    assert wait(throttle, now) == pytest.approx(1)


def test_fault_8_the_shortest_hint_of_all_is_believed() -> None:
    """A hint for one id holds up no other, though its reply comes among others."""
    throttle = Throttle(50, START)
    now = START
    for number in range(10):
        now = refuse(throttle, now, whose=f"id {number}", hint=120.0 if number % 3 else 20.0)
    assert now + wait(throttle, now) == pytest.approx(START + 20)


def test_fault_8_one_served_among_them_is_enough_for_all_to_go_on() -> None:
    """Nine ids in a row, one that is served, and nine more: nobody waits for the hint."""
    throttle = Throttle(50, START)
    now = START
    for number in range(19):
        if number == 9:
            now = sending(throttle, now, 5)
        before, now = now, refuse(throttle, now, whose=f"id {number}", hint=60.0)
        assert now - before < 3


def test_fault_52_the_gap_between_probes_doubles_to_five_minutes() -> None:
    """2, 4, 8 … 256, 300 s while each probe is of another id; an outage's stays at 30."""
    for may_be_ban, longest in ((True, 300.0), (False, 30.0)):
        throttle = Throttle(20, START)
        now = refuse_all(throttle, START)
        now = refuse(throttle, now, whose="id 10", may_be_ban=may_be_ban)
        gaps = []
        for number in range(11, 22):
            before, now = now, refuse(throttle, now, whose=f"id {number}", may_be_ban=may_be_ban)
            gaps.append(now - before)
        assert gaps == pytest.approx([min(longest, 2.0**n) for n in range(1, 12)], abs=1e-3)


def test_fault_52_ten_ids_that_are_always_refused_hold_up_a_new_one_for_a_second() -> None:
    """Only further ids double the gap."""
    throttle = Throttle(20, START)
    now = refuse_all(throttle, START)
    for number in range(100):
        now = refuse(throttle, now, whose=f"id {number % 10}")
    assert wait(throttle, now) == pytest.approx(1)


def test_fault_8_one_probe_follows_a_pause() -> None:
    """Nothing is sent beside the probe, and no burst after it: the bucket is empty."""
    throttle = Throttle(50, START)
    late = take(throttle, START)
    now = refuse_all(throttle, START, until=START + 20)
    probe = take(throttle, START + 20.1)
    assert [wait(throttle, START + t) for t in (20.1, 21, 1000)] == [math.inf] * 3
    throttle.succeeded(late, now)
    assert wait(throttle, START + 20.2) == math.inf
    throttle.succeeded(probe, START + 20.3)
    assert 0 < wait(throttle, START + 20.3) < math.inf


def test_fault_53_after_a_window_its_count_is_known() -> None:
    """60 were served, and none for a minute: 60 go at once, and the next when that is over."""
    throttle = Throttle(20, START)
    now = START
    for _ in range(60):
        while not isinstance(permit := throttle.take(now), Permit):
            now += permit
        throttle.succeeded(permit, now)
    refuse_all(throttle, now, until=START + 60)
    opened = START + 60.1
    throttle.succeeded(take(throttle, opened), opened)
    moments = []
    now = opened
    while now < opened + 70:
        permit = throttle.take(now)
        if isinstance(permit, Permit):
            throttle.succeeded(permit, now)
            moments.append(now - opened)
        else:
            now += permit
    assert sum(moment < 10 for moment in moments) == 59
    assert sum(10 < moment < 59 for moment in moments) == 0
    assert sum(59 < moment < 70 for moment in moments) == 60


def test_an_abandoned_probe_lets_another_be_the_probe() -> None:
    """The next permit is a probe again, and alone."""
    throttle = Throttle(20, START)
    other = take(throttle, START)
    now = refuse_all(throttle, START + 1) + 2
    probe = take(throttle, now)
    throttle.abandoned(other)
    assert wait(throttle, now) == math.inf
    throttle.abandoned(probe)
    take(throttle, now + 2)
    assert wait(throttle, now + 8) == math.inf


@pytest.mark.parametrize(("rand", "pause"), [(0.0, 0.5), (0.5, 0.75)])
def test_fault_26_a_local_trouble_pauses_all_ids(rand: float, pause: float) -> None:
    """Half a second to a second, with a reason, and a second later all is as before."""
    throttle = Throttle(20, START)
    now = sending(throttle, START, 5)
    throttle.pause(Permit(now), now, reason="local", rand=rand)
    assert (round(wait(throttle, now), 6), throttle.reason) == (pause, "local")
    now += 1
    throttle.succeeded(take(throttle, now), now)
    sending(throttle, now, 1)
    assert (throttle.rate, throttle.reason) == (20, None)


def test_fault_26_after_a_local_trouble_the_rate_is_what_it_was() -> None:
    """A pause of our own says nothing about what the server can take."""
    throttle = Throttle(200, START)
    throttle.pause(take(throttle, START), START + 30, reason="local", rand=0.5)
    assert (throttle.reason is None, throttle.rate) == (False, 200)
    now = START + 32
    throttle.succeeded(take(throttle, now), now)
    assert (throttle.reason is None, throttle.rate) == (True, 200)


def test_fault_26_one_shortage_is_one_pause() -> None:
    """Thirty requests that fail for want of descriptors at once pause for a second, not for 30."""
    throttle = Throttle(1000.0, START)
    permits = [take(throttle, START + number / 1000) for number in range(30)]
    for permit in permits:
        throttle.pause(permit, START + 1, reason="local", rand=0.5)
    assert 0 < wait(throttle, START + 1) <= 1


def test_a_failed_probe_pauses_longer_and_longer() -> None:
    """Half to all of 1, 2, 4, … 30 s; a probe that passes begins anew."""
    throttle = Throttle(20, START)
    throttle.pause(take(throttle, START), START, reason="local", rand=0.0)
    now, pauses = START + 2, []
    for _ in range(7):
        fail(throttle, take(throttle, now), now)
        pauses.append(round(wait(throttle, now), 6))
        now += 60
    assert pauses == [1, 2, 4, 8, 15, 15, 15]
    throttle.succeeded(take(throttle, now), now)
    throttle.pause(Permit(now), now, reason="local", rand=0.0)
    assert wait(throttle, now) == pytest.approx(0.5)


def fail(throttle: Throttle, permit: Permit, now: float, *, rand: float = 0.0) -> None:
    """Let a request end with nothing heard."""
    throttle.failed(permit, now, is_sent=True, is_answered=False, rand=rand)


def test_a_failure_that_was_no_probe_changes_nothing() -> None:
    """Ids have their own backoff; what says nothing of capacity cuts no rate."""
    throttle = Throttle(20, START)
    permit = take(throttle, START)
    throttle.failed(permit, START + 1, is_sent=True, is_answered=True, rand=0.5)
    assert (throttle.rate, throttle.reason) == (20, None)
    take(throttle, START + 1)


# --- nothing is heard -----------------------------------------------------------------------


def unheard(throttle: Throttle, now: float, seconds: float) -> list[Permit]:
    """Send what may go for a while, of which nothing is heard."""
    end, permits = now + seconds, []
    while now < end:
        permit = throttle.take(now)
        if isinstance(permit, Permit):
            permits.append(permit)
        else:
            now += permit
    return permits


@pytest.mark.parametrize("max_rate", [5.0, 20.0, 100.0])
@pytest.mark.parametrize("seconds", [8.0, 25.0])
def test_fault_56_what_a_held_link_lets_through_at_once_is_within_the_rate(
    max_rate: float, seconds: float
) -> None:
    """All that nothing was heard of, and what follows in a second: at most rate + burst."""
    throttle = Throttle(max_rate, START)
    now = sending(throttle, START, 10)
    held = unheard(throttle, now, seconds)
    assert throttle.reason == "silent"
    now += seconds
    for permit in held:
        throttle.succeeded(permit, now)
    after = len([p for p in unheard(throttle, now, 1.0) if p.given_at <= now + 1])
    assert len(held) + after <= max_rate + throttle.burst


def test_fault_56_a_silence_ends_with_the_first_answer() -> None:
    """Whatever it is an answer to, the rate is what it was."""
    throttle = Throttle(20, START)
    now = sending(throttle, START, 10)
    held = unheard(throttle, now, 1.0)
    assert wait(throttle, now + 1) > 0.5
    throttle.succeeded(held[0], now + 1)
    assert sending(throttle, now + 1, 10) >= now + 11
    assert (throttle.rate, throttle.reason) == (20, None)


def test_fault_56_what_timed_out_may_be_on_the_wire_yet() -> None:
    """When all were given up, a probe goes alone, and no more than one."""
    throttle = Throttle(20, START)
    now = sending(throttle, START, 10)
    for permit in unheard(throttle, now, 1.0):
        fail(throttle, permit, now + 1)
    now += 10
    take(throttle, now)
    assert wait(throttle, now) == math.inf


def test_a_connection_that_was_not_made_is_no_silence() -> None:
    """What never went out is not on the wire: each id has its own backoff."""
    throttle = Throttle(20, START)
    now = sending(throttle, START, 10)
    for _ in range(200):
        throttle.failed(take(throttle, now), now, is_sent=False, is_answered=False, rand=0.0)
        now += 0.051
    assert throttle.reason is None


def test_a_slow_server_is_no_silent_one() -> None:
    """Where each answer takes 4 s, the full rate is sent once that is known."""
    throttle = Throttle(20, START)
    under_way: collections.deque[Permit] = collections.deque()
    now, moments = START, []
    while now < START + 120:
        permit = throttle.take(now)
        back = under_way[0].given_at + 4 if under_way else math.inf
        if isinstance(permit, Permit):
            under_way.append(permit)
            moments.append(now)
        elif back <= now + permit:
            now = back
            throttle.succeeded(under_way.popleft(), now)
        else:
            now += permit
    assert len([moment for moment in moments if moment >= START + 60]) >= 0.95 * 20 * 60


# --- any interleaving -----------------------------------------------------------------------

RANDS: Final = st.sampled_from([0.0, 0.25, 0.999])
HINTS: Final = st.one_of(st.none(), st.sampled_from([0.0, 0.01, 1.0, 120.0, 3600.0]))


class Interleavings(RuleBasedStateMachine):
    """Anything that may happen to a throttle, in any order, beside what must hold."""

    @initialize(max_rate=st.sampled_from([0.2, 0.5, 1.0, 7.0, 20.0, 50.0, 1000.0]))
    def begin(self, max_rate: float) -> None:
        self.now = START
        self.throttle = Throttle(max_rate, START)
        self.budget = Budget(self.throttle)
        self.out: list[Permit] = []

    def ask(self) -> float:
        permit = self.throttle.take(self.now)
        if not isinstance(permit, Permit):
            assert permit > 0, "no permit and no wait"
            return permit
        self.budget.spend(self.now)
        self.out.append(permit)
        return 0.0

    def end(self, index: int) -> Permit:
        return self.out.pop(index % len(self.out))

    @rule(seconds=st.one_of(st.sampled_from([0.0, 1e-9, 0.05, 0.5, 1.0]), st.floats(0, 200)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(most=st.integers(1, 60))
    def rush(self, most: int) -> None:
        """Take what there is at this moment."""
        while most and not self.ask():
            most -= 1

    @rule(most=st.integers(1, 30))
    def come_as_take_says(self, most: int) -> None:
        """Wait as long as `take` says: that is enough, but for a silence and rounding."""
        for _ in range(most):
            waits = 0
            while wait := self.ask():
                if wait == math.inf:
                    assert self.out, "nobody's end is waited for"
                    return
                waits += 1
                assert waits <= 4, "it has to wait again and again"
                self.now += wait

    @precondition(lambda self: self.out)
    @rule(index=st.integers(0))
    def succeed(self, index: int) -> None:
        self.throttle.succeeded(self.end(index), self.now)

    @precondition(lambda self: self.out)
    @rule(
        index=st.integers(0),
        whose=st.integers(0, 30),
        hint=HINTS,
        may_be_ban=st.booleans(),
        rand=RANDS,
    )
    def throttle_it(
        self, index: int, whose: int, hint: float | None, rand: float, *, may_be_ban: bool
    ) -> None:
        self.throttle.throttled(
            self.end(index),
            self.now,
            whose=str(whose),
            reason="throttled",
            retry_after=hint,
            may_be_ban=may_be_ban,
            rand=rand,
        )
        assert self.throttle.reason == "throttled"

    @precondition(lambda self: self.out)
    @rule(index=st.integers(0), is_sent=st.booleans(), is_answered=st.booleans(), rand=RANDS)
    def fail(self, index: int, rand: float, *, is_sent: bool, is_answered: bool) -> None:
        self.throttle.failed(
            self.end(index), self.now, is_sent=is_sent, is_answered=is_answered, rand=rand
        )

    @precondition(lambda self: self.out)
    @rule(index=st.integers(0))
    def abandon(self, index: int) -> None:
        self.throttle.abandoned(self.end(index))

    @precondition(lambda self: self.out)
    @rule(index=st.integers(0), rand=RANDS)
    def pause(self, index: int, rand: float) -> None:
        self.throttle.pause(self.end(index), self.now, reason="local", rand=rand)

    @invariant()
    def rate_is_bounded(self) -> None:
        most = self.throttle.max_rate
        assert min(0.5, most) <= self.throttle.rate <= most
        assert (self.throttle.reason is None) <= (self.throttle.rate == most)
        assert 0 <= self.throttle.throttled_seconds(self.now) <= self.now - START

    def teardown(self) -> None:
        """When every permit is settled and time passes, a permit is given."""
        if hasattr(self, "throttle"):
            while self.out:
                self.succeed(0)
            self.now += 1000
            if wait := self.ask():
                self.now += wait
                assert self.ask() == 0


Interleavings.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestInterleavings = Interleavings.TestCase
TestInterleavings.pytestmark = [pytest.mark.timeout(300)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("every", "binds"), [(100, True), (3, False)])
def test_fault_8_a_hint_of_one_node_of_three_binds_no_id(every: int, *, binds: bool) -> None:
    """The hint of a few ids is theirs; where a third is refused at any rate, it is a node's."""
    throttle, now = Throttle(20.0, START), START
    for number in range(1, 601):
        while not isinstance(permit := throttle.take(now), Permit):
            now += permit
        now += 0.05
        if number % every:
            throttle.succeeded(permit, now)
        else:
            settle_refused(throttle, permit, now, whose=str(number), hint=5.0)
    assert throttle.hint_binds(now, is_about_rate=True) is binds


def test_fault_8_a_hint_of_a_channel_without_capacity_binds_while_most_is_put_off() -> None:
    """It is nobody's own: where most are served, the next request meets another node."""
    throttle, now = Throttle(20.0, START), START
    for share, binds in ((1, True), (3, False), (1, True)):
        for number in range(60):
            while not isinstance(permit := throttle.take(now), Permit):
                now += permit
            now += 0.05
            throttle.succeeded(permit, now, is_served=number % share != 0)
        assert throttle.hint_binds(now, is_about_rate=False) is binds
    assert throttle.hint_binds(now, is_about_rate=True)
