"""Rows and values of the journal: what goes in comes out."""

from __future__ import annotations

import contextlib
import copy
import datetime
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo3_async import _errors
from veo3_async._errors import JournalError, StillPending, TaskFailed, Veo3Error
from veo3_async._journal import rows, tasks
from veo3_async._journal.schema import JOURNAL
from veo3_async._lifecycle import ends
from veo3_async._metadata import Origin
from veo3_async._models import GenerationRequest, Phase, SourceImage, Transition, VideoTask

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
MOMENTS = st.floats(0, 4_000_000_000)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
TASKS = st.builds(
    VideoTask,
    id=TEXTS,
    status=TEXTS,
    running=st.none() | st.booleans(),
    created_at=st.none() | st.integers(0, 2**60),
    images=st.lists(st.builds(SourceImage, media_id=TEXTS), max_size=2).map(tuple),
    req=st.none() | st.builds(GenerationRequest, prompt=TEXTS),
    video_url=st.none() | TEXTS,
    extra=st.dictionaries(TEXTS, JSON, max_size=3),
)
ERRORS = st.builds(
    lambda name, message, **evidence: getattr(_errors, name)(message, **evidence),
    st.sampled_from(_errors.__all__),
    TEXTS,
    request_id=st.just("veo3-pro:1"),
    http_status=st.none() | st.integers(100, 599),
    err_code=st.none() | st.integers(-20_000, 0),
    attempts=st.integers(0, 1000),
    elapsed=st.none() | st.floats(0, 1e6),
)
ENDS = st.builds(
    Transition,
    request_id=st.just("veo3-pro:1"),
    phase=st.sampled_from(Phase),
    previous=st.none(),
    status=TEXTS,
    task=TASKS,
    observed_at=MOMENTS.map(lambda at: round(at, 3)),
    final=st.just(value=True),
    error=st.none() | ERRORS,
).filter(ends.is_end)


@contextlib.contextmanager
def database() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for migration in JOURNAL.migrations:
            for statement in migration:
                connection.execute(statement)
        yield connection


def stored(write: Callable[[sqlite3.Cursor], object]) -> rows.Pending:
    """Return what comes back of a row that was written."""
    with database() as connection:
        write(connection.cursor())
        return only(connection)


def only(connection: sqlite3.Connection) -> rows.Pending:
    [found] = tasks.pending(connection.cursor(), after=0, most=9)
    return found


@given(ENDS)
def test_an_end_is_restored(end: Transition) -> None:
    """Every end comes back equal, its error with the same class and evidence and the task."""
    final = stored(lambda cursor: tasks.record(cursor, end)).final

    assert final is not None
    assert msgspec.structs.replace(final, error=None) == msgspec.structs.replace(end, error=None)
    assert type(final.error) is type(end.error)
    if end.error is not None and final.error is not None:
        assert vars(final.error) == vars(end.error) | {"task": end.task}
        assert vars(copy.copy(final.error)) == vars(final.error)


SERVICE_SAID = [
    ("TaskFailed", None, True),
    ("CompletedWithoutVideo", None, True),
    ("TaskNotFound", -10010, True),
    ("InvalidRequest", -10011, True),
    ("TaskNotFound", None, False),  # a 404 of whatever sits between
    ("InvalidRequest", None, False),
    *((name, None, False) for name in ("StillPending", "UnexpectedReply", "JournalError")),
    *((name, -10004, False) for name in ("ServiceUnavailable", "QuotaExceeded", "ClientClosed")),
]


@pytest.mark.parametrize(("name", "err_code", "is_end"), SERVICE_SAID)
def test_fault_37_only_the_services_word_ends_what_was_paid_for(
    name: str, err_code: int | None, is_end: bool
) -> None:
    """A portal, a proxy, a full disk or a timeout ends a watch, and the task stays pending."""
    change = Transition(
        request_id="veo3-pro:1",
        phase=Phase.LOST,
        previous=None,
        status="",
        task=VideoTask(),
        observed_at=0.0,
        final=True,
        error=getattr(_errors, name)("so it was", err_code=err_code),
    )

    assert ends.is_end(change) is is_end
    assert (stored(lambda cursor: tasks.record(cursor, change)).final is not None) is is_end


