"""The commands ``watch`` and ``resume``."""

from __future__ import annotations

import gc
import pathlib
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from veo3_async import Veo3Client, Watch
from veo3_async.cli._access import Access, Service, program
from veo3_async.cli._cluster import Place, follow_cluster
from veo3_async.cli._follow import Wanted, WatchOptions, conclude, follow
from veo3_async.cli._given import checked_path, given_ids
from veo3_async.cli._options import (
    Directory,
    ExistingJournal,
    Family,
    Interval,
    Journal,
    MaybeServers,
    Model,
    Output,
    Prefix,
    Replicas,
)
from veo3_async.cli._output import note
from veo3_async.cli._output import plain as plain_text
from veo3_async.cli._view import view_for
from veo3_async.live._board import Board

__all__ = ["follow_all", "resume", "watch"]


def watch(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Request ids; - reads stdin.")
    ] = None,
    *,
    file: Annotated[
        pathlib.Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="A file of ids, one a line; # begins a comment."
        ),
    ] = None,
    download: Directory = None,
    output: Output = None,
    interval: Interval = None,
    journal: Journal = None,
    model: Model = None,
    family: Family = None,
    wanted: Wanted,
    nats: MaybeServers = None,
    prefix: Prefix = "veo3",
    replicas: Replicas = 1,
    service: Service,
) -> int:
    """Watch tasks until their videos are there.

    A live table on a terminal; a line of words a change with --plain, into a pipe or a file, and
    where CI or TERM=dumb is set; one JSON line a transition with --json. Ctrl-C or SIGTERM prints
    the ids that still run and the command that goes on with them. With --nats, workers poll them
    (see the command worker), and no key is needed here.
    """
    access = service.access(journal=journal, interval=interval, model=model, family=family)
    named = given_ids(ids or [], file)
    path = checked_path(download, output, overwrite=wanted.overwrite, tasks=len(named))
    options = wanted.watch(path)
    if nats:
        place = Place(servers=nats, prefix=prefix, replicas=replicas)
        return follow_cluster(place, access, named, options)
    return follow_all(access, named, options)


def resume(
    journal: ExistingJournal,
    *,
    download: Directory = None,
    interval: Interval = None,
    wanted: Wanted,
    service: Service,
) -> int:
    """Go on with everything in a journal that is not finished, as the command watch does."""
    access = service.access(journal=journal, interval=interval)
    path = checked_path(download, None, overwrite=wanted.overwrite)
    return follow_all(access, None, wanted.watch(path))


def follow_all(access: Access, ids: Sequence[str] | None, options: WatchOptions) -> int:
    """Follow these tasks; for None, what the journal has."""
    board = Board(ids or (), now=time.time(), saves=options.path is not None)
    veo = access.client(board.polled)
    view = view_for(json=options.json, plain=options.plain)

    async def main() -> None:
        async with veo:
            gc.freeze()  # what is loaded is never garbage, and to walk it holds up the polls
            if ids is None:
                changes = await _resumed(veo, board, options)
            else:
                changes = veo.watch(*ids, until=options.until, timeout=options.timeout)
            if board.rows:
                await follow(veo, changes, board, view, options)

    again = [*program(), "watch", *access.options(), *options.arguments()]
    return conclude(main, board, view, again)


async def _resumed(veo: Veo3Client, board: Board, options: WatchOptions) -> Watch:
    """Watch what the journal has, and put it on the board; say what is in doubt."""
    # The journal is open all the while, and so nobody else's: the board has what is watched.
    for task in await veo.pending():
        if task.request_id is None:
            note(f"in doubt, look at your account: {plain_text(task.prompt)}")
        else:
            board.add(task.request_id, now=time.time())
    if not board.rows:
        note("nothing is pending")
    return await veo.resume(until=options.until, timeout=options.timeout)
