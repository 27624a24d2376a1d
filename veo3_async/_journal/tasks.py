"""What a journal writes and reads, one function for each, on the cursor of a transaction.

Without I/O of its own: the values, and the statements that bring them into a row and back.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from veo3_async._errors import JournalError
from veo3_async._lifecycle.ends import is_end
from veo3_async._metadata import Origin, metadata_from_json, metadata_json
from veo3_async._models import Phase, Transition, VideoTask
from veo3_async._stored_error import error_from_json, error_json, storable

if TYPE_CHECKING:
    from sqlite3 import Cursor

__all__ = ["Pending"]


class Pending(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A task that was accepted and is not finished, or whose end was not delivered yet."""

    key: int
    """Number of its row; of a submission in doubt, what `Journal.settle` takes."""
    request_id: str | None
    """None where a submission was sent and its answer was never seen."""
    phase: Phase | None
    """The phase that was written last; None as long as there is no request id."""
    since: float
    """Seconds since the epoch: when that phase was first seen, or the submission sent."""
    model: str | None
    """The model; None, like prompt, image and submitted_at, where it was not submitted here."""
    prompt: str | None
    """The prompt."""
    image: str | None
    """URL of the source image, or None."""
    submitted_at: float | None
    """Seconds since the epoch."""
    final: Transition | None
    """The end of the task, if it is known and only remains to be delivered."""
    family: str | None = None
    """Which of the service's protocols it speaks; None where that is not known."""
    path: str | None = None
    """The path it was submitted to, which is where it is polled; None where that is not known."""
    metadata: Any = None
    """What the program attached to it, as JSON has it; None where nothing was."""
    token: str | None = None
    """By which a webhook names it; None where it has no webhook."""
    http_request_id: str | None = None
    """The service's id of the request that submitted it, for its cost; None: not known."""

    @property
    def in_doubt(self) -> bool:
        """Whether the submission may or may not have arrived: only the account can say."""
        return self.request_id is None


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
    cursor.execute(statement, row | _columns(origin))
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
    rows = (_columns(origin, name) for name, origin in (origins or {}).items())
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

_SELECT: Final = """
    SELECT key, request_id, phase, status, since, model, prompt, image, submitted_at,
           finished_at, error, task, family, path, metadata, token, http_request_id
    FROM tasks
"""


def pending(cursor: Cursor, after: int, most: int) -> list[Pending]:
    """Return what is unfinished, in doubt or undelivered, by key.

    :param after: The key behind which to begin.
    :param most: How many at once.
    :raises JournalError: A row cannot be read; somebody has edited it.
    """
    statement = f"{_SELECT} WHERE delivered_at IS NULL AND key > ? ORDER BY key LIMIT ?"
    return [_restored(row) for row in cursor.execute(statement, (after, most))]


def latest(cursor: Cursor, most: int) -> list[Pending]:
    """Return the tasks that were accepted last, finished or not, the newest first.

    :raises JournalError: A row cannot be read; somebody has edited it.
    """
    is_task = "request_id IS NOT NULL OR delivered_at IS NULL"  # else it was refused
    statement = f"{_SELECT} WHERE {is_task} ORDER BY key DESC LIMIT ?"
    return [_restored(row) for row in cursor.execute(statement, (most,))]


def known(cursor: Cursor, request_ids: Iterable[str]) -> dict[str, Origin]:
    """Return what is known of ids; those that the journal does not have are left out.

    :raises JournalError: A row cannot be read; somebody has edited it.
    """
    statement = """
        SELECT key, family, path, metadata, task IS NOT NULL, http_request_id
        FROM tasks WHERE request_id = ?
    """
    found = {}
    for name in request_ids:
        row = cursor.execute(statement, (name,)).fetchone()
        if row is not None:
            key, family, path, metadata, was_seen, http_id = row
            try:
                attached = metadata_from_json(metadata)
                found[name] = Origin(family, path, attached, bool(was_seen), http_id)
            except ValueError as error:
                raise _unreadable(key) from error
    return found


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


# --- rows and values ----------------------------------------------------------------------

_EPOCH: Final = datetime.datetime(1970, 1, 1)  # noqa: DTZ001 - as the times of a row
_PHASES: Final = {phase.value: phase for phase in Phase}


def stamp(at: float) -> str:
    """Spell seconds since the epoch as SQLite does, in UTC and to the millisecond."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(" ", "milliseconds")[:23]


def moment(text: str) -> float:
    """Return the seconds since the epoch that `stamp` spelled.

    :raises ValueError: It is no time, or one with a time zone.
    """
    at = datetime.datetime.fromisoformat(text)
    if at.tzinfo is not None:
        message = f"{text!r} has a time zone, and times here are UTC without one"
        raise ValueError(message)
    return (at - _EPOCH).total_seconds()


def _columns(origin: Origin, request_id: str | None = None) -> dict[str, str | None]:
    return {
        "request_id": request_id,
        "family": origin.family,
        "path": origin.path,
        "metadata": metadata_json(origin.metadata),
    }


class _Row(msgspec.Struct, array_like=True, gc=False):
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
    family: str | None
    path: str | None
    metadata: str | None
    token: str | None
    http_request_id: str | None


def _restored(columns: tuple[object, ...]) -> Pending:
    try:
        row = msgspec.convert(columns, _Row)
        return Pending(
            key=row.key,
            request_id=row.request_id,
            phase=None if row.request_id is None else _PHASES[row.phase],
            since=moment(row.since),
            model=row.model,
            prompt=row.prompt,
            image=row.image,
            submitted_at=None if row.submitted_at is None else moment(row.submitted_at),
            final=None if row.finished_at is None else _final(row, row.finished_at),
            family=row.family,
            path=row.path,
            metadata=metadata_from_json(row.metadata),
            token=row.token,
            http_request_id=row.http_request_id,
        )
    except (ValueError, KeyError, msgspec.MsgspecError) as error:
        raise _unreadable(columns[0]) from error


def _final(row: _Row, finished_at: str) -> Transition | None:
    if row.request_id is None:
        return None
    task = msgspec.json.decode(row.task or "{}", type=VideoTask)
    return Transition(
        request_id=row.request_id,
        phase=_PHASES[row.phase],
        previous=None,
        status=row.status,
        task=task,
        observed_at=moment(finished_at),
        final=True,
        error=None if row.error is None else error_from_json(row.error, row.request_id, task),
        metadata=metadata_from_json(row.metadata),
    )


def _unreadable(key: object) -> JournalError:
    message = f"row {key} of the journal's tasks cannot be read; correct or delete it"
    return JournalError(message)
