"""What ``watch`` writes into pipes, and what ends it."""

from __future__ import annotations

import json
import pathlib
import shlex
import shutil
import signal
import subprocess
import time

import msgspec
import pytest
from cli_service import (
    DONE,
    FAILED,
    FOREVER,
    MODULE,
    TWO_STEPS,
    Command,
    Result,
    Service,
    needs_bash,
    one_line,
)

from veo3_async import VideoTask
from veo3_async.testing import Life, Slow, Status

_THROUGH_JQ = '"$@" --json | jq -r "select(.final) | .request_id"'


# --- watch --------------------------------------------------------------------------------


def test_watch_writes_a_line_a_transition(command: Command, service: Service) -> None:
    """With a pipe for stdout every transition is a JSON object with the fields of Transition."""
    name = service.add(life=TWO_STEPS)
    result = command("watch", "--json", name, "--interval", "0.05")
    first, last = result.lines
    assert result.code == 0
    assert (first["request_id"], first["phase"], first["final"]) == (name, "generating", False)
    assert (last["phase"], last["previous"], last["final"]) == ("completed", "generating", True)
    assert last["error"] is None
    assert last["url"] == last["task"]["video_url"]
    assert msgspec.convert(last["task"], VideoTask).id == name
    assert result.err == "1 task: 1 video\n"


def test_watch_reads_ids_from_file_stdin_and_arguments(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """Ids from everywhere are watched together, one that comes twice once; comments are none."""
    one, two, three = (service.add(life=DONE) for _ in range(3))
    file = tmp_path / "ids"
    file.write_bytes(f"\ufeff# of today\r\n{two}\r\n\r\n {one} \r\n  # end".encode())
    result = command("watch", "--json", one, "-", "--file", str(file), stdin=f"{three}\n# end\n")
    assert sorted(line["request_id"] for line in result.lines) == sorted([one, two, three])
    assert result.code == 0


def test_watch_fails_when_one_of_many_fails(command: Command, service: Service) -> None:
    """One task without a video makes 1 of the exit code, and its line says why."""
    good, bad = service.add(life=DONE), service.add(life=FAILED)
    result = command("watch", "--json", good, bad)
    by_id = {line["request_id"]: line for line in result.lines}
    assert result.code == 1
    assert by_id[good]["error"] is None
    assert by_id[bad]["error"]["type"] == "TaskFailed"
    assert "unsafe" in by_id[bad]["error"]["message"]
    assert result.err == "2 tasks: 1 video, 1 failed\n"


def test_watch_until_the_first_video(command: Command, service: Service) -> None:
    """--until video is content before the upsampling."""
    stage = next(
        stage
        for stage in Life.documented().stages
        if stage.says.get("status") == "video_generation_completed"  # type: ignore[union-attr]
    )
    name = service.add(life=Life((msgspec.structs.replace(stage, seconds=None),)))
    result = command("watch", "--json", name, "--until", "video")
    assert result.code == 0
    assert result.lines[-1]["status"] == "video_generation_completed"


def test_timeout_leaves_the_task_running_and_says_so(command: Command, service: Service) -> None:
    """When the time is over the exit code is 1, and the command that goes on is printed."""
    name = service.add(life=FOREVER)
    result = command("watch", "--json", name, "--timeout", "0.5", "--interval", "0.1")
    assert result.code == 1
    assert result.lines[-1]["error"]["type"] == "StillPending"
    assert result.err == (
        "1 task: 0 videos, 1 still running\n"
        f"still running:\n  {name}  generating\n"
        f"to go on:\n  /usr/bin/veo3-async watch --interval 0.1 --timeout 0.5 --json {name}\n"
    )


def test_watch_brings_videos_to_a_directory(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """--download makes the directory, and a line tells where each video is."""
    names = [service.add(life=DONE) for _ in range(3)]
    result = command("watch", "--json", *names, "--download", str(tmp_path / "videos" / "new"))
    saved = {line["request_id"]: line["path"] for line in result.lines if "path" in line}
    urls = {line["request_id"]: line["url"] for line in result.lines if "url" in line}
    assert result.code == 0
    assert set(saved) == set(names)
    for name, path in saved.items():
        assert pathlib.Path(path).read_bytes() == service.server.video_of(urls[name])
    assert result.err == "3 tasks: 3 videos, 3 saved\n"


def test_download_that_fails_is_exit_code_1(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """A video that is there, and cannot be brought to disk, is a failure with a reason."""
    name = service.add(life=DONE)
    service.fault(Status(404), on="file")
    result = command("watch", "--json", name, "--download", str(tmp_path))
    assert result.code == 1
    assert result.lines[-1]["path"] is None
    assert result.lines[-1]["error"]["type"] == "DownloadError"
    assert result.err == "1 task: 1 video, 0 saved, 1 failed\n"


@needs_bash
@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_watch_pipes_into_jq(service: Service) -> None:
    """The lines are what jq takes, as they come."""
    names = [service.add(life=DONE) for _ in range(3)]
    filtered = subprocess.run(
        ["bash", "-c", _THROUGH_JQ, "-", *MODULE, "watch", *names],
        capture_output=True,
        text=True,
        env=service.environment,
        check=True,
    )
    assert sorted(filtered.stdout.split()) == sorted(names)


def test_reader_that_goes_away_gets_no_traceback(service: Service) -> None:
    """``veo3-async watch … | head -1`` ends, and says what still runs."""
    name = service.add(life=TWO_STEPS)
    process = subprocess.Popen(
        [*MODULE, "watch", name, service.add(life=FOREVER), "--interval", "0.5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=service.environment,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "still running" in err
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="there is no /dev/full")
def test_full_disk_is_one_line(service: Service) -> None:
    """Lines that cannot be written end the watch, in one line and without a traceback."""
    name = service.add(life=DONE)
    with pathlib.Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*MODULE, "watch", name],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=service.environment,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "veo3-async: [Errno 28] No space left on device"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "redirection", "says"),
    [
        (["watch", "id"], ">&-", "stdout is closed"),
        (["submit", "a storm"], ">&-", "stdout is closed"),
        (["watch", "-"], "<&-", "stdin is closed"),
        (["submit", "-"], "<&-", "stdin is closed"),
        (["submit", "-"], "<<< $'\\xff'", "stdin is no UTF-8 text"),
    ],
)
@needs_bash
def test_stream_that_cannot_be_used_is_one_line(
    service: Service, arguments: list[str], redirection: str, says: str
) -> None:
    """What is closed or no text is a usage error, before anything is sent."""
    done = subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "-", *MODULE, *arguments],
        capture_output=True,
        text=True,
        env=service.environment,
        check=False,
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert says in line
    assert service.server.received == 0


