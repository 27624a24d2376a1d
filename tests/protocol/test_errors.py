"""Whose word a reply is: the API's own errors, and the pages of everybody else."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
import wire
from wire import problem_of

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
from veo3_async._models import VideoTask
from veo3_async._protocol.errors import Kind, Problem
from veo3_async.testing import Body, Stranger

ENDING: Final = {Kind.INVALID, Kind.AUTHENTICATION, Kind.QUOTA, Kind.NOT_FOUND}

# HTTP status as on the wire, kind, code, and whether it is the API's own word.
SAMPLES: Final[dict[str, tuple[int, Kind, int | None, bool]]] = {
    "error_401_invalid_key": (401, Kind.AUTHENTICATION, 10001, True),
    "error_401_missing_key": (401, Kind.AUTHENTICATION, -10001, True),
    "error_429_no_money": (429, Kind.QUOTA, None, True),
    "error_503_no_channel": (503, Kind.NO_CHANNEL, -10008, True),
    "error_503_no_models": (503, Kind.NO_CHANNEL, -10008, True),
    "error_balance": (402, Kind.QUOTA, -10004, True),
    "error_code_balance": (402, Kind.QUOTA, None, True),
    "error_code_internal": (500, Kind.SERVER, None, True),
    "error_code_invalid_parameter": (400, Kind.INVALID, None, True),
    "error_code_rate_limit": (429, Kind.THROTTLED, None, True),
    "error_code_unauthorized": (401, Kind.AUTHENTICATION, None, True),
    "error_credential_expired": (401, Kind.AUTHENTICATION, -10005, True),
    "error_disabled": (403, Kind.AUTHENTICATION, -10002, True),
    "error_invalid_request": (400, Kind.INVALID, -10011, True),
    "error_network": (502, Kind.SERVER, -10003, True),
    "error_not_found": (404, Kind.NOT_FOUND, -10010, True),
    "error_not_supported": (400, Kind.INVALID, -10009, True),
    "error_quota_total": (429, Kind.QUOTA, -10006, True),
    "error_task_style": (500, Kind.SERVER, -1024, True),
    "error_upstream_timeout": (504, Kind.SERVER, -1024, True),
    "error_text": (503, Kind.OVERLOADED, None, False),
    "error_task_shaped_saturated": (429, Kind.THROTTLED, None, True),
    "error_task_shaped_upstream": (500, Kind.SERVER, None, True),
}


def test_every_sample_of_an_error_is_in_the_table() -> None:
    """None is left out, and none is made up."""
    assert set(wire.names("error_")) == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_each_sample_says_who_must_act(name: str) -> None:
    """By its code or word, under its HTTP status; what it says is shown."""
    status, kind, err_code, own = SAMPLES[name]
    problem = problem_of(wire.sample(name), status)
    assert (problem.kind, problem.err_code, problem.from_api) == (kind, err_code, own)
    assert problem.http_status == status
    assert problem.message.count(": ") >= 1
    assert problem.message.isprintable()


@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 429, 500, 503])
@pytest.mark.parametrize(
    "name", [name for name, row in SAMPLES.items() if row[2] is not None or "code" in name]
)
def test_faults_7_and_13_to_16_a_code_says_more_than_the_status(name: str, status: int) -> None:
    """Whatever the HTTP status says."""
    assert problem_of(wire.sample(name), status).kind is SAMPLES[name][1]


@pytest.mark.parametrize("name", ["error_task_shaped_saturated", "error_task_shaped_upstream"])
def test_fault_45_a_refusal_with_200_passes(name: str) -> None:
    """No task exists, whatever the HTTP status says."""
    assert problem_of(wire.sample(name)).kind is Kind.SERVER


CODES: Final = {
    10001: Kind.AUTHENTICATION,
    10002: Kind.AUTHENTICATION,
    10003: Kind.SERVER,
    10004: Kind.QUOTA,
    10005: Kind.AUTHENTICATION,
    10006: Kind.QUOTA,
    10007: Kind.QUOTA,
    10008: Kind.NO_CHANNEL,
    10009: Kind.INVALID,
    10010: Kind.NOT_FOUND,
    10011: Kind.INVALID,
    10012: Kind.QUOTA,
    10018: Kind.QUOTA,
    1024: Kind.SERVER,
}


@pytest.mark.parametrize("code", CODES)
def test_trap_18_codes_are_compared_without_sign(code: int) -> None:
    """As a number and as text, with and without a sign; it is shown as it came."""
    for written in (code, -code, str(code), str(-code), float(-code)):
        problem = problem_of({"error": {"err_code": written, "message": "m"}}, 418)
        assert (problem.kind, problem.err_code) == (CODES[code], int(written))
        assert problem.from_api


@pytest.mark.parametrize(
    "shape",
    [
        {"error": {"err_code": -10004}},
        {"data": {"error": {"err_code": -10004}}},
        {"status": "failed", "data": {"state": "FAILURE", "error": {"err_code": -10004}}},
        {"err_code": -10004, "message": "m"},
        {"code": "InsufficientBalance"},
        {"code": "insufficientbalance", "message": "m", "request_id": "r"},
        {"error": {"type": "insufficient_quota"}},
        {"error": {"code": "insufficient_user_quota", "message": "busy"}},
        {"id": "x", "error": {"err_code": -10004}},
        {"status": "error", "error": {"err_code": -10004}},
        {"detail": {"error": {"err_code": -10004}}},
        {"detail": {"err_code": -10004}},
        {"result": {"error": {"err_code": -10004}}},
        {"error": [{"err_code": -10004}]},
        {"errors": [{"err_code": -10004}]},
        {"error": '{"err_code": -10004, "message": "m"}'},
        {"data": '{"error": {"err_code": -10004}}'},
        [{"error": {"err_code": -10004}}],
        {"error": {"code": "InsufficientBalance", "message": "m"}},
        {"error": {"code": "insufficient_balance"}},
    ],
)
def test_fault_16_the_same_is_said_in_many_shapes(shape: Any) -> None:
    """Any part of them may be missing; JSON may stand in a text."""
    for status in (200, 402, 429, 500):
        assert problem_of(shape, status).kind is Kind.QUOTA
        assert problem_of(json.dumps(json.dumps(shape)), status).kind is Kind.QUOTA


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        ("no channel", Kind.SERVER, "no channel"),
        ({"message": "m", "message_cn": "c"}, Kind.SERVER, "m"),
        ({"message": "", "message_cn": "消息"}, Kind.SERVER, "消息"),
        ({"message": None, "message_jp": "j"}, Kind.SERVER, "j"),
        ({"message": 7}, Kind.SERVER, ""),
        ({"err_code": -10008}, Kind.NO_CHANNEL, ""),
        ({"err_code": "-10003"}, Kind.SERVER, ""),
        ({"err_code": -99999}, Kind.SERVER, ""),
        ({"err_code": None}, Kind.SERVER, ""),
        ({"err_code": "9" * 5000}, Kind.SERVER, ""),
        ({"err_code": [1]}, Kind.SERVER, ""),
        ([1, 2], Kind.SERVER, "1"),
        (True, Kind.SERVER, ""),
    ],
)
def test_trap_14_a_success_with_an_error_body_is_an_outage(
    error: Any, kind: Kind, said: str
) -> None:
    """Any part of the gateway's error may be missing, and it may be a bare word."""
    problem = problem_of({"error": error})
    assert (problem.kind, problem.message.partition(": ")[2]) == (kind, said)


