"""What an id costs in memory, and what many of them cost in time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import multiprocessing
import pathlib
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from veo3_async import FixedPacing, Journal, LearnedPacing, Pacing, Progress, Veo3Client
from veo3_async._lifecycle.contact import Contact
from veo3_async._polling.dispatcher import Dispatcher
from veo3_async._polling.job import Job
from veo3_async._polling.mailbox import Mailbox
from veo3_async._polling.origins import Origins
from veo3_async._polling.poller import Poller
from veo3_async._polling.subscriptions import Subscriptions
from veo3_async._polling.watch import Watch
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.families import route_of
from veo3_async._protocol.http import Call, Reply
from veo3_async._transport.endpoint import ApiKey
from veo3_async._transport.transport import Transport

from ._loopback import Service, serving, still_running
from ._report import COLOURS, Table, picture, publish
from ._rivals import KEY, request_ids
from ._ticker import Ticker

COUNTS = (1_000, 10_000, 100_000, 1_000_000)
ROUNDS_SEEN = 2  # polls of each id before its memory is measured: all is there by then
COSTED_POLLS = 8_000
ROUNDS = 5
MANY = 100_000
ADDED = 50_000
COMMITTED = 1_000.0
"""Replies in a second where each is written down: as many as a disk takes."""

SAID = (
    "*bytes per id*: growth of the process's resident memory, the id's own string not counted, "
    "after every id was polled twice, with a reply of its own (state, schedule, mailbox, all of "
    "it); more than 10,000 rest between their polls. Replies come from the process itself. *task "
    "per id* is a task for each id that polls and sleeps, and remembers only the last status. *µs "
    "for one poll* goes through real sockets to another process, 8 in flight; the ratio is to the "
    "smallest number of ids in the same round. *everything on* is with a journal and a pacing that "
    "learns, and *unpolled* before the first reply; each figure comes from a process of its own. "
    "*loop late* is the longest delay of a 1 ms ticker in the same loop while ids are added to a "
    "watch that runs, and *own* as much of it as the process was busy in, which other processes of "
    "the machine do not lengthen."
)

_T = TypeVar("_T")


def resident() -> int:
    """Return the bytes of memory that this process has now."""
    statm = pathlib.Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # its peak, in the system's unit


def _process() -> concurrent.futures.ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(1, mp_context=context)


def in_a_process(work: Callable[..., _T], *args: object) -> _T:
    """Run a function in a fresh interpreter."""
    with _process() as pool:
        return pool.submit(work, *args).result()


class Patience:
    """A pacing that asks again in so many seconds."""

    def __init__(self, interval: float) -> None:
        self._interval = interval

    def delay(self, progress: Progress, rand: float) -> float:  # noqa: ARG002 - as it is told
        return self._interval

    def phase_ended(self, last: Progress, lasted: float, successor: object) -> None:
        pass

    def eta(self, progress: Progress) -> None:
        pass


class Rest(Patience):
    """One that asks again soon, then lets each id rest as long as one of a crowd does."""

    def __init__(self) -> None:
        super().__init__(2.0)

    def delay(self, progress: Progress, rand: float) -> float:
        if progress.polls < ROUNDS_SEEN:
            return super().delay(progress, rand)
        return 190 + 20 * rand  # as 100,000 do where 500 are polled in a second


class LearnedRest(LearnedPacing):
    """The same, with all that is learned."""

    def __init__(self) -> None:
        super().__init__()
        self._rest = Rest()

    def delay(self, progress: Progress, rand: float) -> float:
        super().delay(progress, rand)
        return self._rest.delay(progress, rand)


class Inside:
    """A transport that answers at once what the server says, which is another thing to each id."""

    def __init__(self) -> None:
        self.other: Any = None
        """Where calls go to instead, once it is set."""
        self.answered = 0
        self.is_silent = False

    async def send(self, call: Call) -> Reply | Problem:
        if self.is_silent:
            await asyncio.sleep(1e6)
        self.answered += 1
        if self.other is not None:
            answer: Reply | Problem = await self.other.send(call)
            return answer
        await asyncio.sleep(0)
        return Reply(200, {}, still_running(call.target.partition("=")[2]))


@contextlib.asynccontextmanager
async def watching(
    ids: list[str],
    transport: Inside,
    pacing: Pacing,
    journal: Journal | None = None,
    max_rate: float = 1e9,
) -> AsyncIterator[Subscriptions]:
    """Poll these ids with everything but the client's face and its sockets."""
    dispatcher: Dispatcher[Job] = Dispatcher(
        transport,  # it sends
        max_rate=max_rate,
        max_in_flight=8,
    )
    route = route_of("veo3-pro")
    subscriptions = Subscriptions(dispatcher, pacing, Origins(journal), journal)
    poller = Poller(
        dispatcher,
        subscriptions,
        pacing,
        Contact(),
        route=route,
        on_poll=None,
        journal=journal,
    )
    mailbox = Mailbox("best", route, keep_open=True)
    subscriptions.register(mailbox, None)
    subscriptions.subscribe(mailbox, ids)
    watch = Watch(mailbox, subscriptions, owner=None)
    runner = asyncio.create_task(poller.run())
    consumer = asyncio.create_task(_consume(watch))
    try:
        yield subscriptions
    finally:
        for task in (runner, consumer):
            task.cancel()
        await asyncio.gather(runner, consumer, return_exceptions=True)


