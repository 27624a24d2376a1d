"""Bytes to values and back."""

from __future__ import annotations

import email.utils
import gzip
import json
import random
import re
import sys
import time
import urllib.parse
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from veo3_async._errors import (
    AuthenticationError,
    ClientClosed,
    InvalidRequest,
    QuotaExceeded,
    ServiceUnavailable,
    TaskNotFound,
    UnexpectedReply,
    Veo3Error,
)
from veo3_async._models import GenerationRequest, SourceImage, VideoTask
from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.families.record import decode, poll_path
from veo3_async._protocol.http import MAX_BODY_BYTES, Reply, inflated, server_time
from veo3_async._protocol.ids import MAX_ID_BYTES, check_model, check_request_id

REPLIES: Final = Path(__file__).parents[1] / "replies"
REFUSALS: Final = {
    "401_missing_key": Kind.AUTHENTICATION,
    "402_balance": Kind.QUOTA,
    "404_not_found": Kind.NOT_FOUND,
    "503_no_channel": Kind.OVERLOADED,
}
TASKS: Final = sorted(
    path.stem for path in REPLIES.glob("*.json") if path.stem not in {*REFUSALS, "submitted"}
)
WALL: Final = 1_750_855_200.0


def sample(name: str) -> bytes:
    return (REPLIES / f"{name}.json").read_bytes()


def judged(
    body: bytes | str | dict[str, Any] | list[Any],
    status: int = 200,
    headers: dict[str, str] | None = None,
    asked: str | None = None,
) -> VideoTask | Problem:
    if isinstance(body, dict | list):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode()
    if asked is None:  # for what its own id names
        found = re.search(rb'"id": ?"(veo3-pro:[^"]*)"', body)
        asked = found[1].decode(errors="replace") if found else REAL
    return decode(Reply(status, headers or {}, body), request_id=asked, wall_now=WALL)


REAL: Final = "veo3-pro:68935cd4-58f5-49ce-878e-40b785dd33b8"


def task_of(body: bytes | str | dict[str, Any], status: int = 200) -> VideoTask:
    outcome = judged(body, status)
    assert isinstance(outcome, VideoTask)
    return outcome


def problem_of(
    body: bytes | str | dict[str, Any] | list[Any],
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Problem:
    outcome = judged(body, status, headers)
    assert isinstance(outcome, Problem)
    return outcome


# --- the samples ----------------------------------------------------------------------------


def test_the_documented_reply_has_every_field_of_the_page() -> None:
    """The page's own example, Chinese prompt and ``mediaId`` included, and nothing left over."""
    page: dict[str, Any] = json.loads(sample("completed"))
    image, request = page["images"][0], page["req"]
    rest = {name: value for name, value in page.items() if name not in {"images", "req"}}
    assert task_of(sample("completed")) == VideoTask(
        images=(SourceImage(url=image["url"], status=image["status"], media_id=image["mediaId"]),),
        req=GenerationRequest(
            model="veo3-pro",
            prompt="这张图片有什么",
            images=tuple(request["images"]),
            enhance_prompt=True,
            enable_upsample=True,
        ),
        **rest,
    )
    assert image["mediaId"].startswith("CAMa")
    assert len(page) == 18


def told(value: object) -> Any:
    """Return a value as the JSON that it was, without what has its default."""
    if isinstance(value, tuple):
        return [told(item) for item in value]
    if not isinstance(value, msgspec.Struct):
        return value
    fields = {
        field.encode_name: told(getattr(value, field.name))
        for field in msgspec.structs.fields(type(value))
        if field.name != "extra"
    }
    return {name: said for name, said in fields.items() if said not in (None, "", [])} | (
        value.extra  # type: ignore[attr-defined]
    )


def without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: without_nulls(item) for name, item in value.items() if item not in (None, [])}


@pytest.mark.parametrize("name", TASKS)
def test_every_sample_decodes_without_loss(name: str) -> None:
    """Each state of the wire page, as a task from which the reply could be written again."""
    assert told(task_of(sample(name))) == without_nulls(json.loads(sample(name)))


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("status", [None, 200])
def test_every_refusal_is_a_problem_under_its_status_and_under_200(
    name: str, status: int | None
) -> None:
    """The code decides, as the gateway is not sure of its HTTP statuses."""
    problem = problem_of(sample(name), status or int(name[:3]))
    said = json.loads(sample(name))["error"]
    assert problem.kind is REFUSALS[name]
    assert problem.err_code == said["err_code"]
    assert said["message"] in problem.message


