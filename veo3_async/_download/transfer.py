"""One video's way here: attempts, patience, fresh URLs.

How bytes come is `http`'s business, what a reply means `resumption`'s, where the bytes go a sink's:
a file or a stream.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import anyio
import msgspec

from veo3_async._download.content import Proof
from veo3_async._download.destinations import ForbiddenError, shown
from veo3_async._download.finished import Identity
from veo3_async._download.http import HttpSource, Progress, VideoBody
from veo3_async._download.resumption import (
    Complete,
    Decision,
    LengthUnknown,
    PartialContent,
    Receive,
    Refuse,
    Restart,
    Retry,
    TryFreshUrl,
    resumable,
    without_length,
)
from veo3_async._errors import DownloadError
from veo3_async._lifecycle.retries import Streak, backoff
from veo3_async._models import VideoTask

__all__ = ["Refresh", "Sink", "Source", "Transfer"]

Refresh = Callable[[], Awaitable[VideoTask]]

_logger: Final = logging.getLogger("veo3_async")

_IDLE_ATTEMPTS: Final = 8
"""Attempts in a row that bring no new byte before a download is given up; with the full jitter of
`backoff` that is 45 s of waiting on average, and 91 s at most."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be brought."""

    url: str
    request_id: str | None = None
    task: VideoTask | None = None

    @property
    def identity(self) -> Identity:
        """What its file is known by."""
        is_upsampled = self.task is not None and self.task.upsample_video_url is not None
        return Identity.of(self.url, self.request_id, is_upsampled=is_upsampled)


class Sink(Protocol):
    """Where the bytes go."""

    @property
    def content(self) -> PartialContent:
        """What is known of those that are there."""

    @property
    def place(self) -> str:
        """What messages call it, such as a path."""

    async def write(self, pieces: Sequence[bytes], begin: tuple[str, Receive] | None) -> None:
        """Append bytes.

        :param begin: URL and plan, where these are the first of a reply: they begin at its start.
        """

    async def proof(self) -> Proof:
        """Return what the boxes of an mp4 say about its end."""

    async def discard(self) -> None:
        """Forget what is there."""

    def kept(self) -> str:
        """Return what a message says of bytes that another call can go on from, or nothing."""


class Transfer:
    """Brings one video to a sink.

    :param refresh: Asked once for the task anew when the URL does not work, or None.
    :param progress: Gets the loop's time, the bytes that are here and those of the whole, or None.

    Errors are `DownloadError`, or what ``refresh`` raises.
    """

    def __init__(
        self,
        source: Source,
        sink: Sink,
        *,
        http: HttpSource,
        refresh: Refresh | None,
        progress: Progress,
    ) -> None:
        self._source: Final = source
        self._url = source.url
        self._sink: Final = sink
        self._http: Final = http
        self._refresh = refresh
        self._progress: Final = progress
        self._body: VideoBody | None = None
        self._pieces: list[bytes] = []
        self._begin: tuple[str, Receive] | None = None
        self._anew = False
        self._reached = self._idle = 0
        self._requests = 0
        self._since: float | None = None

    @property
    def url(self) -> str:
        """Where the bytes come from now."""
        return self._url

    def check(self) -> None:
        """Raise where the URL may not be followed."""
        self._url = self._checked(self._url)

    def resume(self) -> None:
        """Do not count what is in the sink already as progress."""
        self._reached = self._sink.content.done

    async def step(self) -> bool:
        """Do one piece of the work; return whether all bytes are in the sink."""
        decision = await self._advance()
        if decision is None:
            return False
        self.close()
        await self._obey(decision)
        return isinstance(decision, Complete)

    async def flush(self) -> None:
        """Write what has come; where nothing has, what is in the sink stays untouched."""
        pieces, self._pieces = self._pieces, []
        if pieces:
            begin, self._begin = self._begin, None
            self._anew = False
            await self._sink.write(pieces, begin)

    def close(self) -> None:
        """Let go of the connection."""
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def error(
        self, reason: str, status: int | None = None, cls: type[DownloadError] = DownloadError
    ) -> DownloadError:
        """Return the error that says why the video did not come."""
        is_kept = resumable(self._sink.content, self._url) is not None
        message = f"{shown(self._url)} did not come to {self._sink.place}: {reason}"
        now = asyncio.get_running_loop().time()
        return cls(
            message + self._sink.kept() if is_kept else message,
            request_id=self._source.request_id,
            http_status=status,
            attempts=self._requests,
            elapsed=None if self._since is None else now - self._since,
            task=self._source.task,
        )

    # --- the parts of a step ----------------------------------------------------------------------

    async def _advance(self) -> Decision | None:
        if self._body is None:
            opened = await self._open()
            if not isinstance(opened, VideoBody):
                return opened
            self._body, self._begin = opened, (self._url, opened.plan)
        body = self._body
        decision = await body.fill(self._pieces, self._progress)
        if _is_worthless(decision):
            self._pieces.clear()
        await self.flush()
        if isinstance(decision, LengthUnknown):
            return without_length(body.plan, await self._sink.proof())
        return decision

    async def _open(self) -> VideoBody | Decision:
        content = None if self._anew else resumable(self._sink.content, self._url)
        if content is not None and content.done == content.total:
            return Complete()
        return await self._http.open(self._url, content, on_request=self._note_request)

    def _note_request(self) -> None:
        self._requests += 1
        if self._since is None:
            self._since = asyncio.get_running_loop().time()

    async def _obey(self, decision: Decision) -> None:
        match decision:
            case Restart():
                self._anew = True
            case TryFreshUrl():
                await self._renew(decision)
            case Retry():
                await self._pause(decision)
            case Refuse():
                if decision.discard:
                    await self._sink.discard()
                raise self.error(decision.reason, decision.status)

    async def _renew(self, failed: TryFreshUrl) -> None:
        """Ask once for a fresh URL. New bytes earn no other one: a URL lives for hours."""
        refresh, self._refresh = self._refresh, None
        if refresh is None:
            raise self.error(failed.reason, failed.status)
        url = (await refresh()).best_url
        if url is None or self._checked(url) == self._url:
            reason = f"{failed.reason}, and the service has no other URL"
            raise self.error(reason, failed.status)
        self._url = self._checked(url)

    async def _pause(self, fault: Retry) -> None:
        """Wait before the next attempt. New bytes earn new patience, old ones do not."""
        done = self._sink.content.done
        self._idle = 0 if done > self._reached else self._idle + 1
        self._reached = max(self._reached, done)
        self._anew = self._anew or fault.anew
        if self._idle == _IDLE_ATTEMPTS:
            reason = f"{fault.reason}, {self._idle} times in a row"
            if fault.status is None or fault.status < 400:  # then the service is out of reach, too
                raise self.error(reason, fault.status)
            await self._renew(TryFreshUrl(reason=reason, status=fault.status))
            self._idle = 0
        jitter = backoff(Streak(faults=self._idle), fault.kind, 0.0, random.random())
        seconds = (fault.retry_after or 0.0) + jitter
        _logger.debug("%s: %s; asked again in %.1f s", shown(self._url), fault.reason, seconds)
        await anyio.sleep(seconds)

    def _checked(self, url: str) -> str:
        try:
            return self._http.checked(url)
        except ForbiddenError as exc:
            reason = str(exc)
        raise self.error(reason)


def _is_worthless(decision: Decision | None) -> bool:
    """Whether what has come since the last write is not the video's."""
    match decision:
        case Retry(anew=anew):
            return anew
        case Refuse() | TryFreshUrl() | Restart():
            return True
    return False
