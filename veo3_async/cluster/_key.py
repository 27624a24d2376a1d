"""One prefix, one API key: workers with different keys would take each other's ids for lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from veo3_async.cluster._errors import ClusterError
from veo3_async.cluster._names import Names
from veo3_async.cluster._nats.jetstream import Engine

if TYPE_CHECKING:
    from veo3_async._client import Veo3Client

__all__ = ["KeyMark"]

_ENTRY: Final = "key"


class KeyMark:
    """The mark of a client's key, which must be that of all others under a prefix.

    What lies in NATS is a hash under the key itself, from which nobody gets the key. It is written
    down when the service has accepted the key, so that a wrong one locks nobody out.
    """

    def __init__(self, engine: Engine, names: Names, client: Veo3Client) -> None:
        self._engine = engine
        self._names = names
        self._mark: Final = client.runtime.mark_of_key(f"veo3_async cluster {names.prefix}")
        self.is_written = False
        """Whether it is known to be there."""

    async def check(self) -> None:
        """See that no other key is used.

        :raises ClusterError: Another one is.
        :raises ServiceUnavailable: NATS does not answer.
        """
        await self._found()

    async def accepted(self) -> None:
        """Write the mark down, once: the service accepts this key.

        :raises ClusterError: Another key is used.
        :raises ServiceUnavailable: NATS does not answer.
        """
        while not self.is_written:
            seq = await self._found()
            if seq is not None:
                entry = self._names.entry(_ENTRY)
                await self._engine.publish(entry, self._mark.encode(), expect=seq)

    async def _found(self) -> int | None:
        """Return the sequence behind which the mark is to be written, None where it is there."""
        names = self._names
        found = await self._engine.last(names.shared, names.entry(_ENTRY), fresh=True)
        seq, known = (0, b"") if found is None else found
        self.is_written = known == self._mark.encode()
        if known and not self.is_written:  # one that was deleted is empty
            message = (
                f"another API key is used under the prefix {names.prefix}: give each key a prefix "
                "of its own. If the key of this account was replaced, stop all workers, and then "
                f"remove the old one: nats kv del {names.prefix} {_ENTRY}"
            )
            raise ClusterError(message)
        return None if self.is_written else seq
