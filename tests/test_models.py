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
    ours = {"phase", "failure_reason", "family", "ended", "wants_upsample", "extra"}
    return {field.encode_name for field in msgspec.structs.fields(cls)} - ours


DOCUMENTED_ONLY: Final[dict[type, set[str]]] = {
    VideoTask: {"endImageMediaId", "referenceImageMediaIds"},
    GenerationRequest: {"aspect_ratio", "enable_prompt_enhance"},
    SourceImage: set(),
}
"""Fields of the page that no sample shows."""


def test_the_fields_are_those_of_the_samples_and_of_the_page() -> None:
    """Each field that a record was seen with has its attribute, by the name on the wire."""
    seen: dict[type, set[str]] = {cls: set() for cls in WIRE}
    for path in REPLIES.glob("record_*.json"):
        record = json.loads(path.read_bytes())
        if "status" in record and "detail" not in record and "unknown" not in path.stem:
            seen[VideoTask] |= set(record) - {"request"}
            seen[GenerationRequest] |= set(record.get("req", {}))
            seen[SourceImage] |= {name for image in record.get("images", ()) for name in image}
    for cls in WIRE:
        assert seen[cls] | DOCUMENTED_ONLY[cls] == wire_names(cls)


def test_a_task_is_a_dict_that_can_be_written_as_json() -> None:
    """By its names on the wire, with what the family read out of it."""
    task = VideoTask(id="a", phase=Phase.COMPLETED, images=(SourceImage(media_id="m"),))
    said = json.loads(json.dumps(task.to_dict()))
    assert (said["id"], said["phase"], said["images"][0]["mediaId"]) == ("a", "completed", "m")
    assert msgspec.convert(said, VideoTask) == task


@pytest.mark.parametrize("phase", Phase)
def test_a_task_is_final_where_its_phase_is(phase: Phase) -> None:
    """And a phase is where nothing follows it."""
    assert VideoTask(phase=phase).is_final == phase.is_final == (phase in FINAL)


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
