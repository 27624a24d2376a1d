"""Run the benchmarks that are named, or all."""

from __future__ import annotations

import argparse
import importlib
import inspect
import pathlib

from ._compare import compare

NAMES = (
    "imports",
    "poll_cost",
    "memory",
    "idle",
    "fan_out",
    "rate_limit",
    "simulation",
    "restart",
    "pacing",
    "journal",
    "download",
    "cluster",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="prove that it runs, in a second")
    parser.add_argument(
        "--results", type=pathlib.Path, default=pathlib.Path(__file__).with_name("results")
    )
    parser.add_argument("--compare", metavar="REV", help="run them in that commit too, in turns")
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="turns of --compare (default: 3)"
    )
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}")
    if options.compare:
        compare(options.names or NAMES, options.compare, rounds=options.rounds, quick=options.quick)
        return
    for name in options.names or NAMES:
        run = importlib.import_module(f"benchmarks.{name}").main
        if "quick" in inspect.signature(run).parameters:
            run(options.results, quick=options.quick)
        elif not options.quick:
            run(options.results)


if __name__ == "__main__":
    main()
