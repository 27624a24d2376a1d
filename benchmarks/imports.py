"""How long a cold import takes, each in a fresh process."""

from __future__ import annotations

import pathlib
import resource
import statistics
import subprocess
import sys
import time

from ._report import COLOURS, OURS, Table, installed, picture, publish

ROUNDS = 25
NOTHING = "nothing"
PROGRAMS = {
    NOTHING: "pass",
    OURS: f"import {OURS}",
    f"{OURS}, client opened": f"import {OURS}, {OURS}._transport",
    "aiohttp": "import aiohttp",
    "fal_client": "import fal_client",
}
RIVALS = ("aiohttp", "fal_client")
ROOT = pathlib.Path(__file__).parents[1]

SAID = (
    "Wall and CPU time of `python -c 'import …'`, a fresh process each time, milliseconds, medians "
    "of {rounds} rounds in which all take turns, after a first one that does not count; the byte "
    "code is there. *nothing* is what Python itself takes to begin and end, and is in every row; "
    "*over nothing* is without it. *client opened* is with the part that loads aiohttp, which "
    "`veo3_async` puts off until a client is opened.{skipped}"
)

Sample = tuple[float, float]
"""Wall and CPU time, milliseconds."""


def timed(code: str) -> Sample:
    began, cpu = time.perf_counter(), _children()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    return (time.perf_counter() - began) * 1e3, (_children() - cpu) * 1e3


def _children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def loaded(code: str) -> int:
    """Return how many modules are there after an import."""
    run = [sys.executable, "-c", f"import sys\n{code}\nprint(len(sys.modules))"]
    return int(subprocess.run(run, check=True, cwd=ROOT, stdout=subprocess.PIPE).stdout)


def measured(programs: dict[str, str], rounds: int) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {name: [] for name in programs}
    for code in programs.values():
        timed(code)
    for _ in range(rounds):
        for name, code in programs.items():
            samples[name].append(timed(code))
    return samples


def main(results: pathlib.Path, *, quick: bool = False) -> None:
    rounds = 2 if quick else ROUNDS
    missing = [name for name in RIVALS if not installed(name)]
    programs = {name: code for name, code in PROGRAMS.items() if name not in missing}
    samples = measured(programs, rounds)
    skipped = "".join(f" {name} is not installed, and is left out." for name in missing)
    table = Table("milliseconds", ["", "wall", "CPU", "over nothing, CPU", "modules"])
    medians = {
        name: (statistics.median(wall for wall, _ in own), statistics.median(cpu for _, cpu in own))
        for name, own in samples.items()
    }
    for name, (wall, cpu) in medians.items():
        table.add(name, wall, cpu, cpu - medians[NOTHING][1], loaded(programs[name]))
    publish(results, "imports", SAID.format(rounds=rounds, skipped=skipped), table)
    with picture(results, "imports") as axes:
        if axes is not None:
            names = [*medians][::-1]
            colours = [COLOURS[0] if OURS in name else COLOURS[1] for name in names]
            bars = axes.barh(names, [medians[name][1] for name in names], color=colours)
            axes.bar_label(bars, fmt="%.0f", padding=3)
            axes.set_xlabel("ms of CPU for a process that imports it")