STATUSES: Final = {400: Kind.INVALID, 401: Kind.AUTHENTICATION, 402: Kind.QUOTA} | {
    403: Kind.AUTHENTICATION,
    404: Kind.NOT_FOUND,
    410: Kind.NOT_FOUND,
    422: Kind.INVALID,
}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(
    "error",
    [
        {"err_code": -99999, "message": "new"},
        {"err_code": None, "message": "no code"},
        {"message": "m", "message_cn": "…"},
        {"message": "m", "type": "api_error"},
    ],
)
def test_faults_13_to_16_the_gateways_own_object_without_a_known_code(
    status: int, error: dict[str, Any]
) -> None:
    """Its HTTP status decides."""
    problem = problem_of({"error": error}, status)
    assert (problem.kind, problem.from_api) == (STATUSES[status], True)


FOREIGN: Final[dict[str, bytes]] = {
    "empty": b"",
    "nginx": b"<html><body><center><h1>404 Not Found</h1></center></body></html>",
    "text": b"Forbidden",
    "cloudflare": b"error code: 1020",
    "aws": b'{"message": "Forbidden"}',
    "aws gateway": b'{"message":"Missing Authentication Token"}',
    "kong": b'{"message":"no Route matched with those values","request_id":"a1"}',
    "fastapi": b'{"detail": "Not Found"}',
    "fastapi 422": b'{"detail": [{"loc": ["body"], "msg": "field required", "type": "x"}]}',
    "kubernetes": b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",'
    b'"message":"not found","reason":"NotFound","code":404}',
    "spring": b'{"timestamp":"2026","status":404,"error":"Not Found","path":"/302/submit"}',
    "text error": b'{"error": "Unauthorized"}',
    "upstream": b'{"error": {"message": "Incorrect API key", "type": "invalid_request_error",'
    b' "code": "invalid_api_key"}}',
    "google": b'{"error": {"code": 404, "message": "not found", "status": "NOT_FOUND"}}',
    "oauth": b'{"error": "invalid_token", "error_description": "expired"}',
    "null": b"null",
    "list": b"[]",
    "code": b'{"code": 404, "message": "page not found"}',
    "code word": b'{"code": "NotFound", "message": "no such page"}',
    "success": b'{"success": false, "errors": [{"code": 10000}]}',
}


