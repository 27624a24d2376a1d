"""Workers in processes of their own, to be killed: forked here, where their modules are loaded.

For each worker the words ``NATS_URL API_URL PREFIX [OPTION]...`` come as a list in JSON through the
socket that is stdin, with its stdout and its stderr; its process id goes back. A worker says
``ready`` when it is about to work, and ``stopped`` when SIGTERM has let it end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
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


def options_of(words: list[str]) -> argparse.Namespace:
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
    return parser.parse_args(words)


def be_worker(words: list[str], stdout: int, stderr: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), stdout, stderr)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    options = options_of(words)
    right = time.time
    setattr(time, "time", lambda: right() + options.clock_ahead)  # noqa: B010 - mypy forbids it
    asyncio.run(live(options))


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are nobody's
    orders = socket.socket(fileno=os.dup(0))
    while True:
        words, streams, _, _ = socket.recv_fds(orders, 65_536, 2)
        if not words:
            return
        if (worker := os.fork()) == 0:
            orders.close()
            be_worker(json.loads(words), *streams)
            return
        for stream in streams:
            os.close(stream)
        orders.send(str(worker).encode())


if __name__ == "__main__":
    main()
