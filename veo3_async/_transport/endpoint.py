"""Where the API is and with which key: checked before anything is sent."""

from __future__ import annotations

import os
import re
import urllib.parse
import urllib.request
from typing import Final, NoReturn

from veo3_async._errors import AuthenticationError
from veo3_async._protocol.hosts import is_private_host

__all__ = [
    "DEFAULT_BASE_URL",
    "ApiKey",
    "check_proxy",
    "environment_proxy",
    "find_base_url",
    "is_private",
]

DEFAULT_BASE_URL: Final = "https://api.302.ai"

_KEY_VARIABLES: Final = ("AI302_API_KEY", "AI302_KEY")

_BASE_URL_VARIABLE: Final = "AI302_BASE_URL"

_NOT_A_PREFIX: Final = frozenset("@?#")

_VISIBLE_ASCII: Final = re.compile(r"[\x21-\x7e]+")


class ApiKey:
    """A key that shows itself to nobody: not to ``repr``, ``str``, ``pickle`` or a traceback."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    @classmethod
    def find(cls, given: str | None) -> ApiKey:
        """Return the key that was given, else that of ``AI302_API_KEY``, else of ``AI302_KEY``.

        :raises AuthenticationError: There is none, or it cannot be one.
        """
        source = "the API key"
        if given is None:
            name = next((name for name in _KEY_VARIABLES if name in os.environ), None)
            if name is None:
                message = "no API key: set AI302_API_KEY, or pass api_key= or --key-file"
                raise AuthenticationError(message)
            source, given = name, os.environ[name]
        fault = _fault(given)
        if fault is None:
            return cls(given)
        del given  # this frame is in the traceback
        message = f"{source} {fault}; check where it comes from"
        raise AuthenticationError(message)

    def reveal(self) -> str:
        """Return the key, for the header it goes into."""
        return self._value

    def __repr__(self) -> str:
        return "<ApiKey>"

    def __reduce__(self) -> NoReturn:
        message = "an API key is not pickled"
        raise TypeError(message)


def _fault(key: object) -> str | None:
    if not isinstance(key, str):
        return f"is a str, not {type(key).__name__}"
    if not key:
        return "is empty"
    if not _VISIBLE_ASCII.fullmatch(key):
        return "has white space, control or non-ASCII characters in it"
    return None


def find_base_url(given: str | None) -> str:
    """Return scheme, host and prefix of the API, without a slash at the end.

    :param given: None takes ``AI302_BASE_URL``, else the public service.
    :raises ValueError: It is no http(s) URL, has a user, a query or a fragment in it, or is
        ``http`` to a public host: the key would go there in clear text. What is on this machine
        or a private network, such as a gateway of one's own, may be ``http``.
    """
    url = os.environ.get(_BASE_URL_VARIABLE, DEFAULT_BASE_URL) if given is None else given
    if isinstance(url, str) and not _NOT_A_PREFIX.isdisjoint(url):
        message = "base_url has no user, query or fragment in it"  # and a user may have a password
        raise ValueError(message)
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except (ValueError, TypeError, AttributeError):
        usable = False
    if not usable or not _VISIBLE_ASCII.fullmatch(url):
        message = f"base_url is a URL such as {DEFAULT_BASE_URL!r}, not {url!r}"
        raise ValueError(message)
    if parts.scheme == "http" and not is_private(url):
        message = f"base_url sends the key in clear text to a public host; use https, not {url!r}"
        raise ValueError(message)
    return url.rstrip("/")


def is_private(base_url: str) -> bool:
    """Return whether the API is on this machine or a private network, as far as its name says."""
    return is_private_host(urllib.parse.urlsplit(base_url).hostname or "")


def check_proxy(given: str | None) -> str | None:
    """Return the URL of a proxy as it came.

    :raises ValueError: It is no http(s) URL with a host. As it may hold a password, the message
        does not repeat it.
    """
    if given is None:
        return None
    try:
        parts = urllib.parse.urlsplit(given)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except (ValueError, TypeError, AttributeError):
        usable = False
    if not usable:
        message = "proxy is the URL of an HTTP proxy, such as 'http://proxy.example:3128'"
        raise ValueError(message)
    return given


def environment_proxy(url: str) -> str | None:
    """Return the URL of the HTTP proxy that the environment names for a URL, or None.

    Not by aiohttp's ``trust_env``: that reads ``.netrc``, too, whose password would go in place of
    the key.
    """
    host = urllib.parse.urlsplit(url).hostname or ""
    if urllib.request.proxy_bypass_environment(host):  # type: ignore[attr-defined]
        return None
    proxies = urllib.request.getproxies_environment()
    proxy = proxies.get(url.partition(":")[0].lower()) or proxies.get("all")
    if proxy is None:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    return proxy if proxy.startswith(("http://", "https://")) else None
