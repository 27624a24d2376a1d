"""What a client is made with, checked before anything is sent."""

from __future__ import annotations

import datetime
import math

__all__ = ["count", "positive", "seconds", "share"]


def positive(name: str, value: float) -> float:
    """Return a number above 0.

    :raises TypeError: It is no number.
    :raises ValueError: It is not finite, or not above 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        message = f"{name} is a number, not {value!r}"
        raise TypeError(message)
    if not 0 < value < float("inf"):
        message = f"{name} is a finite number above 0, not {value!r}"
        raise ValueError(message)
    return value


def count(name: str, value: int) -> int:
    """Return a whole number of at least 1.

    :raises TypeError: It is no whole number.
    :raises ValueError: It is below 1.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        message = f"{name} is a whole number, not {value!r}"
        raise TypeError(message)
    if value < 1:
        message = f"{name} is at least 1, not {value!r}"
        raise ValueError(message)
    return value


def seconds(name: str, value: float | datetime.timedelta) -> float:
    """Return a duration in seconds.

    :param name: What the caller calls it, for the message.
    :raises TypeError: It is neither a number nor a ``timedelta``.
    :raises ValueError: It is not finite, or not above 0.
    """
    if isinstance(value, datetime.timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        message = f"{name} is a number of seconds or a timedelta, not {value!r}"
        raise TypeError(message)
    if not (math.isfinite(value) and value > 0):
        message = f"{name} is a finite number of seconds above 0, not {value!r}"
        raise ValueError(message)
    return float(value)


def share(name: str, value: float) -> float:
    """Return a share of 1.

    :param name: What the caller calls it, for the message.
    :raises ValueError: It is not between 0 and 1.
    """
    if not 0 <= value <= 1:
        message = f"{name} is between 0 and 1, not {value!r}"
        raise ValueError(message)
    return value
