"""How a task is submitted, and what every reply to it means."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
import wire
from hypothesis import given
from hypothesis import strategies as st

from veo3_async import (
    AuthenticationError,
    InvalidRequest,
    QuotaExceeded,
    ServiceUnavailable,
    SubmitUncertain,
    UnexpectedReply,
    Veo3Error,
)
from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.families import posted_to, route_of, submit_call, submitted
from veo3_async._protocol.http import Reply
from veo3_async._protocol.submission import SubmitVerdict, submit_error, submit_verdict

ID = wire.ID
LAMP = "https://example.com/lamp.jpg"


def build(
    prompt: Any = "a lamp", image: Any = None, model: Any = "veo3-pro", extra: Any = None
) -> tuple[str, dict[str, Any]]:
    route = route_of(model)
    call = submit_call(route, prompt, image=image, extra=extra)
    assert call.method == "POST"
    assert call.body is not None
    assert posted_to(route, image=image).path == call.target  # and there it is polled
    return call.target, json.loads(call.body)


def submitted_id(reply: Reply) -> str | Problem:
    return submitted(wire.RECORD, reply, wall_now=0.0)


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        ({}, "veo3-pro", {"text_prompt": "a lamp"}),
        ({"prompt": "这张图片有什么"}, "veo3-pro", {"text_prompt": "这张图片有什么"}),
        ({"model": "veo3-fast"}, "veo3-fast", {"text_prompt": "a lamp"}),
        (
            {"image": LAMP},
            "veo3-pro-frames",
            {"text_prompt": "a lamp", "input_image": LAMP},
        ),
        (
            {"image": LAMP, "model": "veo3-fast-frames"},
            "veo3-fast-frames",
            {"text_prompt": "a lamp", "input_image": LAMP},
        ),
        (
            {"extra": {"aspect_ratio": "16:9"}},
            "veo3-pro",
            {"text_prompt": "a lamp", "aspect_ratio": "16:9"},
        ),
    ],
)
def test_request_is_spelled_as_the_wire_page_says(
    arguments: dict[str, Any], path: str, body: dict[str, Any]
) -> None:
    """Text goes to the model's path, an image to its ``-frames`` path, unknown fields along."""
    assert build(**arguments) == (f"/302/submit/{path}", body)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": " \n"}, "the prompt is empty"),
        ({"prompt": None}, "the prompt is empty"),
        ({"prompt": "\ud800"}, "cannot be sent as JSON"),
        ({"image": "/tmp/lamp.jpg"}, "public http"),
        ({"image": "file:///tmp/lamp.jpg"}, "public http"),
        ({"image": "data:image/png;base64,AAAA"}, "public http"),
        ({"image": "https://"}, "public http"),
        ({"image": "https://[::1"}, "public http"),
        ({"image": "https://example.com/a\nb"}, "public http"),
        ({"image": pathlib.Path("lamp.jpg")}, "public http"),
        ({"model": "../secrets"}, "not a model name"),
        ({"model": "veo3-pro-frames"}, "pass image="),
        ({"extra": {"text_prompt": "twice"}}, "extra repeats text_prompt"),
        ({"extra": [1]}, "extra is a mapping"),
        ({"extra": {"x": object()}}, "cannot be sent as JSON"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_what_to_do(
    arguments: dict[str, Any], said: str
) -> None:
    """Bad input is an `InvalidRequest` that names the fault, before anything is sent."""
    with pytest.raises(InvalidRequest, match=said):
        build(**arguments)


@pytest.mark.parametrize(
    "envelope",
    [
        wire.content("record_submitted"),
        {"task_id": ID},
        {"request_id": ID},
        {"id": ID},
        {"data": ID},
        {"data": {"task_id": ID}},
        {"data": {"request_id": ID}},
        {"data": {"id": ID, "status": "pending"}},
        {"task_id": None, "data": {"id": ID}},
        {"task_id": "", "request_id": ID},
        {"task_id": int(1e15), "expected": "1000000000000000"},
        {"task_id": ID, "error": None},
        {"task_id": ID, "error": ""},
        {"task_id": ID, "error": {}},
        {"id": ID, "status": "pending", "error": "left over"},
        {"request_id": "trace-1", "data": {"task_id": ID}},
        {"request_id": "trace-1", "data": {"task_id": "t-2"}, "expected": "t-2"},
        {"id": "trace-1", "data": ID},
        {"task_id": "trace-1", "data": {"id": ID}},
        {"id": "trace-1", "expected": "trace-1"},
        {"code": 200, "message": "success", "data": {"task_id": ID}},
        {"code": 200, "message": "success", "request_id": "r-1", "data": {"task_id": ID}},
        {"code": 200, "message": "", "request_id": "r-1", "data": {"id": "t-2"}, "expected": "t-2"},
        {"code": "success", "message": "", "data": ID},
        {"id": ID, "status": "queued", "error": {"message": "left over"}},
        {"taskId": ID},
        {"data": {"taskId": ID}},
        {"requestId": ID},
        {"code": 0, "message": "ok", "requestId": "r-1", "taskId": ID},
        {"result": {"task_id": ID}},
        {"task": {"id": ID, "status": "pending"}},
        {"output": {"task_id": ID, "task_status": "PENDING"}, "request_id": "r-1"},
        {"data": [{"task_id": ID}]},
        {"data": {"data": {"task_id": ID}}},
        {"data": json.dumps({"task_id": ID})},
        {"detail": json.dumps({"data": [{"id": ID}]})},
        {"task_id": f" {ID}\n"},
        {"task_id": 301504317665393.0, "expected": "301504317665393"},
        {"task_id": ID, "error": {"message": None, "type": ""}},
        {"task_id": ID, "prompt": "an emoji cut in two: \ud83d", "seed": float("nan")},
    ],
)
def test_id_is_found_in_every_envelope_that_was_seen(envelope: dict[str, Any]) -> None:
    """Whatever deployment answers, the id comes out."""
    reply = Reply(200, {}, json.dumps(envelope).encode())
    assert submitted_id(reply) == envelope.get("expected", ID)


def test_a_byte_order_mark_costs_no_id() -> None:
    """Some servers write one before their JSON."""
    reply = Reply(200, {}, b"\xef\xbb\xbf" + json.dumps({"task_id": ID}).encode())
    assert submitted_id(reply) == ID


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"status": "ok"},
        {"data": {"status": "ok"}},
        {"data": []},
        {"code": 0, "message": "success", "request_id": "r-1"},
        {"code": "Success", "message": "", "request_id": "r-1"},
        {"id": "", "status": "error", "status_update_time": 0, "error": "saturated"},
        {"task_id": "", "id": None, "request_id": " "},
    ],
)
def test_reply_without_an_id_is_a_problem(body: dict[str, Any]) -> None:
    """A success that names no task is no success: nobody could watch it."""
    outcome = submitted_id(Reply(200, {}, json.dumps(body).encode()))
    assert isinstance(outcome, Problem)


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        ({"error": {"err_code": -10004, "message": "Insufficient balance"}}, Kind.QUOTA),
        ({"error": "busy"}, Kind.SERVER),
        ({"error": {"message": "busy"}, "status": "error"}, Kind.SERVER),
        ({"error": "busy", "status": "failed", "task_id": "y"}, Kind.SERVER),
    ],
)
def test_refusal_that_names_an_id_is_a_refusal(refusal: dict[str, Any], kind: Kind) -> None:
    """An error beside an id means that nothing was accepted under it."""
    reply = Reply(200, {}, json.dumps({"id": "x"} | refusal).encode())
    outcome = submitted_id(reply)
    assert isinstance(outcome, Problem)
    assert outcome.kind is kind


