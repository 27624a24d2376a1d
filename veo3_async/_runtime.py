"""What runs for one client, bound to one event loop and one process: its parts and its lifetime.

`Runtime.started` is asked before each use, and makes the parts anew where polling has ended. The
cluster takes what it needs from `Runtime.pacing` and `Runtime.poll_once`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import decimal
import functools
import logging
import os
import urllib.parse
import warnings
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from veo3_async._cancellation import ended
from veo3_async._errors import ClientClosed, JournalError
from veo3_async._learned_store import keep_learned
from veo3_async._lifecycle.contact import Contact
from veo3_async._lifecycle.judge import Answer
from veo3_async._metadata import Origin
from veo3_async._models import Transition
from veo3_async._pacing.learned import LearnedPacing
from veo3_async._pacing.policies import Pacing
from veo3_async._polling.account import Account
from veo3_async._polling.calls import Calls
from veo3_async._polling.dispatcher import Dispatcher, Sender
from veo3_async._polling.hooks import Hook
from veo3_async._polling.job import Job
from veo3_async._polling.origins import Origins
from veo3_async._polling.poller import Poller
from veo3_async._polling.resuming import LeftOver, left_over
from veo3_async._polling.submissions import Submissions
from veo3_async._polling.subscriptions import Subscriptions
from veo3_async._polling.webhooks import Webhooks
from veo3_async._protocol.account import cost_request_ids
from veo3_async._protocol.families import Route
from veo3_async._protocol.http import Reply
from veo3_async._reports import PollReport, Stats

if TYPE_CHECKING:
    from veo3_async._download.downloader import Downloader
    from veo3_async._journal.journal import Journal
    from veo3_async._transport.endpoint import ApiKey
    from veo3_async._transport.recorder import Recorder
    from veo3_async._transport.transport import Transport

__all__ = ["Parts", "Runtime", "Settings", "make_downloader", "make_recorder", "make_transport"]

_log = logging.getLogger("veo3_async")


class _Closable(Protocol):
    async def aclose(self) -> None: ...


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a client is made with, checked."""

    make_transport: Callable[[], Transport]
    make_downloader: Callable[[], Downloader]
    make_recorder: Callable[[], Recorder] | None
    pacing: Pacing
    route: Route
    max_rate: float
    on_poll: Hook[PollReport] | None
    on_change: Hook[Transition] | None
    journal: str | os.PathLike[str] | Journal | None


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What works while polling goes on."""

    dispatcher: Dispatcher[Job]
    subscriptions: Subscriptions
    poller: Poller
    origins: Origins
    calls: Calls
    account: Account
    submissions: Submissions
    webhooks: Webhooks
    downloader: Downloader
    journal: Journal | None


class Runtime:
    """The parts of one client; it owns the one background task."""

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._pid: Final = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._transport: Transport | None = None
        self._recorder: Recorder | None = None
        self._parts: Parts | None = None
        self._runner: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        if self._closed:
            return "closed"
        if self._parts is None:
            return "idle"
        return f"{len(self._parts.subscriptions)} ids, {self._parts.dispatcher!r}"

    @property
    def pacing(self) -> Pacing:
        """When an id is asked for again."""
        return self._settings.pacing

    def mark_of_key(self, purpose: str) -> str:
        """Return a hash that is the same for the same API key; the key cannot be found from it."""
        return self._used_transport().mark_of_key(purpose)

    def needed_journal(self) -> Journal:
        """Return the journal, started.

        :raises JournalError: There is none.
        :raises ClientClosed: As `started`.
        """
        journal = self.started().journal
        if journal is None:
            message = "this client has no journal; make it with journal='veo3.db'"
            raise JournalError(message)
        return journal

    async def left_over(self) -> LeftOver:
        """Return what an earlier process left in the journal.

        :raises JournalError: There is none, or it cannot be read.
        :raises ClientClosed: As `started`.
        """
        return await left_over(self.needed_journal(), self._settings.pacing)

    def started(self) -> Parts:
        """Return the parts, and see to it that they run.

        :raises ClientClosed: The client was closed, or belongs to another loop or process.
        :raises RuntimeError: No event loop is running.
        """
        if self._closed:
            message = "this client was closed; make another one"
            raise ClientClosed(message)
        if self._pid != os.getpid():
            message = "this client was made before a fork; make one in each process"
            raise ClientClosed(message)
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise _elsewhere()
        if self._parts is None or self._runner is None or self._runner.done():
            self._parts = self._made()
            # Not in the caller's context: its cancel scopes and variables are not ours.
            self._runner = loop.create_task(
                _run(self._parts, self._closables(self._parts)),
                name="veo3_async",
                context=contextvars.Context(),
            )
        return self._parts

    async def open(self) -> None:
        """Start, and let trouble with the journal show now.

        :raises JournalError: It cannot be used; everything is closed then.
        """
        # Also where it seems to be loaded: another client may be at it. Not by anyio, whose first
        # use loads a tenth of it all on the loop.
        await asyncio.to_thread(_load, self._settings)
        if (journal := self.started().journal) is None:
            return
        try:
            await journal.open()
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close everything: watches fail with `ClientClosed`. A cancellation comes out after that.

        :raises ClientClosed: It is called from another event loop than it was used in.
        """
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise _elsewhere()
        self._closed = True
        if self._parts is not None and self._runner is not None:
            self._parts.calls.close()
            self._parts.subscriptions.stop(ClientClosed("the client was closed"))
            self._runner.cancel()  # it may not have begun yet
            await ended(self._runner)

    def __del__(self) -> None:
        runner = getattr(self, "_runner", None)
        if runner is None or runner.done() or runner.get_loop().is_closed():
            return
        message = f"a Veo3Client was never closed: {self!r}"
        warnings.warn(message, ResourceWarning, source=self, stacklevel=2)
        runner.get_loop().call_soon_threadsafe(runner.cancel)

    def stats(self) -> Stats:
        """Return what is going on; all zero before the first use."""
        if self._parts is None or self._loop is None:
            return Stats(rate=self._settings.max_rate)
        return _stats(self._parts, self._settings.pacing, self._loop.time())

    async def poll_once(
        self, request_id: str, route: Route | None, is_known: Callable[[Reply], bool]
    ) -> tuple[Answer, Reply | None]:
        """Ask once for the state of a task, in its turn; with the reply where one came.

        :param route: Where it is polled; None: by its prefix, else where this client polls.
        :param is_known: Whether a reply need not be read: it is UNCHANGED.
        """
        return await self.started().calls.poll(request_id, route, is_known)

    def origin_of(self, request_id: str) -> Origin:
        """Return where a task is polled, and what was attached to it, as this client knows."""
        return self.started().origins.of(request_id, self._settings.route)

    async def cost(self, request_id: str) -> decimal.Decimal | None:
        """Return what a task has cost, in PTC, or None where that cannot be found out."""
        parts = self.started()
        origin = parts.origins.of(request_id, self._settings.route)
        http_ids = [origin.http_request_id]
        if origin.http_request_id is None and parts.journal is not None:
            known = (await parts.journal.known([request_id])).get(request_id)
            http_ids = [None if known is None else known.http_request_id]
        if http_ids == [None]:
            task = await parts.calls.fetch(request_id)
            http_ids = list(cost_request_ids(task))
        costs = [await parts.account.cost(http_id) for http_id in http_ids if http_id is not None]
        known_costs = [cost for cost in costs if cost is not None]
        return sum(known_costs, decimal.Decimal(0)) if known_costs else None

    # --- the parts --------------------------------------------------------------------------

    def _used_transport(self) -> Transport:
        if self._transport is None:
            self._transport = self._settings.make_transport()
        return self._transport

    def _used_recorder(self) -> Recorder | None:
        if self._recorder is None and self._settings.make_recorder is not None:
            self._recorder = self._settings.make_recorder()
        return self._recorder

    def _sender(self) -> Sender:
        """Return what makes the requests: the transport, recorded where that is wanted."""
        transport, recorder = self._used_transport(), self._used_recorder()
        if recorder is None:
            return transport
        from veo3_async._transport.recorder import RecordedTransport  # noqa: PLC0415 - is loaded

        return RecordedTransport(transport, recorder)

    def _made(self) -> Parts:
        settings, journal = self._settings, self._journal()
        dispatcher: Dispatcher[Job] = Dispatcher(
            self._sender(),
            max_rate=settings.max_rate,
            max_in_flight=self._used_transport().max_connections,
        )
        origins = Origins(journal)
        subscriptions = Subscriptions(dispatcher, settings.pacing, origins, journal)
        contact = Contact()
        calls = Calls(dispatcher, origins, contact, settings.route)
        account, webhooks = Account(calls), Webhooks()
        return Parts(
            dispatcher=dispatcher,
            subscriptions=subscriptions,
            poller=Poller(
                dispatcher,
                subscriptions,
                settings.pacing,
                contact,
                route=settings.route,
                on_poll=settings.on_poll,
                on_change=settings.on_change,
                journal=journal,
                beside=self._beside(journal),
            ),
            origins=origins,
            calls=calls,
            account=account,
            submissions=Submissions(calls, account, origins, webhooks, journal),
            webhooks=webhooks,
            downloader=settings.make_downloader(),
            journal=journal,
        )

    def _journal(self) -> Journal | None:
        given = self._settings.journal
        if given is None:
            return None
        from veo3_async._journal.journal import Journal  # noqa: PLC0415 - sqlite3 is not always there

        return given if isinstance(given, Journal) else Journal(given)

    def _beside(self, journal: Journal | None) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """Return what runs beside the polling: recording, and keeping what the pacing learns."""
        pacing, recorder = self._settings.pacing, self._used_recorder()
        beside: list[Callable[[], Coroutine[Any, Any, None]]] = []
        if recorder is not None:
            beside.append(recorder.run)
        if journal is not None and isinstance(pacing, LearnedPacing):
            beside.append(functools.partial(keep_learned, pacing, journal))
        return beside

    def _closables(self, parts: Parts) -> list[_Closable]:
        """Return what is closed with the polling; a journal that was handed in is not ours."""
        closables: list[_Closable] = [self._used_transport(), parts.downloader]
        if (recorder := self._used_recorder()) is not None:
            closables.append(recorder)
        if parts.journal is not None and parts.journal is not self._settings.journal:
            closables.append(parts.journal)
        return closables


