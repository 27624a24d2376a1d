"""Learned pacing beside servers whose clocks are wrong: what it costs and how late it is."""

from __future__ import annotations

import bisect
import email.utils
import functools
import heapq
import itertools
import random
from collections.abc import Callable
from typing import Final

import msgspec
import pytest

from veo3_async import LearnedPacing, VideoTask
from veo3_async._lifecycle.judge import Context, Track, View, judge
from veo3_async._lifecycle.phases import NEW
from veo3_async._protocol.families import read, route_of
from veo3_async._protocol.http import Reply
from veo3_async.testing._lives import Life, fields_at

EPOCH: Final = 1_790_000_000.0
LATENCY: Final = 0.2
TASKS: Final = 150
LIFE: Final = Life.documented()
BEGINS: Final = list(
    itertools.accumulate((stage.seconds or 0.0 for stage in LIFE.stages[:-1]), initial=0.0)
)
ROUTE: Final = route_of("veo3-pro")

Clock = Callable[[float], tuple[float | str | None, float | None]]
"""Makes of a true time what a reply says of it, and of the present the offset of its ``Date``."""


def _ms(offset: float, date: float | None) -> Clock:
    return lambda at: (round((at + offset) * 1000), date)


CLOCKS: Final[dict[str, Clock]] = {
    "right": _ms(0, 0),
    "seconds": lambda at: (int(at), 0),
    "ISO": lambda at: (f"2026-09-21T{int(at) % 86400 // 3600:02}:00:00Z", 0),
    "constant": lambda _: (round(EPOCH * 1000), 0),
    "constant, long ago": lambda _: (1_750_854_823_164, 0),
    "none": lambda _: (None, 0),
    "10 min ahead": _ms(600, 600),
    "10 min behind": _ms(-600, -600),
    "10 min ahead, Date right": _ms(600, 0),
    "10 min behind, Date right": _ms(-600, 0),
    "Date 10 min ahead": _ms(0, 600),
    "Date 10 min behind": _ms(0, -600),
}


def reply_of(clock: Clock, began: float, stretch: float, now: float) -> tuple[Reply, bool]:
    """Return what the server says of a task, and whether it has ended."""
    stage = bisect.bisect_right(BEGINS, (now - began) / stretch) - 1
    fields = {name: value for name, value in fields_at(LIFE, stage).items() if name != "images"}
    for name in ("video_url", "upsample_video_url"):
        if name in fields:
            fields[name] = f"https://file.302.ai/{name}.mp4"
    at, offset = clock(EPOCH + began + BEGINS[stage] * stretch)
    fields |= {"id": "x", "status_update_time": at, "req": {"enable_upsample": True}}
    fields["completed_at"] = at if stage == len(BEGINS) - 1 else None
    headers = {}
    if offset is not None:
        headers["Date"] = email.utils.formatdate(EPOCH + now + offset, usegmt=True)
    return Reply(200, headers, msgspec.json.encode(fields)), stage == len(BEGINS) - 1


@functools.cache
def figures(clock: str, polls_per_task: float | None) -> tuple[float, float]:
    """Return the polls a task, and the mean seconds from its end to the poll that sees it."""
    rng = random.Random(50)
    pacing = LearnedPacing(polls_per_task)
    stretches = [rng.lognormvariate(0.0, 0.35) for _ in range(TASKS)]
    begins = [rng.uniform(0, 3600) for _ in range(TASKS)]
    tracks, states = [Track("x")] * TASKS, [NEW] * TASKS
    due = [(began + rng.random(), number) for number, began in enumerate(begins)]
    heapq.heapify(due)
    polls, lag = 0, 0.0
    while due:
        now, number = heapq.heappop(due)
        polls += 1
        reply, _ = reply_of(CLOCKS[clock], begins[number], stretches[number], now)
        now += LATENCY
        task = read(ROUTE, reply, request_id="x", wall_now=EPOCH + now)
        assert isinstance(task, VideoTask)
        context = Context(now, EPOCH + now, rng.random(), 1, now - begins[number])
        views = [View(states[number])]
        ruling = judge(tracks[number], views, task, reply=reply, pacing=pacing, context=context)
        tracks[number], states[number] = ruling.track, ruling.views[0].state
        if ruling.delay is None:
            lag += now - begins[number] - BEGINS[-1] * stretches[number]
        else:
            heapq.heappush(due, (now + ruling.delay, number))
    return polls / TASKS, lag / TASKS


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("clock", "polls_per_task"),
    [
        *((clock, None) for clock in CLOCKS),
        *((clock, 12) for clock in ("constant", "10 min behind, Date right")),
    ],
)
def test_fault_50_a_wrong_clock_of_the_server_costs_little(
    clock: str, polls_per_task: float | None
) -> None:
    """At most twice what the pacing says, and 1.3 times the mean lag beside a right clock."""
    polls, lag = figures(clock, polls_per_task)
    _, right_lag = figures("right", polls_per_task)
    assert polls <= 2 * (polls_per_task or 35)
    assert lag <= 1.3 * right_lag
