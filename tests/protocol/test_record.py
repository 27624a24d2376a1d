"""Family A: what its records say."""

from __future__ import annotations

import email.utils
import json
from typing import Any, Final

import msgspec
import pytest
import wire
from wire import judged, task_of

from veo3_async._models import GenerationRequest, Phase, SourceImage, VideoTask
from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.families.record import PHASE_OF_WORD
from veo3_async._protocol.families.record import task_of as task_of_fields

Q, P, G, D, U = (
    Phase.QUEUED,
    Phase.PREPARING,
    Phase.GENERATING,
    Phase.GENERATED,
    Phase.UPSAMPLING,
)
R, X, C, CP, F = (
    Phase.RETRYING,
    Phase.UNKNOWN,
    Phase.COMPLETED,
    Phase.COMPLETED_PLAIN,
    Phase.FAILED,
)
OURS: Final = {"phase", "failure_reason", "family", "ended", "wants_upsample", "extra"}
PLAIN: Final = "https://file.302.ai/gpt/imgs/22222222222222222222222222222222.mp4"
UPSAMPLED: Final = "https://file.302.ai/gpt/imgs/33333333333333333333333333333333.mp4"

# What each sample says: the phase, whether it is said to have ended, and the reason.
SAMPLES: Final[dict[str, tuple[Phase, bool, str | None]]] = {
    "completed": (C, True, None),
    "record_completed_after_retries": (C, True, None),
    "record_completed_escaped": (C, True, None),
    "record_completed_in_data": (C, True, None),
    "record_completed_in_detail": (C, True, None),
    "record_completed_no_url": (D, True, None),
    "record_completed_other_id": (C, True, None),
    "record_completed_plain_only": (CP, True, "upsampling timed out"),
    "record_completed_seconds": (C, True, None),
    "record_completed_text": (C, True, None),
    "record_completed_url_is_upsampled": (C, True, None),
    "record_completed_without_upsample": (C, True, None),
    "record_failed": (F, True, "your request contains unsafe prompt or images"),
    "record_failed_error_object": (F, True, "生成过程中出现异常"),
    "record_failed_error_string": (F, True, "check status failed: "),
    "record_failed_image": (F, True, "Request failed with status code 404"),
    "record_failed_no_reason": (F, True, None),
    "record_failed_with_plain_video": (CP, True, "upsampling timed out"),
    "record_image_cropping": (P, False, None),
    "record_image_downloading": (P, False, None),
    "record_image_downloading_minimal": (P, False, None),
    "record_image_failed": (P, False, "Request failed with status code 404"),
    "record_image_processing_completed": (P, False, None),
    "record_image_uploading": (P, False, None),
    "record_pending": (Q, False, None),
    "record_pending_minimal": (Q, False, None),
    "record_prompt_enhancement_checking": (P, False, None),
    "record_prompt_enhancing": (P, False, None),
    "record_unknown_status": (X, False, None),
    "record_video_generating": (G, False, None),
    "record_video_generating_in_pool": (G, False, None),
    "record_video_generation_completed": (D, False, None),
    "record_video_generation_completed_in_pool": (D, False, None),
    "record_video_generation_failed_last_attempt": (R, False, "your request contains unsafe"),
    "record_video_generation_failed_running": (R, False, "[503] upstream overloaded"),
    "record_video_generation_failed_waiting": (R, False, "your request contains unsafe"),
    "record_video_upsampling": (U, False, None),
    "record_video_upsampling_completed": (C, False, None),
    "record_video_upsampling_failed": (R, False, "upsampling timed out"),
}
NO_STATES: Final = {"record_request", "record_request_extra", "record_request_frames"} | {
    "record_submitted"
}


def test_every_sample_of_the_family_is_in_the_table() -> None:
    """None is left out, and none is made up."""
    assert {"completed", *wire.names("record_")} - NO_STATES == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_each_sample_says_what_the_page_demands(name: str) -> None:
    """Phase, end and reason; the upsampled video where the phase says that it is there."""
    phase, ended, reason = SAMPLES[name]
    task = task_of(wire.sample(name))
    assert (task.phase, task.ended, task.family) == (phase, ended, "record")
    assert task.is_final == phase.is_final == (phase in {C, CP, F})
    assert (task.failure_reason or "").startswith(reason or "")
    assert (task.failure_reason is None) == (reason is None)
    if phase is C and task.wants_upsample:
        assert task.best_url == task.upsample_video_url
        assert (task.best_url or "").endswith(".mp4")