def test_the_answer_to_a_submission_is_no_state() -> None:
    """An id alone says nothing of a task."""
    assert problem_of(sample("submitted")).kind is Kind.UNEXPECTED


def test_fault_12_unknown_fields_are_kept() -> None:
    """On every level, whatever is in them."""
    task = task_of(
        {
            "status": "video_polishing",
            "brand_new": {"a": [1, None]},
            "images": [{"url": "u", "width": 1280}],
            "req": {"prompt": "p", "seed": 7},
        }
    )
    assert (task.status, task.extra) == ("video_polishing", {"brand_new": {"a": [1, None]}})
    assert task.images == (SourceImage(url="u", extra={"width": 1280}),)
    assert task.req == GenerationRequest(prompt="p", extra={"seed": 7})
    assert task_of(sample("unknown_status")).extra == {"brand_new_field": {"a": [1, 2, 3]}}


def test_a_field_that_is_called_extra_does_not_hide_the_others() -> None:
    """The name is ours; on the wire it is one that nobody knows."""
    assert task_of({"status": "pending", "extra": 1, "x": 2}).extra == {"extra": 1, "x": 2}


# --- surprising types -----------------------------------------------------------------------

PAGE: Final[dict[str, Any]] = json.loads(sample("completed_after_retries"))
VIDEO: Final = PAGE["video_url"]
WRONG: Final = [{"a": 1}, [[1]], 1.5, "\ud7ff?", -(2**70), 1e300]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
@pytest.mark.parametrize("name", sorted(PAGE))
def test_a_field_of_a_wrong_type_costs_nothing_but_itself(name: str, wrong: Any) -> None:
    """It is kept in ``extra`` as it came, or converted; all other fields stand."""
    body = PAGE | {name: wrong}
    right = task_of(PAGE)
    task = judged(body, asked=str(body["id"]))
    assert isinstance(task, VideoTask)
    for field in msgspec.structs.fields(VideoTask):
        if field.encode_name not in {name, "extra"}:
            assert getattr(task, field.name) == getattr(right, field.name)
    kept = [getattr(task, name), task.extra.get(name), getattr(task.req, "extra", None)]
    assert kept.count(wrong) == 1


@pytest.mark.parametrize(
    ("name", "said", "meant"),
    [
        ("running", "false", False),
        ("running", 1, True),
        ("created_at", "1750854823164", 1750854823164),
        ("created_at", 1750854823164.0, 1750854823164),
        ("retry_count", "null", None),
        ("completed_at", None, None),
        ("status", None, ""),
        ("images", None, ()),
    ],
)
def test_a_value_that_can_only_mean_one_thing_is_taken_so(name: str, said: Any, meant: Any) -> None:
    """Numbers and booleans as text, and null as absent."""
    task = task_of(PAGE | {name: said})
    assert (getattr(task, name), task.extra) == (meant, {})


