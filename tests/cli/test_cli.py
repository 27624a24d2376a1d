"""The command line with pipes for its streams: what programs read, and how errors look."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
from cli_service import KEY, MODULE, Service, running_service

from veo3_async import Journal, Veo3Client, VideoTask
from veo3_async.cli import main
from veo3_async.cli._show import show_task
from veo3_async.testing import Body, Drip, HangUp, Life, Slow, Stage, Status

FOREVER = Life((Stage({"status": "video_generating"}),))
DONE = Life(Life.plain().stages[-1:], upsample=False)
FAILED = Life(Life.failing().stages[-1:])
TWO_STEPS = Life((Stage({"status": "video_generating"}, polls=1), *DONE.stages), upsample=False)


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")

_THROUGH_JQ = '"$@" --json | jq -r "select(.final) | .request_id"'

Command = Callable[..., Result]


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service(speed=200) as service:
        yield service


@pytest.fixture
def command(
    service: Service, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """Return a function that runs a command in this process, with the key in the environment."""
    monkeypatch.setenv("AI302_API_KEY", KEY)
    monkeypatch.setenv("AI302_BASE_URL", service.server.url)

    def run(*arguments: str, stdin: str = "") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        monkeypatch.setattr(sys, "argv", ["/usr/bin/veo3-async", *arguments])
        code = main(arguments)
        result = Result(code, *capfd.readouterr())
        assert KEY not in result.out + result.err
        assert "Traceback" not in result.err
        return result

    return run


def one_line(result: Result) -> str:
    """Return the only line on stderr; nothing is on stdout."""
    (line,) = result.err.splitlines()
    assert result.out == ""
    return line


# --- without the service ------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_says_how_to_install_it(missing: str) -> None:
    """Where typer or rich is missing, one line says what to install."""
    program = f"""if True:
        import sys
        sys.modules["{missing}"] = None
        from veo3_async.cli import main
        sys.exit(main(["demo"]))"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == ("veo3-async: typer or rich is missing: pip install 'veo3_async[cli]'\n")