def make_transport(key: ApiKey, base_url: str, **options: Any) -> Transport:  # noqa: ANN401 - as there
    """Return a `Transport`; the first one loads aiohttp, which takes 0.2 s."""
    from veo3_async._transport.transport import Transport  # noqa: PLC0415

    return Transport(key, base_url, **options)


def make_downloader(**options: Any) -> Downloader:  # noqa: ANN401 - as there
    """Return a `Downloader`; the first one loads aiohttp."""
    from veo3_async._download.downloader import Downloader  # noqa: PLC0415

    return Downloader(**options)


def make_recorder(path: str, key: ApiKey, base_url: str, *, prompts: bool) -> Recorder:
    """Return a `Recorder`; the first one loads its module."""
    from veo3_async._transport.recorder import Recorder  # noqa: PLC0415 - few want one

    host = urllib.parse.urlsplit(base_url).hostname or ""
    return Recorder(path, secret=key.reveal(), host=host, prompts=prompts)


def _load(settings: Settings) -> None:
    """Import what a client uses, which takes 0.3 s: aiohttp, and what else waits for its first use.

    Of the modules of others those too that they load themselves at their first use.
    """
    with contextlib.suppress(ImportError):  # it is anyio's own, and may have another name
        import anyio._backends._asyncio  # noqa: F401, PLC0415
    import veo3_async._download.downloader  # noqa: PLC0415
    import veo3_async._transport.transport  # noqa: PLC0415

    if settings.make_recorder is not None:
        import veo3_async._transport.recorder  # noqa: PLC0415
    if settings.journal is not None:
        import veo3_async._journal.journal  # noqa: F401, PLC0415


