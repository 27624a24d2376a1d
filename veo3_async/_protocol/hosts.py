"""Which hosts are on the public internet, and which on a private network or this machine."""

from __future__ import annotations

import ipaddress
from typing import Final

__all__ = ["address_of", "is_private_host", "is_public_address"]

_PRIVATE_DOMAINS: Final = (".home.arpa", ".internal", ".local", ".localhost")
"""Names that never leave a site or a machine: RFC 8375, ICANN 2024, RFC 6762, RFC 6761."""

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""The last four bytes are the IPv4 address that a translator goes to (RFC 6052)."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def address_of(host: str) -> _Address | None:
    """Return the address that a host is, in brackets or not, or None where it is a name."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def is_public_address(host: str) -> bool:
    """Return whether this is an address of the public internet; a name is none.

    An IPv6 address with an IPv4 address in it (mapped, 6to4, Teredo, NAT64) leads to that one.
    """
    address = address_of(host)
    if address is None:
        return False
    inner = _inner(address) if isinstance(address, ipaddress.IPv6Address) else None
    return _is_public(address if inner is None else inner)


def is_private_host(host: str) -> bool:
    """Return whether a host is on this machine or a private network, as far as its name tells."""
    if address_of(host) is not None:
        return not is_public_address(host)
    name = host.rstrip(".").lower()
    is_label = name[:1].isalpha() and "." not in name  # a digit: an address in one number
    return is_label or name.endswith(_PRIVATE_DOMAINS)


def _is_public(address: _Address) -> bool:
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    teredo = address.teredo
    nat64 = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
    return address.ipv4_mapped or address.sixtofour or nat64 or (teredo and teredo[1])
