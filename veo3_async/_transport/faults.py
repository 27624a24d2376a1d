"""What an exception of aiohttp means."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Final

import aiohttp

from veo3_async._protocol.errors import Kind, Problem

__all__ = ["network_problem"]

_EXHAUSTED: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)


class HungUpError(Exception):
    """Raised in place of what aiohttp would answer with a second request."""


class UncleanConnectionError(Exception):
    """Raised where a connection has bytes on it before the request: nothing was sent."""


def network_problem(error: Exception) -> Problem:
    """Say what an exception of aiohttp means. The order matters: they are kin."""
    match error:
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            return Problem(
                kind=Kind.CERTIFICATE,
                message="the server's certificate is not valid for the API's host; check the "
                "clock, base_url and what sits between",
            )
        case aiohttp.ClientConnectorDNSError() | socket.gaierror():
            return Problem(kind=Kind.DNS, message="the host name of the API was not resolved")
        case OSError(errno=code) if code in _EXHAUSTED:
            return Problem(
                kind=Kind.LOCAL,
                message=f"this machine cannot open a connection: {errno.errorcode[code]}",
            )
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return Problem(kind=Kind.CONNECT, message="no connection to the API was made")
        case aiohttp.ClientHttpProxyError():
            return Problem(
                kind=Kind.CONNECT,
                message="the proxy refused the connection",
                http_status=error.status,
            )
        case TimeoutError():
            return Problem(kind=Kind.TIMEOUT, message="the service took too long to answer")
        case aiohttp.InvalidURL():
            return Problem(kind=Kind.INVALID, message="base_url is not a URL that can be used")
        case aiohttp.ClientResponseError():
            return Problem(kind=Kind.UNEXPECTED, message="the reply is not HTTP that can be read")
        case HungUpError() | UncleanConnectionError() | aiohttp.ClientError() | OSError():
            return Problem(kind=Kind.RESET, message="the connection ended before the reply did")
    return Problem(
        kind=Kind.UNEXPECTED, message=f"the request broke off with {type(error).__name__}"
    )
