"""Where the messages of a consumer arrive, whatever connection they come through."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import anyio
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from veo3_async._errors import ServiceUnavailable
from veo3_async.cluster._nats.connection import CLOSE_SECONDS, Link
from veo3_async.cluster._nats.errors import ERRORS

__all__ = ["Inbox"]


class Inbox:
    """A subject of our own, subscribed to on each connection when something is asked through it.

    :param arrived: Called with each message, in order.
    """

    def __init__(self, link: Link, arrived: Callable[[Msg], Awaitable[None]]) -> None:
        self._link = link
        self._arrived = arrived
        self._subject = ""
        self._client: Client | None = None
        self._subscription: Subscription | None = None
        self._subscribing = anyio.Lock()
        self._closed = False

    async def ask(self, subject: str, payload: bytes) -> None:
        """Send a request whose answers arrive here.

        :raises ServiceUnavailable: There is no connection; asked later, there may be one.
        """
        client = self._link.client
        if not client.is_connected:
            message = f"the connection to NATS at {self._link.place} is lost: {subject}"
            raise ServiceUnavailable(message)
        await self._link.ask(subject, self._ask(client, subject, payload))

    async def aclose(self) -> None:
        """Receive what is on its way, and then nothing more. May be repeated."""
        self._closed = True
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        with anyio.move_on_after(CLOSE_SECONDS, shield=True), contextlib.suppress(*ERRORS):
            await subscription.drain()  # type: ignore[no-untyped-call]

    async def _ask(self, client: Client, subject: str, payload: bytes) -> None:
        async with self._subscribing:
            if self._closed:
                return
            if client is not self._client:
                self._subject = client.new_inbox()
                self._subscription = await client.subscribe(self._subject, cb=self._arrived)
                self._client = client
        await client.publish(subject, payload, reply=self._subject)
