"""What a reply to a poll comes to: the way of every family from bytes to a task or a problem."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from veo3_async._models import VideoTask
from veo3_async._protocol.errors import SUCCESS, Problem, problem_of
from veo3_async._protocol.families._wrappers import Merge, merged_with, unwrapped
from veo3_async._protocol.http import Reply
from veo3_async._protocol.parsing import json_of

__all__ = ["task_or_problem"]


def task_or_problem(
    reply: Reply,
    telling: Iterable[str],
    state: Callable[[Mapping[str, Any]], VideoTask | None],
    *,
    wall_now: float,
    merge: Merge = merged_with,
) -> VideoTask | Problem:
    """Return the task that a reply tells of, or what is wrong with the reply.

    A video that is shown exists, whatever the HTTP status; all else is believed of a success only.

    :param telling: Fields of which a state has at least one.
    :param state: What the family reads in an object, None where it is no state of a task.
    :param merge: Makes one of an envelope and its content.
    """
    content = json_of(reply.body)
    fields = unwrapped(content, telling, merge)
    task = None if fields is None else state(fields)
    if task is not None and (task.best_url is not None or reply.status in SUCCESS):
        return task
    return problem_of(reply, content, wall_now=wall_now)
