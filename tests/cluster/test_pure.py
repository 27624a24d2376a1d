"""The pure parts of the cluster: names, records, rulings and the shared rate."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo3_async._errors import CompletedWithoutVideo, TaskNotFound, Veo3Error
from veo3_async._lifecycle.judge import Context, Track
from veo3_async._lifecycle.phases import NEW, State
from veo3_async._lifecycle.retries import NO_FAULTS, Streak, backoff
from veo3_async._models import Phase, Transition, VideoTask
from veo3_async._pacing.policies import BackoffPacing, FixedPacing, Pacing, Progress
from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.families.record import PHASE_OF_WORD
from veo3_async._protocol.http import Reply
from veo3_async._protocol.ids import check_request_id
from veo3_async.cluster import _errors
from veo3_async.cluster._memory import Memory
from veo3_async.cluster._names import Names, request_id_of, token_of
from veo3_async.cluster._rate import (
    FULL,
    Evidence,
    SharedRate,
    after_refusal,
    is_good,
    is_new,
    next_round,
    rate_at,
    restored,
    round_of,
    round_seconds,
)
from veo3_async.cluster._record import Record, decode, encode
from veo3_async.cluster._step import Silent, Step, begun, has_changed, step, track_of

ID = "veo3-pro:68935cd4-58f5-49ce-878e-40b785dd33b8"
NOW = 1_770_000_000.0


def _is_id(text: str) -> bool:
    try:
        check_request_id(text)
    except Veo3Error:
        return False
    return True


ids = st.text(min_size=1, max_size=60).filter(_is_id)
moments = st.floats(0, 4e9)
streaks = st.one_of(
    st.just(NO_FAULTS),
    st.builds(
        Streak,
        faults=st.integers(0, 9),
        unknown_since=st.one_of(st.just(math.inf), moments),
    ),
)
states = st.builds(
    State,
    phase=st.sampled_from([None, *Phase]),
    status=st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    attempt=st.integers(0, 5),
    been=st.integers(0, 2**11),
    entered_at=st.one_of(st.none(), st.integers(0, 2**45)),
    updated_at=st.one_of(st.none(), st.integers(0, 2**45)),
    video_url=st.one_of(st.none(), st.just("https://file.302.ai/a.mp4")),
    upsample=st.sampled_from([None, True, False]),
    ended_since=st.one_of(st.none(), moments),
)
refused = st.builds(
    after_refusal,
    st.builds(SharedRate, st.floats(0.5, 1e4), moments, moments),
    cuts=st.booleans(),
    now=moments,
    max_rate=st.floats(1, 1e4),
    retry_after=st.one_of(st.none(), st.floats(0, 120)),
    rand=st.floats(0, 0.999),
)


def change(phase: Phase = Phase.GENERATING, **more: object) -> Transition:
    fields: dict[str, object] = {
        "request_id": ID,
        "phase": phase,
        "previous": None,
        "status": "video_generating",
        "task": VideoTask(id=ID, status="video_generating", extra={"new": [1]}),
        "observed_at": NOW,
        "final": False,
        **more,
    }
    return Transition(**fields)  # type: ignore[arg-type]


def generating(**more: object) -> VideoTask:
    fields: dict[str, object] = {
        "id": ID,
        "status": "video_generating",
        "running": True,
        "status_update_time": 1_000_000,
        **more,
    }
    word = str(fields["status"])
    fields |= {"phase": PHASE_OF_WORD[word], "ended": word == "completed"}
    return VideoTask(**fields)  # type: ignore[arg-type]


REPLY = Reply(200, {}, b"")
QUIET = FixedPacing(10, jitter=0)


def stepped(
    known: Record,
    answer: VideoTask | Problem,
    now: float,
    *,
    track: Track | None = None,
    pacing: Pacing = QUIET,
    attempts: int = 3,
    elapsed: float = 9.0,
) -> Step:
    """Poll once; without a track, as a worker that takes the id over."""
    return step(
        known,
        track_of(known) if track is None else track,
        answer,
        reply=None if isinstance(answer, Problem) else REPLY,
        pacing=pacing,
        context=Context(now, now, 0.5, attempts, elapsed),
    )


@given(ids)
def test_an_id_comes_back_from_its_subject(request_id: str) -> None:
    """Any id is one token of a subject, and exactly that id again."""
    subject = Names("veo3").watch_of(request_id)
    assert subject.count(".") == 2
    assert not set(subject) & set("*> \r\n\t")
    assert request_id == request_id_of(subject)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_one_subject_has_one_id(token: str) -> None:
    """What is read as an id is what that id would be spelled as, or is refused."""
    try:
        request_id = request_id_of(f"veo3.watch.{token}")
    except ValueError:
        return
    assert token_of(request_id) == token.rpartition(".")[2]


@pytest.mark.parametrize("prefix", ["", "a.b", "a b", "*", ">", "é", "x" * 65])
def test_a_prefix_is_a_token(prefix: str) -> None:
    """What cannot begin the name of a stream is refused."""
    with pytest.raises(ValueError, match="prefix is"):
        Names(prefix)


@given(states, streaks, st.integers(0, 99), st.integers(0, 99), st.floats(0, 1e6))
def test_a_record_comes_back_from_its_json(
    state: State, streak: Streak, serial: int, brought_by: int, age: float
) -> None:
    """What is written down of an id is what is read."""
    record = Record(
        request_id=ID,
        watch=7,
        serial=serial,
        brought_by=brought_by,
        change=change(),
        age=age,
        state=state,
        streak=streak,
    )
    assert record == decode(encode(record), ID)


def test_an_error_comes_back_with_its_class() -> None:
    """A final record carries its error: class, message, codes and the last task."""
    error = TaskNotFound("gone", request_id=ID, http_status=404, err_code=-10010, attempts=3)
    ended = change(Phase.LOST, final=True, error=error)
    record = Record(request_id=ID, watch=1, serial=1, change=ended)
    read = decode(encode(record), ID)
    assert read.final
    assert read.change is not None
    assert isinstance(read.change.error, TaskNotFound)
    assert (404, -10010, 3) == (
        read.change.error.http_status,
        read.change.error.err_code,
        read.change.error.attempts,
    )


def test_a_giant_task_fits_into_a_message() -> None:
    """A task of a megabyte keeps its videos, and leaves the rest."""
    urls = {"video_url": "https://a/v.mp4", "upsample_video_url": "https://a/u.mp4"}
    task = generating(extra={"x": "y" * 1_000_000}, **urls)
    record = seen(Record(request_id=ID, watch=1), task, NOW)
    payload = encode(record)
    assert len(payload) < 10_000
    read = decode(payload, ID).change
    assert read is not None
    assert urls == {name: getattr(read.task, name) for name in urls}


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_refused(payload: bytes) -> None:
    """A message that somebody else wrote is a ValueError and nothing worse."""
    try:
        decode(payload, ID)
    except ValueError:
        return


def test_a_record_of_garbage_depth_is_refused() -> None:
    """JSON as deep as a well is refused as well."""
    with pytest.raises(ValueError, match="not a record"):
        decode(b'{"watch":1,"state":' + b"[" * 100_000, ID)


def test_a_task_makes_one_transition() -> None:
    """The same reply twice is written once."""
    first = seen(begun(None, ID, 1), generating(), NOW)
    again = seen(first, generating(), NOW + 5)
    assert 1 == first.serial
    assert has_changed(Record(request_id=ID, watch=1), first)
    assert not has_changed(first, again)


@pytest.mark.parametrize(
    ("phase", "watch", "anew"),
    [
        (Phase.LOST, 2, True),
        (Phase.LOST, 1, False),
        (Phase.FAILED, 2, False),
        (Phase.COMPLETED, 2, False),
    ],
)
def test_what_was_lost_can_be_watched_again(phase: Phase, watch: int, *, anew: bool) -> None:
    """Another watch of a lost id begins anew with a higher serial; what is over stays over."""
    ended = Record(
        request_id=ID,
        watch=1,
        serial=3,
        change=change(phase, final=True),
        state=msgspec.structs.replace(NEW, phase=phase),
    )
    known = begun(ended, ID, watch)
    assert anew is not known.final
    assert 3 == known.serial


def test_an_unknown_id_is_remembered_between_polls() -> None:
    """Unknown for 30 s, each poll another worker's, an id ends as LOST."""
    record = begun(None, ID, 1)
    problem = Problem(kind=Kind.NOT_FOUND, message="no such task", err_code=-10010, from_api=True)
    for second in range(31):
        before = record
        after = stepped(before, problem, NOW + second, attempts=second, elapsed=float(second))
        record = decode(encode(after.record), ID)
        assert (after.delay is None) is (second == 30)
    assert record.change is not None
    assert Phase.LOST is record.change.phase
    assert record.change.error is not None
    assert (30, 30.0) == (record.change.error.attempts, record.change.error.elapsed)


