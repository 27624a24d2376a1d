"""What the account says."""

from __future__ import annotations

import decimal
import json
from typing import Any, Final

import pytest
import wire
from hypothesis import given
from hypothesis import strategies as st

from veo3_async._errors import InvalidRequest
from veo3_async._protocol import account
from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.families import route_of
from veo3_async._protocol.http import Reply
from veo3_async._reports import Cost, VideoModel


def reply(content: Any, status: int = 200) -> Reply:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Reply(status, {"request-id": "r-1"}, body)


def models() -> dict[str, VideoModel]:
    found = account.read_models(reply(wire.sample("unified_models")), wall_now=0.0)
    assert isinstance(found, tuple)
    return {model.name: model for model in found}


def test_the_calls_are_spelled_as_the_wire_page_says() -> None:
    """Paths and queries; an id that is no part of a path is quoted, a page has 50 at most."""
    calls = [
        account.balance_call(),
        account.cost_call("0c9d8e7f-6a5b"),
        account.cost_call("a/b"),
        account.records_call(100.9, 200.9, page=2, limit=500),
        account.models_call(),
    ]
    assert {(call.method, call.body) for call in calls} == {("GET", None)}
    assert [call.target for call in calls] == [
        "/dashboard/balance",
        "/dashboard/record/0c9d8e7f-6a5b",
        "/dashboard/record/a%2Fb",
        "/dashboard/api-record?page=2&limit=50&start_time=100&end_time=200",
        "/302/v2/model/video",
    ]


@pytest.mark.parametrize(
    ("said", "balance"),
    [
        ({"data": {"balance": "12.345678"}}, "12.345678"),
        ({"data": {"balance": 12.5}}, "12.5"),
        ({"balance": " 0 "}, "0"),
        ({"data": {"balance": "-1.5"}}, "-1.5"),
        ({"data": {"balance": None}}, None),
        ({"data": {"balance": "unlimited"}}, None),
        ({"data": {"balance": "NaN"}}, None),
        ({"data": {}}, None),
        ({"data": []}, None),
    ],
)
def test_the_balance_is_exact_or_none(said: Any, balance: str | None) -> None:
    """As the service writes it, to the last digit; None where it does not say."""
    expected = None if balance is None else decimal.Decimal(balance)
    assert account.read_balance(reply(said), wall_now=0.0) == expected


def test_the_samples_of_the_account() -> None:
    """Balance, cost and upload, as the page has them."""
    balance = account.read_balance(reply(wire.sample("account_balance")), wall_now=0.0)
    assert balance == decimal.Decimal("12.345678")
    cost = account.read_cost(reply(wire.sample("account_record")), wall_now=0.0)
    assert cost == Cost(
        cost=decimal.Decimal(3),
        model="veo3-pro",
        input_token=0,
        output_token=0,
        process_time=1.0,
    )
    url = account.read_upload(reply(wire.sample("upload_file")), wall_now=0.0)
    assert url == wire.content("upload_file")["data"]


@pytest.mark.parametrize(
    ("said", "records"),
    [
        ({"items": [{"a": 1}], "pagination": {}}, ({"a": 1},)),
        ({"data": {"items": [{"a": 1}, None, 5]}}, ({"a": 1},)),
        ({"data": [{"a": 1}]}, ({"a": 1},)),
        ({"items": None}, ()),
        ({}, ()),
    ],
)
def test_records_are_what_the_service_says(said: Any, records: tuple[Any, ...]) -> None:
    """Their fields are not documented, so they come as they are."""
    assert account.read_records(reply(said), wall_now=0.0) == records


@pytest.mark.parametrize("name", wire.names("error_"))
def test_an_error_is_a_problem_and_no_answer(name: str) -> None:
    """Whatever is asked for."""
    said = reply(wire.sample(name))
    for read in (account.read_balance, account.read_cost, account.read_upload):
        assert isinstance(read(said, wall_now=0.0), Problem)
    for read_many in (account.read_records, account.read_models):
        assert isinstance(read_many(said, wall_now=0.0), Problem)


@given(st.binary(max_size=200), st.sampled_from([200, 401, 404, 500]))
def test_any_reply_is_a_value_or_a_problem(body: bytes, status: int) -> None:
    """Nothing that a server answers raises."""
    said = reply(body, status)
    for read in (
        *(account.read_balance, account.read_cost, account.read_upload),
        *(account.read_records, account.read_models),
    ):
        assert isinstance(
            read(said, wall_now=0.0),
            decimal.Decimal | Cost | str | tuple | Problem | None,
        )


