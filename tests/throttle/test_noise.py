"""Refusals that come at any rate."""

from __future__ import annotations

from typing import Final

from veo3_async._throttle.noise import Noise

START: Final = 1000.0


def test_noise_is_what_is_refused_below_the_proved_rate() -> None:
    """A refusal at half of what was served is none of the rate; one at that rate may be."""
    noise = Noise(START)
    for number in range(400):
        noise.succeeded(START + number / 20)
    noise.refused()
    assert not noise.explains(START + 20, 20)
    assert noise.explains(START + 20, 10)
    assert noise.explains(START + 21, 20)


def test_noise_is_forgotten() -> None:
    """Ten minutes later a refusal may be one of a limit again."""
    noise = Noise(START)
    for number in range(400):
        noise.succeeded(START + number / 20)
    noise.refused()
    assert noise.explains(START + 20, 10)
    assert not noise.explains(START + 620, 20)


def test_more_than_the_noise_is_a_limit() -> None:
    """Where more is refused than there was noise, it was taken for noise in error."""
    noise = Noise(START)
    for number in range(400):
        noise.succeeded(START + number / 20)
    noise.refused()
    assert noise.explains(START + 20, 12)
    for _ in range(20):
        noise.refused()
    assert not noise.explains(START + 22, 20)
    assert not noise.explains(START + 22, 12)
