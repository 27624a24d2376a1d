"""Commands to paste: what a real shell makes of them is the words that they were made of."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo3_async.cli._given import given_ids
from veo3_async.cli._shell import continued, quoted

SHELLS = [path for shell in ("sh", "bash", "zsh") if (path := shutil.which(shell))]
ODD_IDS = [
    "END",
    "EOF",
    "-x",
    "--journal",
    "-",
    "#1",
    "it's",
    "$(touch gone)",
    "`touch gone`",
    "!!",
    "a b",
    "a\\nb",
    "%s%n",
    "~",
    "*",
    "veo3:\N{RIGHT-TO-LEFT OVERRIDE}gpj",
    "veo3:\N{LINE SEPARATOR}rm -rf .",
    "灯塔",
    "a\N{NEXT LINE}1é",
]
# What follows the marker of a command is what the command line gets: its arguments and its stdin.
_ECHO = (
    "import sys; sys.stdout.buffer.write(chr(0).join([*sys.argv[1:], sys.stdin.read()]).encode())"
)


def _received(command: str, shell: str) -> list[str]:
    """Return the ids that a command to paste brings to the program in it."""
    done = subprocess.run(
        [shell, "-c", command],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={"PYTHONUTF8": "1", "PATH": "/nowhere"},
        check=True,
    )
    *arguments, stdin = done.stdout.decode().split(chr(0))
    words = [word for word in arguments if word != "--"]
    lines = [line for line in stdin.split("\n") if line and not line.startswith("#")]
    return [word for word in words if word != "-"] + (lines if "-" in words else [])


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("copies", [1, 30])
def test_fault_64_no_id_is_run_by_the_shell(shell: str, copies: int) -> None:
    """Whatever the ids are, few or many, the pasted command brings each of them, and runs none."""
    ids = [name if copies == 1 else f"{name}{n}" for n in range(copies) for name in ODD_IDS]
    ids += ODD_IDS if copies > 1 else []
    command = continued([sys.executable, "-c", _ECHO], ids)
    assert sorted(_received(command, shell)) == sorted(ids)
    assert command.isascii()
    assert all(line.isprintable() for line in command.splitlines())


@given(word=st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"])))
def test_fault_64_quoted_words_are_printable_ascii(word: str) -> None:
    """A word for a shell has nothing in it that a terminal shows otherwise, or obeys."""
    assert quoted(word).isascii()
    assert quoted(word).isprintable()


def test_ids_of_a_pasted_command_are_read_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command brings as arguments is read as ids, a leading # included."""
    del monkeypatch
    assert given_ids(["#1", "-x"], None) == ["#1", "-x"]
