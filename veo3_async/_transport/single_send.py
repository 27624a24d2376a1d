"""aiohttp's silent second sending of a GET, prevented."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import aiohttp

from veo3_async._transport.faults import _HungUpError

if TYPE_CHECKING:
    from aiohttp.connector import Connection


__all__ = []


class _OnlyResponse(aiohttp.ClientResponse):
    """What comes on a connection of our own; a hang-up ends it."""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        try:
            return await super().start(connection)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            raise _HungUpError from error


# The same for a session that is lent, with responses of its own; it costs a twentieth more.
async def _once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # no request was sent, and aiohttp sends none after it
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _HungUpError from error


_ONCE: Final = (_once,)
