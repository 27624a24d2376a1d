"""A million ids through their lives in virtual time: the real decisions, and no sockets.

The agenda says who is due, the throttle who may go, the pacing when to come back, and the
lifecycle what a reply means, as in the client. The server takes its time for an answer, and
sends away what exceeds its limit.
"""

from __future__ import annotations

import bisect
import collections
import concurrent.futures
import email.utils
import functools
import itertools
import math
import multiprocessing
import pathlib
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from veo3_async._lifecycle.judge import UNCHANGED, Answer, Context, Track, View, judge
from veo3_async._lifecycle.phases import NEW, State
from veo3_async._models import VideoTask
from veo3_async._pacing.learned import LearnedPacing
from veo3_async._pacing.policies import FixedPacing, Pacing
from veo3_async._polling.agenda import Agenda, Entry
from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.families.record import task_of
from veo3_async._protocol.http import Reply
from veo3_async._throttle.throttle import Permit, Throttle
from veo3_async.testing._lives import Life, fields_at

from ._report import COLOURS, Table, picture, publish
from ._rivals import request_ids

TURN: Final = 300.0  # seconds in which the server can serve every id once
HOPE: Final = 1.2  # how many times the server's limit the client is allowed to try
LATENCY: Final = 0.2
SIGMA: Final = 0.35
EPOCH: Final = 1_790_000_000.0  # virtual time 0, by the wall

LIFE: Final = Life.documented()
BEGINS: Final = list(
    itertools.accumulate((stage.seconds or 0.0 for stage in LIFE.stages[:-1]), initial=0.0)
)
PACINGS: Final[Mapping[str, Callable[[], Pacing]]] = {
    "fixed 10 s": FixedPacing,
    "learned": LearnedPacing,
}

Figures = dict[str, object]
History = list[tuple[float, int, float]]
"""Of each second: when it began, requests so far, and for how long the next one was overdue."""

SAID = (
    "Virtual time; the server answers after {latency:g} s, and sends away (429, `Retry-After: 1`) "
    "what exceeds {limit:,.0f} requests in a second; the client may try {rate:,.0f}/s. All ids are "
    "given to it at once, each with the documented life stretched by a lognormal number "
    "(sigma {sigma:g}), so for most of the time far more is due than may be asked for. *One turn* "
    "is the time in which the limit serves every id once: with perfect fairness and nothing of the "
    "limit left unused, nobody is overdue for longer. *Allowed* is the client's `rate · t + "
    "burst`. Each run is a process of its own on one core; at full size, both together take three "
    "to four minutes of CPU, that of the lives and of the server included."
)


def says(index: int) -> VideoTask:
    """Return what a server says in a stage of the documented life, but for its times."""
    fields = fields_at(LIFE, index)
    fields.pop("images", None)
    for name in ("video_url", "upsample_video_url"):
        if name in fields:
            fields[name] = f"https://file.example.com/{name}.mp4"
    fields.pop("completed_at", None)
    asked = {"enable_upsample": LIFE.upsample}
    return task_of({"running": True} | fields | {"req": asked})


STAGES: Final = [says(index) for index in range(len(BEGINS))]


REFUSED: Final = Problem(kind=Kind.THROTTLED, message="too many", http_status=429, retry_after=1.0)


class Task(Entry, kw_only=True):
    """What a client knows of an id, and the server of its life.

    The fingerprint is the stage: within one, the server says the same bytes.
    """

    track: Track
    stretch: float
    born: float = 0.0
    """When its life began; negative where that was before the client did."""
    state: State = NEW
    attempts: int = 0
    fingerprint: int | None = None

    @property
    def ends(self) -> float:
        return self.born + BEGINS[-1] * self.stretch

    def stage(self, now: float) -> int:
        return bisect.bisect_right(BEGINS, (now - self.born) / self.stretch) - 1


@functools.lru_cache(maxsize=1)
def reply_at(second: int) -> Reply:
    return Reply(200, {"Date": email.utils.formatdate(EPOCH + second, usegmt=True)}, b"")


