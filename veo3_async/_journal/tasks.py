"""What the journal writes down and reads back, without I/O: the tables, rows and values.

A row of ``tasks`` is one task, from the moment somebody may have to pay for it. It is
readable in any SQLite shell: times are UTC in SQLite's own spelling, phases are words. What
was spent this week (the API tells no prices, so in tasks)::

    SELECT model, count(*) AS tasks, sum(phase = 'in doubt') AS in_doubt
    FROM tasks
    WHERE submitted_at >= datetime('now', '-7 days') AND phase <> 'refused'
    GROUP BY model;
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

import msgspec

from veo3_async._errors import (
    CompletedWithoutVideo,
    InvalidRequest,
    TaskFailed,
    TaskNotFound,
    Veo3Error,
)
from veo3_async._models import Phase, Transition, VideoTask
from veo3_async._stored_error import Fault, error_of, fault_of, storable

__all__ = ["APPLICATION_ID", "MIGRATIONS", "Parameters", "Pending", "Row"]

APPLICATION_ID: Final = 0x5645_4F33
"""``VEO3`` in ASCII; tells our files from those of other programs (``PRAGMA application_id``)."""

MIGRATIONS: Final = (
    (
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
          delivered_at TEXT,             -- NULL: the program was not told of the end
          video_url TEXT,
          upsample_video_url TEXT,
          error TEXT,                    -- JSON: why there is no video
          task TEXT                      -- JSON: the last state that was seen
        )
        """,
        # finds what is owed (NULL) as well as what is old enough to be forgotten
        "CREATE INDEX tasks_delivered_at ON tasks (delivered_at)",
        "CREATE TABLE notes (name TEXT PRIMARY KEY, content TEXT NOT NULL)",
    ),
)
"""The statements that lead from each version (``PRAGMA user_version``) to the next, from 0."""

Parameters: TypeAlias = dict[str, str | int | None]
"""What a statement is executed with, by name."""

Row: TypeAlias = tuple[str | int | None, ...]
"""What a query brings."""


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A task that was accepted and is not finished, or whose end was not delivered yet."""

    key: int
    """Number of its row; of a submission in doubt, what `Journal.refused` takes."""
    request_id: str | None
    """None where a submission was sent and its answer was never seen."""
    phase: Phase | None
    """The phase that was written last; None as long as there is no request id."""
    since: float
    """Seconds since the epoch: when that phase was first seen, or the submission sent."""
    model: str | None
    """The model; this and what follows is None where the task was not submitted from here."""
    prompt: str | None
    """The prompt."""
    image: str | None
    """URL of the source image, or None."""
    submitted_at: float | None
    """Seconds since the epoch."""
    final: Transition | None
    """The end of the task, if it is known and only remains to be delivered."""

    @property
    def in_doubt(self) -> bool:
        """Whether the submission may or may not have arrived: only the account can tell."""
        return self.request_id is None


# --- writing ------------------------------------------------------------------------------

INTEND: Final = """
    INSERT INTO tasks (phase, status, since, model, prompt, image, submitted_at)
    VALUES ('in doubt', '', :at, :model, :prompt, :image, :at)
"""

LAST_KEY: Final = "SELECT last_insert_rowid()"

# An id that some watch accepted before, and whose row is taken over: it lacks the prompt.
SUBMITTED: Final = """
    UPDATE OR REPLACE tasks SET request_id = :request_id, phase = 'queued', since = :at
    WHERE key = :key
"""

REFUSED: Final = """
    UPDATE tasks
    SET phase = 'refused', since = :at, finished_at = :at, delivered_at = :at, error = :error
    WHERE key = :key
"""

# What is owed already stays as it is; what was delivered is owed again.
ACCEPT: Final = """
    INSERT INTO tasks (request_id, phase, status, since) VALUES (:request_id, 'queued', '', :at)
    ON CONFLICT (request_id) DO UPDATE SET
      phase = excluded.phase, status = excluded.status, since = excluded.since,
      finished_at = NULL, delivered_at = NULL, error = NULL
    WHERE delivered_at IS NOT NULL
"""

RECORD: Final = """
    INSERT INTO tasks (request_id, phase, status, since, finished_at, delivered_at,
                       video_url, upsample_video_url, error, task)
    VALUES (:request_id, :phase, :status, :since, :finished_at, :delivered_at,
            :video_url, :upsample_video_url, :error, :task)
    ON CONFLICT (request_id) DO UPDATE SET
      phase = excluded.phase, status = excluded.status, since = excluded.since,
      finished_at = excluded.finished_at, delivered_at = excluded.delivered_at,
      video_url = excluded.video_url, upsample_video_url = excluded.upsample_video_url,
      error = excluded.error, task = excluded.task
