"""Callbacks of the user's, kept from doing harm."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Hook"]

_T = TypeVar("_T")

_log = logging.getLogger("veo3_async")


class Hook(Generic[_T]):
    """A plain function that is called for each event; what it raises is logged once.

    :param name: What the user calls it.
    :raises TypeError: It is no plain function.
    """

    __slots__ = ("_callback", "_has_failed", "_name")

    def __init__(self, name: str, callback: Callable[[_T], object]) -> None:
        if inspect.iscoroutinefunction(callback) or not callable(callback):
            message = f"{name} is a plain function: it is called, not awaited"
            raise TypeError(message)
        self._name = name
        self._callback = callback
        self._has_failed = False

    def __call__(self, value: _T) -> None:
        """Hand over an event."""
        try:
            self._callback(value)
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - must not end the polling
            if not self._has_failed:
                _log.exception("%s raised; this is logged once, and polling goes on", self._name)
            self._has_failed = True
