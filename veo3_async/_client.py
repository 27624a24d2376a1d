"""The face: arguments, docstrings, delegation. What runs is in `_runtime`."""

from __future__ import annotations

import datetime
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from veo3_async._arguments import count, positive, seconds
from veo3_async._errors import ClientClosed
from veo3_async._lifecycle.phases import Until
from veo3_async._models import PollReport, Stats, VideoTask
from veo3_async._pacing.learned import LearnedPacing
from veo3_async._pacing.policies import Pacing
from veo3_async._polling.hooks import Hook
from veo3_async._polling.mailbox import Mailbox
from veo3_async._polling.watch import Watch
from veo3_async._protocol.families import posted_to, route_of, submit_call
from veo3_async._protocol.ids import check_model, check_request_id
from veo3_async._runtime import Runtime, Settings
from veo3_async._transport.endpoint import ApiKey, check_proxy, find_base_url

if TYPE_CHECKING:
    import aiohttp

    from veo3_async._journal.journal import Journal
    from veo3_async._journal.tasks import Pending

__all__ = ["Veo3Client"]


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
        try:
            key = ApiKey.find(api_key)
        finally:
            del api_key  # this frame is in the traceback of what follows
        self._base_url: Final = find_base_url(base_url)
        self._model: Final = check_model(model)
        pacing = LearnedPacing() if pacing is None else pacing
        if not isinstance(pacing, Pacing):
            message = f"pacing is a Pacing, such as FixedPacing(10), not {pacing!r}"
            raise TypeError(message)
        proxy = check_proxy(proxy)

        # aiohttp takes 0.2 s: not before there is a client, and not in the middle of its work
        from veo3_async._download.downloader import Downloader  # noqa: PLC0415
        from veo3_async._transport.transport import Transport  # noqa: PLC0415

        self.runtime: Final = Runtime(
            Settings(
                transport=Transport(
                    key,
                    self._base_url,
                    session=session,
                    max_connections=count("max_connections", max_connections),
                    request_timeout=seconds("request_timeout", request_timeout),
                    proxy=proxy,
                ),
                make_downloader=functools.partial(Downloader, proxy=proxy),
                pacing=pacing,
                model=self._model,
                max_rate=positive("max_polls_per_second", max_polls_per_second),
                on_poll=None if on_poll is None else Hook("on_poll", on_poll),
                journal=journal,
            )
        )

    def __repr__(self) -> str:
        if not hasattr(self, "runtime"):
            return "<Veo3Client: never made>"  # a traceback with locals shows its constructor
        return f"<Veo3Client: {self._base_url}, {self.runtime!r}>"

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
        subscriptions = self.runtime.started().subscriptions
        mailbox = Mailbox(until, keep_open=keep_open)
        subscriptions.register(mailbox, limit)
        subscriptions.subscribe(mailbox, request_ids)
        return Watch(mailbox, subscriptions, owner=self.runtime), mailbox

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
        return await self.runtime.started().calls.fetch(request_id)

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
        route = posted_to(route_of(model), image=image)
        call = submit_call(route, prompt, image=image, extra=extra)
        calls = self.runtime.started().calls
        return await calls.submit(route, call, prompt=prompt, model=model, image=image)

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
        downloader = self.runtime.started().downloader
        task = task_or_url if isinstance(task_or_url, VideoTask) else None
        refresh = None if task is None or not task.id else functools.partial(self.fetch, task.id)
        return await downloader.download(
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
        return await self.runtime.needed_journal().pending()

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
        return self.runtime.stats()

    async def __aenter__(self) -> Self:
        await self.runtime.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End everything: watchers get `ClientClosed`, connections are closed. May be repeated.

        A cancellation comes out when all is closed.

        :raises ClientClosed: It is called from another event loop than it was used in.
        """
        await self.runtime.aclose()
