"""What goes on, drawn for people (extra ``cli``): what the command line draws, for any program.

::

    async with Veo3Client() as veo:
        ends = await show(veo.watch(*request_ids))

On a terminal it is a live table, in a notebook a cell that changes, elsewhere a line a change.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final, Protocol

from anyio import to_thread
from rich.console import Console

from veo3_async._models import Transition
from veo3_async._pacing.policies import Eta
from veo3_async.live._board import Board
from veo3_async.live._frames import drawn_in_notebook, drawn_on_terminal, is_notebook
from veo3_async.live._table import change_line, final_lines

__all__ = ["Shown", "show"]


class Shown(Protocol):
    """What `show` needs of a watch; a `veo3_async.Watch` has it."""

    @property
    def request_ids(self) -> frozenset[str]:
        """The ids that are not final yet."""

    def __aiter__(self) -> AsyncIterator[Transition]:
        """Return the changes, until all are final."""

    def eta(self, request_id: str) -> Eta | None:
        """Return what is left; None where nothing is known."""


async def show(watch: Shown, *, console: Console | None = None) -> dict[str, Transition]:
    """Draw a watch until it ends, and return the final transition of each id, in their order.

    What it raises is what the watch raises. Of more tasks than the terminal has lines, those are
    drawn that changed last; what is left on the screen has a line a task.

    :param console: Where it is drawn; None takes stdout, or the cell of a notebook.
    """
    board = Board(sorted(watch.request_ids), now=time.time())
    in_notebook = console is None and is_notebook()
    console = Console(highlight=False, markup=False, emoji=False) if console is None else console
    ends: Final[dict[str, Transition]] = {}
    lines = not in_notebook and not console.is_terminal
    try:
        async with _drawn(watch, board, console, in_notebook=in_notebook, lines=lines):
            async for change in watch:
                if change.request_id not in board.rows:  # added meanwhile
                    board.add(change.request_id, now=time.time())
                board.take(change)
                if change.final:
                    ends[change.request_id] = change
                if lines:
                    eta = watch.eta(change.request_id)
                    row = board.rows[change.request_id]
                    await to_thread.run_sync(_print, console, change_line(row, eta))
    finally:
        if not lines and not in_notebook:
            for line in [*final_lines(board, time.time()), board.summary()]:
                console.print(line, soft_wrap=True)
    return ends


@contextlib.asynccontextmanager
async def _drawn(
    watch: Shown, board: Board, console: Console, *, in_notebook: bool, lines: bool
) -> AsyncIterator[None]:
    if lines:
        yield
    elif in_notebook:
        async with drawn_in_notebook(board, watch.eta):
            yield
    else:
        async with drawn_on_terminal(console, board, watch.eta):
            yield


def _print(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True)
