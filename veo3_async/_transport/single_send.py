"""aiohttp's silent second sending of a GET, prevented."""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NoReturn
import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL
from veo3_async._arguments import ApiKey
from veo3_async._cancellation import ended
from veo3_async._protocol.replies import MAX_BODY_BYTES, Call, Kind, Problem, Reply, inflated
from veo3_async._transport.deadlines import Deadlines, Limited, is_cancelled

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.connector import Connection


__all__: list[str] = []

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