@pytest.mark.parametrize(
    "status", [200, 301, 302, 304, 308, 400, 401, 402, 403, 404, 410, 418, 422]
)
@pytest.mark.parametrize("page", FOREIGN)
def test_faults_11_to_17_no_page_of_anybody_else_ends_anything(page: str, status: int) -> None:
    """Under any status it is an outage, and what came is shown."""
    problem = problem_of(FOREIGN[page], status)
    assert problem.kind in {Kind.UNEXPECTED, Kind.SERVER}
    assert (problem.http_status, problem.from_api) == (status, False)
    assert problem.body == FOREIGN[page].decode()
    if status >= 300:
        assert problem.kind is Kind.UNEXPECTED


@pytest.mark.parametrize("by", ["nginx", "cloudflare", "kubernetes", "fastapi", "aws", "spring"])
@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_the_fakes_strangers_are_strangers(status: int, by: Stranger) -> None:
    """What the fake answers in place of the API is read as no word of it."""
    body = Body.foreign(status, by)
    assert problem_of(body.content, body.code).kind is Kind.UNEXPECTED


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (408, Kind.SERVER),
        (409, Kind.SERVER),
        (425, Kind.SERVER),
        (429, Kind.THROTTLED),
        (499, Kind.UNEXPECTED),
        (500, Kind.SERVER),
        (502, Kind.SERVER),
        (503, Kind.OVERLOADED),
        (504, Kind.SERVER),
        (522, Kind.SERVER),
        (999, Kind.SERVER),
    ],
)
@pytest.mark.parametrize("page", FOREIGN)
def test_fault_7_what_passes_says_the_same_whoever_sends_it(
    page: str, status: int, kind: Kind
) -> None:
    """429 and 503 say something of the rate, and so may those of a proxy."""
    problem = problem_of(FOREIGN[page], status)
    assert (problem.kind, problem.limits_rate) == (
        kind,
        kind in {Kind.THROTTLED, Kind.OVERLOADED},
    )


@pytest.mark.parametrize(
    ("body", "status", "limits"),
    [
        (b"", 429, True),
        (b"", 503, True),
        ({"error": "Too many connections"}, 503, True),
        ({"error": {"err_code": -10008}}, 503, False),
        ({"error": {"err_code": -10008}}, 429, False),
        ({"error": {"err_code": -1}}, 503, False),
        ({"error": {"err_code": -10003}}, 503, False),
        ({"code": "RateLimitExceeded", "message": "m"}, 200, True),
        ({"error": {"message": "Too many requests"}}, 200, True),
        ({"error": {"message": "Too many requests"}}, 403, True),
        ({"error": "Rate limit exceeded"}, 500, True),
        ({"error": {"message_cn": "请求过于频繁,请稍后再试"}}, 200, True),
        (b"<html>error code: 1015, you are being rate limited</html>", 403, True),
        ({"error": {"err_code": -10003, "message": "Too many requests"}}, 200, False),
        ({"error": {"message": "no such video"}}, 200, False),
        (b"", 500, False),
        (b"", 502, False),
        ({"error": {"type": "insufficient_quota"}}, 429, False),
    ],
)
def test_fault_9_what_says_something_of_the_rate(body: Any, status: int, limits: bool) -> None:
    """A 429, a 503 without the gateway's own code, and a text that says so; nothing else."""
    assert problem_of(body, status).limits_rate == limits


