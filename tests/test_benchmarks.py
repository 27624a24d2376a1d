"""The benchmarks run: what they measure is nobody's business here, and no time is looked at."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from benchmarks.__main__ import NAMES
from benchmarks._compare import parse
from benchmarks._report import Table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_and_writes_down_what_it_found(name: str, tmp_path: pathlib.Path) -> None:
    """``--quick`` ends well, and leaves a table under a line that says where it was made."""
    command = [sys.executable, "-m", "benchmarks", name, "--quick", "--results", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    written = (tmp_path / f"{name}.md").read_text()
    assert f"`python -m benchmarks {name}`: 20" in written
    assert "\n|--" in written


def test_an_unknown_name_is_refused() -> None:
    """A misspelt benchmark is an error, and nothing runs."""
    command = [sys.executable, "-m", "benchmarks", "pol_cost"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "no benchmark is named pol_cost" in run.stderr


def test_the_numbers_of_a_table_are_read_back() -> None:
    """What is compared is what was written: by table, row and column, and numbers alone."""
    table = Table("Watching", ["", "CPU s", "note"])
    table.add("ours", 12_345.6, "fast")
    table.add("theirs", None, 2)
    text = f"# idle\n\nsome words\n\n{table.markdown()}\n"
    assert parse(text) == {
        ("Watching", "ours", "CPU s"): 12_346,
        ("Watching", "theirs", "note"): 2,
    }


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_another_commit_runs_beside_this_one(tmp_path: pathlib.Path) -> None:
    """``--compare`` runs both commits and prints each number of both, and their ratio."""
    place = tmp_path / "project"
    shutil.copytree(ROOT / "benchmarks", place / "benchmarks")
    shutil.copytree(ROOT / "veo3_async", place / "veo3_async")
    shutil.copytree(ROOT / "tests" / "replies", place / "tests" / "replies")
    for words in (
        ["init", "--quiet"],
        ["add", "."],
        ["-c", "user.name=x", "-c", "user.email=x@example", "commit", "--quiet", "-m", "then"],
    ):
        subprocess.run(["git", *words], cwd=place, check=True)
    command = [sys.executable, "-m", "benchmarks", "idle", "--quick", "--rounds=1"]
    run = subprocess.run(
        [*command, "--compare=HEAD"],
        cwd=place,
        env={name: value for name, value in os.environ.items() if "COVERAGE" not in name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "now ÷ then |" in run.stdout
    assert "veo3_async, CPU s per hour" in run.stdout
