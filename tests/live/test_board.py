"""What a board adds up to, and how it is drawn: no terminal, no service, no clock."""

from __future__ import annotations

import io
import pathlib

import pytest
from rich.console import Console, ConsoleDimensions

from veo3_async import (
    DownloadError,
    Eta,
    Phase,
    PollReport,
    ServiceUnavailable,
    StillPending,
    TaskFailed,
    TaskNotFound,
    Transition,
    Veo3Error,
    VideoTask,
)
from veo3_async.cli._output import plain
from veo3_async.live._board import Board
from veo3_async.live._table import change_line, clock, final_lines, live_table

NOW = 1_700_000_000.0
URL = "https://file.302.ai/" + "x" * 80 + ".mp4"


def change(
    name: str, phase: Phase, *, error: Exception | None = None, final: bool = False, **task: object
) -> Transition:
    return Transition(
        request_id=name,
        phase=phase,
        previous=Phase.GENERATING,
        status="",
        task=VideoTask(id=name, **task),  # type: ignore[arg-type]
        observed_at=NOW,
        final=final,
        error=error,  # type: ignore[arg-type]
    )


def done(name: str, url: str = URL) -> Transition:
    return change(name, Phase.COMPLETED, final=True, video_url=url)


def drawn(board: Board, *, width: int = 120, height: int = 30, eta: Eta | None = None) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    size = ConsoleDimensions(width, height)
    with console.capture() as capture:
        console.print(live_table(board, lambda _: eta, now=NOW, size=size))
    return [line.rstrip() for line in capture.get().splitlines()]


def left(board: Board) -> list[str]:
    return [row.request_id for row in board.left]


# --- what is left -------------------------------------------------------------------------


@pytest.mark.parametrize(("is_guess", "said"), [(False, "~4:30"), (True, "~4:30?")])
def test_what_is_left_says_where_it_is_a_guess(is_guess: bool, said: str) -> None:
    """By a question mark, in the table and in a line."""
    board = Board(["a"], now=NOW)
    board.take(change("a", Phase.GENERATING))
    eta = Eta(180.0, 270.0, 360.0, is_guess=is_guess)
    assert said in drawn(board, eta=eta)[1].split()
    assert change_line(board.rows["a"], eta) == f"a  generating  {said} left"


def test_a_watch_that_timed_out_says_still() -> None:
    """The task has not ended, and its phase is what it was."""
    board = Board(["a"], now=NOW)
    error = StillPending("not finished in time", request_id="a")
    board.take(change("a", Phase.LOST, error=error, final=True))
    assert change_line(board.rows["a"], None) == "a  still generating"


# --- counting -----------------------------------------------------------------------------


def test_board_succeeds_when_every_video_is_there() -> None:
    """A plain video in place of the upsampled one is a video; a task that runs is none."""
    board = Board(["a", "b"], now=NOW)
    board.take(done("a"))
    assert (board.succeeded, left(board)) == (False, ["b"])
    board.take(change("b", Phase.COMPLETED_PLAIN, final=True, video_url=URL))
    assert (board.succeeded, left(board)) == (True, [])


def test_failure_is_over_and_a_timeout_is_not() -> None:
    """What the service gave up is not gone on with; what our own timeout ended is."""
    board = Board(["a", "b"], now=NOW)
    board.take(change("a", Phase.FAILED, final=True, error=TaskFailed("no")))
    board.take(change("b", Phase.LOST, final=True, error=StillPending("late")))
    assert (board.succeeded, left(board)) == (False, ["b"])
    assert board.rows["b"].phase is Phase.GENERATING
    assert board.summary() == "2 tasks: 0 videos, 1 failed, 1 still running"


def test_video_that_is_wanted_on_disk_is_done_when_it_is_there() -> None:
    """Until it is saved a task goes on, so that an interrupted download is not forgotten."""
    board = Board(["a", "b"], now=NOW, saves=True)
    board.take(done("a"))
    board.take(done("b"))
    board.loading("a", 1, 2, now=NOW)
    assert left(board) == ["a", "b"]
    board.saved("a", pathlib.Path("a.mp4"))
    assert (board.succeeded, left(board)) == (False, ["b"])
    board.saved("b", DownloadError("full"))
    assert (board.succeeded, left(board)) == (False, [])
    assert board.summary() == "2 tasks: 2 videos, 1 saved, 1 failed"


def test_of_many_tasks_those_are_shown_that_changed_last() -> None:
    """A screen that is too small for all shows what runs, the newest change on top."""
    board = Board([str(n) for n in range(10)], now=NOW)
    for name in "12345":
        board.take(change(name, Phase.GENERATING))
    board.take(change("2", Phase.GENERATED))
    board.take(done("4"))
    assert [row.request_id for row in board.visible(3)] == ["2", "5", "3"]
    assert [row.request_id for row in board.visible(10)] == [str(n) for n in range(10)]


# --- drawing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "spelt"), [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3600, "1:00:00")]
)
def test_clock(seconds: float, spelt: str) -> None:
    """Durations are minutes and seconds, from an hour on hours as well."""
    assert clock(seconds) == spelt


