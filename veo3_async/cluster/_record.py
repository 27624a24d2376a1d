"""What the records of an id say, as JSON: how far it is, and which transition it brings.

Workers hold nothing between two polls: the last record of an id is all that is known of it.
Most records bring a transition. Some only keep count (of faults in a row, of a service that
says it has ended); those carry the last transition along, so that who comes late learns of it.
Times are seconds since the epoch, for they cross machines.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from veo3_async._lifecycle.ends import is_end
from veo3_async._lifecycle.phases import NEW, State, remembered
from veo3_async._lifecycle.retries import NO_FAULTS, Streak
from veo3_async._metadata import Origin
from veo3_async._models import Phase, Transition, VideoTask
from veo3_async._stored_error import StoredError, restored_error, stored_error

__all__ = ["Record", "decode", "encode"]

_MAX_BYTES: Final = 256 * 1024  # a server takes 1 MB by default; a task is about 2 kB


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one id."""

    request_id: str
    watch: int
    """Sequence of the message by which it is watched; another one is another watch."""
    serial: int = 0
    """Transitions so far."""
    brought_by: int = 0
    """Sequence of the record that brought `change`; 0 in that record itself."""
    change: Transition | None = None
    """The last transition; None before the first."""
    age: float = 0.0
    """Seconds that its phase had lasted when it was first seen."""
    state: State = NEW
    """What the lifecycle remembers; ``ended_since`` is epoch seconds."""
    streak: Streak = NO_FAULTS
    """Faults in a row; ``unknown_since`` is epoch seconds."""
    origin: Origin = Origin()
    """Where it is polled, and what was attached to it."""

    @property
    def final(self) -> bool:
        """Whether an end was delivered to listeners."""
        return self.change is not None and self.change.final

    @property
    def ended(self) -> bool:
        """Whether the service itself ended it, so that nothing follows."""
        return self.change is not None and is_end(self.change)


class _Streak(msgspec.Struct, frozen=True, omit_defaults=True):
    faults: int = 0
    unknown_since: float | None = None  # JSON has no infinity


class _Change(msgspec.Struct, frozen=True, omit_defaults=True):
    phase: Phase
    previous: Phase | None
    status: str
    task: VideoTask
    observed_at: float
    final: bool = False
    eta: float | None = None
    error: StoredError | None = None


class _Row(msgspec.Struct, frozen=True, omit_defaults=True):
    watch: int
    state: State
    serial: int = 0
    brought_by: int = 0
    change: _Change | None = None
    age: float = 0.0
    streak: _Streak | None = None
    family: str | None = None
    path: str | None = None
    metadata: Any = None


def encode(record: Record) -> bytes:
    """Return the JSON of a record; of a giant task only what matters is in it."""
    payload = msgspec.json.encode(_row(record))
    if len(payload) <= _MAX_BYTES or record.change is None:
        return payload
    change = record.change
    task = msgspec.structs.replace(
        remembered(record.state, record.request_id),
        upsample_video_url=change.task.upsample_video_url,
        completed_at=change.task.completed_at,
    )
    small = msgspec.structs.replace(change, task=task)
    return msgspec.json.encode(_row(msgspec.structs.replace(record, change=small)))


def decode(payload: bytes, request_id: str) -> Record:
    """Return the record that a message says.

    :raises ValueError: It says none.
    """
    try:
        row = msgspec.json.decode(payload, type=_Row)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        message = f"not a record: {error}"
        raise ValueError(message) from None
    return Record(
        request_id=request_id,
        watch=row.watch,
        serial=row.serial,
        brought_by=row.brought_by,
        change=None if row.change is None else _transition(row.change, request_id, row.metadata),
        age=row.age,
        state=row.state,
        streak=_streak(row.streak),
        origin=Origin(row.family, row.path, row.metadata),
    )


def _row(record: Record) -> _Row:
    streak = record.streak
    return _Row(
        watch=record.watch,
        state=record.state,
        serial=record.serial,
        brought_by=record.brought_by,
        change=None if record.change is None else _change(record.change),
        age=record.age,
        streak=None
        if streak == NO_FAULTS
        else _Streak(
            streak.faults,
            streak.unknown_since if math.isfinite(streak.unknown_since) else None,
        ),
        family=record.origin.family,
        path=record.origin.path,
        metadata=record.origin.metadata,
    )


def _streak(kept: _Streak | None) -> Streak:
    if kept is None:
        return NO_FAULTS
    since = math.inf if kept.unknown_since is None else kept.unknown_since
    return Streak(kept.faults, since)


def _change(transition: Transition) -> _Change:
    return _Change(
        phase=transition.phase,
        previous=transition.previous,
        status=transition.status,
        task=transition.task,
        observed_at=transition.observed_at,
        final=transition.final,
        eta=transition.eta,
        error=None if transition.error is None else stored_error(transition.error),
    )


def _transition(change: _Change, request_id: str, metadata: object) -> Transition:
    return Transition(
        request_id=request_id,
        phase=change.phase,
        previous=change.previous,
        status=change.status,
        task=change.task,
        observed_at=change.observed_at,
        final=change.final,
        eta=change.eta,
        error=None
        if change.error is None
        else restored_error(change.error, request_id, change.task),
        metadata=metadata,
    )