def _stats(parts: Parts, pacing: Pacing, now: float) -> Stats:
    dispatcher, subscriptions = parts.dispatcher, parts.subscriptions
    oldest, last = subscriptions.oldest, dispatcher.last_success
    learned = pacing if isinstance(pacing, LearnedPacing) else None
    return Stats(
        watched=len(subscriptions),
        in_flight=dispatcher.in_flight,
        polls=dispatcher.sent["GET"],
        transitions=subscriptions.transitions,
        ends={phase.value: count for phase, count in parts.poller.ends.items()},
        submissions=parts.submissions.accepted,
        downloads=parts.downloader.videos,
        downloaded_bytes=parts.downloader.bytes,
        last_reply_age=None if last is None else now - last,
        failures={kind.value: count for kind, count in dispatcher.failures.items()},
        rate=dispatcher.throttle.rate,
        throttled_seconds=dispatcher.throttle.throttled_seconds(now),
        throttle_reason=dispatcher.throttle.reason,
        lag_p50=dispatcher.lag.quantile(0.5),
        lag_p95=dispatcher.lag.quantile(0.95),
        oldest=None if oldest is None else now - oldest,
        expected_polls=None if learned is None else learned.expected_polls,
        expected_lag=None if learned is None else learned.expected_lag,
    )


async def _run(parts: Parts, closables: Sequence[_Closable]) -> None:
    """Poll until cancelled; no watcher is left waiting.

    A function, for a method would keep a forgotten client alive.
    """
    reason: BaseException = ClientClosed("the client was closed")
    try:
        await parts.poller.run()
    except Exception as error:  # noqa: BLE001 - it goes to every watcher
        reason = error
        while isinstance(reason, BaseExceptionGroup):
            reason = reason.exceptions[0]
        _log.error("polling has stopped; a new watch begins anew: %r", reason)
    finally:
        parts.subscriptions.stop(reason)
        await ended(asyncio.ensure_future(_close(closables)))


async def _close(closables: Sequence[_Closable]) -> None:
    """Close them in their order, each whatever comes of the others."""
    try:
        async with contextlib.AsyncExitStack() as stack:
            for closable in reversed(closables):
                stack.push_async_callback(closable.aclose)
    except Exception:  # noqa: BLE001 - nobody can do anything about it
        _log.exception("the client is closed, but for a part of it")


def _elsewhere() -> ClientClosed:
    return ClientClosed("this client belongs to another event loop; make one in each")