def test_trap_17_no_channel_says_that_the_model_may_not_exist() -> None:
    """It is no capacity, or a model that is mistyped, or one that the key may not use."""
    message = problem_of(wire.sample("error_503_no_models"), 503).message
    assert "may not exist" in message
    assert "not be allowed" in message
    assert message.endswith(": No available models currently")


ERRORS: Final[dict[Kind, type[Veo3Error]]] = {
    Kind.UNEXPECTED: UnexpectedReply,
    Kind.NOT_FOUND: TaskNotFound,
    Kind.INVALID: InvalidRequest,
    Kind.AUTHENTICATION: AuthenticationError,
    Kind.QUOTA: QuotaExceeded,
    Kind.SESSION: ClientClosed,
}


@pytest.mark.parametrize("kind", Kind)
def test_a_problem_becomes_the_error_of_who_must_act(kind: Kind) -> None:
    """Whatever nobody can mend is `ServiceUnavailable`; all that is known goes with it."""
    task = VideoTask(id="a")
    error = Problem(kind=kind, message="m", http_status=418, err_code=-1, body="b").error(
        "a", attempts=3, elapsed=1.5, task=task
    )
    assert type(error) is ERRORS.get(kind, ServiceUnavailable)
    assert (error.message, error.request_id, error.http_status, error.err_code) == (
        *("m", "a", 418),
        -1,
    )
    assert (error.attempts, error.elapsed, error.task, error.body) == (3, 1.5, task, "b")
    assert Problem(kind=kind, message="m").error().request_id is None


def test_what_came_is_shown_where_it_is_not_the_api() -> None:
    """The status and the beginning of the page, or where a redirect leads."""
    assert problem_of(b"<html>\n<h1>Hi\x1b[2J</h1>", 404).message == (
        "what answered is not the API; check base_url and proxies: "
        "HTTP 404, '<html> <h1>Hi�[2J</h1>'"
    )
    assert problem_of(b"", 404).message.endswith("HTTP 404, and nothing in it")
    moved = problem_of(b"", 302, {"Location": "https://login.example/"})
    assert moved.message.endswith("HTTP 302, 'https://login.example/'")


def test_fault_63_what_the_service_says_is_shown_on_one_clean_line() -> None:
    """Control, bidi and C1 characters, line separators and lone surrogates are replaced."""
    said = "a\r\nb\x1b[31m\x9b\u202e\u2066c\u2028d\x7f\x00e"
    message = problem_of({"error": {"err_code": -10003, "message": said}}).message
    assert message.endswith(": a b�[31m���c d��e")
    assert problem_of(b'{"error": {"message": "x\\ud83d"}}').message.endswith(": x?")


def test_evidence_is_bounded() -> None:
    """2,048 characters of the body, 1,000 of what it says, cut at no half character."""
    body = ("页" * 100_000).encode()
    assert problem_of(body).body == "页" * 2048
    for error in ({"message": "页" * 100_000}, "页" * 100_000):
        assert len(problem_of({"error": error}).message) < 1200


@pytest.mark.parametrize(
    ("said", "status", "kept"),
    [
        (b"<html>", 200, True),
        (b"<html>", 302, True),
        (b"<html>", 401, True),
        ({"error": {"err_code": -10011}}, 400, True),
        ({"error": {"err_code": -10003}}, 500, True),
        ({"error": {"err_code": -10001}}, 401, False),
        ({"error": {"err_code": -10010}}, 404, False),
        (b"", 429, False),
    ],
)
def test_the_body_is_evidence_where_it_tells_something(said: Any, status: int, kept: bool) -> None:
    """Of pages, bad requests and troubles, not of what is clear without."""
    assert (problem_of(said, status).body is not None) == kept
