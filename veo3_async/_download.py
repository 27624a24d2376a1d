"""Bring a film to disk: keyless, resumable, atomic.

This module asks, streams and waits. What a reply means is `_range`'s to say, where a redirect
may lead `_hops`', what is a whole film `_film`'s, and what lies on disk is `_part`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import os
import pathlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec, TypeVar

import aiohttp
import anyio
import anyio.to_thread
import msgspec
from yarl import URL

from veo3_async._errors import ClientClosed, DownloadError
from veo3_async._faults import Streak, backoff
from veo3_async._film import HEAD_BYTES, Proof, is_text
from veo3_async._hops import ForbiddenError, checked, next_hop, shown
from veo3_async._models import VideoTask
from veo3_async._part import PartFile, file_name, final_path
from veo3_async._range import (
    Again,
    Expired,
    Finish,
    Kept,
    Plan,
    Redirect,
    Refuse,
    Restart,
    Write,
    judge,
    range_headers,
    resumable,
)
from veo3_async._transport import problem_of
from veo3_async._wire import Kind, Reply

__all__ = ["Downloader", "Progress"]

Progress = Callable[[int, int | None], object]
Refresh = Callable[[], Awaitable[VideoTask]]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_logger: Final = logging.getLogger("veo3_async")

_CONNECT_SECONDS: Final = 10.0
_SLOW_SECONDS: Final = 30.0
_SLOW_BYTES: Final = 1000 * _SLOW_SECONDS
_IDLE_ATTEMPTS: Final = 8
"""Attempts in a row that bring no new byte before a download is given up; with the full jitter of
``_faults.backoff`` that is 45 s of waiting on average, and 91 s at most."""

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


class _Source(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    request_id: str | None = None
    task: VideoTask | None = None

    def is_same(self, other: _Source) -> bool:
        if self.request_id and other.request_id:
            return self.request_id == other.request_id
        return self.url == other.url


class _Means(msgspec.Struct, frozen=True, kw_only=True):
    """What all downloads of one downloader share."""

    session: aiohttp.ClientSession
    proxy: str | None
    threads: anyio.CapacityLimiter
    max_bytes: int


class Downloader:
    """Downloads on a session of its own, which has never seen the API key.

    :param limit: Downloads at once, at least 1; the others wait for their turn.
    :param max_bytes: The largest film that is accepted, in bytes.
    :param proxy: URL of an HTTP proxy, or None for none; the environment is not looked at.
    :raises ValueError: A number is out of its range.

    Needs no event loop to be made; belongs to the one of its first download.
    """

    def __init__(
        self,
        *,
        limit: int = 4,
        max_bytes: int = 2 * 1024**3,
        proxy: str | None = None,
    ) -> None:
        for name, value in (("limit", limit), ("max_bytes", max_bytes)):
            if value < 1:
                message = f"{name} is at least 1, not {value!r}"
                raise ValueError(message)
        self._limit = limit
        self._max_bytes = max_bytes
        self._proxy = proxy
        self._means: _Means | None = None
        self._threads = anyio.CapacityLimiter(limit)
        self._turns = asyncio.Semaphore(limit)
        self._jobs: dict[pathlib.Path, _Job] = {}
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._jobs)} running, {self._limit} at once"
        return f"<Downloader: {state}>"

    async def download(
        self,
        source: VideoTask | str,
        path: str | os.PathLike[str],
        *,
        progress: Progress | None = None,
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
        name = file_name(wanted.request_id, wanted.url)
        final = await anyio.to_thread.run_sync(final_path, path, name, limiter=self._threads)
        while (job := self._jobs.get(final)) is not None and job.is_leaving:
            await asyncio.wait([job.task])
        if job is None:
            job = self._start(final, wanted, resume=resume, overwrite=overwrite, refresh=refresh)
        elif not job.source.is_same(wanted):
            message = f"another download is writing {final}"
            raise DownloadError(message, request_id=wanted.request_id, task=wanted.task)
        return await job.result(progress)

    async def aclose(self) -> None:
        """Stop what is running, keep what it has for another time, and close the session."""
        self._closed = True
        running = [job.task for job in self._jobs.values()]
        for task in running:
            task.cancel()
        try:
            await _ended(asyncio.gather(*running, return_exceptions=True))
        finally:
            if self._means is not None:
                await _ended(asyncio.ensure_future(self._means.session.close()))

    def _start(
        self,
        final: pathlib.Path,
        source: _Source,
        *,
        resume: bool,
        overwrite: bool,
        refresh: Refresh | None,
    ) -> _Job:
        if self._closed:
            message = "the client is closed"
            raise ClientClosed(message, request_id=source.request_id)
        self._means = self._means or self._make_means()
        part = PartFile(final, overwrite=overwrite)
        job = _Job(self._means, source, final, part=part, refresh=refresh)
        self._jobs[final] = job
        job.task = asyncio.create_task(self._run(job, resume=resume), name=f"download {final.name}")
        job.task.add_done_callback(lambda _: self._jobs.pop(final))
        return job

    async def _run(self, job: _Job, *, resume: bool) -> pathlib.Path:
        async with self._turns:
            return await job.run(resume=resume)

    def _make_means(self) -> _Means:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # `_turns` is the limit
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            timeout=_TIMEOUT,
            trust_env=False,
        )
        return _Means(
            session=session,
            proxy=self._proxy,
            threads=self._threads,
            max_bytes=self._max_bytes,
        )


class _Job:
    """One file on its way, for all who wait for it."""

    task: asyncio.Task[pathlib.Path]

    def __init__(
        self,
        means: _Means,
        source: _Source,
        final: pathlib.Path,
        *,
        part: PartFile,
        refresh: Refresh | None,
    ) -> None:
        self.source: Final = source
        self.is_leaving = False
        self._means = means
        self._final = final
        self._part = part
        self._refresh = refresh
        self._url = source.url
        self._callers = 0
        self._meters: list[_Meter] = []
        self._pieces: list[bytes] = []
        self._begin: tuple[str, Write] | None = None
        self._anew = False
        self._requests = 0
        self._since = asyncio.get_running_loop().time()

    async def result(self, progress: Progress | None) -> pathlib.Path:
        """Wait for the file; the last caller to be cancelled takes the download with it."""
        meter = _Meter(progress)
        self._meters.append(meter)
        self._callers += 1
        try:
            await asyncio.wait([self.task])
        finally:
            self._callers -= 1
            self._meters.remove(meter)
            if not self._callers and not self.task.done():
                self.is_leaving = True
                self.task.cancel()
                await _ended(self.task)
        if self.task.cancelled():
            message = "the client was closed; the same call goes on from what is kept"
            raise ClientClosed(message, request_id=self.source.request_id)
        return self.task.result()

    async def run(self, *, resume: bool) -> pathlib.Path:
        """Bring the file to disk."""
        try:
            self._url = self._checked(self._url)
            await self._in_thread(self._part.open, resume=resume)
            await self._fetch()
            await self._in_thread(self._part.commit)
        finally:
            await self._let_go()
        self._report(self._part.kept.done, self._part.kept.done, is_last=True)
        return self._final

    async def _let_go(self) -> None:
        """Keep what has come so far, and close the file, whatever happens meanwhile."""
        try:
            with contextlib.suppress(DownloadError):
                await self._flush()
        finally:
            await self._in_thread(self._part.close)

    async def _fetch(self) -> None:
        """Ask until all bytes are on disk. New bytes earn new patience, old ones do not."""
        reached, idle = self._part.kept.done, 0
        while True:
            plan = await self._attempt()
            await self._flush()
            match plan:
                case Finish():
                    return
                case Restart():
                    self._anew = True
                case Expired():
                    await self._renew(plan)
                case Again():
                    idle = 0 if self._part.kept.done > reached else idle + 1
                    reached = max(reached, self._part.kept.done)
                    if idle == _IDLE_ATTEMPTS:
                        reason = f"{plan.reason}, {idle} times in a row"
                        raise self._error(reason, plan.status)
                    await self._pause(plan, idle)
                case Refuse():
                    raise self._error(plan.reason, plan.status)

    async def _attempt(self) -> Plan:
        kept = None if self._anew else resumable(self._part.kept, self._url)
        if kept is not None and kept.done == kept.total:
            return Finish()
        try:
            return await self._ask(range_headers(kept), kept)
        except (aiohttp.ClientError, OSError) as error:
            return _fault(error)

    async def _ask(self, headers: dict[str, str], kept: Kept | None) -> Plan:
        """Ask for what is missing, wherever the redirects lead."""
        trail = [self._url]
        while True:
            self._requests += 1
            request = self._means.session.get(
                URL(trail[-1], encoded=True),
                headers=headers,
                proxy=self._means.proxy,
                allow_redirects=False,
            )
            async with asyncio.timeout(_SLOW_SECONDS) as patience, request as response:
                reply = Reply(response.status, response.headers, b"")
                limit = self._means.max_bytes
                plan = judge(reply, kept, max_bytes=limit, wall_now=time.time())
                if isinstance(plan, Write):
                    return await self._receive(response.content, plan, patience)
            if not isinstance(plan, Redirect):
                return plan
            try:
                trail.append(next_hop(trail, plan.location))
            except ForbiddenError as exc:
                return Refuse(reason=str(exc), status=reply.status)

    async def _receive(
        self, content: aiohttp.StreamReader, plan: Write, patience: asyncio.Timeout
    ) -> Plan:
        self._begin = (self._url, plan)
        clock = asyncio.get_running_loop().time
        done = flushed = counted = plan.start
        flush_at = clock() + _PIECE_SECONDS
        patience.reschedule(clock() + _SLOW_SECONDS)
        async for piece, _ in content.iter_chunks():
            if not done and is_text(piece[:HEAD_BYTES]):
                return Refuse(reason="the server sent a text in place of a film")
            done += len(piece)
            if done > (plan.total or self._means.max_bytes):
                return await self._overrun(plan)
            self._pieces.append(piece)
            self._report(done, plan.total)
            if done - flushed >= _PIECE_BYTES or clock() >= flush_at:
                if done - counted >= _SLOW_BYTES:
                    counted = done
                    patience.reschedule(clock() + _SLOW_SECONDS)
                await self._flush()
                flushed, flush_at = done, clock() + _PIECE_SECONDS
        await self._flush()
        return await self._ending(plan.total)

    async def _overrun(self, plan: Write) -> Plan:
        self._pieces.clear()
        if plan.total is None:
            await self._in_thread(self._part.discard)
            return Refuse(reason=f"the file is over the limit of {self._means.max_bytes} bytes")
        self._anew = True
        return Again(reason="the server sent more bytes than it announced", kind=Kind.UNEXPECTED)

    async def _ending(self, total: int | None) -> Plan:
        """Say what the end of a body means: only what is proved to be whole is finished."""
        if total is None:
            proof = await self._in_thread(self._part.proof)
            if proof is Proof.NONE:
                return Refuse(reason="the server gives no length, and the file does not prove it")
            is_whole = proof is Proof.WHOLE
        else:
            is_whole = self._part.kept.done == total
        if is_whole:
            return Finish()
        return Again(reason="the server ended the file in the middle", kind=Kind.RESET)

    async def _flush(self) -> None:
        """Write what has been received; where nothing has, what is on disk stays untouched."""
        pieces, self._pieces = self._pieces, []
        begin, self._begin = self._begin, None
        if pieces:
            self._anew = False
            await self._in_thread(self._part.write, pieces, begin)

    async def _renew(self, expired: Expired) -> None:
        refresh, self._refresh = self._refresh, None
        reason = "the URL has expired; fetch the task for a fresh one"
        if refresh is not None:
            url = (await refresh()).best_url
            if url is not None and url != self._url:
                self._url = self._checked(url)
                return
            reason = "the URL has expired, and the service gives no fresh one"
        raise self._error(reason, expired.status)

    async def _pause(self, plan: Again, idle: int) -> None:
        jitter = backoff(Streak(faults=idle), plan.kind, 0.0, random.random())
        seconds = (plan.retry_after or 0.0) + jitter
        _logger.debug("%s: %s; asked again in %.1f s", shown(self._url), plan.reason, seconds)
        await anyio.sleep(seconds)

    def _report(self, done: int, total: int | None, *, is_last: bool = False) -> None:
        now = math.inf if is_last else asyncio.get_running_loop().time()
        for meter in self._meters:
            meter.report(now, done, total)

    def _checked(self, url: str) -> str:
        try:
            return checked(url)
        except ForbiddenError as exc:
            reason = str(exc)
        raise self._error(reason)

    async def _in_thread(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run what blocks; a cancellation waits for its end, so no file is closed under it."""
        bound = functools.partial(call, *args, **kwargs)
        running = asyncio.ensure_future(
            anyio.to_thread.run_sync(bound, limiter=self._means.threads)
        )
        await _ended(running)
        try:
            return running.result()
        except OSError as exc:
            reason = exc.strerror or str(exc)
        raise self._error(reason)

    def _error(self, reason: str, status: int | None = None) -> DownloadError:
        message = f"{shown(self._url)} did not come to {self._final}: {reason}"
        if resumable(self._part.kept, self._url) is not None:
            kept, path = self._part.kept.done, self._part.path
            message += f"; {kept} bytes are kept in {path}, the same call goes on from there"
        return DownloadError(
            message,
            request_id=self.source.request_id,
            http_status=status,
            attempts=self._requests,
            elapsed=asyncio.get_running_loop().time() - self._since,
            task=self.source.task,
        )


class _Meter:
    """A caller's progress callback, kept from being called too often and from doing harm."""

    def __init__(self, progress: Progress | None) -> None:
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


def _source(source: object) -> _Source:
    if isinstance(source, str):
        return _Source(url=source)
    if not isinstance(source, VideoTask):
        message = f"download takes a VideoTask or a URL, not {type(source).__name__}"
        raise TypeError(message)
    if source.best_url is None:
        message = "the task has no video yet"
        raise DownloadError(message, request_id=source.id, task=source)
    return _Source(url=source.best_url, request_id=source.id or None, task=source)


def _fault(error: Exception) -> Again | Refuse:
    """Say what an exception of the network means, in words without a signed URL in them."""
    kind = problem_of(error).kind
    reason = _REASONS.get(kind, "the connection was lost")
    return Refuse(reason=reason) if kind is Kind.CERTIFICATE else Again(reason=reason, kind=kind)


async def _ended(task: asyncio.Future[_T]) -> None:
    """Wait for the end of a task, however often the waiting is cancelled; then be cancelled."""
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as exc:
                cancelled = exc
    if not task.cancelled():
        task.exception()  # seen, so that the loop does not complain of it
    if cancelled is not None:
        raise cancelled
