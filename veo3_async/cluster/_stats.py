"""What all workers of a cluster are doing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import msgspec

from veo3_async.cluster._clock import ServerClock
from veo3_async.cluster._life import LifeSign
from veo3_async.cluster._names import Names
from veo3_async.cluster._nats.jetstream import Engine
from veo3_async.cluster._permits import read_rate
from veo3_async.cluster._rate import rate_at
from veo3_async.cluster._worker import POLLERS

__all__ = ["ClusterStats", "read_stats", "server_time"]


class ClusterStats(msgspec.Struct, frozen=True, kw_only=True):
    """What all workers are doing, at one moment."""

    outstanding: int
    """Ids that are watched and that the service has not ended; lost ones are among them."""
    unpolled: int
    """Of these, how many no worker has taken yet."""
    pending: int
    """Of these, how many are in a worker's hand or wait for their next poll."""
    redelivered: int
    """Of these, how many were polled more than once."""
    workers: int
    """Workers alive; one that died counts for up to 15 s more."""
    rate: float | None
    """Polls a second that are allowed now to all together; None before the first worker."""
    paused: float
    """Seconds until polling goes on, as the service asked; 0 where it is not paused."""
    clock_offsets: Sequence[float]
    """Of each worker: seconds by which its machine's clock is ahead of the NATS server's."""
    in_hand: int
    """Ids that workers had in hand when they last showed that they live."""


async def read_stats(engine: Engine, names: Names) -> ClusterStats:
    """Return what all workers are doing.

    :raises ServiceUnavailable: NATS does not answer.
    """
    watched = await engine.stream(names.watch)
    rates = await engine.stream(names.rate)
    queue = await engine.consumer(names.watch, POLLERS)
    now = await server_time(engine, names)
    _, shared = await read_rate(engine, names, now)
    workers = await _life_signs(engine, names)
    outstanding = 0 if watched is None else watched.messages
    said = None if rates is None else rates.metadata.get("max_polls_per_second")
    return ClusterStats(
        outstanding=outstanding,
        unpolled=outstanding if queue is None else queue.unasked,
        pending=0 if queue is None else queue.pending,
        redelivered=0 if queue is None else queue.redelivered,
        workers=len(workers),
        rate=None if said is None else rate_at(shared, now, float(said)),
        paused=max(0.0, shared.paused_until - now),
        clock_offsets=[worker.clock_offset for worker in workers],
        in_hand=sum(worker.in_hand for worker in workers),
    )


async def server_time(engine: Engine, names: Names) -> float:
    """Return what the clock of the server says."""
    clock, subject = ServerClock(), names.entry("clock")
    sent = time.monotonic()
    await engine.publish(subject, b"")
    received = time.monotonic()
    at = await engine.stored_at(names.shared, subject)
    if at is not None:
        clock.heard(sent, received, at)
    return clock.now()


async def _life_signs(engine: Engine, names: Names) -> list[LifeSign]:
    signs = []
    for subject in await engine.subjects(names.workers):
        found = await engine.last(names.workers, subject)
        with contextlib.suppress(msgspec.MsgspecError):
            if found is not None:
                signs.append(msgspec.json.decode(found[1] or b"{}", type=LifeSign))
    return signs
