"""A worker in a process of its own, to be killed: ``cluster_life.py NATS_URL API_URL PREFIX``.

It says ``ready`` when it is about to work, and ``stopped`` when SIGTERM has let it end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time

from veo3_async import FixedPacing, Veo3Client
from veo3_async.cluster import Cluster


async def live(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    cluster = Cluster(
        options.nats,
        prefix=options.prefix,
        replicas=options.replicas,
        max_polls_per_second=options.rate,
        ack_wait=options.ack_wait,
    )
    client = Veo3Client(
        "test-key",
        base_url=options.api,
        pacing=FixedPacing(options.interval),
        max_polls_per_second=options.rate,
    )
    async with cluster, client:
        os.write(1, b"ready\n")
        await cluster.work(client, slots=options.slots, stop=stop)
    os.write(1, b"stopped\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("nats")
    parser.add_argument("api")
    parser.add_argument("prefix")
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--ack-wait", type=float, default=2.0)
    parser.add_argument("--interval", type=float, default=0.3)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--clock-ahead", type=float, default=0.0)
    parser.add_argument("--replicas", type=int, default=1)
    options = parser.parse_args()
    right = time.time
    setattr(time, "time", lambda: right() + options.clock_ahead)  # noqa: B010 - mypy forbids it
    asyncio.run(live(options))


if __name__ == "__main__":
    main()