NUMBERS: Final = (
    *("created_at", "status_update_time", "completed_at"),
    *("retry_count", "max_retries", "error_sleep"),
)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    ("said", "fits"),
    [
        (0, True),
        (2**53 - 1, True),
        (2**53, False),
        (-1, False),
        (10**400, False),
        (-(10**400), False),
        ("9" * 400, False),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_number_that_is_no_time_and_no_count_is_none(name: str, said: Any, fits: bool) -> None:
    """What is below nothing, or beyond what everybody reads alike, is kept as evidence only."""
    task = task_of({"status": "pending", name: said})
    assert getattr(task, name) == (said if fits else None)
    assert task.extra == ({} if fits else {name: said})


@pytest.mark.parametrize(
    ("later", "believed"),
    [(-3600, True), (0, True), (60, True), (61, False), (3600, False), (WALL * 999, False)],
)
def test_fault_21_a_change_that_is_to_come_has_no_time(later: float, believed: bool) -> None:
    """By the clock of the reply: else all that is true would be older than it for good."""
    said = int((WALL + later) * 1000)
    body = json.dumps({"status": "pending", "status_update_time": said, "x": 1}).encode()
    task = judged(body, headers={"Date": http_date(WALL)})
    assert isinstance(task, VideoTask)
    assert task.status_update_time == (said if believed else None)
    assert task.extra == ({"x": 1} if believed else {"x": 1, "status_update_time": said})
    assert task_of(body).status_update_time == said  # nothing tells what time it is


@pytest.mark.parametrize("name", ["video_url", "upsample_video_url"])
@pytest.mark.parametrize(
    ("said", "url", "kept"),
    [
        ("https://file.302.ai/a.mp4", "https://file.302.ai/a.mp4", False),
        (" HTTP://file.302.ai/a.mp4\n", "HTTP://file.302.ai/a.mp4", False),
        ("", None, False),
        ("  ", None, False),
        ("null", None, True),
        ("pending", None, True),
        ("/a.mp4", None, True),
        ("ftp://file.302.ai/a.mp4", None, True),
        (0, None, True),
        (["https://file.302.ai/a.mp4"], None, True),
    ],
)
def test_what_is_no_url_is_no_video(name: str, said: Any, url: str | None, kept: bool) -> None:
    """The URL decides that a task is done, so it must be one; what is none is still evidence."""
    task = task_of({"status": "completed", name: said})
    assert getattr(task, name) == url
    assert task.extra == ({name: said} if kept else {})


@pytest.mark.parametrize(
    ("images", "seen"),
    [
        ([], ()),
        ([{}], (SourceImage(),)),
        ([{"url": 5}], (SourceImage(extra={"url": 5}),)),
        ([{"url": None, "mediaId": "m"}], (SourceImage(media_id="m"),)),
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
        {"running": False},
        {"status_update_time": 0},
        {"video_url": VIDEO},
        {"upsample_video_url": VIDEO},
        {"status": 7, "running": True},
        {"status": "pending", "error": "left over"},
        {"status": "pending", "error": {"message": "left over"}},
        {"video_url": VIDEO, "error": None},
        {"status": "failed", "id": REAL},
        {"status": "failed", "running": False, "error": "left over"},
        {"video_url": VIDEO, "error": "left over"},
        {"status": "error", "retry_count": 0},
        {"status": "failed", "error_message": "rejected"},
        {"status": "error", "running": False},
    ],
)
def test_one_telling_field_makes_a_task(telling: dict[str, Any]) -> None:
    """A status, a URL, a time or a word on whether it runs; a task's own error is its own.

    But ``error`` and ``failed`` are everybody's words, and want a field of the page beside them.
    """
    task_of(telling)


# --- trap 7 and fault 11: what is no task ---------------------------------------------------

HTML: Final = b"<!DOCTYPE html><title>502 Bad Gateway</title>"
NONSENSE: Final[dict[str, bytes]] = {
    "HTML": HTML,
    "empty": b"",
    "blank": b" \n",
    "null": b"null",
    "true": b"true",
    "number": b"302",
    "text": b'"completed"',
    "list": b'[{"status": "completed"}]',
    "empty object": b"{}",
    "empty task": b'{"status": "", "video_url": "", "id": "veo3-pro:1"}',
    "no task": b'{"data": {"status": "completed"}}',
    "no task's error": b'{"status": "error", "message": "upstream timeout", "code": 500}',
    "no task's failure": b'{"status": "failed", "message": "internal error", "id": ""}',
    "cut": sample("completed")[:-100],
    "more behind": sample("completed") + b"{}",
    "bad UTF-8": b'{"status": "\xff\xfe"}',
    "UTF-16": '{"status": "pending"}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf",
    "two byte order marks": b'\xef\xbb\xbf\xef\xbb\xbf{"status": "pending"}',
    "lone surrogate": b'{"status": "\\ud800"}',
    "NaN": b'{"status": "pending", "created_at": NaN}',
    "Infinity": b'{"status": "pending", "created_at": -Infinity}',
    "single quotes": b"{'status': 'pending'}",
    "deep list": b"[" * 200_000,
    "deep object": b'{"status":' * 200_000,
    "deep and whole": b"[" * 200_000 + b"]" * 200_000,
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "NUL": b"\x00" * 100,
}


@pytest.mark.parametrize("name", NONSENSE)
def test_fault_11_trap_7_a_success_with_nonsense_is_no_result(name: str) -> None:
    """An unexpected reply with its first 2 kB as evidence, whatever it is."""
    problem = problem_of(NONSENSE[name])
    assert problem.kind is Kind.UNEXPECTED
    assert problem.body == NONSENSE[name].decode(errors="replace")[:2048]


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        ("no channel", Kind.SERVER, "no channel"),
        ({"message": "m", "message_cn": "c"}, Kind.SERVER, "m"),
        ({"message": "", "message_cn": "消息"}, Kind.SERVER, "消息"),
        ({"message": None, "message_jp": "j"}, Kind.SERVER, "j"),
        ({"message": 7}, Kind.SERVER, "no message"),
        ({"err_code": -10008}, Kind.OVERLOADED, "no message"),
        ({"err_code": "-10003"}, Kind.SERVER, "no message"),
        ({"err_code": -99999}, Kind.SERVER, "no message"),
        ({"err_code": None}, Kind.SERVER, "no message"),
        ({"err_code": "9" * 5000}, Kind.SERVER, "no message"),
        ({"err_code": [1]}, Kind.SERVER, "no message"),
        ([1, 2], Kind.SERVER, "no message"),
        (True, Kind.SERVER, "no message"),
    ],
)
def test_trap_7_a_success_with_an_error_body_is_an_outage(
    error: Any, kind: Kind, said: str
) -> None:
    """Any part of the gateway's error may be missing, and it may be a bare word."""
    problem = problem_of({"error": error})
    assert (problem.kind, problem.message.partition(": ")[2]) == (kind, said)


