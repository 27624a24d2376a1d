"""The commands."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Annotated, Final, TypeAlias

import typer

from veo3_async import Veo3Error
from veo3_async.cli._account import balance, models
from veo3_async.cli._cluster import clusters, status, worker
from veo3_async.cli._completion import completion
from veo3_async.cli._doctor import doctor
from veo3_async.cli._exits import EXIT_CODES, ExitCode, InterruptError, exit_code
from veo3_async.cli._fetching import download, fetch
from veo3_async.cli._groups import expanded
from veo3_async.cli._journals import backup, journals, list_tasks, pending, settle
from veo3_async.cli._offline import demo, serve
from veo3_async.cli._output import emit, give_up_stdout, has_streams, in_options, note, plain, say
from veo3_async.cli._submitting import generate, submit
from veo3_async.cli._watching import resume, watch

__all__ = ["run"]

app: Final = typer.Typer(
    help="Submit, watch and download videos of 302.AI's video models.\n\n"
    "The API key comes from the environment (AI302_API_KEY, else AI302_KEY) or from --key-file, "
    "never from an argument. Try `demo` first: it needs no key.",
    epilog=EXIT_CODES,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run(arguments: Sequence[str]) -> int:
    """Do what a command line says; every trouble that a user can have is one line on stderr."""
    if not has_streams():
        return ExitCode.USAGE
    in_options(arguments)
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


def _log_more(context: typer.Context, times: int) -> int:
    """Log to stderr as long as the command runs; it may be said before and after its name."""
    if times:
        _log_to_stderr(context, logging.INFO if times == 1 else logging.DEBUG)
    return times


Version: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--version", "-V", is_eager=True, callback=_show_version, help="Tell the version."
    ),
]
Verbose: TypeAlias = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        callback=_log_more,
        show_default=False,
        help="Log to stderr; -vv tells more.",
    ),
]
_EVERYWHERE: Final = {
    name: inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
    for name, default, annotation in (("verbose", 0, Verbose), ("version", False, Version))
}


@app.callback(invoke_without_command=True)
def _without_command(
    context: typer.Context,
    *,
    version: Version = False,  # noqa: ARG001 - its callback acts
    verbose: Verbose = 0,  # noqa: ARG001 - likewise
) -> int:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        return ExitCode.USAGE
    return ExitCode.DONE


_COMMANDS: Final[tuple[tuple[Callable[..., int], str | None], ...]] = (
    (watch, EXIT_CODES),
    (submit, EXIT_CODES),
    (generate, EXIT_CODES),
    (fetch, None),
    (download, None),
    (pending, None),
    (list_tasks, None),
    (resume, EXIT_CODES),
    (settle, None),
    (models, None),
    (balance, None),
    (doctor, None),
    (worker, EXIT_CODES),
    (demo, None),
    (serve, None),
    (completion, None),
)
_NAMES: Final = {list_tasks: "list"}
for _command, _epilog in _COMMANDS:
    app.command(_NAMES.get(_command), epilog=_epilog)(expanded(_command, **_EVERYWHERE))
for _group, _command in ((journals, backup), (clusters, status)):
    _group.command()(expanded(_command, **_EVERYWHERE))
app.add_typer(journals, name="journal")
app.add_typer(clusters, name="cluster")


class _Notes(logging.Handler):
    """Log lines on stderr, wherever that is just now: a live table moves out of their way."""

    def emit(self, record: logging.LogRecord) -> None:
        note(f"{record.levelname.lower()}: {plain(self.format(record))}")


def _log_to_stderr(context: typer.Context, level: int) -> None:
    log, handler = logging.getLogger("veo3_async"), _Notes()
    before = log.level
    log.setLevel(level)
    context.call_on_close(lambda: log.setLevel(before))
    if not any(isinstance(other, _Notes) for other in log.handlers):
        log.addHandler(handler)
        context.call_on_close(lambda: log.removeHandler(handler))