@pytest.mark.parametrize("name", sorted(NO_STATES))
def test_what_is_no_state_is_a_problem(name: str) -> None:
    """A request, or an id alone, says nothing of a task."""
    assert wire.problem_of(wire.sample(name)).kind is Kind.UNEXPECTED


def test_the_documented_reply_has_every_field_of_the_page() -> None:
    """The page's own example, Chinese prompt and ``mediaId`` included, and nothing left over."""
    page = wire.content("completed")
    image, request = page["images"][0], page["req"]
    rest = {name: value for name, value in page.items() if name not in {"images", "req"}}
    assert task_of(wire.sample("completed")) == VideoTask(
        images=(SourceImage(url=image["url"], status=image["status"], media_id=image["mediaId"]),),
        req=GenerationRequest(
            model="veo3-pro",
            prompt="这张图片有什么",
            images=tuple(request["images"]),
            enhance_prompt=True,
            enable_upsample=True,
        ),
        phase=C,
        family="record",
        ended=True,
        wants_upsample=True,
        **rest,
    )
    assert len(page) == 18


def said_by(value: object) -> Any:
    """Return a value as the JSON that it was, without what has its default."""
    if isinstance(value, tuple):
        return [said_by(item) for item in value]
    if not isinstance(value, msgspec.Struct):
        return value
    fields = {
        field.encode_name: said_by(getattr(value, field.name))
        for field in msgspec.structs.fields(type(value))
        if field.name not in OURS
    }
    return {name: said for name, said in fields.items() if said not in (None, "", [])} | (
        value.extra  # type: ignore[attr-defined]
    )


def without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: without_nulls(item) for name, item in value.items() if item not in (None, [], "")}


CHANGED: Final = {
    "record_completed_in_data",
    "record_completed_in_detail",
    "record_completed_seconds",
    "record_completed_url_is_upsampled",
    "record_failed_error_string",
    "record_failed_error_object",
    "record_failed_no_reason",
}


@pytest.mark.parametrize("name", sorted(SAMPLES.keys() - CHANGED))
def test_every_sample_decodes_without_loss(name: str) -> None:
    """Each state of the wire page, as a task from which the reply could be written again."""
    assert said_by(task_of(wire.sample(name))) == without_nulls(wire.content(name))


def test_fault_21_seconds_are_read_as_milliseconds() -> None:
    """Times below 10^11 are seconds, so that replies in both units can be compared."""
    seconds = task_of(wire.sample("record_completed_seconds"))
    assert (seconds.created_at, seconds.status_update_time, seconds.completed_at) == (
        1767600000000,
        1767600334000,
        1767600334000,
    )


# --- words ----------------------------------------------------------------------------------


def test_the_table_has_the_fifteen_words_of_the_page() -> None:
    """Those of the upstream first, then those of gateways in between."""
    assert set(list(PHASE_OF_WORD)[:15]) == {
        *("pending", "prompt_enhancement_checking", "prompt_enhancing", "image_downloading"),
        *("image_cropping", "image_uploading", "image_processing_completed", "video_generating"),
        *("video_generation_completed", "video_generation_failed", "video_upsampling"),
        *("video_upsampling_completed", "video_upsampling_failed", "completed", "failed"),
    }


@pytest.mark.parametrize("word", PHASE_OF_WORD)
def test_fault_12_words_are_compared_without_case(word: str) -> None:
    """Written in capitals and padded they mean the same, and stay as they came."""
    for written in (word, word.upper(), f" {word.title()} "):
        task = task_of({"status": written, "id": "x"})
        assert (task.phase, task.status) == (PHASE_OF_WORD[word], written)


