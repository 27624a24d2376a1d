"""Whether NATS can keep an id, and what is seen of it: asked before one is paid for."""

from __future__ import annotations

from typing import Final

from veo3_async.cluster._names import Names
from veo3_async.cluster._nats.jetstream import Engine
from veo3_async.cluster._record import Record, encode

__all__ = ["check_room"]

_NO_ID: Final = "-"
_NOTHING: Final = encode(Record(request_id=_NO_ID, watch=0))
"""A record that brings no transition, so that no listener delivers it."""


async def check_room(engine: Engine, names: Names) -> None:
    """See that NATS takes ids from this user, and stores records.

    A server whose disk was full answers questions, and stores nothing until it is restarted.

    :raises ServiceUnavailable: It does not.
    :raises ClusterError: There is no permission.
    """
    await engine.check_publish(names.watch, names.watch_of(_NO_ID))
    await engine.publish(names.change_of(_NO_ID), _NOTHING)
