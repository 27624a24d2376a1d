"""THE loop: receive → judge → write down → deliver.

It holds no policy: when an id is due is for the pacing to say, how fast it may be asked for the
throttle, and what a reply or a fault means for the judge.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from veo3_async._errors import JournalError, Veo3Error
from veo3_async._lifecycle.contact import Contact
from veo3_async._lifecycle.judge import (
    UNCHANGED,
    Answer,
    Ruling,
    judge,
    judge_bug,
    says_nothing_new,
)
from veo3_async._lifecycle.phases import kept_once
from veo3_async._models import Phase, Transition, VideoTask
from veo3_async._pacing.policies import Pacing
from veo3_async._polling.dispatcher import Dispatcher, Turn
from veo3_async._polling.hooks import Hook
from veo3_async._polling.job import Job
from veo3_async._polling.mailbox import Mailbox
from veo3_async._polling.outage import Outage
from veo3_async._polling.subscriptions import Subscriptions
from veo3_async._polling.webhooks import spared
from veo3_async._protocol import families
from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.http import Reply
from veo3_async._protocol.ids import is_form_of
from veo3_async._reports import PollReport

if TYPE_CHECKING:
    from veo3_async._journal.journal import Journal

__all__ = ["Poller"]

_log = logging.getLogger("veo3_async")

_TROUBLE_CHARS: Final = 200
"""Of the last fault, kept for each id."""

_STALL_SECONDS: Final = 1800.0
"""After so long without any change a task is worth a log line: whole tasks take 3 to 6 min."""

_RECORD_AGAIN: Final = 5.0
"""Seconds after which an id whose end could not be written down is asked for again."""


class Poller:
    """Polls the ids that are subscribed to.

    :param pacing: When an id is asked for again.
    :param contact: Judges whether it is still the API that answers.
    :param route: Where ids are polled of which nothing is known.
    :param on_poll: Called after every poll, or None.
    :param on_change: Called for every change of a task, whoever watches it, or None.
    :param journal: What changes are written to before they are delivered, or None.
    :param beside: Coroutines that run as long as the polling.
    """

    def __init__(
        self,
        dispatcher: Dispatcher[Job],
        subscriptions: Subscriptions,
        pacing: Pacing,
        contact: Contact,
        *,
        route: families.Route,
        on_poll: Hook[PollReport] | None,
        on_change: Hook[Transition] | None = None,
        journal: Journal | None,
        beside: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    ) -> None:
        self._dispatcher = dispatcher
        self._subscriptions = subscriptions
        self._loop = asyncio.get_running_loop()
        self._pacing = pacing
        self._route = route
        self._on_poll = on_poll
        self._on_change = on_change
        self._journal = journal
        self._beside = beside
        self._journal_failed = False
        self._outage = Outage()
        self._contact = contact
        self.ends: Final[collections.Counter[Phase]] = collections.Counter()
        """Final transitions so far, whoever watches, by phase."""

    async def run(self) -> None:
        """Poll until cancelled. An error of the pacing ends the watches, not the polling."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._subscriptions.accept())
            for work in self._beside:
                tasks.create_task(work())
            await self._dispatcher.run(self._poll)

    async def _poll(self, job: Job, turn: Turn) -> None:
        job.wake()
        job.attempts += 1
        sent = self._loop.time()
        if job.webhook is not None:
            job.webhook.sent_at = sent
        with turn:
            route = job.track.route or self._route
            reply = await turn.send(families.poll_call(route, job.request_id))
            now = self._loop.time()
            answer = turn.settle(self._read(job, reply, now), now)
        delay: float | None = None
        if self._subscriptions.is_wanted(job):
            delay = await self._act(job, answer, reply, now)
        if self._subscriptions.is_wanted(job):
            # Over for the others, and somebody has joined while that was written down.
            delay = 0.0 if delay is None else delay
            self._dispatcher.put(job, now + delay, now)
            self._subscriptions.polled(job)
        else:
            delay = None
        if self._on_poll is not None:
            report = _report(job, answer, reply, now=now, duration=now - sent, delay=delay)
            self._on_poll(report)

    # --- receive ----------------------------------------------------------------------------

    def _read(self, job: Job, reply: Reply | Problem, now: float) -> Answer | Exception:
        """Return what a reply says, or the bug that was met while reading it."""
        if isinstance(reply, Problem):
            self._note(job, reply, now)
            return reply
        if says_nothing_new(job.track, reply, now):
            return UNCHANGED
        try:
            route = job.track.route or self._route
            answer = families.read(route, reply, request_id=job.request_id, wall_now=time.time())
        except Exception as bug:  # noqa: BLE001 - whatever it is, it is the end of one id
            return bug
        if isinstance(answer, VideoTask) and self._is_of_another(job, answer):
            answer = _of_another(answer, reply)
        if isinstance(answer, Problem):
            self._note(job, answer, now)
        else:
            self._recovered(now)
        return answer

    def _is_of_another(self, job: Job, task: VideoTask) -> bool:
        """Whether a reply names another id that is watched here.

        An id of another form is the service's own business: it is the answer to this request.
        """
        return (
            task.id != job.request_id
            and task.id in self._subscriptions
            and not is_form_of(task.id, job.request_id)
        )

    def _note(self, job: Job, problem: Problem, now: float) -> None:
        """Keep a fault for who asks later why nothing came."""
        job.trouble = kept_once(problem.message[:_TROUBLE_CHARS])  # in an outage all have the same
        _log.debug("no state of %s: %r", job.request_id, job.trouble)
        if (lasted := self._outage.failed(problem.kind, now)) is not None:
            _log.warning(
                "no poll has brought a state for %.0f s; polling goes on, the last problem is %r",
                lasted,
                job.trouble,
            )

    def _recovered(self, now: float) -> None:
        if self._outage.since is not None and (lasted := self._outage.ended(now)):
            _log.info("polls bring states again, after %.0f s", lasted)

    # --- judge ------------------------------------------------------------------------------

    async def _act(
        self, job: Job, answer: Answer | Exception, reply: Reply | Problem, now: float
    ) -> float | None:
        """Act on a poll; return the seconds until the next one, or None after the end."""
        # An earlier process may have had a reply, as the journal has it.
        self._contact.had_reply |= job.track.is_known
        if (fatal := self._contact.heard(answer, now)) is not None:
            self._subscriptions.fail(fatal)
            return None
        watchers, views = job.watchers, () if answer is UNCHANGED else job.views()
        context = job.context(now, time.time(), random.random())
        try:
            ruling = judge(
                job.track,
                views,
                _sound(answer),
                reply=reply if isinstance(reply, Reply) else None,
                pacing=self._pacing,
                context=context,
            )
            job.track = ruling.track
            if ruling.views is views and ruling.fatal is None:
                # Nothing to write down, and nothing to deliver.
                return self._delay(job, answer, ruling, now)
            changes = ruling.changes()
            is_written = await self._write_down(changes, ends_task=ruling.ends_task)
        except Exception as bug:  # noqa: BLE001 - whatever it is, it is the end of one id
            _log.exception("internal error at one id, please report it; others go on")
            ruling = judge_bug(job.track, views or job.views(), bug, context)
            changes, is_written = ruling.changes(), True
        if ruling.fatal is not None:
            self._fail(ruling.fatal)
            return None
        if not is_written:
            job.reread()
            return _RECORD_AGAIN
        self._announce(job, changes)
        self._deliver(job, watchers, ruling)
        return self._delay(job, answer, ruling, now)

    def _delay(
        self, job: Job, answer: Answer | Exception, ruling: Ruling, now: float
    ) -> float | None:
        """Return the seconds until the next poll, longer where a webhook is awaited."""
        self._note_stall(job, now)
        delay, webhook = ruling.delay, job.webhook
        if delay is None or webhook is None or isinstance(answer, Problem) or job.says_it_ended():
            return delay
        return spared(delay, webhook.sent_at - webhook.hinted_at)

    def _fail(self, fatal: BaseException) -> None:
        if not isinstance(fatal, Veo3Error):
            _log.error("the pacing raised; a new watch begins anew", exc_info=fatal)
        self._subscriptions.fail(fatal)

    # --- write down, deliver ----------------------------------------------------------------

    async def _write_down(self, changes: Sequence[Transition], *, ends_task: bool) -> bool:
        """Write changes into the journal; return whether they may be delivered.

        A final transition that could not be written is withheld: it is seen and tried again.
        """
        if self._journal is None or not changes:
            return True
        self._dispatcher.pump()  # others need not wait for the disk
        try:
            for change in changes:
                await self._journal.record(change, ends_task=ends_task)
        except JournalError as error:
            if not self._journal_failed:
                _log.error("journal unavailable, final transitions are withheld: %s", error)
            self._journal_failed = True
            return not any(change.final for change in changes)
        self._journal_failed = False
        return True

    def _announce(self, job: Job, changes: Sequence[Transition]) -> None:
        """Say each change once, whoever watches it."""
        for change in changes:
            if change.final:
                self.ends[change.phase] += 1
            _log.info(
                "%s is %s%s",
                change.request_id,
                change.phase,
                f": {change.error}" if change.error else "",
                extra={"request_id": change.request_id},
            )
            if self._on_change is not None:
                self._on_change(job.labelled(change))

    def _note_stall(self, job: Job, now: float) -> None:
        """Log once of a task that nothing has changed for half an hour; it goes on."""
        state = job.state()
        since = state.unchanged_since
        if since is None or now - since < _STALL_SECONDS:
            job.is_stall_logged = False
        elif not job.is_stall_logged:
            job.is_stall_logged = True
            _log.warning(
                "%s has been %r for %.0f min without a change; polling goes on",
                job.request_id,
                state.status,
                (now - since) / 60,
                extra={"request_id": job.request_id},
            )

    def _deliver(self, job: Job, watchers: Sequence[Mailbox], ruling: Ruling) -> None:
        for mailbox, view in zip(watchers, ruling.views, strict=True):
            mailbox.remember(job.request_id, view.state)
            if view.change is not None:
                self._subscriptions.deliver(mailbox, view.change)
        if ruling.delay is not None:
            for mailbox in job.watchers:
                if mailbox not in watchers:  # joined while it was written down
                    self._subscriptions.catch_up(job, mailbox, ruling.views[0].state)


def _of_another(task: VideoTask, reply: Reply) -> Problem:
    """Close a connection whose reply is of another task: it may answer the request before."""
    if reply.close is not None:
        reply.close()
    return Problem(
        kind=Kind.UNEXPECTED,
        message=f"the reply is of another task, {task.id[:64]!r}; check caches and proxies",
        http_status=reply.status,
        from_api=True,
    )


def _sound(answer: Answer | Exception) -> Answer:
    if isinstance(answer, Exception):
        raise answer
    return answer


def _report(
    job: Job,
    answer: Answer | Exception,
    reply: Reply | Problem,
    *,
    now: float,
    duration: float,
    delay: float | None,
) -> PollReport:
    problem = answer if isinstance(answer, Problem) else None
    return PollReport(
        request_id=job.request_id,
        attempt=job.attempts,
        status=reply.status if isinstance(reply, Reply) else reply.http_status,
        err_code=None if problem is None else problem.err_code,
        duration=duration,
        error=None
        if problem is None
        else problem.error(job.request_id, attempts=job.attempts, elapsed=now - job.added),
        next_poll_in=delay,
    )
