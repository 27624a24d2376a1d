"""Where a download may go: the rule for its URL, for every redirect and every resolved address.

1.  ``https`` to any public host: videos lie on CDNs, under names that nobody knows before.
2.  To an address that is not public (this machine, a private network, link-local, multicast), as a
    literal or by what a name resolves to, only where private addresses are allowed, because the
    API itself is on such a network; there ``http`` will do, which no public host may use.
3.  No user name or password in it; a host of plain letters, digits, hyphens and dots.
4.  At most 5 redirects, and none to a URL where it has been.

No key and no cookie is at stake, for the session has none: the rule keeps a foreign or
compromised host from pointing the downloader at machines behind the caller's own firewall.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Sequence
from typing import Final

from veo3_async._protocol.hosts import address_of, is_private_host, is_public_address

__all__ = ["ForbiddenError", "admitted", "checked", "host_of", "next_hop", "shown"]

_MAX_HOPS: Final = 5

_HOST: Final = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?|\[[0-9a-f:.]+\]")
# Resolvers read "127.1", "0x7f000001" and "2130706433" as addresses (WHATWG URL, "ends in a
# number"): a last label like that is an address in full, or nothing.
_NUMERIC_END: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
_LEGAL: Final = "!#$%&'()*+,/:;=?@[]~"


class ForbiddenError(ValueError):
    """Raised when a URL breaks the rule; says how, without the URL's query."""


def shown(url: str) -> str:
    """Return a URL for a message or a log: a signed one is a secret, so no query, no user."""
    address = re.split(r"[?#]", url, maxsplit=1)[0]
    return re.sub(r"^([^/]*//)?[^/]*@", r"\1", address)


def checked(url: str, *, allow_private: bool) -> str:
    """Return a URL as it goes out: no fragment, and what is illegal in a URL percent-encoded.

    :param allow_private: Whether it may lead to an address that is not public.
    :raises ForbiddenError: It breaks rule 1, 2 or 3, as far as the URL alone says.
    """
    parts = _split(url)
    host = host_of(url)
    if not allow_private and is_private_host(host) and parts.scheme in {"http", "https"}:
        message = f"{shown(url)!r} leads to an address that is not public"
        raise ForbiddenError(message)
    is_clear = parts.scheme == "http" and allow_private and not is_public_address(host)
    if parts.scheme != "https" and not is_clear:
        message = f"{shown(url)!r} is not https"
        raise ForbiddenError(message)
    whole = parts._replace(fragment="").geturl()
    try:  # bytes of a header that are no UTF-8 go out as they came
        return urllib.parse.quote(whole, safe=_LEGAL, errors="surrogateescape")
    except UnicodeEncodeError:
        message = f"not a URL: {shown(url)!a} has characters that no encoding knows"
        raise ForbiddenError(message) from None


def admitted(address: str, scheme: str, *, allow_private: bool) -> bool:
    """Return whether a URL of this scheme may lead to what its name was resolved to."""
    if is_public_address(address):
        return scheme == "https"
    return allow_private


def next_hop(trail: Sequence[str], location: str, *, allow_private: bool) -> str:
    """Return the URL that a redirect leads to, as it goes out.

    :param trail: The URLs so far, checked, the first one first.
    :param location: What the redirect says, relative to the last of them.
    :raises ForbiddenError: It breaks the rule.
    """
    _split(location)  # urljoin would raise of it what is not ours
    target = urllib.parse.urljoin(trail[-1], location.strip())
    try:
        target = checked(target, allow_private=allow_private)
    except ForbiddenError as exc:
        message = f"it redirects, and {exc}"
        raise ForbiddenError(message) from None
    if target in trail:
        message = "it redirects in a circle"
        raise ForbiddenError(message)
    if len(trail) > _MAX_HOPS:
        message = f"it redirects more than {_MAX_HOPS} times"
        raise ForbiddenError(message)
    return target


def host_of(url: str) -> str:
    """Return the host of a URL, in lower case; an IPv6 address in brackets.

    :raises ForbiddenError: There is none, or more than a host in its place.
    """
    parts = _split(url)
    host = parts.netloc.lower().removesuffix(f":{parts.port}").removesuffix(":")
    if "@" in host:
        message = "a URL with a user name or password in it is not followed"
        raise ForbiddenError(message)
    is_odd = _NUMERIC_END.fullmatch(host) and address_of(host) is None
    if is_odd or not _HOST.fullmatch(host) or (host.startswith("[") and address_of(host) is None):
        message = f"not a host name: {host!r}"
        raise ForbiddenError(message)
    return host


def _split(url: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(url)
        parts.port  # noqa: B018 - raises where it is none
    except ValueError as exc:
        message = f"not a URL: {exc}"
        raise ForbiddenError(message) from None
    return parts
