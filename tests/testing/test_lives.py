"""The fake's lives: what they say is what the wire samples say."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from veo3_async.testing import Body, Life, Received, Stage, Status
from veo3_async.testing._gateway import MODELS, Envelope, Gateway
from veo3_async.testing._lives import Position, advance, fields_at
from veo3_async.testing._replies import IMAGE_URL, Request, refusal
from veo3_async.testing._requests import Outcome
from veo3_async.testing._videos import Video

REPLIES = Path(__file__).parents[1] / "replies"
CREATED = 1767600000.0
LIGHTHOUSE = Request("veo3-pro", "a lighthouse in a storm", (IMAGE_URL,))
MARKET = Request("veo3-pro", "这张图片有什么", (IMAGE_URL,))

# Texts and handles that the fake takes from the documented example, and its own URLs.
MADE_UP = {
    "enhanced_prompt",
    "mediaId",
    "startImageMediaId",
    "veo3StartImageMediaId",
    "url",
    "error_message",
    "video_generation_error",
    "upsample_generation_id",
    "upsample_video_url",
    "video_generation_id",
    "video_media_id",
    "video_url",
}


def sample(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((REPLIES / f"{name}.json").read_bytes())
    return content


def a_gateway(**options: Any) -> Gateway:
    defaults: dict[str, Any] = {
        "api_key": "test-key",
        "speed": 1.0,
        "rate_limit": None,
        "lives": None,
        "envelope": "task_id",
        "video": Video(),
        "seed": 0,
    }
    gateway = Gateway(**(defaults | options))
    gateway.epoch = CREATED
    gateway.files.url = "http://files/"
    return gateway


def a_call(path: str, *, at: float = 0.0, method: str = "GET", **parts: Any) -> Received:
    path, _, query = path.partition("?request_id=")
    return Received(
        method=method,
        path=path,
        target=path,
        request_id=query or None,
        headers={"Authorization": "Bearer test-key"} | parts.pop("headers", {}),
        body=parts.pop("body", b""),
        at=at,
        connection=1,
        reused=parts.pop("reused", False),
    )


def poll(gateway: Gateway, request_id: str, at: float) -> Outcome:
    return gateway.answer(a_call(f"/302/submit/veo3-pro?request_id={request_id}", at=at))


def said(outcome: Outcome) -> Any:
    assert isinstance(outcome.answer.body, bytes)
    return json.loads(outcome.answer.body)


def told(life: Life, at: float, *, request: Request = LIGHTHOUSE, request_id: str = "id") -> Any:
    gateway = a_gateway()
    gateway.add(request_id, life, request, now=0.0)
    outcome = poll(gateway, request_id, at + 0.0001)
    assert (outcome.answer.status, outcome.fault) == (200, None)
    return said(outcome)


def comparable(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        said = {key: comparable(item, key) for key, item in value.items()}
        return {key: item for key, item in said.items() if item is not None}
    if isinstance(value, list):
        return [
            "made up" if name == "images" and isinstance(i, str) else comparable(i) for i in value
        ]
    return "made up" if name in MADE_UP and value is not None else value


@pytest.mark.parametrize(
    ("name", "life", "at"),
    [
        ("pending", Life.documented(), 0.0),
        ("prompt_enhancement_checking", Life.documented(), 0.9),
        ("prompt_enhancing", Life.documented(), 1.7),
        ("image_downloading", Life.documented(), 4.2),
        ("image_cropping", Life.documented(), 5.6),
        ("image_uploading", Life.documented(), 6.9),
        ("image_processing_completed", Life.documented(), 9.8),
        ("video_generating", Life.documented(), 11.0),
        ("video_generation_completed", Life.documented(), 231.0),
        ("video_upsampling", Life.documented(), 238.0),
        ("video_upsampling_failed", Life.upsample_failing(), 290.0),
        ("completed_plain_only", Life.upsample_failing(), 345.0),
        ("completed_without_upsample", Life.plain(), 231.0),
        ("video_generation_failed_waiting", Life.retrying(1), 96.0),
    ],
)
def test_a_stage_says_what_its_sample_says(name: str, life: Life, at: float) -> None:
    """Fields, values and times of each constructed sample are those of the life at its second."""
    expected = sample(f"record_{name}")
    assert comparable(expected) == comparable(told(life, at, request_id=expected["id"]))


TIMES = ("status_update_time", "completed_at")


@pytest.mark.parametrize(
    ("name", "life"),
    [("failed", Life.failing()), ("completed_after_retries", Life.retrying(3))],
)
def test_an_end_says_what_its_sample_says(name: str, life: Life) -> None:
    """At another second; what was left over from earlier attempts included."""
    expected = sample(f"record_{name}")
    got = told(life, 1000.0, request_id=expected["id"])
    later = {name: got[name] for name in TIMES}
    assert comparable(expected | later) == comparable(got)


def test_the_documented_life_ends_as_the_documented_reply() -> None:
    """Every field but the two URLs is the page's own, to the letter and the millisecond."""
    expected = sample("completed")
    got = told(Life.documented(), 334.692, request=MARKET, request_id=expected["id"])
    own = {"video_url", "upsample_video_url", "startImageMediaId", "veo3StartImageMediaId"}
    later = {name: got[name] for name in (*TIMES, "created_at")}
    assert expected | later | {field: got[field] for field in own} == got
    assert (
        expected["completed_at"] - expected["created_at"] == got["completed_at"] - got["created_at"]
    )
    assert got["video_url"].startswith("http://files/")


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_retrying_life_counts_its_attempts(n: int) -> None:
    """Each failed attempt raises ``retry_count`` by one and waits in the pool."""
    life = Life.retrying(n)
    states = [fields_at(life, index) for index in range(len(life.stages))]
    failed = [s["retry_count"] for s in states if s["status"] == "video_generation_failed"]
    assert failed == list(range(1, n + 1))
    waiting = [s["status"] for s in states if not s["running"]]
    assert waiting == ["pending", *["video_generation_failed"] * n, "completed"]


