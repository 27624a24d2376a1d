"""The command line with pipes for its streams: help, the key, demo, serve, hostile servers."""

from __future__ import annotations

import importlib.metadata
import pathlib
import re
import shlex
import signal
import subprocess
import sys

import pytest
from cli_service import (
    DONE,
    FOREVER,
    KEY,
    MODULE,
    Command,
    Result,
    Service,
    needs_bash,
    one_line,
)

from veo3_async.testing import Body, Slow, Status

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
    assert command("-V") == command("--version")


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


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_what_a_shell_takes(command: Command, shell: str) -> None:
    """A script for the shell that is named, and where it goes; in bash it completes."""
    result = command("completion", shell)
    assert result.code == 0
    assert f"complete_{shell}" in result.out
    assert shell in result.err
    if shell == "bash":
        script = result.out + "\ncomplete -p veo3-async"
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, check=True, env={"PATH": "/bin"}
        )
        assert "_veo3_async_completion" in done.stdout


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
        (["watch", "--base-url", "nowhere", "a"], "--base-url is a URL"),
        (["watch", "--timeout", "5 weeks", "a"], "such as 5m"),
        (["submit", "x", "--param", "9:16"], "NAME=VALUE"),
        (["submit", "x", "--param", "nope=1"], "nope"),
        (["submit", "x", "--metadata", "{"], "--metadata is JSON"),
        (["submit", "x", "--file", __file__], "leave out the others"),
        (["submit", "--file", "/dev/null"], "no prompt in /dev/null"),
        (["watch", "--output", "x", "a", "b"], "--download DIR"),
        (["watch", "--output", "x", "--download", ".", "a"], "exclude each other"),
        (["watch", "--output", "/nowhere/x", "a"], "no directory /nowhere"),
        (["watch", "--download", "/dev/null/x", "a"], "cannot be made"),
        (["watch", "a\nb"], "request id"),
        (["submit"], "--prompt-file"),
        (["submit", ""], "prompt"),
        (["submit", "x", "--image", "cat.jpg"], "no file cat.jpg"),
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
    result = command("watch", "--json", "id")
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
    file.chmod(0o600)
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
        f"  {name}  waiting: {trouble.removeprefix('veo3-async: ').partition(' (')[0]}",
        "to go on:",
        f"  {shlex.join([*MODULE, 'watch', '--until', 'video', name])}",
    ]


# --- demo and serve -----------------------------------------------------------------------


def test_demo_ends_as_it_should(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten lives, one of each kind at least, end as they must, without a key."""
    monkeypatch.delenv("AI302_API_KEY")
    result = command("demo", "--json", "--tasks", "10", "--speed", "150")
    ends = [line["phase"] for line in result.lines if line["final"]]
    assert result.code == 0
    assert sorted(ends) == sorted(["completed"] * 8 + ["completed_plain", "failed"])
    assert "10 tasks: 9 videos, 1 failed\nevery one ended as it should" in result.err
    polls = re.search(r"with ([\d.]+) polls a task", result.err)
    assert polls is not None
    assert float(polls[1]) < 40


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
    result = command("watch", "--json", slow, quick)
    assert [line["request_id"] for line in result.lines] == [quick, slow]
