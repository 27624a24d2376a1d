"""Family D: what the unified endpoint says, and the mistakes of its public clients."""

from __future__ import annotations

from typing import Any, Final

import pytest
import wire

from veo3_async._models import Phase
from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.families import poll_call, route_of, submit_call, submitted
from veo3_async._protocol.families.unified import PHASE_OF_WORD
from veo3_async._protocol.http import Reply
from veo3_async._protocol.submission import SubmitVerdict, submit_verdict

UNIFIED: Final = route_of("google-veo3.1")
ID: Final = "301500000000001"
UUID: Final = "b7e6d5c4-b3a2-4190-8f7e-6d5c4b3a2910"
URL: Final = "https://file.302.ai/gpt/imgs/22222222222222222222222222222222.mp4"
STARTED: Final = 1767600000529
UPSTREAM: Final = "at the provider, as veo3-pro:3f2b7a10-5c4d-4e8f-9a1b-2c3d4e5f6071"

SAMPLES: Final[dict[str, tuple[Phase, bool, str | None, str | None]]] = {
    "unified_created": (Phase.QUEUED, False, None, None),
    "unified_created_uuid": (Phase.QUEUED, False, None, None),
    "unified_created_failed": (Phase.FAILED, True, None, "Invalid request"),
    "unified_pending": (Phase.QUEUED, False, None, None),
    "unified_processing": (Phase.GENERATING, False, None, None),
    "unified_completed": (Phase.COMPLETED, True, URL, None),
    "unified_completed_no_url": (Phase.GENERATED, True, None, None),
    "unified_completed_other_types": (Phase.COMPLETED, True, URL, None),
    "unified_completed_raw_text": (Phase.COMPLETED, True, URL, None),
    "unified_completed_url_in_raw": (Phase.COMPLETED, True, URL, None),
    "unified_status_alias": (Phase.COMPLETED, True, URL, None),
    "unified_failed": (Phase.FAILED, True, None, "generation failed"),
    "unified_failed_network": (
        *(Phase.FAILED, True, None),
        f"connection to the provider timed out; it may have been made and charged {UPSTREAM}",
    ),
    "unified_failed_reason_in_raw": (
        *(Phase.FAILED, True, None),
        "the input may contain inappropriate content",
    ),
}
OTHERS: Final = {"unified_request", "unified_request_image", "unified_models"} | {
    *("unified_webhook_completed", "unified_webhook_failed"),
}


def test_every_sample_of_the_family_is_in_the_table() -> None:
    """But for requests, webhooks and the list of models."""
    assert set(wire.names("unified_")) - OTHERS == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_each_sample_says_what_the_page_demands(name: str) -> None:
    """Id, phase, end, URL and reason; times of ISO 8601 in milliseconds."""
    phase, ended, url, reason = SAMPLES[name]
    task = wire.task_of(wire.sample(name), route=UNIFIED)
    assert task.id == (UUID if name.endswith("uuid") else ID)
    assert (task.phase, task.ended, task.best_url) == (phase, ended, url)
    assert (task.failure_reason, task.family) == (reason, "unified")
    assert task.created_at == (None if name.endswith("other_types") else STARTED)


def test_a_reply_is_kept_whole() -> None:
    """What the record has no name for is in ``extra``; attempts are retries and one."""
    task = wire.task_of(wire.sample("unified_failed"), route=UNIFIED)
    assert task.retry_count == 2
    assert task.completed_at == 1767600064529
    assert task.status_update_time == 1767600064529
    assert task.req is not None
    assert (task.req.model, task.req.prompt) == ("google-veo3.1", "a lighthouse in a storm")
    assert task.req.extra == {"duration": 8}
    assert {"upstream_task_id", "execution_time", "error", "mode"} <= set(task.extra)


@pytest.mark.parametrize("word", PHASE_OF_WORD)
def test_words_are_compared_without_case_aliases_included(word: str) -> None:
    """And whatever else may be said runs."""
    for written in (word, word.upper()):
        task = wire.task_of({"task_id": ID, "status": written}, route=UNIFIED)
        assert (task.phase, task.status) == (PHASE_OF_WORD[word], written)
    new = wire.task_of({"task_id": ID, "status": "reviewing"}, route=UNIFIED)
    assert (new.phase, new.ended) == (Phase.UNKNOWN, False)


