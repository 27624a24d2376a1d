"""One reply, or the content of a journal, as people read it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from veo3_async import Pending, VideoTask
from veo3_async.cli._output import plain
from veo3_async.live._table import clock

__all__ = ["show_pending", "show_rows", "show_task", "show_tasks"]

_PROMPT_WIDTH: Final = 60


def show_task(task: VideoTask) -> None:
    """Print what a reply said, in as many lines as it takes."""
    console = Console(highlight=False, markup=False, emoji=False)
    for name, value in _lines(task):
        if value:
            console.print(f"{name:>12}  {plain(value)}", soft_wrap=True)


def show_pending(tasks: Sequence[Pending]) -> None:
    """Print a line a task."""
    now = time.time()
    show_rows(("task", "phase", "for", "prompt"), (_pending_cells(task, now) for task in tasks))


def show_tasks(tasks: Sequence[Pending]) -> None:
    """Print a line a task, with what came of it."""
    show_rows(("task", "phase", "since", "video, reason or prompt"), map(_task_cells, tasks))


def show_rows(head: Sequence[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table, of which the last column is wrapped where the terminal is too narrow."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column in head:
        table.add_column(column, no_wrap=column != head[-1])
    for cells in rows:
        table.add_row(*map(plain, cells))
    Console(highlight=False, markup=False, emoji=False).print(table)


def _pending_cells(task: Pending, now: float) -> Iterable[str]:
    yield f"key {task.key}" if task.request_id is None else task.request_id
    yield "in doubt" if task.phase is None else task.phase.value
    yield clock(max(0.0, now - task.since))
    yield _shortened(plain(task.prompt or ""))


def _task_cells(task: Pending) -> Iterable[str]:
    yield f"key {task.key}" if task.request_id is None else task.request_id
    yield "in doubt" if task.phase is None else task.phase.value
    yield time.strftime("%Y-%m-%d %H:%M", time.localtime(task.since))
    end = task.final
    if end is not None and end.error is not None:
        yield end.error.message
    else:
        yield (end and end.task.best_url) or _shortened(plain(task.prompt or ""))


def _lines(task: VideoTask) -> Iterable[tuple[str, str | None]]:
    yield "task", task.id
    yield "status", task.status
    yield "running", {True: "yes", False: "no", None: None}[task.running]
    if task.retry_count:
        yield "retries", f"{task.retry_count} of {task.max_retries or '?'}"
    if task.created_at is not None:
        ended = time.time() if task.completed_at is None else task.completed_at / 1000
        yield "elapsed", clock(max(0.0, ended - task.created_at / 1000))
    yield "prompt", task.req.prompt if task.req is not None else None
    yield "video", task.video_url
    yield "upsampled", task.upsample_video_url
    yield "error", task.failure_reason


def _shortened(text: str) -> str:
    return text if len(text) <= _PROMPT_WIDTH else text[: _PROMPT_WIDTH - 1] + "…"
