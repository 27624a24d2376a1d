"""The values: what is there by default, and what cannot be changed."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from veo3_async import _models
from veo3_async._models import (
    FINAL,
    GenerationRequest,
    Phase,
    PollReport,
    SourceImage,
    Stats,
    Transition,
    VideoTask,
)

REPLIES: Final = Path(__file__).parent / "replies"
TRANSITION: Final = Transition(
    request_id="a",
    phase=Phase.QUEUED,
    previous=None,
    status="pending",
    task=VideoTask(id="a"),
    observed_at=1.0,
    final=False,
)
REPORT: Final = PollReport(
    request_id="a",
    attempt=1,
    status=200,
    err_code=None,
    duration=0.1,
    error=None,
    next_poll_in=10.0,
)
STATS: Final = Stats(
    watched=1,
    in_flight=1,
    polls=1,
    transitions=1,
    failures={},
    rate=20.0,
    throttled_seconds=0.0,
    throttle_reason=None,
    lag_p50=None,
    lag_p95=None,
    oldest=None,
)
WIRE: Final = (SourceImage, GenerationRequest, VideoTask)


def wire_names(cls: type) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(cls)} - {"extra"}


def test_the_fields_are_those_of_the_page() -> None:
    """Each field of the documented reply has its attribute, by the name on the wire."""
    page: dict[str, Any] = json.loads((REPLIES / "completed.json").read_bytes())
    assert set(page) <= wire_names(VideoTask)
    assert set(page["req"]) == wire_names(GenerationRequest)
    assert set(page["images"][0]) == wire_names(SourceImage)


def test_what_was_seen_beside_the_page_has_its_fields() -> None:
    """Beyond the page there are exactly the fields that were seen in production."""
    page: dict[str, Any] = json.loads((REPLIES / "completed.json").read_bytes())
    seen: dict[str, Any] = json.loads((REPLIES / "completed_after_retries.json").read_bytes())
    assert set(seen) - set(page) == wire_names(VideoTask) - set(page)


@pytest.mark.parametrize("cls", WIRE)
def test_a_reply_may_leave_out_everything(cls: type) -> None:
    """Every field has a default, and no two values share one that can change."""
    first, second = cls(), cls()
    assert first == second
    assert first.extra == {}
    assert first.extra is not second.extra


@pytest.mark.parametrize(
    "value", [SourceImage(), GenerationRequest(), VideoTask(), TRANSITION, REPORT, STATS]
)
def test_values_do_not_change(value: Any) -> None:
    """No field of any of them can be set."""
    for field in msgspec.structs.fields(type(value)):
        with pytest.raises(AttributeError):
            setattr(value, field.name, None)


@pytest.mark.parametrize("value", [TRANSITION, REPORT, STATS])
def test_values_travel(value: Any) -> None:
    """They can be pickled and copied, and say the same as JSON."""
    assert pickle.loads(pickle.dumps(value)) == value == copy.deepcopy(value)
    names = {field.name for field in msgspec.structs.fields(type(value))}
    assert set(json.loads(msgspec.json.encode(value))) == names


def test_media_id_has_its_name_of_the_wire_in_json() -> None:
    """``mediaId`` on the wire, ``media_id`` in Python."""
    image = SourceImage(media_id="CAM")
    assert json.loads(msgspec.json.encode(image))["mediaId"] == "CAM"


@pytest.mark.parametrize(
    ("plain", "upsampled", "best"),
    [
        (None, None, None),
        ("p", None, "p"),
        (None, "u", "u"),
        ("p", "u", "u"),
        ("p", "", "p"),
    ],
)
def test_the_best_url(plain: str | None, upsampled: str | None, best: str | None) -> None:
    """The upsampled video where there is one, else the plain one, else none."""
    assert VideoTask(video_url=plain, upsample_video_url=upsampled).best_url == best


def test_phases_are_words() -> None:
    """A phase is its own lower-case name, so that it reads well wherever it is printed."""
    assert [str(phase) for phase in Phase] == [phase.name.lower() for phase in Phase]
    assert {phase for phase in Phase if "Final" in documented(phase)} == FINAL


def documented(phase: Phase) -> str:
    source = inspect.getsource(_models)
    return source.split(f'{phase.name} = "{phase.value}"')[1].split('"""')[1]
