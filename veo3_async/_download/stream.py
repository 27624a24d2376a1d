"""A video as a stream of bytes, for those who have no disk: object stores, bots that upload."""

from __future__ import annotations

import asyncio
import copy
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Final, Self

import msgspec

from veo3_async._download.content import BOX_BYTES, BoxScanner, Proof
from veo3_async._download.http import HttpSource
from veo3_async._download.resumption import PartialContent, Receive
from veo3_async._download.transfer import Refresh, Source, Transfer
from veo3_async._errors import ClientClosed

__all__ = ["VideoStream"]


class _ChangedError(Exception):
    """Raised when the video is another than that of which bytes were given out."""


class VideoStream(AsyncIterator[bytes]):
    """The bytes of a video in order, over as many connections as it takes.

    Its end comes only when the video is whole. Where a connection is cut, it goes on with the next
    byte by ``Range``; where that cannot be, the video is read again from its beginning and compared
    by digest, so that bytes of two videos are never mixed: if it has changed, an error is raised,
    for what was given out cannot be taken back.

    To be used once, by one task. It holds a connection while it is open: it is closed at its end,
    by an error, by a cancellation, by `aclose`, by leaving ``async with``, and by being forgotten.
    """

    def __init__(self, source: Source, *, http: HttpSource, refresh: Refresh | None) -> None:
        self._sink: Final = _Sink()
        self._transfer: Final = Transfer(
            source, self._sink, http=http, refresh=refresh, progress=lambda *_: None
        )
        self._request_id: Final = source.request_id
        self._begun = self._ended = False
        self._client_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._ended else "open"
        return f"<VideoStream: {state}, {self.done} bytes of {self.total or 'unknown many'}>"

    @property
    def done(self) -> int:
        """How many bytes have come, from the first on."""
        return self._sink.content.done

    @property
    def total(self) -> int | None:
        """How many bytes the video has; None before the first, or where the server does not say."""
        return self._sink.content.total

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __aiter__(self) -> VideoStream:
        return self

    async def __anext__(self) -> bytes:
        if self._client_closed:
            message = "the client is closed"
            raise ClientClosed(message, request_id=self._request_id)
        try:
            return await self._next()
        except BaseException:
            self._close()
            raise

    async def aclose(self) -> None:
        """Close the connection; no more bytes come."""
        self._close()

    def end_with_client(self) -> None:
        """Close it because its client is closed, which the next reading says."""
        self._client_closed = not self._ended
        self._close()

    def __del__(self) -> None:
        if hasattr(self, "_ended"):
            self._close()

    async def _next(self) -> bytes:
        if not self._begun:
            self._begun = True
            self._transfer.check()
        while not (self._ended or self._sink.ready):
            self._ended = await self._stepped()
        if not self._sink.ready:
            raise StopAsyncIteration
        return self._sink.ready.popleft()

    async def _stepped(self) -> bool:
        try:
            is_whole = await self._transfer.step()
            if is_whole:
                self._sink.check_whole()
        except _ChangedError:
            is_whole = None
        if is_whole is None:
            reason = f"it changed on the server after {self.done} bytes were given out"
            raise self._transfer.error(reason)
        return is_whole

    def _close(self) -> None:
        self._ended = True
        self._sink.ready.clear()
        self._transfer.close()


class _Sink:
    """Bytes on their way to the consumer."""

    place = "its reader"

    def __init__(self) -> None:
        self.content = PartialContent(url="")
        self.ready: Final[deque[bytes]] = deque()
        self._digest = hashlib.sha256()
        self._boxes: Final = BoxScanner()
        self._header = b""
        self._again: _Reread | None = None

    async def write(self, pieces: Sequence[bytes], begin: tuple[str, Receive] | None) -> None:
        """Take bytes; where they begin the video again, those that were given out are compared."""
        if begin is not None:
            self._begin(*begin)
        for piece in pieces:
            rest = piece if self._again is None else self._compared(self._again, piece)
            if rest:
                self._give(rest)
        await asyncio.sleep(0)

    async def proof(self) -> Proof:
        """Return what the boxes of an mp4 say about its end."""
        boxes = copy.deepcopy(self._boxes)  # if this is no end, more of the last header will come
        if self._header and boxes.next is not None:
            boxes.add(self._header)
        return boxes.verdict(self.content.done)

    async def discard(self) -> None:
        """Forget nothing, for what was given out is gone."""

    def kept(self) -> str:
        """Return nothing: another call begins anew."""
        return ""

    def check_whole(self) -> None:
        """Raise where the reply that has ended is shorter than what was given out."""
        if self._again is not None:
            raise _ChangedError

    def _begin(self, url: str, plan: Receive) -> None:
        self._again = None
        fresh = PartialContent(
            url=url, done=self.content.done, total=plan.total, validator=plan.validator
        )
        if plan.start == self.content.done:
            self.content = fresh
        else:
            # Not known by its new name before it has shown to be the same.
            self._again = _Reread(fresh)

    def _compared(self, again: _Reread, piece: bytes) -> bytes:
        """Return what of a piece was not given out before."""
        old = piece[: again.left]
        again.digest.update(old)
        again.left -= len(old)
        if again.left == 0:
            if again.digest.digest() != self._digest.digest():
                raise _ChangedError
            self.content, self._again = again.content, None
        return piece[len(old) :]

    def _give(self, piece: bytes) -> None:
        self._scan(piece)
        self._digest.update(piece)
        self.content = msgspec.structs.replace(self.content, done=self.content.done + len(piece))
        self.ready.append(piece)

    def _scan(self, piece: bytes) -> None:
        """Show the scanner the headers that lie in a piece."""
        start, boxes = self.content.done, self._boxes
        while (at := boxes.next) is not None and at < start + len(piece):
            wanted = at + len(self._header) - start
            self._header += piece[max(0, wanted) : at + BOX_BYTES - start]
            if len(self._header) < BOX_BYTES:
                return
            boxes.add(self._header)
            # After a box that is smaller than what was read, that is of the next one's header.
            self._header = self._header[(boxes.next or start + len(piece)) - at :]


class _Reread:
    """A video that is read again up to where its reader is."""

    def __init__(self, content: PartialContent) -> None:
        self.content: Final = content
        self.left = content.done
        self.digest = hashlib.sha256()
