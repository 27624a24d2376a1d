"""THE loop: agenda → throttle → transport → wire → lifecycle → watches.

It holds no policy: when an id is due is the pacing's word, how fast it may be asked the
throttle's, what a reply means the lifecycle's, what a fault means that of ``_faults``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NoReturn

import msgspec

from veo3_async._agenda import Entry
from veo3_async._dispatch import Dispatcher
from veo3_async._errors import StillPending, Veo3Error
from veo3_async._faults import NO_FAULTS, Streak, Verdict, after_fault, backoff
from veo3_async._lifecycle import FINAL, State, grace_left, remembered
from veo3_async._models import Phase, PollReport, Stats, Transition, VideoTask
from veo3_async._pacing import Eta, Pacing, Progress
from veo3_async._watch import Mailbox
from veo3_async._wire import Call, Problem, Reply, decode, poll_path, server_time

if TYPE_CHECKING:
    from veo3_async._transport import Transport

__all__ = ["Poller"]

_log = logging.getLogger("veo3_async")

_BATCH: Final = 1000
"""Ids that are added or ended before the event loop gets its turn."""

_HALF_A_SECOND: Final = 0.5  # a ``Date`` is cut to whole seconds

_Changes = Sequence[tuple[Mailbox, Transition]]


class Job(Entry, kw_only=True):
    """One id that is being polled, whoever watches it."""

    request_id: str
    watchers: tuple[Mailbox, ...]
    added: float
    attempts: int = 0
    streak: Streak = NO_FAULTS
    fingerprint: int | None = None
    """Hash of the last reply's bytes: the same bytes say nothing new."""
    last: Progress | None = None
    """How far it was at the last reply; None before the first."""
    began: float = 0.0
    """When its phase began, seconds of the loop's clock."""
    entered_at: int | None = None
    """The same by the server's clock, milliseconds since the epoch, where it told."""

    def progress(self, phase: Phase, now: float) -> Progress:
        """Return how far it is in a phase; a phase other than the last one begins now."""
        age = max(0.0, now - self.began)
        if self.last is None or self.last.phase is not phase:
            return Progress(phase=phase, age=age)
        return Progress(phase=phase, age=age, previous_age=self.last.age, polls=self.last.polls + 1)


