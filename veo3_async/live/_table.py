"""A board as people see it: the live table while it goes on, and what is left in the end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

from rich.console import ConsoleDimensions, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.style import Style
from rich.table import Table
from rich.text import Text

from veo3_async._errors import StillPending
from veo3_async._models import Phase
from veo3_async._pacing.policies import Eta
from veo3_async._text import plain
from veo3_async.live._board import Board, Row

__all__ = ["EtaOf", "change_line", "clock", "final_lines", "label", "live_table", "short_ids"]

EtaOf: TypeAlias = Callable[[str], Eta | None]

_STYLE: Final = {
    Phase.COMPLETED: "green",
    Phase.COMPLETED_PLAIN: "green",
    Phase.FAILED: "red",
    Phase.LOST: "red",
    Phase.RETRYING: "yellow",
    Phase.UNKNOWN: "yellow",
}

_MOST_ROWS: Final = 40
_OTHER_LINES: Final = 6  # head, counts, trouble, and the shell's own
_MOST_FINAL_ROWS: Final = 200

_PHASE_WIDTH: Final = max(map(len, Phase))
_CLOCK_WIDTH: Final = 7
_BAR_WIDTH: Final = 16
_GAP: Final = 2
_TAKEN: Final = _PHASE_WIDTH + 2 * _CLOCK_WIDTH + _BAR_WIDTH + 5 * _GAP
_TAKEN_AT_LEAST: Final = _PHASE_WIDTH + _CLOCK_WIDTH + 2 * _GAP
_LEAST_ID_WIDTH: Final = 14
_LEAST_RESULT_WIDTH: Final = 5
_ECHO_WIDTH: Final = len("^C")
"""Left free, for a terminal echoes Ctrl-C where the cursor is: in the next line, if this one is
full, and then one line too few is wiped away."""


def live_table(board: Board, eta: EtaOf, *, now: float, size: ConsoleDimensions) -> RenderableType:
    """Return what is going on, no higher than the terminal.

    Of more tasks than that, those that go on and changed last. Where it is too narrow for all
    columns, those that a person cannot do without.
    """
    rows = board.visible(max(1, min(_MOST_ROWS, size.height - _OTHER_LINES)))
    width = size.width - _ECHO_WIDTH
    names = [plain(row.request_id) for row in rows]
    table = _columns(max(map(len, names), default=0), width)
    shown = short_ids(names, table.columns[0].width or width)
    for row, name in zip(rows, shown, strict=True):
        cells = [name, *_cells(row, None if row.ended else eta(row.request_id), now)]
        table.add_row(*cells[: len(table.columns)])
    lines = [Text(board.summary(), "dim")] if len(board.rows) > 1 else []
    if board.trouble is not None:
        lines.append(Text(f"{plain(board.trouble)}; it is asked again", "yellow"))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Group(table, *lines)


def _columns(longest_id: int, width: int) -> Table:
    rest = width - _TAKEN
    is_narrow = rest < _LEAST_ID_WIDTH + _LEAST_RESULT_WIDTH
    room = width - _TAKEN_AT_LEAST if is_narrow else max(_LEAST_ID_WIDTH, rest * 3 // 5)
    id_width = max(len("task"), min(longest_id, room))
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("task", width=id_width, no_wrap=True)
    table.add_column("phase", width=_PHASE_WIDTH, no_wrap=True)
    table.add_column("elapsed", width=_CLOCK_WIDTH, justify="right", no_wrap=True)
    if not is_narrow:
        table.add_column("progress", width=_BAR_WIDTH, no_wrap=True)
        table.add_column("left", width=_CLOCK_WIDTH, justify="right", no_wrap=True)
        table.add_column("video", width=rest - id_width, no_wrap=True)
    return table


def _cells(row: Row, eta: Eta | None, now: float) -> list[RenderableType]:
    share, left = _progress(row, eta, now)
    return [
        Text(label(row), _STYLE.get(row.phase, "cyan") if row.phase else "dim"),
        clock(row.elapsed(now)),
        "" if share is None else _bar(share),
        left,
        Text(_transfer(row, now)) if row.is_saving else _result(row),
    ]


def final_lines(board: Board, now: float) -> Iterator[Text]:
    """Yield a line a task that is over, with the whole URL, however wide the terminal is.

    Of more than 200 tasks, those that brought no video.
    """
    rows = over = board.over
    if len(over) > _MOST_FINAL_ROWS:
        rows = [row for row in over if not row.has_video][:_MOST_FINAL_ROWS]
    width = max(map(_id_width, rows), default=0)
    for row in rows:
        yield Text.assemble(
            plain(row.request_id).ljust(width + _GAP),
            (label(row).ljust(_PHASE_WIDTH), _STYLE.get(row.phase, "") if row.phase else "dim"),
            clock(row.elapsed(now)).rjust(_CLOCK_WIDTH) + " " * _GAP,
            _result(row),
        )
    if hidden := len(over) - len(rows):
        yield Text(f"… and {hidden} more; --json has all of them", "dim")


def short_ids(names: Sequence[str], width: int) -> list[str]:
    """Return the ids in so many characters: what all of them begin with goes first."""
    if max(map(len, names), default=0) <= width:
        return list(names)
    ends = zip(min(names), max(names), strict=False)
    alike = "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], ends))
    cut = max(alike.rfind(mark) + 1 for mark in ":/-_") if len(names) > 1 else 0
    return [_middle_cut("…" + name[cut:] if cut > 1 else name, width) for name in names]


def _middle_cut(name: str, width: int) -> str:
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"


def label(row: Row) -> str:
    """Return the word for where a task is."""
    if row.is_saving:
        return "saving"
    return "waiting" if row.phase is None else row.phase.value


def clock(seconds: float) -> str:
    """Spell a duration as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _id_width(row: Row) -> int:
    return len(plain(row.request_id))


