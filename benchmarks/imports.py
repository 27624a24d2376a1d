"""What an import costs: a command line and a serverless function pay it every time."""

from __future__ import annotations

import pathlib
import statistics
import subprocess
import sys
import time

from ._loopback import Service, serving
from ._report import OURS, Table, installed, publish

ROUNDS = 21
OPENINGS = {
    "nothing": "nothing happens",
    "ours": f"{OURS}, async with and a poll",
    "aiohttp_on_the_loop": "aiohttp, imported there, and a GET",
}
MODULES = (OURS, "aiohttp", "httpx", "fal_client", "replicate", "openai")

SAID = (
    "Milliseconds of wall-clock time of a fresh `python -c 'import …'`, less that of "
    "`python -c ''`, medians; byte code is compiled, files are in the cache. All take turns in "
    "each round. `veo3_async` loads aiohttp with the first client, so that is shown beside it. "
    "*stall* is the longest delay of a 1 ms ticker in a running loop that gets its first client, "
    "in a fresh process each: by `async with Veo3Client()` and a first poll, or by what imports "
    "aiohttp where it is used, and makes a first request. *own* is as much of "
    "it as the process was busy in, which other processes of the machine do not lengthen."
)


def took(statement: str) -> float:
    """Return milliseconds of a fresh interpreter that runs a statement."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return (time.perf_counter() - began) * 1e3


def stall(way: str, url: str) -> tuple[float, float]:
    """Return milliseconds by which the loop of a fresh interpreter is late, and its own part."""
    command = [sys.executable, "-m", "benchmarks._opening", way, url]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    late, own = map(float, done.stdout.split())
    return late, own


def _stalls(rounds: int) -> Table:
    columns = ["", "median", "longest", "own, median", "own, longest"]
    table = Table("Stall of a running loop, ms", columns)
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in OPENINGS}
    with serving(Service()) as url:
        for _ in range(rounds):
            for way, samples in found.items():
                samples.append(stall(way, url))
    for way, samples in found.items():
        figures = [f(side) for side in zip(*samples, strict=True) for f in (statistics.median, max)]
        table.add(OPENINGS[way], *figures)
    return table


def main(results: pathlib.Path, *, quick: bool = False) -> None:
    statements = {"": ""} | {m: f"import {m}" for m in MODULES if installed(m)}
    statements[f"{OURS}, first client"] = f"import {OURS}; {OURS}.Veo3Client('no-key')"
    times: dict[str, list[float]] = {name: [] for name in statements}
    for turn in range(1 if quick else ROUNDS + 1):
        for name, statement in statements.items():
            milliseconds = took(statement)
            if turn or quick:  # the first is the warm-up
                times[name].append(milliseconds)
    nothing = statistics.median(times.pop(""))
    medians = {name: statistics.median(samples) - nothing for name, samples in times.items()}
    table = Table("Cold import", ["", "ms", f"× {OURS}"])
    for name, milliseconds in medians.items():
        table.add(name, milliseconds, f"{milliseconds / medians[OURS]:.2f}")
    publish(results, "imports", SAID, table, _stalls(1 if quick else ROUNDS))