def test_a_transient_fault_is_soon_written_no_more() -> None:
    """An outage of an hour writes a few records for an id, not one for each poll."""
    record = begun(None, ID, 1)
    written = 0
    for number in range(500):
        before = record
        problem = Problem(kind=Kind.SERVER, message="outage")
        record = stepped(before, problem, NOW + number).record
        written += has_changed(before, record)
    assert 6 == written


def seen(known: Record, task: VideoTask, now: float) -> Record:
    return stepped(known, task, now).record


@given(st.sampled_from([k for k in Kind if k is not Kind.NOT_FOUND]), st.floats(0, 0.999))
def test_counting_no_further_changes_no_wait(kind: Kind, rand: float) -> None:
    """The backoff after six faults is that after six hundred."""
    few, many = Streak(faults=6), Streak(faults=600)
    assert backoff(few, kind, NOW, rand) == backoff(many, kind, NOW, rand)


def test_a_completed_task_without_a_url_is_believed_after_its_grace() -> None:
    """The moment at which the service said completed is kept between polls, in epoch seconds."""
    task = generating(status="completed", running=False)
    first = decode(encode(seen(begun(None, ID, 1), task, NOW)), ID)
    assert NOW == first.state.ended_since
    assert stepped(first, task, NOW + 20, pacing=FixedPacing(300, jitter=0)).delay == 40.0
    ended = seen(first, task, NOW + 60)
    assert ended.final
    assert ended.change is not None
    assert isinstance(error := ended.change.error, CompletedWithoutVideo)
    assert (error.http_status, error.attempts, error.elapsed) == (200, 3, 9.0)


