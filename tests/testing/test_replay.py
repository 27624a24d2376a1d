"""A recording that is played again: the same changes come out as when it was made."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from conftest import MakeClient

from veo3_async import FixedPacing, Phase, SubmitUncertain, Transition, Veo3Client
from veo3_async.testing import FakeVeo3, HangUp, Life, Status

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]

PATH = "/302/submit/veo3-pro?request_id="


def written(path: Path, *exchanges: dict[str, Any]) -> Path:
    head = {"recording": 1, "package": "0.2.0"}
    path.write_text("".join(json.dumps(line) + "\n" for line in (head, *exchanges)))
    return path


def poll(at: float, status: str, request_id: str = "a", **more: Any) -> dict[str, Any]:
    body = json.dumps({"id": request_id, "status": status, **more})
    return {"at": at, "seconds": 0.1, "method": "GET", "path": PATH + request_id} | {
        "status": 200,
        "headers": {"Content-Type": "application/json"},
        "body": body,
    }


def client(server: FakeVeo3) -> Veo3Client:
    return Veo3Client(server.api_key, base_url=server.url, pacing=FixedPacing(2.0))


def said(changes: list[Transition]) -> list[tuple[str, str | None]]:
    return [(change.phase, change.task.best_url) for change in changes]


@pytest.mark.parametrize("speed", [1.0, 10.0, math.inf])
async def test_what_was_recorded_comes_out_again(
    server: FakeVeo3, tmp_path: Path, make_client: MakeClient, speed: float
) -> None:
    """The transitions of the replay are those of the recorded run, faults and all."""
    path = tmp_path / "replies.jsonl"
    server.lives = [Life.retrying()]
    server.fault(Status(503), times=2)
    server.fault(HangUp(reset=True), after=3, times=1)
    async with make_client(record=path) as veo:
        request_id = await veo.submit("a lighthouse")
        before = [change async for change in veo.watch(request_id)]
    async with FakeVeo3.replay(path, speed=speed) as replayed, client(replayed) as veo:
        assert replayed.ids == [request_id]
        assert await veo.submit("something else") == request_id
        after = [change async for change in veo.watch(request_id)]
    assert said(after) == said(before)
    assert after[-1].phase is Phase.COMPLETED


@pytest.mark.parametrize("model", ["veo3-fast", "veo3", "veo3.1", "google-veo3.1"])
async def test_every_family_is_played(
    server: FakeVeo3, tmp_path: Path, make_client: MakeClient, model: str
) -> None:
    """Submitted, uploaded for, listed, polled: whatever protocol the model speaks."""
    path = tmp_path / "replies.jsonl"
    image = None if model == "veo3" else b"\x89PNG\r\n\x1a\n"
    server.lives = [Life.plain()]
    async with make_client(record=path) as veo:
        request_id = await veo.submit("a lighthouse", model=model, image=image)
        before = [change async for change in veo.watch(request_id)]
        balance = await veo.balance()
    async with FakeVeo3.replay(path, speed=math.inf) as replayed, client(replayed) as veo:
        assert await veo.submit("something else", model=model, image=image) == request_id
        after = [change async for change in veo.watch(request_id)]
        assert await veo.balance() == balance
    assert said(after) == said(before)
    assert replayed.ids == [request_id]


async def test_a_reply_comes_when_its_moment_has_come(tmp_path: Path) -> None:
    """By the recording's clock, whose speed is asked for; the one before is repeated till then."""
    done = poll(1040.0, "completed", video_url="https://file.302.ai/a.mp4")
    path = written(tmp_path / "r", poll(1000.0, "pending"), poll(1010.0, "video_generating"), done)
    async with FakeVeo3.replay(path, speed=2.0) as server, client(server) as veo:
        await veo.wait("a")
        asked = [received.at for received in server.polls_of("a")]
    assert asked[-1] - asked[0] >= 20.0
    assert len(asked) in {11, 12}  # each wait is a little under or over 2 s


async def test_each_reply_comes_once_at_least(tmp_path: Path) -> None:
    """However seldom it is asked, none is left out."""
    words = ["pending", "prompt_enhancing", "video_generating", "completed"]
    polls = [poll(1000.0 + n, word, video_url="https://h/a.mp4") for n, word in enumerate(words)]
    polls[:3] = [poll(1000.0 + n, word) for n, word in enumerate(words[:3])]
    path = written(tmp_path / "r", *polls)
    async with FakeVeo3.replay(path) as server, client(server) as veo:
        changes = [change.status async for change in veo.watch("a")]
    assert changes == words


async def test_what_timed_out_or_broke_off_does_so_again(tmp_path: Path) -> None:
    """A submission that got no answer gets none; what never arrived is left out."""
    post = {"at": 1000.0, "seconds": 30.0, "method": "POST", "path": "/302/submit/veo3-pro"}
    path = written(tmp_path / "r", post | {"error": "dns"}, post | {"error": "reset"})
    async with FakeVeo3.replay(path) as server, client(server) as veo:
        with pytest.raises(SubmitUncertain):
            await veo.submit("a lighthouse")


async def test_the_bytes_and_headers_are_those_of_the_recording(tmp_path: Path) -> None:
    """The date and bytes that are no text go out as they came in."""
    raw = {"base64": True, "body": "/wA=", "headers": {"Date": "Thu, 01 Jan 2026 00:00:00 GMT"}}
    path = written(tmp_path / "r", poll(1000.0, "x") | raw)
    async with FakeVeo3.replay(path) as server:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        async with (
            ClientSession() as http,
            http.get(server.url + PATH + "a", headers=headers) as got,
        ):
            assert await got.read() == b"\xff\x00"
            assert got.headers["Date"] == "Thu, 01 Jan 2026 00:00:00 GMT"


async def test_what_was_not_asked_for_is_not_known(tmp_path: Path) -> None:
    """An id or a submission that is not in the recording is refused."""
    path = written(tmp_path / "r", poll(1000.0, "pending"))
    async with FakeVeo3.replay(path) as server, client(server) as veo:
        assert (await veo.fetch("a")).status == "pending"
        with pytest.raises(Exception, match="no reply to that"):
            await veo.fetch("b")


async def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    """So is a speed that is none."""
    with pytest.raises(ValueError, match="no request"):
        await FakeVeo3.replay(written(tmp_path / "r")).start()
    path = written(tmp_path / "r", poll(1000.0, "pending"))
    for speed in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="above 0"):
            FakeVeo3.replay(path, speed=speed)
