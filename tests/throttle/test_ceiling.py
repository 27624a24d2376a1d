"""The rate that is kept a little below a steady limit."""

from __future__ import annotations

import math
from typing import Final

import pytest

from veo3_async._throttle.ceiling import Ceiling

START: Final = 1000.0


def test_a_ceiling_stays_below_a_refused_rate_and_rises_by_small_steps() -> None:
    """5 % below for 10 s, then 1 % up, and twice that after each 3 s."""
    ceiling = Ceiling()
    ceiling.succeeded(START, 60)
    assert ceiling.height == math.inf
    ceiling.refused(60)
    ceiling.cut(START, 60)
    heights = {}
    for second in (0, 9, 10, 13, 16, 10_000):
        ceiling.succeeded(START + second, 60)
        heights[second] = ceiling.height
    assert heights == pytest.approx(
        {0: 57, 9: 57, 10: 57.57, 13: 58.14, 16: 59.28, 10_000: 57 * (1 + 0.01 * 2**64)}
    )


def test_a_ceiling_that_is_refused_at_once_comes_down_faster() -> None:
    """5, 10, 20, 25, 25 % while it is on its way down."""
    ceiling = Ceiling()
    heights = []
    for second in range(5):
        ceiling.cut(START + second, 100)
        heights.append(ceiling.height)
    assert heights == pytest.approx([95, 90, 80, 75, 75])


def test_a_ceiling_that_was_kept_for_a_while_is_the_floor_of_the_next() -> None:
    """What is refused on the way up says nothing against where that began."""
    ceiling = Ceiling()
    ceiling.cut(START, 100)
    ceiling.cut(START + 60, 97)
    assert ceiling.height == pytest.approx(95)
    ceiling.cut(START + 61, 95)
    assert ceiling.height == pytest.approx(95 * 0.9)


@pytest.mark.parametrize(("rate", "hold"), [(1000, 10), (20, 400 / 19), (5, 400 / 4.75), (1, 120)])
def test_a_limit_is_looked_at_after_as_many_requests(rate: float, hold: float) -> None:
    """After 400, for a look costs a refusal; 10 s to 2 minutes."""
    ceiling = Ceiling()
    ceiling.cut(START, rate)
    held = ceiling.height
    ceiling.succeeded(START + hold - 0.01, rate)
    assert ceiling.height == held
    ceiling.succeeded(START + hold + 0.01, rate)
    assert ceiling.height > held


def test_an_outage_leaves_no_ceiling() -> None:
    """Where most is refused, nothing is learned of a limit: recovery is not held back."""
    ceiling = Ceiling()
    for _ in range(20):
        ceiling.refused(20)
    ceiling.cut(START, 20)
    assert ceiling.height == math.inf


def test_a_ceiling_comes_down_to_the_share_that_was_served() -> None:
    """A quarter refused since the last cut, and smoothed, is more than 5 %."""
    ceiling = Ceiling()
    for _ in range(5):
        ceiling.refused(20)
    ceiling.cut(START, 20)
    assert ceiling.height == pytest.approx(20 * (20 / 21) ** 5)
