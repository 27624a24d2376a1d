"""THE loop: agenda → throttle → transport → wire → lifecycle → watches.

It holds no policy: when an id is due is the pacing's word, how fast it may be asked the
throttle's, what a reply means the lifecycle's, what a fault means that of ``_faults``.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import logging
import random
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from veo3_async._dispatch import Dispatcher
from veo3_async._errors import JournalError, StillPending, Veo3Error
from veo3_async._faults import NO_FAULTS, Verdict, after_fault, backoff
from veo3_async._job import Job, ask_pacing
from veo3_async._learned import LearnedPacing
from veo3_async._lifecycle import FINAL, State, grace_left, remembered
from veo3_async._models import PollReport, Stats, Transition, VideoTask
from veo3_async._pacing import Eta, Pacing
from veo3_async._watch import Mailbox
from veo3_async._wire import Call, Problem, Reply, decode, poll_path

if TYPE_CHECKING:
    from veo3_async._journal import Journal
    from veo3_async._transport import Transport

__all__ = ["Poller"]

_log = logging.getLogger("veo3_async")

_BATCH: Final = 1000
"""Ids that are added or ended before the event loop gets its turn."""

_RECORD_AGAIN: Final = 5.0
"""Seconds after which an id whose end could not be written down is asked for again."""

_News = list[tuple[Mailbox, State | None, Transition | None]]
"""What a reply means to each watcher: what it remembers then, None at an end, and is told."""


class Poller:
    """Polls ids for mailboxes.

    :param pacing: When an id is asked for again.
    :param model: Whose path ids are polled at that do not name a known model.
    :param max_rate: Physical requests a second.
    :param max_in_flight: Requests under way at once.
    :param on_poll: Called after every poll, or None.
    :param journal: What ids and changes are written to before they are acted on, or None.
    :param keep_knowledge: Runs beside the polling and keeps what the pacing learns, or None.
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
        journal: Journal | None,
        keep_knowledge: Callable[[], Coroutine[Any, Any, None]] | None,
    ) -> None:
        self.dispatcher: Final[Dispatcher[Job]] = Dispatcher(
            transport, max_rate=max_rate, max_in_flight=max_in_flight
        )
        self._loop = asyncio.get_running_loop()
        self._pacing = pacing
        self._model = model
        self._on_poll = on_poll
        self._journal = journal
        self._keep_knowledge = keep_knowledge
        self._unaccepted: collections.deque[tuple[Mailbox, list[str]]] = collections.deque()
        self._accepting = asyncio.Event()
        self._jobs: dict[str, Job] = {}
        self._mailboxes: weakref.WeakSet[Mailbox] = weakref.WeakSet()
        self._transitions = 0
        self._ended: BaseException | None = None
        self._hook_failed = False
        self._journal_failed = False

    def __repr__(self) -> str:
        return f"<Poller: {len(self._jobs)} ids, {self.dispatcher!r}>"

    async def run(self) -> None:
        """Poll until cancelled. An error of the pacing ends the watches, not the polling."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._accept())
            if self._keep_knowledge is not None:
                tasks.create_task(self._keep_knowledge())
            await self.dispatcher.run(self._poll)

    def register(self, mailbox: Mailbox, timeout: float | None) -> None:
        """Take charge of a mailbox; its ids come with `subscribe`.

        :param timeout: Seconds after which what is unfinished ends, or None.
        """
        self._mailboxes.add(mailbox)
        if self._ended is not None:
            mailbox.fail(self._ended)
        if timeout is not None:
            mailbox.deadline = self._loop.call_later(timeout, self._expire, mailbox, timeout)

    def subscribe(self, mailbox: Mailbox, request_ids: Iterable[str]) -> None:
        """Begin to poll for a mailbox; ids that are polled already share their polls.

        With a journal the ids are written down first; those that cannot be end with the error.
        """
        new = mailbox.open_for(request_ids)
        if self._journal is None:
            self._join(mailbox, iter(new))
        elif new:
            self._unaccepted.append((mailbox, new))
            self._accepting.set()

    def unsubscribe(self, mailbox: Mailbox, request_ids: Iterable[str]) -> None:
        """End the polling for a mailbox, and for the ids that no other one wants."""
        for request_id in request_ids:
            mailbox.drop(request_id)
            if (job := self._jobs.get(request_id)) is not None:
                self._leave(job, mailbox)

    def delivered(self, transition: Transition) -> None:
        """Note that a final transition was dealt with; the task is owed to who still watches it."""
        if self._journal is not None and transition.request_id not in self._jobs:
            self._journal.delivered(transition, at=time.time())

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

    def end(self, reason: BaseException) -> None:
        """End every watch with an error, those that come too late included."""
        self._ended = reason
        self.fail(reason)

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
        learned = self._pacing if isinstance(self._pacing, LearnedPacing) else None
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
            expected_polls=None if learned is None else learned.expected_polls,
            expected_lag=None if learned is None else learned.expected_lag,
        )

    # --- who watches what -------------------------------------------------------------------

    async def _accept(self) -> NoReturn:
        while True:
            await self._accepting.wait()
            self._accepting.clear()
            while self._unaccepted:
                mailbox, request_ids = self._unaccepted.popleft()
                await self._accept_for(mailbox, request_ids)

    async def _accept_for(self, mailbox: Mailbox, request_ids: list[str]) -> None:
        assert self._journal is not None  # noqa: S101 - `subscribe` looked
        try:
            await self._journal.accept(request_ids, at=time.time())
        except JournalError as error:
            for request_id in request_ids:
                if request_id in mailbox.states:
                    own = JournalError(error.message, request_id=request_id)
                    self._finish(mailbox, request_id, own)
        else:
            self._join(mailbox, iter(request_ids))

    def _join(self, mailbox: Mailbox, request_ids: Iterator[str]) -> None:
        now = self._loop.time()
        watchers = (mailbox,)  # one for all of them: memory
        batch = list(itertools.islice(request_ids, _BATCH))
        for request_id in batch:
            if request_id not in mailbox.states:
                continue  # discarded while its batch waited
            job = self._jobs.get(request_id)
            if job is None:
                job = Job(request_id=request_id, watchers=watchers, added=now)
                self._jobs[request_id] = job
                self.dispatcher.put(job, now)
            elif mailbox not in job.watchers:
                job.watchers += watchers
                job.fingerprint = None  # what is old to the others is new to this one
                if job.ticket:
                    self.dispatcher.put(job, now)
        self.dispatcher.pump()
        if len(batch) == _BATCH:
            self._loop.call_soon(self._join, mailbox, request_ids)

    def _leave(self, job: Job, mailbox: Mailbox) -> None:
        job.watchers = tuple(w for w in job.watchers if w is not mailbox)
        if not job.watchers and self._jobs.get(job.request_id) is job:
            del self._jobs[job.request_id]
            self.dispatcher.drop(job)

    def _abandon(self, mailbox: Mailbox) -> None:
        self.unsubscribe(mailbox, tuple(mailbox.states))
        mailbox.close()

    def _expire(self, mailbox: Mailbox, timeout: float) -> None:
        for request_id in list(itertools.islice(mailbox.states, _BATCH)):
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
        else:
            mailbox.finish()

    def _finish(self, mailbox: Mailbox, request_id: str, error: Veo3Error) -> None:
        """End an id of one mailbox, while its task goes on."""
        self._tell(mailbox, None, mailbox.end(request_id, error, wall_now=time.time()))

    def _tell(self, mailbox: Mailbox, state: State | None, transition: Transition) -> None:
        if not mailbox.post(transition, state):
            return  # discarded meanwhile
        self._transitions += 1
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
        if self._is_wanted(job):
            try:
                delay = await self._after(job, outcome, answer, now)
            except Exception as error:  # noqa: BLE001 - it goes to every watcher
                _log.exception("polling has stopped, and begins anew with the next watch")
                self.fail(error)
        if self._is_wanted(job):
            delay = delay or 0.0  # at once for who came while others were told the end
            self.dispatcher.put(job, now + delay)
        if self._on_poll is not None:
            self._report(job, answer, outcome, sent, delay)

    async def _after(
        self, job: Job, outcome: VideoTask | Problem | None, answer: Reply | Problem, now: float
    ) -> float | None:
        """Act on a poll, and return the seconds until the next one, or None after the end."""
        match outcome:
            case Problem():
                return await self._after_problem(job, outcome, now)
            case VideoTask():
                return await self._after_task(job, outcome, answer, now)
            case None:
                return self._after_nothing_new(job, now)

    def _is_wanted(self, job: Job) -> bool:
        return self._jobs.get(job.request_id) is job  # it may be dropped at any await

    def _read(self, job: Job, answer: Reply | Problem) -> VideoTask | Problem | None:
        """Return what an answer says, None where it is what the last one said."""
        if isinstance(answer, Problem):
            return answer
        fingerprint = hash(answer.body)
        if fingerprint == job.fingerprint and answer.status == 200:
            return None
        outcome = decode(answer, request_id=job.request_id, wall_now=time.time())
        job.fingerprint = fingerprint if isinstance(outcome, VideoTask) else None
        return outcome

    async def _after_problem(self, job: Job, problem: Problem, now: float) -> float | None:
        job.streak, verdict = after_fault(job.streak, problem.kind, now)
        if verdict is Verdict.AGAIN:
            return backoff(job.streak, problem.kind, now, random.random())
        if verdict is Verdict.EVERYBODY:
            self.fail(problem.error(attempts=job.attempts, elapsed=now - job.added))
            return None
        news: _News = []
        for mailbox in job.watchers:
            error = problem.error(
                job.request_id,
                attempts=job.attempts,
                elapsed=now - job.added,
                task=remembered(mailbox.states[job.request_id], job.request_id),
            )
            news.append((mailbox, None, mailbox.end(job.request_id, error, wall_now=time.time())))
        return None if await self._publish(job, news) else _RECORD_AGAIN

    def _after_nothing_new(self, job: Job, now: float) -> float:
        assert job.last is not None  # noqa: S101 - there was a reply that said the same
        job.streak = NO_FAULTS
        job.last = job.progress(job.last.phase, now)
        return ask_pacing(self._pacing, job.last, random.random())

    async def _after_task(
        self, job: Job, task: VideoTask, answer: Reply | Problem, now: float
    ) -> float | None:
        job.streak = NO_FAULTS
        news: _News = []
        for mailbox in job.watchers:
            state, transition = mailbox.observe(job.request_id, task, now, time.time())
            news.append((mailbox, state, transition))
        states = [state for _, state, _ in news if state is not None]
        lead = next((state for state in states if not state.final), states[0])
        job.follow(lead, answer, self._pacing, now)
        if not await self._publish(job, self._with_eta(job, news)):
            job.fingerprint = None
            return _RECORD_AGAIN
        if lead.final or job.last is None:
            return None
        delay = ask_pacing(self._pacing, job.last, random.random())
        if (grace := grace_left(lead, now)) is None:
            return delay
        job.fingerprint = None  # the same words mean something else when the grace is over
        return min(delay, grace)

    def _with_eta(self, job: Job, news: _News) -> _News:
        if job.last is None or job.last.phase in FINAL or all(t is None for *_, t in news):
            return news
        if (eta := self._pacing.eta(job.last)) is None:
            return news
        return [
            (mailbox, state, t and (t if t.final else msgspec.structs.replace(t, eta=eta.median)))
            for mailbox, state, t in news
        ]

    async def _publish(self, job: Job, news: _News) -> bool:
        """Write the changes down, then tell them; return whether that could be done.

        What could not be written and is an end is not told: it will be seen and tried again.
        """
        changes = [transition for *_, transition in news if transition is not None]
        if not all(transition is not None and transition.final for *_, transition in news):
            # Who is content with the plain video is done, and the task is owed to the others.
            changes = [msgspec.structs.replace(change, final=False) for change in changes]
        if not await self._record(changes):
            return False
        for mailbox, state, transition in news:
            if transition is not None:
                self._tell(mailbox, state, transition)
            elif state is not None:
                mailbox.remember(job.request_id, state)
        return True

    async def _record(self, changes: Sequence[Transition]) -> bool:
        if self._journal is None:
            return True
        self.dispatcher.pump()  # others need not wait for the disk
        try:
            for change in {change.phase: change for change in changes}.values():
                await self._journal.record(change)
        except JournalError as error:
            if not self._journal_failed:
                _log.error("no end is told until the journal can be written: %s", error)
            self._journal_failed = True
            return not any(change.final for change in changes)
        if changes:
            self._journal_failed = False
        return True

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
        except Exception:  # noqa: BLE001 - a hook is not to end the polling
            if not self._hook_failed:
                _log.exception("on_poll raised; this is said once, and polling goes on")
            self._hook_failed = True
