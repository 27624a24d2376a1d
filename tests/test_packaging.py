"""What the linters cannot see: public names nobody typed, tests that make no claim."""

from __future__ import annotations

import ast
import pathlib

import veo3_async
import veo3_async.cluster

TESTS = pathlib.Path(__file__).parent


def test_every_public_name_is_used_in_the_typing_test() -> None:
    """A name that no user's code is written for has types that nobody has looked at."""
    api = ast.parse((TESTS / "typing" / "api.py").read_text(encoding="utf-8"))
    used = {node.id for node in ast.walk(api) if isinstance(node, ast.Name)}
    assert {*veo3_async.__all__, *veo3_async.cluster.__all__} - used == set()


def test_every_test_says_its_claim() -> None:
    """Every test has a docstring: what it claims, in a sentence."""
    silent = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in sorted(TESTS.rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


RULES = {
    "veo3_async._download.paths": {"file_name", "final_path"},
    "veo3_async._protocol.families.record": {"PHASE_OF_WORD"},
    "veo3_async._text": {"is_hidden", "plain"},
    "veo3_async._transport.endpoint": {"DEFAULT_BASE_URL", "find_base_url"},
    "veo3_async._transport.facts": {"clock_offset", "facts"},
    "veo3_async._transport.recorder": {"is_recording", "recorded"},
}
"""What the command line takes from below the public names, so that it is not there twice."""


def test_the_command_line_uses_public_names_and_a_few_rules() -> None:
    """What the command line can do, every user of the package can do."""
    private = [
        f"{path.name}:{node.lineno} {node.module}.{name.name}"
        for path in sorted(pathlib.Path(veo3_async.__file__).parent.glob("cli/*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("veo3_async._")
        for name in node.names
        if name.name not in RULES.get(node.module or "", ())
    ]
    assert private == []
