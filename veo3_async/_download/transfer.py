"""One film's way to disk: attempts, patience, fresh URLs, and a thread for what blocks.

How bytes come is the line's business, what a reply means `_range`'s, what lies on disk `_part`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec, Protocol, TypeVar

import anyio
import anyio.to_thread
import msgspec

from veo3_async._cancellation import ended
from veo3_async._download.mp4 import Proof
from veo3_async._download.part_file import PartFile
from veo3_async._download.redirects import ForbiddenError, checked, shown
from veo3_async._download.resumption import (
    Again,
    Expired,
    Finish,
    Kept,
    Plan,
    Refuse,
    Restart,
    Write,
    resumable,
)
from veo3_async._errors import DownloadError
from veo3_async._lifecycle.retries import Streak, backoff
from veo3_async._models import VideoTask
from veo3_async._protocol.errors import Kind

__all__ = ["Fetch", "Line", "Refresh", "Source"]

Refresh = Callable[[], Awaitable[VideoTask]]
Report = Callable[[float, int, int | None], None]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_logger: Final = logging.getLogger("veo3_async")

_IDLE_ATTEMPTS: Final = 8
"""Attempts in a row that bring no new byte before a download is given up; with the full jitter of
``_faults.backoff`` that is 45 s of waiting on average, and 91 s at most."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be brought."""

    url: str
    request_id: str | None = None
    task: VideoTask | None = None

    def is_same(self, other: Source) -> bool:
        """Return whether this is the same film: a task's URL may change."""
        if self.request_id and other.request_id:
            return self.request_id == other.request_id
        return self.url == other.url


class Line(Protocol):
    """What asks for bytes; faults of the network are plans, too."""

    async def ask(self, url: str, kept: Kept | None, fetch: Fetch) -> Plan:
        """Ask for a film, or for what follows the kept bytes, and hand over what comes."""


class Fetch:
    """Brings one film to disk.

    :param report: Gets the loop's time, the bytes that are here, and the bytes of the whole or
        None, for each piece; and an infinite time at the end.
    """

    def __init__(
        self,
        source: Source,
        part: PartFile,
        *,
        line: Line,
        threads: anyio.CapacityLimiter,
        refresh: Refresh | None,
        report: Report,
    ) -> None:
        self._source = source
        self._url = source.url
        self._part = part
        self._line = line
        self._threads = threads
        self._refresh = refresh
        self._report = report
        self._pieces: list[bytes] = []
        self._begin: tuple[str, Write] | None = None
        self._anew = False
        self._requests = 0
        self._since: float | None = None

    async def run(self, *, resume: bool) -> None:
        """Bring the film to its place.

        :param resume: False to forget what is there of it.
        :raises DownloadError: It did not come.
        """
        try:
            self._url = self._checked(self._url)
            await self._in_thread(self._part.open, resume=resume)
            await self._fetch()
            await self._in_thread(self._part.commit)
        finally:
            await self._let_go()
        self._report(math.inf, self._part.kept.done, self._part.kept.done)

    # --- what the line calls ----------------------------------------------------------------------

    def asks(self) -> None:
        """Note that a request goes out."""
        self._requests += 1
        if self._since is None:
            self._since = asyncio.get_running_loop().time()

    def begin(self, plan: Write) -> None:
        """Take what comes next by this plan."""
        self._begin = (self._url, plan)

    def take(self, now: float, piece: bytes, done: int, total: int | None) -> None:
        """Hold a piece until the next `flush`."""
        self._pieces.append(piece)
        self._report(now, done, total)

    async def flush(self) -> None:
        """Write what is held; where nothing is, what is on disk stays untouched."""
        pieces, self._pieces = self._pieces, []
        begin, self._begin = self._begin, None
        if pieces:
            self._anew = False
            await self._in_thread(self._part.write, pieces, begin)

    async def overrun(self, plan: Write, limit: int) -> Plan:
        """Say what a body means that goes on where it must have ended."""
        self._pieces.clear()
        if plan.total is None:
            await self._in_thread(self._part.discard)
            return Refuse(reason=f"the file has more than {limit} bytes, the limit")
        self._anew = True
        return Again(reason="the server sent more bytes than it announced", kind=Kind.UNEXPECTED)

    async def end(self, plan: Write) -> Plan:
        """Say what the end of a body means: only what is proved to be whole is finished."""
        await self.flush()
        if plan.total is None:
            proof = await self._in_thread(self._part.proof)
            if proof is Proof.NONE:
                return Refuse(reason="the server gives no length, and the file does not prove it")
            is_whole = proof is Proof.WHOLE
        else:
            is_whole = self._part.kept.done == plan.total
        if is_whole:
            return Finish()
        return Again(reason="the server ended the file in the middle", kind=Kind.RESET)

    # --- attempts ---------------------------------------------------------------------------------

    async def _fetch(self) -> None:
        """Ask until all bytes are on disk. New bytes earn new patience, old ones do not."""
        reached, idle = self._part.kept.done, 0
        while True:
            plan = await self._attempt()
            await self.flush()
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
                    await self._pause(plan, idle)
                case Refuse():
                    raise self._error(plan.reason, plan.status)

    async def _attempt(self) -> Plan:
        kept = None if self._anew else resumable(self._part.kept, self._url)
        if kept is not None and kept.done == kept.total:
            return Finish()
        return await self._line.ask(self._url, kept, self)

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
        if idle == _IDLE_ATTEMPTS:
            reason = f"{plan.reason}, {idle} times in a row"
            raise self._error(reason, plan.status)
        jitter = backoff(Streak(faults=idle), plan.kind, 0.0, random.random())
        seconds = (plan.retry_after or 0.0) + jitter
        _logger.debug("%s: %s; asked again in %.1f s", shown(self._url), plan.reason, seconds)
        await anyio.sleep(seconds)

    async def _let_go(self) -> None:
        """Keep what has come so far, and close the file, whatever happens meanwhile."""
        try:
            with contextlib.suppress(DownloadError):
                await self.flush()
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
            reason = exc.strerror or str(exc)
        raise self._error(reason)

    # --- errors -----------------------------------------------------------------------------------

    def _checked(self, url: str) -> str:
        try:
            return checked(url)
        except ForbiddenError as exc:
            reason = str(exc)
        raise self._error(reason)

    def _error(self, reason: str, status: int | None = None) -> DownloadError:
        message = f"{shown(self._url)} did not come to {self._part.final}: {reason}"
        if resumable(self._part.kept, self._url) is not None:
            kept, path = self._part.kept.done, self._part.path
            message += f"; {kept} bytes are kept in {path}, the same call goes on from there"
        now = asyncio.get_running_loop().time()
        return DownloadError(
            message,
            request_id=self._source.request_id,
            http_status=status,
            attempts=self._requests,
            elapsed=None if self._since is None else now - self._since,
            task=self._source.task,
        )
