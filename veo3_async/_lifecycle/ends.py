"""What is an end of a task, and what only of watching it."""

from __future__ import annotations

from veo3_async._errors import CompletedWithoutVideo, InvalidRequest, TaskFailed, TaskNotFound
from veo3_async._models import Phase, Transition

__all__ = ["is_end"]


def is_end(transition: Transition) -> bool:
    """Whether a task has ended by the service's own word.

    What ends a watch only (the caller's timeout, a standstill, a full disk, a gateway or a portal
    that is not the API) leaves the task pending: somebody has paid for it.
    """
    match transition.error:
        case None:
            return transition.final and transition.phase is not Phase.LOST
        case TaskFailed() | CompletedWithoutVideo():
            return transition.final
        case TaskNotFound(err_code=code) | InvalidRequest(err_code=code):
            return transition.final and code is not None  # the API's, not just anybody's 404
    return False