def test_a_gateway_error_beside_a_status_is_still_the_gateways() -> None:
    """A code is never a task's own."""
    assert problem_of({"status": "error", "error": {"err_code": -10004}}).kind is Kind.QUOTA


@pytest.mark.parametrize("status", [301, 404, 500])
def test_a_task_under_another_status_is_no_result(status: int) -> None:
    """Only a success can hold the state."""
    assert problem_of(sample("completed"), status).http_status == status


def test_evidence_is_bounded() -> None:
    """2,048 characters of the body and of the message, cut at no half character."""
    body = ("页" * 100_000).encode()
    assert problem_of(body).body == "页" * 2048
    problem = problem_of({"error": {"message": "页" * 100_000}})
    assert len(problem.message) < 2200
    assert len(problem_of({"error": "页" * 100_000}).message) < 2200


def test_a_byte_order_mark_before_json_is_passed_over() -> None:
    """Some servers write one; RFC 8259, 8.1 lets who reads ignore it."""
    assert task_of(b"\xef\xbb\xbf" + sample("completed")) == task_of(sample("completed"))


OTHER: Final = "veo3-pro:7d1f0c52-2b3e-4a55-9a0e-3f0d6d1c9b10"


@pytest.mark.parametrize("name", ["completed", "completed_after_retries"])
@pytest.mark.parametrize("asked", [OTHER, REAL.upper(), REAL[:-1], "68935cd4"])
def test_a_reply_of_another_task_is_unexpected(name: str, asked: str) -> None:
    """Ids come back as they were asked for; another one's video is never handed out."""
    body = json.dumps(json.loads(sample(name)) | {"id": REAL, "error": "left over"}).encode()
    problem = judged(body, asked=asked)
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.http_status) == (Kind.UNEXPECTED, 200)
    assert REAL in problem.message
    assert problem.body == body.decode()[:2048]


@pytest.mark.parametrize("named", [{}, {"id": None}, {"id": ""}, {"id": 7}, {"id": OTHER}])
def test_a_reply_that_names_no_other_task_is_the_answer(named: dict[str, Any]) -> None:
    """The page's ``id`` may be missing, as any of its fields."""
    outcome = judged({"status": "pending"} | named, asked=OTHER)
    assert isinstance(outcome, VideoTask)


# --- the tables -----------------------------------------------------------------------------

