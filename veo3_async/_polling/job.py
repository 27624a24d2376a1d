"""What the poller remembers of one id, and how a pacing is asked about it."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Final

from veo3_async._errors import UnexpectedReply
from veo3_async._lifecycle.phase_clock import phase_age
from veo3_async._lifecycle.phases import State, remembered
from veo3_async._lifecycle.retries import NO_FAULTS, Streak
from veo3_async._models import Phase, Transition
from veo3_async._pacing.policies import Pacing, Progress
from veo3_async._polling.agenda import Entry
from veo3_async._polling.mailbox import Mailbox
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.http import Reply

__all__ = ["SHARED", "Job", "SharedError", "ask_pacing", "bug_error", "witness"]


class Job(Entry, kw_only=True):
    """One id that is being polled, whoever watches it."""

    request_id: str
    watchers: tuple[Mailbox, ...]
    added: float
    attempts: int = 0
    streak: Streak = NO_FAULTS
    trouble: str = ""
    """What the last of the faults in ``streak`` was."""
    fingerprint: int | None = None
    """Hash of the last reply's bytes: the same bytes say nothing new."""
    last: Progress | None = None
    """How far it was at the last reply; None before the first."""
    began: float = 0.0
    """When its phase began, seconds of the loop's clock."""
    entered_at: int | None = None
    """The same by the server's clock, milliseconds since the epoch, where it told."""

    def follow(self, state: State, answer: Reply | Problem, pacing: Pacing, now: float) -> None:
        """Keep up with the phase, and let the pacing learn from one that ended."""
        phase = state.phase or Phase.UNKNOWN
        if self.last is None or self.last.phase is not phase:
            if self.last is not None:
                pacing.phase_ended(self.last, self._lasted(state, now), phase)
            self.began = now - phase_age(state, answer)
            self.entered_at = state.entered_at
        self.last = self.progress(phase, now)

    def progress(self, phase: Phase, now: float) -> Progress:
        """Return how far it is in a phase; a phase other than the last one begins now."""
        age = max(0.0, now - self.began)
        if self.last is None or self.last.phase is not phase:
            return Progress(phase=phase, age=age)
        return Progress(phase=phase, age=age, previous_age=self.last.age, polls=self.last.polls + 1)

    def _lasted(self, state: State, now: float) -> float:
        if state.entered_at is None or self.entered_at is None:
            return max(0.0, now - self.began)
        return max(0.0, (state.entered_at - self.entered_at) / 1000)  # whenever we looked


class SharedError(Exception):
    """Raised where what serves all ids does not work; its cause says why.

    Any other error is the matter of one id.
    """


class _Shared:
    """Calls under it are calls of what serves all ids."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End; whatever went wrong is everybody's."""
        if isinstance(error, Exception):
            raise SharedError from error


SHARED: Final = _Shared()


def bug_error(
    bug: Exception, state: State, request_id: str, *, attempts: int, elapsed: float
) -> UnexpectedReply:
    """Return the error of an id of which something came that we could not deal with.

    :param attempts: Polls of it so far.
    :param elapsed: Seconds since it is watched.
    """
    return UnexpectedReply(
        f"what came could not be dealt with, which is a bug of ours: {bug!r}",
        request_id=request_id,
        attempts=attempts,
        elapsed=elapsed,
        task=remembered(state, request_id),
    )


def ask_pacing(pacing: Pacing, progress: Progress, rand: float) -> float:
    """Return when an id is to be asked for again, in seconds.

    :raises ValueError: The pacing said something that is no time to come.
    """
    delay = pacing.delay(progress, rand)
    if not 0 <= delay < math.inf:
        message = f"{pacing!r} said to ask again in {delay!r} seconds"
        raise ValueError(message)
    return delay


def witness(
    transition: Transition | None, answer: Reply | Problem, attempts: int, elapsed: float
) -> None:
    """Put into the error of a transition, if it has one, what is known of the poll that saw it."""
    if transition is None or (error := transition.error) is None:
        return
    error.http_status = answer.status if isinstance(answer, Reply) else answer.http_status
    error.attempts = attempts
    error.elapsed = elapsed
