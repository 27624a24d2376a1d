"""Models and families: who is asked, with what, and what is refused before it is paid."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
import wire
from hypothesis import given
from hypothesis import strategies as st

from veo3_async._errors import InvalidRequest
from veo3_async._models import Phase, VideoTask
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.families import (
    Route,
    SubmitOptions,
    poll_call,
    posted_to,
    read,
    route_of,
    siblings,
    submit_call,
    submitted,
)
from veo3_async._protocol.http import Reply

IMAGE: Final = "https://file.302.ai/gpt/imgs/20260105/11111111111111111111111111111111.jpg"
PROMPT: Final = "a lighthouse in a storm"
FAMILIES: Final = {"record": "veo3-pro", "queue": "veo3", "tasks": "veo3.1", "unified": "sora-2"}


@pytest.mark.parametrize(
    ("model", "family", "path", "asked"),
    [
        ("veo3-pro", "record", "/302/submit/veo3-pro", ""),
        ("veo3-fast-frames", "record", "/302/submit/veo3-fast-frames", ""),
        ("veo3", "queue", "/302/submit/veo3", ""),
        ("veo2", "queue", "/302/submit/veo2", ""),
        ("veo3-v2", "tasks", "/302/submit/veo3-v2", ""),
        ("veo3.1", "tasks", "/302/submit/veo3-v2", "veo3.1"),
        ("veo3.1-pro", "tasks", "/302/submit/veo3-v2", "veo3.1-pro"),
        ("google-veo3.1", "unified", "/302/v2/video/create", "google-veo3.1"),
        ("kling-22", "unified", "/302/v2/video/create", "kling-22"),
        ("Kling_21", "unified", "/302/v2/video/create", "Kling_21"),
        ("a-new-model", "unified", "/302/v2/video/create", "a-new-model"),
    ],
)
def test_the_name_finds_the_family(model: str, family: str, path: str, asked: str) -> None:
    """And a name that nobody knows is the unified endpoint's."""
    route = route_of(model)
    assert (route.family, route.path, route.model) == (family, path, asked)


def test_family_says_it_where_the_name_does_not() -> None:
    """It takes any name."""
    assert route_of("veo3-pro", "tasks").model == "veo3-pro"
    assert route_of("veo3-por", "unified").model == "veo3-por"
    assert route_of("minimax", "queue").path == "/302/submit/minimax"
    with pytest.raises(InvalidRequest, match="there are record, queue, tasks, unified"):
        route_of("veo3-pro", "fal")


@pytest.mark.parametrize(
    ("model", "near"),
    [
        ("veo3-por", "veo3-pro"),
        ("veo3-pr", "veo3-pro"),
        ("veo-3-pro", "veo3-pro"),
        ("Veo3-Pro", "veo3-pro"),
        ("veo3_fast", "veo3-fast"),
        ("veo3-fast-frame", "veo3-fast-frames"),
        ("veo3.1-por", "veo3.1-pro"),
        ("veo3-v", "veo3-v2"),
        ("veo-3.1", "veo3.1"),
        ("veo3.1-fastt", "veo3-fast"),
        ("veo3.1pro", "veo3.1-pro"),
        ("klng-21", "kling-21"),
        ("gogle-veo3.1", "google-veo3.1"),
    ],
)
def test_a_misspelt_model_says_what_is_near_it(model: str, near: str) -> None:
    """Nothing is posted; who means it says the family."""
    with pytest.raises(InvalidRequest, match=rf"near it are .*{near}.*family='unified'"):
        route_of(model)


@pytest.mark.parametrize("model", ["veo3.2", "veo4", "sora-3", "kling-30", "wan3.0-t2v"])
def test_another_version_is_no_slip(model: str) -> None:
    """The unified endpoint knows what there is by then."""
    assert route_of(model).family == "unified"


def body_of(model: str, family: str | None = None, **parts: Any) -> tuple[str, dict[str, Any]]:
    call = submit_call(route_of(model, family), PROMPT, **parts)
    assert call.method == "POST"
    return call.target, json.loads(call.body or b"")


