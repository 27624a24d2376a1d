"""What aiohttp does with connections by itself and must not do for us.

- It sends a GET a second time where the server hangs up; here a hang-up ends the request, so that
  the throttle counts what the server receives.
- It hands bytes that arrive on an idle connection to the next request, and then every reply on
  that connection answers the request before; here such a connection is closed unused.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import aiohttp

from veo3_async._transport.faults import HungUpError, UncleanConnectionError

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection

__all__ = ["BORROWED", "OnceRequest", "OnceResponse", "protocol_of"]

_PROTOCOL: Final = "veo3_protocol"


class OnceRequest(aiohttp.ClientRequest):
    """A request of an own session: not sent where bytes have come before it."""

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Send it."""
        protocol = _clean(conn)
        response = await super().send(conn)
        setattr(response, _PROTOCOL, protocol)
        return response


class OnceResponse(aiohttp.ClientResponse):
    """A response of an own session: a hang-up ends it."""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Wait for its head."""
        try:
            return await super().start(connection)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            raise HungUpError from error


# The same for a session that is lent, with classes of its own; it costs a twentieth more.
async def _borrowed(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    request.send = functools.partial(_sent, request.send)  # type: ignore[method-assign]
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # no request was sent, and aiohttp sends none after it
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise HungUpError from error


BORROWED: Final = (_borrowed,)
"""Middlewares that do the same for a session that was handed in."""


async def _sent(
    send: Callable[[Connection], Awaitable[aiohttp.ClientResponse]], connection: Connection
) -> aiohttp.ClientResponse:
    protocol = _clean(connection)
    response = await send(connection)
    setattr(response, _PROTOCOL, protocol)
    return response


def _clean(connection: Connection) -> ResponseHandler | None:
    protocol = connection.protocol
    if protocol is not None and protocol.should_close:
        raise UncleanConnectionError
    return protocol


def protocol_of(response: aiohttp.ClientResponse) -> ResponseHandler | None:
    """Return what a response came through, which it no longer knows itself at its end."""
    protocol: ResponseHandler | None = getattr(response, _PROTOCOL, None)
    return protocol
