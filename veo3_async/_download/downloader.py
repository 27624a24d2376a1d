"""Bring films to disk on a session that has never seen the key: how many at once, and how to ask.

What a reply means is `_range`'s to say, where a redirect may lead `_hops`', how a film is kept and
when it is asked for again `_fetch`'s.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import os
import pathlib
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import aiohttp
import anyio
import anyio.to_thread
from yarl import URL

from veo3_async._cancellation import ended
from veo3_async._download.mp4 import HEAD_BYTES, is_text
from veo3_async._download.part_file import PartFile, file_name, final_path
from veo3_async._download.redirects import ForbiddenError, next_hop, shown
from veo3_async._download.resumption import (
    Again,
    Kept,
    Plan,
    Redirect,
    Refuse,
    Write,
    judge,
    range_headers,
)
from veo3_async._download.transfer import Fetch, Refresh, Source
from veo3_async._errors import ClientClosed, DownloadError
from veo3_async._lifecycle.phases import complaint
from veo3_async._models import VideoTask
from veo3_async._protocol.replies import Kind, Reply
from veo3_async._transport.transport import network_problem

__all__ = ["Downloader", "OnProgress"]

OnProgress = Callable[[int, int | None], object]

_logger: Final = logging.getLogger("veo3_async")

_AT_ONCE: Final = 4
_MAX_BYTES: Final = 2 * 1024**3
"""Of a film: a server that sends without end is not to fill the disk."""

_CONNECT_SECONDS: Final = 10.0
_SLOW_SECONDS: Final = 30.0
_SLOW_BYTES: Final = 1000 * _SLOW_SECONDS

_PIECE_BYTES: Final = 2 << 20
_PIECE_SECONDS: Final = 1.0
"""A thread is entered for each 2 MiB: its cost, about 0.1 ms, is then small beside the copying
(4 MiB cost more again, in page faults); on a slow link once a second, so that little is lost."""

_PROGRESS_SECONDS: Final = 0.1

_REASONS: Final = {
    Kind.CERTIFICATE: "the server's certificate does not prove who it is",
    Kind.CONNECT: "no connection was made",
    Kind.DNS: "the host name was not resolved",
    Kind.LOCAL: "this machine has no files, ports or memory left for a connection",
    Kind.TIMEOUT: f"the link gave less than 1 kB/s for {_SLOW_SECONDS:g} s",
    Kind.UNEXPECTED: "the reply is not HTTP that can be read",
}

# No `sock_read`: it sets a timer for each packet, and a dripping server never meets it.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS)
_HEADERS: Final = {
    "Accept": "video/mp4, video/*;q=0.9, */*;q=0.5",
    "Accept-Encoding": "identity",  # a range of compressed bytes could not be told from the film's
}


class Downloader:
    """Downloads on a session of its own, which has never seen the API key.

    At most 4 films come at once, the others wait for their turn; none may be over 2 GiB.

    :param proxy: URL of an HTTP proxy, or None for none; the environment is not looked at.

    Needs no event loop to be made; belongs to the one of its first download.
    """

    def __init__(self, *, proxy: str | None = None) -> None:
        self._line = _Line(proxy)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._jobs: dict[pathlib.Path, _Job] = {}
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._jobs)} running, {_AT_ONCE} at once"
        return f"<Downloader: {state}>"

    @functools.cached_property
    def _threads(self) -> anyio.CapacityLimiter:
        # When it is needed: anyio imports its half for asyncio then, which takes 20 ms, and who
        # only watches does without.
        return anyio.CapacityLimiter(_AT_ONCE)

    async def download(
        self,
        source: VideoTask | str,
        path: str | os.PathLike[str],
        *,
        progress: OnProgress | None = None,
        resume: bool = True,
        overwrite: bool = False,
        refresh: Refresh | None = None,
    ) -> pathlib.Path:
        """Bring a film to disk and return its absolute path.

        :param source: A task with a video, of which the best is taken, or a URL.
        :param path: The file, or a folder that is there: then the name is made from the request
            id (of a bare URL: from a hash of it), never from what the server says. The file is
            readable by its owner only.
        :param progress: Called on the event loop with the bytes that are here and the bytes of
            the whole, or None where the server does not say: at most 10 times a second, and once
            at the end. It goes back where the download must begin again. What it raises is
            logged once and ignored.
        :param resume: False to forget what an earlier call has left in ``path.part``.
        :param overwrite: True to replace a file that is there; else it is an error.
        :param refresh: Asked once for the task anew when the URL has expired; what it raises
            goes to the caller.
        :raises DownloadError: The film could not be brought to disk; the message says why, and
            what is kept for the next call.
        :raises ClientClosed: The downloader was closed before or meanwhile.
        :raises TypeError: ``source`` is neither a task nor a URL.

        URLs are ``https`` (``http`` on this machine) without user name. At most 5 redirects are
        followed, to the same host, what is under it, and its neighbours under the same parent
        domain; never to an IP address, never down to ``http``.

        Two calls for the same film and the same path share one download, with the options of the
        first; it ends early only when all its callers have been cancelled. A call for another
        film and the same path is refused. What a cancelled call leaves is resumed by the next.
        """
        wanted = _source(source)
        final = await self._place(wanted, path)
        while (job := self._jobs.get(final)) is not None and job.is_leaving:
            await asyncio.wait([job.task])
        if job is None:
            job = self._start(final, wanted, resume=resume, overwrite=overwrite, refresh=refresh)
        elif not job.source.is_same(wanted):
            message = f"another download is writing {final}"
            raise DownloadError(message, request_id=wanted.request_id, task=wanted.task)
        await job.wait(progress)
        return final

    async def aclose(self) -> None:
        """Stop what is running, keep what it has for another time, and close the session."""
        self._closed = True
        running = [job.task for job in self._jobs.values()]
        for task in running:
            task.cancel()
        try:
            await ended(asyncio.gather(*running, return_exceptions=True))
        finally:
            await ended(asyncio.ensure_future(self._line.aclose()))

    async def _place(self, source: Source, path: str | os.PathLike[str]) -> pathlib.Path:
        """Return where a film goes."""
        name = file_name(source.request_id, source.url)
        try:
            return await anyio.to_thread.run_sync(final_path, path, name, limiter=self._threads)
        except OSError as exc:
            message = f"{shown(source.url)} did not come to {os.fspath(path)!r}: {exc.strerror}"
        raise DownloadError(message, request_id=source.request_id, task=source.task)

    def _start(
        self,
        final: pathlib.Path,
        source: Source,
        *,
        resume: bool,
        overwrite: bool,
        refresh: Refresh | None,
    ) -> _Job:
        if self._closed:
            message = "the client is closed"
            raise ClientClosed(message, request_id=source.request_id)
        part = PartFile(final, overwrite=overwrite)
        job = _Job(source)
        fetch = Fetch(
            source,
            part,
            line=self._line,
            threads=self._threads,
            refresh=refresh,
            report=job.report,
        )
        job.task = asyncio.create_task(self._run(fetch, resume=resume), name=f"fetch {final.name}")
        job.task.add_done_callback(lambda _: self._jobs.pop(final))
        self._jobs[final] = job
        return job

    async def _run(self, fetch: Fetch, *, resume: bool) -> None:
        async with self._turns:
            await fetch.run(resume=resume)


class _Job:
    """One film on its way, for all who wait for it."""

    task: asyncio.Task[None]

    def __init__(self, source: Source) -> None:
        self.source: Final = source
        self.is_leaving = False
        self._meters: list[_Meter] = []

    async def wait(self, progress: OnProgress | None) -> None:
        """Wait for the film; the last caller to be cancelled takes the download with it."""
        meter = _Meter(progress)
        self._meters.append(meter)
        try:
            await asyncio.wait([self.task])
        finally:
            self._meters.remove(meter)
            if not self._meters and not self.task.done():
                self.is_leaving = True
                self.task.cancel()
                await ended(self.task)
        if self.task.cancelled():
            message = "the client was closed; the same call goes on from what is kept"
            raise ClientClosed(message, request_id=self.source.request_id)
        self.task.result()

    def report(self, now: float, done: int, total: int | None) -> None:
        """Tell every caller how far the film is."""
        for meter in self._meters:
            meter.report(now, done, total)


class _Meter:
    """A caller's progress callback, kept from being called too often and from doing harm."""

    def __init__(self, progress: OnProgress | None) -> None:
        self._progress = progress
        self._next = -math.inf
        self._has_failed = False

    def report(self, now: float, done: int, total: int | None) -> None:
        if self._progress is None or now < self._next:
            return
        self._next = now + _PROGRESS_SECONDS
        try:
            self._progress(done, total)
        except Exception:
            if not self._has_failed:
                _logger.exception("a progress callback raised; the download goes on")
            self._has_failed = True