def _progress(row: Row, eta: Eta | None, now: float) -> tuple[float | None, str]:
    """Return the share that is done, None where nobody knows, and what is left in words."""
    if row.is_saving and row.loaded is not None:
        done, total = row.loaded
        speed = row.speed(now)
        left = f"~{clock((total - done) / speed)}" if total and speed else ""
        return (done / total if total else None), left
    if row.ended is not None:
        return (1.0 if row.has_video else None), ""
    if eta is None:
        return None, ""
    elapsed = row.elapsed(now)
    return elapsed / max(elapsed + eta.median, 1e-9), _left(eta)


def _left(eta: Eta) -> str:
    """Return what is left in words; a question mark says that it is a guess."""
    return f"~{clock(eta.median)}{'?' if eta.is_guess else ''}"


def _transfer(row: Row, now: float) -> str:
    """Return how much of a video is here, of how much, and how fast it comes."""
    done, total = row.loaded or (0, None)
    speed = row.speed(now)
    facts = (
        f"{done / 1e6:.1f} MB" if total is None else f"{done / 1e6:.1f}/{total / 1e6:.1f} MB",
        f"{done / total:.0%}" if total else "",
        f"{speed / 1e6:.1f} MB/s" if speed else "",
    )
    return "  ".join(filter(None, facts))


def change_line(row: Row, eta: Eta | None) -> str:
    """Return what is to be said of a change of a task, in one line without colours."""
    left = "" if row.ended or eta is None else f"{_left(eta)} left"
    phase = label(row)
    if isinstance(row.error, StillPending):
        phase = f"still {phase}"
    return "  ".join(filter(None, (plain(row.request_id), phase, left, _result(row).plain)))


def _bar(share: float) -> ProgressBar:
    # Rich's own red looks like a failure.
    return ProgressBar(
        total=1.0,
        completed=share,
        width=_BAR_WIDTH,
        complete_style="cyan",
        finished_style="green",
    )


def _result(row: Row) -> Text:
    if row.error is not None and not isinstance(row.error, StillPending):
        return Text(plain(row.error.message), "red")
    if row.path is not None:
        return Text(plain(row.path))
    return Text(plain(row.url), Style(link=plain(row.url))) if row.url else Text()