class _Notes(FixedPacing):
    def __init__(self) -> None:
        super().__init__(10)
        self.ended: list[tuple[Progress, float, Phase]] = []
        self.went_on: list[tuple[float | None, float]] = []

    def delay(self, progress: Progress, rand: float) -> float:
        self.went_on.append((progress.previous_age, progress.age))
        return super().delay(progress, rand)

    def phase_ended(self, last: Progress, lasted: float, successor: Phase) -> None:
        self.ended.append((last, lasted, successor))


def test_the_pacing_learns_how_long_a_phase_lasted() -> None:
    """By the server's clock where it said so, whenever and wherever it was polled."""
    pacing = _Notes()
    before = seen(begun(None, ID, 1), generating(), NOW)
    done = generating(
        status="completed",
        running=False,
        completed_at=1_090_000,
        video_url="https://a/v.mp4",
        upsample_video_url="https://a/u.mp4",
    )
    stepped(decode(encode(before), ID), done, NOW + 200, pacing=pacing)
    assert [(Progress(phase=Phase.GENERATING, age=0.0, polls=0), 90.0, Phase.COMPLETED)] == (
        pacing.ended
    )


def test_the_pacing_learns_by_our_clock_where_the_server_has_none() -> None:
    """Without times in the replies a phase has lasted from one transition to the next."""
    pacing = _Notes()
    before = stepped(begun(None, ID, 1), generating(status_update_time=None), NOW)
    retrying = generating(status="video_generation_failed", status_update_time=None)
    after = stepped(before.record, retrying, NOW + 42, track=before.track, pacing=pacing)
    stepped(after.record, retrying, NOW + 50, track=after.track, pacing=pacing)
    assert [(Progress(phase=Phase.GENERATING, age=0.0), 42.0, Phase.RETRYING)] == pacing.ended