@needs_bash
def test_closed_stderr_costs_no_result(service: Service) -> None:
    """What would be told there is dropped."""
    words = [*MODULE, "watch", "--json", service.add(life=DONE)]
    done = subprocess.run(
        ["bash", "-c", '"$@" 2>&-', "-", *words],
        capture_output=True,
        text=True,
        env=service.environment,
        check=False,
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["final"]


def test_service_that_does_not_answer_is_told_once(
    command: Command, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who watches in a script learns why nothing comes, while it goes on."""
    monkeypatch.setattr("veo3_async.cli._view._TROUBLE_SECONDS", 0.05)
    service.fault(Status(500), times=3)
    result = command("watch", "--json", service.add(life=DONE))
    trouble, summary = result.err.splitlines()
    assert result.code == 0
    assert trouble.endswith("; it is asked again")
    assert summary == "1 task: 1 video"


# --- SIGTERM ------------------------------------------------------------------------------


def terminated(service: Service, *arguments: str, received: int = 1) -> Result:
    """Send SIGTERM to a command in another process once the service has heard of it."""
    with subprocess.Popen(
        [*MODULE, *arguments],
        env=service.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while service.server.received < received and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    return Result(process.returncode, out, err)


def test_sigterm_says_what_still_runs_as_ctrl_c_does(service: Service) -> None:
    """Whoever stops it, a person or a supervisor, is told the ids and how to go on."""
    name = service.add(life=FOREVER)
    result = terminated(service, "watch", name, "--interval", "0.1", received=3)
    assert result.code == 143
    assert "1 task: 0 videos, 1 still running" in result.err
    assert f"to go on:\n  {shlex.join([*MODULE, 'watch', '--interval', '0.1', name])}" in result.err
    assert "Traceback" not in result.err


def test_sigterm_in_a_submission_says_that_it_may_have_arrived(service: Service) -> None:
    """It is as uncertain as after Ctrl-C."""
    service.fault(Slow(60.0), on="submit")
    result = terminated(service, "submit", "a lighthouse")
    assert result.code == 143
    assert "may have been charged" in one_line(result)
