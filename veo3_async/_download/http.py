"""How a video is asked for: sessions that have never seen the API key, and the body of a reply."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable
from typing import Final

import aiohttp
from yarl import URL

from veo3_async._download.content import HEAD_BYTES, is_text_within, unfit
from veo3_async._download.destinations import ForbiddenError, checked, host_of, next_hop, shown
from veo3_async._download.resolver import CheckedResolver
from veo3_async._download.resumption import (
    Decision,
    PartialContent,
    Receive,
    Redirect,
    Refuse,
    Restart,
    Retry,
    TryFreshUrl,
    at_end,
    decide,
    range_headers,
)
from veo3_async._protocol.errors import Kind
from veo3_async._protocol.hosts import is_private_host
from veo3_async._protocol.http import Reply
from veo3_async._transport.endpoint import environment_proxy
from veo3_async._transport.faults import network_problem

__all__ = ["HttpSource", "VideoBody"]

_MAX_BYTES: Final = 2 * 1024**3
"""Of a video: a server that sends without end is not to fill the disk."""

_MAX_HEADER_BYTES: Final = 1 << 16

_CONNECT_SECONDS: Final = 10.0

_SLOW_SECONDS: Final = 30.0

_SLOW_BYTES: Final = 1000 * _SLOW_SECONDS

_BATCH_BYTES: Final = 2 << 20

_BATCH_SECONDS: Final = 1.0
"""A thread is entered for each 2 MiB: its cost, about 0.1 ms, is then small beside the copying
(4 MiB cost more again, in page faults); on a slow link once a second, so that little is lost."""

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
    "Accept-Encoding": "identity",  # a range of compressed bytes would look like one of the video
    "User-Agent": "Mozilla/5.0 (compatible; veo3_async)",  # some hosts refuse a Python's own
}

Progress = Callable[[float, int, int | None], None]


class _Way(enum.Enum):
    """How a request goes; for each there is a session, as their names lead to different places."""

    HTTPS = "https"
    HTTP = "http"
    PROXY = "proxy"


class HttpSource:
    """Asks for videos, wherever their URLs may lead.

    :param proxy: URL of an HTTP proxy, or None.
    :param trust_env: Whether the proxies of the environment are used; never ``.netrc``.
    :param session: What to ask with in place of sessions of its own, or None; it is not closed.
    :param allow_private: Whether URLs may lead to addresses that are not public.
    """

    def __init__(
        self,
        *,
        proxy: str | None,
        trust_env: bool,
        session: aiohttp.ClientSession | None,
        allow_private: bool,
    ) -> None:
        self._proxy: Final = proxy
        self._trust_env: Final = trust_env
        self._given: Final = session
        self._allow_private: Final = allow_private
        self._sessions: Final[dict[_Way, aiohttp.ClientSession]] = {}

    async def aclose(self) -> None:
        """Close its sessions and their connections."""
        for session in self._sessions.values():
            await session.close()

    def checked(self, url: str) -> str:
        """Return a URL as it goes out.

        :raises ForbiddenError: It may not be followed.
        """
        return checked(url, allow_private=self._allow_private)

    async def open(
        self, url: str, content: PartialContent | None, *, on_request: Callable[[], None]
    ) -> VideoBody | Decision:
        """Ask for a video, or for what follows the bytes that are here, wherever redirects lead."""
        trail = [url]
        try:
            while True:
                on_request()
                async with asyncio.timeout(_SLOW_SECONDS):
                    response = await self._request(trail[-1], content)
                reply = Reply(response.status, response.headers, b"")
                plan = decide(reply, content, max_bytes=_MAX_BYTES, wall_now=time.time())
                if isinstance(plan, Receive):
                    return VideoBody(response, plan)
                response.close()
                if not isinstance(plan, Redirect):
                    return plan
                trail.append(next_hop(trail, plan.location, allow_private=self._allow_private))
        except ForbiddenError as exc:
            return Refuse(reason=str(exc))
        except (aiohttp.ClientError, OSError) as error:
            return _fault(error)

    async def _request(self, url: str, content: PartialContent | None) -> aiohttp.ClientResponse:
        proxy = self._proxy
        if proxy is None and self._trust_env:
            proxy = environment_proxy(url)
        target = URL(url, encoded=True)
        way = _Way(target.scheme) if proxy is None else _Way.PROXY
        if way is _Way.PROXY and target.scheme == "http" and not is_private_host(host_of(url)):
            message = f"{shown(url)!r} is not https"  # whose address only the proxy will know
            raise ForbiddenError(message)
        return await self._session(way).get(
            target,
            headers=_HEADERS | range_headers(content),
            proxy=proxy,
            allow_redirects=False,
            auto_decompress=False,  # what is labelled as compressed may be a video as it is
            timeout=_TIMEOUT,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        )

    def _session(self, way: _Way) -> aiohttp.ClientSession:
        if self._given is not None:
            return self._given
        if (session := self._sessions.get(way)) is None:
            session = self._sessions[way] = self._made_session(way)
        return session

    def _made_session(self, way: _Way) -> aiohttp.ClientSession:
        # A proxy looks names up itself, and its own may well be private.
        resolver = (
            None
            if way is _Way.PROXY
            else CheckedResolver(way.value, allow_private=self._allow_private)
        )
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, resolver=resolver
            ),  # the downloader has a limit
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )


class VideoBody:
    """The bytes of one reply, from the start of its plan on."""

    def __init__(self, response: aiohttp.ClientResponse, plan: Receive) -> None:
        self.plan: Final = plan
        self._response: Final = response
        self._chunks: Final = response.content.iter_chunks()
        self._done = self._counted = plan.start
        self._head: bytes | None = b""
        self._patience = _SLOW_SECONDS

    def close(self) -> None:
        """Close the connection, unless all was read from it."""
        self._response.close()

    async def fill(self, pieces: list[bytes], progress: Progress) -> Decision | None:
        """Add what comes within a second, or 2 MiB.

        Returns None where more is to come, else what the end means. The time between two calls is
        not the link's: a slow disk and a slow consumer are no slow server.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(self._patience):
                ended = await self._receive(pieces, progress, clock)
        except (aiohttp.ClientError, OSError) as error:
            return self._rescued(pieces) or _fault(error)
        self._patience -= clock() - began
        if self._done - self._counted >= _SLOW_BYTES:
            self._counted, self._patience = self._done, _SLOW_SECONDS
        return ended

    async def _receive(
        self, pieces: list[bytes], progress: Progress, clock: Callable[[], float]
    ) -> Decision | None:
        until, enough = clock() + _BATCH_SECONDS, self._done + _BATCH_BYTES
        async for piece, _ in self._chunks:
            if (wrong := self._take(piece, pieces)) is not None:
                return wrong
            progress(now := clock(), self._done, self.plan.total)
            if self._done >= enough or now >= until:
                return None
        if self._head and (wrong := self._judge_head(self._head, pieces)) is not None:
            return wrong
        return at_end(self.plan, self._done)

    def _rescued(self, pieces: list[bytes]) -> Decision | None:
        """Take what came right before a fault: aiohttp raises the fault, and keeps the bytes.

        Where a connection is cut again and again, they are what it goes on with.
        """
        content = self._response.content
        if content.exception() is None:
            return None
        content.set_exception(None)  # type: ignore[arg-type]
        return self._take(content.read_nowait(), pieces)

    def _take(self, piece: bytes, pieces: list[bytes]) -> Decision | None:
        """Add a piece, or say what is wrong with it."""
        self._done += len(piece)
        if self._done > (self.plan.total or _MAX_BYTES):
            return self._overrun()
        if self._head is not None and piece:
            return self._judge(piece, pieces)
        pieces.append(piece)
        return None

    def _judge(self, piece: bytes, pieces: list[bytes]) -> Decision | None:
        """Hold the first bytes back until there are enough to say what they are."""
        if self.plan.start:
            self._head = None
            if is_text_within(piece):
                return Restart("the server sent a text in place of the rest")
            pieces.append(piece)
            return None
        head = self._head = (self._head or b"") + piece
        return self._judge_head(head, pieces) if len(head) >= HEAD_BYTES else None

    def _judge_head(self, head: bytes, pieces: list[bytes]) -> Decision | None:
        self._head = None
        if (reason := unfit(head[:HEAD_BYTES], self.plan.encoding)) is not None:
            return TryFreshUrl(reason=reason, status=self._response.status)
        pieces.append(head)
        return None

    def _overrun(self) -> Decision:
        if self.plan.total is None:
            reason = f"the file has more than {_MAX_BYTES} bytes, the limit"
            return Refuse(reason=reason, discard=True)
        reason = "the server sent more bytes than it announced"
        return Retry(reason=reason, kind=Kind.UNEXPECTED, anew=True)


def _fault(error: Exception) -> Retry | Refuse:
    """Say what an exception of the network means, in words without a signed URL in them."""
    kind = network_problem(error).kind
    reason = _REASONS.get(kind, "the connection was lost")
    if kind is Kind.UNEXPECTED and isinstance(error, aiohttp.ClientResponseError):
        reason += f" ({error.message[:200]!a})"
    return Refuse(reason=reason) if kind is Kind.CERTIFICATE else Retry(reason=reason, kind=kind)
