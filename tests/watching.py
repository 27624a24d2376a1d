"""Feeds replies to the state machine, and holds what must always hold."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import wire

from veo3_async._lifecycle.phases import NEW, State, Until, observe
from veo3_async._models import FINAL, Phase, Transition, VideoTask
from veo3_async._protocol.families.record import task_of

ID: Final = wire.ID
PLAIN: Final = "https://file.302.ai/plain.mp4"
UPSAMPLED: Final = "https://file.302.ai/upsampled.mp4"
START: Final = 1000.0
EPOCH: Final = 1_767_600_000_000
UNTILS: Final[tuple[Until, ...]] = ("best", "video")
UPSAMPLE: Final = {"enable_upsample": True}
NO_UPSAMPLE: Final = {"enable_upsample": False}
WITH_PLAIN: Final[dict[str, Any]] = {"video_url": PLAIN, "req": UPSAMPLE}


def sample(name: str, **changes: Any) -> VideoTask:
    """Return what a sample says, with some of its fields replaced."""
    return msgspec.structs.replace(wire.task_of(wire.sample(name)), **changes)


def says(status: str, at: int | None = None, **fields: Any) -> VideoTask:
    """Make a reply with a status and a time, and nothing else but what is given.

    :param at: Milliseconds after some moment.
    """
    time = None if at is None else EPOCH + at
    return task_of({"id": ID, "status": status, "status_update_time": time, **fields})


class Watch:
    """Feeds replies to the machine, one each 10 s or as given, and checks what must always hold."""

    def __init__(self, until: Until = "best") -> None:
        self.until: Until = until
        self.state = NEW
        self.now = START
        self.transitions: list[Transition] = []

    @property
    def phases(self) -> list[Phase]:
        """All phases so far."""
        return [transition.phase for transition in self.transitions]

    @property
    def last(self) -> Transition:
        """The last transition."""
        return self.transitions[-1]

    def see(self, *replies: VideoTask, step: float = 10.0) -> list[Phase]:
        """Observe replies; return the phases of all transitions so far."""
        for task in replies:
            before = self.state
            self.state, transition = observe(
                before, task, self.now, request_id=ID, until=self.until, wall_now=self.now
            )
            if before.final:
                assert (self.state, transition) == (before, None), "something after the final"
            if transition is not None:
                self._check(transition, before)
                self.transitions.append(transition)
            self.now += step
        return self.phases

    def _check(self, transition: Transition, before: State) -> None:
        assert transition.previous == before.phase
        assert transition.phase == self.state.phase
        assert transition.final == (transition.phase in FINAL) == self.state.final
        assert transition.request_id == ID
        assert transition.observed_at == self.now
        assert (transition.error is not None) == (transition.phase in {Phase.FAILED, Phase.LOST})
        assert transition.phase in {transition.task.phase, Phase.LOST}
        assert transition.phase is not Phase.COMPLETED or transition.task.failure_reason is None


def seen(*replies: VideoTask, until: Until = "best") -> list[Phase]:
    """Return the phases of the transitions that these replies make."""
    return Watch(until).see(*replies)
