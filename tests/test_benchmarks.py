"""The benchmarks run: what they measure is nobody's business here, and no time is looked at."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from benchmarks.__main__ import NAMES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

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
    """Who misspells a benchmark is told so, and nothing runs."""
    command = [sys.executable, "-m", "benchmarks", "pol_cost"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "no benchmark is named pol_cost" in run.stderr
