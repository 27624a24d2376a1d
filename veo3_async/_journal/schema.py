"""The tables of a journal, for people too: a file that any SQLite shell reads.

A row of ``tasks`` is one task, from the moment somebody may have to pay for it. Times are UTC in
SQLite's own spelling, phases are words. What was spent this week (the API has no prices, so in
tasks)::

    SELECT model, count(*) AS tasks, sum(phase = 'in doubt') AS in_doubt
    FROM tasks
    WHERE submitted_at >= datetime('now', '-7 days') AND phase <> 'refused'
    GROUP BY model;
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

__all__ = ["JOURNAL", "Schema"]


class Schema(NamedTuple):
    """What a file must be, and how an older one becomes it."""

    application_id: int
    """What distinguishes the file from those of other programs (``PRAGMA application_id``)."""
    migrations: Sequence[Sequence[str]]
    """The statements from each version (``PRAGMA user_version``) to the next, from 0."""
    views: Mapping[int, str] = {}
    """For each older version a statement that shows its tables as those of the newest one, for
    readers, who migrate nothing."""

    @property
    def version(self) -> int:
        """The newest version."""
        return len(self.migrations)


_VERSION_1: Final = (
    """
    CREATE TABLE tasks (
      key INTEGER PRIMARY KEY,
      request_id TEXT UNIQUE,        -- NULL: submitted, and the answer was never seen
      phase TEXT NOT NULL,           -- in doubt, refused, or one of veo3_async.Phase
      status TEXT NOT NULL,          -- the service's own word
      since TEXT NOT NULL,           -- of this phase, as all times UTC
      model TEXT,                    -- NULL, like prompt, image and submitted_at,
      prompt TEXT,                   --   where the task was only watched
      image TEXT,
      submitted_at TEXT,
      finished_at TEXT,              -- NULL: unfinished
      delivered_at TEXT,             -- NULL: the program has not dealt with the end
      video_url TEXT,
      upsample_video_url TEXT,
      error TEXT,                    -- JSON: why there is no video
      task TEXT                      -- JSON: the last state that was seen
    )
    """,
    # finds what is pending (NULL) as well as what is old enough to be deleted
    "CREATE INDEX tasks_delivered_at ON tasks (delivered_at)",
    "CREATE TABLE notes (name TEXT PRIMARY KEY, content TEXT NOT NULL)",
)

_VERSION_2: Final = (
    "ALTER TABLE tasks ADD COLUMN family TEXT",  # where it was submitted, and so is polled;
    "ALTER TABLE tasks ADD COLUMN path TEXT",  # both NULL where that is not known
    "ALTER TABLE tasks ADD COLUMN metadata TEXT",  # JSON: what the program attached to it
    "ALTER TABLE tasks ADD COLUMN token TEXT",  # by which a webhook names it
    "ALTER TABLE tasks ADD COLUMN http_request_id TEXT",  # of the submission, for its cost
    "CREATE INDEX tasks_token ON tasks (token) WHERE token IS NOT NULL",
)

_AS_VERSION_2: Final = """
    CREATE TEMP VIEW tasks AS
    SELECT *, NULL AS family, NULL AS path, NULL AS metadata, NULL AS token,
           NULL AS http_request_id
    FROM main.tasks
"""

JOURNAL: Final = Schema(
    application_id=0x5645_4F33,  # VEO3 in ASCII
    migrations=(_VERSION_1, _VERSION_2),
    views={1: _AS_VERSION_2},
)
"""The tables of a journal."""
