"""Rows of a journal as values, and values as they stand in a row."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any, Final, Generic, TypeVar

import msgspec

from veo3_async._errors import JournalError
from veo3_async._metadata import Origin, metadata_from_json, metadata_json
from veo3_async._models import Phase, Transition, VideoTask
from veo3_async._stored_error import error_from_json

__all__ = [
    "PENDING",
    "WATCHED",
    "Pending",
    "PendingRow",
    "Reading",
    "Watched",
    "moment",
    "origin_columns",
    "stamp",
]


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


class Watched(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is needed to watch a task that has an id; the fields are columns."""

    key: int
    """Number of its row."""
    request_id: str
    token: str | None
    """By which a webhook names it; None where it has no webhook."""
    model: str | None
    """The model; None where it was not submitted here."""
    phase: Phase
    """The phase that was seen last, or queued."""
    since: float
    """Seconds since the epoch: when that phase was first seen, or the task submitted or accepted
    here."""
    was_seen: int
    """1 where a state of it was ever seen, else 0."""
    family: str | None
    path: str | None
    metadata: Any
    http_request_id: str | None

    @property
    def origin(self) -> Origin:
        """Where it is polled, and what belongs to it."""
        return Origin(
            self.family, self.path, self.metadata, bool(self.was_seen), self.http_request_id
        )


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


def origin_columns(origin: Origin, request_id: str | None = None) -> dict[str, str | None]:
    """Return the columns that say where a task is polled, and what is attached to it."""
    return {
        "request_id": request_id,
        "family": origin.family,
        "path": origin.path,
        "metadata": metadata_json(origin.metadata),
    }


# --- reading ------------------------------------------------------------------------------


class PendingRow(msgspec.Struct, array_like=True, gc=False):
    """What a `Pending` is made of; the fields are columns."""

    key: int
    request_id: str | None
    phase: str
    status: str
    since: float
    model: str | None
    prompt: str | None
    image: str | None
    submitted_at: float | None
    finished_at: float | None
    error: str | None
    task: str | None
    family: str | None
    path: str | None
    metadata: Any
    token: str | None
    http_request_id: str | None

    def pending(self) -> Pending:
        """Return the task.

        :raises JournalError: The row cannot be read; somebody has edited it.
        """
        try:
            return Pending(
                key=self.key,
                request_id=self.request_id,
                phase=None if self.request_id is None else _PHASES[self.phase],
                since=self.since,
                model=self.model,
                prompt=self.prompt,
                image=self.image,
                submitted_at=self.submitted_at,
                final=self._final(),
                family=self.family,
                path=self.path,
                metadata=self.metadata,
                token=self.token,
                http_request_id=self.http_request_id,
            )
        except (ValueError, KeyError, msgspec.MsgspecError) as error:
            raise _unreadable(self.key) from error

    def _final(self) -> Transition | None:
        if self.request_id is None or self.finished_at is None:
            return None
        task = msgspec.json.decode(self.task or "{}", type=VideoTask)
        error = None
        if self.error is not None:
            error = error_from_json(self.error, self.request_id, task)
        return Transition(
            request_id=self.request_id,
            phase=_PHASES[self.phase],
            previous=None,
            status=self.status,
            task=task,
            observed_at=self.finished_at,
            final=True,
            error=error,
            metadata=self.metadata,
        )


_R = TypeVar("_R", bound=msgspec.Struct)

_TIMES: Final = ("since", "submitted_at", "finished_at")
_COLUMNS: Final = {
    "was_seen": "task IS NOT NULL AS was_seen",
    # long, and only that of an end is wanted
    "task": "CASE WHEN finished_at IS NOT NULL THEN task END AS task",
}
_AS_JSON: Final = {
    "metadata": "json(metadata)",
    # What `stamp` has spelled, in seconds; what somebody else has is left as it is.
    **{
        name: f"CASE WHEN length({name}) = 23 THEN coalesce(CAST(julianday({name}) * 86400000"
        f" - 210866759999999.5 AS INTEGER) / 1000.0, {name}) ELSE {name} END"
        for name in _TIMES
    },
}


class Reading(Generic[_R]):
    """How rows of ``tasks`` become structs whose fields are columns."""

    def __init__(self, struct: type[_R]) -> None:
        self._struct: Final = struct
        self._fields: Final = struct.__struct_fields__
        self._columns: Final = ", ".join(_COLUMNS.get(name, name) for name in self._fields)
        self._as_json: Final = ", ".join(_AS_JSON.get(name, name) for name in self._fields)
        self._decoder: Final = msgspec.json.Decoder(list[struct])  # type: ignore[valid-type]

    def all_at_once(self, which: str) -> str:
        """Return the query that brings rows as one JSON array, to be decoded by `decoded`.

        It takes half the time of reading row by row, and hardly any with the lock of the
        interpreter held. It fails where a row is not as the journal writes it.

        :param which: The rest of a query of ``tasks``, from ``WHERE`` on.
        """
        rows = self.one_by_one(which)
        return f"SELECT json_group_array(json_array({self._as_json})) FROM ({rows})"  # noqa: S608 - ours

    def decoded(self, text: str) -> list[_R]:
        """Return the rows that `all_at_once` brought.

        :raises msgspec.MsgspecError: One is not as the journal writes it.
        """
        return self._decoder.decode(text)

    def one_by_one(self, which: str) -> str:
        """Return the query that brings the same rows one by one, to be read by `row`."""
        return f"SELECT {self._columns} FROM tasks {which}"  # noqa: S608 - ours

    def row(self, columns: Iterable[Any]) -> _R:
        """Return a row of `one_by_one`.

        :raises JournalError: It cannot be read; somebody has edited it.
        """
        row = dict(zip(self._fields, columns, strict=True))
        try:
            for name in {*_TIMES} & row.keys():
                row[name] = None if row[name] is None else moment(row[name])
            row["metadata"] = metadata_from_json(row["metadata"])
            return msgspec.convert([*row.values()], self._struct)
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            raise _unreadable(row["key"]) from error


PENDING: Final = Reading(PendingRow)
WATCHED: Final = Reading(Watched)


def _unreadable(key: object) -> JournalError:
    message = f"row {key} of the journal's tasks cannot be read; correct or delete it"
    return JournalError(message)
