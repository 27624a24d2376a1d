"""Waiting that outlasts a cancellation, and whether a cancellation is ours."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio

__all__ = ["ended", "is_cancelled"]


async def ended(task: asyncio.Future[Any]) -> None:
    """Wait for the end of a task, however often the waiting is cancelled; then be cancelled.

    A shielded scope alone withstands the cancellations of scopes, not those of ``task.cancel()``.
    What the task raises is not raised, and counts as seen.
    """
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as exc:
                cancelled = exc
    if not task.cancelled():
        task.exception()  # seen, so that the loop does not complain of it
    if cancelled is not None:
        raise cancelled


def is_cancelled() -> bool:
    """Whether somebody asked for the end of the present task.

    A `CancelledError` alone does not say so: futures of others can be cancelled, too.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
