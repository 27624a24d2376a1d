"""What the tests of the recipes share: a recipe as a module, and a service that it talks to."""

from __future__ import annotations

import importlib.util
import pathlib
from types import ModuleType
from typing import Final

import msgspec

from veo3_async.testing import Life

RECIPES: Final = pathlib.Path(__file__).with_name("cookbook")


def recipe(name: str) -> ModuleType:
    """Return a recipe, executed anew as a module."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", RECIPES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def poll_by_poll(life: Life) -> Life:
    """Return a life that goes on with every second poll: a busy machine misses no phase of it."""
    *stages, last = life.stages
    steps = (msgspec.structs.replace(stage, seconds=None, polls=2) for stage in stages)
    return msgspec.structs.replace(life, stages=(*steps, last))