@pytest.mark.parametrize(
    "raw",
    [
        {"file": {"download_url": URL}},
        {"upsample_video_url": URL, "video_url": "https://x/plain.mp4"},
        {"video_url": URL},
        {"video": {"url": URL}},
        {"video": URL},
        {"file": {"download_url": ""}, "video": [URL]},
        {"data": {"video_url": URL}},
        [{"video_url": URL}],
        '{"video": {"url": "' + URL + '"}}',
    ],
)
def test_the_url_is_in_the_known_places_of_the_raw_reply(raw: Any) -> None:
    """Of a task that has ended, as an object and as JSON in a text."""
    ended = {"task_id": ID, "status": "completed", "video_url": "", "raw_response": raw}
    assert wire.task_of(ended, route=UNIFIED).best_url == URL
    running = ended | {"status": "processing"}
    assert wire.task_of(running, route=UNIFIED).best_url is None


@pytest.mark.parametrize("word", ["rejected", "blocked"])
def test_fault_12_words_of_gateways_are_an_end_when_they_stay(word: str) -> None:
    """As in every family."""
    task = wire.task_of({"task_id": ID, "status": word}, route=UNIFIED)
    assert (task.phase, task.ended) == (Phase.UNKNOWN, True)


@pytest.mark.parametrize("fields", [{"videoUrl": URL}, {"url": URL}, {"output": {"video": URL}}])
def test_fault_49_the_url_of_what_has_ended_may_have_another_name(fields: dict[str, Any]) -> None:
    """As other endpoints of the service have it."""
    ended = {"task_id": ID, "status": "completed"}
    assert wire.task_of(ended | fields, route=UNIFIED).best_url == URL


@pytest.mark.parametrize(
    "raw",
    [
        {"output": {"url": URL}},
        {"image": URL, "images": [URL], "thumbnail": URL},
        "not JSON " + URL,
        [URL, URL],
        5,
    ],
)
def test_trap_23_no_other_text_is_taken_for_the_video(raw: Any) -> None:
    """Source images are URLs, too."""
    body = {
        "task_id": ID,
        "status": "completed",
        "req": {"image": URL, "prompt": URL},
        "raw_response": raw,
    }
    task = wire.task_of(body, route=UNIFIED)
    assert (task.phase, task.best_url) == (Phase.GENERATED, None)


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "completed"},
        {"status": "failed", "error": "saturated"},
        {"status": "ok"},
        {"task_id": ID},
        {"status": "error", "id": "", "error": "saturated"},
        {"total": 2, "models": []},
    ],
)
def test_fault_45_what_names_no_task_is_no_state(fields: dict[str, Any]) -> None:
    """A refusal or a stranger's word."""
    assert isinstance(wire.judged(fields, route=UNIFIED), Problem)


def answered(name: str) -> str | Problem:
    return submitted(UNIFIED, Reply(200, {}, wire.sample(name)), wall_now=0.0)


def test_a_submission_names_digits_or_a_uuid_and_always_a_text() -> None:
    """The ``request_id`` of a webhook is never one; a creation that failed is refused."""
    assert answered("unified_created") == ID
    assert answered("unified_created_uuid") == UUID
    as_number = Reply(200, {}, b'{"task_id": 301504317665393}')
    assert submitted(UNIFIED, as_number, wall_now=0.0) == "301504317665393"
    refused = answered("unified_created_failed")
    assert isinstance(refused, Problem)
    assert (refused.kind, submit_verdict(refused)) == (Kind.INVALID, SubmitVerdict.REFUSED)
    for name in ("unified_webhook_completed", "unified_webhook_failed"):
        assert isinstance(answered(name), Problem)


# --- the mistakes of eight public clients -------------------------------------------------------


def test_client_1_a_fetch_that_fails_is_no_failed_task() -> None:
    """The web tool stores it as one, and the video is lost."""
    for status, body in ((500, b""), (502, b"<html>"), (404, b""), (200, b"")):
        assert isinstance(wire.judged(body, status, route=UNIFIED), Problem)