class Poller:
    """Polls ids for mailboxes.

    :param pacing: When an id is asked for again.
    :param model: Whose path ids are polled at that do not name a known model.
    :param max_rate: Physical requests a second.
    :param max_in_flight: Requests under way at once.
    :param on_poll: Called after every poll, or None.
    """

    def __init__(
        self,
        transport: Transport,
        pacing: Pacing,
        *,
        model: str,
        max_rate: float,
        max_in_flight: int,
        on_poll: Callable[[PollReport], object] | None,
    ) -> None:
        self.dispatcher: Final[Dispatcher[Job]] = Dispatcher(
            transport, max_rate=max_rate, max_in_flight=max_in_flight
        )
        self._loop = asyncio.get_running_loop()
        self._pacing = pacing
        self._model = model
        self._on_poll = on_poll
        self._jobs: dict[str, Job] = {}
        self._mailboxes: weakref.WeakSet[Mailbox] = weakref.WeakSet()
        self._transitions = 0
        self._hook_failed = False

    def __repr__(self) -> str:
        return f"<Poller: {len(self._jobs)} ids, {self.dispatcher!r}>"

    async def run(self) -> NoReturn:
        """Poll until cancelled. An error of the pacing, or a bug, comes out."""
        await self.dispatcher.run(self._poll)

    def register(self, mailbox: Mailbox, timeout: float | None) -> None:
        """Take charge of a mailbox; its ids come with `subscribe`.

        :param timeout: Seconds after which what is unfinished ends, or None.
        """
        self._mailboxes.add(mailbox)
        if timeout is not None:
            mailbox.deadline = self._loop.call_later(timeout, self._expire, mailbox, timeout)

    def subscribe(self, mailbox: Mailbox, request_ids: Iterable[str]) -> None:
        """Begin to poll for a mailbox; ids that are polled already share their polls."""
        self._join(mailbox, mailbox.open_for(request_ids))

    def unsubscribe(self, mailbox: Mailbox, request_ids: Iterable[str]) -> None:
        """End the polling for a mailbox, and for the ids that no other one wants."""
        for request_id in request_ids:
            mailbox.drop(request_id)
            if (job := self._jobs.get(request_id)) is not None:
                self._leave(job, mailbox)

    def abandon(self, mailbox: Mailbox) -> None:
        """Drop all subscriptions of a mailbox; may be called from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and polls nothing
            self._loop.call_soon_threadsafe(self._abandon, mailbox)

    def fail(self, error: BaseException) -> None:
        """End every watch with an error, and poll nothing more."""
        self._jobs.clear()
        self.dispatcher.clear()
        for mailbox in tuple(self._mailboxes):
            mailbox.fail(error)

    def eta(self, mailbox: Mailbox, request_id: str) -> Eta | None:
        """Return what is left for an id that the mailbox waits for, or None where unknown."""
        job = self._jobs.get(request_id)
        if job is None or job.last is None or request_id not in mailbox.states:
            return None
        return self._pacing.eta(job.progress(job.last.phase, self._loop.time()))

    def stats(self) -> Stats:
        """Return what is going on."""
        now = self._loop.time()
        oldest = next(iter(self._jobs.values()), None)
        permits = self.dispatcher
        return Stats(
            watched=len(self._jobs),
            in_flight=permits.in_flight,
            polls=permits.sent["GET"],
            transitions=self._transitions,
            failures={kind.value: count for kind, count in permits.failures.items()},
            rate=permits.throttle.rate,
            throttled_seconds=permits.throttle.throttled_seconds(now),
            throttle_reason=permits.throttle.reason,
            lag_p50=permits.lag.quantile(0.5),
            lag_p95=permits.lag.quantile(0.95),
            oldest=None if oldest is None else now - oldest.added,
        )

    # --- who watches what -------------------------------------------------------------------

    def _join(self, mailbox: Mailbox, request_ids: Sequence[str]) -> None:
        now = self._loop.time()
        watchers = (mailbox,)  # one for all of them: memory
        for request_id in request_ids[:_BATCH]:
            if request_id not in mailbox.states:
                continue  # discarded while its batch waited
            job = self._jobs.get(request_id)
            if job is None:
                job = Job(request_id=request_id, watchers=watchers, added=now)
                self._jobs[request_id] = job
                self.dispatcher.put(job, now)
            else:
                job.watchers += watchers
                job.fingerprint = None  # what is old to the others is new to this one
                if job.ticket:
                    self.dispatcher.put(job, now)
        if len(request_ids) > _BATCH:
            self._loop.call_soon(self._join, mailbox, request_ids[_BATCH:])

    def _leave(self, job: Job, mailbox: Mailbox) -> None:
        job.watchers = tuple(w for w in job.watchers if w is not mailbox)
        if not job.watchers and self._jobs.get(job.request_id) is job:
            del self._jobs[job.request_id]
            self.dispatcher.drop(job)

    def _abandon(self, mailbox: Mailbox) -> None:
        self.unsubscribe(mailbox, tuple(mailbox.states))
        mailbox.close()

    def _expire(self, mailbox: Mailbox, timeout: float) -> None:
        for request_id in tuple(mailbox.states)[:_BATCH]:
            state = mailbox.states[request_id]
            job = self._jobs.get(request_id)
            error = StillPending(
                f"not finished after {timeout:g} s; the task goes on, watch the id again",
                request_id=request_id,
                attempts=0 if job is None else job.attempts,
                elapsed=timeout,
                task=remembered(state, request_id),
            )
            self._finish(mailbox, request_id, error)
        if mailbox.states:
            self._loop.call_soon(self._expire, mailbox, timeout)

    def _finish(self, mailbox: Mailbox, request_id: str, error: Veo3Error) -> None:
        """End one id of one mailbox for a reason that is not the service's word."""
        self._deliver(mailbox, mailbox.end(request_id, error, wall_now=time.time()))

    def _deliver(self, mailbox: Mailbox, transition: Transition) -> None:
        if transition.request_id not in mailbox.states:
            return  # discarded meanwhile
        self._transitions += 1
        mailbox.post(transition)
        if transition.final and (job := self._jobs.get(transition.request_id)) is not None:
            self._leave(job, mailbox)

    # --- one poll ---------------------------------------------------------------------------

    async def _poll(self, job: Job, taken: float) -> None:
        job.attempts += 1
        sent = self._loop.time()
        answer = await self.dispatcher.send(
            Call("GET", poll_path(job.request_id, self._model)), taken
        )
        outcome = self._read(job, answer)
        self.dispatcher.learn(taken, outcome)
        now = self._loop.time()
        delay: float | None = None
        if self._jobs.get(job.request_id) is job:  # it may have been dropped meanwhile
            match outcome:
                case Problem():
                    delay = self._after_problem(job, outcome, now)
                case VideoTask():
                    delay = self._after_task(job, outcome, answer, now)
                case None:
                    delay = self._after_nothing_new(job, now)
        if delay is not None:
            self.dispatcher.put(job, now + delay)
        if self._on_poll is not None:
            self._report(job, answer, outcome, sent, delay)

    def _read(self, job: Job, answer: Reply | Problem) -> VideoTask | Problem | None:
        """Return what an answer says, None where it is what the last one said."""
        if isinstance(answer, Problem):
            return answer
        fingerprint = hash(answer.body)
        if fingerprint == job.fingerprint and answer.status == 200:
            return None
        outcome = decode(answer, wall_now=time.time())
        job.fingerprint = fingerprint if isinstance(outcome, VideoTask) else None
        return outcome

    def _after_problem(self, job: Job, problem: Problem, now: float) -> float | None:
        job.streak, verdict = after_fault(job.streak, problem.kind, now)
        if verdict is Verdict.AGAIN:
            return backoff(job.streak, problem.kind, now, random.random())
        if verdict is Verdict.EVERYBODY:
            self.fail(problem.error(attempts=job.attempts, elapsed=now - job.added))
            return None
        for mailbox in job.watchers:
            error = problem.error(
                job.request_id,
                attempts=job.attempts,
                elapsed=now - job.added,
                task=remembered(mailbox.states[job.request_id], job.request_id),
            )
            self._finish(mailbox, job.request_id, error)
        return None

    def _after_nothing_new(self, job: Job, now: float) -> float:
        assert job.last is not None  # noqa: S101 - there was a reply that said the same
        job.streak = NO_FAULTS
        job.last = job.progress(job.last.phase, now)
        return self._delay(job.last)

    def _after_task(
        self, job: Job, task: VideoTask, answer: Reply | Problem, now: float
    ) -> float | None:
        job.streak = NO_FAULTS
        wall_now = time.time()
        changes = [
            (mailbox, transition)
            for mailbox in job.watchers
            if (transition := mailbox.observe(job.request_id, task, now, wall_now))
        ]
        unfinished = (w for w in job.watchers if not w.states[job.request_id].final)
        state = next(unfinished, job.watchers[0]).states[job.request_id]
        self._follow(job, state, answer, now)
        for mailbox, transition in self._with_eta(job, changes):
            self._deliver(mailbox, transition)
        if not job.watchers or job.last is None:
            return None
        delay = self._delay(job.last)
        if (grace := grace_left(state, now)) is None:
            return delay
        job.fingerprint = None  # the same words mean something else when the grace is over
        return min(delay, grace)

    def _follow(self, job: Job, state: State, answer: Reply | Problem, now: float) -> None:
        """Keep up with the phase, and let the pacing learn from one that ended."""
        phase = state.phase or Phase.UNKNOWN
        if job.last is None or job.last.phase is not phase:
            if job.last is not None:
                lasted = now - job.began
                if state.entered_at is not None and job.entered_at is not None:
                    lasted = (state.entered_at - job.entered_at) / 1000  # whenever we looked
                self._pacing.phase_ended(job.last, max(0.0, lasted), phase)
            job.began = now - _age(state, answer)
            job.entered_at = state.entered_at
        job.last = job.progress(phase, now)

    def _with_eta(self, job: Job, changes: _Changes) -> _Changes:
        if not changes or job.last is None or job.last.phase in FINAL:
            return changes
        eta = self._pacing.eta(job.last)
        if eta is None:
            return changes
        return [
            (mailbox, t if t.final else msgspec.structs.replace(t, eta=eta.median))
            for mailbox, t in changes
        ]

    def _delay(self, progress: Progress) -> float:
        delay = self._pacing.delay(progress, random.random())
        if not 0 <= delay < math.inf:
            message = f"{self._pacing!r} said to ask again in {delay!r} seconds"
            raise ValueError(message)
        return delay

    def _report(
        self,
        job: Job,
        answer: Reply | Problem,
        outcome: VideoTask | Problem | None,
        sent: float,
        delay: float | None,
    ) -> None:
        now = self._loop.time()
        assert self._on_poll is not None  # noqa: S101 - `_poll` looked
        problem = outcome if isinstance(outcome, Problem) else None
        status = answer.status if isinstance(answer, Reply) else answer.http_status
        report = PollReport(
            request_id=job.request_id,
            attempt=job.attempts,
            status=status,
            err_code=None if problem is None else problem.err_code,
            duration=now - sent,
            error=None
            if problem is None
            else problem.error(job.request_id, attempts=job.attempts, elapsed=now - job.added),
            next_poll_in=delay,
        )
        try:
            self._on_poll(report)
        except Exception:
            if not self._hook_failed:
                _log.exception("on_poll raised; this is said once, and polling goes on")
            self._hook_failed = True


def _age(state: State, answer: Reply | Problem) -> float:
    """Return for how many seconds a phase that we see first has lasted, by the server's clock."""
    if state.entered_at is None or not isinstance(answer, Reply):
        return 0.0
    served = server_time(answer)
    return 0.0 if served is None else max(0.0, served + _HALF_A_SECOND - state.entered_at / 1000)
