"""The connection to NATS, which comes back by itself."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import logging
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import anyio
import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from veo3_async._cancellation import ended, is_cancelled
from veo3_async._errors import ServiceUnavailable, Veo3Error
from veo3_async.cluster._errors import ClusterError
from veo3_async.cluster._nats.dial import dial
from veo3_async.cluster._nats.errors import ERRORS, closed, denied, is_missing, translated

__all__ = ["CLOSE_SECONDS", "Link"]

_log = logging.getLogger("veo3_async")

_T = TypeVar("_T")

CLOSE_SECONDS: Final = 2.0
"""How long a last word may take."""

_PATIENCE_SECONDS: Final = 5.0
"""How long a call waits for a connection that was lost."""
_LOOK_SECONDS: Final = 0.5
_AGAIN_SECONDS: Final = 0.25
_MOST_UNSENT: Final = 8192
_MOST_DENIALS: Final = 1024

_DENIAL_SECONDS: Final = 10.0
_PERMISSION: Final = "permissions violation"
_INBOXES: Final = "_INBOX.>"
_NO_ANSWERS: Final = 'subscription to "_inbox'


class Link:
    """A connection to NATS that comes back by itself.

    Each connection is a client of its own: one of nats-py that reconnects by itself can end up
    with two connections, or none, where it loses the new one at once.

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
        self._servers: Final = list(servers)
        self._peers: list[str] = []
        self._options = dict(options)
        self._back = back
        self._client: Client | None = None
        self._js: JetStreamContext | None = None
        self._is_up = asyncio.Event()
        self._is_doubtful = asyncio.Event()
        self._refusal: Veo3Error | None = None
        self._unsent: collections.deque[tuple[str, bytes]] = collections.deque(maxlen=_MOST_UNSENT)
        self._denials: collections.deque[tuple[float, str]] = collections.deque(
            maxlen=_MOST_DENIALS
        )
        self._connecting = anyio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Link: {self.place}>"

    @property
    def client(self) -> Client:
        """The client of nats-py; another one after each loss of the connection.

        :raises ClientClosed: It was never connected, or was closed.
        """
        if self._closed or self._client is None:
            raise closed()
        return self._client

    async def jetstream(self) -> JetStreamContext:
        """Return JetStream through the present connection; one that is lost is waited for.

        :raises ServiceUnavailable: It does not come back within 5 s.
        :raises ClusterError: The servers refuse the credentials by now.
        :raises ClientClosed: It was never connected, or was closed.
        """
        if not self._is_there() and self._js is not None and not self._closed:
            with anyio.move_on_after(_PATIENCE_SECONDS):
                await self._is_up.wait()
        if self._closed or self._js is None:
            raise closed()
        if not self._is_up.is_set():
            message = f"the connection to NATS at {self.place} is lost"
            raise self._refusal or ServiceUnavailable(message)
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
                await self._dial()
                self._keeper = asyncio.get_running_loop().create_task(
                    self._keep(),
                    name="veo3_async connection to NATS",
                    context=contextvars.Context(),  # the caller's cancel scopes are not ours
                )

    async def aclose(self) -> None:
        """Send what is still to be sent, and close the connection. May be repeated."""
        self._closed = True
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await ended(keeper)
        client, self._client = self._client, None
        self._is_up.set()  # nobody waits for it any more
        if client is None or client.is_closed:
            return
        with anyio.move_on_after(2 * CLOSE_SECONDS, shield=True):
            with contextlib.suppress(*ERRORS):
                await client.flush(timeout=int(CLOSE_SECONDS))
            # Where the connection is lost just now it raises what asyncio's transport says to
            # that: ConnectionResetError, and from Python 3.12 on a TypeError.
            with contextlib.suppress(*ERRORS, TypeError):
                await client.close()

    async def post(self, subject: str, payload: bytes) -> None:
        """Send what nobody answers; where the connection is lost, as soon as it is back."""
        if self._client is not None and self._is_there():
            try:
                await self._client.publish(subject, payload)
            except ERRORS:
                pass
            else:
                return
        self._unsent.append((subject, payload))

    async def request(self, subject: str, payload: bytes) -> None:
        """Send what is answered, and wait for the answer.

        :raises ServiceUnavailable: None came.
        """
        await self.jetstream()  # a connection that was lost is waited for
        await self.ask(subject, self.client.request(subject, payload, timeout=CLOSE_SECONDS))

    # --- errors -----------------------------------------------------------------------------

    async def ask(self, about: str, call: Awaitable[_T]) -> _T:
        """Return what a call returns; its errors become ours.

        :param about: What it is about, for the message; the last word is a subject or a stream.
        """
        began = asyncio.get_running_loop().time()
        try:
            return await call
        except TimeoutError as error:
            self._check_denials(about, began)
            fault = self._fault(about, error)
        except ERRORS as error:
            fault = self._fault(about, error)
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            fault = self._fault(about, nats.errors.ConnectionClosedError())
        raise fault

    def check(self, about: str) -> None:
        """See whether it makes sense to ask once more where nobody answers.

        :raises ClusterError: There is no permission to ask; the credentials are refused by now.
        :raises ClientClosed: It was closed.
        """
        self._check_denials(about, asyncio.get_running_loop().time() - _DENIAL_SECONDS)
        if self._refusal is not None:
            raise self._refusal
        if self._closed:
            raise closed()

    def _fault(self, about: str, error: BaseException) -> Veo3Error:
        if self._closed:
            return closed()
        if is_missing(error):
            self.trouble()
        return translated(error, about, self.place)

    def _check_denials(self, about: str, since: float) -> None:
        """Raise where no answer can come, for the server has denied what is asked.

        :param about: Its last word, a subject or a stream, is looked for in the denials.
        :param since: When it was asked.
        """
        word = about.rpartition(" ")[2].lower()  # nats-py makes the server's words lower case
        for denied_at, said in self._denials:
            if _NO_ANSWERS in said:
                raise denied(_INBOXES)
            if denied_at >= since and word in said:
                raise denied(about)

    def _is_there(self) -> bool:
        """Return whether there is a connection, as far as is known; `_keep` looks else."""
        if self._client is not None and not self._client.is_connected:
            self._is_up.clear()
            self._is_doubtful.set()
        return self._is_up.is_set()

    # --- the connection ---------------------------------------------------------------------

    async def _dial(self) -> None:
        self._client = await dial(
            [*self._servers, *self._peers],
            self._options,
            self.place,
            erred=self._erred,
            lost=self._lost,
        )
        self._js = self._client.jetstream()
        self._is_up.set()

    async def _keep(self) -> None:
        """Connect anew whenever the connection is lost."""
        while not self._closed:  # nats-py may swallow a cancellation
            # nats-py does not call back on each way on which it closes.
            with anyio.move_on_after(_LOOK_SECONDS):
                await self._is_doubtful.wait()
            self._is_doubtful.clear()
            if self._client is None or self._client.is_connected:
                continue
            self._is_up.clear()
            self._peers = self._discovered(self._client)
            _log.warning("the connection to NATS at %s is lost; it is tried again", self.place)
            await self._come_back()
            _log.warning("the connection to NATS at %s is back", self.place)
            for _ in range(len(self._unsent)):
                await self.post(*self._unsent.popleft())
            self._back()

    async def _come_back(self) -> None:
        while not self._closed:
            try:
                await self._dial()
            except ClusterError as error:
                if self._refusal is None:
                    _log.error("NATS needs its operator: %s", error)
                self._refusal = error
                self._back()  # whoever waits is to see it
            except ServiceUnavailable as error:
                _log.debug("not connected yet: %s", error)
            except Exception:  # noqa: BLE001 - whoever waits must not wait for ever
                _log.exception("internal error, please report it: the connection is tried again")
            else:
                self._refusal = None
                self._denials.clear()  # permissions may be others now
                return
            await anyio.sleep(_AGAIN_SECONDS)

    def _discovered(self, client: Client) -> list[str]:
        """Return URLs of the servers that the last one has named, with the credentials of ours.

        A cluster of servers says where its members are: one that we were not given may be alive.
        """
        parts = urllib.parse.urlsplit(self._servers[0])
        user, mark, _ = parts.netloc.rpartition("@")
        return [
            url._replace(netloc=f"{user}{mark}{url.netloc}").geturl()
            for url in client.discovered_servers
        ]

    async def _lost(self) -> None:
        self._is_doubtful.set()

    async def _erred(self, error: Exception) -> None:
        if _PERMISSION not in (said := str(error).lower()):
            return
        # There may be one for each id: the first is enough for who reads the log.
        _log.log(logging.DEBUG if self._denials else logging.ERROR, "%s", said)
        self._denials.append((asyncio.get_running_loop().time(), said))


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
