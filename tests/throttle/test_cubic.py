"""The sending rate, held against the numbers that AWS publishes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

import pytest

from veo3_async._throttle.cubic import Cubic, cubic_rate

VECTORS: Final = json.loads(
    (Path(__file__).parent / "vectors" / "aws_adaptive_retry.json").read_bytes()
)["cases"]
CUBIC_CASES: Final[dict[str, Any]] = VECTORS["adaptiveRetryCubicTestCases"]
SENDING_CASES: Final[list[dict[str, Any]]] = VECTORS["adaptiveRetryE2eTestCases"][
    "End-to-end test for client sending rates"
]["cases"]

ROUNDING: Final = 1e-6


@pytest.mark.parametrize("name", CUBIC_CASES)
def test_cubic_rates_are_those_of_aws(name: str) -> None:
    """The curve and the cut give the published rate at each published moment."""
    given = CUBIC_CASES[name]["given"]
    cubic = Cubic(0.0)
    cubic.measured = given["last_max_rate"]
    cubic.throttled(given["last_throttle_time"])
    cubic.measured = math.inf  # the vectors leave out the bound of what is being sent
    for case in CUBIC_CASES[name]["cases"]:
        if case["response"] == "throttle":
            cubic.throttled(case["timestamp"])
        else:
            cubic.succeeded(case["timestamp"])
        assert cubic.rate == pytest.approx(case["calculated_rate"], abs=ROUNDING)


def test_sending_rates_are_those_of_aws() -> None:
    """Measured and allowed rate follow the published ones from the first request on."""
    cubic = Cubic(0.0)
    for case in SENDING_CASES:
        cubic.sent(case["timestamp"])
        if case["response"] == "throttle":
            cubic.throttled(case["timestamp"])
        else:
            cubic.succeeded(case["timestamp"])
        assert (cubic.measured, cubic.rate) == pytest.approx(
            (case["measured_tx_rate"], case["new_token_bucket_rate"]), abs=ROUNDING
        )


def test_the_curve_begins_at_the_cut_and_is_flat_at_the_old_rate() -> None:
    """β times the old rate at once, the old rate after cbrt(old · (1 - β) / C) seconds."""
    flat = (10 * 0.3 / 0.4) ** (1 / 3)
    assert [cubic_rate(10, 0), cubic_rate(10, flat)] == pytest.approx([7, 10])


def test_the_rate_is_at_most_twice_what_is_being_sent() -> None:
    """Who sends little earns no right to a flood, however long ago the cut is."""
    cubic = Cubic(0.0)
    cubic.measured = 3.0
    cubic.throttled(1.0)
    cubic.succeeded(1000.0)
    assert cubic.rate == 6


def test_a_refusal_in_the_first_half_second_is_no_stop() -> None:
    """Before a rate was measured, that of the requests so far is cut, and not to the floor."""
    cubic = Cubic(0.0)
    for moment in (0.0, 0.1, 0.2, 0.3):
        cubic.sent(moment)
    cubic.throttled(0.4)
    assert cubic.rate == pytest.approx(0.7 * 8)
