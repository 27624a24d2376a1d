"""Ids that end beside limiters of many kinds, in virtual time, and a naive loop beside the same."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import pytest

from benchmarks._limiter_lab import Ended, naive, ours
from benchmarks._limiters import KINDS, refused_always

UNLIMITED: Final = 10.0
"""Seconds that 20 requests a second cost beside a loop that sends 40, where nothing limits it."""

FINDABLE: Final = [
    "5 in each second",
    "5 in each second, 503",
    "5 in each second, `Retry-After: 0`",
    "20 in any second",
    "5/s, one each 0.2 s",
    "30 in any 10 s",
    "60 a minute, with a hint",
    "3 in flight, 0.5 s each",
]
BANS: Final = [name for name in KINDS if "ban" in name or "adds" in name]
SLOW_TO_LEARN: Final = [
    name for name in KINDS if name.startswith("1 node of 3") and not name.endswith("its own code")
]


@functools.cache
def beside(kind: str) -> tuple[Ended, Ended]:
    return ours(KINDS[kind]()), naive(KINDS[kind]())


def served_ids(kind: str, ended: Ended) -> Sequence[str]:
    return [one for one in ended.ids if not (kind.startswith("2 of 200") and refused_always(one))]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in SLOW_TO_LEARN])
def test_fault_53_no_limiter_makes_us_slower_than_a_naive_loop(kind: str) -> None:
    """All ends are seen no later, but for a sixth that looking for the limit may cost."""
    we, they = beside(kind)
    ids = served_ids(kind, we)
    assert we.all_seen(ids) <= max(7 / 6 * they.all_seen(ids), they.all_seen(ids) + UNLIMITED)


@pytest.mark.parametrize("kind", FINDABLE)
def test_fault_53_little_is_refused_where_a_limit_can_be_found(kind: str) -> None:
    """After the first 20 s at most 5 %."""
    we, _ = beside(kind)
    assert we.refused(after=20, until=we.all_seen(list(we.ids))) <= 0.05


@pytest.mark.parametrize("kind", BANS)
def test_fault_52_a_ban_that_each_refused_request_renews_is_waited_out(kind: str) -> None:
    """All ends are seen, though a loop that goes on asking may see none for ever."""
    we, _ = beside(kind)
    assert len(we.seen) == len(we.ids)
    assert we.refused(after=20) <= 0.2


@pytest.mark.parametrize("kind", ["2 of 200 ids", "2 of 200 ids, `Retry-After: 120`"])
def test_fault_8_nobody_waits_for_a_hint_that_was_not_theirs(kind: str) -> None:
    """Two ids are refused always, and the other 198 come as if nothing was."""
    we, _ = beside(kind)
    free, _ = beside("no limit")
    ids = served_ids(kind, we)
    assert we.lag(ids) <= free.lag(ids) + 6
    assert we.all_seen(ids) <= free.all_seen(ids) + 10


@pytest.mark.parametrize("kind", SLOW_TO_LEARN)
def test_fault_53_one_node_of_three_that_refuses_holds_up_nobody_for_long(kind: str) -> None:
    """It is known within seconds that refusals come at any rate; then no id waits for a hint."""
    we, they = beside(kind)
    assert we.lag(list(we.ids)) <= they.lag(list(we.ids)) + 6
    assert we.all_seen(list(we.ids)) <= they.all_seen(list(we.ids)) + 40


def test_fault_9_a_busy_channel_says_nothing_about_the_rate() -> None:
    """A third of all answers is -10008, and as many are sent as where nothing is refused."""
    we, _ = beside("1 node of 3: 503, its own code")
    free, _ = beside("no limit")
    first = [sum(moment < 20 for moment, _ in one.log) for one in (we, free)]
    assert first[0] >= 0.95 * first[1]


def test_a_lab_gives_the_same_twice() -> None:
    """The figures are of the limiter and the seed, and of nothing else."""
    one, two = (ours(KINDS["30 in any 10 s"](), seed=3) for _ in range(2))
    assert one.log == two.log