def test_a_pooled_life_waits_before_each_stage() -> None:
    """``running`` is false and true beside the same word, and no stage but the last is an end."""
    life = Life.pooled()
    states = [fields_at(life, index) for index in range(len(life.stages))]
    assert [s["running"] for s in states[:-1]] == [False, True] * 11
    assert [s["status"] for s in states[:-1:2]] == [s["status"] for s in states[1::2]]
    assert life.duration == pytest.approx(334.692)


def test_the_documented_life_passes_every_status_in_order() -> None:
    """The statuses are those that the wire page lists, in its order."""
    life = Life.documented()
    assert [fields_at(life, index)["status"] for index in range(len(life.stages))] == [
        "pending",
        "prompt_enhancement_checking",
        "prompt_enhancing",
        "image_downloading",
        "image_cropping",
        "image_uploading",
        "image_processing_completed",
        "video_generating",
        "video_generation_completed",
        "video_upsampling",
        "video_upsampling_completed",
        "completed",
    ]
    assert life.duration == pytest.approx(334.692)


@pytest.mark.parametrize(
    ("name", "status", "err_code"),
    [
        ("401_missing_key", 401, -10001),
        ("401_invalid_key", 401, 10001),
        ("balance", 402, -10004),
        ("not_found", 404, -10010),
        ("503_no_channel", 503, -10008),
        ("credential_expired", 401, -10005),
        ("disabled", 403, -10002),
        ("network", 502, -10003),
        ("quota_total", 429, -10006),
        ("not_supported", 400, -10009),
        ("invalid_request", 400, -10011),
        ("upstream_timeout", 504, -1024),
    ],
)
def test_a_refusal_is_its_sample(name: str, status: int, err_code: int) -> None:
    """The gateway's error bodies are those that were seen."""
    answer = refusal(status, err_code)
    assert (answer.status, said(Outcome(answer))) == (status, sample(f"error_{name}"))


