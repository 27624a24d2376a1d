"""One prefix, one API key: workers with different keys would take each other's ids for lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from veo3_async.cluster._errors import ClusterError
from veo3_async.cluster._names import Names
from veo3_async.cluster._nats.jetstream import Engine

if TYPE_CHECKING:
    from veo3_async._client import Veo3Client

__all__ = ["check_key"]

_KEY = "key"


async def check_key(engine: Engine, names: Names, client: Veo3Client) -> None:
    """See that a client has the key of all others of this prefix; the first one decides.

    What lies in NATS is a hash under the key itself, from which nobody gets the key.

    :raises ClusterError: It has another key.
    :raises ServiceUnavailable: NATS does not answer.
    """
    mark = client.runtime.mark_of_key(f"veo3_async cluster {names.prefix}").encode()
    while True:
        found = await engine.last(names.shared, names.entry(_KEY), fresh=True)
        seq, known = (0, b"") if found is None else found
        if known == mark:
            return
        if known:  # a deleted entry is an empty one
            message = (
                f"another API key is used under the prefix {names.prefix}: give each key a prefix "
                "of its own. If the key of this account was replaced, stop all workers, and then "
                f"remove the old one: nats kv del {names.prefix} {_KEY}"
            )
            raise ClusterError(message)
        await engine.publish(names.entry(_KEY), mark, expect=seq)
