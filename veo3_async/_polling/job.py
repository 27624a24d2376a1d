"""One id that is being polled."""

from __future__ import annotations

import functools
import math
from typing import Any

import msgspec
from msgspec.structs import replace

from veo3_async._lifecycle.judge import Context, Track, View
from veo3_async._lifecycle.phases import NEW, State
from veo3_async._models import Transition
from veo3_async._polling.agenda import Entry
from veo3_async._polling.at_rest import UNSEEN, packed, unpacked
from veo3_async._polling.mailbox import Mailbox
from veo3_async._protocol.families import Route

__all__ = ["Job", "Webhook", "track_at"]


class Webhook(msgspec.Struct, gc=False):
    """What is remembered of a job that a webhook will report the end of."""

    hinted_at: float = -math.inf
    """When it came last, seconds of the loop's clock."""
    sent_at: float = -math.inf
    """When the last poll was sent, the same clock."""


class Job(Entry, kw_only=True):
    """One id that is being polled, whoever watches it.

    It rests until its first poll; where there are many, between its polls too.
    """

    request_id: str
    watchers: tuple[Mailbox, ...]
    added: float
    """When it was first watched, seconds of the loop's clock."""
    track: Track
    """While it rests `track_at` where it is polled, which many share."""
    attempts: int = 0
    trouble: str = ""
    """What the last fault was; empty while there is none."""
    metadata: Any = None
    """What the program attached to the task, or None."""
    is_stall_logged: bool = False
    """Whether it was logged that nothing changes."""
    webhook: Webhook | None = None
    """What will report its end, so that few polls are enough; None: nothing will."""
    row: bytes | None = UNSEEN
    """What is known of it while it rests; None while it is awake."""

    def rest(self) -> None:
        """Keep what is known of it in few bytes, if it has one watcher, until `wake`."""
        if self.row is not None or len(self.watchers) > 1:
            return
        (mailbox,) = self.watchers
        state = mailbox.states[self.request_id]
        self.row = packed(self.track, state)
        if self.row is not None:
            self.track = track_at(self.track.route)
            mailbox.remember(self.request_id, NEW)

    def wake(self) -> None:
        """Have what is known of it where it is looked at."""
        if self.row is None:
            return
        if not self.row:
            self.track = replace(self.track, request_id=self.request_id)
            self.row = None
            return
        self.track, state = unpacked(self.row, self.request_id, self.track.route)
        for mailbox in self.watchers:
            mailbox.remember(self.request_id, state)
        self.row = None

    def reread(self) -> None:
        """Let the next reply be read, even if it says what the last one said."""
        self.track = replace(self.track, fingerprint=None)

    def labelled(self, change: Transition) -> Transition:
        """Return a transition with the metadata of its task."""
        if self.metadata is None:
            return change
        return replace(change, metadata=self.metadata)

    def says_it_ended(self) -> bool:
        """Return whether the service says so, and the video may be a poll or two behind the word.

        Its webhook came then, and few polls are not enough.
        """
        states = (box.states.get(self.request_id, NEW) for box in self.watchers)
        return any(state.ended_since is not None for state in states)

    def state(self) -> State:
        """Return what its first watcher remembers of it."""
        return self.watchers[0].states.get(self.request_id, NEW) if self.watchers else NEW

    def views(self) -> list[View]:
        """Return each watcher's side of it, in their order."""
        return [View(box.states[self.request_id], box.until) for box in self.watchers]

    def context(self, now: float, wall_now: float, rand: float) -> Context:
        """Return what a judgement needs beside the reply."""
        return Context(now, wall_now, rand, self.attempts, now - self.added)


@functools.lru_cache(maxsize=256)
def track_at(route: Route | None, *, is_known: bool = False) -> Track:
    """Return what is known of any id that is polled there."""
    return Track("", route=route, is_known=is_known)
