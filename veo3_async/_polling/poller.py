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
import operator
import random
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec
from msgspec.structs import replace

from veo3_async._errors import JournalError, StillPending, Veo3Error
from veo3_async._lifecycle.phases import State, grace_left, kept_once, remembered
from veo3_async._lifecycle.retries import NO_FAULTS, Verdict, after_fault, backoff
from veo3_async._models import FINAL, Phase, PollReport, Stats, Transition, VideoTask
from veo3_async._pacing.learned import LearnedPacing
from veo3_async._pacing.policies import Eta, Pacing, Progress
from veo3_async._polling.dispatcher import Dispatcher
from veo3_async._polling.job import SHARED, Job, SharedError, ask_pacing, bug_error, witness
from veo3_async._polling.mailbox import Mailbox
from veo3_async._polling.outage import Outage
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.families.record import decode, poll_path
from veo3_async._protocol.http import Call, Reply

if TYPE_CHECKING:
    from veo3_async._journal.journal import Journal
    from veo3_async._transport.transport import Transport

__all__ = ["Poller"]

_log = logging.getLogger("veo3_async")

_BATCH: Final = 1000
"""Ids that are added or ended before the event loop gets its turn."""

_TROUBLE_CHARS: Final = 200
"""Of what went wrong last, kept for each id."""

_RECORD_AGAIN: Final = 5.0
"""Seconds after which an id whose end could not be written down is asked for again."""


class _News(msgspec.Struct):
    """What a reply means to one watcher."""

    mailbox: Mailbox
    state: State
    """What it remembers then."""
    told: Transition | None
    """What it is told; None where nothing changed."""


