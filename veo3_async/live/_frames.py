"""A board that is drawn again and again, on a terminal or in a notebook."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

import anyio
from anyio import to_thread
from rich.console import Console, ConsoleDimensions, Group
from rich.live import Live

from veo3_async.live._board import Board
from veo3_async.live._table import EtaOf, final_lines, live_table

__all__ = ["drawn_in_notebook", "drawn_on_terminal", "is_notebook"]

_FRAME_SECONDS: Final = 0.25
_NOTEBOOK_FRAME_SECONDS: Final = 1.0
_NOTEBOOK_SIZE: Final = ConsoleDimensions(120, 46)


@contextlib.asynccontextmanager
async def drawn_on_terminal(console: Console, board: Board, eta: EtaOf) -> AsyncIterator[None]:
    """Draw the table 4 times a second, and wipe it away in the end."""
    # Written to in threads: a terminal that was stopped with Ctrl-S takes no bytes.
    live = Live(console=console, auto_refresh=False, transient=True)

    async def redraw() -> None:
        while True:
            table = live_table(board, eta, now=time.time(), size=console.size)
            await to_thread.run_sync(functools.partial(live.update, table, refresh=True))
            await anyio.sleep(_FRAME_SECONDS)

    await to_thread.run_sync(live.start)
    try:
        async with _beside(redraw):
            yield
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(live.stop)


@contextlib.asynccontextmanager
async def drawn_in_notebook(board: Board, eta: EtaOf) -> AsyncIterator[None]:
    """Draw the table once a second into one output cell, where its last state stays."""
    display = importlib.import_module("IPython.display").display
    output = display(_Picture(board, eta), display_id=True)

    async def redraw() -> None:
        while True:
            await anyio.sleep(_NOTEBOOK_FRAME_SECONDS)
            output.update(_Picture(board, eta))

    try:
        async with _beside(redraw):
            yield
    finally:
        output.update(_Picture(board, eta, ended=True))


@contextlib.asynccontextmanager
async def _beside(work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Let something go on as long as the context lasts; what that raises comes out in no group."""
    error: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        try:
            yield
        except Exception as raised:  # noqa: BLE001 - raised below
            error = raised
        tasks.cancel_scope.cancel()
    if error is not None:
        raise error


def is_notebook() -> bool:
    """Return whether a notebook's kernel runs this program."""
    get_ipython: Any = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython is not None and hasattr(get_ipython(), "kernel")


class _Picture:
    """A board as it is now, in the two forms that a notebook shows."""

    def __init__(self, board: Board, eta: EtaOf, *, ended: bool = False) -> None:
        console = Console(
            file=io.StringIO(),
            record=True,
            width=_NOTEBOOK_SIZE.width,
            force_jupyter=False,
            highlight=False,
            markup=False,
            emoji=False,
        )
        now = time.time()
        if ended:
            console.print(Group(*final_lines(board, now), board.summary()), soft_wrap=True)
        else:
            console.print(live_table(board, eta, now=now, size=_NOTEBOOK_SIZE))
        self._html: Final = console.export_html(
            clear=False,
            inline_styles=True,
            code_format='<pre style="line-height:normal">{code}</pre>',
        )
        self._text: Final = console.export_text()

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return self._html
