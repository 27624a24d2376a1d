"""Words that several families have."""

from __future__ import annotations

from typing import Final

from veo3_async._models import Phase

__all__ = ["ENDS_OF_GATEWAYS", "ENDS_OF_TASKS", "RUNNING_WORDS", "canonical"]

ENDS_OF_GATEWAYS: Final = frozenset(
    {"canceled", "cancelled", "expired", "timeout", "rejected", "blocked"}
)
"""Of gateways in between: an end where they are said for a minute."""

RUNNING_WORDS: Final = {
    "pending": Phase.QUEUED,
    "queued": Phase.QUEUED,
    "in_queue": Phase.QUEUED,
    "submitted": Phase.QUEUED,
    "created": Phase.QUEUED,
    "not_start": Phase.QUEUED,
    "waiting": Phase.QUEUED,
    "processing": Phase.GENERATING,
    "in_processing": Phase.GENERATING,
    "in_progress": Phase.GENERATING,
    "running": Phase.GENERATING,
}
"""What a task says that has not ended, beside the words of its family."""

ENDS_OF_TASKS: Final = dict.fromkeys(
    ("completed", "succeed", "succeeded", "success", "done", "finished"),
    Phase.GENERATED,  # and COMPLETED with its video
) | dict.fromkeys(("failed", "fail", "failure", "error"), Phase.FAILED)
"""What a task says that has ended, in the words of any maker; the record family has two of its
own."""


def canonical(word: str) -> str:
    """Return a word as it is compared: without case and blanks around it."""
    return word.strip().lower()