def test_a_worker_that_goes_on_with_an_id_backs_off() -> None:
    """``BackoffPacing`` grows from poll to poll of one worker, and begins anew at a takeover."""
    pacing = BackoffPacing(1, 30, jitter=0)
    known, delays = stepped(begun(None, ID, 1), generating(), NOW, pacing=pacing), []
    for second in range(1, 5):
        delays.append(known.delay)
        known = stepped(known.record, generating(), NOW + second, track=known.track, pacing=pacing)
    assert delays == [1.0, 1.5, 2.25, 3.375]
    assert stepped(known.record, generating(), NOW + 9, pacing=pacing).delay == 1.0


def test_the_pacing_learns_from_tasks_that_still_run() -> None:
    """Each poll of one worker says how long the phase has gone on since its last one."""
    pacing = _Notes()
    known = stepped(begun(None, ID, 1), generating(status_update_time=None), NOW, pacing=pacing)
    for second in (10, 25):
        task = generating(status_update_time=None)
        known = stepped(known.record, task, NOW + second, track=known.track, pacing=pacing)
    assert [(None, 0.0), (0.0, 10.0), (10.0, 25.0)] == pacing.went_on


def test_a_silent_pacing_learns_nothing() -> None:
    """A poll that has to be judged again is learned once."""
    pacing = _Notes()
    before = stepped(begun(None, ID, 1), generating(), NOW)
    retrying = generating(status="video_generation_failed")
    stepped(before.record, retrying, NOW + 42, track=before.track, pacing=Silent(pacing))
    assert ([], []) == (pacing.ended, pacing.went_on)


# --- what a worker remembers --------------------------------------------------------------

SUBJECT = "veo3.watch.x"
TRACK = Track(ID)

deliveries = st.lists(
    st.tuples(
        st.sampled_from(["one", "other"]),
        st.sampled_from(["looks", "writes", "dies", "loses"]),
        st.booleans(),
    ),
    max_size=40,
)


@given(deliveries)
def test_what_is_remembered_is_what_was_written_last(
    deliveries: list[tuple[str, str, bool]],
) -> None:
    """Whichever worker gets an id, dies with it, or has it watched anew: memory is never old."""
    memories = {"one": Memory(), "other": Memory()}
    watch, attempts, written = 1, 0, Record(request_id=ID, watch=1)
    for worker, deed, anew in deliveries:
        if anew:
            watch, attempts = watch + 1, 0
            written = msgspec.structs.replace(written, watch=watch)
        attempts += 1
        remembered = memories[worker].recall(SUBJECT, watch, attempts)
        assert remembered is None or (remembered.record, remembered.track) == (written, TRACK)
        if deed in {"writes", "loses"}:
            written = msgspec.structs.replace(written, serial=written.serial + 1)
        if deed == "dies":
            memories[worker] = Memory()
        elif deed != "loses":  # ends in trouble after it was written
            memories[worker].keep(SUBJECT, attempts, written, TRACK)


def test_who_has_an_id_twice_in_a_row_remembers_it() -> None:
    """The next delivery of the same message needs no reading; another message of the id does."""
    memory = Memory()
    memory.keep(SUBJECT, 3, Record(request_id=ID, watch=7, serial=2), TRACK)
    assert memory.recall(SUBJECT, 7, 3) is None  # counted anew by a server that forgot
    assert memory.recall(SUBJECT, 7, 5) is None
    assert memory.recall(SUBJECT, 8, 4) is None
    assert memory.recall("veo3.watch.y", 7, 4) is None
    kept = memory.recall(SUBJECT, 7, 4)
    assert kept is not None
    assert 2 == kept.record.serial


@given(st.lists(st.integers(0, 9), max_size=50))
def test_memory_has_a_bound(numbers: list[int]) -> None:
    """Of more ids than it holds it knows those that were polled last."""
    memory = Memory(most=4)
    for attempts, number in enumerate(numbers, start=1):
        memory.keep(str(number), attempts, Record(request_id=str(number), watch=number), TRACK)
    last = dict.fromkeys(reversed(numbers))
    assert min(4, len(last)) == len(memory)
    for number in list(last)[:4]:
        attempts = len(numbers) - numbers[::-1].index(number)
        assert memory.recall(str(number), number, attempts + 1) is not None


