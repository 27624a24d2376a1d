"""The README tells the truth: its code runs, its diagram is the table, its commands exist."""

from __future__ import annotations

import asyncio
import pathlib
import re
import threading
from collections.abc import Iterator

import pytest
from sybil import Sybil
from sybil.example import Example
from sybil.parsers.markdown import PythonCodeBlockParser

import veo3_async
from veo3_async import LearnedPacing
from veo3_async._lifecycle.phases import ARROWS
from veo3_async._models import FINAL
from veo3_async.testing import FakeVeo3

README = pathlib.Path(__file__).parents[1] / "README.md"

pytestmark = pytest.mark.skipif(not README.exists(), reason="the README is not in a wheel")


def examples() -> list[Example]:
    if not README.exists():
        return []
    found = Sybil(parsers=[PythonCodeBlockParser()]).parse(README).examples()
    recipes = README.read_text().splitlines().index("## Cookbook")  # tests/test_cookbook.py
    return [example for example in found if example.line < recipes]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVeo3]:
    """Run a fake of the service in a loop of its own, and point the environment at it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = FakeVeo3(speed=2000)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result()
    monkeypatch.setenv("AI302_API_KEY", server.api_key)
    monkeypatch.setenv("AI302_BASE_URL", server.url)
    yield server
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.mark.real_time
@pytest.mark.parametrize("example", examples(), ids=lambda e: f"line {e.line}")
def test_code_of_the_readme_runs(
    example: Example,
    service: FakeVeo3,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
) -> None:
    """Every Python block does what it says, in an empty folder, against a fast fake."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LearnedPacing, "delay", lambda *_: 0.02)
    example.evaluate()
    assert service.requests or "asyncio.run" not in example.parsed


def test_code_stands_before_line_35() -> None:
    """Who opens the README sees running code without scrolling."""
    lines = README.read_text().splitlines()
    assert lines.index("```python") + 1 < 35


def drawn() -> set[tuple[str, str]]:
    (diagram,) = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", README.read_text(), re.DOTALL)
    return set(re.findall(r"^    (\S+) --> (\S+)$", diagram, re.MULTILINE))


def test_diagram_is_the_table() -> None:
    """The states and arrows of the diagram are those of the lifecycle, none more and none less."""
    arrows = {(was or "[*]", now) for was, after in ARROWS.items() for now in after}
    ends = {(phase, "[*]") for phase in FINAL}
    assert drawn() == arrows | ends


def test_every_public_error_is_in_the_readme() -> None:
    """Whoever must act finds the error beside what it means."""
    public = vars(veo3_async).items()
    errors = {
        name for name, value in public if isinstance(value, type) and issubclass(value, Exception)
    }
    assert {name for name in errors if f"`{name}`" not in README.read_text()} == set()