async def _consume(watch: Watch) -> None:
    async for _ in watch:
        pass


async def _answered(transport: Inside, times: int) -> None:
    while transport.answered < times:
        await asyncio.sleep(0.02)


class Growth:
    """Measures by how much the memory of this process has grown since, for each of so many."""

    def __init__(self, count: int) -> None:
        self._count = count
        gc.collect()
        self._before = resident()

    def each(self) -> float:
        gc.collect()
        return (resident() - self._before) / self._count


def bytes_of_ours(count: int, *, replies: int = ROUNDS_SEEN) -> float:
    async def run() -> float:
        await _warm_up()
        ids, transport = request_ids(count), Inside()
        transport.is_silent = not replies
        growth = Growth(count)
        async with watching(ids, transport, Rest()) as subscriptions:
            await _answered(transport, replies * count)
            while len(subscriptions) < count:
                await asyncio.sleep(0.02)
            return growth.each()

    return asyncio.run(run())


def bytes_unpolled(count: int) -> float:
    return bytes_of_ours(count, replies=0)


def bytes_with_everything(count: int) -> float:
    """Return the same with a journal, and a pacing that learns."""

    async def run(journal: Journal) -> float:
        await _warm_up()
        ids, transport = request_ids(count), Inside()
        growth = Growth(count)
        await journal.open()
        async with watching(ids, transport, LearnedRest(), journal, COMMITTED):
            await _answered(transport, ROUNDS_SEEN * count)
            grown = growth.each()
        await journal.aclose()
        return grown

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(run(Journal(pathlib.Path(folder, "bot.db"))))


async def _warm_up() -> None:
    async with watching(request_ids(500), warm := Inside(), Patience(0.001)):
        await _answered(warm, 1000)


def bytes_of_tasks(count: int) -> float:
    """Return what the tasks of a bot cost that starts one for each id."""

    async def follow(request_id: str, transport: Inside) -> None:
        while True:
            reply = await transport.send(Call("GET", request_id))
            assert isinstance(reply, Reply)
            status = msgspec.json.decode(reply.body)["status"]
            if status == "completed":
                return
            await asyncio.sleep(1e6)

    async def run() -> float:
        ids, transport = request_ids(count), Inside()
        gc.collect()
        before = resident()
        tasks = [asyncio.create_task(follow(request_id, transport)) for request_id in ids]
        await _answered(transport, count)
        await asyncio.sleep(0)
        gc.collect()
        grown = (resident() - before) / count
        for task in tasks:
            task.cancel()
        return grown

    return asyncio.run(run())


