"""One attempt to connect to NATS: a client that is connected, or the error that says why not."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import anyio
from nats.aio.client import Client

from veo3_async._errors import ServiceUnavailable
from veo3_async.cluster._errors import ClusterError
from veo3_async.cluster._nats.errors import ERRORS

__all__ = ["dial"]

_CONNECT_SECONDS: Final = 10.0

_DEFAULTS: Final = {
    # A server that is silent without closing anything is found out in half a minute.
    "ping_interval": 10,
    "max_outstanding_pings": 2,
}


async def dial(
    servers: Sequence[str],
    options: Mapping[str, Any],
    place: str,
    *,
    erred: Callable[[Exception], Awaitable[None]],
    lost: Callable[[], Awaitable[None]],
) -> Client:
    """Return a client that is connected to one of these servers. It does not reconnect.

    :param servers: URLs, tried in a random order.
    :param options: Further arguments of ``nats.connect``.
    :param place: Their hosts and ports, without credentials.
    :param erred: Called with what the server says against something, once it is connected.
    :param lost: Called when the connection is lost or closed.
    :raises ServiceUnavailable: None of them can be reached.
    :raises ClusterError: One refuses the credentials, and none takes them.
    """
    failures: list[Exception] = []
    for server in random.sample(servers, len(servers)):
        client = await _dialled(server, options, failures, erred=erred, lost=lost)
        if client is not None:
            return client
    if any("authorization" in str(failure).lower() for failure in failures):
        message = f"NATS at {place} refuses the credentials"
        raise ClusterError(message)
    said = f" ({str(failures[-1]) or type(failures[-1]).__name__})" if failures else ""
    message = f"no NATS server can be reached at {place}{said}; is one running there?"
    raise ServiceUnavailable(message)


async def _dialled(
    server: str,
    options: Mapping[str, Any],
    failures: list[Exception],
    *,
    erred: Callable[[Exception], Awaitable[None]],
    lost: Callable[[], Awaitable[None]],
) -> Client | None:
    """Return a client that is connected, or None, with the reasons in ``failures``."""
    client = Client()
    with anyio.move_on_after(_CONNECT_SECONDS) as scope:

        async def on_error(error: Exception) -> None:
            if client.is_connected:
                await erred(error)
                return
            failures.append(error)
            # Where nobody listens nats-py would try for ever.
            asyncio.get_running_loop().call_soon(scope.cancel)

        try:
            await client.connect(
                **{
                    **_DEFAULTS,
                    **options,
                    "servers": [server],
                    "allow_reconnect": False,
                    "max_reconnect_attempts": -1,
                    "error_cb": on_error,
                    "disconnected_cb": lost,
                    "closed_cb": lost,
                }
            )
        except ERRORS as error:
            failures.append(error)
        except asyncio.CancelledError:
            await _closed(client)
            raise
    if client.is_connected:
        return client
    await _closed(client)
    return None


async def _closed(client: Client) -> None:
    with anyio.CancelScope(shield=True), contextlib.suppress(Exception):
        await client.close()