@pytest.mark.parametrize(
    ("word", "phase", "ended"),
    [
        *((word, X, True) for word in ("canceled", "cancelled", "expired", "timeout")),
        *((word, X, True) for word in ("REJECTED", "blocked")),
        ("video_polishing", X, False),
        ("error", X, False),
        ("success", X, False),
        ("image_downloading_failed", R, False),
    ],
)
def test_fault_12_other_words_run(word: str, phase: Phase, ended: bool) -> None:
    """But for those of gateways that sound like an end, which is believed after a while."""
    task = task_of({"status": word, "id": "x"})
    assert (task.phase, task.ended, task.is_final) == (phase, ended, False)


@pytest.mark.parametrize("running", [None, True, False])
@pytest.mark.parametrize("count", [0, 3, 10])
@pytest.mark.parametrize("word", sorted(PHASE_OF_WORD.keys() - {"completed", "failed"}))
def test_fault_44_nothing_beside_a_word_that_is_not_final_ends_it(
    word: str, count: int, running: bool | None
) -> None:
    """No lease that is over, no count of retries, no error text."""
    body = {"id": "x", "status": word, "running": running, "retry_count": count, "max_retries": 3}
    task = task_of(body | {"error_message": "rejected", "video_generation_error": "unsafe"})
    assert (task.phase, task.ended) == (PHASE_OF_WORD[word], False)


@pytest.mark.parametrize("running", [None, True, False])
@pytest.mark.parametrize("proof", [{"id": "x"}, {"status_update_time": 1767600240}])
def test_trap_13_failed_is_the_end_with_an_id_or_a_time(
    proof: dict[str, Any], running: bool | None
) -> None:
    """Whatever ``running`` says, and whatever stands in ``error``."""
    for error in (None, "text", {"code": "", "message": "m"}, {"err_code": -1024}):
        assert task_of({"status": "failed", "running": running, "error": error} | proof).phase is F


@pytest.mark.parametrize("word", ["failed", "error", "FAILED", "failure"])
@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"id": "", "status_update_time": 0, "error": "saturated"},
        {"id": None, "error": {"message": "m"}},
        {"running": False, "error_message": "rejected"},
        {"message": "internal error", "code": 500},
        {"id": 0, "status_update_time": "0", "error": "saturated"},
        {"id": "null", "status_update_time": "null", "error": "saturated"},
    ],
)
def test_fault_45_trap_12_a_refusal_is_no_failed_task(word: str, beside: dict[str, Any]) -> None:
    """Without an id and a time no task exists: it passes."""
    for status in (200, 429, 500):
        problem = wire.problem_of({"status": word} | beside, status)
        assert problem.kind in {Kind.SERVER, Kind.THROTTLED, Kind.UNEXPECTED}


# --- URLs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 202, 404, 500, 503])
@pytest.mark.parametrize("word", ["pending", "failed", "video_polishing", "", "error"])
def test_trap_6_the_url_decides(word: str, status: int) -> None:
    """Whatever word and whatever HTTP status stand beside the video: it is there."""
    task = task_of({"status": word, "upsample_video_url": UPSAMPLED, "error": "left over"}, status)
    assert (task.phase, task.best_url, task.failure_reason) == (C, UPSAMPLED, None)