@given(status=st.integers(200, 599), body=st.binary())
def test_any_reply_to_a_submission_is_an_id_or_a_problem(status: int, body: bytes) -> None:
    """Nothing that a server answers raises."""
    assert isinstance(submitted_id(Reply(status, {}, body)), str | Problem)


NOT_ARRIVED, REFUSED, UNCERTAIN = SubmitVerdict


@pytest.mark.parametrize(
    ("kind", "status", "verdict", "error"),
    [
        (Kind.CONNECT, None, NOT_ARRIVED, ServiceUnavailable),
        (Kind.DNS, None, NOT_ARRIVED, ServiceUnavailable),
        (Kind.LOCAL, None, NOT_ARRIVED, ServiceUnavailable),
        (Kind.THROTTLED, 429, NOT_ARRIVED, ServiceUnavailable),
        (Kind.OVERLOADED, 503, NOT_ARRIVED, ServiceUnavailable),
        (Kind.OVERLOADED, 200, REFUSED, ServiceUnavailable),
        (Kind.NO_CHANNEL, 503, NOT_ARRIVED, ServiceUnavailable),
        (Kind.NO_CHANNEL, 200, REFUSED, ServiceUnavailable),
        (Kind.CERTIFICATE, None, REFUSED, ServiceUnavailable),
        (Kind.AUTHENTICATION, 401, REFUSED, AuthenticationError),
        (Kind.QUOTA, 402, REFUSED, QuotaExceeded),
        (Kind.QUOTA, 429, REFUSED, QuotaExceeded),
        (Kind.INVALID, 400, REFUSED, InvalidRequest),
        (Kind.TIMEOUT, None, UNCERTAIN, SubmitUncertain),
        (Kind.RESET, None, UNCERTAIN, SubmitUncertain),
        (Kind.SERVER, 503, UNCERTAIN, SubmitUncertain),
        (Kind.NOT_FOUND, 404, REFUSED, InvalidRequest),
        (Kind.SERVER, 500, UNCERTAIN, SubmitUncertain),
        (Kind.SERVER, 502, UNCERTAIN, SubmitUncertain),
        (Kind.SERVER, 504, UNCERTAIN, SubmitUncertain),
        (Kind.UNEXPECTED, 200, UNCERTAIN, SubmitUncertain),
        (Kind.UNEXPECTED, 403, REFUSED, UnexpectedReply),
        (Kind.UNEXPECTED, 499, UNCERTAIN, SubmitUncertain),
        (Kind.UNEXPECTED, 302, REFUSED, UnexpectedReply),
        (Kind.UNEXPECTED, 308, REFUSED, UnexpectedReply),
        (Kind.UNEXPECTED, 303, UNCERTAIN, SubmitUncertain),
        (Kind.UNEXPECTED, 404, REFUSED, UnexpectedReply),
        (Kind.UNEXPECTED, 413, REFUSED, UnexpectedReply),
        (Kind.UNEXPECTED, None, UNCERTAIN, SubmitUncertain),
        (Kind.SERVER, 408, UNCERTAIN, SubmitUncertain),
        (Kind.SERVER, 409, UNCERTAIN, SubmitUncertain),
        (Kind.UNEXPECTED, 407, REFUSED, UnexpectedReply),
    ],
)
def test_fault_33_only_what_certainly_did_not_arrive_may_be_sent_again(
    kind: Kind, status: int | None, verdict: SubmitVerdict, error: type[Veo3Error]
) -> None:
    """No connection, 429 and 503 prove that no task exists; silence proves nothing."""
    problem = Problem(kind=kind, message="so it was", http_status=status)
    assert submit_verdict(problem) is verdict
    raised = submit_error(problem, attempts=2, elapsed=1.5)
    assert type(raised) is error
    assert (raised.attempts, raised.elapsed, raised.http_status) == (2, 1.5, status)


