"""Who watches what: ids join and leave, watches expire, final transitions are acknowledged."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from veo3_async._errors import JournalError, StillPending, Veo3Error
from veo3_async._lifecycle.phases import NEW, State, observe, remembered
from veo3_async._lifecycle.places import polled_at
from veo3_async._metadata import Origin
from veo3_async._models import Transition
from veo3_async._pacing.policies import Eta, Pacing
from veo3_async._polling.dispatcher import Dispatcher
from veo3_async._polling.job import Job, Webhook, track_at
from veo3_async._polling.mailbox import Mailbox
from veo3_async._polling.origins import Origins
from veo3_async._polling.resuming import LeftOver, in_order
from veo3_async._polling.webhooks import HINT_SECONDS

if TYPE_CHECKING:
    from veo3_async._journal.journal import Journal
    from veo3_async._journal.rows import Watched

__all__ = ["Subscriptions"]

_BATCH: Final = 500
"""Ids that are added or finished before the event loop gets its turn: a millisecond."""
_MANY: Final = 10_000
"""Ids from which on each rests between its polls: memory is worth the time then."""
_WRITTEN: Final = 2000
"""Ids that are written into the journal at once: as many as a commit is worth."""


class _Newcomers(NamedTuple):
    """Ids of a mailbox that are to be in the journal before they are polled."""

    mailbox: Mailbox
    request_ids: Sequence[str]
    tasks: Sequence[Watched] | None = None
    """What the journal has of them; None where it has to be written."""


class Subscriptions:
    """The ids that are polled, and the mailboxes of those who watch them.

    :param pacing: Says what is left for an id.
    :param origins: Knows where ids are polled.
    :param journal: What ids are written to before they are polled, or None.
    """

    def __init__(
        self,
        dispatcher: Dispatcher[Job],
        pacing: Pacing,
        origins: Origins,
        journal: Journal | None,
    ) -> None:
        self._dispatcher = dispatcher
        self._pacing = pacing
        self._origins = origins
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._jobs: dict[str, Job] = {}
        self._mailboxes: weakref.WeakSet[Mailbox] = weakref.WeakSet()
        self._newcomers: collections.deque[_Newcomers] = collections.deque()
        self._has_newcomers = asyncio.Event()
        self._failure: BaseException | None = None
        self.transitions: int = 0
        """Transitions delivered so far."""

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._jobs

    def __repr__(self) -> str:
        return f"<Subscriptions: {len(self._jobs)} ids of {len(self._mailboxes)} watches>"

    @property
    def oldest(self) -> float | None:
        """When the longest-watched id was added, seconds of the loop's clock; None without ids."""
        job = next(iter(self._jobs.values()), None)
        return None if job is None else job.added

    # --- what watches call ------------------------------------------------------------------

    def register(self, mailbox: Mailbox, timeout: float | None) -> None:
        """Take charge of a mailbox; its ids come with `subscribe`.

        :param timeout: Seconds after which what is unfinished expires, or None.
        """
        self._mailboxes.add(mailbox)
        if self._failure is not None:
            mailbox.fail(self._failure)
        elif timeout is not None:
            mailbox.deadline = self._loop.call_later(timeout, self._expire, mailbox, timeout)

    def subscribe(self, mailbox: Mailbox, request_ids: Iterable[str]) -> None:
        """Begin to poll for a mailbox; ids that are polled already share their polls.

        With a journal the ids are written down first; those that cannot be finish with the error.
        """
        new, due = mailbox.open_for(request_ids), self._loop.time()
        first = self._origins.begin(new)
        written = new if self._journal is None else [i for i in new if i in first]
        self._join(mailbox, ((i, self._origins.known(i), due) for i in written))
        if self._journal is not None and len(written) < len(new):
            self._newcomers.append(_Newcomers(mailbox, [i for i in new if i not in first]))
            self._has_newcomers.set()

    async def resume(self, mailbox: Mailbox, left: LeftOver) -> None:
        """Go on for a mailbox with what the journal has, which needs not be written again."""
        request_ids = [task.request_id for task in left.unfinished]
        for start in range(0, len(request_ids), _BATCH):
            mailbox.open_for(request_ids[start : start + _BATCH])
            await asyncio.sleep(0)
        # After those, and before they are polled: what has ended meanwhile is among both.
        for start in range(0, len(left.ends), _BATCH):
            for end in left.ends[start : start + _BATCH]:
                mailbox.open_for([end.request_id])
                mailbox.post(end)
            await asyncio.sleep(0)
        self._newcomers.append(_Newcomers(mailbox, request_ids, left.unfinished))
        self._has_newcomers.set()

    def unsubscribe(self, mailbox: Mailbox, request_ids: Iterable[str]) -> None:
        """Drop ids of a mailbox, and end the polling for those that no other one wants."""
        for request_id in request_ids:
            mailbox.drop(request_id)
            if (job := self._jobs.get(request_id)) is not None:
                self._leave(job, mailbox)

    def acknowledge(self, transition: Transition) -> None:
        """Note that a final transition was dealt with, unless somebody still watches the task."""
        if self._journal is not None and transition.request_id not in self._jobs:
            self._journal.delivered(transition, at=time.time())
            self._origins.forget(transition.request_id)

    def abandon(self, mailbox: Mailbox) -> None:
        """Drop all ids of a mailbox; may be called from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and polls nothing
            self._loop.call_soon_threadsafe(self._abandon, mailbox)

    def eta(self, mailbox: Mailbox, request_id: str) -> Eta | None:
        """Return what is left for an id that the mailbox waits for, or None where unknown."""
        job = self._awake(request_id)
        if job is None or job.track.clock.last is None or request_id not in mailbox.states:
            return None
        return self._pacing.eta(job.track.clock.progress(self._loop.time()))

    def poke(self, request_ids: Iterable[str]) -> None:
        """Make ids due now; those that nobody watches, or that are being asked for, are left."""
        now = self._loop.time()
        for request_id in request_ids:
            if (job := self._jobs.get(request_id)) is not None and job.due is not None:
                self._dispatcher.put(job, now, now)
        self._dispatcher.pump()

    def hint(self, request_id: str) -> None:
        """Make an id due that a webhook has come for: now, or a second after its last poll.

        A poll that is under way may be older than the webhook, and another one follows it.
        """
        if (job := self._jobs.get(request_id)) is None:
            return
        now = due = self._loop.time()
        if job.webhook is not None:
            job.webhook.hinted_at = now
            due = max(now, job.webhook.sent_at + HINT_SECONDS)
        if job.due is not None:
            self._dispatcher.put(job, due, now)
            self._dispatcher.pump()

    # --- what the poller calls --------------------------------------------------------------

    async def accept(self) -> NoReturn:
        """Write new ids into the journal, until cancelled; then they are polled."""
        while True:
            await self._has_newcomers.wait()
            self._has_newcomers.clear()
            while self._newcomers:
                await self._accept(self._newcomers.popleft())

    def is_wanted(self, job: Job) -> bool:
        """Whether somebody still watches a job; it may be dropped at any await."""
        return self._jobs.get(job.request_id) is job

    def polled(self, job: Job) -> None:
        """Let a job rest until its next poll, where there are many of them."""
        if len(self._jobs) > _MANY:
            job.rest()

    def deliver(self, mailbox: Mailbox, transition: Transition) -> bool:
        """Give a mailbox a transition; with its final one an id is done.

        Returns whether the mailbox still wanted it.
        """
        job = self._jobs.get(transition.request_id)
        if job is not None:
            transition = job.labelled(transition)
        if not mailbox.post(transition):
            return False
        self.transitions += 1
        if transition.final and job is not None:
            self._leave(job, mailbox)
        return True

    def catch_up(self, job: Job, mailbox: Mailbox, known: State) -> None:
        """Give a mailbox that has joined late the state that the others know."""
        if known.phase is None:
            return
        state, change = observe(
            NEW,
            remembered(known, job.request_id),
            self._loop.time(),
            request_id=job.request_id,
            until=mailbox.until,
            wall_now=time.time(),
        )
        mailbox.remember(job.request_id, state)
        if change is not None:
            self.deliver(mailbox, change)

    def fail(self, error: BaseException) -> None:
        """End every watch with an error, and poll nothing more."""
        self._jobs.clear()
        self._dispatcher.clear()
        for mailbox in tuple(self._mailboxes):
            mailbox.fail(error)

    def stop(self, reason: BaseException) -> None:
        """End every watch with an error, those that come too late included."""
        self._failure = reason
        self.fail(reason)

    # --- joining ----------------------------------------------------------------------------

    async def _accept(self, newcomers: _Newcomers) -> None:
        mailbox, request_ids, tasks = newcomers
        if tasks is None:
            tasks = []
            for start in range(0, len(request_ids), _WRITTEN):
                tasks += await self._written(mailbox, request_ids[start : start + _WRITTEN])
        rate = self._dispatcher.throttle.max_rate
        tasks, waits = await in_order(tasks, self._pacing, mailbox.route, rate)
        now, due = self._loop.time(), zip(tasks, waits, strict=True)
        given = {request_id: request_id for request_id in request_ids}  # else each is kept twice
        self._join(mailbox, ((given[t.request_id], t.origin, now + wait) for t, wait in due))

    async def _written(self, mailbox: Mailbox, request_ids: Sequence[str]) -> Sequence[Watched]:
        """Write new ids down, and return what is known of each; without a journal they finish."""
        try:
            return await self._origins.accept(request_ids, mailbox.route)
        except JournalError as error:
            for request_id in request_ids:
                if request_id in mailbox.states:
                    own = JournalError(error.message, request_id=request_id)
                    self._finish(mailbox, request_id, own)
        return ()

    def _join(self, mailbox: Mailbox, newcomers: Iterator[tuple[str, Origin, float]]) -> None:
        """Poll for a mailbox, too; newcomers are ids with what is known, and when each is due."""
        now = self._loop.time()
        watchers = (mailbox,)  # one for all of them: memory
        batch = list(itertools.islice(newcomers, _BATCH))
        for request_id, origin, due in batch:
            if request_id not in mailbox.states:
                continue  # discarded while its batch waited
            job = self._jobs.get(request_id)
            if job is None:
                route = polled_at(request_id, origin, mailbox.route)
                job = Job(
                    request_id=request_id,
                    watchers=watchers,
                    added=now,
                    track=track_at(route, is_known=origin.was_seen),
                    metadata=origin.metadata,
                    webhook=Webhook() if self._origins.has_webhook(request_id) else None,
                )
                self._jobs[request_id] = job
                self._dispatcher.put(job, due, now)
            elif mailbox not in job.watchers:
                self._share(job, mailbox)
        self._dispatcher.pump()
        if len(batch) == _BATCH:
            self._loop.call_soon(self._join, mailbox, newcomers)

    def _share(self, job: Job, mailbox: Mailbox) -> None:
        """Let a mailbox share the polls of a job, and bring it up to date at once."""
        job.wake()
        known = job.watchers[0].states[job.request_id]
        job.watchers += (mailbox,)
        job.reread()  # what is old to the others may be new to this one
        self.catch_up(job, mailbox, known)

    def _leave(self, job: Job, mailbox: Mailbox) -> None:
        job.watchers = tuple(w for w in job.watchers if w is not mailbox)
        if not job.watchers and self.is_wanted(job):
            del self._jobs[job.request_id]
            self._dispatcher.drop(job)

    def _awake(self, request_id: str) -> Job | None:
        job = self._jobs.get(request_id)
        if job is not None:
            job.wake()
        return job

    # --- ends -------------------------------------------------------------------------------

    def _abandon(self, mailbox: Mailbox) -> None:
        self.unsubscribe(mailbox, tuple(mailbox.states))
        mailbox.close()

    def _expire(self, mailbox: Mailbox, timeout: float) -> None:
        for request_id in list(itertools.islice(mailbox.states, _BATCH)):
            job = self._awake(request_id)
            error = StillPending(
                _unfinished(job, timeout),
                request_id=request_id,
                attempts=0 if job is None else job.attempts,
                elapsed=timeout,
                task=remembered(mailbox.states[request_id], request_id),
            )
            self._finish(mailbox, request_id, error)
        if mailbox.states:
            self._loop.call_soon(self._expire, mailbox, timeout)
        else:
            mailbox.finish()

    def _finish(self, mailbox: Mailbox, request_id: str, error: Veo3Error) -> None:
        """Finish an id of one mailbox, while its task goes on."""
        self.deliver(mailbox, mailbox.end(request_id, error, wall_now=time.time()))


def _unfinished(job: Job | None, timeout: float) -> str:
    faults = 0 if job is None else job.track.faults.faults
    if job is None or not faults:
        return f"not finished after {timeout:g} s; the task goes on, watch the id again"
    return (
        f"not finished after {timeout:g} s, and the last {faults} polls brought no state: "
        f"{job.trouble}; watch the id again"
    )
