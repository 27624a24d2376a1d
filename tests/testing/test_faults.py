"""The fake's faults: which request meets which one."""

from __future__ import annotations

import random
from typing import Any

import pytest

from veo3_async.testing import Fault, HangUp, Silence, Status
from veo3_async.testing._faults import Rules, Where

BUSY = Status(503)
GONE = Status(404)


def some_rules(*rules: tuple[Fault, dict[str, Any]]) -> Rules:
    book = Rules()
    for fault, options in rules:
        defaults: dict[str, Any] = {
            "on": "poll",
            "request_id": None,
            "rate": None,
            "times": None,
            "after": 0,
        }
        book.add(fault, **(defaults | options))
    return book


def chosen(
    book: Rules,
    *ids: str,
    on: Where = "poll",
    reused: bool = False,
    rng: random.Random | None = None,
) -> list[Fault | None]:
    rng = rng or random.Random(0)
    return [book.choose(on, request_id, reused=reused, rng=rng) for request_id in ids]


def test_a_fault_for_all_meets_every_poll_and_nothing_else() -> None:
    """Polls meet it, submissions and files do not."""
    book = some_rules((BUSY, {}))
    assert chosen(book, "a", "b") == [BUSY, BUSY]
    assert chosen(book, "a", on="submit") + chosen(book, "a", on="file") == [None, None]


def test_a_fault_of_an_id_meets_that_id_before_those_for_all() -> None:
    """What is said of one id wins, whatever came first."""
    book = some_rules((BUSY, {}), (GONE, {"request_id": "a"}))
    assert chosen(book, "a", "b") == [GONE, BUSY]


def test_a_fault_spares_the_first_and_ends_after_its_times() -> None:
    """``after`` requests pass, ``times`` meet it, then it is over and counted no more."""
    book = some_rules((BUSY, {"after": 1, "times": 2}))
    assert chosen(book, *"aaaa") == [None, BUSY, BUSY, None]
    assert len(book) == 0


def test_faults_in_turn() -> None:
    """When the first of two is over the second meets the requests."""
    book = some_rules((BUSY, {"times": 1}), (GONE, {"times": 1}))
    assert chosen(book, *"aaa") == [BUSY, GONE, None]


def test_a_fault_at_a_rate_is_repeatable_by_the_seed() -> None:
    """About the share of the requests meets it, and the same ones with the same seed."""
    met = [
        chosen(some_rules((BUSY, {"rate": 0.3})), *["a"] * 1000, rng=random.Random(seed))
        for seed in (1, 1, 2)
    ]
    assert met[0] == met[1] != met[2]
    assert 250 < met[0].count(BUSY) < 350


def test_a_stale_connection_is_hung_up_only_when_reused() -> None:
    """The first request of a connection is spared, and not counted."""
    stale = HangUp(reused_only=True)
    book = some_rules((stale, {"times": 1}))
    assert chosen(book, "a") == [None]
    assert chosen(book, "a", reused=True) == [stale]


def test_healing_ends_one_fault_or_all() -> None:
    """The fault that is named ends, the others stay until all are healed."""
    book = some_rules((BUSY, {}), (GONE, {"request_id": "a"}))
    book.remove(GONE)
    assert chosen(book, "a") == [BUSY]
    book.remove(None)
    assert (chosen(book, "a"), len(book)) == ([None], 0)


@pytest.mark.parametrize(
    ("fault", "options", "message"),
    [
        (BUSY, {"rate": 1.1}, "rate is between 0 and 1"),
        (BUSY, {"times": 0}, "times is at least 1"),
        (BUSY, {"after": -1}, "after at least 0"),
        (Silence(), {"on": "connect"}, "only be hung up"),
        (BUSY, {"on": "polls"}, "on is one of"),
        (BUSY, {"on": "submit", "request_id": "a"}, "only polls have a request id"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(
    fault: Fault, options: dict[str, Any], message: str
) -> None:
    """The message names the number or the place that is wrong."""
    with pytest.raises(ValueError, match=message):
        some_rules((fault, options))
