"""Names become addresses, and only where a download may go: the connection is made to these.

A name that was looked up and checked beforehand could be another's a moment later (DNS rebinding),
so the check is made of the very addresses that the connector gets.
"""

from __future__ import annotations

import socket
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from veo3_async._download.destinations import ForbiddenError, admitted

__all__ = ["CheckedResolver"]


class CheckedResolver(AbstractResolver):
    """Looks names up for URLs of one scheme.

    :param scheme: ``https`` or ``http``.
    :param allow_private: Whether they may lead to an address that is not public.
    """

    def __init__(self, scheme: str, *, allow_private: bool) -> None:
        self._scheme: Final = scheme
        self._allow_private: Final = allow_private
        self._system: Final = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name that may be connected to.

        :raises ForbiddenError: It has some, and none of them.
        :raises OSError: It has none.
        """
        found = await self._system.resolve(host, port, family)
        usable = [one for one in found if self._admits(one["host"])]
        if found and not usable:
            kind = (
                "is not https" if self._allow_private else "leads to an address that is not public"
            )
            message = f"{host!r} {kind}"
            raise ForbiddenError(message)
        return usable

    async def close(self) -> None:
        """Release what it holds, which is nothing."""

    def _admits(self, address: str) -> bool:
        return admitted(address, self._scheme, allow_private=self._allow_private)