@pytest.mark.parametrize("name", ["video_url", "upsample_video_url"])
@pytest.mark.parametrize(
    ("said", "url", "kept"),
    [
        ("https://file.302.ai/a.mp4", "https://file.302.ai/a.mp4", False),
        (" HTTP://file.302.ai/a.mp4\n", "HTTP://file.302.ai/a.mp4", False),
        ("//file.302.ai/a.mp4", "https://file.302.ai/a.mp4", False),
        (["https://file.302.ai/a.mp4"], "https://file.302.ai/a.mp4", True),
        (["", None, {"url": "https://file.302.ai/a.mp4"}], "https://file.302.ai/a.mp4", True),
        ({"url": "//file.302.ai/a.mp4", "size": 5}, "https://file.302.ai/a.mp4", True),
        ({"url": ["https://file.302.ai/a.mp4"]}, "https://file.302.ai/a.mp4", True),
        ({"video": {"url": "https://file.302.ai/a.mp4"}}, "https://file.302.ai/a.mp4", True),
        ([{"uri": "https://file.302.ai/a.mp4"}], "https://file.302.ai/a.mp4", True),
        ({"download_url": "https://file.302.ai/a.mp4"}, "https://file.302.ai/a.mp4", True),
        ('["https://file.302.ai/a.mp4"]', "https://file.302.ai/a.mp4", False),
        ('{"url": "https:\\/\\/file.302.ai\\/a.mp4"}', "https://file.302.ai/a.mp4", False),
        ("https:\\/\\/file.302.ai\\/a.mp4", "https://file.302.ai/a.mp4", False),
        (' "https://file.302.ai/a.mp4"\n', "https://file.302.ai/a.mp4", False),
        ("<https://file.302.ai/a.mp4>", "https://file.302.ai/a.mp4", False),
        ("file.302.ai/gpt/imgs/a.mp4?x=1", "https://file.302.ai/gpt/imgs/a.mp4?x=1", False),
        ("https://x.ai/a.mp4, https://x.ai/b.mp4", "https://x.ai/a.mp4", False),
        ("https://x.ai/a.mp4?to=https://x.ai/b", "https://x.ai/a.mp4?to=https://x.ai/b", False),
        ("https://x.ai/a.mp4,https://x.ai/b.mp4", "https://x.ai/a.mp4", False),
        ("https://x.ai/a b.mp4", "https://x.ai/a%20b.mp4", False),
        ({"cover": "https://file.302.ai/a.jpg"}, None, True),
        ([[[["https://file.302.ai/a.mp4"]]]], None, True),
        ("[soon]", None, True),
        ("a.mp4", None, True),
        ("status/pending", None, True),
        ("", None, False),
        ("  ", None, False),
        ("null", None, True),
        ("pending", None, True),
        ("/a.mp4", None, True),
        ("https://", None, True),
        ("ftp://file.302.ai/a.mp4", None, True),
        (0, None, True),
        ([], None, True),
        ({}, None, True),
        (["pending"], None, True),
    ],
)
def test_fault_49_a_url_of_another_shape_is_read_and_what_is_none_is_no_video(
    name: str, said: Any, url: str | None, kept: bool
) -> None:
    """The URL decides that a task is done, so it must be one; another shape stays as evidence."""
    task = task_of({"status": "video_polishing", "id": "x", name: said})
    assert getattr(task, name) == url
    assert task.extra == ({name: said} if kept else {})


def test_trap_5_a_single_url_may_be_the_upsampled_one() -> None:
    """The upstream's word says so, once the task is completed; before that it is the plain one."""
    page = wire.content("record_completed_url_is_upsampled")
    assert task_of(page).upsample_video_url == page["video_url"]
    assert task_of(page | {"status": "video_upsampling_completed"}).upsample_video_url is None


def test_trap_5_a_url_outside_of_the_record_is_the_upsampled_one() -> None:
    """Where the record inside has a plain video, and says that it was upsampled."""
    page = wire.content("record_completed_in_detail")
    inner = page["detail"] | {"upsample_video_url": None}
    task = task_of(page | {"detail": inner})
    assert (task.video_url, task.upsample_video_url) == (PLAIN, UPSAMPLED)
    waits = inner | {"upsample_status": "MEDIA_GENERATION_STATUS_PENDING"}
    task = task_of(page | {"detail": waits, "status": "video_upsampling"})
    assert (task.video_url, task.upsample_video_url) == (PLAIN, None)


@pytest.mark.parametrize(
    "wrapper", ["data", "detail", "result", "task", "record", "output", "response", "payload"]
)
@pytest.mark.parametrize("name", ["completed", "record_pending", "record_failed"])
def test_fault_49_a_wrapped_record_is_read(name: str, wrapper: str) -> None:
    """In an envelope, in a list of one, in both, and in two envelopes."""
    page, plain = wire.content(name), task_of(wire.sample(name))
    for wrapped in (
        [page],
        {wrapper: page},
        {wrapper: [page]},
        [{wrapper: page}],
        {"code": 200, "message": "success", wrapper: page},
        {"code": "success", "message": "", wrapper: page},
        {"status": "success", wrapper: page},
        {"data": {"result": page}},
        {wrapper: json.dumps(page)},
        json.dumps(json.dumps(page)),
    ):
        task = task_of(wrapped)
        assert msgspec.structs.replace(task, extra={}) == plain