CODES: Final = {
    -10001: Kind.AUTHENTICATION,
    -10002: Kind.AUTHENTICATION,
    -10003: Kind.SERVER,
    -10004: Kind.QUOTA,
    -10005: Kind.AUTHENTICATION,
    -10006: Kind.QUOTA,
    -10007: Kind.QUOTA,
    -10008: Kind.OVERLOADED,
    -10009: Kind.INVALID,
    -10010: Kind.NOT_FOUND,
    -10011: Kind.INVALID,
    -10012: Kind.QUOTA,
    -10018: Kind.QUOTA,
    -1024: Kind.SERVER,
}
STATUSES: Final = {
    100: Kind.UNEXPECTED,
    200: Kind.UNEXPECTED,
    204: Kind.UNEXPECTED,
    299: Kind.UNEXPECTED,
    300: Kind.REDIRECT,
    301: Kind.REDIRECT,
    302: Kind.REDIRECT,
    307: Kind.REDIRECT,
    308: Kind.REDIRECT,
    399: Kind.REDIRECT,
    400: Kind.INVALID,
    401: Kind.AUTHENTICATION,
    402: Kind.QUOTA,
    403: Kind.AUTHENTICATION,
    404: Kind.NOT_FOUND,
    405: Kind.UNEXPECTED,
    408: Kind.SERVER,
    409: Kind.SERVER,
    410: Kind.NOT_FOUND,
    418: Kind.UNEXPECTED,
    422: Kind.INVALID,
    425: Kind.SERVER,
    429: Kind.THROTTLED,
    499: Kind.UNEXPECTED,
    500: Kind.SERVER,
    501: Kind.SERVER,
    502: Kind.SERVER,
    503: Kind.OVERLOADED,
    504: Kind.SERVER,
    522: Kind.SERVER,
    599: Kind.SERVER,
    999: Kind.SERVER,
}
ENDING: Final = {Kind.INVALID, Kind.AUTHENTICATION, Kind.QUOTA}
ERRORS: Final[dict[Kind, type[Veo3Error]]] = {
    Kind.UNEXPECTED: UnexpectedReply,
    Kind.REDIRECT: UnexpectedReply,
    Kind.NOT_FOUND: TaskNotFound,
    Kind.INVALID: InvalidRequest,
    Kind.AUTHENTICATION: AuthenticationError,
    Kind.QUOTA: QuotaExceeded,
    Kind.SESSION: ClientClosed,
}


@pytest.mark.parametrize("err_code", CODES)
@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 429, 500, 503])
def test_faults_7_and_13_to_16_a_code_says_more_than_the_status(err_code: int, status: int) -> None:
    """302.AI's table, whatever the HTTP status says, as a number and as text."""
    for written in (err_code, str(err_code)):
        problem = problem_of({"error": {"err_code": written, "message": "m"}}, status)
        assert (problem.kind, problem.err_code) == (CODES[err_code], err_code)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("body", [b"", HTML, b'{"detail": "x"}'])
def test_faults_7_and_13_to_17_a_status_without_a_code(status: int, body: bytes) -> None:
    """The HTTP status decides, but no page ends watches at once: those are of proxies."""
    problem = problem_of(body, status)
    is_page = body == HTML and STATUSES[status] in ENDING
    kind = Kind.UNEXPECTED if is_page else STATUSES[status]
    assert (problem.kind, problem.http_status, problem.err_code) == (kind, status, None)


@pytest.mark.parametrize("status", [status for status in STATUSES if not 200 <= status < 300])
@pytest.mark.parametrize("error", ["no", {"message": "no"}, {"err_code": -1}, {"type": "x"}])
def test_faults_14_to_16_a_status_with_the_envelope_of_the_api(status: int, error: Any) -> None:
    """Any part of it may be missing, and the HTTP status decides."""
    assert problem_of({"error": error}, status).kind is STATUSES[status]


@pytest.mark.parametrize("kind", Kind)
def test_a_problem_becomes_the_error_of_who_must_act(kind: Kind) -> None:
    """Whatever nobody can mend is `ServiceUnavailable`; all that is known goes with it."""
    task = VideoTask(id="a")
    error = Problem(kind=kind, message="m", http_status=418, err_code=-1, body="b").error(
        "a", attempts=3, elapsed=1.5, task=task
    )
    assert type(error) is ERRORS.get(kind, ServiceUnavailable)
    assert vars(error) == {
        "message": "m",
        "request_id": "a",
        "http_status": 418,
        "err_code": -1,
        "attempts": 3,
        "elapsed": 1.5,
        "task": task,
        "body": "b",
    }
    assert Problem(kind=kind, message="m").error().request_id is None


@pytest.mark.parametrize("status", STATUSES)
def test_each_problem_says_what_to_do(status: int) -> None:
    """A sentence, then what the service said, where it said something."""
    advice = problem_of(b"", status).message
    assert len(advice.split()) >= 4
    assert problem_of({"error": "busy"}, status).message.endswith(": busy")


