"""A watch that is drawn for people: on a terminal, in a notebook, into a file."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator

import pytest
from cli_service import KEY, TWO_STEPS, Service, on_terminal, running_service
from conftest import MakeClient
from rich.console import Console

from veo3_async import AuthenticationError, FixedPacing, Phase
from veo3_async.live import show
from veo3_async.testing import FakeVeo3, Life, Status

SCRIPT = """
import asyncio, sys
from veo3_async import FixedPacing, Veo3Client
from veo3_async.live import show

async def main():
    async with Veo3Client(pacing=FixedPacing(0.2)) as veo:
        ends = await show(veo.watch(*sys.argv[1:]))
        print(len(ends), "ends:", *(end.phase for end in ends.values()))

asyncio.run(main())
"""


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service(speed=200) as service:
        yield service


@pytest.mark.posix
def test_terminal_gets_a_live_table_and_keeps_a_line_a_task(service: Service) -> None:
    """While tasks run there is a table; in the end a line with the whole URL, and the counts."""
    life = Life((*TWO_STEPS.stages[:1] * 3, *TWO_STEPS.stages[1:]), upsample=False)
    names = [service.add(life=life) for _ in range(2)]
    words = [sys.executable, "-c", SCRIPT]
    with on_terminal(service, *names, command=words, columns=160) as terminal:
        terminal.wait_for("elapsed", "generating")
        assert terminal.exit_code() == 0
        assert "elapsed" not in terminal.text
        assert "2 tasks: 2 videos" in terminal.text
        assert "2 ends: completed completed" in terminal.text


async def test_ends_are_returned_and_lines_written_where_there_is_no_terminal(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """A file gets a line of words a change; who called gets the final transition of each id."""
    veo = make_client(pacing=FixedPacing(0.1))
    good, bad = server.add(life=Life.plain()), server.add(life=Life.failing())
    file = io.StringIO()
    ends = await show(veo.watch(good, bad), console=Console(file=file, width=300))
    assert ends[good].phase is Phase.COMPLETED
    assert ends[bad].error is not None
    lines = file.getvalue().splitlines()
    assert any(line.startswith(f"{good}  completed  http") for line in lines)
    assert any(line.startswith(f"{bad}  failed") for line in lines)


async def test_ids_that_are_added_are_drawn_as_well(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """What is added to a watch while it is shown has its end, too."""
    veo = make_client(pacing=FixedPacing(0.1))
    one, two = server.add(life=Life.plain()), server.add(life=Life.plain())
    watch = veo.watch(one)
    watch.add(two)
    assert set(await show(watch, console=Console(file=io.StringIO()))) == {one, two}


async def test_what_the_watch_raises_comes_out(server: FakeVeo3, make_client: MakeClient) -> None:
    """A refused key is raised, as by the watch itself, and by a drawing that goes on."""
    server.fault(Status(401))
    veo = make_client()
    terminal = Console(file=io.StringIO(), force_terminal=True)
    with pytest.raises(AuthenticationError):
        await show(veo.watch(server.add()), console=terminal)


@pytest.mark.slow
def test_notebook_gets_one_cell_that_ends_with_the_videos(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook that is executed has the table in one output, and the URLs in the end."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    name = service.add(life=TWO_STEPS)
    cell = (
        "from veo3_async import FixedPacing, Veo3Client\n"
        "from veo3_async.live import show\n"
        "async with Veo3Client(pacing=FixedPacing(0.2)) as veo:\n"
        f"    ends = await show(veo.watch({name!r}))\n"
    )
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell), nbformat.v4.new_code_cell("ends.keys()")]
    )
    nbclient.NotebookClient(notebook, timeout=50, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert "1 task: 1 video" in output["data"]["text/html"]
    assert ".mp4" in output["data"]["text/plain"]
    assert name in notebook.cells[1].outputs[0]["data"]["text/plain"]
    assert KEY not in str(notebook)
