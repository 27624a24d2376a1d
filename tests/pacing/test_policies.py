"""Fixed and backoff pacing, and how durations and shares are spelled."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo3_async._arguments import seconds, share
from veo3_async._models import Phase
from veo3_async._pacing.learned import LearnedPacing
from veo3_async._pacing.policies import BackoffPacing, FixedPacing, Pacing, Progress

NOW = Progress(phase=Phase.GENERATING, age=12.0)


def after(polls: int) -> Progress:
    return Progress(phase=Phase.GENERATING, age=12.0, polls=polls)


@pytest.mark.parametrize("pacing", [FixedPacing(), BackoffPacing(), LearnedPacing()], ids=repr)
def test_every_pacing_is_one(pacing: object) -> None:
    """Each of ours has the methods of the protocol, and what lacks them is refused at run time."""
    assert isinstance(pacing, Pacing)
    assert not isinstance(object(), Pacing)


@pytest.mark.parametrize("pacing", [FixedPacing(), BackoffPacing()], ids=repr)
def test_the_simple_ones_learn_nothing(pacing: Pacing) -> None:
    """They learn from nothing what is left, not even from a phase that ended."""
    pacing.phase_ended(NOW, 100.0, Phase.COMPLETED)
    assert pacing.eta(NOW) is None


@pytest.mark.parametrize(("rand", "expected"), [(0.0, 8.0), (0.5, 10.0), (0.75, 11.0)])
def test_a_fixed_interval_is_jittered_both_ways(rand: float, expected: float) -> None:
    """The share of jitter is what a wait may be shorter, or longer."""
    assert FixedPacing(10, jitter=0.2).delay(NOW, rand) == pytest.approx(expected)


def test_an_interval_may_be_a_timedelta() -> None:
    """Durations are seconds or timedeltas, and are kept as seconds."""
    assert FixedPacing(datetime.timedelta(minutes=1)).interval == 60.0
    backoff = BackoffPacing(datetime.timedelta(seconds=2), datetime.timedelta(minutes=1))
    assert (backoff.initial, backoff.maximum) == (2.0, 60.0)


@pytest.mark.parametrize(
    ("polls", "expected"), [(1, 1.0), (2, 1.5), (3, 2.25), (9, 1.5**8), (10, 30.0), (10**6, 30.0)]
)
def test_a_backoff_grows_to_its_maximum(polls: int, expected: float) -> None:
    """Each reply in the same phase lengthens the wait by the factor, beyond any number's range."""
    assert BackoffPacing(jitter=0).delay(after(polls), 0.9) == pytest.approx(expected)


@given(
    polls=st.integers(1, 10**9),
    rand=st.floats(0, 1, exclude_max=True),
    factor=st.floats(1, 1e300),
)
def test_a_backoff_stays_within_its_bounds(polls: int, rand: float, factor: float) -> None:
    """No factor and no number of polls gives a wait outside of initial to maximum, jittered."""
    wait = BackoffPacing(2, 20, factor=factor, jitter=0.5).delay(after(polls), rand)
    assert 1.0 <= wait <= 30.0


def test_the_settings_are_shown() -> None:
    """What a pacing was set to is in its repr."""
    assert repr(FixedPacing(10)) == "FixedPacing(10, jitter=0.1)"
    assert repr(BackoffPacing(1, 30)) == "BackoffPacing(1, 30, factor=1.5)"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FixedPacing(0), "interval is a finite number of seconds above 0, not 0"),
        (lambda: FixedPacing(math.nan), "interval is a finite number of seconds above 0, not nan"),
        (lambda: FixedPacing(1, jitter=1.5), "jitter is between 0 and 1, not 1.5"),
        (lambda: FixedPacing(1, jitter=math.nan), "jitter is between 0 and 1, not nan"),
        (lambda: BackoffPacing(5, 2), r"maximum \(2 s\) is below initial \(5 s\)"),
        (lambda: BackoffPacing(factor=0.5), "factor is a number of at least 1, not 0.5"),
        (lambda: BackoffPacing(factor=math.inf), "factor is a number of at least 1, not inf"),
    ],
)
def test_a_number_out_of_range_is_refused(make: Any, said: str) -> None:
    """Settings that make no sense are refused when the pacing is made, by name."""
    with pytest.raises(ValueError, match=rf"^{said}$"):
        make()


@pytest.mark.parametrize("value", ["10", None, True])
def test_what_is_no_duration_is_refused(value: Any) -> None:
    """Text, None and truth values are no seconds."""
    with pytest.raises(TypeError, match=r"^interval is a number of seconds or a timedelta, not "):
        seconds("interval", value)


def test_shares_include_both_ends() -> None:
    """A share may be none and may be all."""
    assert (share("jitter", 0), share("jitter", 1)) == (0, 1)