@pytest.mark.parametrize(
    "content",
    [
        [],
        [{"status": "completed"}, {"status": "completed"}],
        {"data": []},
        {"data": "id"},
        {"data": None, "detail": 5},
        [[[[[[{"status": "completed"}]]]]]],
        {"detail": "Not Found"},
        {"detail": "{not JSON"},
    ],
)
def test_what_wraps_nothing_is_a_problem(content: Any) -> None:
    """Two records, none, or a text are no state of one task."""
    assert isinstance(judged(content), Problem)


@pytest.mark.parametrize(
    ("fields", "phase", "wants"),
    [
        ({"status": "completed", "video_url": PLAIN}, C, None),
        ({"status": "completed", "video_url": PLAIN, "req": {"enable_upsample": True}}, D, True),
        ({"status": "completed", "video_url": PLAIN, "req": {"enable_upsample": False}}, C, False),
        ({"status": "completed", "video_url": PLAIN, "upsample_generation_id": "u"}, D, True),
        ({"status": "video_generating", "video_url": PLAIN}, G, None),
        ({"status": "video_generating", "video_url": PLAIN, "req": {}}, G, None),
        ({"status": "pending", "video_url": PLAIN, "req": {"enable_upsample": False}}, C, False),
        ({"status": "failed", "video_url": PLAIN}, CP, None),
        ({"status": "video_upsampling_failed", "video_url": PLAIN}, R, True),
        ({"status": "video_upsampling"}, U, True),
        ({"status": "completed"}, D, None),
    ],
)
def test_trap_5_the_plain_video_is_the_end_where_no_other_was_asked_for(
    fields: dict[str, Any], phase: Phase, wants: bool | None
) -> None:
    """The request says it, or any trace of an upsampling; where nothing does, the word decides."""
    task = task_of(fields)
    assert (task.phase, task.wants_upsample) == (phase, wants)


# --- reasons --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"video_generation_error": "a", "upsample_error": "b", "error": "c"}, "a"),
        ({"video_generation_error": "", "upsample_error": "b", "error": "c"}, "b"),
        ({"error": "c", "error_message": "d"}, "c"),
        ({"error": {"code": "x", "message": "c"}, "error_message": "d"}, "c"),
        ({"error": {"code": "", "message": ""}, "error_message": "d"}, "d"),
        ({"error_message": "d", "images": [{"error": "e"}]}, "d"),
        ({"images": [{"status": "completed"}, {"error": "e"}]}, "e"),
        ({"images": [{"error": {"message": "e"}}]}, "e"),
        ({"error": '{"error": {"message": "deep"}}'}, "deep"),
        ({"video_generation_error": ["first", "second"]}, "first"),
        ({"video_generation_error": {"detail": "odd"}}, "odd"),
        ({"error": "two\nlines \x1b[31m\u202eevil"}, "two lines �[31m�evil"),
        ({"error_message": None}, None),
        ({}, None),
    ],
)
def test_fault_46_the_reason_is_the_first_that_is_not_empty(
    fields: dict[str, Any], reason: str | None
) -> None:
    """In the page's order, out of objects, lists and JSON in text; shown on one clean line."""
    assert task_of({"id": "x", "status": "failed"} | fields).failure_reason == reason


def test_fault_46_json_that_stands_in_a_text_is_shown_with_it() -> None:
    """What the upstream answered is in the reason, whole."""
    task = task_of(wire.sample("record_failed_error_string"))
    assert '{"name":"3f2b7a10' in (task.failure_reason or "")


def test_trap_4_what_was_left_over_is_no_reason_of_a_completed_task() -> None:
    """It is kept in its fields."""
    task = task_of(wire.sample("record_completed_after_retries"))
    assert (task.failure_reason, task.needs_safe_enhancement) == (None, True)
    assert task.video_generation_error is not None


# --- fields ---------------------------------------------------------------------------------