def test_an_upload_without_a_url_is_a_problem() -> None:
    """A submission with a URL that is none would be paid for."""
    outcome = account.read_upload(reply({"code": 200, "data": "", "message": "ok"}), wall_now=0.0)
    assert isinstance(outcome, Problem)
    assert outcome.kind is Kind.UNEXPECTED


def test_a_list_that_is_none_is_a_problem() -> None:
    """And no empty list of models."""
    outcome = account.read_models(reply({"models": "soon"}), wall_now=0.0)
    assert isinstance(outcome, Problem)


def test_the_id_of_the_http_request_is_kept_apart() -> None:
    """It is in a header, and no task's id."""
    assert account.request_id_of_http(reply(b"")) == "r-1"
    assert account.request_id_of_http(Reply(200, {}, b"")) is None


@pytest.mark.parametrize("said", [["a", " b ", "", 5], "a, b,"])
def test_the_requests_that_a_task_was_charged_by(said: Any) -> None:
    """A list, or a text with commas."""
    body = wire.content("unified_completed") | {"ai302_cost_request_ids": said}
    task = wire.task_of(body, route=route_of("kling-21"))
    assert account.cost_request_ids(task) == ("a", "b")
    bare = wire.content("unified_completed") | {"ai302_cost_request_ids": None}
    assert account.cost_request_ids(wire.task_of(bare, route=route_of("kling-21"))) == ()


# --- models -----------------------------------------------------------------------------------


def test_models_have_their_parameters_and_prices() -> None:
    """In English where there is a text in it."""
    veo, kling = models()["google-veo3.1"], models()["kling-21"]
    assert (veo.price, veo.provider, veo.description) == ("0.5 PTC/time", "Google", "")
    assert (veo.takes_text, veo.takes_image, veo.takes_video) == (True, True, False)
    ratio = next(one for one in veo.parameters if one.name == "aspect_ratio")
    assert (ratio.options, ratio.required) == (("16:9", "9:16"), False)
    assert [one.options for one in kling.parameters if one.name == "duration"] == [("5", "10")]


def test_a_range_has_its_bounds() -> None:
    """Numbers, or numbers as text; what is none is None."""
    bounds = {"min": 4, "max": "8", "step": "even"}
    listed = [{"name": "duration", "range": {"type": "slider", "range": bounds}}, {"range": 5}, 7]
    said = {"models": [{"model_name": "m", "parameters": listed, "capabilities": None}, None]}
    found = account.read_models(reply(said), wall_now=0.0)
    assert isinstance(found, tuple)
    (model,) = found
    duration, other = model.parameters
    assert (duration.minimum, duration.maximum, duration.step) == (4.0, 8.0, None)
    assert (other.name, other.options) == ("", ())


KLING: Final = {"image": "https://x/y.jpg"}


@pytest.mark.parametrize(
    ("name", "image", "options", "said"),
    [
        ("kling-21", None, {}, "pass image="),
        ("kling-21", "https://x/y.jpg", {"duration": 7}, "one of 5, 10, not 7"),
        ("kling-21", "https://x/y.jpg", {"fps": 24}, "does not take fps; it takes duration"),
        ("google-veo3.1", None, {"aspect_ratio": "1:1"}, "one of 16:9, 9:16"),
    ],
)
def test_what_a_model_is_listed_not_to_take_is_refused_before_it_is_paid(
    name: str, image: str | None, options: dict[str, Any], said: str
) -> None:
    """The message names what it takes."""
    with pytest.raises(InvalidRequest, match=said):
        account.check_against(models()[name], image=image, options=options)


def test_what_the_list_does_not_say_is_not_refused() -> None:
    """A model without capabilities and parameters takes anything; None is left away."""
    account.check_against(VideoModel(name="m"), image="https://x/y.jpg", options={"fps": 24})
    veo = models()["google-veo3.1"]
    account.check_against(veo, image=None, options={"aspect_ratio": "9:16", "fps": None})
    text_only = VideoModel(name="m", takes_text=True)
    with pytest.raises(InvalidRequest, match="takes no image"):
        account.check_against(text_only, image="https://x/y.jpg", options=None)