@pytest.mark.parametrize("phase", [Phase.LOST, Phase.GENERATING])
def test_fault_40_losing_sight_of_a_task_is_no_end(phase: Phase) -> None:
    """A watch that gives up, with whatever it has, leaves the task pending."""
    for error in (None, StillPending("nothing has changed for 2 h"), Standstill("nothing changes")):
        final = phase is Phase.LOST
        change = Transition(
            request_id="veo3-pro:1",
            phase=phase,
            previous=None,
            status="video_generating",
            task=VideoTask(video_url="https://file.302.ai/storm.mp4"),
            observed_at=0.0,
            final=final,
            error=error,
        )
        assert not ends.is_end(change)


class Standstill(StillPending):
    """An error as a later version may have it."""


@given(st.text(), st.none() | st.text(), MOMENTS)
def test_any_prompt_is_kept(prompt: str, image: str | None, at: float) -> None:
    """A prompt comes back as it was; only what has no UTF-8 is spelled out."""
    task = stored(lambda cursor: tasks.intend(cursor, prompt, model="veo3-pro", image=image, at=at))

    assert task.prompt is not None
    assert task.prompt == prompt.encode(errors="backslashreplace").decode()
    assert (task.image is None) == (image is None)
    assert task.since == pytest.approx(at, abs=0.001)


@given(MOMENTS, MOMENTS)
def test_times_are_sqlites_own(one: float, other: float) -> None:
    """SQLite reads our times as they are meant, and their order is that of the moments."""
    with database() as connection:
        query = "SELECT (julianday(?) - 2440587.5) * 86400"
        [read] = connection.execute(query, (rows.stamp(one),)).fetchone()

    assert read == pytest.approx(one, abs=0.002)
    assert rows.moment(rows.stamp(one)) == pytest.approx(one, abs=0.001)
    assert (rows.stamp(one) < rows.stamp(other)) <= (one < other)


