"""The client: arguments, docstrings, delegation. What runs is in `_runtime`."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import functools
import os
import pathlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, Unpack

from veo3_async._arguments import count, positive, seconds
from veo3_async._errors import ClientClosed
from veo3_async._lifecycle.phases import Until
from veo3_async._models import Transition, VideoTask
from veo3_async._pacing.learned import pacing_or_learned
from veo3_async._pacing.policies import Pacing
from veo3_async._paths import lasting
from veo3_async._polling.hooks import Hook
from veo3_async._polling.mailbox import Mailbox
from veo3_async._polling.submissions import Draft, ImageSource
from veo3_async._polling.watch import Watch
from veo3_async._protocol.families import Route, SubmitOptions, route_of
from veo3_async._protocol.ids import check_request_id, check_request_ids
from veo3_async._reports import PollReport, Stats, VideoModel
from veo3_async._runtime import (
    Parts,
    Runtime,
    Settings,
    make_downloader,
    make_recorder,
    make_transport,
)
from veo3_async._transport.endpoint import ApiKey, check_proxy, find_base_url, is_private

if TYPE_CHECKING:
    import aiohttp

    from veo3_async._download.stream import VideoStream
    from veo3_async._journal.journal import Journal
    from veo3_async._journal.rows import Pending

__all__ = ["Veo3Client"]


class Veo3Client:
    """The client of 302.AI's video generation: submits tasks, watches any number, saves videos.

    Made anywhere; the first use binds it to the running event loop and starts what it needs.
    Ended by ``async with`` or by `aclose`, from any task of that loop.

    The first client of a process imports aiohttp at its first use, which takes 0.3 s. ``async
    with`` has a thread do it; what begins without it waits for it on the loop, unless the program
    has imported aiohttp before.

    :param api_key: The key; None takes it from ``AI302_API_KEY``, else ``AI302_KEY``.
    :param base_url: Where the API is; None takes ``AI302_BASE_URL``, else
        ``https://api.302.ai``. ``http`` is for this machine and private networks only.
    :param model: The model that is submitted to, and where ids from elsewhere are polled that do
        not name a known one: ``veo3-pro``, ``veo3-fast``, ``veo3``, ``veo2``, ``veo3-v2``,
        ``veo3.1`` …, or any name of the unified endpoint (see `models`).
    :param family: ``"record"``, ``"queue"``, ``"tasks"`` or ``"unified"``, where the name of the
        model does not say which protocol it speaks; None goes by the name.
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
    :param proxy: URL of an HTTP proxy, for the API and downloads; None goes direct.
    :param trust_env: Whether ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` of the environment
        are followed where ``proxy`` is None; ``.netrc`` never is.
    :param download_session: An ``aiohttp.ClientSession`` for downloads; it is never closed. None
        makes one. The session for the API never serves downloads.
    :param record: A file that gets a line of JSON for each request to the API and its reply, for a
        bug report; ``veo3_async.testing.FakeVeo3.replay`` plays it. The key, cookies and the
        signatures of URLs are taken out; ids, and URLs without what they ask for, are in it. It
        holds 16 MiB, of which the older half is dropped when it is full. One that is there is gone
        on with. What cannot be written is logged once, and lost.
    :param record_prompts: Whether prompts, and what the service makes of them, stay in it.
    :param on_poll: A plain function that gets a `PollReport` after every poll. What it raises
        is logged once and ignored.
    :param on_change: The same for every `Transition` that a poll shows, whoever watches.
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
        family: str | None = None,
        session: aiohttp.ClientSession | None = None,
        pacing: Pacing | None = None,
        max_polls_per_second: float = 20.0,
        max_connections: int = 32,
        request_timeout: float | datetime.timedelta = 30.0,
        journal: str | os.PathLike[str] | Journal | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        download_session: aiohttp.ClientSession | None = None,
        record: str | os.PathLike[str] | None = None,
        record_prompts: bool = False,
        on_poll: Callable[[PollReport], object] | None = None,
        on_change: Callable[[Transition], object] | None = None,
    ) -> None:
        try:
            key = ApiKey.find(api_key)
        finally:
            del api_key  # this frame is in the traceback of what follows
        self._base_url: Final = find_base_url(base_url)
        self._model: Final = model
        self._route: Final = route_of(model, family)
        proxy = check_proxy(proxy)

        self.runtime: Final = Runtime(
            Settings(
                make_transport=functools.partial(
                    make_transport,
                    key,
                    self._base_url,
                    session=session,
                    max_connections=count("max_connections", max_connections),
                    request_timeout=seconds("request_timeout", request_timeout),
                    proxy=proxy,
                    trust_env=trust_env,
                ),
                make_downloader=functools.partial(
                    make_downloader,
                    proxy=proxy,
                    trust_env=trust_env,
                    session=download_session,
                    allow_private=is_private(self._base_url),
                ),
                make_recorder=None
                if record is None
                else functools.partial(
                    make_recorder, lasting(record), key, self._base_url, prompts=record_prompts
                ),
                pacing=pacing_or_learned(pacing),
                route=self._route,
                max_rate=positive("max_polls_per_second", max_polls_per_second),
                on_poll=None if on_poll is None else Hook("on_poll", on_poll),
                on_change=None if on_change is None else Hook("on_change", on_change),
                journal=lasting(journal) if isinstance(journal, str | os.PathLike) else journal,
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
        model: str | None = None,
        family: str | None = None,
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
        :param model: Where ids from elsewhere are polled: what this client or its journal has
            submitted is polled there, and a known prefix says it. None takes the client's.
        :param family: As for the client.
        :raises InvalidRequest: One of the ids cannot be one, or there is no such model; nothing is
            watched then.
        :raises TypeError: One of the ids is no ``str``, or the timeout no time.
        :raises ValueError: ``until`` is another word, or the timeout not finite and above 0.
        :raises ClientClosed: The client was closed, or belongs to another loop or process.
        :raises RuntimeError: No event loop is running.
        """
        route = self._route_of(model, family)
        check_request_ids(request_ids)
        watch, mailbox, parts = self._opened(route, until, timeout, keep_open=keep_open)
        parts.subscriptions.subscribe(mailbox, request_ids)
        return watch

    def _opened(
        self,
        route: Route,
        until: Until,
        timeout: float | datetime.timedelta | None,
        *,
        keep_open: bool,
    ) -> tuple[Watch, Mailbox, Parts]:
        """Return a watch of no ids yet, what fills it, and who does."""
        if until not in {"best", "video"}:
            message = f"until is 'best' or 'video', not {until!r}"
            raise ValueError(message)
        limit = None if timeout is None else seconds("timeout", timeout)
        parts = self.runtime.started()
        mailbox = Mailbox(until, route, keep_open=keep_open)
        parts.subscriptions.register(mailbox, limit)
        return Watch(mailbox, parts.subscriptions, owner=self.runtime), mailbox, parts

    def _route_of(self, model: str | None, family: str | None) -> Route:
        if model is None and family is None:
            return self._route
        return route_of(self._model if model is None else model, family)

    async def wait(
        self,
        request_id: str,
        *,
        until: Until = "best",
        timeout: float | datetime.timedelta | None = None,  # noqa: ASYNC109 - ends in StillPending
        model: str | None = None,
        family: str | None = None,
        on_change: Callable[[Transition], object] | None = None,
    ) -> VideoTask:
        """Return the finished task.

        With a journal its end is acknowledged when this returns or raises. Where a crash in what
        follows must have it delivered again, read a `watch`, as `Watch` says.

        Parameters as for `watch`.

        :param on_change: A plain function that gets every `Transition` of this task. What it
            raises is logged once and ignored.
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
        hook = None if on_change is None else Hook("on_change", on_change)
        end: Transition | None = None
        watch = self.watch(request_id, until=until, timeout=timeout, model=model, family=family)
        async with watch as changes:
            async for change in changes:
                if hook is not None:
                    hook(change)
                end = change
        if end is None or not end.final:
            message = "the watch was closed before the task had ended"
            raise ClientClosed(message, request_id=request_id)
        if end.error is not None:
            raise end.error
        return end.task

    async def fetch(
        self, request_id: str, *, model: str | None = None, family: str | None = None
    ) -> VideoTask:
        """Return the state of a task as it is now: one GET, repeated up to 3 times on faults.

        :param model: As for `watch`.
        :param family: As for `watch`.

        :raises TaskNotFound: The service does not know the id (yet).
        :raises ServiceUnavailable: The faults did not pass.
        :raises Veo3Error: What else a reply said.
        :raises InvalidRequest: The id cannot be one, or the service refuses it.
        :raises TypeError: The id is no ``str``.
        :raises ClientClosed: The client was closed, before or meanwhile, or belongs to another
            loop or process.
        """
        check_request_id(request_id)
        route = None if model is None and family is None else self._route_of(model, family)
        return await self.runtime.started().calls.fetch(request_id, route)

    async def submit(
        self,
        prompt: str,
        *,
        image: ImageSource | Sequence[ImageSource] | None = None,
        model: str | None = None,
        family: str | None = None,
        metadata: Any = None,  # noqa: ANN401 - whatever JSON can say
        webhook: str | None = None,
        extra: Mapping[str, Any] | None = None,
        **options: Unpack[SubmitOptions],
    ) -> str:
        """Submit a task and return its request id, which `watch` takes.

        This costs money. The request is sent again, up to 5 times in all, only where it
        certainly did not arrive: no connection was made, or 429 or 503 answered. With a journal
        it is written down before; one that is cut short is listed by `pending` as in doubt.

        :param prompt: What the video is to show; not empty.
        :param image: An image that the video begins with, or several where the family takes them:
            a public http(s) URL, or a path (`pathlib.Path`) or bytes, which are uploaded before
            (up to 50 MB; 0.001 PTC each; an upload that breaks off is not resumed).
        :param model: As for the client; None takes the client's.
        :param family: As for the client.
        :param metadata: Anything JSON can say, up to 16 kB: it comes back in `Transition` and in
            `pending`, and is kept in the journal.
        :param webhook: A public URL of yours with ``{token}`` in it, where the family documents
            webhooks: hand the token of each call to `webhook_received`. Polls are few until then.
        :param extra: Further fields of the request's JSON, as they are sent.
        :param options: What the family documents, such as ``aspect_ratio="9:16"``. One that it
            does not know is refused before anything is paid.
        :raises InvalidRequest: Something cannot be sent, or the service refuses it.
        :raises SubmitUncertain: The task may exist and may have been charged; a note
            (``__notes__``) says what the account shows since then.
        :raises ServiceUnavailable: The service cannot be reached; no task exists.
        :raises AuthenticationError: The key is refused.
        :raises QuotaExceeded: The balance or a quota is used up.
        :raises UnexpectedReply: What refuses it is not the API; no task exists.
        :raises ClientClosed: The client was closed before it was sent, or belongs to another
            loop or process.
        :raises JournalError: The intent could not be written down, and nothing was sent; or the
            id could not, and is in ``request_id``.
        """
        draft = Draft(
            prompt=prompt,
            model=self._model if model is None else model,
            route=self._route_of(model, family),
            image=image,
            options=options,
            extra=extra,
            metadata=metadata,
            webhook=webhook,
        )
        return await self.runtime.started().submissions.submit(draft)

    async def generate(
        self,
        prompt: str,
        *,
        on_change: Callable[[Transition], object] | None = None,
        until: Until = "best",
        timeout: float | datetime.timedelta | None = None,  # noqa: ASYNC109 - ends in StillPending
        image: ImageSource | Sequence[ImageSource] | None = None,
        model: str | None = None,
        family: str | None = None,
        metadata: Any = None,  # noqa: ANN401 - whatever JSON can say
        webhook: str | None = None,
        extra: Mapping[str, Any] | None = None,
        **options: Unpack[SubmitOptions],
    ) -> VideoTask:
        """Submit a task and wait for it; return it finished.

        Parameters and errors as for `submit` and `wait`. 302.AI has no cancelling: a task whose
        waiting ends early, by its ``timeout`` too, goes on and is paid for; the error has its
        ``request_id``.

        :param timeout: Seconds for the waiting, which begins when it is submitted.
        """
        request_id = await self.submit(
            prompt,
            image=image,
            model=model,
            family=family,
            metadata=metadata,
            webhook=webhook,
            extra=extra,
            **options,
        )
        return await self.wait(request_id, until=until, timeout=timeout, on_change=on_change)

    def poke(self, *request_ids: str) -> None:
        """Make these ids due now, as a person who presses refresh wants it, within the rate limit.

        Ids that nobody watches are ignored.

        :raises ClientClosed: The client was closed, or belongs to another loop or process.
        """
        self.runtime.started().subscriptions.poke(request_ids)

    def webhook_received(self, token: str) -> bool:
        """Take the call of a webhook as a hint that its task is worth a poll now.

        Nothing in the body of a webhook is believed, so nothing of it is wanted here. A token
        makes one poll a second at most, an unknown one none.

        :param token: What stood in the place of ``{token}`` in the URL.
        :returns: Whether the token is one of this client's.
        :raises ClientClosed: The client was closed, or belongs to another loop or process.
        """
        parts = self.runtime.started()
        request_id = parts.webhooks.received(token, asyncio.get_running_loop().time())
        if request_id is not None:
            parts.subscriptions.hint(request_id)
        return parts.webhooks.knows(token)

    # --- the account ------------------------------------------------------------------------

    async def models(self) -> tuple[VideoModel, ...]:
        """Return what the unified endpoint offers, with parameters and prices; kept for an hour.

        :raises Veo3Error: The list cannot be had.
        """
        return await self.runtime.started().account.models()

    async def balance(self) -> decimal.Decimal | None:
        """Return the balance in PTC, of which one is 1 USD; None where the account does not say.

        :raises AuthenticationError: The key is refused, or may not ask that.
        :raises Veo3Error: The account cannot be asked.
        """
        return await self.runtime.started().account.balance()

    async def cost(self, request_id: str) -> decimal.Decimal | None:
        """Return what a task has cost, in PTC; None where that cannot be found out.

        It is found by the id of the HTTP request that submitted it, which the client remembers
        and the journal keeps; of the unified endpoint the task itself says it.

        :raises AuthenticationError: The key is refused, or may not ask that.
        :raises Veo3Error: The account cannot be asked.
        """
        check_request_id(request_id)
        return await self.runtime.cost(request_id)

    async def settle(self, key: int, request_id: str | None = None) -> None:
        """End the doubt about a submission, after a person has looked into the account.

        :param key: The `Pending.key` of the submission.
        :param request_id: The id of its task, which is pending from now on; None: there is none.
        :raises JournalError: There is no journal or no such submission, or it is not in doubt.
        :raises InvalidRequest: The id cannot be one.
        :raises ClientClosed: The client was closed, or belongs to another loop or process.
        """
        if request_id is not None:
            check_request_id(request_id)
        await self.runtime.needed_journal().settle(key, request_id, at=time.time())

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
            server does not say), at most 10 times a second. What it raises is logged once.
        :param resume: Go on with what an earlier call left; False begins anew.
        :param overwrite: Replace a file that is there; False leaves it and raises.
        :raises FileInTheWay: Another file is at the path, and ``overwrite`` is False; or one that
            is no download of ours is in the place of the ``.part``.
        :raises DownloadError: It could not be done; the message says what to do.
        :raises Veo3Error: What `fetch` raises, such as `TaskNotFound`, where it was asked for a
            fresh URL.
        :raises TypeError: ``task_or_url`` is neither, or ``path`` no path.
        :raises ClientClosed: The client was closed, before or meanwhile, or belongs to another
            loop or process.
        """
        downloader = self.runtime.started().downloader
        return await downloader.download(
            task_or_url,
            path,
            progress=progress,
            resume=resume,
            overwrite=overwrite,
            refresh=self._refresh_of(task_or_url),
        )

    def stream(self, task_or_url: VideoTask | str) -> VideoStream:
        """Return an async iterator of a video's bytes, for those who have no disk.

        With the checks and the resumption of `download`, and no file. Leave it by ``async with``
        or by reading it to its end.

        :param task_or_url: A task with a video, of which the best is taken, or a URL.
        :raises DownloadError: The task has no video; from the iterator: it did not come, or has
            changed on the server after some of its bytes were given out.
        :raises ClientClosed: The client was closed, before or meanwhile.
        :raises TypeError: ``task_or_url`` is neither.
        """
        downloader = self.runtime.started().downloader
        return downloader.stream(task_or_url, refresh=self._refresh_of(task_or_url))

    def _refresh_of(
        self, task_or_url: VideoTask | str
    ) -> Callable[[], Awaitable[VideoTask]] | None:
        """Return what brings a task's fresh URL, where there is a task to be asked for."""
        if not isinstance(task_or_url, VideoTask) or not task_or_url.id:
            return None
        return functools.partial(self.fetch, task_or_url.id)

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

        An end that is known already comes at once, without a poll. Of the others those are asked
        for first that have most likely ended by now. Parameters as for `watch`.

        :raises JournalError: There is no journal, or it cannot be read.
        :raises TypeError: The timeout is no time.
        :raises ValueError: ``until`` is another word, or the timeout not finite and above 0.
        :raises ClientClosed: The client was closed, or belongs to another loop or process.
        """
        left = await self.runtime.left_over()
        watch, mailbox, parts = self._opened(self._route, until, timeout, keep_open=keep_open)
        for task in left.unfinished:
            if task.token is not None:
                parts.webhooks.expect(task.token, task.request_id)
                parts.origins.expect_webhook(task.request_id)
        await parts.subscriptions.resume(mailbox, left)
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
