"""What an import costs: a command line and a serverless function pay it every time."""

from __future__ import annotations

import pathlib
import statistics
import subprocess
import sys
import time

from ._report import OURS, Table, installed, publish

ROUNDS = 21
MODULES = (OURS, "aiohttp", "httpx", "fal_client", "replicate", "openai")

SAID = (
    "Milliseconds of wall-clock time of a fresh `python -c 'import …'`, less that of "
    "`python -c ''`, medians; byte code is compiled, files are in the cache. All take turns in "
    "each round. `veo3_async` loads aiohttp with the first client, so that is shown beside it."
)


def took(statement: str) -> float:
    """Return milliseconds of a fresh interpreter that runs a statement."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return (time.perf_counter() - began) * 1e3


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
    publish(results, "imports", SAID, table)