def test_a_time_is_utc() -> None:
    """A time is spelled as ``datetime('now')`` spells it, with milliseconds."""
    noon = datetime.datetime(2025, 6, 15, 12, tzinfo=datetime.UTC).timestamp()

    assert rows.stamp(noon + 0.0625) == "2025-06-15 12:00:00.062"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("phase", "asleep"),
        ("since", "yesterday"),
        ("finished_at", "x"),
        ("error", "{"),
        ("task", "[]"),
        ("metadata", "{"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(column: str, value: Any) -> None:
    """Whatever somebody has spoiled, it is one kind of error."""
    end = Transition(
        request_id="veo3-pro:1",
        phase=Phase.FAILED,
        previous=None,
        status="failed",
        task=VideoTask(),
        observed_at=0.0,
        final=True,
        error=TaskFailed("gave up"),
    )
    with database() as connection:
        tasks.record(connection.cursor(), end)
        connection.execute(f"UPDATE tasks SET {column} = ?", (value,))
        with pytest.raises(JournalError, match="row 1 of the journal's tasks cannot be read"):
            only(connection)


def test_an_error_of_an_unknown_class_is_still_an_error() -> None:
    """What another version called otherwise comes back as the base of all."""
    with database() as connection:
        connection.execute(
            "INSERT INTO tasks (request_id, phase, status, since, finished_at, error)"
            " VALUES ('veo3-pro:1', 'failed', '', '2025-06-15', '2025-06-15', ?)",
            ('{"message": "gave up", "type": "annotations"}',),
        )
        task = only(connection)

    assert task.final is not None
    assert type(task.final.error) is Veo3Error
    assert task.final.task == VideoTask()


# --- reading all at once ----------------------------------------------------------------------


def both_ways(connection: sqlite3.Connection, reading: rows.Reading[Any]) -> tuple[Any, Any]:
    """Return all rows, read as one JSON array and one by one."""
    [text] = connection.execute(reading.all_at_once("WHERE key > 0 ORDER BY key")).fetchone()
    one_by_one = connection.execute(reading.one_by_one("WHERE key > 0 ORDER BY key"))
    return reading.decoded(text), list(map(reading.row, one_by_one))


@given(
    ENDS,
    TEXTS,
    st.none() | TEXTS,
    MOMENTS,
    JSON.filter(lambda value: len(repr(value)) < 4000),
)
def test_all_at_once_reads_what_one_by_one_reads(
    end: Transition, prompt: str, image: str | None, at: float, metadata: Any
) -> None:
    """The quick way takes whatever the journal writes, and brings the same, to the last bit."""
    origin = Origin("unified", "/302/v2/video/create", metadata)
    with database() as connection:
        cursor = connection.cursor()
        tasks.accept(cursor, ["veo3-pro:0"], at, {"veo3-pro:0": origin})
        tasks.record(cursor, msgspec.structs.replace(end, request_id="veo3-pro:1"))
        tasks.record(cursor, msgspec.structs.replace(end, request_id="veo3-pro:2", final=False))
        key = tasks.intend(
            cursor, prompt, model="m", image=image, at=at, origin=origin, token="t0k"
        )
        quick, slow = both_ways(connection, rows.PENDING)
        assert quick == slow
        tasks.submitted(cursor, key, "veo3-pro:3", at, "2025-abc")
        quick, slow = both_ways(connection, rows.WATCHED)
        assert quick == slow


@pytest.mark.parametrize(
    ("column", "value", "field", "expected"),
    [
        ("metadata", '"\\ud800"', "metadata", "\ud800"),
        ("metadata", "NaN", "metadata", pytest.approx(float("nan"), nan_ok=True)),
        ("since", "2025-06-15", "since", 1749945600.0),
        ("since", "2025-06-15T00:00:00", "since", 1749945600.0),
    ],
)
def test_what_is_not_spelled_as_ours_is_read_one_by_one(
    column: str, value: str, field: str, expected: Any
) -> None:
    """Half a surrogate is no JSON to SQLite, and a person may have set a time by hand."""
    with database() as connection:
        tasks.accept(connection.cursor(), ["veo3-pro:1", "veo3-pro:2"], 0.0)
        connection.execute(f"UPDATE tasks SET {column} = ? WHERE key = 2", (value,))
        found = tasks.pending(connection.cursor(), after=0, most=9)
        watched = tasks.unfinished(connection.cursor(), after=0, most=9)

    assert [task.request_id for task in found] == ["veo3-pro:1", "veo3-pro:2"]
    assert getattr(found[1], field) == expected == getattr(watched[1], field)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("phase", "asleep"),
        ("since", "yesterday"),
        ("since", "2025-06-15T00:00:00+02:00"),
        ("metadata", "{"),
        ("path", b"\xff"),
    ],
)
def test_a_row_that_cannot_be_watched_is_named(column: str, value: Any) -> None:
    """It is one kind of error, which says which row it is."""
    with database() as connection:
        tasks.accept(connection.cursor(), ["veo3-pro:1", "veo3-pro:2"], 0.0)
        connection.execute(f"UPDATE tasks SET {column} = ? WHERE key = 2", (value,))
        with pytest.raises(JournalError, match="row 2 of the journal's tasks cannot be read"):
            tasks.unfinished(connection.cursor(), after=0, most=9)


@given(ENDS)
def test_what_is_pending_is_in_doubt_unfinished_or_undelivered(end: Transition) -> None:
    """Each in one of them; what was delivered is in none."""
    with database() as connection:
        cursor = connection.cursor()
        tasks.intend(cursor, "a storm", model="veo3-pro", image=None, at=0.0)
        tasks.accept(cursor, ["veo3-pro:2", "veo3-pro:3", "veo3-pro:4"], 0.0)
        tasks.record(cursor, msgspec.structs.replace(end, request_id="veo3-pro:3"))
        tasks.record(cursor, msgspec.structs.replace(end, request_id="veo3-pro:4"), 1.0)

        assert [task.key for task in tasks.pending(cursor, after=0, most=9)] == [1, 2, 3]
        assert [task.key for task in tasks.unfinished(cursor, after=0, most=9)] == [2]
        assert [task.key for task in tasks.undelivered(cursor, after=0, most=9)] == [3]