def test_fault_12_unknown_fields_are_kept() -> None:
    """On every level, whatever is in them."""
    task = task_of(
        {
            "id": "x",
            "status": "video_polishing",
            "brand_new": {"a": [1, None]},
            "images": [{"url": "u", "width": 1280}],
            "req": {"prompt": "p", "seed": 7},
        }
    )
    assert (task.status, task.extra) == ("video_polishing", {"brand_new": {"a": [1, None]}})
    assert task.images == (SourceImage(url="u", extra={"width": 1280}),)
    assert task.req == GenerationRequest(prompt="p", extra={"seed": 7})
    unknown = task_of(wire.sample("record_unknown_status"))
    assert unknown.extra == {"brand_new_field": {"a": [1, 2, 3]}}


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_field_that_is_called_as_one_of_ours_does_not_hide_it(name: str) -> None:
    """The name is ours; on the wire it is one that nobody knows."""
    task = task_of({"status": "pending", name: "completed", "x": 2})
    assert task.extra == {name: "completed", "x": 2}
    assert (task.phase, task.ended) == (Q, False)


def test_the_request_has_another_name_at_some_gateways() -> None:
    """``request`` in place of ``req``."""
    task = task_of(wire.sample("record_failed_no_reason"))
    assert task.req == GenerationRequest(
        prompt="a lighthouse in a storm", extra={"negative_prompt": ""}
    )


PAGE: Final[dict[str, Any]] = wire.content("record_completed_after_retries")
WRONG: Final = [{"a": 1}, [[1]], 1.5, "\ud7ff?", -(2**70), 1e300, True, ""]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
@pytest.mark.parametrize("name", sorted(PAGE))
def test_trap_28_a_field_of_a_wrong_type_costs_nothing_but_itself(name: str, wrong: Any) -> None:
    """It is kept in ``extra`` as it came, converted, or absent; all other fields stand."""
    right, task = task_of_fields(PAGE), task_of_fields(PAGE | {name: wrong})
    for field in msgspec.structs.fields(VideoTask):
        if field.encode_name not in {name, *OURS}:
            assert getattr(task, field.name) == getattr(right, field.name)
    attribute = {f.encode_name: f.name for f in msgspec.structs.fields(VideoTask)}[name]
    read = getattr(task, attribute)
    kept = [read, task.extra.get(name), getattr(task.req, "extra", None)]
    converted = {str(wrong), None, "", 1500, PAGE["video_url"]}
    assert kept.count(wrong) == 1 or read in converted


@pytest.mark.parametrize(
    ("name", "said", "meant"),
    [
        ("running", "false", False),
        ("running", 1, True),
        ("created_at", "1750854823164", 1750854823164),
        ("created_at", 1750854823164.0, 1750854823164),
        ("created_at", "1750854823", 1750854823000),
        ("created_at", 1750854823.5, 1750854823500),
        ("created_at", 1750854823164529, 1750854823164),
        ("status_update_time", "1750854823164529000", 1750854823164),
        ("created_at", "2025-06-25T12:33:43.164Z", 1750854823164),
        ("created_at", "2025-06-25 12:33:43.164000", 1750854823164),
        ("created_at", 0, None),
        ("completed_at", "0", None),
        ("created_at", "", None),
        ("retry_count", "null", None),
        ("retry_count", "3", 3),
        ("retry_count", "", None),
        ("completed_at", None, None),
        ("status", None, ""),
        ("id", 301504317665393, "301504317665393"),
        ("id", 12.5, "12.5"),
        ("enhanced_prompt", "", None),
        ("images", None, ()),
    ],
)
def test_trap_28_a_value_that_can_only_mean_one_thing_is_taken_so(
    name: str, said: Any, meant: Any
) -> None:
    """Numbers and booleans as text, text as numbers, times in any unit, empty as absent."""
    task = task_of_fields(PAGE | {name: said})
    assert (getattr(task, name), task.extra) == (meant, {})


TIMES: Final = ("created_at", "status_update_time", "completed_at")
COUNTS: Final = ("retry_count", "max_retries", "error_sleep")


@pytest.mark.parametrize("name", TIMES + COUNTS)
@pytest.mark.parametrize(
    "said", [2**53, 10**21, -1, 10**400, -(10**400), "9" * 400, "soon", True, 1e300]
)
def test_a_number_that_is_no_time_and_no_count_is_none(name: str, said: Any) -> None:
    """What is below nothing, or beyond what everybody reads alike, is kept as evidence only."""
    if said is True and name in COUNTS:
        said = [1]
    task = task_of({"status": "pending", name: said})
    assert (getattr(task, name), task.extra) == (None, {name: said})


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_may_be_nothing_or_much(name: str) -> None:
    """From 0 to 2^53 - 1."""
    for said in (0, 2**53 - 1):
        assert getattr(task_of({"status": "pending", name: said}), name) == said


