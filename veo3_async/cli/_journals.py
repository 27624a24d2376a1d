"""The commands about a journal: ``pending``, ``list``, ``settle`` and ``journal backup``."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Annotated, Final

import typer

from veo3_async import Pending
from veo3_async.cli._access import keyless_client
from veo3_async.cli._exits import ExitCode
from veo3_async.cli._follow import on_loop
from veo3_async.cli._options import ExistingJournal, Json
from veo3_async.cli._output import emit, note, plain, wants_json
from veo3_async.cli._show import show_pending, show_tasks

__all__ = ["backup", "journals", "list_tasks", "pending", "settle"]

if TYPE_CHECKING:
    from veo3_async import Journal

journals: Final = typer.Typer(help="What is done with a journal as a file.", no_args_is_help=True)


def pending(journal: ExistingJournal, *, json: Json = False) -> int:
    """List what a journal has that is not finished, or whose end was not told yet.

    A bot may have it open meanwhile. In doubt are submissions whose answer was never seen: the
    account knows whether they exist, and the command settle ends the doubt.
    """
    tasks = on_loop(lambda: _pending(journal))
    if wants_json(json):
        for task in tasks:
            emit(task)
    elif tasks:
        show_pending(tasks)
    note(f"{len(tasks)} pending")
    return ExitCode.DONE


def list_tasks(
    journal: ExistingJournal,
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 50,
    json: Json = False,
) -> int:
    """List the tasks of a journal, finished ones included, the newest first.

    A bot may have it open meanwhile. What was dealt with long ago is not kept.
    """
    tasks = on_loop(lambda: _latest(journal, limit))
    if wants_json(json):
        for task in tasks:
            emit(task)
    elif tasks:
        show_tasks(tasks)
    return ExitCode.DONE


def settle(
    journal: ExistingJournal,
    key: Annotated[int, typer.Argument(help="The key of the submission, as pending lists it.")],
    request_id: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="The request id of its task; none: there is no task."),
    ] = None,
) -> int:
    """End the doubt about a submission, after a look into the account."""
    veo = keyless_client(journal)

    async def main() -> None:
        async with veo:
            await veo.settle(key, request_id)

    on_loop(main)
    note(f"settled: {'there is no task' if request_id is None else plain(request_id)}")
    return ExitCode.DONE


def backup(
    journal: Annotated[
        pathlib.Path, typer.Argument(exists=True, dir_okay=False, help="The journal.")
    ],
    copy: Annotated[pathlib.Path, typer.Argument(help="The file to make; there is none yet.")],
) -> int:
    """Copy a journal as it is now, also while a bot is writing it."""

    async def main() -> pathlib.Path:
        return await _reader(journal).backup(copy)

    emit(plain(on_loop(main)))
    return ExitCode.DONE


async def _latest(journal: pathlib.Path, limit: int) -> list[Pending]:
    async with _reader(journal) as opened:
        return await opened.latest(limit)


async def _pending(journal: pathlib.Path) -> list[Pending]:
    async with _reader(journal) as opened:
        return await opened.pending()


def _reader(path: pathlib.Path) -> Journal:
    from veo3_async import Journal  # noqa: PLC0415 - loads sqlite3

    return Journal(path, read_only=True)
