"""What is promised of the package as a whole: its names, its imports, its tests."""

from __future__ import annotations

import ast
import importlib.metadata
import pathlib
import subprocess
import sys

import pytest

import veo3_async
import veo3_async.testing

TESTS = pathlib.Path(__file__).parent

# Each takes long to load, or comes with an extra that may not be installed.
LOADED_LATER = {"aiohttp", "nats", "rich", "sqlite3", "typer"}


@pytest.mark.parametrize("module", [veo3_async, veo3_async.testing], ids=lambda m: m.__name__)
def test_every_public_name_is_there_and_sorted(module: object) -> None:
    """``__all__`` has no name that is missing, no name twice, and the order of the linter."""
    names = module.__all__  # type: ignore[attr-defined]
    assert sorted(set(names), key=lambda name: (not name.isupper(), name)) == names
    assert [name for name in names if not hasattr(module, name)] == []


def test_every_public_name_is_used_in_the_typing_test() -> None:
    """A name that no user's code is written for has types that nobody has looked at."""
    api = ast.parse((TESTS / "typing" / "api.py").read_text(encoding="utf-8"))
    used = {node.id for node in ast.walk(api) if isinstance(node, ast.Name)}
    assert set(veo3_async.__all__) - used == set()


def test_the_version_is_that_of_the_distribution() -> None:
    """``__version__`` is what is installed."""
    assert importlib.metadata.version("veo3_async") == veo3_async.__version__


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that is not there is reported as every module does."""
    with pytest.raises(AttributeError, match="module 'veo3_async' has no attribute 'nonsense'"):
        veo3_async.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_importing_loads_nothing_that_is_slow_or_optional() -> None:
    """``import veo3_async`` is quick, and needs no extra."""
    program = (
        "import sys; before = set(sys.modules); "
        "import veo3_async; print(*(set(sys.modules) - before))"
    )
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert LOADED_LATER & set(loaded) == set()


def test_every_test_says_its_claim() -> None:
    """Every test has a docstring: what it claims, in a sentence."""
    silent = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in sorted(TESTS.glob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []
