"""Where a download may go: the rule for its URL and for every redirect.

1.  ``https`` only; ``http`` where the host is this machine (``localhost``, 127.0.0.0/8, ``::1``).
2.  No user name or password in it; a host of plain letters, digits, hyphens and dots.
3.  A redirect stays in the family of the first host: that host, what is under it, and its
    neighbours under the same parent domain (``file.302.ai`` may lead to any ``….302.ai``). A
    parent of one label (``ai``), or of the shape ``co.uk``, is nobody's family.
4.  A redirect never leads to an IP address or to this machine, unless it began on this machine;
    then it stays there.
5.  A redirect keeps to port 443 or the port of the first URL; on this machine, to any.
6.  At most 5 redirects, and none to a URL where it has been.

No key and no cookie is at stake, for the session has none: the rule keeps a foreign or
compromised host from pointing the downloader at machines behind the caller's own firewall.
"""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Sequence
from typing import Final

__all__ = ["ForbiddenError", "checked", "next_hop", "shown"]

MAX_HOPS: Final = 5

_HOST: Final = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*|\[[0-9a-f:.]+\]")
# Resolvers read "127.1", "0x7f000001" and "2130706433" as addresses (WHATWG URL, "ends in a
# number"): a last label like that is one, or nonsense.
_NUMERIC_END: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_SHARED_PARENT: Final = re.compile(r"(?:ac|co|com|edu|gov|net|org)\.[a-z]{2}")
_LEGAL: Final = "!#$%&'()*+,/:;=?@[]~"


class ForbiddenError(ValueError):
    """Raised when a URL breaks the rule; says how, without the URL's query."""


def shown(url: str) -> str:
    """Return a URL for a message or a log: a signed one is a secret, so no query, no user."""
    address = re.split(r"[?#]", url, maxsplit=1)[0]
    return re.sub(r"^([^/]*//)?[^/]*@", r"\1", address)


def checked(url: str) -> str:
    """Return a URL as it goes out: no fragment, and what is illegal in a URL percent-encoded.

    :raises ForbiddenError: It breaks rule 1 or 2.
    """
    parts = _split(url)
    _host_of(parts)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_here(parts)):
        message = f"{shown(url)!r} is not https"
        raise ForbiddenError(message)
    whole = parts._replace(fragment="").geturl()
    try:  # bytes of a header that are no UTF-8 go out as they came
        return urllib.parse.quote(whole, safe=_LEGAL, errors="surrogateescape")
    except UnicodeEncodeError:
        message = f"not a URL: {shown(url)!a} has characters that no encoding knows"
        raise ForbiddenError(message) from None


def next_hop(trail: Sequence[str], location: str) -> str:
    """Return the URL that a redirect leads to, as it goes out.

    :param trail: The URLs so far, checked, the first one first.
    :param location: What the redirect says, relative to the last of them.
    :raises ForbiddenError: It breaks the rule.
    """
    _split(location)  # urljoin would raise of it what is not ours
    target = checked(urllib.parse.urljoin(trail[-1], location.strip()))
    first, there = _split(trail[0]), _split(target)
    if not (_both_here(first, there) or _in_family(first, there)):
        message = (
            f"it redirects to {shown(target)!r}, outside the family of {_host_of(first)!r}; "
            "pass that URL yourself if you trust it"
        )
        raise ForbiddenError(message)
    if target in trail:
        message = "it redirects in a circle"
        raise ForbiddenError(message)
    if len(trail) > MAX_HOPS:
        message = f"it redirects more than {MAX_HOPS} times"
        raise ForbiddenError(message)
    return target


def _split(url: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(url)
        parts.port  # noqa: B018 - raises where it is none
    except ValueError as exc:
        message = f"not a URL: {exc}"
        raise ForbiddenError(message) from None
    return parts


def _host_of(parts: urllib.parse.SplitResult) -> str:
    host = parts.netloc.lower().removesuffix(f":{parts.port}").removesuffix(":")
    if "@" in host:
        message = "a URL with a user name or password in it is not followed"
        raise ForbiddenError(message)
    if not _HOST.fullmatch(host):
        message = f"not a host name: {host!r}"
        raise ForbiddenError(message)
    return host


def _is_here(parts: urllib.parse.SplitResult) -> bool:
    host = _host_of(parts).strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _both_here(first: urllib.parse.SplitResult, there: urllib.parse.SplitResult) -> bool:
    return _is_here(first) and _is_here(there)


def _in_family(first: urllib.parse.SplitResult, there: urllib.parse.SplitResult) -> bool:
    family, host = _family(_host_of(first)), _host_of(there)
    return (
        not _is_here(first)
        and not _NUMERIC_END.fullmatch(host)
        and not host.startswith("[")
        and (host == family or host.endswith(f".{family}"))
        and (there.port or 443) in {443, first.port or 443}
    )


def _family(host: str) -> str:
    parent = host.partition(".")[2]
    is_somebodys = "." in parent and not _SHARED_PARENT.fullmatch(parent)
    return parent if is_somebodys else host
