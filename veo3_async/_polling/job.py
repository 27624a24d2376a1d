"""One id that is being polled."""

from __future__ import annotations

import math
from typing import Any

from msgspec.structs import replace

from veo3_async._lifecycle.judge import Context, Track, View
from veo3_async._lifecycle.phases import NEW, State
from veo3_async._models import Transition
from veo3_async._polling.agenda import Entry
from veo3_async._polling.mailbox import Mailbox

__all__ = ["Job"]


class Job(Entry, kw_only=True):
    """One id that is being polled, whoever watches it."""

    request_id: str
    watchers: tuple[Mailbox, ...]
    added: float
    """When it was first watched, seconds of the loop's clock."""
    track: Track
    attempts: int = 0
    trouble: str = ""
    """What the last fault was; empty while there is none."""
    fingerprint: int | None = None
    """Hash of the last reply's bytes: the same bytes bring nothing new."""
    metadata: Any = None
    """What the program attached to the task, or None."""
    is_stall_logged: bool = False
    """Whether it was logged that nothing changes."""
    has_webhook: bool = False
    """Whether a webhook will report its end, so that few polls are enough."""
    hinted_at: float = -math.inf
    """When its webhook came last, seconds of the loop's clock."""
    sent_at: float = -math.inf
    """When the last poll of one with a webhook was sent, the same clock."""

    def labelled(self, change: Transition) -> Transition:
        """Return a transition with the metadata of its task."""
        if self.metadata is None:
            return change
        return replace(change, metadata=self.metadata)

    def waits_for_webhook(self) -> bool:
        """Return whether few polls are enough after one that brought a state.

        They are not once the service says that the task has ended: its webhook came, and the video
        may be a poll or two behind the word.
        """
        states = (box.states.get(self.request_id, NEW) for box in self.watchers)
        return self.has_webhook and all(state.ended_since is None for state in states)

    def state(self) -> State:
        """Return what its first watcher remembers of it."""
        return self.watchers[0].states.get(self.request_id, NEW) if self.watchers else NEW

    def views(self) -> list[View]:
        """Return each watcher's side of it, in their order."""
        return [View(box.states[self.request_id], box.until) for box in self.watchers]

    def context(self, now: float, wall_now: float, rand: float) -> Context:
        """Return what a judgement needs beside the reply."""
        return Context(now, wall_now, rand, self.attempts, now - self.added)