class Simulation:
    """One client, one server, one clock.

    :param limit: What the server serves in a second.
    :param rate: What the client may try.
    """

    def __init__(self, pacing: Pacing, *, limit: float, rate: float) -> None:
        self.rng = random.Random(7)
        self.pacing = pacing
        self.limit = limit
        self.throttle = Throttle(rate, 0.0)
        self.now = 0.0
        self.agenda: Agenda[Task] = Agenda()
        self.in_flight: collections.deque[tuple[float, Task, Permit, bool]] = collections.deque()
        self.second, self.served = -1, 0
        self.sent = self.refused = self.changes = self.ended = 0
        self.overdue = self.last_first_look = self.lag = 0.0
        self.history: History = []

    def run(self) -> None:
        while True:
            go = self._send_when_allowed()
            if self.in_flight and self.in_flight[0][0] <= go:
                self.now, task, permit, refused = self.in_flight.popleft()
                self._answered(task, permit, refused=refused)
            elif go < math.inf:
                self.now = go
            else:
                return

    def _send_when_allowed(self) -> float:
        """Send one request if one may go now, and return when to look again."""
        due = self.agenda.next_due()
        if due is None:
            return math.inf
        if due > self.now:
            return due
        permit = self.throttle.take(self.now)
        if not isinstance(permit, Permit):
            return self.now + permit
        due, task = self.agenda.take()
        self.overdue = max(self.overdue, self.now - due)
        task.attempts += 1
        if task.attempts == 1:
            self.last_first_look = self.now
        self.sent += 1
        self.in_flight.append((self.now + LATENCY, task, permit, self._is_too_many(due)))
        return self.now

    def _is_too_many(self, due: float) -> bool:
        if int(self.now) != self.second:
            self.second, self.served = int(self.now), 0
            self.history.append((self.now, self.sent, self.now - due))
        self.served += 1
        return self.served > self.limit

    def _answered(self, task: Task, permit: Permit, *, refused: bool) -> None:
        if refused:
            self._refused(task, permit)
            wait = self._judged(task, REFUSED, None)
        else:
            self.throttle.succeeded(permit, self.now)
            wait = self._served(task, permit.given_at)
        if wait is not None:
            self.agenda.put(task, self.now + wait)

    def _refused(self, task: Task, permit: Permit) -> None:
        self.refused += 1
        self.throttle.throttled(
            permit,
            self.now,
            whose=task.track.request_id,
            reason=Kind.THROTTLED.value,
            retry_after=REFUSED.retry_after,
            may_be_ban=True,
            rand=self.rng.random(),
        )

    def _served(self, task: Task, sent: float) -> float | None:
        stage = task.stage(sent)
        if stage == task.fingerprint and self.now < task.track.reread_at:
            return self._judged(task, UNCHANGED, None)
        task.fingerprint = stage
        updated = int((EPOCH + task.born + BEGINS[stage] * task.stretch) * 1000)
        told = msgspec.structs.replace(STAGES[stage], status_update_time=updated)
        wait = self._judged(task, told, reply_at(int(self.now)))
        if wait is None:
            self.ended += 1
            self.found(task, self.now - max(0.0, task.ends))
        return wait

    def found(self, task: Task, lag: float) -> None:  # noqa: ARG002 - all alike
        """Note the end of a task, so many seconds after its video was there."""
        self.lag += lag

    def _judged(self, task: Task, answer: Answer, reply: Reply | None) -> float | None:
        context = Context(
            self.now, EPOCH + self.now, self.rng.random(), task.attempts, elapsed=self.now
        )
        views = [View(task.state)]
        ruling = judge(task.track, views, answer, reply=reply, pacing=self.pacing, context=context)
        assert ruling.fatal is None, ruling.fatal
        task.track, task.state = ruling.track, ruling.views[0].state
        self.changes += ruling.views[0].change is not None
        return ruling.delay


def resident() -> int:
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def simulated(name: str, ids: int) -> tuple[Figures, History]:
    """Return the rows of the table, and what happened each second."""
    before = resident()
    limit = ids / TURN
    simulation = Simulation(PACINGS[name](), limit=limit, rate=limit * HOPE)
    rng = random.Random(ids)
    for request_id in request_ids(ids):
        stretch = rng.lognormvariate(0.0, SIGMA)
        simulation.agenda.put(Task(track=Track(request_id), stretch=stretch), 0)
    built = resident()
    began = time.process_time()
    simulation.run()
    cpu = time.process_time() - began
    assert simulation.ended == ids, "an id was lost"
    throttle, sent = simulation.throttle, simulation.sent
    allowed = throttle.max_rate * simulation.now + throttle.burst
    return {
        "events (sent, answered) for a second of CPU": 2 * sent / cpu,
        "virtual seconds until the last id ended": simulation.now,
        "bytes for an id, all added (id included)": (built - before) / ids,
        "bytes for an id, at the end": (resident() - before) / ids,
        "resident memory at the end, MB": resident() / 1e6,
        "longest overdue, s": simulation.overdue,
        "one turn, s": TURN,
        "the last id's first look, s": simulation.last_first_look,
        "requests sent": sent,
        "requests allowed": int(allowed),
        "busiest ten seconds ÷ the server's limit": f"{busiest(simulation):.3f}",
        "sent away (429)": f"{simulation.refused / sent:.2%}",
        "requests for an id": sent / ids,
        "from the video to its poll, mean, s": simulation.lag / ids,
    }, simulation.history


def busiest(simulation: Simulation) -> float:
    sent = {int(now): requests for now, requests, _ in simulation.history}
    most = max(sent[now] - sent[now - 10] for now in sent if now - 10 in sent)
    return most / (10 * simulation.limit)


def main(results: pathlib.Path, *, quick: bool = False) -> None:
    ids = 1_000 if quick else 1_000_000
    runs = {}
    for name in PACINGS:
        sys.stderr.write(f"{ids:,} ids, {name} …\n")
        with concurrent.futures.ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn")
        ) as alone:
            runs[name] = alone.submit(simulated, name, ids).result()
    limit = ids / TURN
    said = SAID.format(latency=LATENCY, limit=limit, rate=limit * HOPE, sigma=SIGMA)
    table = Table(f"{ids:,} ids at once", ["", *runs])
    for row in next(iter(runs.values()))[0]:
        table.add(row, *(figures[row] for figures, _ in runs.values()))
    publish(results, "simulation", said, table)
    with picture(results, "simulation", panels=2) as axes:
        if axes is not None:
            _draw(axes, {name: history for name, (_, history) in runs.items()})


def _draw(axes: Sequence[Any], histories: Mapping[str, History]) -> None:
    rates, overdue = axes
    for colour, (name, history) in zip(COLOURS, histories.items(), strict=False):
        times, sent, late = zip(*history[::10], strict=True)
        rate = [(sent[n] - sent[n - 1]) / (times[n] - times[n - 1]) for n in range(1, len(times))]
        rates.plot(times[1:], rate, color=colour, label=name)
        overdue.plot(times, late, color=colour, label=name)
    rates.set(xlabel="virtual seconds", ylabel="requests/s")
    overdue.set(xlabel="virtual seconds", ylabel="overdue when sent, s")
    rates.legend(frameon=False)
