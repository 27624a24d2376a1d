"""The same benchmarks with another commit beside this one, in turns, in one run."""

from __future__ import annotations

import contextlib
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ._report import Table

HERE = pathlib.Path(__file__).resolve().parent.parent

Cell = tuple[str, str, str]
"""The title of a table, a row, and a column."""


def compare(names: Sequence[str], revision: str, *, rounds: int, quick: bool) -> None:
    """Run each benchmark so often in both commits, and print what became of each number.

    Each commit runs its own benchmarks: what was renamed in between, and rows that only one of
    them has, are left out.
    """
    with _checked_out(revision) as there:
        for name in names:
            found: dict[pathlib.Path, list[dict[Cell, float]]] = {there: [], HERE: []}
            for turn in range(rounds):
                for where, results in found.items():
                    sys.stderr.write(f"{name}, {turn + 1} of {rounds}, in {where.name} …\n")
                    results.append(_measured(where, name, quick=quick))
            for table in _tables(_medians(found[there]), _medians(found[HERE]), revision):
                sys.stdout.write(f"# {name}\n\n{table.markdown()}\n\n")


@contextlib.contextmanager
def _checked_out(revision: str) -> Iterator[pathlib.Path]:
    """Yield a directory with the files of a commit, which is removed after."""
    git = ["git", "-C", str(HERE), "archive", "--format=tar", revision]
    archive = subprocess.run(git, check=True, stdout=subprocess.PIPE).stdout
    with tempfile.TemporaryDirectory() as parent:
        where = pathlib.Path(parent, revision.replace("/", "_"))
        where.mkdir()
        subprocess.run(["tar", "-x", "-C", str(where)], input=archive, check=True)
        yield where


def _measured(where: pathlib.Path, name: str, *, quick: bool) -> dict[Cell, float]:
    with tempfile.TemporaryDirectory() as results:
        command = [sys.executable, "-m", "benchmarks", name, "--results", results]
        subprocess.run(
            [*command, *["--quick"][: int(quick)]],
            check=True,
            cwd=where,
            env={**os.environ, "PYTHONPATH": str(where)},  # before what is installed
            stdout=subprocess.DEVNULL,
        )
        return parse(pathlib.Path(results, f"{name}.md").read_text())


def parse(text: str) -> dict[Cell, float]:
    """Return the numbers in the tables that `publish` wrote."""
    numbers: dict[Cell, float] = {}
    title, columns = "", list[str]()
    for line in text.splitlines():
        if line.startswith("**") and line.endswith("**"):
            title, columns = line.strip("*"), []
        elif line.startswith("| "):
            row, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            if not columns:
                columns = cells
                continue
            for column, cell in zip(columns, cells, strict=True):
                with contextlib.suppress(ValueError):
                    numbers[title, row, column] = float(cell.replace(",", ""))
    return numbers


def _medians(runs: Iterable[Mapping[Cell, float]]) -> dict[Cell, float]:
    collected: dict[Cell, list[float]] = {}
    for run in runs:
        for cell, number in run.items():
            collected.setdefault(cell, []).append(number)
    return {cell: statistics.median(numbers) for cell, numbers in collected.items()}


def _tables(
    before: Mapping[Cell, float], after: Mapping[Cell, float], revision: str
) -> list[Table]:
    tables: dict[str, Table] = {}
    for cell, new in after.items():
        if (old := before.get(cell)) is not None:
            title, row, column = cell
            table = tables.setdefault(title, Table(title, ["", revision, "now", "now ÷ then"]))
            table.add(f"{row}, {column}", old, new, new / old if old else None)
    return list(tables.values())
