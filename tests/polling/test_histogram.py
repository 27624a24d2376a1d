"""Histogram of a stream, in constant memory."""

from __future__ import annotations

import gc
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo3_async._polling.histogram import Histogram


def counted(*durations: float) -> Histogram:
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    return histogram


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_nothing_counted_has_no_quantile(share: float) -> None:
    """Before the first duration there is none."""
    assert Histogram().quantile(share) is None


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.0009, 0.001])
def test_what_is_below_a_millisecond_counts_as_none(seconds: float) -> None:
    """Nobody waits for it, and a clock may step by so much."""
    assert counted(seconds).quantile(1) == 0


@given(st.lists(st.floats(0.0011, 3000), min_size=1), st.sampled_from([0.25, 0.5, 0.95, 1]))
def test_a_quantile_is_right_to_ten_percent(durations: list[float], share: float) -> None:
    """It is the duration at that rank, or up to a tenth more."""
    exact = sorted(durations)[max(0, math.ceil(share * len(durations)) - 1)]
    found = counted(*durations).quantile(share)
    assert found is not None
    assert exact * (1 - 1e-9) <= found <= exact * 1.1 * (1 + 1e-9)


def test_half_of_the_requests_late_is_not_hidden_by_the_other_half() -> None:
    """The median is of the lower half, the 95th percentile of the upper."""
    histogram = counted(*[0.0] * 50, *[10.0] * 50)
    assert histogram.quantile(0.5) == 0
    assert histogram.quantile(0.95) == pytest.approx(10, rel=0.1)


def test_what_is_longer_than_an_hour_counts_as_an_hour() -> None:
    """What lasts longer, such as the night of a laptop, makes no new bin."""
    assert counted(1e9).quantile(0.5) == pytest.approx(3600, rel=0.1)


def test_memory_is_constant() -> None:
    """Ten thousand durations take no more than one."""
    few, many = counted(1.0), counted(*(n / 100 for n in range(10_000)))
    assert sizes(few) == sizes(many)


def sizes(histogram: Histogram) -> list[tuple[int, int]]:
    """Return the bytes and the length of each list that it holds."""
    held = gc.get_referents(histogram)
    return [(sys.getsizeof(one), len(one)) for one in held if isinstance(one, list)]
