"""The command line on a real pseudo-terminal: what people see, and what Ctrl-C leaves."""

from __future__ import annotations

import pathlib
import re
import shlex
import shutil
from collections.abc import Iterator

import pytest
from cli_service import MODULE, Service, on_terminal, running_service

from veo3_async.testing import Drip, Life, Stage, Status

_FAST = 200.0
_FOREVER = Life((Stage({"status": "video_generating"}),))
_DONE = Life(Life.plain().stages[-1:], upsample=False)
_BRIEF = Life((Stage({"status": "video_generating"}, polls=6), *_DONE.stages), upsample=False)

# Colours, fore- and background; bold, dim and the like are no colours.
_COLOUR = re.compile(rb"\x1b\[[0-9;]*?\b(3[0-7]|4[0-7]|9[0-7]|10[0-7]|[34]8;[25])[0-9;]*m")


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service(speed=_FAST) as service:
        yield service


def test_live_table_is_drawn_with_phase_elapsed_bar_and_eta(service: Service) -> None:
    """While tasks run, each has a line with its phase, its age, its bar and what is left."""
    with on_terminal(service, "demo", "--tasks", "4", "--speed", "80") as terminal:
        row = r"^(?:veo3-pro:|…)[0-9a-f…-]+\s+(?:prepar|generat)ing\s+0:0\d\s+[━╸╺]{16}\s+~0:0\d"
        screen = terminal.wait_until(lambda screen: len(re.findall(row, screen, re.MULTILINE)) == 4)
        assert "generating" in screen
        assert "4 still running" in screen
        assert terminal.exit_code() == 0
        assert "every one ended as it should" in terminal.text


def test_what_is_left_on_the_screen_has_whole_urls(service: Service) -> None:
    """In the end the live table is gone, and a line a task has the URL, however long it is."""
    name = service.add(life=_BRIEF)
    with on_terminal(service, "watch", name, "--interval", "0.05", columns=60) as terminal:
        assert terminal.exit_code() == 0
        url = f"{service.server.url}/files/"
        joined = terminal.text.replace("\n", "")
        assert re.search(re.escape(url) + r"[0-9a-f]{32}\.mp4", joined)
        assert "elapsed" not in terminal.text
        assert terminal.raw.count(b"\x1b[?25l") == terminal.raw.count(b"\x1b[?25h") == 1


def test_ctrl_c_prints_what_runs_and_the_command_that_goes_on(service: Service) -> None:
    """After Ctrl-C the ids that still run are named, and the printed command ends the work."""
    done, left = service.add(life=_DONE), service.add("veo3-pro:it's", _FOREVER)
    options = ["--until", "video", "--interval", "0.05"]
    with on_terminal(service, "watch", *options, done, left, columns=200) as terminal:
        terminal.wait_for("completed", "generating")
        terminal.press_ctrl_c()
        assert terminal.exit_code() == 130
        screen = terminal.text
    assert "2 tasks: 1 video, 1 still running" in screen
    assert f"{left}  generating" in screen
    command = shlex.split(screen.splitlines()[-1])
    assert command == [*MODULE, "watch", "--interval", "0.05", "--until", "video", left]
    service.fault(Status(402), request_id=left)
    with on_terminal(service, command=command) as again:
        assert again.exit_code() == 3


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash to paste into")
def test_ctrl_c_with_many_ids_prints_a_command_that_can_be_pasted(service: Service) -> None:
    """The command for more ids than fit a line brings them along on stdin."""
    ids = [service.add(life=_FOREVER) for _ in range(30)]
    with on_terminal(service, "watch", *ids, columns=200, rows=60) as terminal:
        terminal.wait_for("generating")
        terminal.press_ctrl_c()
        assert terminal.exit_code() == 130
        screen = terminal.text
    command = screen.partition("to go on with these 30:\n")[2]
    assert command.endswith("watch -")
    for name in ids:
        service.fault(Status(401, err_code=-10001), request_id=name)
    with on_terminal(service, "-c", command, command=[str(shutil.which("bash"))]) as again:
        assert again.exit_code() == 3
        assert b"err_code -10001" in again.raw


def test_ctrl_c_in_a_submission_says_that_it_may_have_arrived(service: Service) -> None:
    """Whoever breaks off a submission is told that the task may exist."""
    service.fault(Status(503), on="submit")
    with on_terminal(service, "submit", "a lighthouse") as terminal:
        while not service.server.received:
            terminal._read()
        terminal.press_ctrl_c()
        assert terminal.exit_code() == 130
        assert "may have been charged" in terminal.text


