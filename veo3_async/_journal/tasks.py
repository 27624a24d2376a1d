"""What a journal writes and reads, one function for each, on the cursor of a transaction.

Without I/O of its own: the statements that bring values into a row and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from veo3_async._errors import JournalError
from veo3_async._journal.rows import (
    PENDING,
    WATCHED,
    Pending,
    Reading,
    Watched,
    origin_columns,
    stamp,
)
from veo3_async._lifecycle.ends import is_end
from veo3_async._metadata import Origin
from veo3_async._models import Transition
from veo3_async._stored_error import error_json, storable

if TYPE_CHECKING:
    from sqlite3 import Cursor

_R = TypeVar("_R", bound=msgspec.Struct)


# --- submitting ---------------------------------------------------------------------------


def intend(
    cursor: Cursor,
    prompt: str,
    *,
    model: str,
    image: str | None,
    at: float,
    origin: Origin = Origin(),  # noqa: B008 - a tuple
    token: str | None = None,
) -> int:
    """Insert a submission that is about to be sent; return its key."""
    row = {
        "at": stamp(at),
        "model": storable(model),
        "prompt": storable(prompt),
        "image": None if image is None else storable(image),
        "token": token,
    }
    statement = """
        INSERT INTO tasks (phase, status, since, model, prompt, image, submitted_at,
                           family, path, metadata, token)
        VALUES ('in doubt', '', :at, :model, :prompt, :image, :at,
                :family, :path, :metadata, :token)
    """
    cursor.execute(statement, row | origin_columns(origin))
    key: int = cursor.execute("SELECT last_insert_rowid()").fetchone()[0]
    return key


def submitted(
    cursor: Cursor, key: int, request_id: str, at: float, http_request_id: str | None = None
) -> None:
    """Give a submission its id, whatever was thought of it before; the id is never dropped."""
    # REPLACE: an id that some watch accepted before; this row has the prompt.
    statement = """
        UPDATE OR REPLACE tasks
        SET request_id = :request_id, phase = 'queued', since = :at, http_request_id = :http,
            finished_at = NULL, delivered_at = NULL, error = NULL
        WHERE key = :key AND request_id IS NULL
    """
    row = {"key": key, "request_id": request_id, "at": stamp(at), "http": http_request_id}
    if cursor.execute(statement, row).rowcount == 0:  # deleted by hand, or settled otherwise
        accept(cursor, [request_id], at)


def refused(cursor: Cursor, key: int, reason: str, at: float) -> None:
    """End a submission of which no task came."""
    statement = """
        UPDATE tasks
        SET phase = 'refused', since = :at, finished_at = :at, delivered_at = :at, error = :error
        WHERE key = :key AND request_id IS NULL
    """
    cursor.execute(statement, {"key": key, "at": stamp(at), "error": error_json(reason)})


def settle(cursor: Cursor, key: int, request_id: str | None, at: float) -> None:
    """End the doubt about a submission: it has this id, or it did not arrive.

    :raises JournalError: There is no such submission, or it is not in doubt.
    """
    found = cursor.execute("SELECT phase, request_id FROM tasks WHERE key = ?", (key,)).fetchone()
    if found is None:
        message = f"the journal has no submission {key}; pending() lists those in doubt"
        raise JournalError(message)
    phase, known_id = found
    if phase != "in doubt":
        message = f"submission {key} is not in doubt: it is {phase}"
        raise JournalError(message, request_id=known_id)
    if request_id is None:
        refused(cursor, key, "looked up: it did not arrive", at)
    else:
        submitted(cursor, key, request_id, at)


# --- watching -----------------------------------------------------------------------------


def accept(
    cursor: Cursor,
    request_ids: Iterable[str],
    at: float,
    origins: Mapping[str, Origin] | None = None,
) -> None:
    """Insert ids that are to be watched.

    One that is pending stays as it is; one whose end was delivered is pending again. Of where a
    task was submitted only what was not known is filled in; new metadata takes the place of old.
    """
    now = stamp(at)
    insert = """
        INSERT INTO tasks (request_id, phase, status, since) VALUES (:request_id, 'queued', '', :at)
        ON CONFLICT (request_id) DO UPDATE SET
          phase = excluded.phase, status = excluded.status, since = excluded.since,
          finished_at = NULL, delivered_at = NULL, error = NULL
        WHERE delivered_at IS NOT NULL
    """
    cursor.executemany(insert, ({"request_id": name, "at": now} for name in request_ids))
    fill_in = """
        UPDATE tasks
        SET family = coalesce(family, :family), path = coalesce(path, :path),
            metadata = coalesce(:metadata, metadata)
        WHERE request_id = :request_id
    """
    rows = (origin_columns(origin, name) for name, origin in (origins or {}).items())
    cursor.executemany(fill_in, rows)


def record(
    cursor: Cursor,
    transition: Transition,
    delivered_at: float | None = None,
    *,
    ends_task: bool = True,
) -> None:
    """Write down the state of a task, and when its end was delivered."""
    since = stamp(transition.observed_at)
    task = transition.task
    row = {
        "request_id": transition.request_id,
        "phase": transition.phase.value,
        "status": transition.status,
        "since": since,
        "finished_at": since if ends_task and is_end(transition) else None,
        "delivered_at": None if delivered_at is None else stamp(delivered_at),
        "video_url": task.video_url,
        "upsample_video_url": task.upsample_video_url,
        "error": None if transition.error is None else error_json(transition.error),
        "task": msgspec.json.encode(task).decode(),
    }
    statement = """
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
    cursor.execute(statement, row)


