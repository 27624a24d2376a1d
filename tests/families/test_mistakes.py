"""The mistakes of eight public clients, over real HTTP: ours makes none of them.

The wire page lists the clients (family D); what each does to a single reply is in
``tests/protocol/test_unified.py``.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Literal

import pytest
from conftest import MakeClient

from veo3_async import FixedPacing, InvalidRequest, Phase, SubmitUncertain, Veo3Client, Veo3Error
from veo3_async.testing import (
    Body,
    Cut,
    FakeVeo3,
    Fault,
    HangUp,
    Life,
    Redirect,
    Silence,
    Status,
)

pytestmark = pytest.mark.anyio

MODELS = {
    "record": "veo3-pro",
    "queue": "veo3",
    "tasks": "veo3.1",
    "unified": "google-veo3.1",
}
IMAGE = b"\xff\xd8\xff\xe0" + bytes(1000)

NO_SUCCESS: list[Fault] = [
    Status(500),
    Status(429),
    Body(b"", 404),
    Body(b'{"message": "Forbidden"}', 403),
    Body.html(),
    Body(b"", 200),
    Body(b"{", 200),
    Redirect("https://maintenance.invalid/"),
    HangUp(),
    Cut(),
]
MAY_HAVE_ARRIVED: list[Fault] = [
    Body(b"", 408),
    Body(b"", 409),
    Body(b"", 425),
    Body(b"", 500),
    Body(b"<html>bad gateway</html>", 502),
    Body(b"", 504),
    Body(b"", 520),
    Body(b"", 200),
    Body.html(),
    HangUp(),
    HangUp(reset=True),
    Cut(),
    Silence(),
    Silence(after_headers=True),
]


@pytest.mark.parametrize("family", MODELS)
async def test_clients_1_and_4_a_poll_that_is_no_success_ends_no_watch(
    server: FakeVeo3, make_client: MakeClient, family: str
) -> None:
    """The web tool stores a failed task, and the gateway in C# gives up: the video is lost."""
    veo = make_client(pacing=FixedPacing(30))
    request_id = await veo.submit("a lamp", model=MODELS[family])
    for turn, fault in enumerate(NO_SUCCESS):
        server.fault(fault, times=1, after=turn)
    assert (await veo.wait(request_id)).phase is Phase.COMPLETED


@pytest.mark.parametrize("fault", MAY_HAVE_ARRIVED, ids=repr)
@pytest.mark.parametrize("family", MODELS)
async def test_fault_33_client_2_a_post_that_may_have_arrived_is_sent_once(
    server: FakeVeo3, veo: Veo3Client, family: str, fault: Fault
) -> None:
    """The command line of the service posts again, and may pay twice."""
    server.fault(fault, on="submit")
    with pytest.raises(SubmitUncertain, match="may have been charged"):
        await veo.submit("a lamp", model=MODELS[family])
    assert [request.method for request in server.requests].count("POST") == 1


@pytest.mark.parametrize("fault", MAY_HAVE_ARRIVED, ids=repr)
async def test_fault_33_client_2_an_upload_that_may_have_arrived_is_sent_once(
    server: FakeVeo3, veo: Veo3Client, tmp_path: pathlib.Path, fault: Fault
) -> None:
    """It costs money, too; and no task is submitted without its image."""
    path = tmp_path / "lamp.jpg"
    path.write_bytes(IMAGE)
    server.fault(fault, on="upload")
    for image in (path, IMAGE):
        with pytest.raises(Veo3Error, match="no task was submitted"):
            await veo.submit("a lamp", image=image)
    posts = [request.path for request in server.requests if request.method == "POST"]
    assert posts == ["/302/upload-file"] * 2


