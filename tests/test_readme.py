"""The README and its pages are true: code runs, the diagram is the table, texts exist."""

from __future__ import annotations

import ast
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
PACKAGE = pathlib.Path(veo3_async.__file__).parent
README = TESTS.parent / "README.md"
OPERATING = PACKAGE / "OPERATING.md"
MANUAL = PACKAGE / "cluster" / "README.md"
PAGES = (
    README,
    OPERATING,
    MANUAL,
    TESTS / "FAULTS.md",
    TESTS.parent / "benchmarks" / "README.md",
    TESTS.parent / "benchmarks" / "COMPARISON.md",
)

pytestmark = pytest.mark.skipif(not README.exists(), reason="the README is not in a wheel")


def examples(*pages: pathlib.Path) -> list[Example]:
    parse = Sybil(parsers=[PythonCodeBlockParser()]).parse
    return [example for page in pages if page.exists() for example in parse(page).examples()]


def id_of(example: Example) -> str:
    return f"{pathlib.Path(example.path).stem}, line {example.line}"


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
@pytest.mark.parametrize("example", examples(README, OPERATING), ids=id_of)
def test_code_of_the_pages_runs(
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


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_code_of_the_pages_has_types(tmp_path: pathlib.Path) -> None:
    """Who copies a block into a strictly typed program gets no complaint from mypy."""
    blocks = examples(README, OPERATING, MANUAL)
    for number, block in enumerate(blocks):
        (tmp_path / f"block_{number}.py").write_text(block.parsed, encoding="utf-8")
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = true\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, tmp_path],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
        check=False,
    )
    assert f"no issues found in {len(blocks)} source files" in done.stdout, done.stdout


def test_code_stands_before_line_35() -> None:
    """Who opens the README sees running code without scrolling."""
    lines = README.read_text().splitlines()
    assert lines.index("```python") + 1 < 35


def drawn() -> set[tuple[str, str]]:
    (diagram,) = re.findall(r"```mermaid\nflowchart LR\n(.*?)```", README.read_text(), re.DOTALL)
    lines = re.findall(r"^    (.+) --> (.+)$", diagram, re.MULTILINE)
    return {(was, now) for was, after in lines for now in after.split(" & ")}


def test_diagram_is_the_table() -> None:
    """The states and arrows of the diagram are those of the lifecycle, none more and none less."""
    arrows = {(was or "start(( ))", now) for was, after in ARROWS.items() for now in after}
    assert drawn() == arrows
    assert {f"`{end}`" for end in FINAL if f"`{end}`" not in README.read_text()} == set()


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


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: f"{page.parent.name}/{page.name}")
def test_links_between_the_pages_lead_to_files(page: pathlib.Path) -> None:
    """A page that stands beside what it describes names its neighbours from there."""
    if not page.exists():
        pytest.skip("the page is not in a wheel")
    targets = re.findall(r"\]\(([^)]*)\)", page.read_text(encoding="utf-8"))
    files = [target for target in targets if "://" not in target]
    assert [file for file in files if not (page.parent / file).exists()] == []


def texts_of_the_package() -> str:
    """Return every text in the package, a line each, with … for what is filled in."""
    texts = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                texts.append("".join(map(str, parts)))
    lines = (" ".join(text.split()) for text in texts)
    return "\n".join(re.sub(r"%(?:s|r|d|\.0f)", "…", line) for line in lines)


def test_texts_of_the_operators_page_are_those_of_the_package() -> None:
    """Who searches the page for what the log or an error says finds it there, word for word."""
    page = OPERATING.read_text(encoding="utf-8")
    log = re.findall(r"^\| (?:INFO|WARNING|ERROR|DEBUG) \| `([^`]+)`", page, re.MULTILINE)
    alarms = re.findall(r"^\| log, (?:WARNING|ERROR): `([^`]+)`", page, re.MULTILINE)
    errors = page.partition("## Troubleshooting")[2].partition("\n## ")[0]
    troubles = re.findall(r"^\| `([^`]+)` \|", errors, re.MULTILINE)
    assert min(len(log), len(alarms), len(troubles)) > 2
    texts = texts_of_the_package()
    named = {text.removeprefix("… ").removesuffix(" …") for text in [*log, *alarms, *troubles]}
    named |= set(re.findall(r"`(veo3\.[a-z_.0-9]+)`", page)) - {"veo3.db"}
    assert {text for text in named if text not in texts} == set()


def test_the_manual_speaks_of_attributes_that_exist() -> None:
    """What the pages say to look at in the statistics is there."""
    pages = README.read_text(encoding="utf-8") + OPERATING.read_text(encoding="utf-8")
    named = set(re.findall(r"stats\(\)\.(\w+)", pages))
    assert named
    assert named <= set(veo3_async.Stats.__struct_fields__)


def test_repository_of_the_links_is_that_of_the_package() -> None:
    """The links of the README and the addresses that the package is published with are one."""
    with (README.parent / "pyproject.toml").open("rb") as file:
        urls = tomllib.load(file)["project"]["urls"]
    assert REPOSITORY == f"{urls['Homepage']}/blob/main/"


RESULTS = TESTS.parent / "benchmarks" / "results"


def numbers(text: str) -> list[str]:
    return re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?", text)


def measured(section: str, row: str) -> set[float]:
    """Return the figures of the results that a row links to, else its section, else of all."""
    names = re.findall(r"results/(\w+)\.md", row) or re.findall(r"results/(\w+)\.md", section)
    files = [RESULTS / f"{name}.md" for name in names] or RESULTS.glob("*.md")
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return {float(number.replace(",", "")) for number in numbers(text)}


@pytest.mark.parametrize("page", [README, *PAGES[-2:]], ids=["readme", "benchmarks", "comparison"])
def test_figures_are_those_of_the_results(page: pathlib.Path) -> None:
    """Each figure in a table of measurements is one that a benchmark wrote, rounded or not."""
    text = page.read_text(encoding="utf-8")
    if page == README:
        text = text.partition("\n## Measured\n")[2].partition("\n## ")[0]
    wrong = []
    for section in text.split("\n## "):
        for row in re.findall(r"^\|.*$", section, re.MULTILINE):
            there = measured(section, row)
            for number in numbers(re.sub(r"\]\([^)]*\)", "", row)):
                digits, value = len(number.partition(".")[2]), float(number.replace(",", ""))
                if value not in {round(figure, digits) for figure in there}:
                    wrong.append(f"{number} in {row}")
    assert wrong == []


def code_after(heading: str) -> str:
    after = README.read_text().partition(f"\n## {heading}\n")[2]
    (code,) = re.findall(r"^```python\n(.*?)^```", after, re.DOTALL | re.MULTILINE)[:1]
    return str(code)


@pytest.mark.timeout(300)
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
