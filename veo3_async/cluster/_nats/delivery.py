"""What the subject says at which a message is acknowledged: ADR-15 of the NATS architecture."""

from __future__ import annotations

from typing import Final

__all__ = ["delivery"]

_SHORT: Final = 9  # tokens; a longer one names domain and account before the stream
_MORE: Final = 2


def delivery(reply: str) -> list[str]:
    """Return what the subject says of a delivery.

    That is the consumer, the number of deliveries, the sequence in the stream and in the consumer,
    when the message was stored (nanoseconds since the epoch), and more that nobody needs.

    :raises ValueError: It is no such subject.
    """
    tokens = reply.split(".")
    if len(tokens) < _SHORT or tokens[0] != "$JS":
        message = f"not where a message is acknowledged: {reply[:128]!r}"
        raise ValueError(message)
    return tokens[3 if len(tokens) == _SHORT else 3 + _MORE :]
