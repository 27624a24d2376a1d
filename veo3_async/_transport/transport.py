"""One request in, one reply or problem out: the only client code that knows aiohttp.

No exception of aiohttp passes, for its representations hold the key: what goes wrong becomes
a `Problem`, and a cancellation goes on without the frames it came through. A call is one
physical request: aiohttp's own silent repetition of a GET is prevented, so that the throttle
counts what the server receives.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import pathlib
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, BinaryIO, Final, NoReturn

import aiohttp
import msgspec
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from veo3_async._cancellation import ended, is_cancelled
from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.http import MAX_BODY_BYTES, Call, Form, Reply, inflated
from veo3_async._transport.connections import (
    BORROWED,
    OnceRequest,
    OnceResponse,
    protocol_of,
)
from veo3_async._transport.deadlines import Deadlines, Limited
from veo3_async._transport.endpoint import ApiKey, environment_proxy
from veo3_async._transport.faults import UncleanConnectionError, network_problem

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

__all__ = ["Transport"]

_CONNECT_SECONDS: Final = 10.0
_READ_SECONDS: Final = 20.0
_UPLOAD_SECONDS: Final = 600.0
"""Of one upload: 50 MB at 85 kB/s."""
_KEEPALIVE_SECONDS: Final = 30.0

_MAX_HEADER_BYTES: Final = 1 << 16
"""aiohttp's own limit, 8190, is less than what some gateways put into one header; what it refuses
surfaces as a status of its own invention."""

_MASK: Final = "[key]"
_SHORTEST_SECRET: Final = 8
"""A key as short as a word is made up for a test; taking it out would spoil other words."""

_SESSION_CLOSED: Final = Problem(
    kind=Kind.SESSION, message="the aiohttp session handed in was closed; close the client first"
)

_OTHER_CREDENTIALS: Final = Problem(
    kind=Kind.AUTHENTICATION,
    message="aiohttp sends no key beside other credentials, and the session handed in has some "
    "for the API's host: an auth of its own, or with trust_env an entry in .netrc",
)

_NOT_CONNECTED: Final = frozenset({Kind.CONNECT, Kind.DNS})
_MAY_HAVE_ARRIVED: Final = frozenset({Kind.TIMEOUT, Kind.RESET, Kind.UNEXPECTED})


class _Body(aiohttp.BytesPayload):
    """A body that knows whether any of it was sent."""

    begun = False

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        self.begun = True
        await super().write_with_length(writer, content_length)


class Transport:
    """An aiohttp session with the API's host and key.

    :param api_key: It is in the headers of requests and nowhere else.
    :param base_url: Scheme, host and prefix, checked, without a slash at the end.
    :param session: A session to use and not to close, or None to make one on the first call.
    :param max_connections: Connections of an own session.
    :param request_timeout: Seconds that one request may take in all.
    :param proxy: URL of an HTTP proxy, or None.
    :param trust_env: Whether a proxy of the environment is used where ``proxy`` is None.
    """

    def __init__(
        self,
        api_key: ApiKey,
        base_url: str,
        *,
        session: aiohttp.ClientSession | None,
        max_connections: int,
        request_timeout: float,
        proxy: str | None,
        trust_env: bool = False,
    ) -> None:
        self._base_url = base_url
        self._secret = api_key.reveal().encode()
        self._headers = CIMultiDict(
            {
                "Authorization": f"Bearer {api_key.reveal()}",
                "Accept-Encoding": "gzip, deflate",  # what `inflated` knows
            }
        )
        self._post_headers = self._headers.copy()
        self._post_headers["Content-Type"] = "application/json"
        self._borrowed = session
        self._own: dict[bool, aiohttp.ClientSession] = {}
        self.max_connections: Final = _at_most(session, max_connections)
        """Requests that can be under way at once; what goes beyond would wait inside aiohttp."""
        self._deadlines = Deadlines(total=request_timeout, silence=_READ_SECONDS)
        self._upload_deadlines = Deadlines(total=_UPLOAD_SECONDS, silence=_UPLOAD_SECONDS)
        self._timeout = aiohttp.ClientTimeout(
            total=None,  # the deadlines see to it
            sock_connect=min(_CONNECT_SECONDS, request_timeout),
        )
        self._proxy = proxy or (environment_proxy(base_url) if trust_env else None)

    def __repr__(self) -> str:
        kind = "borrowed" if self._borrowed is not None else "own"
        return f"<Transport: {self._base_url}, {kind} session>"

    def __reduce__(self) -> NoReturn:
        message = "what holds an API key is not pickled or copied; make another one"
        raise TypeError(message)

    def mark_of_key(self, purpose: str) -> str:
        """Return a hash that is the same for the same API key; the key cannot be found from it."""
        return hmac.new(self._secret, purpose.encode(), "sha256").hexdigest()

    async def send(self, call: Call) -> Reply | Problem:
        """Make one physical request.

        Only a cancellation is raised.
        """
        body = None if call.body is None else _Body(call.body)
        try:
            deadlines = self._deadlines if call.form is None else self._upload_deadlines
            with deadlines.limit() as limited:
                return await self._exchange(call, body, limited)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the end of this call
            if type(error) is ValueError and self._borrowed is not None:
                return _OTHER_CREDENTIALS
            problem = self._hinted(network_problem(error))
            if body is not None and not body.begun and problem.kind in _MAY_HAVE_ARRIVED:
                return Problem(kind=Kind.CONNECT, message=f"{problem.message}; nothing was sent")
            return problem
        except BaseException as stop:  # noqa: BLE001 - cancelled, or Ctrl-C; it goes on
            if isinstance(stop, asyncio.CancelledError) and not is_cancelled():
                return _SESSION_CLOSED  # aiohttp cancels what waits for a connection
            # Its traceback would show aiohttp's frames, whose locals hold the key.
            stop.__context__ = None
            raise stop.with_traceback(None)  # noqa: B904 - nothing to be a cause

    def _hinted(self, problem: Problem) -> Problem:
        """Say of a connection that was not made that the environment names a proxy, unused."""
        if problem.kind not in _NOT_CONNECTED or self._proxy is not None:
            return problem
        if environment_proxy(self._base_url) is None:
            return problem
        hint = "the environment names a proxy, which is not used: pass proxy= or trust_env=True"
        return msgspec.structs.replace(problem, message=f"{problem.message} ({hint})")

    async def aclose(self) -> None:
        """Close own sessions and their connections; a cancellation comes out after that."""
        self._deadlines.close()
        self._upload_deadlines.close()
        closing = asyncio.ensure_future(self._close())
        await ended(closing)
        closing.result()

    async def _close(self) -> None:
        while self._own:
            _, session = self._own.popitem()
            await session.close()

    async def _exchange(self, call: Call, body: _Body | None, limited: Limited) -> Reply | Problem:
        if self._borrowed is not None and self._borrowed.closed:
            return _SESSION_CLOSED
        if call.form is not None:
            response = await self._uploaded(call, call.form)
        else:
            response = await self._sent(call, body)
        protocol = protocol_of(response)
        try:
            content = await _read(response, limited)
        finally:
            response.release()  # a connection with bytes still to come is closed, not reused
        if content is not None:
            content = inflated(content, response.headers.get("Content-Encoding", ""))
        if content is None:
            return Problem(
                kind=Kind.UNEXPECTED,
                message=f"the reply is larger than {MAX_BODY_BYTES} bytes, or compressed in a way "
                "that was not asked for; check base_url",
                http_status=response.status,
            )
        headers, content = self._without_secret(response, content)
        close = None if protocol is None else protocol.close
        return Reply(response.status, headers, content, close)

    async def _uploaded(self, call: Call, form: Form) -> aiohttp.ClientResponse:
        """Send a file, read while it is sent."""
        data = aiohttp.FormData()
        with contextlib.ExitStack() as stack:
            content: bytes | BinaryIO | pathlib.Path = form.content
            if isinstance(content, pathlib.Path):
                content = stack.enter_context(content.open("rb"))
            data.add_field("file", content, filename=form.filename)
            return await self._session(fresh=True).request(
                call.method,
                _url(self._base_url + call.target),
                headers=self._headers,
                data=data,
                allow_redirects=False,
                raise_for_status=False,
                auto_decompress=False,
                timeout=self._timeout,
                proxy=self._proxy,
                middlewares=None if self._borrowed is None else BORROWED,
            )

    async def _sent(self, call: Call, body: _Body | None) -> aiohttp.ClientResponse:
        """Send a call, on the first connection that is clean: the others are closed unused."""
        unclean = 0
        while True:
            try:
                return await self._request(call, body)
            except UncleanConnectionError:
                unclean += 1
                if unclean > self.max_connections:
                    raise

    def _request(self, call: Call, body: _Body | None) -> Awaitable[aiohttp.ClientResponse]:
        return self._session(fresh=call.method == "POST").request(
            call.method,
            _url(self._base_url + call.target),
            headers=self._headers if body is None else self._post_headers,
            data=body,
            allow_redirects=False,
            raise_for_status=False,
            auto_decompress=False,  # aiohttp has no limit to it
            timeout=self._timeout,
            proxy=self._proxy,
            middlewares=None if self._borrowed is None else BORROWED,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        )

    def _without_secret(
        self, response: aiohttp.ClientResponse, body: bytes
    ) -> tuple[Mapping[str, str], bytes]:
        """Return headers and body of a reply, in which a server may repeat what it was sent."""
        secret, headers = self._secret, response.headers
        if len(secret) < _SHORTEST_SECRET:
            return headers, body
        if any(secret in value for _, value in response.raw_headers):
            text = secret.decode()
            headers = CIMultiDictProxy(
                CIMultiDict((name, value.replace(text, _MASK)) for name, value in headers.items())
            )
        return headers, body.replace(secret, _MASK.encode()) if secret in body else body

    def _session(self, *, fresh: bool) -> aiohttp.ClientSession:
        """Return a session; one for fresh connections where a request must not be repeated.

        A kept connection may have been hung up a moment ago, and then it would be unknown
        whether the request arrived.
        """
        if self._borrowed is not None:
            return self._borrowed
        if fresh not in self._own:
            connector = (
                aiohttp.TCPConnector(limit=self.max_connections, force_close=True)
                if fresh
                else aiohttp.TCPConnector(
                    limit=self.max_connections, keepalive_timeout=_KEEPALIVE_SECONDS
                )
            )
            self._own[fresh] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                request_class=OnceRequest,
                response_class=OnceResponse,
                trust_env=False,
            )
        return self._own[fresh]


def _at_most(session: aiohttp.ClientSession | None, max_connections: int) -> int:
    if session is None or session.connector is None or not session.connector.limit:
        return max_connections
    return min(max_connections, session.connector.limit)


@functools.lru_cache(maxsize=1024)
def _url(text: str) -> URL:
    # Beside the parsing, what aiohttp asks of a URL stays with it: a twelfth of a poll.
    return URL(text, encoded=True)


async def _read(response: aiohttp.ClientResponse, limited: Limited) -> bytes | None:
    """Return the body, or None where it is too large."""
    content = response.content
    limited.heard()
    body = await content.readany()
    while not content.at_eof():
        if len(body) > MAX_BODY_BYTES:
            return None
        limited.heard()
        body += await content.readany()
    return body if len(body) <= MAX_BODY_BYTES else None
