"""How a command shows what it follows: a live table for people, JSON lines for programs."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import time
from collections.abc import AsyncIterator
from typing import Final, Protocol

import anyio
from anyio import to_thread
from rich.console import Console

from veo3_async import Transition, Veo3Error
from veo3_async.cli._keyboard import no_echo
from veo3_async.cli._output import put, say
from veo3_async.live._board import Board
from veo3_async.live._frames import drawn_on_terminal
from veo3_async.live._table import EtaOf, change_line, final_lines

__all__ = ["FinalView", "JsonView", "PlainView", "TableView", "View", "view_for"]

_TROUBLE_SECONDS: Final = 5.0


class View(Protocol):
    """What a command needs in order to show how far it is."""

    def shown(self, board: Board, eta: EtaOf) -> contextlib.AbstractAsyncContextManager[None]:
        """Show the board as long as the context lasts."""

    async def changed(self, change: Transition) -> None:
        """Tell of a transition."""

    async def saved(self, request_id: str, outcome: pathlib.Path | Veo3Error) -> None:
        """Tell of a video that is on disk, or why it is not."""

    def ended(self, board: Board) -> None:
        """Show what it came to; not called on the event loop."""


class JsonView:
    """One JSON object a line on stdout; on stderr, once, that the service does not answer."""

    @contextlib.asynccontextmanager
    async def shown(self, board: Board, eta: EtaOf) -> AsyncIterator[None]:  # noqa: ARG002
        """Look now and then whether the service answers."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_tell_of_trouble, board)
            yield
            tasks.cancel_scope.cancel()

    async def changed(self, change: Transition) -> None:
        """Write the transition, field by field, and ``url``, the best video so far."""
        await put(change)

    async def saved(self, request_id: str, outcome: pathlib.Path | Veo3Error) -> None:
        """Write ``request_id`` and ``path``, or ``path`` null and ``error``."""
        if isinstance(outcome, Veo3Error):
            await put({"request_id": request_id, "path": None, "error": outcome})
        else:
            await put({"request_id": request_id, "path": outcome})

    def ended(self, board: Board) -> None:
        """Show nothing: all was told."""


class PlainView:
    """One line of words a change on stdout: for logs, and for terminals that move no cursor."""

    def __init__(self) -> None:
        self._board: Board | None = None
        self._eta: EtaOf = _unknown

    @contextlib.asynccontextmanager
    async def shown(self, board: Board, eta: EtaOf) -> AsyncIterator[None]:
        """Look now and then whether the service answers."""
        self._board, self._eta = board, eta
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_tell_of_trouble, board)
            yield
            tasks.cancel_scope.cancel()

    async def changed(self, change: Transition) -> None:
        """Write the time of day, the id, the phase, and what is left, the video or the reason."""
        await self._put(change.request_id)

    async def saved(self, request_id: str, outcome: pathlib.Path | Veo3Error) -> None:  # noqa: ARG002
        """Write where the video is, or why it is not."""
        await self._put(request_id)

    def ended(self, board: Board) -> None:
        """Show nothing: all was told."""

    async def _put(self, request_id: str) -> None:
        if self._board is not None:
            row = self._board.rows[request_id]
            await put(f"{time.strftime('%H:%M:%S')}  {change_line(row, self._eta(request_id))}")


def _unknown(_: str) -> None:
    return None


class TableView:
    """A table on the terminal that stdout is, drawn 4 times a second."""

    def __init__(self) -> None:
        self._console: Final = Console(highlight=False, markup=False, emoji=False)

    @contextlib.asynccontextmanager
    async def shown(self, board: Board, eta: EtaOf) -> AsyncIterator[None]:
        """Draw the table, and wipe it away in the end."""
        with no_echo():
            async with drawn_on_terminal(self._console, board, eta):
                yield

    async def changed(self, change: Transition) -> None:
        """Do nothing: the next frame shows it."""

    async def saved(self, request_id: str, outcome: pathlib.Path | Veo3Error) -> None:
        """Do nothing: the next frame shows it."""

    def ended(self, board: Board) -> None:
        """Print a line a task."""
        for line in final_lines(board, time.time()):
            self._console.print(line, soft_wrap=True)


class FinalView(TableView):
    """Nothing until the end, then a line a task: for people who read it later."""

    @contextlib.asynccontextmanager
    async def shown(self, board: Board, eta: EtaOf) -> AsyncIterator[None]:  # noqa: ARG002
        """Show nothing."""
        yield


async def _tell_of_trouble(board: Board) -> None:
    while True:
        await anyio.sleep(_TROUBLE_SECONDS)
        if board.trouble is not None:
            await to_thread.run_sync(say, f"{board.trouble}; it is asked again")
            return


def view_for(*, json: bool, plain: bool = False) -> View:
    """Return the view for who looks at stdout: what is no terminal, or a poor one, gets lines.

    :param json: Whether JSON lines were asked for.
    :param plain: Whether lines of words were.
    """
    if json:
        return JsonView()
    moves_no_cursor = os.environ.get("TERM") in {"dumb", "unknown"} or "CI" in os.environ
    return PlainView() if plain or moves_no_cursor or not sys.stdout.isatty() else TableView()
