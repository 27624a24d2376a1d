"""Terminals of any encoding, and texts of a service that means no good."""

from __future__ import annotations

import json
import pathlib
import subprocess
import unicodedata
from collections.abc import Iterator

import pytest
from cli_service import DONE, MODULE, Command, Service, json_lines, on_terminal, running_service

from veo3_async import InvalidRequest
from veo3_async.cli._output import plain
from veo3_async.testing import Body, Life, Stage

ENCODINGS = ["latin-1", "koi8-r", "cp437", "ascii"]
HOSTILE = "a\x1b[2J\x07b\x85c\u2028d\u2029e\u202ef\u2066g\x9b31mh\x00i\r\nj"
_OBEYED = {"Cc", "Cf", "Zl", "Zp", "Cs"}
_STEPS = Life(
    (Stage({"status": "灯塔…", "prompt": HOSTILE}, polls=4), *DONE.stages), upsample=False
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    with running_service(speed=200) as service:
        yield service


def _obeyed(text: str) -> str:
    """Return what a terminal or a log would obey."""
    return "".join(char for char in text if char != "\n" and unicodedata.category(char) in _OBEYED)


@pytest.mark.posix
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_fault_63_no_encoding_ends_a_command(
    shared: Service, tmp_path: pathlib.Path, encoding: str
) -> None:
    """On a terminal of any encoding each command ends as it does in UTF-8, without a traceback."""
    name = shared.add(life=_STEPS)
    commands = [
        ["watch", name, "--interval", "0.1", "--download", str(tmp_path / "灯塔")],
        ["download", name, str(tmp_path / "é…" / "a.mp4")],
        ["fetch", name],
        ["demo", "--tasks", "2", "--speed", "300"],
    ]
    (tmp_path / "é…").mkdir()
    for arguments in commands:
        with on_terminal(
            shared, *arguments, environment={"PYTHONIOENCODING": encoding}, columns=150
        ) as terminal:
            assert terminal.exit_code() == 0, terminal.text
            assert "Traceback" not in terminal.text


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_fault_63_json_is_json_in_any_encoding(shared: Service, encoding: str) -> None:
    """JSON lines are the same values whatever the encoding is, and a program can read them."""
    done = subprocess.run(
        [*MODULE, "watch", "--json", shared.add(life=_STEPS), "--interval", "0.1"],
        capture_output=True,
        env=shared.environment | {"PYTHONIOENCODING": encoding},
        check=True,
    )
    assert json_lines(done.stdout.decode())[0]["status"] == "灯塔…"


def test_fault_63_json_escapes_what_a_terminal_obeys(command: Command, service: Service) -> None:
    """A program gets the very text; the bytes of it move no cursor and begin no line."""
    name = service.add(
        life=Life((Stage({"status": "x", "enhancedPrompt": HOSTILE, "newField": HOSTILE}),))
    )
    result = command("fetch", name, "--json")
    (line,) = result.out.splitlines()
    assert not _obeyed(line)
    assert HOSTILE in _texts(json.loads(line))


def test_fault_63_no_text_of_the_service_is_obeyed(command: Command, service: Service) -> None:
    """Neither an error nor a new task's id gets a control character to the terminal."""
    service.fault(Body(json.dumps({"task_id": "id\u202e\u2028x"}).encode()), on="submit")
    submitted = command("submit", "a storm")
    assert submitted.code == 0
    assert not _obeyed(submitted.out + submitted.err)
    refusal = {"error": {"err_code": -10011, "message": HOSTILE}}
    service.fault(Body(json.dumps(refusal).encode(), 400))
    refused = command("fetch", "id")
    assert refused.code == 2
    assert not _obeyed(refused.out + refused.err)


def test_fault_63_text_of_an_error_is_one_line() -> None:
    """Whoever logs an error logs one line, without anything to obey, whatever the service said."""
    text = str(InvalidRequest(HOSTILE))
    assert not _obeyed(text)
    assert "\n" not in text


def test_fault_63_plain_text_is_the_one_of_the_package() -> None:
    """Words and emojis keep their joiners; what turns text around does not come through."""
    assert plain("👩\N{ZERO WIDTH JOINER}🚀 \N{RIGHT-TO-LEFT OVERRIDE}x") == (
        "👩\N{ZERO WIDTH JOINER}🚀 \N{REPLACEMENT CHARACTER}x"
    )


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    return [value] if isinstance(value, str) else []
