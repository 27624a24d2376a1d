"""What a download costs beside a bare aiohttp loop, and what memory a large one takes.

``python benchmarks/download.py`` prints a row for each figure and writes them to
``benchmarks/results/download.json``. The rivals write to the disk on the event loop, without a
proof, a sync or a way to go on: ``iter_chunked`` (64 KiB) is the loop of aiohttp's documentation,
``iter_any`` the leanest there is. Each run is a process of its own, the ways take turns; the server
is a process too, and sends a sparse file by ``sendfile``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import pathlib
import platform
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import aiohttp

from veo3_async._download import Downloader

ROUNDS = 7
SIZE = 512 << 20
LARGE = 1 << 30

Figures = dict[str, float]


# --- the processes --------------------------------------------------------------------------------


def serve(path: str) -> None:
    """Answer every request with this file; say the port on stdout."""
    size = pathlib.Path(path).stat().st_size
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode()
    with socket.create_server(("127.0.0.1", 0)) as listener, pathlib.Path(path).open("rb") as film:
        print(listener.getsockname()[1], flush=True)
        while True:
            line, _ = listener.accept()
            with line:
                line.recv(1 << 16)
                line.sendall(head)
                line.sendfile(film)


async def ours(url: str, path: str) -> None:
    downloader = Downloader()
    await downloader.download(url, path)
    await downloader.aclose()


async def iter_chunked(url: str, path: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        with open(path, "wb") as film:  # noqa: PTH123 - as it is written everywhere
            async for chunk in response.content.iter_chunked(1 << 16):
                film.write(chunk)


async def iter_any(url: str, path: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        with open(path, "wb") as film:  # noqa: PTH123
            async for chunk in response.content.iter_any():
                film.write(chunk)


WAYS = {"ours": ours, "iter_chunked": iter_chunked, "iter_any": iter_any}


def life(way: str, url: str, path: str) -> None:
    """Download once and say what it took."""
    used, began = time.process_time(), time.perf_counter()
    asyncio.run(WAYS[way](url, path))
    figures = {
        "CPU, s": time.process_time() - used,
        "wall, s": time.perf_counter() - began,
        "peak memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(figures))


# --- the measurement ------------------------------------------------------------------------------


def measured(way: str, url: str, folder: pathlib.Path) -> Figures:
    path = folder / "film.mp4"
    command = [sys.executable, __file__, way, url, str(path)]
    try:
        run = subprocess.run(command, check=True, capture_output=True, text=True)
    finally:
        path.unlink(missing_ok=True)
        os.sync()  # what one run has left to write is not the next one's
    figures: Figures = json.loads(run.stdout)
    return figures


def compared(folder: pathlib.Path, size: int, rounds: int) -> list[dict[str, Figures]]:
    """Return what each way took in each round, after a warm-up."""
    source = folder / "source"
    with source.open("wb") as film:
        film.truncate(size)
    command = [sys.executable, __file__, "serve", str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/film.mp4"
        measured("ours", url, folder)
        runs = [{way: measured(way, url, folder) for way in WAYS} for _ in range(rounds)]
        server.kill()
    return runs


def main(results: pathlib.Path) -> None:
    """Measure, print, and write ``download.json`` into the directory ``results``."""
    environment = f"{platform.python_implementation()} {platform.python_version()}"
    environment += f", aiohttp {aiohttp.__version__}, {platform.system()} {platform.machine()}"
    print(environment)
    rows = []
    with tempfile.TemporaryDirectory(dir=pathlib.Path.cwd()) as folder:
        for size, rounds in ((SIZE, ROUNDS), (LARGE, 1)):
            runs = compared(pathlib.Path(folder), size, rounds)
            for figure, way in itertools.product(runs[0]["ours"], WAYS):
                values = [run[way][figure] for run in runs]
                name = f"{size >> 20} MiB by {way}, {figure}"
                row = {"name": name, "median": statistics.median(values), "worst": max(values)}
                rows.append(row)
                print(f"{name:42} median {row['median']:9.3f}   worst {row['worst']:9.3f}")
    results.mkdir(parents=True, exist_ok=True)
    report = {"environment": environment, "rounds": ROUNDS, "rows": rows}
    (results / "download.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", path]:
            serve(path)
        case [way, url, path]:
            life(way, url, path)
        case _:
            main(pathlib.Path(__file__).with_name("results"))