def test_speed_shortens_a_life_and_its_times_agree() -> None:
    """At speed 100 the stages begin a hundred times sooner, by the reply's times too."""
    gateway = a_gateway(speed=100.0)
    gateway.add("id", None, LIGHTHOUSE, now=5.0)
    state = said(poll(gateway, "id", 8.4))
    assert state["status"] == "completed"
    assert state["completed_at"] - state["created_at"] == 3347
    assert gateway.ends_at("id") == pytest.approx(5.0 + 3.34692)


def test_a_life_may_begin_with_its_first_poll() -> None:
    """Until somebody asks, nothing happens to it."""
    gateway = a_gateway()
    gateway.add("id", None, LIGHTHOUSE, now=0.0, waits=True)
    assert gateway.ends_at("id") is None
    state = said(poll(gateway, "id", 500.0))
    assert state["status"] == "pending"
    assert state["created_at"] == round((CREATED + 500) * 1000)


def test_a_script_is_told_one_reply_a_poll_and_the_last_repeats() -> None:
    """Objects, bytes, statuses and faults come out exactly as they were given."""
    life = Life.scripted(
        [{"status": "pending"}, b"nonsense", (502, b"<html>"), Status(404, err_code=-10010)]
    )
    gateway = a_gateway()
    gateway.add("id", life, LIGHTHOUSE, now=0.0)
    answers = [poll(gateway, "id", 0.0).answer for _ in range(5)]
    assert [a.status for a in answers] == [200, 200, 502, 404, 404]
    assert [a.body for a in answers[:3]] == [b'{"status":"pending"}', b"nonsense", b"<html>"]