def test_a_poll_is_judged_alike_from_memory_and_record() -> None:
    """Without its texts a record says the same of what is new, and when to come again."""
    memory = Memory()
    full = seen(begun(None, ID, 1), generating(extra={"x": "y" * 999}), NOW)
    memory.keep(SUBJECT, 1, full, TRACK)
    recalled = memory.recall(SUBJECT, 1, 2)
    assert recalled is not None
    slim = recalled.record
    assert slim.change is not None
    assert not slim.change.task.extra
    done = generating(status="completed", running=False, video_url="https://a/v.mp4")
    for task in (generating(), generating(status="video_upsampling"), done):
        of_full, of_slim = stepped(full, task, NOW + 9), stepped(slim, task, NOW + 9)
        assert has_changed(full, of_full.record) is has_changed(slim, of_slim.record)
        assert of_full.delay == of_slim.delay


# --- the rate -----------------------------------------------------------------------------


@given(refused, moments, st.floats(0.5, 1e4))
def test_the_rate_stays_in_its_bounds(shared: SharedRate, now: float, max_rate: float) -> None:
    """Whatever was written, and whatever a clock shows: from 0.5 to the maximum."""
    assert 0.5 <= rate_at(shared, now, max_rate) <= max_rate


@given(st.floats(1, 1e4), st.floats(0, 1e4), st.floats(0, 1e4))
def test_the_rate_grows_with_time_alone(last_max: float, sooner: float, later: float) -> None:
    """After a cut it never falls by itself, and needs no message to grow."""
    shared = SharedRate(last_max, NOW)
    sooner, later = sorted((sooner, later))
    low, high = (rate_at(shared, NOW + t, 1e4) for t in (sooner, later))
    assert low <= high + 1e-6


def test_nothing_refused_is_the_full_rate() -> None:
    """As long as nothing was refused the maximum holds."""
    assert 20.0 == rate_at(FULL, NOW, 20.0)


def refuse(
    shared: SharedRate, *, now: float, sent: float | None = None, retry_after: float | None = None
) -> SharedRate:
    cuts = is_new(shared, now if sent is None else sent)
    return after_refusal(
        shared, cuts=cuts, now=now, max_rate=20.0, retry_after=retry_after, rand=0.0
    )


def test_one_flight_is_one_cut() -> None:
    """What was sent before a cut, or together with that, cuts nothing; what came later does."""
    cut = refuse(FULL, now=NOW + 1)
    assert 14.0 == pytest.approx(rate_at(cut, NOW + 1, 20.0))
    for sent, cuts in ((NOW + 0.5, False), (NOW + 1.5, False), (NOW + 2.5, True)):
        assert cuts is (refuse(cut, sent=sent, now=NOW + 3) != cut)


def test_the_longest_pause_holds() -> None:
    """Every reply may make a pause longer, none shorter."""
    paused = FULL
    for hint in (30.0, 5.0):
        paused = refuse(paused, now=NOW, retry_after=hint)
    assert NOW + 30 == paused.paused_until


def test_fault_8_a_pause_over_the_cap_is_not_believed_by_the_fleet() -> None:
    """An hour that one reply asks for stops nobody."""
    assert refuse(FULL, now=NOW, retry_after=3600.0).paused_until == 0.0


