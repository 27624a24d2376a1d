"""Ids that end beside a limiter, in virtual time: this client's decisions, and a naive loop.

The throttle says who may go, `backoff` when an id comes back after a refusal, `FixedPacing` when
it does otherwise, as in the poller. The naive loop is a task for each id that asks, and sleeps.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
import random
from collections.abc import Sequence
from typing import Final

from veo3_async._lifecycle.retries import NO_FAULTS, Streak, after_fault, backoff
from veo3_async._models import Phase
from veo3_async._pacing.policies import FixedPacing, Progress
from veo3_async._polling.agenda import Agenda, Entry
from veo3_async._protocol.errors import Kind
from veo3_async._throttle.throttle import Permit, Throttle

from ._limiters import Answer, Limiter

__all__ = ["Ended", "ids_of", "naive", "ours"]

LIFE: Final = (20.0, 40.0)
"""Seconds, from one to the other, for which a task runs."""

INTERVAL: Final = 5.0
IN_FLIGHT: Final = 32
JITTER: Final = 0.2  # of what an answer takes
PATIENCE: Final = 600.0
_RUNNING: Final = Progress(phase=Phase.GENERATING, age=0.0)


@dataclasses.dataclass
class Ended:
    """What came of it."""

    ids: dict[str, float]
    """When each task ends."""
    seen: dict[str, float] = dataclasses.field(default_factory=dict)
    """When each end was seen."""
    log: list[tuple[float, Answer]] = dataclasses.field(default_factory=list)
    """Every request: when it arrived, and what became of it."""

    def all_seen(self, ids: Sequence[str]) -> float:
        """Return when the last end of these was seen, infinite where one was not."""
        return max(self.seen.get(request_id, math.inf) for request_id in ids)

    def lag(self, ids: Sequence[str]) -> float:
        """Return the median of the seconds from an end until it was seen."""
        lags = sorted(self.seen.get(one, math.inf) - self.ids[one] for one in ids)
        return lags[len(lags) // 2]

    def refused(self, after: float = 0.0, until: float = math.inf) -> float:
        """Return the share that was refused of what arrived between two moments."""
        answers = [answer for moment, answer in self.log if after <= moment <= until]
        return sum(a.refusal is not None for a in answers) / max(1, len(answers))


class Id(Entry, kw_only=True):
    """An id that is polled."""

    request_id: str
    streak: Streak = NO_FAULTS


def ids_of(count: int, seed: int = 0) -> dict[str, float]:
    """Return ids, each with the second at which its task ends."""
    rng = random.Random(seed)
    return {f"veo3-pro:lab-{number:03}": rng.uniform(*LIFE) for number in range(count)}


def ours(
    limiter: Limiter, *, ids: int = 200, rate: float = 20.0, seed: int = 0, until: float = PATIENCE
) -> Ended:
    """Poll as this client does, until all have ended or it took too long.

    :param rate: Requests a second that are allowed.
    :param until: Seconds.
    """
    return _Client(limiter, ids_of(ids), rate, seed).run(until)


class _Client:
    def __init__(self, limiter: Limiter, ids: dict[str, float], rate: float, seed: int) -> None:
        self.limiter = limiter
        self.rng = random.Random(seed)
        self.ended = Ended(ids)
        self.throttle = Throttle(rate, 0.0)
        self.pacing = FixedPacing(INTERVAL)
        self.agenda: Agenda[Id] = Agenda()
        self.under_way: list[tuple[float, int, Permit, Id, Answer, bool]] = []
        self.now = 0.0
        for request_id in ids:
            self.agenda.put(Id(request_id=request_id), 0.0)

    def run(self, until: float) -> Ended:
        while self.now < until and len(self.ended.seen) < len(self.ended.ids):
            go = self._send_when_allowed()
            if self.under_way and self.under_way[0][0] <= go:
                self.now, _, permit, one, answer, has_ended = heapq.heappop(self.under_way)
                wait = self._answered(permit, one, answer, has_ended=has_ended)
                if wait is not None:
                    self.agenda.put(one, self.now + wait)
            elif go < math.inf:
                self.now = go
            else:
                break
        return self.ended

    def _send_when_allowed(self) -> float:
        """Send one request if one may go now, and return when to look again."""
        due = self.agenda.next_due()
        if due is None or len(self.under_way) >= IN_FLIGHT:
            return math.inf
        if due > self.now:
            return due
        permit = self.throttle.take(self.now)
        if not isinstance(permit, Permit):
            return self.now + permit
        _, one = self.agenda.take()
        answer = self.limiter(self.now, one.request_id)
        has_ended = self.now >= self.ended.ids[one.request_id]
        self.ended.log.append((self.now, answer))
        back = self.now + _seconds(answer, self.rng)
        heapq.heappush(self.under_way, (back, len(self.ended.log), permit, one, answer, has_ended))
        return self.now

    def _answered(
        self, permit: Permit, one: Id, answer: Answer, *, has_ended: bool
    ) -> float | None:
        if answer.refusal is None:
            self.throttle.succeeded(permit, self.now)
            one.streak = NO_FAULTS
            if not has_ended:
                return self.pacing.delay(_RUNNING, self.rng.random())
            self.ended.seen[one.request_id] = self.now
            return None
        kind, hint = answer.refusal, answer.retry_after
        if answer.is_about_rate:
            self.throttle.throttled(
                permit,
                self.now,
                whose=one.request_id,
                reason=kind.value,
                retry_after=hint,
                may_be_ban=kind is Kind.THROTTLED,
                rand=self.rng.random(),
            )
        else:
            self.throttle.succeeded(permit, self.now, is_served=False)
        if not self.throttle.hint_binds(self.now, is_about_rate=answer.is_about_rate):
            hint = None
        one.streak, _ = after_fault(one.streak, kind, self.now)
        return backoff(one.streak, kind, self.now, self.rng.random(), retry_after=hint)


def naive(limiter: Limiter, *, ids: int = 200, seed: int = 0, until: float = PATIENCE) -> Ended:
    """Poll as a loop does that takes any answer but the end for "not yet", and sleeps for 5 s."""
    rng = random.Random(seed)
    ended = Ended(ids_of(ids))
    asking = [(rng.uniform(0, 0.05), request_id) for request_id in ended.ids]
    heapq.heapify(asking)
    while asking and asking[0][0] < until:
        now, request_id = heapq.heappop(asking)
        answer = limiter(now, request_id)
        ended.log.append((now, answer))
        back = now + _seconds(answer, rng)
        if answer.refusal is None and now >= ended.ids[request_id]:
            ended.seen[request_id] = back
        else:
            heapq.heappush(asking, (back + INTERVAL, request_id))
    return ended


def _seconds(answer: Answer, rng: random.Random) -> float:
    return answer.seconds * rng.uniform(1 - JITTER, 1 + JITTER)
