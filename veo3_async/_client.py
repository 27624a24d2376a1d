"""Lifetimes and the face: builds the parts and owns the one background task."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import datetime
import functools
import inspect
import logging
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, Self

from veo3_async._arguments import count, positive, seconds
from veo3_async._cancellation import ended
from veo3_async._errors import ClientClosed, JournalError, SubmitUncertain, Veo3Error
from veo3_async._lifecycle.phases import Until
from veo3_async._models import PollReport, Stats, VideoTask
from veo3_async._pacing.learned import LearnedPacing
from veo3_async._pacing.policies import Pacing
from veo3_async._polling.calls import Calls
from veo3_async._polling.mailbox import Mailbox
from veo3_async._polling.poller import Poller
from veo3_async._polling.watch import Watch
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.http import Reply
from veo3_async._protocol.ids import check_model, check_request_id
from veo3_async._protocol.submission import submit_call
from veo3_async._transport.endpoint import ApiKey, check_proxy, find_base_url

if TYPE_CHECKING:
    import aiohttp

    from veo3_async._download.downloader import Downloader
    from veo3_async._journal.journal import Journal
    from veo3_async._journal.tasks import Pending
    from veo3_async._polling.dispatcher import Dispatcher
    from veo3_async._transport.transport import Transport

__all__ = ["Veo3Client"]

_log = logging.getLogger("veo3_async")


class _Closable(Protocol):
    async def aclose(self) -> None: ...


class Veo3Client:
    """The session manager: watches tasks of 302.AI's veo3-pro endpoint, any number at once.

    Made anywhere; the first use binds it to the running event loop and starts what it needs.
    Ended by ``async with`` or by `aclose`, from any task of that loop.

    :param api_key: The key; None takes it from ``AI302_API_KEY``, else ``AI302_KEY``.
    :param base_url: Where the API is; None takes ``AI302_BASE_URL``, else
        ``https://api.302.ai``. ``http`` is for this machine and private networks only.
    :param model: The model whose path is asked for ids that do not name a known one.
    :param session: An ``aiohttp.ClientSession`` to use; it is never closed and never changed.
        Its middlewares are not used. None makes one.
    :param pacing: When an id is asked for again; None makes a `LearnedPacing`.
    :param max_polls_per_second: Physical requests a second that are never exceeded, over 0,
        for all ids together: the limit of a key is not documented.
    :param max_connections: Requests under way at once, at least 1.
    :param request_timeout: Seconds (``float`` or ``timedelta``) that one request may take in
        all; connecting may take 10 of them and a silence 20.
    :param journal: A file, or a `Journal`, that knows every accepted task until its end was
        delivered; see `pending` and `resume`. A `Journal` handed in is used, not closed.
    :param proxy: URL of an HTTP proxy; None goes direct, whatever the environment says.
    :param on_poll: A plain function that gets a `PollReport` after every poll. What it raises
        is logged once and ignored.
    :raises AuthenticationError: There is no key, or it cannot be one.
    :raises InvalidRequest: The model cannot be a part of a path.
    :raises ValueError: Another argument is out of its range.
    :raises TypeError: An argument is of another type.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        model: str = "veo3-pro",
        session: aiohttp.ClientSession | None = None,
        pacing: Pacing | None = None,
        max_polls_per_second: float = 20.0,
        max_connections: int = 32,
        request_timeout: float | datetime.timedelta = 30.0,
        journal: str | os.PathLike[str] | Journal | None = None,
        proxy: str | None = None,
        on_poll: Callable[[PollReport], object] | None = None,
    ) -> None:
        self._closed = False
        self._runner: asyncio.Task[None] | None = None
        try:
            key = ApiKey.find(api_key)
        finally:
            del api_key  # this frame is in the traceback of what follows
        self._base_url: Final = find_base_url(base_url)
        proxy = check_proxy(proxy)
        self._model: Final = check_model(model)
        self._pacing: Final[Pacing] = LearnedPacing() if pacing is None else pacing
        self._max_rate: Final = positive("max_polls_per_second", max_polls_per_second)
        self._given_journal: Final = journal
        self._journal: Journal | None = None
        self._on_poll: Final = on_poll
        if on_poll is not None and (inspect.iscoroutinefunction(on_poll) or not callable(on_poll)):
            message = "on_poll is a plain function: it is called, not awaited"
            raise TypeError(message)
        if not isinstance(self._pacing, Pacing):
            message = f"pacing is a Pacing, such as FixedPacing(10), not {pacing!r}"
            raise TypeError(message)

        # aiohttp takes 0.2 s: not before there is a client, and not in the middle of its work
        from veo3_async._download.downloader import Downloader  # noqa: PLC0415
        from veo3_async._transport.transport import Transport  # noqa: PLC0415

        self._transport: Final[Transport] = Transport(
            key,
            self._base_url,
            session=session,
            max_connections=count("max_connections", max_connections),
            request_timeout=seconds("request_timeout", request_timeout),
            proxy=proxy,
        )
        self._make_downloader: Final = functools.partial(Downloader, proxy=proxy)
        self._downloader: Downloader = self._make_downloader()
        self._pid: Final = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poller: Poller | None = None
        self._calls: Final = Calls(self._model)

    def __repr__(self) -> str:
        if not hasattr(self, "_poller"):
            return "<Veo3Client: never made>"  # a traceback with locals shows its constructor
        state = "closed" if self._closed else repr(self._poller) if self._poller else "idle"
        return f"<Veo3Client: {self._base_url}, {state}>"

    def __reduce__(self) -> NoReturn:
        message = "a client is not pickled or copied; make another one"
        raise TypeError(message)

    # --- tasks ------------------------------------------------------------------------------

    def watch(
        self,
        *request_ids: str,
        until: Until = "best",
        timeout: float | datetime.timedelta | None = None,
        keep_open: bool = False,
    ) -> Watch:
        """Return the transitions of these tasks as they come, as one stream.

        Polling begins at once. What goes wrong with one id is its final transition, with the
        ``error``; what is wrong with the key or the client is raised by the stream.

        :param request_ids: As the service gave them; an id given twice is watched once.
        :param until: ``"best"`` waits for the upsampled video where one was asked for and is
            content with the plain one if upsampling fails for good; ``"video"`` ends with the
            first video there is.
        :param timeout: Seconds for the whole watch, after which every unfinished id ends with
            `StillPending` and no other is taken; None waits for ever.
        :param keep_open: Do not end with the last id: `Watch.add` brings more.
        :raises InvalidRequest: One of the ids cannot be one; nothing is watched then.
        :raises TypeError: One of the ids is no ``str``, or the timeout no time.
        :raises ValueError: ``until`` is another word, or the timeout not finite and above 0.
        :raises ClientClosed: The client was closed, or belongs to another loop or process.
        :raises RuntimeError: No event loop is running.
        """
        watch, _ = self._watch(request_ids, until=until, timeout=timeout, keep_open=keep_open)
        return watch

    def _watch(
        self,
        request_ids: Sequence[str],
        *,
        until: Until,
        timeout: float | datetime.timedelta | None,
        keep_open: bool,
    ) -> tuple[Watch, Mailbox]:
        if until not in {"best", "video"}:
            message = f"until is 'best' or 'video', not {until!r}"
            raise ValueError(message)
        limit = None if timeout is None else seconds("timeout", timeout)
        for request_id in request_ids:
            check_request_id(request_id)
        poller = self._started()
        mailbox = Mailbox(until, keep_open=keep_open)
        poller.register(mailbox, limit)
        poller.subscribe(mailbox, request_ids)
        return Watch(mailbox, poller, owner=self), mailbox

    async def wait(
        self,
        request_id: str,
        *,
        until: Until = "best",
        timeout: float | datetime.timedelta | None = None,  # noqa: ASYNC109 - ends in StillPending
    ) -> VideoTask:
        """Return the finished task.

        With a journal its end counts as dealt with once it is returned or raised: who must hear
        of it again after a crash in what follows reads a `watch`, as `Watch` says.

        Parameters as for `watch`.

        :raises TaskFailed: The service gave the task up.
        :raises TaskNotFound: The service has not known the id for 30 s.
        :raises StillPending: The timeout is over; the task goes on.
        :raises Veo3Error: Whatever else the final transition carries, or ends the stream.
        :raises InvalidRequest: The id cannot be one, or the service refuses it.
        :raises TypeError: The id is no ``str``, or the timeout no time.
        :raises ValueError: ``until`` is another word, or the timeout not finite and above 0.
        :raises ClientClosed: The client was closed, before or meanwhile, or belongs to another
            loop or process.
        """
        async with self.watch(request_id, until=until, timeout=timeout) as changes:
            ends = [change async for change in changes if change.final]
        if not ends:
            message = "the watch was closed before the task had ended"
            raise ClientClosed(message, request_id=request_id)
        if ends[0].error is not None:
            raise ends[0].error
        return ends[0].task

    async def fetch(self, request_id: str) -> VideoTask:
        """Return the state of a task as it is now: one GET, repeated up to 3 times on faults.

        :raises TaskNotFound: The service does not know the id (yet).
        :raises ServiceUnavailable: The faults did not pass.
        :raises Veo3Error: What else a reply said.
        :raises InvalidRequest: The id cannot be one, or the service refuses it.
        :raises TypeError: The id is no ``str``.
        :raises ClientClosed: The client was closed, before or meanwhile, or belongs to another
            loop or process.
        """
        check_request_id(request_id)
        return await self._calls.fetch(self._turns, request_id)

    async def submit(
        self,
        prompt: str,
        *,
        image: str | None = None,
        model: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """Submit a task and return its request id, which `watch` takes.

        This costs money. The request is sent again, up to 5 times in all, only where it
        certainly did not arrive: no connection was made, or 429 or 503 answered. With a journal
        it is written down before; one that is cut short is listed by `pending` as in doubt.

        :param prompt: What the video is to show; not empty.
        :param image: Public http(s) URL of an image that the video begins with, or None.
        :param model: ``"veo3-pro"``, ``"veo3-fast"``, ``"veo3"`` or another of their kind; None
            takes the client's.
        :param extra: Further fields of the request's JSON.
        :raises InvalidRequest: Something cannot be sent, or the service refuses it.
        :raises SubmitUncertain: The task may exist and may have been charged.
        :raises ServiceUnavailable: The service cannot be reached; no task exists.
        :raises AuthenticationError: The key is refused.
        :raises QuotaExceeded: The balance or a quota is used up.
        :raises UnexpectedReply: What refuses it is not the API; no task exists.
        :raises ClientClosed: The client was closed before it was sent, or belongs to another
            loop or process.
        :raises JournalError: The intent could not be written down, and nothing was sent; or the
            id could not, and is in ``request_id``.
        """
        model = self._model if model is None else model
        call = submit_call(prompt, image=image, model=model, extra=extra)
        self._started()
        if self._journal is None:
            return await self._calls.submit(self._turns, call)
        intent = await self._journal.intend(prompt, model=model, image=image, at=time.time())
        try:
            request_id = await self._calls.submit(self._turns, call)
        except SubmitUncertain:
            raise  # it stays in doubt
        except Veo3Error as error:
            await _note_refusal(self._journal, intent, error)
            raise
        await self._journal.submitted(intent, request_id, at=time.time())
        return request_id

    async def download(
        self,
        task_or_url: VideoTask | str,
        path: str | os.PathLike[str],
        *,
        progress: Callable[[int, int | None], object] | None = None,
        resume: bool = True,
        overwrite: bool = False,
    ) -> pathlib.Path:
        """Bring a video to disk whole, and return where it is. The key is never sent.

        What is there of it stays beside ``path`` as ``….part`` until it is whole; the path
        itself is absent or complete. Up to 4 downloads run at once, and none is taken that has over
        2 GiB. A URL that has expired is asked for anew once, where a task was given.

        :param task_or_url: A task with a video, of which the best is taken, or a URL.
        :param path: The file, or a directory, in which the file is named after the request id.
        :param progress: Gets the bytes that are there and the bytes in all (None where the
            server does not tell), at most 10 times a second. What it raises is logged once.
        :param resume: Go on with what an earlier call left; False begins anew.
        :param overwrite: Replace a file that is there; False leaves it and raises.
        :raises DownloadError: It could not be done; the message says what to do.
        :raises Veo3Error: What `fetch` raises, such as `TaskNotFound`, where it was asked for a
            fresh URL.
        :raises TypeError: ``task_or_url`` is neither, or ``path`` no path.
        :raises ClientClosed: The client was closed, before or meanwhile, or belongs to another
            loop or process.
        """
        self._started()
        task = task_or_url if isinstance(task_or_url, VideoTask) else None
        refresh = None if task is None or not task.id else functools.partial(self.fetch, task.id)
        return await self._downloader.download(
            task_or_url,
            path,
            progress=progress,
            resume=resume,
            overwrite=overwrite,
            refresh=refresh,
        )

    # --- the journal ------------------------------------------------------------------------

    async def pending(self) -> list[Pending]:
        """Return the tasks that are unfinished, undelivered, or submitted in doubt.

        :raises JournalError: There is no journal, or it cannot be read.
        :raises ClientClosed: The client was closed, or belongs to another loop or process.
        """
        self._started()
        return await self._needed_journal().pending()

    async def resume(
        self,
        *,
        until: Until = "best",
        timeout: float | datetime.timedelta | None = None,  # noqa: ASYNC109 - ends in StillPending
        keep_open: bool = False,
    ) -> Watch:
        """Return a `Watch` over everything in the journal that is unfinished or undelivered.

        An end that is known already comes at once, without a poll. Parameters as for `watch`.

        :raises JournalError: There is no journal, or it cannot be read.
        :raises TypeError: The timeout is no time.
        :raises ValueError: ``until`` is another word, or the timeout not finite and above 0.
        :raises ClientClosed: The client was closed, or belongs to another loop or process.
        """
        owed = [p for p in await self.pending() if p.request_id is not None]
        watch, mailbox = self._watch(
            [p.request_id for p in owed if p.request_id is not None and p.final is None],
            until=until,
            timeout=timeout,
            keep_open=keep_open,
        )
        for end in (p.final for p in owed if p.final is not None):
            mailbox.open_for([end.request_id])
            mailbox.post(end)
        return watch

    # --- lifetime ---------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Return what the client is doing; all zero before the first use."""
        if self._poller is not None:
            return self._poller.stats()
        return Stats(rate=self._max_rate)

    async def __aenter__(self) -> Self:
        self._started()
        if self._journal is not None:
            try:
                await self._journal.open()  # trouble shows now
            except BaseException:
                await self.aclose()
                raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End everything: watchers get `ClientClosed`, connections are closed. May be repeated.

        A cancellation comes out when all is closed.

        :raises ClientClosed: It is called from another event loop than it was used in.
        """
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise _elsewhere()
        self._closed = True
        self._calls.end()
        if self._poller is not None and self._runner is not None:
            self._poller.end(ClientClosed("the client was closed"))  # it may not have begun yet
            self._runner.cancel()
            await ended(self._runner)

    def __del__(self) -> None:
        runner = getattr(self, "_runner", None)
        if runner is None or runner.done() or runner.get_loop().is_closed():
            return
        warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=2)
        runner.get_loop().call_soon_threadsafe(runner.cancel)

    def _started(self) -> Poller:
        """Return the poller, and see to it that it runs."""
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
        if self._poller is None or self._runner is None or self._runner.done():
            self._journal = self._used_journal()
            self._poller = Poller(
                self._transport,
                self._pacing,
                model=self._model,
                max_rate=self._max_rate,
                max_in_flight=self._transport.max_connections,
                on_poll=self._on_poll,
                journal=self._journal,
                keep_knowledge=self._keep_knowledge(),
            )
            # Not in the caller's context: its cancel scopes and variables are not ours.
            self._runner = loop.create_task(
                _run(self._poller, *self._parts()),
                name="veo3_async",
                context=contextvars.Context(),
            )
        return self._poller

    def _used_journal(self) -> Journal | None:
        given = self._given_journal
        if given is None:
            return None
        from veo3_async._journal.journal import Journal  # noqa: PLC0415 - sqlite3 is not always there

        return given if isinstance(given, Journal) else Journal(given)

    def _parts(self) -> list[_Closable]:
        """Return what ends with the polling."""
        self._downloader = self._make_downloader()
        parts: list[_Closable] = [self._transport, self._downloader]
        if self._journal is not None and self._journal is not self._given_journal:
            parts.append(self._journal)
        return parts

    def _keep_knowledge(self) -> Callable[[], Coroutine[Any, Any, None]] | None:
        if self._journal is None or not isinstance(self._pacing, LearnedPacing):
            return None
        from veo3_async._journal.learned import keep_knowledge  # noqa: PLC0415 - loads sqlite3

        return functools.partial(keep_knowledge, self._pacing, self._journal)

    def _needed_journal(self) -> Journal:
        if self._journal is None:
            message = "this client has no journal; make it with journal='veo3.db'"
            raise JournalError(message)
        return self._journal

    def _turns(self) -> Dispatcher[Any]:
        return self._started().dispatcher

    async def _poll_once(self, request_id: str) -> tuple[VideoTask | Problem, Reply | None]:
        """Ask once for the state of a task, in its turn; with the reply where one came."""
        return await self._calls.poll(self._turns, request_id)


async def _note_refusal(journal: Journal, intent: int, error: Veo3Error) -> None:
    """Write down that a submission made no task; what the service said must reach the caller."""
    try:
        await journal.refused(intent, error.message, at=time.time())
    except JournalError as trouble:
        error.add_note(f"in the journal it stays in doubt: {trouble}")
        _log.error("a submission that made no task stays in doubt: %s", trouble)


async def _run(poller: Poller, *parts: _Closable) -> None:
    """Poll until cancelled; nobody who watches is left without a word.

    A function, for a method would keep a forgotten client alive.
    """
    reason: BaseException = ClientClosed("the client was closed")
    try:
        await poller.run()
    except Exception as error:  # noqa: BLE001 - it goes to every watcher
        reason = error
        while isinstance(reason, BaseExceptionGroup):
            reason = reason.exceptions[0]
        _log.error("polling has stopped: %r", reason)
    finally:
        poller.end(reason)
        await ended(asyncio.ensure_future(_close(parts)))


async def _close(parts: Sequence[_Closable]) -> None:
    """Close them in their order, each whatever comes of the others."""
    try:
        async with contextlib.AsyncExitStack() as stack:
            for part in reversed(parts):
                stack.push_async_callback(part.aclose)
    except Exception:  # noqa: BLE001 - nobody can do anything about it
        _log.exception("the client is closed, but for a part of it")


def _elsewhere() -> ClientClosed:
    return ClientClosed("this client belongs to another event loop; make one in each")
