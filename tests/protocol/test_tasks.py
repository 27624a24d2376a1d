"""Family C: what veo3-v2 says."""

from __future__ import annotations

from typing import Any, Final

import pytest
import wire

from veo3_async._models import Phase
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.families import poll_call, route_of, siblings, submitted
from veo3_async._protocol.http import Reply

TASKS: Final = route_of("veo3.1")
ID: Final = "a1b2c3d4-e5f6-4071-8293-a4b5c6d7e8f9"
URL: Final = "https://file.302.ai/gpt/imgs/22222222222222222222222222222222.mp4"

SAMPLES: Final[dict[str, tuple[Phase, bool, str | None, str | None]]] = {
    "tasks_in_processing": (Phase.GENERATING, False, None, None),
    "tasks_success": (Phase.COMPLETED, True, URL, None),
    "tasks_success_no_url": (Phase.GENERATED, True, None, None),
    "tasks_failure": (Phase.FAILED, True, None, None),
    "tasks_failure_with_reason": (Phase.FAILED, True, None, "rejected by the safety filter"),
}


def test_every_sample_of_the_family_is_in_the_table() -> None:
    """But for the request and the answer to it."""
    assert set(wire.names("tasks_")) - {"tasks_request", "tasks_submitted"} == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_each_sample_says_what_the_page_demands(name: str) -> None:
    """Phase, end, URL and reason; times in milliseconds."""
    phase, ended, url, reason = SAMPLES[name]
    task = wire.task_of(wire.sample(name), route=TASKS)
    said = wire.content(name)
    assert (task.id, task.phase, task.ended, task.best_url) == (ID, phase, ended, url)
    assert (task.failure_reason, task.family) == (reason, "tasks")
    assert (task.created_at, task.completed_at) == (said["startTime"], said["finishTime"])


def test_trap_16_the_id_is_in_data_and_the_path_in_the_message_is_not_ours() -> None:
    """One public client finds nothing there, and loses the video that it paid for."""
    reply = Reply(200, {}, wire.sample("tasks_submitted"))
    assert submitted(TASKS, reply, wall_now=0.0) == ID
    traced = wire.content("tasks_submitted") | {"request_id": "trace-1"}
    for body in (wire.content("tasks_submitted"), traced):
        reply = Reply(200, {}, wire.json_of(body))
        assert submitted(TASKS, reply, wall_now=0.0) == ID
    assert poll_call(TASKS, ID).target == f"/302/submit/veo3-v2/{ID}"
    assert siblings(TASKS) == ()


@pytest.mark.parametrize(
    ("request_id", "part"),
    [("a/b", "a%2Fb"), ("..", "%2E%2E"), ("a?b#c", "a%3Fb%23c"), ("a:b",) * 2],
)
def test_fault_28_an_id_is_one_part_of_the_path(request_id: str, part: str) -> None:
    """Whatever is in it."""
    assert poll_call(TASKS, request_id).target == f"/302/submit/veo3-v2/{part}"


@pytest.mark.parametrize(
    ("fields", "phase"),
    [
        ({"taskId": ID, "status": "in_progress"}, Phase.GENERATING),
        ({"taskId": ID, "status": "PROCESSING"}, Phase.GENERATING),
        ({"taskId": ID, "status": "FAILED", "error": {"message": "m"}}, Phase.FAILED),
        ({"startTime": "1767600000", "status": "ERROR"}, Phase.FAILED),
        ({"taskId": ID, "status": "REVIEWING"}, Phase.UNKNOWN),
        ({"taskId": ID, "status": "FAILURE", "videoUrl": URL}, Phase.COMPLETED),
        ({"taskId": ID, "status": "IN_PROCESSING", "videoUrl": [URL]}, Phase.COMPLETED),
        ({"code": "success", "data": {"taskId": ID, "status": "SUCCESS"}}, Phase.GENERATED),
        ({"data": ID, "code": "IN_PROGRESS", "message": "…"}, Phase.GENERATING),
    ],
)
def test_words_and_the_url_that_decides(fields: dict[str, Any], phase: Phase) -> None:
    """Those that one user met beside the documented ones, without case, in envelopes."""
    assert wire.task_of(fields, route=TASKS).phase is phase


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "FAILURE", "message": "saturated"},
        {"status": "SUCCESS", "data": {}},
        {"code": "success", "message": "", "data": None},
        {"status": "error", "id": ""},
        {"taskId": ID},
        {"taskId": "", "status": "brand_new"},
    ],
)
def test_fault_45_words_of_every_envelope_want_a_task(fields: dict[str, Any]) -> None:
    """Without an id or a time nobody says whose they are."""
    assert isinstance(wire.judged(fields, route=TASKS), Problem)


@pytest.mark.parametrize(
    ("fields", "phase"),
    [
        ({"status": "SUCCESS", "video_url": URL}, Phase.COMPLETED),
        ({"status": "SUCCESS", "videoUrls": [URL]}, Phase.COMPLETED),
        ({"status": "SUCCESS", "videoUrl": {"url": URL}}, Phase.COMPLETED),
        ({"status": "SUCCESS", "imageUrl": URL}, Phase.GENERATED),
        ({"status": "Succeeded"}, Phase.GENERATED),
        ({"status": "FAIL"}, Phase.FAILED),
        ({"status": "CANCELLED"}, Phase.UNKNOWN),
    ],
)
@pytest.mark.parametrize("name", ["taskId", "task_id"])
def test_fault_49_twins_of_words_and_fields_are_read(
    name: str, fields: dict[str, Any], phase: Phase
) -> None:
    """As other families have them; a source image is no video."""
    assert wire.task_of({name: "x"} | fields, route=TASKS).phase is phase