@pytest.mark.parametrize(
    ("status", "kept"),
    [(200, True), (302, True), (400, True), (500, True), (401, False), (429, False), (404, False)],
)
def test_the_body_is_evidence_where_it_tells_something(status: int, kept: bool) -> None:
    """Of nonsense, redirects, bad requests and troubles, not of what is clear without."""
    body = '{"error": "x"}'
    assert problem_of(body, status).body == (body if kept else None)


# --- Retry-After ----------------------------------------------------------------------------


def http_date(seconds: float) -> str:
    return email.utils.formatdate(seconds, usegmt=True)


@pytest.fixture(params=["UTC", "Asia/Shanghai", "XXX+11"])
def _time_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


HINTS: Final[dict[str, float | None]] = {
    "0": 0,
    "1": 1,
    "07": 7,
    " 30 ": 30,
    "1.5": 1.5,
    "120": 120,
    "121": 120,
    "999999999": 120,
    "9999999999": None,
    "1" * 5000: None,
    "": None,
    "-1": None,
    "+1": None,
    "NaN": None,
    "inf": None,
    "Infinity": None,
    "1e3": None,
    "0x10": None,
    "1_0": None,
    "١٢": None,
    "1,5": None,
    "1.": None,
    "soon": None,
    "1 minute": None,
    http_date(WALL + 1): 1,
    http_date(WALL + 30): 30,
    http_date(WALL + 3600): 120,
    http_date(WALL): None,
    http_date(WALL - 1): None,
    http_date(0): None,
    "Wed, 25 Jun 2025 12:40:30 GMT": 30,
    "Wed, 25 Jun 2025 12:40:30 -0000": 30,
    "Wednesday, 25-Jun-25 12:40:30 GMT": 30,
    "Wed Jun 25 12:40:30 2025": 30,
    "Wed, 25 Jun 2025 20:40:30 +0800": 30,
    "Wed, 25 Jun 2025 12:40:30 +9999": None,
    "Wed, 32 Jun 2025 12:40:30 GMT": None,
    "Wed, 25 Jun 99999 12:40:30 GMT": None,
    "Wed, 25 Jun 2025 99:99:99 GMT": None,
    "Wed, 25 Jun": None,
}


@pytest.mark.usefixtures("_time_zone")
@pytest.mark.parametrize("said", HINTS, ids=lambda said: said[:40] or "empty")
def test_fault_8_retry_after(said: str) -> None:
    """Seconds or an HTTP date, 0 to 120; what is neither, or past, is ignored."""
    for status in (429, 503):
        assert problem_of(b"", status, {"Retry-After": said}).retry_after == HINTS[said]


@pytest.mark.parametrize(
    ("status", "body"), [(200, HTML), (404, b""), (500, b""), (503, sample("402_balance"))]
)
def test_fault_8_only_what_is_about_capacity_pauses_everybody(status: int, body: bytes) -> None:
    """A hint beside another trouble says nothing of the rate."""
    assert problem_of(body, status, {"Retry-After": "5"}).retry_after is None


@pytest.mark.parametrize("skew", [-3600, 0, 3600])
def test_fault_8_22_a_date_is_measured_by_the_clock_of_the_server(skew: float) -> None:
    """Ours may be an hour off; the reply's own ``Date`` is not."""
    dates = {"Retry-After": http_date(WALL + skew + 30), "Date": http_date(WALL + skew)}
    assert problem_of(b"", 429, dates).retry_after == 30
    assert problem_of(b"", 429, dates | {"Date": "today"}).retry_after == (
        None if skew < 0 else min(120, 30 + skew)
    )


@given(st.text() | st.from_regex(r"\w{3}, ?[0-9]{1,3} \w{3} [0-9]{1,6} [0-9:]{1,9} \S{1,5}"))
@example("Mon, 01 Jan 0001 00:00:00 GMT")
@example("Fri, 31 Dec 9999 23:59:59 -2359")
@example("Mon, 01 Jan 2024 00:00:00 +99999999999999")
def test_fault_8_any_header_gives_a_hint_or_none(said: str) -> None:
    """0 to 120 seconds or none, from any text in any place."""
    hint = problem_of(b"", 429, {"Retry-After": said, "Date": said}).retry_after
    assert hint is None or 0 <= hint <= 120


@pytest.mark.usefixtures("_time_zone")
def test_the_time_of_the_server() -> None:
    """Its ``Date`` in seconds since the epoch, or None where it sends none."""
    assert server_time(Reply(200, {"Date": "Wed, 25 Jun 2025 12:40:00 GMT"}, b"")) == WALL
    assert server_time(Reply(200, {}, b"")) is None


