"""The values: what is there by default, and what cannot be changed."""

from __future__ import annotations

import copy
import datetime
import inspect
import json
import pickle
from pathlib import Path
from typing import Any, Final

import msgspec
import pydantic
import pytest

from veo3_async import FailureReason, TaskFailed, VideoModel, _models
from veo3_async._models import FINAL, GenerationRequest, Phase, SourceImage, Transition, VideoTask
from veo3_async._protocol import families
from veo3_async._protocol.families import Route
from veo3_async._protocol.http import Reply
from veo3_async._reports import PollReport, Stats
from veo3_async._stored_error import error_from_json, error_json

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


# --- why a task failed ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sample", "kind"),
    [
        ("record_failed", "moderation"),
        ("record_failed_image", "image"),
        ("record_failed_no_reason", "unknown"),
        ("record_failed_error_object", "internal"),
        ("record_failed_error_string", "unknown"),
        ("record_video_generation_failed_waiting", "moderation"),
        ("record_completed_after_retries", None),
        ("record_video_generating", None),
        ("queue_failed", "unknown"),
        ("queue_completed_with_error", "moderation"),
        ("tasks_failure", "unknown"),
        ("tasks_failure_with_reason", "moderation"),
        ("unified_failed", "internal"),
        ("unified_failed_network", "internal"),
        ("unified_failed_reason_in_raw", "moderation"),
    ],
)
def test_the_kind_of_a_failure_is_told_by_the_services_words(sample: str, kind: str | None) -> None:
    """Content, an image, the service's own trouble, or nobody knows; None where nothing failed."""
    family = sample.partition("_")[0]
    route = Route(family, "/302/submit/veo3-pro")
    body = (REPLIES / f"{sample}.json").read_bytes()
    task = families.read(route, Reply(200, {}, body), request_id="a", wall_now=0.0)
    assert isinstance(task, VideoTask)
    assert task.failure_kind == kind


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("AUDIO_GENERATION_FILTERED", "moderation"),
        ("your request contains unsafe prompt or images and has been rejected", "moderation"),
        ("提示词违规", "moderation"),
        ("failed to download the image", "image"),
        ("upstream timed out", "internal"),
        ("[503] upstream overloaded", "internal"),
        ("The request was rejected", "unknown"),
        ("generation failed", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_task_that_failed_has_the_reason_of_its_words(said: str, kind: str) -> None:
    """`TaskFailed.reason` is that of its task, and without a task that of the message."""
    task = VideoTask(id="a", phase=Phase.FAILED, failure_reason=said or None)
    error = TaskFailed(f"the service gave the task up: {said}", task=task)
    assert error.reason is FailureReason(kind)
    assert TaskFailed(said).reason is FailureReason(kind)
    assert pickle.loads(pickle.dumps(error)).reason is FailureReason(kind)
    stored = error_from_json(error_json(error), "a", task)
    assert isinstance(stored, TaskFailed)
    assert stored.reason is FailureReason(kind)


def test_an_attempt_that_was_refused_as_unsafe_is_moderation() -> None:
    """Where the words say nothing, what the service does next does."""
    task = VideoTask(phase=Phase.RETRYING, failure_reason="rejected", needs_safe_enhancement=True)
    assert task.failure_kind is FailureReason.MODERATION


# --- at hand ----------------------------------------------------------------------------------


def test_moments_are_datetimes_beside_the_milliseconds() -> None:
    """In UTC; None where a time is not known or is none."""
    task = VideoTask(created_at=1754617044000, completed_at=10**18)
    assert task.created_datetime == datetime.datetime(2025, 8, 8, 1, 37, 24, tzinfo=datetime.UTC)
    assert task.status_update_datetime is None
    assert task.completed_datetime is None
    epoch = datetime.datetime(1970, 1, 1, 0, 0, 1, tzinfo=datetime.UTC)
    assert TRANSITION.observed_datetime == epoch


@pytest.mark.parametrize("sample", sorted(REPLIES.glob("record_*.json")), ids=lambda p: p.stem)
def test_a_task_of_any_reply_can_be_written_as_json(sample: Path) -> None:
    """``to_dict`` is what the json module takes, and a task can be made of it again."""
    route = Route("record", "/302/submit/veo3-pro")
    reply = Reply(200, {}, sample.read_bytes())
    task = families.read(route, reply, request_id="a", wall_now=0.0)
    if isinstance(task, VideoTask):
        again = json.loads(json.dumps(task.to_dict()))
        assert msgspec.convert(again, VideoTask) == task


def test_a_transition_can_be_written_as_json() -> None:
    """With the best video and the error in words."""
    error = TaskFailed("unsafe", request_id="a")
    end = msgspec.structs.replace(TRANSITION, final=True, error=error, metadata={"chat": 1})
    content = json.loads(json.dumps(end.to_dict()))
    assert content["error"] == {"type": "TaskFailed", "message": "unsafe", "reason": "moderation"}
    assert content["url"] is None
    assert content["metadata"] == {"chat": 1}
    assert json.loads(json.dumps(TRANSITION.to_dict()))["error"] is None


async def _get_task() -> VideoTask:
    return VideoTask(id="a", video_url="https://h/a.mp4")


async def _get_transition() -> Transition:
    return TRANSITION


async def _get_stats() -> Stats:
    return STATS


async def _get_models() -> list[VideoModel]:
    return [VideoModel(name="veo3")]


def test_fastapi_takes_and_returns_the_values() -> None:
    """``-> VideoTask`` is a response with a schema, and a body of a wrong shape is a 422."""
    import fastapi.testclient  # noqa: PLC0415 - half a second, in each process that tests

    async def post(task: VideoTask = fastapi.Body()) -> VideoTask:  # noqa: B008
        return task

    app = fastapi.FastAPI()
    for name in ("task", "transition", "stats", "models"):
        app.get(f"/{name}")(globals()[f"_get_{name}"])
    app.post("/task")(post)
    client = fastapi.testclient.TestClient(app)
    assert client.get("/task").json()["video_url"] == "https://h/a.mp4"
    assert client.get("/transition").json()["request_id"] == "a"
    assert client.get("/stats").json()["rate"] == 20.0
    assert client.get("/models").json()[0]["name"] == "veo3"
    assert client.post("/task", json={"id": "b"}).json()["id"] == "b"
    assert client.post("/task", json={"id": 3}).status_code == 422
    paths = client.get("/openapi.json").json()["paths"]
    schema = paths["/task"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema["properties"]["video_url"]["anyOf"][0] == {"type": "string"}
    assert "$ref" not in json.dumps(schema)


def test_a_pydantic_model_has_them_as_fields() -> None:
    """In and out of JSON, with one that is there as it is."""

    class Job(pydantic.BaseModel):
        task: VideoTask

    task = VideoTask(id="a")
    assert Job(task=task).task is task
    assert Job.model_validate_json(Job(task=task).model_dump_json()).task == task