def forget(cursor: Cursor, before: float, most: int) -> int:
    """Delete tasks whose end was delivered before a moment; return how many.

    :param before: Seconds since the epoch; any number of them.
    :param most: How many at once.
    """
    statement = """
        DELETE FROM tasks WHERE key IN (SELECT key FROM tasks WHERE delivered_at < ? LIMIT ?)
    """
    # nothing was delivered before 1970
    return cursor.execute(statement, (stamp(max(0.0, before)), most)).rowcount


# --- reading ------------------------------------------------------------------------------


def pending(cursor: Cursor, after: int, most: int) -> list[Pending]:
    """Return what is unfinished, in doubt or undelivered, by key.

    :param after: The key behind which to begin.
    :param most: How many at once.
    :raises JournalError: A row cannot be read; somebody has edited it.
    """
    return _pending(cursor, "delivered_at IS NULL AND key > ? ORDER BY key", after, most)


def undelivered(cursor: Cursor, after: int, most: int) -> list[Pending]:
    """Return the tasks whose end is known and was not delivered, by key.

    Parameters and errors as for `pending`.
    """
    where = "delivered_at IS NULL AND finished_at IS NOT NULL AND request_id IS NOT NULL"
    return _pending(cursor, f"{where} AND key > ? ORDER BY key", after, most)


def latest(cursor: Cursor, most: int) -> list[Pending]:
    """Return the tasks that were accepted last, finished or not, the newest first.

    :raises JournalError: A row cannot be read; somebody has edited it.
    """
    is_task = "(request_id IS NOT NULL OR delivered_at IS NULL)"  # else it was refused
    return _pending(cursor, f"{is_task} ORDER BY key DESC", most)


def unfinished(cursor: Cursor, after: int, most: int) -> list[Watched]:
    """Return the tasks that have an id and no end yet, by key.

    Parameters and errors as for `pending`.
    """
    where = "delivered_at IS NULL AND finished_at IS NULL AND request_id IS NOT NULL"
    return _read(cursor, WATCHED, f"WHERE {where} AND key > ? ORDER BY key LIMIT ?", after, most)


def watched(cursor: Cursor, request_ids: Sequence[str]) -> list[Watched]:
    """Return what is needed to watch tasks; those that the journal does not have are left out.

    :param request_ids: Each once; up to 999 of them, what any SQLite takes in one query.
    :raises JournalError: A row cannot be read; somebody has edited it.
    """
    places = ",".join("?" * len(request_ids))
    rows = _read(cursor, WATCHED, f"WHERE request_id IN ({places})", *request_ids)
    found = {row.request_id: row for row in rows}
    return [found[name] for name in request_ids if name in found]


def _pending(cursor: Cursor, where: str, *parameters: int) -> list[Pending]:
    rows = _read(cursor, PENDING, f"WHERE {where} LIMIT ?", *parameters)
    return [row.pending() for row in rows]


def _read(cursor: Cursor, reading: Reading[_R], which: str, *parameters: int | str) -> list[_R]:
    try:
        [text] = cursor.execute(reading.all_at_once(which), parameters).fetchone()
        return reading.decoded(text)
    except Exception:  # noqa: BLE001 - whatever it is, the rows will say it one by one
        rows = cursor.execute(reading.one_by_one(which), parameters)
        return [reading.row(row) for row in rows]


def request_id_of(cursor: Cursor, token: str) -> str | None:
    """Return the id of the task that a webhook names by a token, or None."""
    statement = """
        SELECT request_id FROM tasks WHERE token = ? AND request_id IS NOT NULL
        ORDER BY key DESC LIMIT 1
    """
    row = cursor.execute(statement, (token,)).fetchone()
    return None if row is None else str(row[0])


# --- notes --------------------------------------------------------------------------------


def save(cursor: Cursor, name: str, content: str) -> None:
    """Keep a text in place of the one of that name."""
    statement = """
        INSERT INTO notes (name, content) VALUES (?, ?)
        ON CONFLICT (name) DO UPDATE SET content = excluded.content
    """
    cursor.execute(statement, (name, content))


def load(cursor: Cursor, name: str) -> str | None:
    """Return the text that was kept under this name, or None."""
    row = cursor.execute("SELECT content FROM notes WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])
