"""The commands ``fetch`` and ``download``."""

from __future__ import annotations

import os
import pathlib
import time
from typing import Annotated, Final

import typer

from veo3_async import Veo3Client, VideoTask
from veo3_async.cli._access import Service
from veo3_async.cli._exits import ExitCode, InterruptError
from veo3_async.cli._follow import on_loop
from veo3_async.cli._given import made
from veo3_async.cli._options import Family, Json, Model, Overwrite
from veo3_async.cli._output import emit, note, plain, wants_json
from veo3_async.cli._show import show_task
from veo3_async.cli._view import View, view_for
from veo3_async.live._board import Board

__all__ = ["download", "fetch"]

_SLASHES: Final = (os.sep, os.altsep or os.sep)


def fetch(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="The request id.")],
    *,
    json: Json = False,
    model: Model = None,
    family: Family = None,
    service: Service,
) -> int:
    """Look at a task once, and print what the service says; 0 if it says anything."""
    veo = service.access(model=model, family=family).client()

    async def main() -> VideoTask:
        async with veo:
            return await veo.fetch(request_id)

    task = on_loop(main)
    emit(task) if wants_json(json) else show_task(task)
    return ExitCode.DONE


def download(
    source: Annotated[
        str, typer.Argument(metavar="URL|ID", help="The video, or the task that made it.")
    ],
    path: Annotated[
        str,
        typer.Argument(
            help="A file, or a directory: then named by request id. One that is to be made ends "
            "with a slash."
        ),
    ] = ".",
    *,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool, typer.Option(help="Go on with what an earlier download left in PATH.part.")
    ] = True,
    json: Json = False,
    service: Service,
) -> int:
    """Bring a video to disk whole, and print where it is.

    A URL needs no key. What is cut short goes on with the next call.
    """
    is_url = "://" in source
    veo = service.keyless() if is_url else service.access().client()
    target = made(pathlib.Path(path)) if path.endswith(_SLASHES) else pathlib.Path(path)
    try:
        saved = on_loop(
            lambda: _brought(
                veo, source, target, view_for(json=json), resume=resume, overwrite=overwrite
            )
        )
    except InterruptError:
        note("interrupted: what is there is kept, and the same command goes on with it")
        raise
    emit({"source": source, "path": saved} if json else plain(saved))
    return ExitCode.DONE


async def _brought(
    veo: Veo3Client, source: str, target: pathlib.Path, view: View, **options: bool
) -> pathlib.Path:
    """Bring a video to disk, and show how far it is.

    :param options: As for `Veo3Client.download`.
    """
    board = Board([source], now=time.time())

    def progress(done: int, total: int | None) -> None:
        board.loading(source, done, total, now=time.time())

    async with veo:
        task_or_url = source if "://" in source else await veo.fetch(source)
        async with view.shown(board, lambda _: None):
            return await veo.download(task_or_url, target, progress=progress, **options)