def test_no_color_draws_the_table_without_colour(service: Service) -> None:
    """NO_COLOR takes the colours away, and only them."""
    for environment, coloured in ((None, True), ({"NO_COLOR": "1"}, False)):
        name = service.add(life=_BRIEF)
        with on_terminal(
            service, "watch", name, "--interval", "0.2", environment=environment
        ) as terminal:
            terminal.wait_for("elapsed", "generating")
            assert terminal.exit_code() == 0
            assert bool(_COLOUR.search(terminal.raw)) is coloured


def test_more_tasks_than_rows_never_scroll(service: Service) -> None:
    """Of more tasks than fit, the table shows those that changed last, and counts all."""
    ids = [service.add(life=_FOREVER) for _ in range(100)]
    with on_terminal(service, "watch", *ids, rows=12) as terminal:
        screen = terminal.wait_for("generating", "100 tasks: 0 videos, 100 still running")
        assert terminal.scrolled == 0
        assert len(screen.splitlines()) <= 12


def test_keys_that_are_pressed_do_not_tear_the_table(service: Service) -> None:
    """An Enter, or a line that was typed, leaves the table as it is; afterwards keys are seen."""
    name = service.add(life=_FOREVER)
    with on_terminal(service, "watch", name, "--interval", "0.1") as terminal:
        terminal.wait_for("elapsed", "generating")
        before = terminal.raw.count(b"typed")
        terminal.press("typed\n\n\n")
        elapsed = re.findall(r" \d:\d\d", terminal.text)
        terminal.wait_until(lambda screen: re.findall(r" \d:\d\d", screen) not in ([], elapsed))
        assert terminal.text.count("elapsed") == 1
        assert terminal.raw.count(b"typed") == before == 0
        terminal.press_ctrl_c()
        assert terminal.exit_code() == 130


@pytest.mark.parametrize(
    ("life", "fault", "code"),
    [
        (_DONE, None, 0),
        (Life.failing(), None, 1),
        (_FOREVER, Status(401), 3),
        (_FOREVER, Status(402), 3),
    ],
)
def test_exit_codes(service: Service, life: Life, fault: Status | None, code: int) -> None:
    """The exit code says whether all is there, some is not, or the owner of the key must act."""
    name = service.add(life=life)
    if fault is not None:
        service.fault(fault, request_id=name)
    with on_terminal(service, "watch", name, "--interval", "0.05") as terminal:
        assert terminal.exit_code() == code


def test_download_shows_a_bar_and_goes_on_after_ctrl_c(
    service: Service, tmp_path: pathlib.Path
) -> None:
    """A download shows how far it is; broken off, the same command brings it to its end."""
    name = service.add(life=_DONE)
    service.fault(Drip(0.01), on="file", times=1)
    target = tmp_path / "a.mp4"
    command = ["download", name, str(target)]
    with on_terminal(service, *command) as terminal:
        terminal.wait_for("saving", " MB")
        terminal.press_ctrl_c()
        assert terminal.exit_code() == 130
        assert (
            terminal.text
            == "interrupted: what is there is kept, and the same command goes on with it"
        )
        assert not target.exists()
    with on_terminal(service, *command, columns=300) as terminal:
        assert terminal.exit_code() == 0
        assert terminal.text == str(target)
    assert target.read_bytes()[4:8] == b"ftyp"


def test_fetch_and_pending_are_readable(service: Service, tmp_path: pathlib.Path) -> None:
    """People get words: what a task is at, and what a journal has."""
    with on_terminal(service, "submit", "a storm", "--journal", f"{tmp_path}/j.db") as terminal:
        assert terminal.exit_code() == 0
        name = terminal.text
    with on_terminal(service, "pending", "--journal", f"{tmp_path}/j.db") as terminal:
        assert terminal.exit_code() == 0
        head, line, count = terminal.text.splitlines()
    assert head.split() == ["task", "phase", "for", "prompt"]
    assert line.split()[:2] == [name, "queued"]
    assert line.endswith("a storm")
    assert count == "1 pending"
    with on_terminal(service, "fetch", service.add(life=_DONE), columns=300) as terminal:
        assert terminal.exit_code() == 0
        facts = dict(line.split(maxsplit=1) for line in terminal.text.splitlines())
    assert (facts["status"], facts["running"]) == ("completed", "no")
    assert facts["video"].startswith(f"{service.server.url}/files/")
