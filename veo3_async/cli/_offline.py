"""What needs neither a key nor a network: the commands ``demo`` and ``serve``."""

from __future__ import annotations

import pathlib
import sys
import time
from typing import Annotated, Any

import typer
from anyio import sleep_forever

from veo3_async import testing
from veo3_async.cli._demo import Demo
from veo3_async.cli._exits import ExitCode, InterruptError
from veo3_async.cli._follow import on_loop
from veo3_async.cli._groups import Group
from veo3_async.cli._options import Json, Speed, duration, positive
from veo3_async.cli._output import note, plain, put
from veo3_async.cli._view import FinalView, view_for
from veo3_async.live._board import Board

__all__ = ["demo", "serve"]


def demo(
    *,
    tasks: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 25,
    speed: Speed = 20.0,
    json: Json = False,
) -> int:
    """Submit and watch made-up tasks of every kind, to the end: without a key or a network.

    Exit code 0 if every one ended as it should, the failures included.
    """
    board, show = Board([], now=time.time()), Demo(tasks, speed)
    view = view_for(json=json) if json or sys.stdout.isatty() else FinalView()
    began = time.monotonic()
    on_loop(lambda: show.play(board, view))
    view.ended(board)
    note(board.summary())
    as_it_should = show.ended_well(board)
    note(
        f"{'every one' if as_it_should else 'NOT every one'} ended as it should, in "
        f"{time.monotonic() - began:.0f} s at {speed:g} times the speed of real ones, "
        f"with {show.polls_per_task():.1f} polls a task"
    )
    return ExitCode.DONE if as_it_should else ExitCode.FAILED


class Fake(Group, frozen=True, kw_only=True):
    """The options of a fake service: where it is, how fast its tasks live, what goes wrong."""

    port: Annotated[
        int, typer.Option(min=0, max=65535, help="TCP port on this machine; 0 takes a free one.")
    ] = 0
    speed: Speed = 20.0
    fail: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, metavar="SHARE", help="Share of the polls that get HTTP 503."
        ),
    ] = 0.0
    rate_limit: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            callback=positive,
            help="API requests a second that are let in; more get HTTP 429.",
        ),
    ] = None
    latency: Annotated[
        float | None,
        typer.Option(metavar="DURATION", parser=duration, help="Time before each answer."),
    ] = None
    seed: Annotated[int, typer.Option(help="Of the ids, the lives and the failures.")] = 0
    replay: Annotated[
        pathlib.Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            metavar="FILE",
            help="Answer as in this recording (what --record has written), at --speed.",
        ),
    ] = None
    log: Annotated[bool, typer.Option("--log/--no-log", help="Write each request to stderr.")] = (
        True
    )

    def server(self) -> testing.FakeVeo3:
        """Return the service, not started yet."""
        options: dict[str, Any] = {
            "port": self.port,
            "rate_limit": self.rate_limit,
            "latency": self.latency or 0.0,
            "seed": self.seed,
            "record": False,
            "on_reply": _log if self.log else None,
        }
        if self.replay is not None:
            server = testing.FakeVeo3.replay(self.replay, speed=self.speed, **options)
        else:
            server = testing.FakeVeo3(speed=self.speed, lives=testing.Life.mixed, **options)
        if self.fail:
            server.fault(testing.Status(503), rate=self.fail)
        return server


def serve(fake: Fake, *, json: Json = False) -> int:
    """Run a fake of the service on this machine, for building a bot without a key.

    Tasks that are submitted to it live as real ones do: most bring a video, some are tried again,
    some fail. Prints the base URL and the key to use. Ctrl-C or SIGTERM ends it, with exit code 0.
    """
    server = fake.server()
    try:
        on_loop(lambda: _serving(server, json=json))
    except InterruptError:
        return ExitCode.DONE
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except OSError as error:
        message = f"port {fake.port} cannot be used: {error.strerror}"
        raise typer.BadParameter(message) from None
    return ExitCode.DONE


async def _serving(server: testing.FakeVeo3, *, json: bool) -> None:
    async with server:
        settings = {"AI302_BASE_URL": server.url, "AI302_API_KEY": server.api_key}
        lines = (f"export {name}={value}" for name, value in settings.items())
        await put(settings if json else "\n".join(lines))
        note("serving; Ctrl-C ends it")
        await sleep_forever()


def _log(request: testing.Received, status: int) -> None:
    note(f"{time.strftime('%H:%M:%S')}  {request.method} {plain(request.target)}  {status}")
