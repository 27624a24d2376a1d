"""What a pacing has learned, kept in the journal: a bot that is restarted starts wise."""

from __future__ import annotations

import logging
from typing import Final

import anyio
import msgspec

from veo3_async._errors import JournalError
from veo3_async._journal.journal import Journal
from veo3_async._pacing.learned import LearnedPacing

__all__ = ["keep_knowledge"]

_log = logging.getLogger("veo3_async")

_NAME: Final = "pacing"
_SAVE_SECONDS: Final = 300.0


async def keep_knowledge(pacing: LearnedPacing, journal: Journal) -> None:
    """Restore what the last process learned, and save what this one learns, until cancelled.

    What cannot be read or written is logged: it costs some polls, and no task.
    """
    try:
        kept = await journal.load(_NAME)
        if kept is not None and pacing.tasks == 0:  # what was handed in knows better
            pacing.restore(msgspec.json.decode(kept, type=dict[str, object]))
    except (JournalError, ValueError) as error:
        _log.warning("what was learned of the pace is not in the journal: %s", error)
    saved = pacing.tasks
    try:
        while True:
            await anyio.sleep(_SAVE_SECONDS)
            saved = await _save(pacing, journal, saved)
    finally:
        with anyio.CancelScope(shield=True):
            await _save(pacing, journal, saved)


async def _save(pacing: LearnedPacing, journal: Journal, saved: int) -> int:
    """Return of how many tasks the journal knows."""
    tasks = pacing.tasks
    if tasks == saved:
        return saved
    try:
        await journal.save(_NAME, msgspec.json.encode(pacing.to_dict()).decode())
    except JournalError as error:
        _log.warning("what was learned of the pace could not be saved: %s", error)
        return saved
    return tasks
