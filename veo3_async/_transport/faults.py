"""What an exception of aiohttp means."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Final

import aiohttp

from veo3_async._protocol.errors import Kind, Problem
from veo3_async._text import one_line

__all__ = ["network_problem"]

_EXCERPT_CHARS: Final = 160

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
                message=f"the certificate{_of(error)} is not valid: {_why_invalid(error)}; check "
                "the clock, base_url and what sits between",
            )
        case aiohttp.ClientConnectorDNSError() | socket.gaierror():
            return Problem(
                kind=Kind.DNS, message=f"the host name{_of(error)} was not resolved{_why(error)}"
            )
        case OSError(errno=code) if code in _EXHAUSTED:
            return Problem(
                kind=Kind.LOCAL,
                message=f"this machine cannot open a connection: {errno.errorcode[code]}",
            )
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return Problem(
                kind=Kind.CONNECT, message=f"no connection{_to(error)} was made{_why(error)}"
            )
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
            said = one_line(error.message)[:_EXCERPT_CHARS]
            message = "the reply is not HTTP that can be read"
            return Problem(kind=Kind.UNEXPECTED, message=f"{message}: {said}" if said else message)
        case HungUpError() | UncleanConnectionError() | aiohttp.ClientError() | OSError():
            return Problem(kind=Kind.RESET, message="the connection ended before the reply did")
    return Problem(
        kind=Kind.UNEXPECTED, message=f"the request broke off with {type(error).__name__}"
    )


def _to(error: Exception) -> str:
    """Return which host and port an error of connecting is about, where it says so."""
    host, port = getattr(error, "host", None), getattr(error, "port", None)
    return f" to {host}:{port}" if host and port else " to the API"


def _of(error: Exception) -> str:
    host = getattr(error, "host", None)
    return f" of {host}" if host else ""


def _why(error: Exception) -> str:
    """Return what the operating system says, where it says something."""
    cause = getattr(error, "os_error", error)
    said = getattr(cause, "strerror", None)
    return f": {one_line(said)}" if isinstance(said, str) and said else ""


def _why_invalid(error: Exception) -> str:
    cause = getattr(error, "certificate_error", error)
    said = getattr(cause, "verify_message", None) or str(cause)
    return one_line(said)[:_EXCERPT_CHARS]
