"""What ``submit`` writes into pipes, and what it refuses before it pays."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import pytest
from cli_service import (
    MODULE,
    Command,
    Result,
    Service,
    one_line,
)

from veo3_async.testing import HangUp


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
    result = command("submit", "--json", "a storm", "--output", str(target), "--interval", "0.2")
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
    posts = [request for request in service.server.requests if request.method == "POST"]
    assert len(posts) == 1


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
