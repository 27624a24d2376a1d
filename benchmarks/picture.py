"""The picture of the README: the live table of a real run of the demo, as SVG.

``python benchmarks/picture.py`` runs what ``veo3-async demo`` runs, takes the table as it is on
the screen 14 s after the start, and writes ``benchmarks/results/demo.svg``. Ids, lives and
prompts are the same in every run; the seconds differ by what the machine makes of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import pathlib
import re
import time
from collections.abc import AsyncIterator
from typing import Final

import anyio
from rich.console import Console
from rich.terminal_theme import MONOKAI

from veo3_async import Transition, Veo3Error
from veo3_async.cli._demo import Demo
from veo3_async.live._board import Board
from veo3_async.live._table import EtaOf, live_table

TASKS: Final = 25
SPEED: Final = 20.0
MOMENT: Final = 14.0
COLUMNS: Final = 132
ROWS: Final = 32
FILE: Final = pathlib.Path(__file__).parent / "results" / "demo.svg"


class Camera:
    """A view that takes one picture."""

    def __init__(self) -> None:
        self.svg = ""

    @contextlib.asynccontextmanager
    async def shown(self, board: Board, eta: EtaOf) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._take, board, eta)
            yield

    async def changed(self, change: Transition) -> None:
        """Tell nobody."""

    async def saved(self, request_id: str, outcome: pathlib.Path | Veo3Error) -> None:
        """Tell nobody."""

    def ended(self, board: Board) -> None:
        """Show nothing."""

    async def _take(self, board: Board, eta: EtaOf) -> None:
        await anyio.sleep(MOMENT)
        console = Console(
            file=io.StringIO(),
            record=True,
            force_terminal=True,
            color_system="truecolor",
            width=COLUMNS,
            height=ROWS,
        )
        console.print(live_table(board, eta, now=time.time(), size=console.size))
        svg = console.export_svg(title="veo3-async demo", theme=MONOKAI, unique_id="demo")
        # A picture in a README loads nothing from elsewhere: any monospace font will do.
        self.svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def main() -> None:
    camera, demo, board = Camera(), Demo(TASKS, SPEED), Board([], now=time.time())
    asyncio.run(demo.play(board, camera))
    if not demo.ended_well(board):
        message = f"not every task ended as it should: {board.summary()}"
        raise SystemExit(message)
    FILE.write_text(camera.svg + "\n", encoding="utf-8")
    print(f"{FILE.name}: {len(camera.svg)} bytes; in the end {board.summary()}")


if __name__ == "__main__":
    main()
