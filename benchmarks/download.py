"""What a download costs beside bare aiohttp loops, and what memory a large one takes."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import aiohttp

from veo3_async._download.downloader import Downloader

from ._report import OURS, Table, publish

ROUNDS = 9
SIZE = 512
LARGE = 1024

SAID = (
    "The rivals write to the disk on the event loop, without a proof, a sync or a way to go on: "
    "`iter_chunked` (64 KiB) is the loop of aiohttp's documentation, `iter_any` the leanest there "
    "is. Each run is a process of its own, the ways take turns; the server is a process too, and "
    "sends a sparse file by `sendfile`. CPU is user and system time of the client; medians, and "
    "the ratio is the median of the rounds'."
)

Figures = dict[str, float]


# --- the processes --------------------------------------------------------------------------------


def serve(path: str) -> None:
    """Answer every request with this file; say the port on stdout."""
    size = pathlib.Path(path).stat().st_size
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode()
    with socket.create_server(("127.0.0.1", 0)) as listener, pathlib.Path(path).open("rb") as video:
        print(listener.getsockname()[1], flush=True)
        while True:
            line, _ = listener.accept()
            with line:
                line.recv(1 << 16)
                line.sendall(head)
                line.sendfile(video)


async def ours(url: str, path: str) -> None:
    downloader = Downloader(allow_private=True)
    await downloader.download(url, path)
    await downloader.aclose()


async def iter_chunked(url: str, path: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        with open(path, "wb") as video:  # noqa: PTH123 - as it is written everywhere
            async for chunk in response.content.iter_chunked(1 << 16):
                video.write(chunk)


async def iter_any(url: str, path: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        with open(path, "wb") as video:  # noqa: PTH123
            async for chunk in response.content.iter_any():
                video.write(chunk)


WAYS = {OURS: ours, "iter_chunked": iter_chunked, "iter_any": iter_any}


def life(way: str, url: str, path: str) -> None:
    """Download once and say what it took."""
    used, began = time.process_time(), time.perf_counter()
    asyncio.run(WAYS[way](url, path))
    figures = {
        "cpu": time.process_time() - used,
        "wall": time.perf_counter() - began,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(figures))


_COMMAND = (sys.executable, "-m", "benchmarks.download")


# --- the measurement ------------------------------------------------------------------------------


def measured(way: str, url: str, folder: pathlib.Path) -> Figures:
    path = folder / "video.mp4"
    try:
        run = subprocess.run(
            [*_COMMAND, way, url, str(path)], check=True, capture_output=True, text=True
        )
    finally:
        path.unlink(missing_ok=True)
        os.sync()  # what one run has left to write is not the next one's
    figures: Figures = json.loads(run.stdout)
    return figures


def compared(folder: pathlib.Path, mebibytes: int, rounds: int) -> list[dict[str, Figures]]:
    """Return what each way took in each round, after a warm-up."""
    source = folder / "source"
    with source.open("wb") as video:
        video.truncate(mebibytes << 20)
    command = [*_COMMAND, "serve", str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/video.mp4"
        measured(OURS, url, folder)
        runs = [{way: measured(way, url, folder) for way in WAYS} for _ in range(rounds)]
        server.kill()
    return runs


def _table(mebibytes: int, runs: list[dict[str, Figures]]) -> Table:
    against = [way for way in WAYS if way != OURS]
    columns = ["", "CPU, s", *(f"× {way}" for way in against), "wall, s", "peak memory, MiB"]
    table = Table(f"{mebibytes:,} MiB", columns)
    for way in WAYS:
        cpu, wall, memory = (
            statistics.median(run[way][figure] for run in runs)
            for figure in ("cpu", "wall", "memory")
        )
        ratios = [
            f"{statistics.median(run[way]['cpu'] / run[rival]['cpu'] for run in runs):.2f}"
            for rival in against
        ]
        table.add(way, cpu, *ratios, wall, memory)
    return table


def main(results: pathlib.Path, *, quick: bool = False) -> None:
    tables = []
    with tempfile.TemporaryDirectory(dir=pathlib.Path.cwd()) as folder:
        for mebibytes, rounds in ((4, 1),) if quick else ((SIZE, ROUNDS), (LARGE, 3)):
            runs = compared(pathlib.Path(folder), mebibytes, rounds)
            tables.append(_table(mebibytes, runs))
    publish(results, "download", SAID, *tables)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", path]:
            serve(path)
        case [way, url, path]:
            life(way, url, path)