@pytest.mark.parametrize("status", [200, 400, 402, 403, 429, 500])
@pytest.mark.parametrize("name", wire.names("error_code_"))
def test_fault_47_trap_15_a_request_id_beside_code_and_message_is_no_task(
    name: str, status: int
) -> None:
    """It is the id of the HTTP request, and the word says what is wrong."""
    reply = Reply(status, {}, wire.sample(name))
    outcome = submitted_id(reply)
    assert isinstance(outcome, Problem)
    assert outcome.from_api


@pytest.mark.parametrize("name", wire.names("error_"))
@pytest.mark.parametrize("status", [200, 429, 500])
def test_no_error_of_the_api_names_a_task(name: str, status: int) -> None:
    """In any of its shapes, under any status."""
    assert isinstance(submitted_id(Reply(status, {}, wire.sample(name))), Problem)


def test_every_kind_of_problem_has_a_verdict() -> None:
    """No kind is left to chance: what is not known to be refused is uncertain."""
    for kind in Kind:
        assert submit_verdict(Problem(kind=kind, message="")) in SubmitVerdict


def test_reply_without_an_id_is_unexpected() -> None:
    """A success that names no task may have made one: nobody can tell."""
    reply = Reply(200, {}, b'{"data": {"status": "pending"}, "code": 0}')
    outcome = submitted_id(reply)
    assert isinstance(outcome, Problem)
    assert submit_verdict(outcome) is UNCERTAIN