@pytest.mark.parametrize(
    ("model", "parts", "sample"),
    [
        ("veo3-pro", {}, "record_request"),
        ("veo3-pro", {"image": IMAGE}, "record_request_frames"),
        (
            "veo3-pro",
            {
                "image": IMAGE,
                "options": {
                    "aspect_ratio": "9:16",
                    "enable_upsample": True,
                    "enhance_prompt": True,
                    "generate_audio": False,
                },
            },
            "record_request_extra",
        ),
        ("veo2", {"options": {"aspect_ratio": "16:9", "duration": 5}}, "queue_request_veo2"),
        (
            "veo3",
            {
                "options": {
                    "aspect_ratio": "16:9",
                    "enhance_prompt": True,
                    "generate_audio": True,
                }
            },
            "queue_request_veo3",
        ),
        (
            "veo3.1",
            {"image": IMAGE, "options": {"enhance_prompt": True, "aspect_ratio": "16:9"}},
            "tasks_request",
        ),
        (
            "google-veo3.1",
            {
                "options": {
                    "negative_prompt": "text",
                    "duration": 8,
                    "resolution": "1080p",
                    "aspect_ratio": "16:9",
                    "generate_audio": True,
                }
            },
            "unified_request",
        ),
        (
            "google-veo3.1",
            {
                "image": [IMAGE],
                "options": {"end_image": IMAGE, "duration": 8, "aspect_ratio": "16:9"},
            },
            "unified_request_image",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_requests_are_those_of_the_samples(model: str, parts: dict[str, Any], sample: str) -> None:
    """Each family's body, field for field."""
    assert body_of(model, **parts)[1] == wire.content(sample)


@pytest.mark.parametrize(
    ("model", "parts", "said"),
    [
        (
            "veo3-pro",
            {"options": {"duration": 8}},
            "record does not take duration; it takes aspect",
        ),
        ("veo3-pro", {"options": {"aspect_ratio": "1:1"}}, "one of 16:9, 9:16, not '1:1'"),
        ("veo3-pro", {"image": [IMAGE, IMAGE]}, "from one image, not from 2"),
        ("veo3-pro", {"image": []}, "empty list"),
        ("veo3-pro", {"image": "data:image/png;base64,AAAA"}, "public http"),
        ("veo3-pro", {"webhook": "https://bot.example/x"}, "only unified has"),
        ("veo3", {"options": {"enable_upsample": True}}, "veo3 does not take enable_upsample"),
        ("veo3", {"image": IMAGE}, "text alone; with an image use veo3-pro"),
        ("veo3", {"extra": {"prompt": "x"}}, "extra repeats prompt"),
        ("veo2", {}, "veo2 wants aspect_ratio"),
        ("veo2", {"options": {"aspect_ratio": "16:9", "duration": 9}}, "one of 5s, 6s, 7s, 8s"),
        ("veo3-v2", {}, "serves veo3-fast"),
        ("veo3.1", {"image": "data:image/png;base64,AAAA"}, "public http"),
        ("veo3.1", {"options": {"fps": 24}}, "veo3.1 does not take fps"),
        ("sora-2", {"options": {"seed": 1}}, "unified does not take seed"),
        ("sora-2", {"image": "/tmp/x.jpg"}, "public http"),
        ("sora-2", {"webhook": "ftp://x"}, "public http"),
    ],
    ids=range(17),
)
def test_what_a_family_does_not_take_is_refused_before_it_is_paid(
    model: str, parts: dict[str, Any], said: str
) -> None:
    """And the message says what it takes."""
    with pytest.raises(InvalidRequest, match=said):
        body_of(model, **parts)


@pytest.mark.parametrize("model", FAMILIES.values())
def test_extra_passes_anything_and_none_is_left_away(model: str) -> None:
    """What no family documents, and an option that was not given."""
    _, body = body_of(model, options={"aspect_ratio": None}, extra={"seed": 7, "new": [1]})
    assert (body["seed"], body["new"]) == (7, [1])
    assert "aspect_ratio" not in body


def test_trap_20_the_body_of_one_family_is_never_posted_to_another() -> None:
    """``text_prompt`` at veo3 costs 7 dollars for nothing."""
    for model in FAMILIES.values():
        target, body = body_of(model)
        assert ("text_prompt" in body) == (target == "/302/submit/veo3-pro")


def test_several_images_and_data_urls_go_where_they_are_taken() -> None:
    """The tasks take a list, the unified endpoint data URLs, too."""
    assert body_of("veo3.1", image=[IMAGE, IMAGE])[1]["images"] == [IMAGE, IMAGE]
    data = "data:image/png;base64,AAAA"
    assert body_of("sora-2", image=data)[1]["image"] == data


def test_every_option_is_taken_by_some_family() -> None:
    """None of the typed names is refused everywhere."""
    refused = set()
    for name in SubmitOptions.__annotations__:
        value = "16:9" if name == "aspect_ratio" else IMAGE
        for model in FAMILIES.values():
            try:
                body_of(model, options={name: value})
                break
            except InvalidRequest:
                continue
        else:
            refused.add(name)
    assert refused == set()


@pytest.mark.parametrize("model", FAMILIES.values())
def test_a_task_is_polled_where_it_was_posted(model: str) -> None:
    """The route of a submission is that of its polls."""
    route = route_of(model)
    assert posted_to(route, image=None) == route
    assert submit_call(route, PROMPT).target == route.path
    assert poll_call(route, "a:b").target.endswith(("=a:b", "/a:b"))
    assert route not in siblings(route)


def test_the_unified_endpoint_wants_a_model() -> None:
    """A route that names none, as a journal may have one, polls and submits nothing."""
    with pytest.raises(InvalidRequest, match="wants a model"):
        submit_call(Route("unified", "/302/v2/video/create"), PROMPT)


@given(st.binary(max_size=300), st.integers(200, 599), st.sampled_from(sorted(FAMILIES)))
def test_any_bytes_give_a_task_or_a_problem_in_every_family(
    body: bytes, status: int, family: str
) -> None:
    """And an id or a problem to a submission."""
    route, reply = route_of(FAMILIES[family]), Reply(status, {}, body)
    assert isinstance(read(route, reply, request_id="x", wall_now=0.0), VideoTask | Problem)
    assert isinstance(submitted(route, reply, wall_now=0.0), str | Problem)


NAMES: Final = st.sampled_from(
    [
        *("status", "task_id", "taskId", "request_id", "video", "videoUrl", "video_url", "error"),
        *("detail", "raw_response", "data", "code", "message", "startTime", "attempts", "req"),
        *("created_at", "failed_at", "is_network_error", "upstream_task_id", "url", "msg", "type"),
    ]
)
VALUES: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["completed", "FAILED", "SUCCESS", "https://a/b.mp4", '{"video": "x"}']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(NAMES, VALUES), st.sampled_from(sorted(FAMILIES)))
def test_any_object_gives_a_task_or_a_problem_in_every_family(
    content: dict[str, Any], family: str
) -> None:
    """A final task has a video or is a failure, and each can be written as JSON."""
    outcome = wire.judged(json.dumps(content).encode(), route=route_of(FAMILIES[family]))
    if isinstance(outcome, VideoTask):
        assert not outcome.is_final or outcome.best_url or outcome.phase == "failed"
        json.dumps(outcome.to_dict(), allow_nan=False)


FAILED: Final[dict[str, dict[str, Any]]] = {
    "record": {"id": "x", "status": "failed", "status_update_time": 1750854923164},
    "queue": {"request_id": "x", "status": "FAILED"},
    "tasks": {"taskId": "x", "status": "FAILURE"},
    "unified": {"task_id": "x", "status": "failed"},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "said",
    [
        *({name: "blocked"} for name in ("error", "message", "msg", "reason", "detail", "err_msg")),
        *({name: "blocked"} for name in ("error_message", "fail_reason", "failReason", "errors")),
        {"error": ["blocked"]},
        {"error": [{"msg": "blocked"}]},
        {"error": {"error": {"message": "blocked"}}},
        {"error": {"details": [{"description": "blocked"}]}},
        {"error": '{"title": "blocked"}'},
        {"error": "null", "message": "blocked"},
        {"error": {}, "message": "blocked"},
        {"error": "{}", "failReason": " blocked\n"},
    ],
    ids=str,
)
def test_fault_46_a_failure_says_why_wherever_it_stands(family: str, said: dict[str, Any]) -> None:
    """No family documents each of these fields, and servers have them all."""
    route = route_of(FAMILIES[family])
    for content in (FAILED[family] | said, {"code": 200, "message": "ok", "data": FAILED[family]}):
        task = wire.task_of(content, route=route)
        assert task.phase is Phase.FAILED
        assert task.failure_reason == ("blocked" if "data" not in content else None)
