"""Follow tasks to their end; afterwards say what remains, and how to go on with it."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Protocol, TypeVar

import anyio
import anyio.to_thread
import msgspec

from veo3_async import Eta, JournalError, Transition, Veo3Client, Veo3Error
from veo3_async._download.paths import file_name, final_path
from veo3_async.cli._exits import ExitCode, InterruptError, exit_code
from veo3_async.cli._groups import Group
from veo3_async.cli._options import Json, Overwrite, Plain, Timeout, Until
from veo3_async.cli._output import give_up_stdout, in_words, note, plain, say
from veo3_async.cli._shell import continued
from veo3_async.cli._view import View
from veo3_async.live._board import Board, Row
from veo3_async.live._table import label

__all__ = ["Followed", "Wanted", "WatchOptions", "conclude", "follow", "on_loop"]

_T = TypeVar("_T")

_MOST_LISTED: Final = 20


class WatchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a watch is to bring."""

    until: Literal["best", "video"] = "best"
    timeout: float | None = None
    """Seconds, or None for ever."""
    path: pathlib.Path | None = None
    """A directory for the videos, or the file for the only one; None to bring none to disk."""
    overwrite: bool = False
    json: bool = False
    plain: bool = False

    def arguments(self) -> list[str]:
        """Return them as options of the command ``watch``."""
        options = [] if self.until == "best" else ["--until", self.until]
        if self.timeout is not None:
            options += ["--timeout", f"{self.timeout:g}"]
        if self.path is not None:
            options += ["--download" if self.path.is_dir() else "--output", str(self.path)]
        flags = {"--overwrite": self.overwrite, "--json": self.json, "--plain": self.plain}
        return options + [name for name, given in flags.items() if given]


class Wanted(Group, frozen=True, kw_only=True):
    """The options of every command that watches tasks."""

    until: Until = "best"
    timeout: Timeout = None
    overwrite: Overwrite = False
    json: Json = False
    plain: Plain = False

    def watch(self, path: pathlib.Path | None) -> WatchOptions:
        """Return what the watch is to bring.

        :param path: Where its videos go, or None.
        """
        return WatchOptions(path=path, **msgspec.structs.asdict(self))


class Followed(Protocol):
    """What `follow` needs of a watch."""

    async def __aenter__(self) -> object:
        """Begin."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End, whatever is left."""

    def __aiter__(self) -> AsyncIterator[Transition]:
        """Return the changes, until all are final."""

    def eta(self, request_id: str) -> Eta | None:
        """Return what is left; None where nothing is known."""


def on_loop(main: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run it on an event loop; of the errors that come out in a group, the first is raised.

    :raises InterruptError: Ctrl-C or SIGTERM came, and it was cancelled.
    """
    is_terminated = False

    async def terminable() -> _T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine of `asyncio.run`

        def terminate() -> None:
            nonlocal is_terminated
            is_terminated = True
            task.cancel()

        with contextlib.suppress(NotImplementedError):  # as on Windows, which has no SIGTERM
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await main()

    try:
        return asyncio.run(terminable())
    except KeyboardInterrupt:
        raise InterruptError(ExitCode.INTERRUPTED) from None
    except asyncio.CancelledError:
        if is_terminated:
            raise InterruptError(ExitCode.TERMINATED) from None
        raise
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


async def follow(
    veo: Veo3Client, watch: Followed, board: Board, view: View, options: WatchOptions
) -> None:
    """Follow a watch to its end, and bring its videos to disk if those are wanted."""
    at_work = 1

    async def read() -> None:
        nonlocal at_work
        is_saved = True
        async for change in watch:
            board.take(change)
            await view.changed(change)
            if options.path is not None and board.rows[change.request_id].has_video:
                # A journal owes an end until the task that took it asks for the next one or is
                # done: so this one brings the video to disk, and another one reads on.
                at_work += 1
                readers.start_soon(read)
                is_saved = await bring(change, options.path)
                break
        at_work -= 1
        if not at_work:
            readers.cancel_scope.cancel()
        if not is_saved:  # who is cancelled is not done, and the end stays pending
            await anyio.sleep_forever()

    async def bring(change: Transition, path: pathlib.Path) -> bool:
        outcome = await _saved(veo, change, board, path, overwrite=options.overwrite)
        board.saved(change.request_id, outcome)
        await view.saved(change.request_id, outcome)
        return isinstance(outcome, pathlib.Path)

    async with view.shown(board, watch.eta), watch, anyio.create_task_group() as readers:
        readers.start_soon(read)


def conclude(
    main: Callable[[], Coroutine[Any, Any, None]], board: Board, view: View, again: Sequence[str]
) -> ExitCode:
    """Run what follows tasks, say how it ended, and return what it means.

    :param again: The command that goes on, but for the ids.
    """
    fault: Veo3Error | None = None
    try:
        on_loop(main)
        code = ExitCode.DONE if board.succeeded else ExitCode.FAILED
    except InterruptError as interrupt:
        code = interrupt.code
    except JournalError as error:  # it could not be opened, and nothing was begun
        say(error)
        return exit_code(error)
    except Veo3Error as error:
        say(error)
        fault, code = error, exit_code(error)
    except OSError as error:
        give_up_stdout(error)
        code = ExitCode.FAILED
    if code is not ExitCode.USAGE and board.rows:
        view.ended(board)
        note(board.summary())
        if left := board.left:
            note(_how_to_go_on(left, again, fault))
    return code


async def _saved(
    veo: Veo3Client, change: Transition, board: Board, path: pathlib.Path, *, overwrite: bool
) -> pathlib.Path | Veo3Error:
    request_id = change.request_id
    if not overwrite and (there := await anyio.to_thread.run_sync(_saved_before, path, request_id)):
        return there
    # By the id that was asked for: a reply need not repeat it, and the file is named after it.
    task = msgspec.structs.replace(change.task, id=request_id)
    try:
        return await veo.download(
            task,
            path,
            progress=lambda done, total: board.loading(request_id, done, total, now=time.time()),
            overwrite=overwrite,
        )
    except Veo3Error as error:
        return error


def _saved_before(path: pathlib.Path, request_id: str) -> pathlib.Path | None:
    """Return the video that is in a folder already: named after its id it is that, and whole."""
    if not path.is_dir():
        return None
    there = final_path(path, file_name(request_id, ""))
    return there if there.exists() else None


def _how_to_go_on(rows: Sequence[Row], again: Sequence[str], fault: Veo3Error | None) -> str:
    """Return the ids, and a command that can be pasted into a shell, however many they are.

    :param fault: What has ended the watch, or None.
    """
    ids = [row.request_id for row in rows]
    command = continued(again, ids)
    if len(ids) > _MOST_LISTED:
        return f"to go on with these {len(ids)}:\n{command}"
    running = "".join(f"  {plain(row.request_id)}  {_why(row, fault)}\n" for row in rows)
    return f"still running:\n{running}to go on:\n{command}"


def _why(row: Row, fault: Veo3Error | None) -> str:
    """Return where a task is, and what keeps it there as far as that is known."""
    if row.trouble is not None:
        return f"{label(row)}: {in_words(row.trouble)}"
    if fault is not None and row.phase is None:
        return f"never asked for: {in_words(fault.message)}"
    return label(row)