class _Fleet:
    """Workers that poll as fast as they may, at a service of which the test says what it serves.

    What each knows of the others is what is written down, and how many they are.
    """

    def __init__(self, workers: int, served: Callable[[float, random.Random], bool]) -> None:
        self._random = random.Random(7)
        self._served = served
        self.evidence = [Evidence(NOW) for _ in range(workers)]
        self.shared = FULL
        self.now = NOW

    def poll(self, seconds: float, *, pace: float = 1000.0) -> tuple[float, float]:
        """Return the polls a second that were served, and the share that was not."""
        until = self.now + seconds
        polls = served = 0
        while self.now < until:
            allowed = rate_at(self.shared, self.now, 200.0)
            good = self._served(self.now, self._random)
            self._answered(self._random.choice(self.evidence), allowed, good)
            polls, served = polls + 1, served + good
            self.now += 1 / min(allowed, pace)
        return served / seconds, 1 - served / polls

    def _answered(self, evidence: Evidence, allowed: float, good: bool) -> None:
        workers = len(self.evidence)
        whose = str(self._random.random())
        evidence.answered(self.now, whose, allowed=allowed, workers=workers, served=good)
        found = evidence.found(self.now, workers)
        if good or not (is_new(self.shared, self.now) or (found and not self.shared.is_found)):
            return
        explained = evidence.explains(self.now, allowed)
        self.shared = after_refusal(
            restored(self.shared, self.now, evidence.proved) if explained else self.shared,
            cuts=not explained,
            now=self.now,
            max_rate=200.0,
            retry_after=None,
            rand=0.0,
            sending=evidence.sending(self.now, workers),
            found=found,
        )


def by_chance(share: float) -> Callable[[float, random.Random], bool]:
    return lambda _, chance: chance.random() >= share


def up_to(limit: float) -> Callable[[float, random.Random], bool]:
    """Serve as a token bucket of half a second does."""
    tokens, filled = limit / 2, NOW

    def served(now: float, _: random.Random) -> bool:
        nonlocal tokens, filled
        tokens, filled = min(limit / 2, tokens + (now - filled) * limit), now
        if tokens < 1:
            return False
        tokens -= 1
        return True

    return served


@pytest.mark.parametrize(("workers", "at_least"), [(1, 170.0), (4, 140.0)])
@pytest.mark.parametrize("share", [0.02, 0.05])
def test_what_is_refused_at_any_rate_costs_no_rate(
    workers: int, at_least: float, share: float
) -> None:
    """Of 200 polls a second most are left; without what a worker knows it would be 20 to 40."""
    assert _Fleet(workers, by_chance(share)).poll(600)[0] > at_least


@pytest.mark.parametrize("workers", [1, 4, 16])
@pytest.mark.parametrize("limit", [80.0, 150.0])
def test_a_limit_is_found_by_all(workers: int, limit: float) -> None:
    """A real limit is used, and of what is sent at most 2 % is too much."""
    served, refused = _Fleet(workers, up_to(limit)).poll(600)
    assert limit == pytest.approx(served, rel=0.02)
    assert refused < 0.02


@pytest.mark.parametrize(("pace", "is_proof"), [(200.0, True), (20.0, False)])
@pytest.mark.parametrize("workers", [1, 4, 16])
def test_what_was_allowed_and_not_sent_proves_nothing(
    workers: int, pace: float, is_proof: bool
) -> None:
    """What is refused far below what was served is not for the rate; else it may well be."""
    fleet = _Fleet(workers, by_chance(0.0))
    fleet.poll(120, pace=pace)
    assert {is_proof} == {one.explains(fleet.now, 100.0) for one in fleet.evidence}


def test_who_polls_more_than_others_proves_no_more_than_was_allowed() -> None:
    """A worker that has all the ids is not taken for one of four that do as much."""
    evidence = Evidence(NOW)
    for number in range(1000):
        evidence.answered(NOW + number / 50, "an id", allowed=50.0, workers=4, served=True)
    assert [True, False] == [evidence.explains(NOW + 20, rate) for rate in (30.0, 40.0)]


@given(st.floats(0.5, 1e5))
def test_permits_make_up_the_rate(max_rate: float) -> None:
    """Tokens times their worth is about what may be polled in a second, at least one."""
    count, worth = round_of(max_rate)
    assert 1 <= count <= 256
    assert 1 <= worth
    assert abs(count * worth - max_rate) <= max(0.5, count / 2)


@given(st.integers(1, 256), st.floats(0.1, 60), st.data())
def test_a_permit_comes_round_once(count: int, period: float, data: st.DataObject) -> None:
    """Whenever it is taken, it is back after about one round."""
    number = data.draw(st.integers(0, count - 1))
    now = NOW + data.draw(st.floats(0, 100))
    assert 0.9 * period - 1e-3 <= next_round(number, count, now, period) <= 1.25 * period + 1e-3