def test_a_stage_ends_by_polls_or_by_seconds() -> None:
    """Whichever comes first ends a stage, and the stage after begins at that moment."""
    life = Life((Stage({}, 10.0, 2), Stage({}, 10.0), Stage({})))
    first = advance(life, Position(0.0), 1.0, 1.0)
    second = advance(life, first, 2.0, 1.0)
    assert advance(life, second, 3.0, 1.0) == Position(3.0, 1, 1)
    assert advance(life, second, 12.5, 1.0) == Position(12.5, 1, 1)
    assert advance(life, first, 25.0, 1.0) == Position(20.0, 2, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Life(()), "a life has at least one stage"),
        (lambda: Life((Stage({}), Stage({}))), "every stage but the last"),
        (lambda: Life.scripted([]), "at least one stage"),
        (lambda: Life.retrying(4), "between 1 and 3"),
        (lambda: Stage({}, -1.0), "at least 0"),
        (lambda: Stage({}, float("nan")), "finite"),
        (lambda: Stage({}, None, 0), "at least 1"),
        (lambda: a_gateway(speed=0), "speed is above 0"),
        (lambda: a_gateway(rate_limit=0), "rate_limit is above 0"),
        (lambda: a_gateway(envelope="x"), "envelope is one of"),
        (lambda: a_gateway(time_unit="us"), "time_unit is 'ms' or 's'"),
    ],
)
def test_nonsense_is_refused_by_name(make: Any, message: str) -> None:
    """A life or an option that cannot be meant says what is wrong with it."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("draw", [Life.random, Life.mixed])
def test_random_lives_depend_on_the_seed_alone(draw: Any) -> None:
    """The same generator gives the same lives, another gives others."""
    first, again, other = ([draw(rng) for _ in range(50)] for rng in map(random.Random, (1, 1, 2)))
    assert first == again
    assert first != other


def test_mixed_lives_hold_every_kind() -> None:
    """Among many there are failures, retries, and videos with and without upsampling."""
    rng = random.Random(0)
    lives = [Life.mixed(rng) for _ in range(300)]
    endings = {fields_at(life, len(life.stages) - 1)["status"] for life in lives}
    assert endings == {"completed", "failed"}
    assert {life.upsample for life in lives} == {True, False}
    assert any("error_sleep" in fields_at(life, len(life.stages) - 1) for life in lives)


def test_a_row_of_lives_is_taken_again_and_again() -> None:
    """New tasks take the lives of a sequence in turn."""
    gateway = a_gateway(lives=[Life.plain(), Life.failing()])
    for request_id in "abc":
        gateway.add(request_id, None, LIGHTHOUSE, now=0.0)
    assert [said(poll(gateway, i, 300.0))["status"] for i in "abc"] == [
        "completed",
        "failed",
        "completed",
    ]


def test_the_lives_of_tasks_to_come_can_be_changed() -> None:
    """Those that were made live on as they do."""
    gateway = a_gateway()
    gateway.add("a", None, LIGHTHOUSE, now=0.0)
    assert gateway.lives is None
    gateway.lives = [Life.failing()]
    gateway.add("b", None, LIGHTHOUSE, now=0.0)
    assert [said(poll(gateway, i, 400.0))["status"] for i in "ab"] == ["completed", "failed"]


@pytest.mark.parametrize("model", MODELS)
def test_every_model_takes_submissions_and_polls(model: str) -> None:
    """Each model of the wire page makes a task, and the task says what was asked."""
    gateway = a_gateway()
    body = json.dumps({"text_prompt": "a prompt", "input_image": "https://x/y.jpg"}).encode()
    answer = gateway.answer(a_call(f"/302/submit/{model}", method="POST", body=body))
    request_id = said(answer)["task_id"]
    state = said(gateway.answer(a_call(f"/302/submit/{model}?request_id={request_id}")))
    images = ["https://x/y.jpg"] if model.endswith("-frames") else []
    assert request_id.startswith(model.removesuffix("-frames") + ":")
    assert (state["req"]["model"], state["req"]["images"]) == (model, images)
    assert [image["url"] for image in state["images"]] == images


@pytest.mark.parametrize(
    ("envelope", "shape"),
    [
        ("task_id", {"task_id": "ID"}),
        ("request_id", {"request_id": "ID"}),
        ("id", {"id": "ID"}),
        ("data", {"data": "ID"}),
        ("data_object", {"data": {"task_id": "ID"}}),
    ],
)
def test_the_id_comes_in_every_envelope(envelope: Envelope, shape: Any) -> None:
    """Each envelope of the wire page can be asked for."""
    gateway = a_gateway(envelope=envelope)
    body = b'{"text_prompt": "a prompt"}'
    answer = gateway.answer(a_call("/302/submit/veo3-pro", method="POST", body=body))
    assert isinstance(answer.answer.body, bytes)
    (request_id,) = gateway.tasks
    assert json.loads(answer.answer.body.replace(request_id.encode(), b"ID")) == shape


@pytest.mark.parametrize(
    ("call", "status", "err_code"),
    [
        (a_call("/302/submit/veo3-pro?request_id=unknown"), 404, -10010),
        (a_call("/302/submit/veo3-pro"), 400, -10011),
        (a_call("/302/submit/veo9?request_id=x"), 400, -10009),
        (a_call("/elsewhere"), 404, -10010),
        (a_call("/302/submit/veo3-pro", method="PUT"), 405, None),
        (a_call("/302/submit/veo3-pro", headers={"Authorization": "Bearer no"}), 401, 10001),
        (a_call("/302/submit/veo3-pro", headers={"Authorization": "test-key"}), 401, 10001),
        *(
            (a_call(f"/302/submit/{model}", method="POST", body=body), 400, -10011)
            for model, body in [
                ("veo3-pro", b""),
                ("veo3-pro", b"[]"),
                ("veo3-pro", b"{}"),
                ("veo3-pro", b'{"text_prompt": " "}'),
                ("veo3-pro", b'{"text_prompt": 1}'),
                ("veo3-pro", b"\xff"),
                ("veo3-pro-frames", b'{"text_prompt": "a"}'),
                ("veo3-pro-frames", b'{"text_prompt": "a", "input_image": "/tmp/x.jpg"}'),
            ]
        ),
    ],
)
def test_a_bad_call_is_refused_with_its_code(
    call: Received, status: int, err_code: int | None
) -> None:
    """Status and ``err_code`` are those of the gateway, and no task is made."""
    gateway = a_gateway()
    answer = gateway.answer(call)
    assert answer.answer.status == status
    assert said(answer)["error"].get("err_code") == err_code
    assert not gateway.tasks


def test_times_may_be_in_seconds() -> None:
    """As gateways of this kind have them."""
    gateway = a_gateway(time_unit="s")
    gateway.add("id", Life.plain(), LIGHTHOUSE, now=0.0)
    state = said(poll(gateway, "id", 300.0))
    assert [state[name] for name in ("created_at", *TIMES)] == [
        *(1767600000, 1767600231),
        1767600231,
    ]


def test_a_task_may_be_known_at_its_own_path_only() -> None:
    """A poll elsewhere gets the gateway's word for an id that it does not know."""
    gateway = a_gateway(keyed_by_path=True)
    gateway.add("id", None, Request("veo3-fast", "p", (), path="/302/submit/veo3-fast"), now=0.0)
    elsewhere, there = (
        gateway.answer(a_call(f"/302/submit/{model}?request_id=id"))
        for model in ("veo3-pro", "veo3-fast")
    )
    assert (elsewhere.answer.status, there.answer.status) == (404, 200)
    assert said(elsewhere)["error"]["err_code"] == -10010


