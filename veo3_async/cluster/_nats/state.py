"""How far streams and consumers are."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable
from typing import TypeVar

import msgspec
import nats.js.errors
from nats.js.api import StreamInfo

from veo3_async.cluster._nats.connection import Link

__all__ = ["ConsumerState", "StreamState", "found_or_none", "stream_state"]

_T = TypeVar("_T")


class ConsumerState(msgspec.Struct, frozen=True):
    """How far a consumer is."""

    unasked: int
    """Messages that were never delivered."""
    pending: int
    """Messages that were delivered, and are in hand or wait to be delivered again."""
    redelivered: int
    """Of these, how many were delivered more than once."""


class StreamState(msgspec.Struct, frozen=True):
    """What is in a stream."""

    messages: int
    metadata: dict[str, str]
    created: datetime.datetime | None
    """When it was made."""
    first_sequence: int
    """Of the oldest message; one more than the last where there is none."""
    last_sequence: int
    """Of the newest message that there ever was, 0 where there was none."""


def stream_state(info: StreamInfo) -> StreamState:
    """Return what the server says of a stream."""
    return StreamState(
        info.state.messages,
        info.config.metadata or {},
        info.created,
        info.state.first_seq,
        info.state.last_seq,
    )


async def found_or_none(link: Link, subject: str, call: Awaitable[_T]) -> _T | None:
    """Return what a call returns, or None where there is no such thing.

    :param subject: What it is about, for the message of an error.
    """

    async def found() -> _T | None:
        try:
            return await call
        except nats.js.errors.NotFoundError:
            return None

    return await link.ask(subject, found())
