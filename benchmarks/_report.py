"""What a benchmark says: tables on the terminal and in a file, and a picture."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import importlib.util
import io
import math
import pathlib
import platform
import sys
from collections.abc import Iterator, Sequence
from typing import Any

PACKAGES = (
    "aiohttp",
    "msgspec",
    "anyio",
    "uvloop",
    "httpx",
    "fal_client",
    "replicate",
    "openai",
)

OURS = "veo3_async"
COLOURS = ("#0b6e4f", "#9aa5b1", "#c8553d", "#588b8b", "#f28f3b", "#6d597a")


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def environment() -> str:
    """Return one line that says where and when this was measured."""
    versions = [f"{p} {importlib.metadata.version(p)}" for p in PACKAGES if installed(p)]
    today = datetime.datetime.now(tz=datetime.UTC).date()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{today}, {_processor()}, {platform.system()}, {python}, {', '.join(versions)}"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@dataclasses.dataclass
class Table:
    """Rows under a title; numbers are written with three digits that matter."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[object]] = dataclasses.field(default_factory=list)

    def add(self, *cells: object) -> None:
        self.rows.append(cells)

    def markdown(self) -> str:
        cells = [list(self.columns), *([_shown(cell) for cell in row] for row in self.rows)]
        widths = [max(len(row[n]) for row in cells) for n in range(len(self.columns))]
        lines = ["| " + " | ".join(_padded(row, widths)) + " |" for row in cells]
        ruler = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])])
        return "\n".join([f"**{self.title}**", "", lines[0], ruler + "|", *lines[1:]])


def _padded(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *others = zip(cells, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]


def _shown(cell: object) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def publish(results: pathlib.Path, name: str, said: str, *tables: Table) -> None:
    """Print tables and write them to ``NAME.md``.

    :param said: What was measured, how, and what it means.
    """
    body = "\n\n".join([said, *(table.markdown() for table in tables)])
    text = f"# {name}\n\n`python -m benchmarks {name}`: {environment()}\n\n{body}\n"
    sys.stdout.write(text + "\n")
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.md").write_text(text)


@contextlib.contextmanager
def picture(results: pathlib.Path, name: str, *, panels: int = 1) -> Iterator[Any]:
    """Draw into the axes that this gives, and find ``NAME.svg``; give None without matplotlib.

    :param panels: One gives its axes, more give a list of them, which stand two in a row.
    """
    if not installed("matplotlib"):
        sys.stdout.write("matplotlib is not installed: no picture\n\n")
        yield None
        return
    import matplotlib as mpl  # noqa: PLC0415 - takes a second
    from matplotlib.figure import Figure  # noqa: PLC0415

    # The same figures give the same file.
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 9}):
        rows, columns = math.ceil(panels / 2), min(panels, 2)
        figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
        figure.subplots(rows, columns)
        yield figure.axes if panels > 1 else figure.axes[0]
        for one in figure.axes:
            one.spines[["top", "right"]].set_visible(False)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.svg").write_text(file.getvalue())
