"""The commands."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from veo3_async import Pending, Veo3Client, Veo3Error, VideoTask, Watch
from veo3_async.cli._access import Access, keyless_client, program
from veo3_async.cli._board import Board
from veo3_async.cli._cluster import Site, cluster_app, follow_cluster, worker
from veo3_async.cli._exits import ExitCode, InterruptError, exit_code
from veo3_async.cli._follow import WatchOptions, conclude, follow, on_loop
from veo3_async.cli._offline import demo, serve
from veo3_async.cli._options import (
    BaseUrl,
    Directory,
    ExistingJournal,
    Interval,
    Journal,
    Json,
    KeyFile,
    MaybeServers,
    Output,
    Overwrite,
    Prefix,
    Replicas,
    Timeout,
    Until,
    checked_path,
    given_ids,
    given_prompt,
)
from veo3_async.cli._output import (
    emit,
    give_up_stdout,
    has_streams,
    note,
    plain,
    say,
    wants_json,
)
from veo3_async.cli._show import show_pending, show_task
from veo3_async.cli._view import view_for

__all__ = ["run"]

_EXIT_CODES: Final = (
    "Exit codes: 0 all is there; 1 some failed, or was not finished in time; 2 usage: an "
    "argument, an id or a prompt cannot be used; 3 the key or its quota; 130 Ctrl-C; 143 SIGTERM."
)

app: Final = typer.Typer(
    help="Submit, watch and download videos of 302.AI's veo3-pro.\n\n"
    "The API key comes from the environment (AI302_API_KEY, else AI302_KEY) or from --key-file, "
    "never from an argument. Try `demo` first: it needs no key.",
    epilog=_EXIT_CODES,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run(arguments: Sequence[str]) -> int:
    """Do what a command line says; every trouble that a user can have is one line on stderr."""
    if not has_streams():
        return ExitCode.USAGE
    try:
        return int(app(arguments, prog_name="veo3-async", standalone_mode=False) or 0)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        path = "veo3-async" if context is None else context.command_path
        say(f"{error.format_message().rstrip('.')}; see {path} --help")
        return error.exit_code
    except Veo3Error as error:
        say(error)
        return exit_code(error)
    except OSError as error:
        give_up_stdout(error)
        return ExitCode.FAILED
    except InterruptError as interrupt:
        return interrupt.code


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - as typer calls it
    if not wanted:
        return
    try:
        from veo3_async import __version__  # noqa: PLC0415 - takes 20 ms
    except ImportError:
        say("no version is known, for the package is not installed: pip install '.[cli]'")
        raise typer.Exit(ExitCode.USAGE) from None
    emit(f"veo3-async {__version__}")
    raise typer.Exit


@app.callback(invoke_without_command=True)
def _without_command(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - its callback acts
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Tell the version."),
    ] = False,
) -> int:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        return ExitCode.USAGE
    return ExitCode.DONE


@app.command(epilog=_EXIT_CODES)
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
    until: Until = "best",
    timeout: Timeout = None,
    download: Directory = None,
    output: Output = None,
    overwrite: Overwrite = False,
    interval: Interval = None,
    journal: Journal = None,
    json: Json = False,
    nats: MaybeServers = None,
    prefix: Prefix = "veo3",
    replicas: Replicas = 1,
    key_file: KeyFile = None,
    base_url: BaseUrl = None,
) -> int:
    """Watch tasks until their videos are there.

    A live table on a terminal; one JSON line a transition with --json, or when stdout is no
    terminal. Ctrl-C or SIGTERM prints the ids that still run and the command that goes on with
    them. With --nats, workers poll them (see the command worker), and no key is needed here.
    """
    access = Access(key_file=key_file, base_url=base_url, journal=journal, interval=interval)
    wanted = given_ids(ids or [], file)
    path = checked_path(download, output, overwrite=overwrite, tasks=len(wanted))
    options = WatchOptions(until=until, timeout=timeout, path=path, overwrite=overwrite, json=json)
    if nats:
        site = Site(servers=nats, prefix=prefix, replicas=replicas)
        return follow_cluster(site, access, wanted, options)
    return _follow_all(access, wanted, options)


app.command(epilog=_EXIT_CODES)(worker)
app.add_typer(cluster_app, name="cluster")


@app.command(epilog=_EXIT_CODES)
def submit(
    prompt: Annotated[
        str | None, typer.Argument(help="What the video is to show; - reads stdin.")
    ] = None,
    *,
    prompt_file: Annotated[
        pathlib.Path | None,
        typer.Option(exists=True, dir_okay=False, help="A file that holds the prompt."),
    ] = None,
    image: Annotated[
        str | None, typer.Option(metavar="URL", help="A public image that the video begins with.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="veo3-pro, veo3-fast, veo3, … Default: veo3-pro.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Watch it until the video is there.")
    ] = False,
    output: Output = None,
    overwrite: Overwrite = False,
    until: Until = "best",
    timeout: Timeout = None,
    interval: Interval = None,
    journal: Journal = None,
    json: Json = False,
    key_file: KeyFile = None,
    base_url: BaseUrl = None,
) -> int:
    """Submit a task, which costs money, and print its request id.

    With --wait, or --output, which implies it, the task is then watched as by the command watch.
    """
    access = Access(key_file=key_file, base_url=base_url, journal=journal, interval=interval)
    text = given_prompt(prompt, prompt_file)
    path = checked_path(None, output, overwrite=overwrite)
    veo = access.client()
    waits = wait or path is not None

    async def main() -> str:
        async with veo:
            return await veo.submit(text, image=image, model=model)

    try:
        request_id = on_loop(main)
    except InterruptError:
        note("interrupted: the task may exist and may have been charged; look at your account")
        raise
    try:
        in_json = json or (waits and wants_json(json))
        emit({"request_id": request_id} if in_json else plain(request_id))
    except OSError:
        note(f"submitted, and stdout did not take the id: {plain(request_id)}")
        raise
    if not waits:
        return ExitCode.DONE
    options = WatchOptions(until=until, timeout=timeout, path=path, overwrite=overwrite, json=json)
    return _follow_all(access, [request_id], options)


@app.command()
def fetch(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="The request id.")],
    *,
    json: Json = False,
    key_file: KeyFile = None,
    base_url: BaseUrl = None,
) -> int:
    """Look at a task once, and print what the service says; 0 if it says anything."""
    veo = Access(key_file=key_file, base_url=base_url).client()

    async def main() -> VideoTask:
        async with veo:
            return await veo.fetch(request_id)

    task = on_loop(main)
    emit(task) if wants_json(json) else show_task(task)
    return ExitCode.DONE


@app.command()
def download(
    source: Annotated[
        str, typer.Argument(metavar="URL|ID", help="The video, or the task that made it.")
    ],
    path: Annotated[
        pathlib.Path, typer.Argument(help="A file, or a directory: then named by request id.")
    ],
    *,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool, typer.Option(help="Go on with what an earlier download left in PATH.part.")
    ] = True,
    json: Json = False,
    key_file: KeyFile = None,
    base_url: BaseUrl = None,
) -> int:
    """Bring a video to disk whole, and print where it is.

    A URL needs no key. What is cut short goes on with the next call.
    """
    is_url = "://" in source
    access = Access(key_file=key_file, base_url=base_url)
    veo = keyless_client(base_url=base_url) if is_url else access.client()
    board, view = Board([source], now=time.time()), view_for(json=json)

    async def main() -> pathlib.Path:
        async with veo:
            task_or_url = source if is_url else await veo.fetch(source)
            async with view.shown(board, lambda _: None):
                return await veo.download(
                    task_or_url,
                    path,
                    progress=lambda done, total: board.loading(source, done, total),
                    resume=resume,
                    overwrite=overwrite,
                )

    try:
        saved = on_loop(main)
    except InterruptError:
        note("interrupted: what is there is kept, and the same command goes on with it")
        raise
    emit({"source": source, "path": saved} if json else plain(saved))
    return ExitCode.DONE


@app.command()
def pending(journal: ExistingJournal, *, json: Json = False) -> int:
    """List what a journal has that is not finished, or whose end was not told yet.

    In doubt are submissions whose answer was never seen: the account knows whether they exist.
    """
    tasks = _pending(journal)
    if wants_json(json):
        for task in tasks:
            emit(task)
    elif tasks:
        show_pending(tasks)
    note(f"{len(tasks)} pending")
    return ExitCode.DONE


@app.command(epilog=_EXIT_CODES)
def resume(
    journal: ExistingJournal,
    *,
    until: Until = "best",
    timeout: Timeout = None,
    download: Directory = None,
    overwrite: Overwrite = False,
    interval: Interval = None,
    json: Json = False,
    key_file: KeyFile = None,
    base_url: BaseUrl = None,
) -> int:
    """Go on with everything in a journal that is not finished, as the command watch does."""
    access = Access(key_file=key_file, base_url=base_url, journal=journal, interval=interval)
    path = checked_path(download, None, overwrite=overwrite)
    options = WatchOptions(until=until, timeout=timeout, path=path, overwrite=overwrite, json=json)
    return _follow_all(access, None, options)


app.command()(demo)
app.command()(serve)


def _follow_all(access: Access, ids: Sequence[str] | None, options: WatchOptions) -> int:
    """Follow these tasks; for None, what the journal has."""
    board = Board(ids or (), now=time.time(), saves=options.path is not None)
    veo, view = access.client(board.polled), view_for(json=options.json)

    async def main() -> None:
        async with veo:
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
            note(f"in doubt, look at your account: {plain(task.prompt)}")
        else:
            board.add(task.request_id, now=time.time())
    if not board.rows:
        note("nothing is pending")
    return await veo.resume(until=options.until, timeout=options.timeout)


def _pending(journal: pathlib.Path) -> list[Pending]:
    veo = keyless_client(journal)

    async def main() -> list[Pending]:
        async with veo:
            return await veo.pending()

    return on_loop(main)
