"""What the tests of the journal write into it."""

from __future__ import annotations

from typing import Any, Final

from veo3_async import Phase, Transition, VideoTask

NOON: Final = 1_750_000_000.0
DAY: Final = 86_400.0


def change(
    request_id: str, phase: Phase = Phase.COMPLETED, at: float = NOON, **fields: Any
) -> Transition:
    task = VideoTask(id=request_id, video_url="https://file.302.ai/storm.mp4")
    return Transition(
        **{
            "request_id": request_id,
            "phase": phase,
            "previous": None,
            "status": phase.value,
            "task": task,
            "observed_at": at,
            "final": phase in {Phase.COMPLETED, Phase.FAILED, Phase.LOST},
        }
        | fields
    )