class _SharedPacing:
    """A pacing whose errors say whose matter they are."""

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing

    def delay(self, progress: Progress, rand: float) -> float:
        with SHARED:
            return ask_pacing(self._pacing, progress, rand)

    def phase_ended(self, last: Progress, lasted: float, successor: Phase) -> None:
        with SHARED:
            self._pacing.phase_ended(last, lasted, successor)

    def eta(self, progress: Progress) -> Eta | None:
        with SHARED:
            return self._pacing.eta(progress)


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
        self._shared_pacing = _SharedPacing(pacing)
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
        self._outage = Outage()

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
        elif timeout is not None:
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
                _unfinished(job, timeout),
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
        self._tell(mailbox, mailbox.end(request_id, error, wall_now=time.time()))

    def _tell(self, mailbox: Mailbox, transition: Transition) -> None:
        if not mailbox.post(transition):
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
        now = self._loop.time()
        watchers = job.watchers
        outcome: VideoTask | Problem | None = None
        delay: float | None = None
        try:
            outcome = self._read(job, answer, taken)
            if self._is_wanted(job):
                match outcome:
                    case None:
                        delay = self._after_nothing_new(job, now)
                    case Problem():
                        delay = await self._after_problem(job, outcome, now)
                    case VideoTask():
                        delay = await self._after_task(job, outcome, answer, now)
        except SharedError as broken:
            _log.exception("polling has stopped, and begins anew with the next watch")
            self.fail(broken.__cause__ or broken)
        except Exception as bug:  # noqa: BLE001 - whatever it is, it is the end of one id
            _log.exception("what came for one id could not be dealt with; others go on")
            self._give_up(job, bug)
        if not self._is_wanted(job):
            delay = None
        else:
            if delay is None or not set(job.watchers).issubset(watchers):
                delay = 0.0  # at once for who came while others were told
            self.dispatcher.put(job, now + delay)
        if self._on_poll is not None:
            self._report(job, answer, outcome, now - sent, delay)

    def _is_wanted(self, job: Job) -> bool:
        return self._jobs.get(job.request_id) is job  # it may be dropped at any await

    def _read(self, job: Job, answer: Reply | Problem, taken: float) -> VideoTask | Problem | None:
        """Return what an answer says, None where it is what the last one said."""
        outcome: VideoTask | Problem | None = None
        try:
            if isinstance(answer, Problem):
                outcome = answer
            elif (fingerprint := hash(answer.body)) != job.fingerprint or answer.status != 200:
                outcome = decode(answer, request_id=job.request_id, wall_now=time.time())
                job.fingerprint = fingerprint if isinstance(outcome, VideoTask) else None
        finally:
            self.dispatcher.learn(taken, outcome)  # else the throttle would wait for its permit
        if isinstance(outcome, Problem):
            self._note(job, outcome)
        elif self._outage.since is not None and (lasted := self._outage.ended(self._loop.time())):
            _log.info("polls bring states again, after %.0f s", lasted)
        return outcome

    def _note(self, job: Job, problem: Problem) -> None:
        """Keep a fault for who asks later why nothing came."""
        job.trouble = kept_once(problem.message[:_TROUBLE_CHARS])  # in an outage all have the same
        _log.debug("no state of %s: %r", job.request_id, job.trouble)
        if (lasted := self._outage.failed(problem.kind, self._loop.time())) is not None:
            _log.warning(
                "no poll has brought a state for %.0f s; they go on, and the last trouble is %r",
                lasted,
                job.trouble,
            )

    def _give_up(self, job: Job, bug: Exception) -> None:
        """End an id at which a bug was met; in a journal its task goes on."""
        for mailbox in job.watchers:
            error = bug_error(
                bug,
                mailbox.states[job.request_id],
                job.request_id,
                attempts=job.attempts,
                elapsed=self._loop.time() - job.added,
            )
            self._finish(mailbox, job.request_id, error)

    # Each acts on a poll, and returns the seconds until the next one, or None after the end.

    async def _after_problem(self, job: Job, problem: Problem, now: float) -> float | None:
        job.streak, verdict = after_fault(job.streak, problem.kind, now)
        if verdict is Verdict.AGAIN:
            return backoff(job.streak, problem.kind, now, random.random())
        if verdict is Verdict.EVERYBODY:
            self.fail(problem.error(attempts=job.attempts, elapsed=now - job.added))
            return None
        news = []
        for mailbox in job.watchers:
            state = mailbox.states[job.request_id]
            error = problem.error(
                job.request_id,
                attempts=job.attempts,
                elapsed=now - job.added,
                task=remembered(state, job.request_id),
            )
            told = mailbox.end(job.request_id, error, wall_now=time.time())
            news.append(_News(mailbox, state, told))
        return None if await self._publish(job, news) else _RECORD_AGAIN

    def _after_nothing_new(self, job: Job, now: float) -> float:
        assert job.last is not None  # noqa: S101 - there was a reply that said the same
        job.streak = NO_FAULTS
        job.last = job.progress(job.last.phase, now)
        return self._shared_pacing.delay(job.last, random.random())

    async def _after_task(
        self, job: Job, task: VideoTask, answer: Reply | Problem, now: float
    ) -> float | None:
        job.streak = NO_FAULTS
        news = [
            _News(mailbox, *mailbox.observe(job.request_id, task, now, time.time()))
            for mailbox in job.watchers
        ]
        # Who still waits leads, for the pacing is asked for him.
        lead = min((of_one.state for of_one in news), key=operator.attrgetter("final"))
        job.follow(lead, answer, self._shared_pacing, now)
        for of_one in news:
            witness(of_one.told, answer, job.attempts, now - job.added)
        self._add_eta(job, news)
        if not await self._publish(job, news):
            job.fingerprint = None
            return _RECORD_AGAIN
        if lead.final or job.last is None:
            return None
        delay = self._shared_pacing.delay(job.last, random.random())
        if (grace := grace_left(lead, now)) is None:
            return delay
        job.fingerprint = None  # the same words mean something else when the grace is over
        return min(delay, grace)

    def _add_eta(self, job: Job, news: list[_News]) -> None:
        if job.last is None or job.last.phase in FINAL or all(n.told is None for n in news):
            return
        if (eta := self._shared_pacing.eta(job.last)) is None:
            return
        for of_one in news:
            if of_one.told is not None and not of_one.told.final:
                of_one.told = replace(of_one.told, eta=eta.median)

    async def _publish(self, job: Job, news: list[_News]) -> bool:
        """Write the changes down, then tell them; return whether that could be done.

        What could not be written and is an end is not told: it will be seen and tried again.
        """
        changes = [of_one.told for of_one in news if of_one.told is not None]
        if len(changes) < len(news) or not all(change.final for change in changes):
            # Who is content with the plain video is done, and the task is owed to the others.
            changes = [replace(change, final=False) for change in changes]
        if not await self._record(changes):
            return False
        for of_one in news:
            of_one.mailbox.remember(job.request_id, of_one.state)
            if of_one.told is not None:
                self._tell(of_one.mailbox, of_one.told)
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
        duration: float,
        delay: float | None,
    ) -> None:
        assert self._on_poll is not None  # noqa: S101 - `_poll` looked
        problem = outcome if isinstance(outcome, Problem) else None
        status = answer.status if isinstance(answer, Reply) else answer.http_status
        report = PollReport(
            request_id=job.request_id,
            attempt=job.attempts,
            status=status,
            err_code=None if problem is None else problem.err_code,
            duration=duration,
            error=None
            if problem is None
            else problem.error(
                job.request_id, attempts=job.attempts, elapsed=self._loop.time() - job.added
            ),
            next_poll_in=delay,
        )
        try:
            self._on_poll(report)
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - a hook is not to end the polling
            if not self._hook_failed:
                _log.exception("on_poll raised; this is said once, and polling goes on")
            self._hook_failed = True


def _unfinished(job: Job | None, timeout: float) -> str:
    if job is None or not job.streak.faults:
        return f"not finished after {timeout:g} s; the task goes on, watch the id again"
    return (
        f"not finished after {timeout:g} s, and of late no poll brought a state "
        f"({job.streak.faults} in a row): {job.trouble}; watch the id again"
    )