def test_help_loads_no_aiohttp() -> None:
    """Whoever only asks for help does not wait for what talks to the network."""
    program = (
        "import sys; before = set(sys.modules)\n"  # a coverage run has loaded sqlite3
        "from veo3_async.cli import main; code = main(['watch', '--help'])\n"
        "sys.exit(code or bool({'aiohttp', 'sqlite3'} & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0


def test_help_says_where_the_api_is(command: Command) -> None:
    """The address that is taken where none is given."""
    assert "https://api.302.ai" in command("fetch", "--help").out


@pytest.mark.parametrize("arguments", [["--help"], ["watch", "--help"], ["submit", "-h"]])
def test_help_documents_the_exit_codes(command: Command, arguments: list[str]) -> None:
    """Help says what each exit code means."""
    result = command(*arguments)
    text = " ".join(result.out.split())
    assert result.code == 0
    assert "Exit codes: 0 all is there; 1 some failed" in text
    assert "2 usage: an argument, an id or a prompt cannot be used; 3 the key or its quota" in text
    assert "130 Ctrl-C; 143 SIGTERM." in text


def test_without_a_command_it_shows_help(command: Command) -> None:
    """The bare program shows what it can do, and that this was no use of it."""
    result = command()
    assert result.code == 2
    assert "demo" in result.out


def test_version_is_that_of_the_package(command: Command) -> None:
    """--version tells what is installed."""
    try:
        version = importlib.metadata.version("veo3_async")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed, only imported")
    assert command("--version") == Result(0, f"veo3-async {version}\n", "")


def test_version_of_a_checkout_that_is_not_installed_is_one_line(
    command: Command,
) -> None:
    """Where no installation tells a version, that is said, and how to get one."""
    command("--help")  # loads what it needs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [])  # where installed packages are looked for
        result = command("--version")
    assert result.code == 2
    assert "not installed" in one_line(result)


def test_completion_is_that_of_typer() -> None:
    """Pressing the tabulator after ``veo3-async pen`` offers ``pending``."""
    environment = {
        "_VEO3_ASYNC_COMPLETE": "complete_bash",
        "COMP_WORDS": "veo3-async pen",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(MODULE, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.split() == ["pending"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nope"], "No such command 'nope'"),
        (["watch"], "no request id was given"),
        (["watch", "--nope", "a"], "No such option"),
        (["watch", "--file", "/nowhere", "a"], "/nowhere"),
        (["watch", "--timeout", "-1", "a"], "a number above 0"),
        (["watch", "--interval", "nan", "a"], "a number above 0"),
        (["watch", "--until", "later", "a"], "later"),
        (["watch", "--base-url", "nowhere", "a"], "base_url is a URL"),
        (["watch", "--output", "x", "a", "b"], "--download DIR"),
        (["watch", "--output", "x", "--download", ".", "a"], "exclude each other"),
        (["watch", "--output", "/nowhere/x", "a"], "no directory /nowhere"),
        (["watch", "--download", "/dev/null/x", "a"], "cannot be made"),
        (["watch", "a\nb"], "request id"),
        (["submit"], "--prompt-file"),
        (["submit", ""], "prompt"),
        (["submit", "x", "--image", "cat.jpg"], "public"),
        (["submit", "x", "--key-file", sys.executable], "no text file"),
        (["submit", "--prompt-file", sys.executable], "no UTF-8 text"),
        (["pending", "--journal", "/nowhere.db"], "does not exist"),
        (["demo", "--speed", "0"], "a number above 0"),
        (["demo", "--tasks", "0"], "tasks"),
    ],
)
def test_usage_errors_are_one_line(
    command: Command, service: Service, arguments: list[str], says: str
) -> None:
    """What cannot be done is said in one line, with exit code 2, before anything is sent."""
    result = command(*arguments)
    line = one_line(result)
    assert result.code == 2
    assert line.startswith("veo3-async: ")
    assert says in line
    assert service.server.received == 0


# --- the key ------------------------------------------------------------------------------


def test_without_a_key_it_says_where_one_is_looked_for(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key is exit code 3, and the line names the variable to set."""
    monkeypatch.delenv("AI302_API_KEY")
    result = command("watch", "id")
    assert result.code == 3
    assert "AI302_API_KEY" in one_line(result)


def test_key_comes_from_a_file(
    command: Command, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """The key of --key-file goes before that of the environment; what is around it is cut."""
    monkeypatch.setenv("AI302_API_KEY", "another")
    file = tmp_path / "key"
    file.write_text(f"\ufeff  {KEY}\n", encoding="utf-8")
    assert command("fetch", service.add(life=DONE), "--key-file", str(file)).code == 0


def test_key_that_cannot_be_one_is_not_shown(command: Command, tmp_path: pathlib.Path) -> None:
    """A file with two words in it is refused, and neither is repeated."""
    file = tmp_path / "key"
    file.write_text(f"{KEY} {KEY}")
    result = command("fetch", "id", "--key-file", str(file))
    assert result.code == 3
    assert "white space" in one_line(result)


@pytest.mark.parametrize("status", [Status(401), Status(402)])
def test_key_and_quota_are_exit_code_3_and_say_what_still_runs(
    service: Service, status: Status
) -> None:
    """A refused key ends the watch with 3, told once; the tasks go on, and how to is printed."""
    name = service.add(life=FOREVER)
    service.fault(status)
    words = [*MODULE, "watch", name, "--until", "video"]
    done = subprocess.run(
        words, capture_output=True, text=True, env=service.environment, check=False
    )
    trouble, *rest = done.stderr.splitlines()
    assert done.returncode == 3
    assert trouble.startswith("veo3-async: ")
    assert f"HTTP {status.code}" in trouble
    assert KEY not in done.stderr
    assert rest == [
        "1 task: 0 videos, 1 still running",
        "still running:",
        f"  {name}  waiting",
        "to go on:",
        f"  {shlex.join([*MODULE, 'watch', '--until', 'video', name])}",
    ]


# --- watch --------------------------------------------------------------------------------


def test_watch_writes_a_line_a_transition(command: Command, service: Service) -> None:
    """With a pipe for stdout every transition is a JSON object with the fields of Transition."""
    name = service.add(life=TWO_STEPS)
    result = command("watch", name, "--interval", "0.05")
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
    result = command("watch", one, "-", "--file", str(file), stdin=f"{three}\n# end\n")
    assert sorted(line["request_id"] for line in result.lines) == sorted([one, two, three])
    assert result.code == 0


def test_watch_fails_when_one_of_many_fails(command: Command, service: Service) -> None:
    """One task without a video makes 1 of the exit code, and its line says why."""
    good, bad = service.add(life=DONE), service.add(life=FAILED)
    result = command("watch", good, bad)
    by_id = {line["request_id"]: line for line in result.lines}
    assert result.code == 1
    assert by_id[good]["error"] is None
    assert by_id[bad]["error"]["type"] == "TaskFailed"
    assert "unsafe" in by_id[bad]["error"]["message"]
    assert result.err == "2 tasks: 1 video, 1 failed\n"


def test_watch_until_the_first_video(command: Command, service: Service) -> None:
    """--until video is content before the upsampling."""
    stage = Life.documented().stages[3]
    name = service.add(life=Life((msgspec.structs.replace(stage, seconds=None),)))
    result = command("watch", name, "--until", "video")
    assert result.code == 0
    assert result.lines[-1]["status"] == "video_generation_completed"


def test_timeout_leaves_the_task_running_and_says_so(command: Command, service: Service) -> None:
    """When the time is over the exit code is 1, and the command that goes on is printed."""
    name = service.add(life=FOREVER)
    result = command("watch", name, "--timeout", "0.5", "--interval", "0.1")
    assert result.code == 1
    assert result.lines[-1]["error"]["type"] == "StillPending"
    assert result.err == (
        "1 task: 0 videos, 1 still running\n"
        f"still running:\n  {name}  generating\n"
        f"to go on:\n  /usr/bin/veo3-async watch --interval 0.1 --timeout 0.5 {name}\n"
    )


def test_watch_brings_videos_to_a_directory(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """--download makes the directory, and a line tells where each video is."""
    names = [service.add(life=DONE) for _ in range(3)]
    result = command("watch", *names, "--download", str(tmp_path / "films" / "new"))
    saved = {line["request_id"]: line["path"] for line in result.lines if "path" in line}
    urls = {line["request_id"]: line["url"] for line in result.lines if "url" in line}
    assert result.code == 0
    assert set(saved) == set(names)
    for name, path in saved.items():
        assert pathlib.Path(path).read_bytes() == service.server.film_of(urls[name])
    assert result.err == "3 tasks: 3 videos, 3 saved\n"


def test_download_that_fails_is_exit_code_1(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """A video that is there, and cannot be brought to disk, is a failure with a reason."""
    name = service.add(life=DONE)
    service.fault(Status(404), on="file")
    result = command("watch", name, "--download", str(tmp_path))
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
    words = [*MODULE, "watch", service.add(life=DONE)]
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
    result = command("watch", service.add(life=DONE))
    trouble, summary = result.err.splitlines()
    assert result.code == 0
    assert trouble.endswith("; it is asked again")
    assert summary == "1 task: 1 video"


# --- submit -------------------------------------------------------------------------------


def test_submit_prints_the_id(command: Command, service: Service) -> None:
    """The bare id is on stdout, for ``id=$(veo3-async submit …)``."""
    result = command("submit", "a lighthouse", "--image", "https://example.org/a.jpg")
    assert result == Result(0, service.server.ids[0] + "\n", "")
    (post,) = service.server.requests
    assert json.loads(post.body) == {
        "text_prompt": "a lighthouse",
        "input_image": "https://example.org/a.jpg",
    }
    assert post.path == "/302/submit/veo3-pro-frames"


@pytest.mark.parametrize("source", ["-", "file"])
def test_submit_takes_the_prompt_from_stdin_or_a_file(
    command: Command, service: Service, tmp_path: pathlib.Path, source: str
) -> None:
    """A long prompt comes from a file or a pipe; --json and --model do what they say."""
    file = tmp_path / "prompt"
    file.write_bytes("\ufeffein Leuchtturm\r\nim Stürm\r\n".encode())
    arguments = ["-"] if source == "-" else ["--prompt-file", str(file)]
    result = command(
        "submit", *arguments, "--json", "--model", "veo3-fast", stdin=file.read_text("utf-8")
    )
    assert result.lines == [{"request_id": service.server.ids[0]}]
    (post,) = service.server.requests
    assert json.loads(post.body)["text_prompt"] == "ein Leuchtturm\nim Stürm"
    assert post.path == "/302/submit/veo3-fast"


def test_submit_with_output_waits_and_downloads(command: Command, tmp_path: pathlib.Path) -> None:
    """From prompt to file with one command."""
    target = tmp_path / "storm.mp4"
    result = command("submit", "a storm", "--output", str(target), "--interval", "0.2")
    assert result.code == 0
    assert set(result.lines[0]) == {"request_id"}
    assert result.lines[-1]["path"] == str(target)
    assert target.read_bytes()[4:8] == b"ftyp"


def test_submit_looks_at_the_output_before_it_pays(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """A file that is there is refused before anything is sent; --overwrite replaces it."""
    target = tmp_path / "storm.mp4"
    target.write_text("precious")
    result = command("submit", "a storm", "--output", str(target))
    assert result.code == 2
    assert "--overwrite" in one_line(result)
    assert service.server.received == 0
    wait = ["--interval", "0.2", "--overwrite"]
    assert command("submit", "a storm", "--output", str(target), *wait).code == 0
    assert target.read_bytes()[4:8] == b"ftyp"


def test_submit_that_may_have_arrived_says_so(command: Command, service: Service) -> None:
    """A submission without an answer is no success, and no second one is sent."""
    service.fault(HangUp(), on="submit")
    result = command("submit", "a storm")
    assert result.code == 1
    assert "charged" in one_line(result)
    assert service.server.received == 1


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("reader_is_gone", [True, False])
def test_id_that_stdout_does_not_take_is_on_stderr(
    service: Service, *, reader_is_gone: bool
) -> None:
    """A task that was paid for is never without its id."""
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "w") as gone, pathlib.Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*MODULE, "submit", "a storm", "--wait"],
            stdout=gone if reader_is_gone else full,
            stderr=subprocess.PIPE,
            text=True,
            env=service.environment,
            check=False,
        )
    (name,) = service.server.ids
    assert done.returncode == 1
    assert name in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr


# --- fetch and download -------------------------------------------------------------------


def test_fetch_writes_the_task(command: Command, service: Service) -> None:
    """One look is one line of JSON, whatever the state is."""
    name = service.add(life=FOREVER)
    result = command("fetch", name)
    (task,) = result.lines
    assert result.code == 0
    assert (task["id"], task["status"]) == (name, "video_generating")


def test_a_failed_task_is_shown_with_the_reason(capfd: pytest.CaptureFixture[str]) -> None:
    """As in every error."""
    show_task(VideoTask(status="failed", failure_reason="unsafe", error_message="[403]"))
    assert capfd.readouterr().out.splitlines()[-1].split() == ["error", "unsafe"]


def test_fetch_of_an_unknown_id_is_exit_code_1(command: Command) -> None:
    """An id that the service does not know is one line and 1."""
    result = command("fetch", "veo3-pro:nope")
    assert result.code == 1
    assert "veo3-pro:nope" in one_line(result)


def test_download_of_a_url_needs_no_key(
    command: Command, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """A URL is enough; the path is printed."""
    task = command("fetch", service.add(life=DONE)).lines[0]
    monkeypatch.delenv("AI302_API_KEY")
    target = tmp_path / "a.mp4"
    assert command("download", task["video_url"], str(target)) == Result(0, f"{target}\n", "")
    assert target.read_bytes() == service.server.film_of(task["video_url"])
    again = command("download", task["video_url"], str(target))
    assert again.code == 1
    assert str(target) in one_line(again)


def test_download_of_another_scheme_sends_nothing(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """What looks like a URL is not asked for as an id."""
    result = command("download", "ftp://file.302.ai/a.mp4", str(tmp_path))
    assert result.code == 1
    assert "is not https" in one_line(result)
    assert service.server.received == 0


def test_download_of_an_id_asks_for_its_url(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """An id is looked up; one that has no video yet is refused."""
    name = service.add(life=DONE)
    result = command("download", name, str(tmp_path), "--json")
    (line,) = result.lines
    assert result.code == 0
    assert line["source"] == name
    assert pathlib.Path(line["path"]).parent == tmp_path
    early = command("download", service.add(life=FOREVER), str(tmp_path))
    assert early.code == 1
    assert "no video; the service says 'video_generating'" in one_line(early)


# --- the journal --------------------------------------------------------------------------


def test_journal_is_listed_and_resumed(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """What was submitted with a journal is pending, is gone on with, and then is not any more."""
    journal = ["--journal", str(tmp_path / "veo3.db")]
    name = command("submit", "a storm", *journal).out.strip()
    monkeypatch.delenv("AI302_API_KEY")
    listed = command("pending", *journal)
    (task,) = listed.lines
    assert listed.code == 0
    assert listed.err == "1 pending\n"
    assert (task["request_id"], task["prompt"], task["in_doubt"]) == (name, "a storm", False)
    monkeypatch.setenv("AI302_API_KEY", KEY)
    resumed = command("resume", *journal, "--interval", "0.2")
    assert resumed.code == 0
    assert resumed.lines[-1]["request_id"] == name
    assert resumed.lines[-1]["final"]
    assert command("pending", *journal).err == "0 pending\n"
    assert command("resume", *journal) == Result(0, "", "nothing is pending\n")


def test_what_is_accepted_beside_a_resume_is_not_its_matter(
    command: Command, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Another process gets at the journal when all is over, not between listing and watching."""
    journal = ["--journal", str(tmp_path / "veo3.db")]
    mine, theirs = command("submit", "a storm", *journal).out.strip(), service.add(life=DONE)

    async def aclose_and_let_others_in(veo: Veo3Client) -> None:
        await aclose(veo)
        other = Journal(tmp_path / "veo3.db")
        await other.accept([theirs], at=time.time())
        await other.aclose()

    aclose = Veo3Client.aclose
    with monkeypatch.context() as patch:
        patch.setattr(Veo3Client, "aclose", aclose_and_let_others_in)
        result = command("resume", *journal, "--interval", "0.2")
    assert result.code == 0
    assert {line["request_id"] for line in result.lines} == {mine}
    assert [task["request_id"] for task in command("pending", *journal).lines] == [theirs]


def test_a_journal_is_listed_wherever_the_service_is(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """What asks the service nothing does not mind an address that cannot be one."""
    journal = ["--journal", str(tmp_path / "veo3.db")]
    name = command("submit", "a storm", *journal).out.strip()
    monkeypatch.setenv("AI302_BASE_URL", "nowhere")
    (task,) = command("pending", *journal).lines
    assert task["request_id"] == name


def test_submission_in_doubt_is_named(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """A submission without an answer stays in the journal, and resume names it."""
    journal = ["--journal", str(tmp_path / "veo3.db")]
    service.fault(HangUp(), on="submit")
    assert command("submit", "a storm", *journal).code == 1
    (task,) = command("pending", *journal).lines
    assert (task["request_id"], task["in_doubt"]) == (None, True)
    assert "in doubt, look at your account: a storm" in command("resume", *journal).err


def test_what_was_being_saved_when_the_process_died_is_resumed(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """With --download an end is owed until its video is on disk; those that are, are not."""
    journal, films = ["--journal", str(tmp_path / "veo3.db")], tmp_path / "films"
    names = [service.add(life=Life.plain()) for _ in range(2)]
    service.fault(Drip(0.01), on="file", after=1, times=1)
    words = ["watch", *names, *journal, "--download", str(films), "--interval", "0.05"]
    with subprocess.Popen(
        [*MODULE, *words],
        env=service.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 40
        while True:
            there = list(films.glob("*.mp4"))
            parts = {part.stem for part in films.glob("*.part")}
            if there and len(parts) == 1 and there[0].name not in parts:
                break  # one is saved, and the other one is not
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    (saved,) = there
    before = saved.stat()
    resumed = command("resume", *journal, "--download", str(films), "--interval", "0.05")
    assert resumed.code == 0
    assert len(list(films.glob("*.mp4"))) == 2
    assert not list(films.glob("*.part"))
    assert saved.stat() == before
    assert command("pending", *journal).err == "0 pending\n"


def test_file_that_is_no_journal_is_one_line(command: Command, tmp_path: pathlib.Path) -> None:
    """A file of another kind is left alone."""
    file = tmp_path / "veo3.db"
    file.write_bytes(b"something else entirely" * 100)
    result = command("pending", "--journal", str(file))
    assert result.code == 1
    assert str(file) in one_line(result)
    assert file.read_bytes().startswith(b"something else")


@pytest.mark.parametrize(
    "arguments", [["watch", "id"], ["submit", "a storm"], ["submit", "a storm", "--wait"]]
)
def test_journal_that_cannot_be_opened_is_one_line(
    command: Command, service: Service, tmp_path: pathlib.Path, arguments: list[str]
) -> None:
    """Nothing was begun, so there is nothing to go on with, and no request was made."""
    result = command(*arguments, "--journal", str(tmp_path / "missing" / "veo3.db"))
    assert result.code == 1
    assert "check that its directory exists" in one_line(result)
    assert service.server.received == 0


@pytest.mark.parametrize("name", ["pending", "resume"])
def test_journal_that_is_not_there_is_a_usage_error(
    command: Command, tmp_path: pathlib.Path, name: str
) -> None:
    """What is only read is not made."""
    result = command(name, "--journal", str(tmp_path / "missing" / "veo3.db"))
    assert result.code == 2
    assert "does not exist" in one_line(result)


# --- demo and serve -----------------------------------------------------------------------


def test_demo_ends_as_it_should(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten lives, one of each kind at least, end as they must, without a key."""
    monkeypatch.delenv("AI302_API_KEY")
    result = command("demo", "--json", "--tasks", "10", "--speed", "150")
    ends = [line["phase"] for line in result.lines if line["final"]]
    assert result.code == 0
    assert sorted(ends) == sorted(["completed"] * 8 + ["completed_plain", "failed"])
    assert "10 tasks: 9 videos, 1 failed\nevery one ended as it should" in result.err


def test_demo_tells_people_wherever_its_output_goes(command: Command) -> None:
    """Without ``--json`` a file gets what a terminal keeps: a line for each task."""
    result = command("demo", "--tasks", "3", "--speed", "300")
    assert result.code == 0
    assert [line.split()[0].startswith("veo3-pro:") for line in result.out.splitlines()] == [
        True
    ] * 3


@needs_bash
def test_serve_prints_what_a_bot_needs() -> None:
    """The printed settings, taken as they are, let another program submit and watch."""
    with subprocess.Popen(
        [*MODULE, "serve", "--speed", "1000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as server:
        try:
            assert server.stdout is not None
            settings = [server.stdout.readline().decode() for _ in range(2)]
            script = "".join(settings) + 'exec "$@"'
            words = [*MODULE, "submit", "a storm", "--wait", "--interval", "0.1"]
            client = subprocess.run(
                ["bash", "-c", script, "-", *words], capture_output=True, text=True, check=False
            )
            assert client.returncode == 0, client.stderr
        finally:
            server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=60)
        assert server.returncode == 0
        assert b"Traceback" not in err


def test_serve_on_a_taken_port_is_a_usage_error(command: Command, service: Service) -> None:
    """A port that is in use is one line."""
    port = service.server.url.rpartition(":")[2]
    result = command("serve", "--port", port)
    assert result.code == 2
    assert f"port {port} cannot be used" in one_line(result)


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


# --- hostile servers ----------------------------------------------------------------------


def test_what_a_server_says_moves_no_cursor(command: Command, service: Service) -> None:
    """Escape sequences in an error of the service do not get to the terminal."""
    body = b'{"error": {"err_code": -10011, "message": "\\u001b[2J\\u0007boo\\nhoo"}}'
    service.fault(Body(body, 400))
    result = command("fetch", "id")
    assert result.code == 2
    line = one_line(result)
    assert "boo hoo" in line
    assert line.isprintable()


def test_slow_service_blocks_nothing(command: Command, service: Service) -> None:
    """A task that answers late does not hold up another."""
    slow, quick = service.add(life=DONE), service.add(life=DONE)
    service.fault(Slow(1.0), request_id=slow)
    result = command("watch", slow, quick)
    assert [line["request_id"] for line in result.lines] == [quick, slow]