@pytest.mark.parametrize("max_rate", [10.0, 200.0, 5000.0])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.77, 1.0])
def test_as_many_permits_are_good_as_make_up_the_rate(max_rate: float, share: float) -> None:
    """Of all that come round, evenly spread, so that a rate that was cut is felt at once."""
    shared = SharedRate(share * max_rate, NOW - 1e3, ceiling=share * max_rate, held_until=NOW * 2)
    count, _ = round_of(max_rate)
    good = [
        number * count + permit
        for number in range(40)
        for permit in range(count)
        if is_good(shared, permit, NOW + (number + 0.5) * round_seconds(max_rate), max_rate)
    ]
    assert share * 40 * count == pytest.approx(len(good), abs=2)
    gaps = [later - sooner for sooner, later in itertools.pairwise(good)]
    assert max(gaps) <= 3 / share


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("limit", [10.0, 20.0, 50.0])
def test_fault_9_a_limit_far_below_what_is_allowed_is_soon_found(
    workers: int, limit: float
) -> None:
    """Of the first minute a few percent are refused, for cuts follow what is served."""
    fleet = _Fleet(workers, up_to(limit))
    served, refused = fleet.poll(60)
    assert refused < 0.1
    assert served > limit / 2


def test_fault_9_a_cut_is_made_from_what_is_sent() -> None:
    """Who may send 200 a second and sends 12 is cut to less than 12."""
    cut = after_refusal(
        FULL, cuts=True, now=NOW, max_rate=200.0, retry_after=None, rand=0.0, sending=12.0
    )
    assert rate_at(cut, NOW, 200.0) < 12


def test_fault_8_one_id_s_hint_is_not_everybody_s() -> None:
    """All wait while ten ids in a row were refused, and none was served between them."""
    evidence = Evidence(NOW)
    for number in range(30):
        evidence.answered(NOW, "one id", allowed=200.0, workers=1, served=False)
        evidence.answered(NOW, f"{number % 9}", allowed=200.0, workers=1, served=False)
        assert not evidence.is_everybody_refused
        evidence.answered(NOW, "served", allowed=200.0, workers=1, served=True)
    for number in range(10):
        assert not evidence.is_everybody_refused
        evidence.answered(NOW, f"{number}", allowed=200.0, workers=1, served=False)
    assert evidence.is_everybody_refused


def test_permits_come_evenly() -> None:
    """Taken all at once, a few rounds later they come one by one, and stay so."""
    due = [NOW] * 20
    for _ in range(6):
        late = [at + 0.02 for at in due]
        due = [at + next_round(number, 20, at, 1.0) for number, at in enumerate(late)]
    gaps = [later - sooner for sooner, later in itertools.pairwise(sorted(at % 1 for at in due))]
    assert [pytest.approx(0.05, abs=1e-4)] * 19 == gaps


def test_the_operator_s_error_is_one_of_ours() -> None:
    """``except Veo3Error`` catches it."""
    assert issubclass(_errors.ClusterError, Veo3Error)


def test_fault_9_a_ceiling_that_chance_lowered_comes_back_to_what_is_served() -> None:
    """One below what was proved is lifted to it; one above it stays."""
    shared = SharedRate(10.0, NOW, ceiling=5.0, held_until=NOW + 60)
    assert restored(shared, NOW + 1, 8.0).ceiling == 8.0
    assert restored(shared, NOW + 1, 4.0) is shared


def test_fault_9_a_refusal_long_after_the_last_leaves_the_ceiling_where_it_is() -> None:
    """Half a minute apart they are single ids or chance, and no limit below the ceiling."""
    shared = SharedRate(10.0, NOW, ceiling=5.0, held_until=NOW + 60)
    cut = after_refusal(shared, cuts=True, now=NOW + 30, max_rate=100.0, retry_after=None, rand=0.0)
    assert (cut.ceiling, cut.held_until) == (5.0, NOW + 60)
