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
from collections.abc import Callable
from typing import Final

import anyio
import anyio.to_thread

from veo3_async._cancellation import ended
from veo3_async._download.http import _Line
from veo3_async._download.part_file import PartFile
from veo3_async._download.paths import file_name, final_path
from veo3_async._download.redirects import shown
from veo3_async._download.transfer import Fetch, Refresh, Source
from veo3_async._errors import ClientClosed, DownloadError
from veo3_async._models import VideoTask

__all__ = ["Downloader", "OnProgress"]

OnProgress = Callable[[int, int | None], object]

_logger: Final = logging.getLogger("veo3_async")

_AT_ONCE: Final = 4


_PROGRESS_SECONDS: Final = 0.1


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
        why = source.failure_reason
        message = f"the task has no video; the service says {source.status!r}"
        message = f"{message}: {why}" if why else message
        raise DownloadError(message, request_id=source.id, task=source)
    return Source(url=source.best_url, request_id=source.id or None, task=source)