def test_a_refusal_in_the_shape_of_a_task_is_its_sample() -> None:
    """Under any status."""
    expected = sample("error_task_shaped_saturated")
    body = Body.refusal(expected["error"], 429)
    assert (body.code, json.loads(body.content)) == (429, expected)
    assert Body.refusal().code == 200


def test_only_so_many_calls_are_let_in_during_any_second() -> None:
    """The window slides, what is refused does not count, and the answer says when to come back."""
    gateway = a_gateway(rate_limit=2)
    gateway.add("id", Life.plain(), LIGHTHOUSE, now=0.0)
    answers = [poll(gateway, "id", at).answer for at in (0.0, 0.6, 0.9, 1.0, 1.5, 1.6)]
    assert [a.status for a in answers] == [200, 200, 429, 200, 429, 200]
    assert answers[2].headers["Retry-After"] == "1"


def test_a_rate_below_one_is_one_call_in_several_seconds() -> None:
    """Half a request a second lets one in every two seconds."""
    gateway = a_gateway(rate_limit=0.5)
    gateway.add("id", Life.plain(), LIGHTHOUSE, now=0.0)
    statuses = [poll(gateway, "id", at).answer.status for at in (0.0, 1.9, 2.0)]
    assert statuses == [200, 429, 200]


def test_an_id_is_added_once() -> None:
    """A second task of the same id would silently replace a life: it is refused."""
    gateway = a_gateway()
    gateway.add("id", Life.plain(), LIGHTHOUSE, now=0.0)
    with pytest.raises(ValueError, match="already"):
        gateway.add("id", Life.plain(), LIGHTHOUSE, now=0.0)


def test_urls_expire_and_the_next_poll_has_fresh_ones() -> None:
    """The old URL answers 403, the new one is another and works."""
    gateway = a_gateway()
    gateway.add("id", Life.plain(), LIGHTHOUSE, now=0.0)
    old = said(poll(gateway, "id", 300.0))["video_url"].removeprefix("http:/")
    gateway.renew("id")
    new = said(poll(gateway, "id", 300.0))["video_url"].removeprefix("http:/")
    statuses = [gateway.answer(a_call(path)).answer.status for path in (old, new)]
    assert (old != new, statuses) == (True, [403, 200])


def test_the_big_bodies_are_as_big_as_they_say() -> None:
    """The huge body is valid JSON of its size; the bomb is small until it is unpacked."""
    assert len(Body.huge().content) == 3_000_000
    assert json.loads(Body.huge().content)["status"]
    assert len(Body.gzip_bomb(1_000_000).content) < 5_000
