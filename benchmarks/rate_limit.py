"""A server that allows 20 requests a second, and 200 who wait for a video; limiters of many kinds.

The first table has sockets and rivals. The second is in virtual time (`_limiter_lab`), so that
servers that count over minutes take seconds; the loop beside is the same by hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import pathlib
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import aiohttp

from veo3_async import FixedPacing, Pacing, Veo3Client

from ._limiter_lab import Ended, naive
from ._limiter_lab import ours as ours_beside
from ._limiters import KINDS, refused_always
from ._loopback import Seen, Service, seen, serving
from ._report import COLOURS, OURS, Table, installed, picture, publish
from ._rivals import KEY, asked_by_hand, fal_client_of, request_ids
from .memory import in_a_process

JOBS = 200
LIMIT = 20
ENDS_AFTER = 60.0
PATIENCE = 180.0

SAID = (
    f"{JOBS} jobs, all ready {ENDS_AFTER:g} s after the server began, which serves {LIMIT} "
    "requests in each second and answers the others with 429 and `Retry-After: 1`. Each client "
    "waits as its users do, with its own helper and its own defaults: `watch()` here (20 a second "
    "unless told otherwise; *200/s allowed* has to find the limit), `handle.get()` of fal-client, "
    "`prediction.async_wait()` of Replicate, `videos.poll()` of OpenAI. *by hand* is an aiohttp "
    "loop in a task for each job that takes any answer but 200 for an error, at 5 s. A wait is "
    f"*lost* if it raises, or has nothing after {PATIENCE:g} s. *last result* is seconds since "
    f"the jobs were ready: at {LIMIT} a second it takes {JOBS / LIMIT:g} to tell all."
)

SAID_OF_KINDS = (
    "*Limiters of many kinds*: virtual time; 200 ids, each asked for every 5 s, which end 20 to 40 "
    "s after the first request. This client may send 20 requests a second; the loop by hand asks "
    "for each id in a task of its own, takes what is not the end for not yet, and sleeps for 5 s. "
    "*all* is when the last end was seen, in seconds since the first request (– where one was not "
    "within 10 minutes), *median* how long after the end; *refused* is of all requests until then, "
    "*later* of those after the first 20 s. An id that is told `Retry-After` obeys, the loop does "
    "not; ids that are refused always are left out."
)

Waits = Callable[[str, Sequence[str]], Coroutine[Any, Any, list[float]]]


async def _ours(
    url: str, ids: Sequence[str], limit: float = 20.0, pacing: Pacing | None = None
) -> list[float]:
    async with Veo3Client(KEY, base_url=url, max_polls_per_second=limit, pacing=pacing) as veo:
        return [
            time.monotonic()
            async for change in veo.watch(*ids, timeout=PATIENCE)
            if change.final and change.error is None
        ]


async def _each(wait: Callable[[str], Awaitable[object]], ids: Sequence[str]) -> list[float]:
    """Wait for each in a task of its own; return when each was there, leaving out the lost."""

    async def ended(request_id: str) -> float:
        async with asyncio.timeout(PATIENCE):
            await wait(request_id)
        return time.monotonic()

    outcomes = await asyncio.gather(*map(ended, ids), return_exceptions=True)
    return [moment for moment in outcomes if isinstance(moment, float)]


async def _by_hand(url: str, ids: Sequence[str]) -> list[float]:
    async with aiohttp.ClientSession(raise_for_status=True) as session:

        async def wait(request_id: str) -> None:
            while True:
                if (await asked_by_hand(session, url, request_id)).get("video_url"):
                    return
                await asyncio.sleep(5)

        return await _each(wait, ids)


async def _fal(url: str, ids: Sequence[str]) -> list[float]:
    client, handle = await fal_client_of(url)
    async with client:
        return await _each(lambda request_id: handle(request_id).get(), ids)


async def _replicate(url: str, ids: Sequence[str]) -> list[float]:
    import replicate.client  # noqa: PLC0415 - not always installed
    from replicate.prediction import Prediction  # noqa: PLC0415

    client = replicate.client.Client(api_token=KEY, base_url=url)

    async def wait(request_id: str) -> None:
        # What create() returns; there is no way to wait that begins with an id alone.
        prediction = Prediction(
            id=request_id, model="google/veo-3", version="1", status="starting", input={},
            output=None, logs="", error=None, metrics={}, created_at=None, started_at=None,
            completed_at=None, urls={},
        )  # fmt: skip
        prediction._client = client  # noqa: SLF001 - as create() does
        await prediction.async_wait()

    return await _each(wait, [request_id.replace(":", "-") for request_id in ids])


async def _openai(url: str, ids: Sequence[str]) -> list[float]:
    import openai  # noqa: PLC0415 - not always installed

    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1") as client:
        plain = [request_id.replace(":", "-") for request_id in ids]
        return await _each(client.videos.poll, plain)


COLUMNS = ("all, s", "median, s", "refused", "later")
QUICK = f"{OURS}, every 0.2 s"
WAYS: dict[str, Waits] = {
    QUICK: functools.partial(_ours, pacing=FixedPacing(0.2)),
    OURS: _ours,
    f"{OURS}, 200/s allowed": functools.partial(_ours, limit=200.0),
    "by hand": _by_hand,
}
for package, waits in (("fal_client", _fal), ("replicate", _replicate), ("openai", _openai)):
    if installed(package):
        WAYS[package.replace("_", "-")] = waits


def waited(name: str, url: str, jobs: int) -> list[float]:
    """Return the moments at which results were there."""
    return asyncio.run(WAYS[name](url, request_ids(jobs)))


def main(results: pathlib.Path, *, quick: bool = False) -> None:
    jobs, ends_after = (10, 0.5) if quick else (JOBS, ENDS_AFTER)
    names = [QUICK] if quick else [name for name in WAYS if name != QUICK]
    table = Table(
        f"{jobs} jobs, {LIMIT} requests a second",
        ["", "finished", "lost", "requests", "429s", "429s, share", "median, s", "last result, s"],
    )
    ends: dict[str, list[float]] = {}
    for name in names:
        sys.stderr.write(f"rate limit, {name} …\n")
        began = time.monotonic()
        with serving(Service(limit=LIMIT, ends_after=ends_after)) as url:
            began = time.monotonic()
            moments = in_a_process(waited, name, url, jobs)
            saw = seen(url)
        ends[name] = sorted(moment - began - ends_after for moment in moments)
        table.add(name, *_row(jobs, ends[name], saw))
    kinds = Table(
        "200 ids beside limiters of many kinds",
        ["", "all, s", "median, s", "refused", "later", *(f"by hand: {c}" for c in COLUMNS)],
    )
    for kind in [*KINDS][:2] if quick else KINDS:
        sys.stderr.write(f"rate limit, {kind} …\n")
        by_hand = naive(KINDS[kind]())
        kinds.add(kind, *_beside(kind, ours_beside(KINDS[kind]())), *_beside(kind, by_hand))
    absent = [p for p in ("fal_client", "replicate", "openai") if not installed(p)]
    said = SAID + (f" Not installed, left out: {', '.join(absent)}." if absent else "")
    publish(results, "rate_limit", f"{said}\n\n{SAID_OF_KINDS}", table, kinds)
    with picture(results, "rate_limit") as axes:
        if axes is not None:
            _draw(axes, ends, jobs)


def _beside(kind: str, ended: Ended) -> Sequence[object]:
    ids = [one for one in ended.ids if not (kind.startswith("2 of 200") and refused_always(one))]
    last, lag = ended.all_seen(ids), ended.lag(ids)
    shares = (f"{ended.refused(after, until=last):.1%}" for after in (0, 20))
    return (*(f"{s:.1f}" if s < math.inf else None for s in (last, lag)), *shares)


def _row(jobs: int, ends: Sequence[float], saw: Seen) -> Sequence[object]:
    middle = last = None
    with contextlib.suppress(statistics.StatisticsError, IndexError):
        middle, last = f"{statistics.median(ends):.1f}", f"{ends[-1]:.1f}"
    share = f"{saw.refused / max(1, saw.requests):.1%}"
    return len(ends), jobs - len(ends), saw.requests, saw.refused, share, middle, last


def _draw(axes: Any, ends: dict[str, list[float]], jobs: int) -> None:
    for (name, moments), colour in zip(ends.items(), COLOURS, strict=False):
        axes.step([0, *moments], [0, *range(1, len(moments) + 1)], color=colour, label=name)
    axes.axhline(jobs, color="#dddddd", zorder=0)
    axes.set_xlabel("seconds since the jobs were ready")
    axes.set_ylabel(f"results there, of {jobs}")
    axes.set_xlim(left=0)
    axes.legend(frameon=False, fontsize=7)