@pytest.mark.parametrize(
    ("later", "believed"),
    [(-3600, True), (0, True), (60, True), (61, False), (3600, False), (10**6, False)],
)
def test_fault_21_a_change_that_is_to_come_has_no_time(later: float, believed: bool) -> None:
    """By the clock of the reply: else all that is true would be older than it for good."""
    said = int((wire.WALL + later) * 1000)
    body = {"status": "pending", "status_update_time": said, "x": 1}
    task = judged(body, headers={"Date": email.utils.formatdate(wire.WALL, usegmt=True)})
    assert isinstance(task, VideoTask)
    assert task.status_update_time == (said if believed else None)
    assert task.extra == ({"x": 1} if believed else {"x": 1, "status_update_time": said})
    assert task_of(body).status_update_time == said  # nothing tells what time it is


@pytest.mark.parametrize(
    ("images", "seen"),
    [
        ([], ()),
        ([{}], (SourceImage(),)),
        ([{"url": 5}], (SourceImage(url="5"),)),
        ([{"url": [5]}], (SourceImage(extra={"url": [5]}),)),
        ([{"url": None, "mediaId": "m"}], (SourceImage(media_id="m"),)),
        ([{"url": "u", "error": "404"}], (SourceImage(url="u", error="404"),)),
    ],
)
def test_images_are_as_tolerant(images: Any, seen: tuple[SourceImage, ...]) -> None:
    """Each field of each image is optional, and of any type."""
    task = task_of({"status": "pending", "images": images})
    assert (task.images, task.extra) == (seen, {})


@pytest.mark.parametrize("images", ["a.jpg", ["a.jpg"], {"url": "a.jpg"}, [{}, None]])
def test_images_of_another_shape_are_kept(images: Any) -> None:
    """Nothing of them is lost, and nothing else."""
    task = task_of({"status": "pending", "images": images})
    assert (task.images, task.extra) == ((), {"images": images})


@pytest.mark.parametrize(
    "telling",
    [
        {"status": "pending"},
        {"status": "QUEUED"},
        {"status": "cancelled"},
        {"running": False},
        {"status_update_time": 1767600000},
        {"video_url": PLAIN},
        {"upsample_video_url": UPSAMPLED},
        {"status": "brand_new", "running": True},
        {"status": "brand_new", "id": "x"},
        {"status": "brand_new", "created_at": 1},
        {"status": "pending", "error": "left over"},
        {"status": "pending", "error": {"message": "left over"}},
        {"status": "failed", "id": "x", "error": {"err_code": -10004}},
    ],
)
def test_one_telling_field_makes_a_task(telling: dict[str, Any]) -> None:
    """A word that is known, a URL, a time; a word that is new wants a field of the page beside."""
    task_of(telling)


@pytest.mark.parametrize(
    "foreign",
    [
        {"status": "ok"},
        {"status": "success", "message": "", "code": 0},
        {"status": "UP", "components": {}},
        {"status": 404, "error": "Not Found", "path": "/302/submit/veo3-pro"},
        {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404},
        {"status_update_time": 0},
        {"id": "x"},
        {"id": "x", "task_id": "x"},
        {"id": "x", "error": "not found"},
        {"status": "pending", "error": {"err_code": -10004, "message": "m"}},
    ],
)
def test_trap_14_a_success_of_somebody_else_is_no_task(foreign: dict[str, Any]) -> None:
    """A word that everybody says, without a field of the page, shows no task."""
    assert isinstance(judged(foreign), Problem)


@pytest.mark.parametrize("name", ["record_completed_other_id", "completed"])
def test_trap_9_the_reply_to_this_poll_is_the_answer_whatever_id_it_names(name: str) -> None:
    """Gateways have ids of their own; the one that the reply names is in the task, unchanged."""
    task = task_of(wire.sample(name))
    assert task.id == json.loads(wire.sample(name))["id"] != wire.ID
