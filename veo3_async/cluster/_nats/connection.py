"""The connection to NATS, which comes back by itself."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import anyio
import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from veo3_async._errors import ServiceUnavailable, Veo3Error
from veo3_async.cluster._errors import ClusterError
from veo3_async.cluster._nats.errors import ERRORS, closed, denied, translated

__all__ = ["CLOSE_SECONDS", "Link"]

_log = logging.getLogger("veo3_async")

_T = TypeVar("_T")

CLOSE_SECONDS: Final = 2.0
"""How long a last word may take."""

_CONNECT_SECONDS: Final = 10.0
_RECONNECT_SECONDS: Final = 0.25

_PERMISSION: Final = "permissions violation"


class Link:
    """A connection to NATS that comes back by itself.

    :param servers: URLs; credentials in them are shown to nobody else.
    :param options: Further arguments of ``nats.connect``.
    :param back: Called when the connection is back, for what was asked before is lost.
    :param trouble: Called when a stream or a consumer does not answer as it should.
    """

    def __init__(
        self,
        servers: Sequence[str],
        options: Mapping[str, Any],
        back: Callable[[], None],
        trouble: Callable[[], None],
    ) -> None:
        self.place: Final = ", ".join(_place(server) for server in servers)
        """Hosts and ports, without credentials."""
        self.trouble: Final = trouble
        self._servers = list(servers)
        self._options = dict(options)
        self._back = back
        self._client: Client | None = None
        self._js: JetStreamContext | None = None
        self._denials: collections.deque[str] = collections.deque(maxlen=16)
        self._connecting = anyio.Lock()
        self._first: tuple[anyio.CancelScope, list[Exception]] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Link: {self.place}>"

    @property
    def client(self) -> Client:
        """The client of nats-py.

        :raises ClientClosed: It is not connected, or was closed.
        """
        if self._closed or self._client is None:
            raise closed()
        return self._client

    @property
    def jetstream(self) -> JetStreamContext:
        """JetStream through that client.

        :raises ClientClosed: It is not connected, or was closed.
        """
        if self._closed or self._js is None:
            raise closed()
        return self._js

    async def connect(self) -> None:
        """Connect, if that was not done; later losses are made good by themselves.

        :raises ServiceUnavailable: No server can be reached.
        :raises ClusterError: They refuse the credentials.
        :raises ClientClosed: It was closed.
        """
        async with self._connecting:
            if self._closed:
                raise closed()
            if self._client is None:
                self._client = await self._connected()
                self._js = self._client.jetstream()

    async def aclose(self) -> None:
        """Send what is still to be sent, and close the connection. May be repeated."""
        self._closed = True
        client, self._client = self._client, None
        if client is None:
            return
        with anyio.move_on_after(2 * CLOSE_SECONDS, shield=True):
            with contextlib.suppress(*ERRORS):
                await client.flush(timeout=int(CLOSE_SECONDS))
            # Where the connection is lost just now it raises what asyncio's transport says to
            # that: ConnectionResetError, and from Python 3.12 on a TypeError.
            with contextlib.suppress(*ERRORS, TypeError):
                await client.close()

    # --- errors -----------------------------------------------------------------------------

    async def ask(self, subject: str, call: Awaitable[_T]) -> _T:
        """Return what a call returns; its errors become ours.

        :param subject: What it is about, for the message.
        """
        try:
            return await call
        except ERRORS as error:
            fault = self.fault(subject, error)
        raise fault

    def fault(self, subject: str, error: BaseException) -> Veo3Error:
        """Return what an error of nats-py is among ours."""
        if self._closed and isinstance(error, nats.errors.ConnectionClosedError):
            return closed()
        if isinstance(error, TimeoutError) and self._is_denied(subject):
            return denied(subject)
        return translated(error, subject, self.place)

    def check(self, subject: str) -> None:
        """See whether it makes sense to ask once more where nobody answers.

        :raises ClusterError: There is no permission to ask; the credentials are refused by now.
        :raises ClientClosed: It was closed.
        """
        if self._is_denied(subject):
            raise denied(subject)
        if self.client.is_closed:
            raise self.fault(subject, nats.errors.ConnectionClosedError())

    def _is_denied(self, subject: str) -> bool:
        # nats-py makes the server's words lower case.
        return any(subject.lower() in denial for denial in self._denials)

    # --- the connection ---------------------------------------------------------------------

    async def _connected(self) -> Client:
        client = Client()
        failures: list[Exception] = []
        with anyio.move_on_after(_CONNECT_SECONDS) as scope:
            self._first = (scope, failures)
            try:
                await client.connect(
                    self._servers,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=_RECONNECT_SECONDS,  # type: ignore[arg-type]  # it sleeps so long
                    error_cb=self._erred,
                    disconnected_cb=self._disconnected,
                    reconnected_cb=self._reconnected,
                    **self._options,
                )
            except ERRORS as error:
                failures.append(error)
            finally:
                self._first = None
        if client.is_connected:
            return client
        with anyio.CancelScope(shield=True), contextlib.suppress(Exception):
            await client.close()
        if any("authorization" in str(failure).lower() for failure in failures):
            message = f"NATS at {self.place} refuses the credentials"
            raise ClusterError(message)
        message = f"no NATS server can be reached at {self.place}; is one running there?"
        raise ServiceUnavailable(message)

    async def _erred(self, error: Exception) -> None:
        if self._first is not None:
            scope, failures = self._first
            failures.append(error)
            if len(failures) >= len(self._servers):
                # nats-py would try for ever; now it closes its socket, and then waits.
                asyncio.get_running_loop().call_later(_RECONNECT_SECONDS / 2, scope.cancel)
        elif _PERMISSION in (said := str(error).lower()) and said not in self._denials:
            _log.error("%s", said)
            self._denials.append(said)

    async def _disconnected(self) -> None:
        if self._client is not None:
            _log.warning("the connection to NATS at %s is lost; it is tried again", self.place)

    async def _reconnected(self) -> None:
        _log.warning("the connection to NATS at %s is back", self.place)
        self._back()


def _place(server: str) -> str:
    try:
        parts = urllib.parse.urlsplit(server if "://" in server else f"nats://{server}")
        host, port = parts.hostname, parts.port or 4222
    except ValueError:
        host = None
    if not host:
        message = "servers are URLs such as 'nats://127.0.0.1:4222'"  # and may hold a password
        raise ValueError(message)
    return f"{host}:{port}"