async def test_client_3_types_of_the_providers_own_cost_no_poll(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """The bot in Go cannot decode them, and takes an end before its URL for an error at once."""
    said = {"task_id": "301500000000001", "created_at": None, "attempts": "2"}
    request_id = server.add(
        life=Life.scripted(
            [
                said | {"status": "processing", "execution_time": 3.5, "raw_response": [1]},
                said | {"status": "completed", "execution_time": "4", "raw_response": "{"},
                said | {"status": "completed", "video_url": "https://file.302.ai/a.mp4"},
            ]
        ),
        family="unified",
    )
    task = await veo.wait(request_id, model=MODELS["unified"])
    assert task.best_url == "https://file.302.ai/a.mp4"


async def test_client_5_each_task_is_asked_for_in_its_own_family_alone(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """The canvas asks family after family after a 404, and loses the id that C has in ``data``."""
    ids = {await veo.submit("a lamp", model=model): family for family, model in MODELS.items()}
    server.fault(Body(b"not found", 404), times=8)
    ends = [change async for change in veo.watch(*ids) if change.final]
    assert {change.request_id for change in ends} == set(ids)
    for request_id, family in ids.items():
        [asked_at] = {poll.target.replace(request_id, "…") for poll in server.polls_of(request_id)}
        assert (
            asked_at
            == {
                "record": "/302/submit/veo3-pro?request_id=…",
                "queue": "/302/submit/veo3?request_id=…",
                "tasks": "/302/submit/veo3-v2/…",
                "unified": "/302/v2/video/fetch/…",
            }[family]
        )


@pytest.mark.parametrize("family", MODELS)
async def test_client_6_a_new_word_ends_no_live_task(
    server: FakeVeo3, veo: Veo3Client, family: Literal["record", "queue", "tasks", "unified"]
) -> None:
    """The benchmark takes every word that it does not know for a failure."""
    request_id = "301500000000001"
    named = {"task_id": request_id, "request_id": request_id, "taskId": request_id}
    done = {
        "videoUrl": "https://file.302.ai/a.mp4",
        "video_url": "https://file.302.ai/a.mp4",
        "upsample_video_url": "https://file.302.ai/a.mp4",
        "video": {"url": "https://file.302.ai/a.mp4"},
    }
    words = [named | {"id": request_id, "status": word} for word in ("reviewing", "审核中", "OK")]
    life = Life.scripted([*words, named | {"status": "new"} | done])
    server.add(request_id, life, family=family)
    changes = [change async for change in veo.watch(request_id, model=MODELS[family])]
    assert [change.phase for change in changes] == [Phase.UNKNOWN, Phase.COMPLETED]


async def test_client_7_what_is_not_used_is_not_sent_and_what_is_not_taken_is_refused(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """The canvas sends ``webhook=undefined``, and images to models that take none."""
    await veo.submit("a lamp", model=MODELS["unified"])
    [post] = [request for request in server.requests if request.method == "POST"]
    assert post.target == "/302/v2/video/create"
    assert json.loads(post.body) == {"model": MODELS["unified"], "prompt": "a lamp"}
    only_text = {"model_name": "sora-2", "capabilities": {"t2v": True, "i2v": False, "v2v": False}}
    server.fault(Body(json.dumps({"models": [only_text]}).encode()), on="account")
    await asyncio.sleep(3700)  # the list is kept for an hour
    with pytest.raises(InvalidRequest, match="takes no image"):
        await veo.submit("a lamp", model="sora-2", image=IMAGE)
    assert [request.method for request in server.requests].count("POST") == 1


@pytest.mark.parametrize("family", MODELS)
async def test_client_8_a_failure_says_why(server: FakeVeo3, veo: Veo3Client, family: str) -> None:
    """The script shows no reason, and checks no certificate: `test_fault_18_certificate`."""
    server.lives = [Life.failing()]
    request_id = await veo.submit("a lamp", model=MODELS[family])
    [end] = [change async for change in veo.watch(request_id) if change.final]
    assert end.phase is Phase.FAILED
    if family != "tasks":  # which documents no field for it
        assert end.error is not None
        assert "unsafe" in end.error.message
        assert "unsafe" in (end.task.failure_reason or "")
