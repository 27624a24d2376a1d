"""How a video is asked for: a session that has never seen the API key."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from typing import Final

import aiohttp
from yarl import URL

from veo3_async._download.mp4 import HEAD_BYTES, is_text
from veo3_async._download.redirects import ForbiddenError, next_hop
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
from veo3_async._download.transfer import Fetch
from veo3_async._protocol.errors import Kind
from veo3_async._protocol.http import Reply
from veo3_async._transport.faults import network_problem

__all__ = []

_MAX_BYTES: Final = 2 * 1024**3
"""Of a film: a server that sends without end is not to fill the disk."""

_CONNECT_SECONDS: Final = 10.0

_SLOW_SECONDS: Final = 30.0

_SLOW_BYTES: Final = 1000 * _SLOW_SECONDS

_PIECE_BYTES: Final = 2 << 20

_PIECE_SECONDS: Final = 1.0
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
    "Accept-Encoding": "identity",  # a range of compressed bytes could not be told from the film's
}


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
