"""What a pacing has learned, kept: a bot that is restarted begins with it, and workers share it."""

from __future__ import annotations

import logging
from typing import Final, Protocol

import anyio
import msgspec

from veo3_async._errors import Veo3Error
from veo3_async._pacing.learned import LearnedPacing

__all__ = ["Store", "exchange", "keep_learned"]

_log: Final = logging.getLogger("veo3_async")

_NAME: Final = "pacing"
_LAST_SECONDS: Final = 2.0


class Store(Protocol):
    """Where texts are kept by name: a `Journal`, or what the workers of a cluster share."""

    async def load(self, name: str) -> str | None:
        """Return the text of this name, or None."""

    async def save(self, name: str, content: str) -> None:
        """Keep a text in place of the one that was loaded."""


async def keep_learned(pacing: LearnedPacing, store: Store, *, every: float = 300.0) -> None:
    """Exchange what is learned with a store until cancelled, and then once more.

    A store that cannot be read or written is logged: it costs some polls, and no task.

    :param every: Seconds from one exchange to the next.
    """
    failing = False
    try:
        while True:
            failing = await _fails(pacing, store, failing)
            await anyio.sleep(every)
    finally:
        with anyio.move_on_after(_LAST_SECONDS, shield=True):
            await _fails(pacing, store, failing)


async def _fails(pacing: LearnedPacing, store: Store, before: bool) -> bool:  # noqa: FBT001 - alone
    """Return whether the store failed; of several times in a row the first one is logged."""
    try:
        await exchange(pacing, store)
    except Veo3Error as error:
        if not before:
            _log.warning("what the pacing learned cannot be loaded or saved: %s", error)
        return True
    return False


async def exchange(pacing: LearnedPacing, store: Store) -> None:
    """Restore what the store has, if it comes of more tasks; else save what comes of more.

    What the store has and cannot be read is logged, and replaced.

    :raises Veo3Error: The store cannot be read or written.
    """
    text = await store.load(_NAME)
    stored = 0 if text is None else _restore(pacing, text)
    if pacing.tasks > stored:
        await store.save(_NAME, msgspec.json.encode(pacing.to_dict()).decode())


def _restore(pacing: LearnedPacing, text: str) -> int:
    """Return of how many tasks a text knows, having taken it over where that is more."""
    try:
        learned = msgspec.json.decode(text, type=dict[str, object])
        tasks = learned.get("tasks")
        if isinstance(tasks, int) and tasks <= pacing.tasks:
            return tasks
        pacing.restore(learned)
    except ValueError as error:
        _log.warning("what a pacing had learned cannot be read, and is replaced: %s", error)
        return 0
    return pacing.tasks
