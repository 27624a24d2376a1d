"""Several machines: the command ``worker``, and ``watch --nats``, which lets it do the polling."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Final, Self

import anyio
import msgspec
import typer
from anyio.abc import TaskStatus

from veo3_async import Eta, Phase, StillPending, Transition, VideoTask
from veo3_async.cli._access import Access, keyless_client, program
from veo3_async.cli._exits import ExitCode
from veo3_async.cli._follow import WatchOptions, conclude, follow, on_loop
from veo3_async.cli._options import BaseUrl, Interval, KeyFile, Prefix, Rate, Replicas, Servers
from veo3_async.cli._output import note, say
from veo3_async.cli._view import view_for
from veo3_async.live._board import Board

if TYPE_CHECKING:
    from veo3_async.cluster import Cluster

__all__ = ["ClusterWatch", "Site", "follow_cluster", "worker"]


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """The options that say where a cluster is."""

    servers: Sequence[str]
    prefix: str
    replicas: int

    def cluster(self, *, rate: float = 20.0) -> Cluster:
        """Return the cluster, not connected yet.

        :param rate: Requests a second of all workers together.
        :raises typer.BadParameter: One of the options cannot be used.
        :raises typer.Exit: The extra ``nats`` is not installed, and that was said.
        """
        try:
            from veo3_async.cluster import Cluster  # noqa: PLC0415 - it may not be installed
        except ModuleNotFoundError as missing:
            if (missing.name or "").partition(".")[0] != "nats":
                raise
            say("nats-py is missing: pip install 'veo3_async[nats]'")
            raise typer.Exit(ExitCode.USAGE) from None
        try:
            return Cluster(
                self.servers,
                prefix=self.prefix,
                replicas=self.replicas,
                max_polls_per_second=rate,
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    def options(self) -> list[str]:
        """Return them as they were given, but for credentials."""
        options = [word for server in self.servers for word in ("--nats", _without_user(server))]
        if self.prefix != "veo3":
            options += ["--prefix", self.prefix]
        return options if self.replicas == 1 else [*options, "--replicas", str(self.replicas)]


class ClusterWatch:
    """Some ids, watched by whatever workers there are; `follow` takes it for a `Watch`."""

    def __init__(self, cluster: Cluster, ids: Sequence[str], timeout: float | None) -> None:
        self._cluster: Final = cluster
        self._changes: Final = cluster.transitions(*ids)
        self._timeout: Final = math.inf if timeout is None else timeout
        self._deadline = math.inf
        self._left: Final[dict[str, Transition | None]] = dict.fromkeys(ids)
        """The last transition of each that is not final."""

    async def __aenter__(self) -> Self:
        self._deadline = anyio.current_time() + self._timeout
        await self._cluster.watch(*self._left)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._changes.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Transition:
        if anyio.current_time() < self._deadline:
            with anyio.CancelScope(deadline=self._deadline):
                return self._noted(await anext(self._changes))
        if not self._left:
            raise StopAsyncIteration
        return self._given_up(*self._left.popitem())

    def eta(self, request_id: str) -> Eta | None:
        """Return what is left by the last transition: no pacing knows more in this process."""
        last = self._left.get(request_id)
        if last is None or last.eta is None:
            return None
        left = max(0.0, last.observed_at + last.eta - time.time())
        return Eta(left, left, left)

    def _noted(self, change: Transition) -> Transition:
        if change.final:
            self._left.pop(change.request_id, None)
        else:
            self._left[change.request_id] = change
        return change

    def _given_up(self, request_id: str, last: Transition | None) -> Transition:
        task = VideoTask(id=request_id, status="") if last is None else last.task
        return Transition(
            request_id=request_id,
            phase=Phase.LOST,
            previous=None if last is None else last.phase,
            status="" if last is None else last.status,
            task=task,
            observed_at=time.time(),
            final=True,
            error=StillPending(
                f"not finished after {self._timeout:g} s; the workers go on with it",
                request_id=request_id,
                elapsed=self._timeout,
                task=task,
            ),
        )


def follow_cluster(
    site: Site, access: Access, ids: Sequence[str], wanted: WatchOptions
) -> ExitCode:
    """Hand ids to the workers and follow them; no key is needed for that.

    :raises typer.BadParameter: An option was given that is the workers' to decide.
    """
    if access.options() or wanted.until != "best":
        message = (
            "--nats leaves the polling to the workers: it excludes --until, --interval, "
            "--journal, --key-file and --base-url"
        )
        raise typer.BadParameter(message)
    cluster = site.cluster()
    board = Board(ids, now=time.time(), saves=wanted.path is not None)
    view = view_for(json=wanted.json)

    async def main() -> None:
        async with keyless_client() as veo, cluster:
            await follow(veo, ClusterWatch(cluster, ids, wanted.timeout), board, view, wanted)

    again = [*program(), "watch", *site.options(), *wanted.arguments()]
    return conclude(main, board, view, again)


def worker(
    *,
    nats: Servers,
    prefix: Prefix = "veo3",
    replicas: Replicas = 1,
    slots: Annotated[int, typer.Option(min=1, help="Ids in hand at once.")] = 32,
    rate: Rate = 20.0,
    interval: Interval = None,
    key_file: KeyFile = None,
    base_url: BaseUrl = None,
) -> int:
    """Poll what others watch with --nats, together with all other workers of that prefix.

    Ctrl-C or SIGTERM ends it, with exit code 0: polls in hand are finished, and the other ids go
    to other workers at once. A second Ctrl-C does not wait for the polls.
    """
    access = Access(key_file=key_file, base_url=base_url, interval=interval, rate=rate)
    cluster = Site(servers=nats, prefix=prefix, replicas=replicas).cluster(rate=rate)
    veo = access.client()

    async def main() -> None:
        stop = anyio.Event()
        async with veo, cluster, anyio.create_task_group() as tasks:
            await tasks.start(_stop_at_signal, stop)
            note(
                f"polling what is watched under the prefix {prefix}, {slots} ids at once, at most "
                f"{rate:g} requests a second by all workers together; Ctrl-C ends it"
            )
            await cluster.work(veo, slots=slots, stop=stop)
            tasks.cancel_scope.cancel()

    on_loop(main)
    return ExitCode.DONE


async def _stop_at_signal(stop: anyio.Event, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        await anext(signals)
    stop.set()


def _without_user(server: str) -> str:
    scheme, mark, rest = server.rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"
