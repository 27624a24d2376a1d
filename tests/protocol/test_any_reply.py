"""Any bytes at all give a task or a problem."""

from __future__ import annotations

import json
import random
import sys
from typing import Any, Final

import msgspec
import pytest
import wire
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from veo3_async._models import Phase, VideoTask
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.families.record import PHASE_OF_WORD
from veo3_async._protocol.http import MAX_BODY_BYTES

PAGE: Final = wire.content("record_completed_after_retries")
NUMBERS: Final = (
    *("created_at", "status_update_time", "completed_at"),
    *("retry_count", "max_retries", "error_sleep"),
)
SCALARS: Final = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text()
    | st.sampled_from(["completed", "failed", "null", "https://a/b.mp4", -10004, "-10010"])
)
NAMES: Final = st.sampled_from(
    [
        *(*PAGE, "error", "err_code", "message", "prompt", "url", "mediaId", "extra", "data"),
        *("detail", "result", "code", "request_id", "upsample_error", "phase", "type"),
    ]
)
VALUES: Final = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(), inner),
    max_leaves=20,
)
STATUS: Final = st.sampled_from([100, 200, 202, 204, 301, 304, 400, 401, 404, 429, 500, 503, 999])
SAMPLES: Final = [*wire.names("record_"), *wire.names("error_")]


def assert_judged(body: bytes, status: int) -> None:
    """Whatever came, it is a task or a problem, and each can be shown and written down."""
    outcome = wire.judged(body, status)
    assert isinstance(outcome, VideoTask | Problem)
    if isinstance(outcome, Problem):
        assert str(outcome.error("a")).startswith(outcome.message)
        assert outcome.message.isascii() or len(outcome.message.splitlines()) == 1
        assert outcome.body is None or len(outcome.body) <= 2048
        return
    telling = {outcome.status, outcome.best_url, outcome.running, outcome.status_update_time}
    assert telling - {"", None}
    numbers = [getattr(outcome, name) for name in NUMBERS]
    assert all(number is None or 0 <= number < 2**53 for number in numbers)
    assert outcome.is_final == (outcome.phase in {Phase.COMPLETED, Phase.COMPLETED_PLAIN}) or (
        outcome.phase is Phase.FAILED and (outcome.id or outcome.status_update_time)
    )
    assert not outcome.is_final or outcome.best_url or outcome.phase is Phase.FAILED
    msgspec.json.decode(msgspec.json.encode(outcome.to_dict()))


@given(st.binary(max_size=500), STATUS)
def test_any_bytes_give_a_task_or_a_problem(body: bytes, status: int) -> None:
    """No exception comes out of the reading."""
    assert_judged(body, status)


@given(VALUES, STATUS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_json_gives_a_task_or_a_problem(value: Any, status: int) -> None:
    """Fields of the page with any values in any nesting; NaN and huge numbers included."""
    assert_judged(json.dumps(value).encode(), status)


@given(st.dictionaries(NAMES, VALUES), STATUS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_object_gives_a_task_or_a_problem(value: Any, status: int) -> None:
    """The same, always an object, with the names that are looked at."""
    assert_judged(json.dumps(PAGE | value).encode(), status)
    assert_judged(json.dumps(value).encode(), status)


@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=3)), min_size=1, max_size=5),
    STATUS,
)
def test_any_damage_to_a_sample_gives_a_task_or_a_problem(
    name: str, cuts: list[tuple[int, bytes]], status: int
) -> None:
    """Bytes replaced, removed or put in anywhere."""
    body = wire.sample(name)
    for place, put in cuts:
        body = body[:place] + put + body[place + 1 :]
    assert_judged(body, status)


RUNNING_WORDS: Final = sorted(PHASE_OF_WORD.keys() - {"completed", "failed"})


@given(
    st.sampled_from(RUNNING_WORDS)
    | st.text().filter(lambda word: word.strip().lower() not in {"completed", "failed"}),
    st.dictionaries(
        st.sampled_from(sorted(PAGE.keys() - {"status", "video_url", "upsample_video_url"})),
        VALUES,
    ),
)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_fault_44_no_word_but_two_and_no_field_but_a_url_makes_a_final(
    word: str, fields: dict[str, Any]
) -> None:
    """Whatever ``running``, retries, times, errors and all other fields say."""
    outcome = wire.judged(json.dumps(fields | {"status": word}).encode())
    assert isinstance(outcome, Problem) or not outcome.is_final


@pytest.mark.parametrize(
    "opening", ["[", '{"a":', '{"error":[', '{"error":{"message":[', '{"data":']
)
def test_fault_11_any_depth_gives_a_task_or_a_problem(opening: str) -> None:
    """At every depth around the recursion limit, where one more call may be one too many."""
    inner = opening[opening.rindex(opening[-1]) :] if opening[-1] == "[" else opening
    closing = {"[": "]", ":": "}"}[inner[-1]]
    limit = sys.getrecursionlimit()
    for depth in [100, *range(limit - 200, limit + 10), 5000, 200_000]:
        tail = "}" * opening.removesuffix(inner).count("{")
        body = opening.removesuffix(inner) + inner * depth + "1" + closing * depth + tail
        assert_judged(body.encode(), 200)


def test_fault_11_three_megabytes_give_a_problem_with_a_little_evidence() -> None:
    """Even what is over the cap of the transport does no harm here."""
    big = json.dumps({"a": ["x" * 1000] * 3000})
    assert len(big) > 2 * MAX_BODY_BYTES
    assert len(wire.problem_of(big).body or "") == 2048
    task = wire.task_of(json.dumps({"status": "pending", "a": ["x" * 1000] * 3000}))
    assert task.status == "pending"


def test_a_long_life_of_random_bytes() -> None:
    """Bytes that look like nothing at all."""
    rng = random.Random(0)
    for length in range(0, 5000, 97):
        assert_judged(rng.randbytes(length), 200)
