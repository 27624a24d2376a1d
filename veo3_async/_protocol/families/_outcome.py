"""What a reply to a poll comes to."""

from __future__ import annotations

from veo3_async._models import VideoTask
from veo3_async._protocol.errors import SUCCESS, Problem, problem_of
from veo3_async._protocol.http import Reply

__all__ = ["task_or_problem"]


def task_or_problem(
    task: VideoTask | None, reply: Reply, content: object, *, wall_now: float
) -> VideoTask | Problem:
    """Return the task that a reply tells of, or what is wrong with the reply.

    A video that is shown exists, whatever the HTTP status; all else is believed of a success only.

    :param task: What the family reads in it, None where it is no state of a task.
    """
    if task is not None and (task.best_url is not None or reply.status in SUCCESS):
        return task
    return problem_of(reply, content, wall_now=wall_now)
