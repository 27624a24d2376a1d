"""Request ids and model names: what may be sent, and where an id is polled."""

from __future__ import annotations

import urllib.parse
from typing import Final

import pytest
import wire
from hypothesis import given
from hypothesis import strategies as st

from veo3_async._errors import InvalidRequest
from veo3_async._models import VideoTask
from veo3_async._protocol.families import Route, poll_call, route_for_id, route_of, siblings
from veo3_async._protocol.ids import MAX_ID_BYTES, check_model, check_request_id, check_request_ids

DEFAULT: Final = route_of("mine", "record")


def path_of(route: Route) -> str:
    return route.path.removeprefix("/302/submit/")


def test_fault_28_a_real_id_goes_out_as_it_is() -> None:
    """With its colon, under its model's path."""
    call = poll_call(route_for_id(wire.ID, DEFAULT), wire.ID)
    assert (call.method, call.body) == ("GET", None)
    assert call.target == f"/302/submit/veo3-pro?request_id={wire.ID}"


@pytest.mark.parametrize(
    ("request_id", "model"),
    [
        ("veo3-fast:1", "veo3-fast"),
        ("veo3-fast-frames:1", "veo3-fast-frames"),
        ("veo3-pro-frames:1", "veo3-pro-frames"),
        ("veo3-fast-frames:1767600000-AbCdEf1234", "veo3-fast-frames"),
        ("veo3:1", "mine"),
        ("veo3.1-pro:1767600000-AbCdEf1234", "mine"),
        ("veo4:1", "mine"),
        ("video_3f2b7a10-5c4d-4e8f-9a1b-2c3d4e5f6071", "mine"),
        ("task_3f2b7a105c4d", "mine"),
        ("68935cd4", "mine"),
        ("veo3-pro", "mine"),
        ("xveo3-pro:1", "mine"),
        ("veo3-pro/../x:1", "mine"),
    ],
)
def test_trap_10_an_id_is_polled_where_its_prefix_says_or_else_the_caller(
    request_id: str, model: str
) -> None:
    """A prefix that is a path says it; ``veo3:`` does not, for that path speaks otherwise."""
    assert path_of(route_for_id(request_id, DEFAULT)) == model


def test_trap_10_the_other_paths_are_known() -> None:
    """The twin with or without an image comes first: the prefix does not tell them apart."""
    assert [path_of(route) for route in siblings(route_of("veo3-pro"))] == [
        "veo3-pro-frames",
        "veo3-fast",
        "veo3-fast-frames",
    ]
    assert [path_of(route) for route in siblings(route_of("veo3-fast-frames"))] == [
        "veo3-fast",
        "veo3-pro",
        "veo3-pro-frames",
    ]
    assert len(siblings(DEFAULT)) == 4


def test_a_family_that_is_not_there_is_refused() -> None:
    """And the message says which there are."""
    with pytest.raises(InvalidRequest, match="there are record"):
        route_of("veo3-pro", "records")


ODD_IDS: Final = [
    wire.ID,
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
    path = poll_call(route_for_id(request_id, route_of("veo3-pro")), request_id).target
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


@pytest.mark.parametrize("bad", ["", "a\nb", " a", "a\n", "\n", "é\x85", "\ud800", "x" * 1025])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_bad_id_among_good_ones_is_refused(bad: str, place: int) -> None:
    """Looked at together, they are refused as they are one by one."""
    ids = ["veo3-pro:1", "veo3-pro:2"]
    ids.insert(place, bad)
    with pytest.raises(InvalidRequest):
        check_request_ids(ids)


def test_unusual_ids_are_taken_and_what_is_no_text_is_not() -> None:
    """A space within, other letters: one by one they are looked at again."""
    check_request_ids(["veo3-pro:1", "an unusual id", "é"])
    with pytest.raises(TypeError):
        check_request_ids(["veo3-pro:1", 5])
