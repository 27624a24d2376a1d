"""Several machines: the command ``worker``, and ``watch --nats``, which lets it do the polling."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final

import anyio
import msgspec
import typer
from anyio.abc import TaskStatus

from veo3_async import Veo3Error
from veo3_async.cli._access import Access, Service, keyless_client, program
from veo3_async.cli._exits import ExitCode
from veo3_async.cli._follow import WatchOptions, conclude, follow, on_loop
from veo3_async.cli._login import Login
from veo3_async.cli._options import Interval, Json, Prefix, Rate, Replicas, Servers
from veo3_async.cli._output import emit, note, say, wants_json
from veo3_async.cli._view import view_for
from veo3_async.live._board import Board

if TYPE_CHECKING:
    from veo3_async import Veo3Client
    from veo3_async.cluster import Cluster, ClusterStats

__all__ = ["Place", "clusters", "follow_cluster", "status", "worker"]

clusters: Final = typer.Typer(help="What goes on in a cluster of workers.", no_args_is_help=True)


@clusters.callback()
def _clusters() -> None:
    """Tell what goes on in a cluster of workers."""


_REPORT_SECONDS: Final = 60.0


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """The options that say where a cluster is."""

    servers: Sequence[str]
    prefix: str
    replicas: int
    login: Mapping[str, str] = msgspec.field(default_factory=dict)
    """How to log in, by the names of the environment's variables; what is missing is there."""

    def cluster(self, *, rate: float = 20.0) -> Cluster:
        """Return the cluster, not connected yet.

        :param rate: Requests a second of all workers together.
        :raises typer.BadParameter: One of the options cannot be used.
        :raises typer.Exit: The extra ``nats`` is not installed, and that was said.
        """
        try:
            from veo3_async.cluster import Cluster  # noqa: PLC0415 - it may not be installed
            from veo3_async.cluster._environment import connect_options  # noqa: PLC0415
        except ModuleNotFoundError as missing:
            if (missing.name or "").partition(".")[0] != "nats":
                raise
            say(missing)
            raise typer.Exit(ExitCode.USAGE) from None
        try:
            return Cluster(
                [url for server in self.servers for url in server.split(",")],
                prefix=self.prefix,
                replicas=self.replicas,
                max_polls_per_second=rate,
                options=connect_options({}, {**os.environ, **self.login}),
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    def options(self) -> list[str]:
        """Return them as they were given, but for credentials."""
        options = [word for server in self.servers for word in ("--nats", _without_user(server))]
        if self.prefix != "veo3":
            options += ["--prefix", self.prefix]
        return options if self.replicas == 1 else [*options, "--replicas", str(self.replicas)]


def follow_cluster(
    place: Place, access: Access, ids: Sequence[str], wanted: WatchOptions
) -> ExitCode:
    """Hand ids to the workers and follow them; no key is needed for that.

    :raises typer.BadParameter: An option was given that is the workers' to decide.
    """
    if access.options() or wanted.until != "best":
        message = (
            "--nats leaves the polling to the workers: it excludes --until, --interval, --journal, "
            "--model, --family and what says how the service is reached (--key-file, --base-url, "
            "--proxy, --trust-env, --record)"
        )
        raise typer.BadParameter(message)
    cluster = place.cluster()
    from veo3_async.cluster import ClusterWatch  # noqa: PLC0415 - it is installed

    board = Board(ids, now=time.time(), saves=wanted.path is not None)
    view = view_for(json=wanted.json, plain=wanted.plain)

    async def main() -> None:
        watch = ClusterWatch(cluster, *ids, timeout=wanted.timeout)
        async with keyless_client(base_url=None) as veo, cluster:
            await follow(veo, watch, board, view, wanted)

    again = [*program(), "watch", *place.options(), *wanted.arguments()]
    return conclude(main, board, view, again)


def worker(
    *,
    nats: Servers,
    prefix: Prefix = "veo3",
    replicas: Replicas = 1,
    slots: Annotated[int, typer.Option(min=1, help="Ids in hand at once.")] = 32,
    rate: Rate = 20.0,
    interval: Interval = None,
    service: Service,
    login: Login,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Tell every minute what goes on.")
    ] = False,
) -> int:
    """Poll what others watch with --nats, together with all other workers of that prefix.

    While NATS is away it waits. Ctrl-C or SIGTERM ends it, with exit code 0: polls in hand are
    finished, and the other ids go to other workers at once. A second Ctrl-C does not wait for the
    polls.
    """
    access = service.access(interval=interval, rate=rate)
    place = Place(servers=nats, prefix=prefix, replicas=replicas, login=login.environment())
    cluster, veo = place.cluster(rate=rate), access.client()
    said = (
        f"polling what is watched under the prefix {prefix}, {slots} ids at once, at most "
        f"{rate:g} requests a second by all workers together; Ctrl-C ends it"
    )
    on_loop(lambda: _work(cluster, veo, slots, said, verbose=verbose))
    return ExitCode.DONE


async def _work(cluster: Cluster, veo: Veo3Client, slots: int, said: str, *, verbose: bool) -> None:
    stop = anyio.Event()
    async with veo, cluster, anyio.create_task_group() as tasks:
        gc.freeze()  # what is loaded is never garbage, and to walk it holds up the polls
        await tasks.start(_stop_at_signal, stop)
        note(said)
        if verbose:
            tasks.start_soon(_report, cluster)
        await cluster.work(veo, slots=slots, stop=stop)
        tasks.cancel_scope.cancel()


def status(
    *,
    nats: Servers,
    prefix: Prefix = "veo3",
    replicas: Replicas = 1,
    json: Json = False,
    login: Login,
) -> int:
    """Say how many ids are watched, and who polls them; needs no API key.

    Exit code 1 where ids are watched and no worker lives, or NATS cannot be reached: as a probe
    wants it, with --json.
    """
    place = Place(servers=nats, prefix=prefix, replicas=replicas, login=login.environment())
    cluster = place.cluster()

    async def main() -> ClusterStats:
        try:
            return await cluster.stats()
        finally:
            await cluster.aclose()

    stats = on_loop(main)
    emit(msgspec.to_builtins(stats) if wants_json(json) else _said(stats))
    return ExitCode.FAILED if stats.outstanding and not stats.workers else ExitCode.DONE


def _said(stats: ClusterStats) -> str:
    rate = "no rate yet" if stats.rate is None else f"{stats.rate:g} requests a second"
    parts = [
        f"{stats.outstanding} ids watched",
        f"{stats.unpolled} of them not polled yet",
        f"{stats.workers} workers with {stats.in_hand} ids in hand",
        rate,
    ]
    if stats.paused:
        parts.append(f"paused for {stats.paused:.0f} s, as the service asked")
    if (most := max(map(abs, stats.clock_offsets), default=0.0)) >= 1:
        parts.append(f"clocks up to {most:.0f} s off")
    return ", ".join(parts)


async def _report(cluster: Cluster) -> None:
    while True:
        await anyio.sleep(_REPORT_SECONDS)
        with contextlib.suppress(Veo3Error):  # what goes wrong is logged where it happens
            note(_said(await cluster.stats()))


async def _stop_at_signal(stop: anyio.Event, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        await anext(signals)
    stop.set()


def _without_user(server: str) -> str:
    scheme, mark, rest = server.rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"