def _source(source: object) -> Source:
    if isinstance(source, str):
        return Source(url=source)
    if not isinstance(source, VideoTask):
        message = f"download takes a VideoTask or a URL, not {type(source).__name__}"
        raise TypeError(message)
    if source.best_url is None:
        why = complaint(source)
        message = f"the task has no video; the service says {source.status!r}"
        message = f"{message}: {why}" if why else message
        raise DownloadError(message, request_id=source.id, task=source)
    return Source(url=source.best_url, request_id=source.id or None, task=source)


class _Line:
    """The session, made by the first request.

    :param proxy: URL of an HTTP proxy, or None.
    """

    def __init__(self, proxy: str | None) -> None:
        self._proxy = proxy
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        """Close the session and its connections."""
        if self._session is not None:
            await self._session.close()

    async def ask(self, url: str, kept: Kept | None, fetch: Fetch) -> Plan:
        """Ask for a film, or for what follows the kept bytes, and hand over what comes."""
        try:
            return await self._follow(url, kept, fetch)
        except (aiohttp.ClientError, OSError) as error:
            return _fault(error)

    async def _follow(self, url: str, kept: Kept | None, fetch: Fetch) -> Plan:
        """Ask, wherever the redirects lead."""
        trail = [url]
        while True:
            fetch.asks()
            request = self._request(trail[-1], kept)
            async with asyncio.timeout(_SLOW_SECONDS) as patience, request as response:
                reply = Reply(response.status, response.headers, b"")
                plan = judge(reply, kept, max_bytes=_MAX_BYTES, wall_now=time.time())
                if isinstance(plan, Write):
                    return await self._receive(response.content, plan, fetch, patience)
            if not isinstance(plan, Redirect):
                return plan
            try:
                trail.append(next_hop(trail, plan.location))
            except ForbiddenError as exc:
                return Refuse(reason=str(exc), status=reply.status)

    def _request(
        self, url: str, kept: Kept | None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # the downloader has a limit of its own
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                timeout=_TIMEOUT,
                trust_env=False,
            )
        return self._session.get(
            URL(url, encoded=True),
            headers=range_headers(kept),
            proxy=self._proxy,
            allow_redirects=False,
        )

    async def _receive(
        self,
        content: aiohttp.StreamReader,
        plan: Write,
        fetch: Fetch,
        patience: asyncio.Timeout,
    ) -> Plan:
        fetch.begin(plan)
        clock = asyncio.get_running_loop().time
        done = flushed = counted = plan.start
        flush_at = clock() + _PIECE_SECONDS
        due = clock() + _SLOW_SECONDS
        patience.reschedule(due)
        async for piece, _ in content.iter_chunks():
            if not done and is_text(piece[:HEAD_BYTES]):
                return Refuse(reason="the server sent a text in place of a film")
            done += len(piece)
            if done > (plan.total or _MAX_BYTES):
                patience.reschedule(None)
                return await fetch.overrun(plan, _MAX_BYTES)
            fetch.take(now := clock(), piece, done, plan.total)
            if done - flushed >= _PIECE_BYTES or now >= flush_at:
                if done - counted >= _SLOW_BYTES:
                    counted, due = done, now + _SLOW_SECONDS
                patience.reschedule(None)  # our own disk may be slow, too
                await fetch.flush()
                due += clock() - now
                patience.reschedule(due)
                flushed, flush_at = done, clock() + _PIECE_SECONDS
        patience.reschedule(None)
        return await fetch.end(plan)


def _fault(error: Exception) -> Again | Refuse:
    """Say what an exception of the network means, in words without a signed URL in them."""
    kind = network_problem(error).kind
    reason = _REASONS.get(kind, "the connection was lost")
    return Refuse(reason=reason) if kind is Kind.CERTIFICATE else Again(reason=reason, kind=kind)