class Bench:
    """Many ids in a process of their own, which stands still between two measurements."""

    def __init__(self, url: str, count: int) -> None:
        self._runner = asyncio.Runner()
        self._inside = Inside()
        self._runner.run(self._prepare(url, count))

    async def _prepare(self, url: str, count: int) -> None:
        self._scene = watching(request_ids(count), self._inside, Patience(0.001))
        await self._scene.__aenter__()
        await _answered(self._inside, count)
        self._inside.other = Transport(
            ApiKey(KEY), url, session=None, max_connections=8, request_timeout=30, proxy=None
        )

    def cost(self, polls: int) -> float:
        """Return microseconds of CPU for a poll through sockets."""
        return self._runner.run(self._cost(polls))

    async def _cost(self, polls: int) -> float:
        await _answered(self._inside, self._inside.answered + polls // 4)
        began, first = time.process_time(), self._inside.answered
        await _answered(self._inside, first + polls)
        return (time.process_time() - began) / (self._inside.answered - first) * 1e6


_bench: Bench


def set_up(url: str, count: int) -> None:
    global _bench  # noqa: PLW0603 - it stays in its process from one call to the next
    _bench = Bench(url, count)


def one_cost(polls: int) -> float:
    return _bench.cost(polls)


def costs(url: str, counts: Sequence[int], polls: int, rounds: int) -> dict[int, list[float]]:
    """Let processes with so many ids take turns, and return what a poll cost in each round."""
    with contextlib.ExitStack() as stack:
        pools = {count: stack.enter_context(_process()) for count in counts}
        for count, pool in pools.items():
            pool.submit(set_up, url, count).result()
        found: dict[int, list[float]] = {count: [] for count in counts}
        for _ in range(rounds):
            for count, pool in pools.items():
                found[count].append(pool.submit(one_cost, polls).result())
        return found


def late(url: str, added: int, journal: str | None) -> tuple[float, float]:
    """Return seconds by which the loop is late while ids are added to a watch, and its own part."""

    async def run() -> tuple[float, float]:
        ticker, ids = Ticker(0.001), request_ids(added)
        pacing = FixedPacing(5)
        async with Veo3Client(KEY, base_url=url, pacing=pacing, journal=journal) as veo:
            watch = veo.watch("veo3-pro:the-first", keep_open=True)
            tasks = [asyncio.create_task(work) for work in (_consume(watch), ticker.run())]
            await asyncio.sleep(1)
            ticker.reset()
            watch.add(*ids)
            while veo.stats().watched <= added:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
            return ticker.latest, ticker.own

    return asyncio.run(run())


def late_with_journal(url: str, added: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        return late(url, added, str(pathlib.Path(folder, "bot.db")))


def late_without(url: str, added: int) -> tuple[float, float]:
    return late(url, added, None)


def ending(url: str, many: int) -> dict[str, float]:
    """Return seconds that it takes to end ``many``."""

    async def run() -> dict[str, float]:
        found, ids = {}, request_ids(many)
        async with Veo3Client(KEY, base_url=url, pacing=FixedPacing(5)) as veo:
            for end in ("discard", "close", "cancel"):
                watch = veo.watch(*ids, keep_open=True)
                while veo.stats().watched < many:
                    await asyncio.sleep(0.01)
                found[end] = await _ended(watch, ids, end)
                await watch.aclose()
        return found

    return asyncio.run(run())


async def _ended(watch: Watch, ids: Sequence[str], end: str) -> float:
    async def consume() -> None:
        async with watch:
            await _consume(watch)

    consumer = asyncio.create_task(consume())
    await asyncio.sleep(0.05)
    began = time.perf_counter()
    match end:
        case "discard":
            watch.discard(*ids)
        case "close":
            await watch.aclose()
        case "cancel":
            consumer.cancel()
            await asyncio.gather(consumer, return_exceptions=True)
    took = time.perf_counter() - began
    consumer.cancel()
    return took


def _memory_table(counts: Sequence[int]) -> tuple[Table, dict[str, list[float]]]:
    columns = ["ids", "unpolled", "veo3_async", "everything on", "task per id", "ratio"]
    table = Table("Bytes per watched id", columns)
    found: dict[str, list[float]] = {"veo3_async": [], "task per id": []}
    for count in counts:
        sys.stderr.write(f"memory of {count:,} ids …\n")
        unpolled = in_a_process(bytes_unpolled, count)
        mine = in_a_process(bytes_of_ours, count)
        most = in_a_process(bytes_with_everything, count) if count <= MANY else None
        theirs = in_a_process(bytes_of_tasks, count)
        found["veo3_async"].append(mine)
        found["task per id"].append(theirs)
        table.add(f"{count:,}", unpolled, mine, most, theirs, f"{mine / theirs:.2f}")
    return table, found


def _cost_table(counts: Sequence[int], polls: int, rounds: int) -> Table:
    table = Table("One poll, by how many ids are watched", ["ids", "µs of CPU", "ratio"])
    with serving(Service()) as url:
        sys.stderr.write("what a poll costs …\n")
        found = costs(url, counts, polls, rounds)
    for count, samples in found.items():
        ratios = [a / b for a, b in zip(samples, found[counts[0]], strict=True)]
        table.add(f"{count:,}", statistics.median(samples), f"{statistics.median(ratios):.2f}")
    return table


def _adding_table(added: int, rounds: int) -> Table:
    table = Table("Loop late, ms", ["", "median", "longest", "own, median", "own, longest"])
    rows = {
        "nothing is added": (late_without, 0),
        f"{added:,} ids are added": (late_without, added),
        "the same, with a journal": (late_with_journal, added),
    }
    with serving(Service()) as url:
        for name, (work, count) in rows.items():
            sides = zip(*(in_a_process(work, url, count) for _ in range(rounds)), strict=True)
            figures = [f(1e3 * n for n in side) for side in map(list, sides) for f in _SUMMARY]
            table.add(name, *figures)
    return table


_SUMMARY: tuple[Callable[[Iterable[float]], float], ...] = (statistics.median, max)


def _ending_table(many: int) -> Table:
    with serving(Service()) as url:
        runs = [in_a_process(ending, url, many) for _ in range(3)]
    table = Table(f"Ending {many:,} ids", ["", "milliseconds"])
    for end in runs[0]:
        table.add(end, 1e3 * statistics.median(run[end] for run in runs))
    return table


def main(results: pathlib.Path, *, quick: bool = False) -> None:
    counts = (200, 1000) if quick else COUNTS
    memory, found = _memory_table(counts)
    polls, rounds = (50, 1) if quick else (COSTED_POLLS, ROUNDS)
    cost = _cost_table((counts[0], counts[-1]), polls, rounds)
    adding = _adding_table(100 if quick else ADDED, rounds)
    ended = _ending_table(500 if quick else MANY)
    publish(results, "memory", SAID, memory, cost, adding, ended)
    with picture(results, "memory") as axes:
        if axes is not None:
            _draw(axes, counts, found)


def _draw(axes: Any, counts: Sequence[int], found: dict[str, list[float]]) -> None:
    for (name, values), colour in zip(found.items(), COLOURS, strict=False):
        axes.plot(counts, values, marker="o", color=colour, label=name)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("watched ids")
    axes.set_ylabel("bytes for each")
    axes.legend(frameon=False)
