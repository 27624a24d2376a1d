"""The README tells the truth: its code runs, its diagram is the table, its commands exist."""

from __future__ import annotations

import asyncio
import pathlib
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator

import pytest
from cookbook_life import RECIPES
from sybil import Sybil
from sybil.example import Example
from sybil.parsers.markdown import PythonCodeBlockParser

import veo3_async
from veo3_async import LearnedPacing
from veo3_async._lifecycle.phases import ARROWS
from veo3_async._models import FINAL
from veo3_async.testing import FakeVeo3

TESTS = pathlib.Path(__file__).parent
README = TESTS.parent / "README.md"

pytestmark = pytest.mark.skipif(not README.exists(), reason="the README is not in a wheel")


def examples() -> list[Example]:
    if not README.exists():
        return []
    return list(Sybil(parsers=[PythonCodeBlockParser()]).parse(README).examples())


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


REPOSITORY = "https://github.com/veo3-async/veo3-async/blob/main/"
RAW = "https://raw.githubusercontent.com/veo3-async/veo3-async/main/"


def test_links_are_absolute_and_lead_to_files_of_this_repository() -> None:
    """The page of the package has no folder beside it; a file that moves takes its links along."""
    targets = re.findall(r"\]\(([^)]*)\)", README.read_text())
    assert [target for target in targets if not target.startswith("https://")] == []
    ours = [re.sub(f"^(?:{REPOSITORY}|{RAW})", "", target) for target in targets]
    files = [file for file in ours if "//" not in file]
    roots = (README.parent, pathlib.Path(veo3_async.__file__).parents[1])  # a wheel is elsewhere
    assert [file for file in files if not any((root / file).is_file() for root in roots)] == []
    recipes = {f"tests/cookbook/{file.name}" for file in RECIPES.glob("*.py")}
    assert recipes <= set(files)


def test_repository_of_the_links_is_that_of_the_package() -> None:
    """The links of the README and the addresses that the package is published with are one."""
    with (README.parent / "pyproject.toml").open("rb") as file:
        urls = tomllib.load(file)["project"]["urls"]
    assert REPOSITORY == f"{urls['Homepage']}/blob/main/"


def code_after(heading: str) -> str:
    after = README.read_text().partition(f"\n## {heading}\n")[2]
    (code,) = re.findall(r"^```python\n(.*?)^```", after, re.DOTALL | re.MULTILINE)[:1]
    return str(code)


@pytest.mark.timeout(180)
def test_recipe_for_a_users_own_test_passes(tmp_path: pathlib.Path) -> None:
    """What a user copies into a test file passes there, with nothing configured."""
    (tmp_path / "test_mine.py").write_text(code_after("Testing your bot"))
    (tmp_path / "conftest.py").write_text(
        "import pytest\n\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_every_fault_that_a_test_names_is_in_the_list() -> None:
    """The number in the name of a test is a row of FAULTS.md, and each row stands there once."""
    rows = re.findall(r"^\| (\d+) \|", (TESTS / "FAULTS.md").read_text(), re.MULTILINE)
    named = {
        str(int(number))
        for path in TESTS.rglob("test_*.py")
        for number in re.findall(r"def test_fault_(\d+)_", path.read_text())
    }
    assert len(rows) == len(set(rows))
    assert named - set(rows) == set()
