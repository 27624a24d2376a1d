"""One video's way to disk, for all who wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Final, ParamSpec, TypeVar

import anyio
import anyio.to_thread

from veo3_async._cancellation import ended
from veo3_async._download.content import Proof
from veo3_async._download.http import HttpSource
from veo3_async._download.part_file import PartFile
from veo3_async._download.resumption import PartialContent, Receive
from veo3_async._download.transfer import Refresh, Source, Transfer
from veo3_async._errors import ClientClosed, DownloadError, FileInTheWay

__all__ = ["FileDownload", "OnProgress", "SharedDownload"]

OnProgress = Callable[[int, int | None], object]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_logger: Final = logging.getLogger("veo3_async")

_PROGRESS_SECONDS: Final = 0.1


class SharedDownload:
    """A download that several callers may wait for; it ends early when all are cancelled."""

    task: asyncio.Task[None]

    def __init__(self, source: Source) -> None:
        self.source: Final = source
        self.is_leaving = False
        self._meters: Final[list[_Meter]] = []

    async def wait(self, progress: OnProgress | None) -> None:
        """Wait for the video; the last caller to be cancelled takes the download with it."""
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
        """Report to every caller how far the video is."""
        for meter in self._meters:
            meter.report(now, done, total)


class _Meter:
    """A caller's progress callback, kept from being called too often and from doing harm."""

    def __init__(self, progress: OnProgress | None) -> None:
        self._progress: Final = progress
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


class FileDownload:
    """Brings one video to a file. It is the sink of its transfer, and enters threads for it.

    :param progress: Gets the loop's time, the bytes that are here, and the bytes of the whole or
        None, for each piece; and an infinite time at the end.
    """

    def __init__(
        self,
        source: Source,
        part: PartFile,
        *,
        http: HttpSource,
        threads: anyio.CapacityLimiter,
        refresh: Refresh | None,
        progress: Callable[[float, int, int | None], None],
    ) -> None:
        self.source: Final = source
        self._part: Final = part
        self._threads: Final = threads
        self._progress: Final = progress
        self._transfer: Final = Transfer(
            source, self, http=http, refresh=refresh, progress=progress
        )

    async def run(self, *, resume: bool) -> bool:
        """Bring the video to its place, and return whether it was not there already.

        :param resume: False to forget what is there of it.
        :raises DownloadError: It did not come.
        """
        try:
            self._transfer.check()
            is_new = await self._in_thread(self._part.open, resume=resume)
            if is_new:
                self._transfer.resume()
                while not await self._transfer.step():
                    pass
                await self._in_thread(self._part.commit)
        finally:
            await self._let_go()
        self._progress(math.inf, self.content.done, self.content.done)
        return is_new

    # --- the sink ---------------------------------------------------------------------------------

    @property
    def content(self) -> PartialContent:
        """What is known of the bytes on disk."""
        return self._part.content

    @property
    def place(self) -> str:
        """The path."""
        return str(self._part.final)

    async def write(self, pieces: Sequence[bytes], begin: tuple[str, Receive] | None) -> None:
        """Append bytes."""
        await self._in_thread(self._part.write, pieces, begin)

    async def proof(self) -> Proof:
        """Return what the boxes of an mp4 say about its end."""
        return await self._in_thread(self._part.proof)

    async def discard(self) -> None:
        """Remove the file and its record."""
        await self._in_thread(self._part.discard)

    def kept(self) -> str:
        """Return what a message says of the bytes on disk."""
        where = f"{self.content.done} bytes are kept in {self._part.path}"
        return f"; {where}, the same call goes on from there"

    # --- threads ----------------------------------------------------------------------------------

    async def _let_go(self) -> None:
        """Keep what has come so far, and close the file, whatever happens meanwhile."""
        self._transfer.close()
        try:
            with contextlib.suppress(DownloadError):
                await self._transfer.flush()
        finally:
            await self._in_thread(self._part.close)

    async def _in_thread(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run what blocks; a cancellation waits for its end, so no file is closed under it."""
        bound = functools.partial(call, *args, **kwargs)
        running = asyncio.ensure_future(anyio.to_thread.run_sync(bound, limiter=self._threads))
        await ended(running)
        try:
            return running.result()
        except OSError as exc:
            is_foreign = isinstance(exc, FileExistsError)
            reason, cls = exc.strerror or str(exc), FileInTheWay if is_foreign else DownloadError
        raise self._transfer.error(reason, cls=cls)