# --- any bytes ------------------------------------------------------------------------------

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
    [*PAGE, "error", "err_code", "message", "prompt", "url", "mediaId", "extra", "data"]
)
VALUES: Final = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(), inner),
    max_leaves=20,
)
STATUS: Final = st.sampled_from(sorted(STATUSES))


def assert_judged(body: bytes, status: int) -> None:
    """Whatever came, it is a task or a problem, and each can be shown and told on."""
    outcome = judged(body, status)
    assert isinstance(outcome, VideoTask | Problem)
    if isinstance(outcome, Problem):
        assert str(outcome.error("a")).startswith(outcome.message)
        assert outcome.body is None or len(outcome.body) <= 2048
    else:
        told = {outcome.status or None, outcome.best_url, outcome.running}
        assert told | {outcome.status_update_time} != {None}
        numbers = [getattr(outcome, name) for name in NUMBERS]
        assert all(number is None or 0 <= number < 2**53 for number in numbers)


@given(st.binary(max_size=500), STATUS)
def test_any_bytes_give_a_task_or_a_problem(body: bytes, status: int) -> None:
    """No exception comes out of `decode`."""
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
    st.sampled_from([*TASKS, *REFUSALS]),
    st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=3)), min_size=1, max_size=5),
    STATUS,
)
def test_any_damage_to_a_sample_gives_a_task_or_a_problem(
    name: str, cuts: list[tuple[int, bytes]], status: int
) -> None:
    """Bytes replaced, removed or put in anywhere."""
    body = sample(name)
    for place, put in cuts:
        body = body[:place] + put + body[place + 1 :]
    assert_judged(body, status)


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"error":[', '{"error":{"message":['])
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
    assert len(problem_of(big).body or "") == 2048
    task = task_of(json.dumps({"status": "pending", "a": ["x" * 1000] * 3000}))
    assert task.status == "pending"


def test_a_long_life_of_random_bytes() -> None:
    """Bytes that look like nothing at all."""
    rng = random.Random(0)
    for length in range(0, 5000, 97):
        assert_judged(rng.randbytes(length), 200)


# --- requests -------------------------------------------------------------------------------


def test_fault_28_a_real_id_goes_out_as_it_is() -> None:
    """With its colon, under its model's path."""
    assert poll_path(REAL, "veo3") == f"/302/submit/veo3-pro?request_id={REAL}"


@pytest.mark.parametrize(
    ("request_id", "model"),
    [
        ("veo3:1", "veo3"),
        ("veo3-fast:1", "veo3-fast"),
        ("veo3-fast-frames:1", "veo3-fast-frames"),
        ("veo3-pro-frames:1", "veo3-pro-frames"),
        ("veo4:1", "mine"),
        ("68935cd4", "mine"),
        ("veo3-pro", "mine"),
        ("xveo3-pro:1", "mine"),
        ("veo3-pro/../x:1", "mine"),
    ],
)
def test_an_id_is_polled_under_the_model_that_it_names(request_id: str, model: str) -> None:
    """Where it names a known one; else under the client's."""
    assert poll_path(request_id, "mine").startswith(f"/302/submit/{model}?request_id=")


ODD_IDS: Final = [
    REAL,
    "veo3-pro%3A1",
    "a&request_id=b",
    "a#b",
    "a?b=c",
    "a+b c",
    "a/../b",
    "a;b",
    "100%",
    "视频:1",
    "🎬",
    "a\u2028b",
    "\N{COMBINING ACUTE ACCENT}a",
    "x" * MAX_ID_BYTES,
    "é" * (MAX_ID_BYTES // 2),
]


def assert_round_trip(request_id: str) -> None:
    assert check_request_id(request_id) is request_id
    path = poll_path(request_id, "veo3-pro")
    assert path.isascii()
    assert path.isprintable()
    parts = urllib.parse.urlsplit(f"https://api.302.ai{path}")
    assert parts.path in {"/302/submit/veo3-pro", f"/302/submit/{request_id.partition(':')[0]}"}
    query = urllib.parse.parse_qsl(
        parts.query, keep_blank_values=True, strict_parsing=True, errors="strict"
    )
    assert query == [("request_id", request_id)]
    assert not parts.fragment


@pytest.mark.parametrize("request_id", ODD_IDS, ids=lambda value: value[:20])
def test_fault_28_an_odd_id_arrives_exactly(request_id: str) -> None:
    """Whatever an id has in it that means something in a URL."""
    assert_round_trip(request_id)


@given(st.text())
def test_fault_28_an_id_arrives_exactly_or_is_refused(request_id: str) -> None:
    """Any text at all, and the refusal names the id."""
    try:
        check_request_id(request_id)
    except InvalidRequest as error:
        assert error.request_id == request_id[:MAX_ID_BYTES]  # noqa: PT017 - of two outcomes
    else:
        assert_round_trip(request_id)


@pytest.mark.parametrize(
    ("request_id", "fault"),
    [
        ("", "it is empty"),
        (" veo3-pro:1", "white space around it; strip it"),
        ("veo3-pro:1\n", "white space around it; strip it"),
        ("veo3-pro:1\u3000", "white space around it; strip it"),
        ("\t", "white space around it; strip it"),
        ("a\nb", "control characters"),
        ("a\x00b", "control characters"),
        ("a\x7fb", "control characters"),
        ("a\x85b", "control characters"),
        ("a\ud800b", "lone surrogates"),
        ("a\udfff", "lone surrogates"),
        ("x" * (MAX_ID_BYTES + 1), "longer than 1024 bytes"),
        ("é" * (MAX_ID_BYTES // 2 + 1), "longer than 1024 bytes"),
        ("y" * 10_240, "longer than 1024 bytes"),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_fault_28_an_impossible_id_is_refused(request_id: str, fault: str) -> None:
    """The message names the fault and shows a little of the id."""
    with pytest.raises(InvalidRequest, match=fault) as caught:
        check_request_id(request_id)
    assert repr(request_id[:64]) in str(caught.value.message)
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("request_id", [None, 5, b"veo3-pro:1", ["veo3-pro:1"], VideoTask()])
def test_fault_28_what_is_no_text_is_no_id(request_id: object) -> None:
    """A `TypeError` names the type."""
    with pytest.raises(TypeError, match=f"a str, not {type(request_id).__name__}"):
        check_request_id(request_id)


@pytest.mark.parametrize("model", ["veo3", "veo3-pro", "veo3-pro-frames", "my_model.v2", "4"])
def test_a_model_name_comes_back(model: str) -> None:
    """As it came."""
    assert check_model(model) == model


@pytest.mark.parametrize(
    "model", ["", ".", "..", "-x", "a/b", "a b", "a?b", "veo3\n", "模型", "a%2Fb", None, 5]
)
def test_a_model_that_is_no_part_of_a_path_is_refused(model: object) -> None:
    """The message shows it, and a right one."""
    with pytest.raises(InvalidRequest, match="use one such as 'veo3-pro'"):
        check_model(model)


PLAIN = b'{"status": "pending"}' * 50


@pytest.mark.parametrize(
    ("body", "encoding", "plain"),
    [
        (PLAIN, "", PLAIN),
        (PLAIN, "identity", PLAIN),
        (gzip.compress(PLAIN), "gzip", PLAIN),
        (gzip.compress(PLAIN), " X-GZIP ", PLAIN),
        (zlib.compress(PLAIN), "deflate", PLAIN),
        (gzip.compress(PLAIN)[:-9], "gzip", None),
        (PLAIN, "gzip", None),
        (PLAIN, "br", None),
        (zlib.compress(PLAIN)[2:-4], "deflate", PLAIN),
        (zlib.compress(PLAIN)[2:-4], " Deflate", PLAIN),
        (gzip.compress(PLAIN) + gzip.compress(b"!"), "gzip", PLAIN + b"!"),
        (8 * gzip.compress(b"!"), "gzip", b"!!!!!!!!"),
        (9 * gzip.compress(b"!"), "gzip", None),
        (9 * gzip.compress(b""), "gzip", None),
        (gzip.compress(bytes(MAX_BODY_BYTES)), "gzip", bytes(MAX_BODY_BYTES)),
        (gzip.compress(bytes(MAX_BODY_BYTES + 1)), "gzip", None),
        (b"", "gzip", b""),
    ],
    ids=range(17),
)
def test_fault_11_a_compressed_body_is_inflated_up_to_its_limit(
    body: bytes, encoding: str, plain: bytes | None
) -> None:
    """What is compressed as was asked for comes out; a bomb, a torso, another code is None."""
    assert inflated(body, encoding) == plain