@pytest.mark.parametrize("status", [408, 409, 500, 502, 504])
def test_client_2_a_post_that_may_have_arrived_is_not_sent_again(status: int) -> None:
    """The command line of the service does, and may pay twice; 429 and 503 took nothing."""
    outcome = submitted(UNIFIED, Reply(status, {}, b""), wall_now=0.0)
    assert isinstance(outcome, Problem)
    assert submit_verdict(outcome) is SubmitVerdict.UNCERTAIN


@pytest.mark.parametrize("time", [212, "212.4", 1.5, None, [212], {"s": 1}])
@pytest.mark.parametrize("raw", [{}, "{}", "text", None, [], 5])
def test_client_3_fields_of_other_types_cost_no_poll(time: Any, raw: Any) -> None:
    """A bot in Go types them, and each poll is a decode error."""
    body = wire.content("unified_completed") | {"execution_time": time, "raw_response": raw}
    assert wire.task_of(body, route=UNIFIED).best_url == URL


def test_client_3_completed_without_a_url_is_asked_again() -> None:
    """The same bot takes it for an error at once."""
    task = wire.task_of(wire.sample("unified_completed_no_url"), route=UNIFIED)
    assert (task.ended, task.is_final) == (True, False)


def test_client_4_one_poll_that_is_no_success_ends_nothing() -> None:
    """A gateway in C# ends the watch."""
    for status in (301, 403, 404, 418, 429, 503):
        problem = wire.problem_of(b"", status, route=UNIFIED)
        assert problem.kind in {Kind.UNEXPECTED, Kind.THROTTLED, Kind.OVERLOADED}


def test_client_5_the_family_is_kept_and_c_has_its_id() -> None:
    """A canvas asks family after family, and loses the id that C has in ``data``."""
    assert poll_call(UNIFIED, ID).target == f"/302/v2/video/fetch/{ID}"
    tasks = route_of("veo3.1")
    reply = Reply(200, {}, wire.sample("tasks_submitted"))
    assert submitted(tasks, reply, wall_now=0.0) == "a1b2c3d4-e5f6-4071-8293-a4b5c6d7e8f9"


@pytest.mark.parametrize("word", ["reviewing", "uploading", "0", "Pending!", "审核中"])
def test_client_6_a_new_word_ends_no_live_task(word: str) -> None:
    """A benchmark takes all it does not know for failed."""
    task = wire.task_of({"task_id": ID, "status": word}, route=UNIFIED)
    assert (task.phase, task.is_final) == (Phase.UNKNOWN, False)


def test_client_7_an_unused_webhook_is_left_away() -> None:
    """A canvas sends ``webhook=undefined``."""
    assert submit_call(UNIFIED, "p").target == "/302/v2/video/create"
    hooked = submit_call(UNIFIED, "p", webhook="https://bot.example/veo?token=a&b=c")
    assert hooked.target == (
        "/302/v2/video/create?webhook=https%3A%2F%2Fbot.example%2Fveo%3Ftoken%3Da%26b%3Dc"
    )


def test_client_8_a_failure_says_why() -> None:
    """A script shows no reason."""
    for name in ("unified_failed", "unified_failed_network", "unified_failed_reason_in_raw"):
        assert wire.task_of(wire.sample(name), route=UNIFIED).failure_reason


@pytest.mark.parametrize(
    "raw",
    [
        "blocked",
        {"msg": "blocked"},
        {"output": {"message": "blocked"}},
        '{"output": {"message": "blocked"}}',
        {"data": {"task_status_msg": "blocked"}, "code": 0, "message": "SUCCESS"},
        {"base_resp": {"status_code": 1026, "status_msg": "blocked"}},
    ],
)
def test_fault_46_the_provider_may_be_the_one_that_says_why(raw: Any) -> None:
    """In the words and the shape of its own."""
    body = {"task_id": ID, "status": "failed", "video_url": "", "raw_response": raw}
    assert wire.task_of(body, route=UNIFIED).failure_reason == "blocked"