def test_elapsed_is_counted_by_the_clock_of_the_service() -> None:
    """The age of a task is that since its creation, however late we began to watch."""
    board = Board(["a"], now=NOW)
    board.take(change("a", Phase.GENERATING, created_at=int((NOW - 83) * 1000)))
    assert "1:23" in drawn(board)[1]


@pytest.mark.parametrize(("elapsed", "median", "filled"), [(30, 90, 4), (60, 60, 8), (90, 0, 16)])
def test_bar_is_elapsed_over_elapsed_and_eta(elapsed: int, median: int, filled: int) -> None:
    """The bar's filled part is what has passed of what it will take."""
    board = Board(["a"], now=NOW)
    board.take(change("a", Phase.GENERATING, created_at=int((NOW - elapsed) * 1000)))
    (line,) = drawn(board, eta=Eta(0, median, 999))[1:]
    assert line.count("━") == filled
    assert f"~{clock(median)}" in line


def test_nobody_knows_draws_no_bar() -> None:
    """Without an ETA there is no bar and no number."""
    board = Board(["a"], now=NOW)
    board.take(change("a", Phase.GENERATING))
    (line,) = drawn(board)[1:]
    assert line.split() == ["a", "generating", "0:00"]


@pytest.mark.parametrize("width", [40, 80, 120, 300])
@pytest.mark.parametrize("height", [5, 24])
def test_table_fits_the_terminal(width: int, height: int) -> None:
    """Long ids, long URLs and thousands of tasks take no more than the screen has."""
    names = [f"veo3-pro:{n:036}" for n in range(2000)]
    board = Board(names, now=NOW)
    board.polled(report(ServiceUnavailable("no connection " * 50)))
    for name in names[:-1]:
        board.take(change(name, Phase.GENERATED, video_url=URL))
    lines = drawn(board, width=width, height=height, eta=Eta(1, 2, 3))
    assert len(lines) <= height
    assert all(len(line) <= width - len("^C") for line in lines)


@pytest.mark.parametrize("width", [40, 60, 73])
def test_narrow_terminal_shows_what_matters(width: int) -> None:
    """Where there is no room for all columns, the ids differ all the same."""
    names = [f"veo3-pro:{n}a7711a-8133-4876-b7eb-dcd9e87a1613" for n in range(3)]
    board = Board(names, now=NOW)
    for name in names:
        board.take(change(name, Phase.COMPLETED_PLAIN, final=True, video_url=URL))
    head, *rows, _ = drawn(board, width=width)
    assert head.split() == ["task", "phase", "elapsed"]
    assert [row.split()[1:] for row in rows] == [["completed_plain", "0:00"]] * 3
    assert len({row.split()[0] for row in rows}) == 3


def test_trouble_with_the_service_is_a_line_until_it_answers() -> None:
    """Whoever looks at a table that stands still sees why."""
    board = Board(["a"], now=NOW)
    board.polled(report(ServiceUnavailable("no connection to the API was made")))
    assert drawn(board)[-1] == "no connection to the API was made; it is asked again"
    board.polled(report(None))
    assert "asked again" not in drawn(board)[-1]
    board.polled(report(TaskNotFound("unknown")))  # an answer, which the row will show
    assert "asked again" not in drawn(board)[-1]


def report(error: Veo3Error | None) -> PollReport:
    return PollReport(
        request_id="a",
        attempt=1,
        status=None,
        err_code=None,
        duration=0.0,
        error=error,
        next_poll_in=1.0,
    )


def test_final_lines_have_whole_urls_and_leave_out_what_runs() -> None:
    """What is over has a line with all there is to say; what runs is shown elsewhere."""
    board = Board(["a", "b", "c"], now=NOW)
    board.take(done("a"))
    board.take(change("b", Phase.FAILED, final=True, error=TaskFailed("given up")))
    lines = [line.plain for line in final_lines(board, NOW)]
    assert [line.split()[:2] for line in lines] == [["a", "completed"], ["b", "failed"]]
    assert lines[0].endswith(URL)
    assert lines[1].endswith("given up")


def test_of_very_many_the_final_lines_show_what_failed() -> None:
    """Beyond 200 tasks people get what they must act on, and a count of the rest."""
    names = [str(n) for n in range(300)]
    board = Board(names, now=NOW)
    for name in names[:-1]:
        board.take(done(name))
    board.take(change(names[-1], Phase.FAILED, final=True, error=TaskFailed("given up")))
    first, last = (line.plain for line in final_lines(board, NOW))
    assert first.startswith("299  failed")
    assert last == "… and 299 more; --json has all of them"


def test_what_servers_write_is_one_printable_line() -> None:
    """Control characters, escape sequences and line breaks do not reach the terminal."""
    assert plain("a\x1b[31m\x9b2J\r\n b\u202e") == "a�[31m�2J b�"
    board = Board(["a"], now=NOW)
    board.take(done("a", "https://x/\x1b]52;c;aGk=\x07"))
    assert "\x1b" not in "".join(line.plain for line in final_lines(board, NOW))
