"""The public names: complete, sorted, light to import, and values that travel."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import os
import pickle
import re
import subprocess
import sys
from types import ModuleType

import msgspec
import pytest

import veo3_async
import veo3_async.testing

HEAVY = ("aiohttp", "typer", "rich", "sqlite3", "nats", "yarl", "multidict", "pytest")
MODULES = (veo3_async, veo3_async.testing)

TASK = veo3_async.VideoTask(
    id="veo3-pro:1",
    status="completed",
    images=(veo3_async.SourceImage(url="https://a.example/1.jpg", media_id="m"),),
    req=veo3_async.GenerationRequest(prompt="灯塔", enable_upsample=True),
    video_url="https://file.302.ai/a.mp4",
    extra={"new": [1, {"a": None}]},
)
CLASSES: list[type[veo3_async.Veo3Error]] = [
    veo3_async.Veo3Error,
    *(
        cls
        for cls in veo3_async.Veo3Error.__subclasses__()
        if cls.__module__ == veo3_async.Veo3Error.__module__  # the cluster has one of its own
    ),
]
ERRORS = [
    cls(
        "what happened",
        request_id="veo3-pro:1",
        http_status=404,
        err_code=-10010,
        attempts=3,
        elapsed=1.5,
        task=TASK,
        body="<html>",
    )
    for cls in CLASSES
]
TRANSITION = veo3_async.Transition(
    request_id="veo3-pro:1",
    phase=veo3_async.Phase.LOST,
    previous=None,
    status="pending",
    task=TASK,
    observed_at=1.0,
    final=True,
    error=ERRORS[1],
)
REPORT = veo3_async.PollReport(
    request_id="veo3-pro:1",
    attempt=1,
    status=None,
    err_code=None,
    duration=0.1,
    error=ERRORS[2],
    next_poll_in=None,
)


def loaded_by(statement: str) -> set[str]:
    """Return the heavy modules that a statement loads in a fresh interpreter."""
    before = "import sys; before = set(sys.modules)"  # a coverage run has loaded sqlite3
    loaded = run_alone(f"{before}\n{statement}\nprint(*set(sys.modules) - before)")
    return set(loaded.split()) & set(HEAVY)


def run_alone(script: str) -> str:
    """Return what a script prints in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_all_is_sorted_and_everything_in_it_is_there(module: ModuleType) -> None:
    """``__all__`` has each name once, constants first, and each can be imported."""
    in_order = sorted(set(module.__all__), key=lambda name: (not name.isupper(), name))
    assert list(module.__all__) == in_order
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_all_is_complete(module: ModuleType) -> None:
    """Whatever the module takes from its parts to hand on is in ``__all__``, and nothing else."""
    tree = ast.parse(inspect.getsource(module))
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("veo3_async")
        for alias in node.names
    }
    lazy = set(re.findall(r'"([A-Z]\w+)"', inspect.getsource(module)))
    assert imported <= set(module.__all__) <= imported | lazy


def test_every_error_is_exported() -> None:
    """The tree of errors is public to its leaves."""
    names = {cls.__name__ for cls in CLASSES}
    assert names <= set(veo3_async.__all__)
    assert all(issubclass(getattr(veo3_async, name), veo3_async.Veo3Error) for name in names)


def test_public_names_say_what_they_are() -> None:
    """Every class and function that is exported has a docstring."""
    for module in MODULES:
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                assert value.__doc__, name


@pytest.mark.parametrize(
    "statement",
    [
        "import veo3_async",
        "import veo3_async.testing",
        "import veo3_async; veo3_async.FixedPacing(1); veo3_async.VideoTask()",
    ],
)
def test_importing_loads_nothing_heavy(statement: str) -> None:
    """aiohttp, typer, rich, sqlite3 and nats wait until they are needed."""
    assert loaded_by(statement) == set()


USE = """
import asyncio, veo3_async

async def main():
    async with veo3_async.Veo3Client('key'):
        pass

asyncio.run(main())
"""


def test_the_first_use_loads_aiohttp_and_no_more() -> None:
    """To make a client loads nothing; to use it aiohttp, and neither a journal nor a terminal."""
    assert loaded_by("import veo3_async; veo3_async.Veo3Client('key')") == set()
    assert loaded_by(USE) == {"aiohttp", "yarl", "multidict"}


ON_THE_LOOP = """
import asyncio, sys, tempfile, veo3_async

class OnTheLoop:
    def find_spec(self, name, path=None, target=None):
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        print(name)

async def main(place):
    use = {'base_url': 'http://127.0.0.1:9', 'journal': place + '/a', 'record': place + '/b'}
    clients = [veo3_async.Veo3Client('key', **use), veo3_async.Veo3Client('key')]
    await asyncio.gather(*(client.__aenter__() for client in clients))
    async with clients[0], clients[1], clients[0].watch('veo3-pro:1', timeout=0.2) as changes:
        async for change in changes:
            assert change.final

sys.meta_path.insert(0, OnTheLoop())
with tempfile.TemporaryDirectory() as place:
    asyncio.run(main(place))
"""


def test_a_client_that_is_opened_imports_nothing_on_the_loop() -> None:
    """A thread does it, for a journal and a recording too, and the first poll finds all there."""
    of_a_thread = {"concurrent", "queue", "_queue"}  # asyncio's own, before it can begin one
    imported = {name.partition(".")[0] for name in run_alone(ON_THE_LOOP).split()}
    assert imported <= of_a_thread


def test_the_version_is_that_of_the_distribution() -> None:
    """``__version__`` is what is installed; without a distribution it says that."""
    try:
        installed = importlib.metadata.version("veo3_async")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed, only on the path")
    assert veo3_async.__version__ == installed


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_dir_shows_every_public_name_and_loads_none(module: ModuleType) -> None:
    """What completes a name in a shell finds those that are loaded later, too."""
    name = module.__name__
    missing = f"assert not set({name}.__all__) - set(dir({name}))"
    assert loaded_by(f"import {name}; {missing}") == set()


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_an_unknown_name_is_an_attribute_error(module: ModuleType) -> None:
    """The lazy names do not swallow a typing mistake."""
    with pytest.raises(AttributeError, match="Veo4"):
        module.Veo4  # noqa: B018 - it is looked up


@pytest.mark.parametrize(
    "value",
    [TASK, TRANSITION, REPORT, veo3_async.Phase.LOST, veo3_async.FixedPacing(3.0)],
    ids=lambda value: type(value).__name__,
)
def test_values_can_be_pickled(value: object) -> None:
    """What comes out of the library can be sent to another process, and is equal there."""
    again = pickle.loads(pickle.dumps(value))
    has_error = getattr(value, "error", None) is not None  # errors compare by identity
    if has_error or isinstance(value, veo3_async.FixedPacing):
        assert repr(again) == repr(value)
    else:
        assert again == value


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_can_be_pickled(error: veo3_async.Veo3Error) -> None:
    """An error keeps its type, its words and all its data."""
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))


@pytest.mark.parametrize(
    "value", [TASK, TRANSITION, REPORT, TASK.req, TASK.images[0]], ids=lambda v: type(v).__name__
)
def test_values_are_frozen(value: msgspec.Struct) -> None:
    """A value does not change while somebody reads it."""
    for name in value.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(value, name, None)


def test_stats_are_frozen() -> None:
    """A snapshot stays what it was."""
    stats = veo3_async.Veo3Client("key").stats()
    assert pickle.loads(pickle.dumps(stats)) == stats
    for name in stats.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(stats, name, None)
