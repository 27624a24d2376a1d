"""Videos by name: to disk or as a stream, with a session that has never seen the key.

How a video is asked for is `http`'s to say, where its URL may lead `destinations`', what a reply
means `resumption`'s, how often it is asked for `transfer`'s, and how a file is kept `part_file`'s.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import pathlib
import weakref
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from veo3_async._cancellation import ended
from veo3_async._download.destinations import shown
from veo3_async._download.file_download import FileDownload, OnProgress, SharedDownload
from veo3_async._download.http import HttpSource
from veo3_async._download.part_file import PartFile
from veo3_async._download.paths import file_name, final_path
from veo3_async._download.stream import VideoStream
from veo3_async._download.transfer import Refresh, Source
from veo3_async._errors import ClientClosed, DownloadError
from veo3_async._models import VideoTask

if TYPE_CHECKING:  # `http` is the one who knows it
    import aiohttp

__all__ = ["Downloader", "OnProgress"]

_logger: Final = logging.getLogger("veo3_async")

_AT_ONCE: Final = 4


class Downloader:
    """Downloads on a session of its own, which has never seen the API key.

    At most 4 videos come to disk at once, the others wait for their turn; none may be over 2 GiB.

    :param proxy: URL of an HTTP proxy, or None for none. A proxy looks names up itself: where they
        lead is then its matter, except for addresses and names that are private as they stand.
    :param trust_env: True to use the proxies of the environment (``HTTPS_PROXY`` …) where ``proxy``
        is None; ``.netrc`` is never read.
    :param session: An aiohttp session to ask with, or None for one of its own. It is not closed;
        where names lead is its resolver's matter, and what it sends by itself its owner's.
    :param allow_private: True where videos may lie at addresses that are not public, and then by
        ``http`` too, because the API itself is on such a network.

    Needs no event loop to be made; belongs to the one of its first download.
    """

    def __init__(
        self,
        *,
        proxy: str | None = None,
        trust_env: bool = False,
        session: aiohttp.ClientSession | None = None,
        allow_private: bool = False,
    ) -> None:
        self._http: Final = HttpSource(
            proxy=proxy, trust_env=trust_env, session=session, allow_private=allow_private
        )
        self._turns: Final = asyncio.Semaphore(_AT_ONCE)
        self._running: Final[dict[pathlib.Path, SharedDownload]] = {}
        self._streams: Final[weakref.WeakSet[VideoStream]] = weakref.WeakSet()
        self._weak_folders: Final[set[pathlib.Path]] = set()
        self._closed = False
        self.videos: int = 0
        """Videos that were brought to disk so far; those that were there already are none."""
        self.bytes: int = 0
        """What they have."""

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._running)} running, {_AT_ONCE} at once"
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
        """Bring a video to disk and return its absolute path.

        :param source: A task with a video, of which the best is taken, or a URL.
        :param path: The file, or a folder that is there: then the name is made from the request
            id (of a bare URL: from a hash of it), never from what the server says. Its permissions
            are those of any new file, by the umask.
        :param progress: Called on the event loop with the bytes that are here and the bytes of
            the whole, or None where the server does not say: at most 10 times a second, and once
            at the end. It goes back where the download must begin again. What it raises is
            logged once and ignored.
        :param resume: False to forget what an earlier call has left in ``path.part``.
        :param overwrite: True to replace a file that is there. Else the video that an earlier call
            has brought there is returned, known by its record, and any other file is an error.
        :param refresh: Asked once for the task anew when the URL does not work; what it raises
            goes to the caller.
        :raises FileInTheWay: A file that is not this video has its name, or that of its ``.part``.
        :raises DownloadError: The video could not be brought to disk; the message says why, and
            what is kept for the next call.
        :raises ClientClosed: The downloader was closed before or meanwhile.
        :raises TypeError: ``source`` is neither a task nor a URL.

        URLs are ``https`` without user name; at most 5 redirects are followed, to any public host.

        Two calls for the same video and the same path share one download, with the options of the
        first; it ends early only when all its callers have been cancelled. A call for another
        video and the same path is refused. What a cancelled call leaves is resumed by the next.
        """
        wanted = _source(source)
        final = await self._place(wanted, path)
        while (shared := self._running.get(final)) is not None and shared.is_leaving:
            await asyncio.wait([shared.task])
        if shared is None:
            shared = self._start(final, wanted, resume=resume, overwrite=overwrite, refresh=refresh)
        elif not shared.source.identity.is_same(wanted.identity):
            message = f"another download is writing {final}"
            raise DownloadError(message, request_id=wanted.request_id, task=wanted.task)
        await shared.wait(progress)
        return final

    def stream(self, source: VideoTask | str, *, refresh: Refresh | None = None) -> VideoStream:
        """Return an iterator of a video's bytes, with the checks of `download` and no file.

        :param source: A task with a video, of which the best is taken, or a URL.
        :param refresh: As in `download`.
        :raises DownloadError: The task has no video. From the iterator: it did not come, or has
            changed on the server after some of its bytes were given out.
        :raises ClientClosed: The downloader is closed; from the iterator: it was closed meanwhile.
        :raises TypeError: ``source`` is neither a task nor a URL.

        Nothing is asked before the first byte is; a slow consumer slows the server down. Streams
        take none of the turns of `download`.
        """
        wanted = _source(source)
        self._check_open(wanted)
        stream = VideoStream(wanted, http=self._http, refresh=refresh)
        self._streams.add(stream)
        return stream

    async def aclose(self) -> None:
        """Stop what is running, keep what it has for another time, and close the session."""
        self._closed = True
        for stream in list(self._streams):
            stream.end_with_client()
        running = [shared.task for shared in self._running.values()]
        for task in running:
            task.cancel()
        try:
            await ended(asyncio.gather(*running, return_exceptions=True))
        finally:
            await ended(asyncio.ensure_future(self._http.aclose()))

    async def _place(self, source: Source, path: str | os.PathLike[str]) -> pathlib.Path:
        """Return where a video goes."""
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
    ) -> SharedDownload:
        self._check_open(source)
        part = PartFile(final, source.identity, overwrite=overwrite)
        shared = SharedDownload(source)
        download = FileDownload(
            source,
            part,
            http=self._http,
            threads=self._threads,
            refresh=refresh,
            progress=shared.report,
        )
        running = self._run(download, part, resume=resume)
        shared.task = asyncio.create_task(running, name=f"download {final.name}")
        shared.task.add_done_callback(lambda _: self._running.pop(final))
        self._running[final] = shared
        return shared

    async def _run(self, download: FileDownload, part: PartFile, *, resume: bool) -> None:
        async with self._turns:
            is_new = await download.run(resume=resume)
        if is_new:
            self._note(download, part)
        folder = part.final.parent
        if part.weaknesses and folder not in self._weak_folders:
            self._weak_folders.add(folder)
            lacking = "; ".join(sorted(part.weaknesses))
            _logger.warning("%s does not have all that a download uses: %s", folder, lacking)

    def _note(self, download: FileDownload, part: PartFile) -> None:
        source, size = download.source, download.content.done
        self.videos += 1
        self.bytes += size
        _logger.info(
            "%s downloaded to %s, %d bytes",
            source.request_id or shown(source.url),
            part.final,
            size,
            extra={"request_id": source.request_id},
        )

    def _check_open(self, source: Source) -> None:
        if self._closed:
            message = "the client is closed"
            raise ClientClosed(message, request_id=source.request_id)


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