"""

FORGET: Final = "DELETE FROM tasks WHERE delivered_at < :before"

SAVE: Final = """
    INSERT INTO notes (name, content) VALUES (:name, :content)
    ON CONFLICT (name) DO UPDATE SET content = excluded.content
"""


def intend(prompt: str, model: str, image: str | None, at: float) -> Parameters:
    """Return the parameters of `INTEND`."""
    return {
        "at": stamp(at),
        "model": storable(model),
        "prompt": storable(prompt),
        "image": None if image is None else storable(image),
    }


def submitted(key: int, request_id: str, at: float) -> Parameters:
    """Return the parameters of `SUBMITTED`."""
    return {"key": key, "request_id": request_id, "at": stamp(at)}


def refused(key: int, reason: str, at: float) -> Parameters:
    """Return the parameters of `REFUSED`."""
    return {"key": key, "at": stamp(at), "error": _json(Fault(storable(reason)))}


def accept(request_ids: Iterable[str], at: float) -> Iterator[Parameters]:
    """Yield the parameters of `ACCEPT`, for each id."""
    now = stamp(at)
    return ({"request_id": request_id, "at": now} for request_id in request_ids)


def record(
    transition: Transition, delivered_at: float | None = None, *, ends_task: bool = True
) -> Parameters:
    """Return the parameters of `RECORD`."""
    since = stamp(transition.observed_at)
    task = transition.task
    return {
        "request_id": transition.request_id,
        "phase": transition.phase.value,
        "status": transition.status,
        "since": since,
        "finished_at": since if ends_task and is_end(transition) else None,
        "delivered_at": None if delivered_at is None else stamp(delivered_at),
        "video_url": task.video_url,
        "upsample_video_url": task.upsample_video_url,
        "error": None if transition.error is None else _json(fault_of(transition.error)),
        "task": _json(task),
    }


def forget(now: float, keep: float) -> Parameters:
    """Return the parameters of `FORGET`.

    :param keep: Seconds that a row stays after its end was delivered; any number of them.
    """
    return {"before": stamp(max(0.0, now - keep))}  # nothing was delivered before 1970


def is_end(transition: Transition) -> bool:
    """Whether a task has ended by the service's own word.

    What ends a watch only (the caller's timeout, a full disk, a gateway or a portal that is not
    the API) leaves the task owed: somebody has paid for it.
    """
    match transition.error:
        case None | TaskFailed() | CompletedWithoutVideo():
            return transition.final
        case TaskNotFound(err_code=code) | InvalidRequest(err_code=code):
            return transition.final and code is not None  # the gateway's, not just anybody's 404
    return False


def stamp(at: float) -> str:
    """Spell seconds since the epoch as SQLite does, in UTC and to the millisecond."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(" ", "milliseconds")[:23]


def _json(value: msgspec.Struct) -> str:
    return msgspec.json.encode(value).decode()


# --- reading ------------------------------------------------------------------------------

PENDING: Final = """
    SELECT key, request_id, phase, status, since, model, prompt, image, submitted_at,
           finished_at, error, task
    FROM tasks WHERE delivered_at IS NULL ORDER BY key
"""

LOAD: Final = "SELECT content FROM notes WHERE name = :name"


def pending(row: Row) -> Pending:
    """Return what a row that `PENDING` brought stands for.

    :raises ValueError: It makes no sense; somebody has edited it.
    """
    try:
        stored = msgspec.convert(row, _Stored)
        return Pending(
            key=stored.key,
            request_id=stored.request_id,
            phase=None if stored.request_id is None else Phase(stored.phase),
            since=moment(stored.since),
            model=stored.model,
            prompt=stored.prompt,
            image=stored.image,
            submitted_at=None if stored.submitted_at is None else moment(stored.submitted_at),
            final=_final(stored),
        )
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error


def moment(text: str) -> float:
    """Return the seconds since the epoch that `stamp` spelled.

    :raises ValueError: It is no time.
    """
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()


class _Stored(msgspec.Struct, array_like=True):
    key: int
    request_id: str | None
    phase: str
    status: str
    since: str
    model: str | None
    prompt: str | None
    image: str | None
    submitted_at: str | None
    finished_at: str | None
    error: str | None
    task: str | None


def _final(stored: _Stored) -> Transition | None:
    if stored.request_id is None or stored.finished_at is None:
        return None
    task = msgspec.json.decode(stored.task or "{}", type=VideoTask)
    return Transition(
        request_id=stored.request_id,
        phase=Phase(stored.phase),
        previous=None,
        status=stored.status,
        task=task,
        observed_at=moment(stored.finished_at),
        final=True,
        error=None if stored.error is None else _error(stored.error, stored.request_id, task),
    )


def _error(text: str, request_id: str, task: VideoTask) -> Veo3Error:
    return error_of(msgspec.json.decode(text, type=Fault), request_id, task)
