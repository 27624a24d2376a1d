"""Family B: what fal's queue says."""

from __future__ import annotations

from typing import Any, Final

import pytest
import wire

from veo3_async._models import Phase, VideoTask
from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.families import route_of, siblings, submitted
from veo3_async._protocol.http import Reply

QUEUE: Final = route_of("veo3")
ID: Final = "7c1d2e3f-4a5b-4c6d-8e7f-90a1b2c3d4e5"
URL: Final = "https://file.302.ai/gpt/imgs/22222222222222222222222222222222.mp4"

# HTTP status, id, phase, whether it ended, URL, reason.
SAMPLES: Final[dict[str, tuple[int, str, Phase, bool, str | None, str | None]]] = {
    "queue_submitted": (200, ID, Phase.QUEUED, False, None, None),
    "queue_in_queue": (200, ID, Phase.QUEUED, False, None, None),
    "queue_in_progress": (202, ID, Phase.GENERATING, False, None, None),
    "queue_completed": (200, ID, Phase.COMPLETED, True, URL, None),
    "queue_completed_bare": (200, "", Phase.COMPLETED, True, URL, None),
    "queue_completed_no_video_yet": (200, ID, Phase.GENERATED, True, None, None),
    "queue_completed_with_error": (
        *(200, ID, Phase.FAILED, True, None),
        "The request was rejected",
    ),
    "queue_failed": (200, ID, Phase.FAILED, True, None, "generation failed"),
    "queue_error_detail_list": (422, "", Phase.FAILED, True, None, "The content was flagged."),
}


def test_every_sample_of_the_family_is_in_the_table() -> None:
    """But for the requests, and for the error that passes."""
    rest = {"queue_request_veo2", "queue_request_veo3", "queue_error_detail_text"}
    assert set(wire.names("queue_")) - rest == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_each_sample_says_what_the_page_demands(name: str) -> None:
    """Id, phase, end, URL and reason; nothing of the reply is lost."""
    status, own_id, phase, ended, url, reason = SAMPLES[name]
    task = wire.task_of(wire.sample(name), status, route=QUEUE)
    assert (task.id, task.phase, task.ended, task.best_url) == (own_id, phase, ended, url)
    assert (task.failure_reason, task.family, task.wants_upsample) == (reason, "queue", False)
    said = wire.content(name)
    assert set(said) - {"status", "request_id"} <= set(task.extra)


def test_detail_as_a_text_passes() -> None:
    """With 503 or 504; and a page of FastAPI is nobody's word."""
    for status in (503, 504):
        problem = wire.problem_of(wire.sample("queue_error_detail_text"), status, route=QUEUE)
        assert problem.kind in {Kind.OVERLOADED, Kind.SERVER}
    assert wire.problem_of({"detail": "Not Found"}, 404, route=QUEUE).kind is Kind.UNEXPECTED


@pytest.mark.parametrize(
    ("fields", "phase"),
    [
        ({"status": "completed", "video": {"url": URL}}, Phase.COMPLETED),
        ({"status": "IN_PROGRESS", "video": {"url": URL}}, Phase.COMPLETED),
        ({"video": URL}, Phase.COMPLETED),
        ({"video": [{"url": URL}]}, Phase.COMPLETED),
        ({"data": {"video": {"url": URL}, "status": "COMPLETED"}}, Phase.COMPLETED),
        ({"status": "in_queue"}, Phase.QUEUED),
        ({"status": "COMPLETED", "detail": "blocked"}, Phase.FAILED),
        ({"status": "COMPLETED", "video": {}}, Phase.GENERATED),
        ({"status": "COMPLETED", "video": None, "error": None}, Phase.GENERATED),
        ({"status": "WARMING_UP", "request_id": ID}, Phase.UNKNOWN),
        ({"status": "CANCELLED", "request_id": ID}, Phase.UNKNOWN),
        ({"status": "COMPLETED", "response": {"video": {"url": URL}}}, Phase.COMPLETED),
        ({"status": "OK", "payload": {"video": {"url": URL}}}, Phase.COMPLETED),
        ({"data": {"video": {"url": URL}}}, Phase.COMPLETED),
        ({"status": "COMPLETED", "videos": [{"url": URL}]}, Phase.COMPLETED),
        ({"status": "COMPLETED", "video_url": URL}, Phase.COMPLETED),
        ({"status": "SUCCEEDED", "request_id": ID}, Phase.GENERATED),
        ({"status": "FAILURE", "request_id": ID}, Phase.FAILED),
        ({"status": "ERROR", "request_id": wire.ID}, Phase.FAILED),
    ],
)
def test_trap_21_a_video_is_the_end_with_or_without_a_status(
    fields: dict[str, Any], phase: Phase
) -> None:
    """Words are compared without case, ``COMPLETED`` with an error is a failure."""
    assert wire.task_of(fields, route=QUEUE).phase is phase


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"status": "FAILED", "error": "saturated"},
        {"status": "COMPLETED", "error": {"err_code": -10004}},
        {"status": "ok"},
        {"request_id": ID},
        {"id": "", "status": "error", "status_update_time": 0, "error": "saturated"},
        {"status": "IN_QUEUE", "error": {"err_code": -10008}},
        {"status": "FAILED", "request_id": "null", "error": "saturated"},
        {"status": "error", "request_id": "r-1", "message": "busy", "error": "busy"},
        {"status": "success", "message": "ok"},
    ],
)
def test_fault_45_what_names_no_task_is_no_failure(fields: dict[str, Any]) -> None:
    """A refusal passes, or says who must act."""
    assert isinstance(wire.judged(fields, route=QUEUE), Problem)


def test_only_fals_own_list_of_details_is_final() -> None:
    """Another list, and one under a 5xx, is an outage."""
    own = wire.sample("queue_error_detail_list")
    assert isinstance(wire.judged(own, 400, route=QUEUE), VideoTask)
    assert isinstance(wire.judged(own, 503, route=QUEUE), Problem)
    assert isinstance(wire.judged({"detail": ["x"]}, 422, route=QUEUE), Problem)
    assert isinstance(wire.judged({"detail": []}, 422, route=QUEUE), Problem)
    of_a_gateway = {"loc": ["query", "request_id"], "msg": "field required", "type": "missing"}
    assert isinstance(wire.judged({"detail": [of_a_gateway]}, 422, route=QUEUE), Problem)


def test_trap_15_the_request_id_is_the_tasks_here() -> None:
    """In this family; of the tables of errors it still is not."""
    reply = Reply(200, {}, wire.sample("queue_submitted"))
    assert submitted(QUEUE, reply, wall_now=0.0) == ID
    reply = Reply(200, {}, wire.sample("error_code_balance"))
    assert isinstance(submitted(QUEUE, reply, wall_now=0.0), Problem)
    assert [route.path for route in siblings(QUEUE)] == ["/302/submit/veo2"]
