"""The recording of a client: what is in the file, how large it grows, what harms nobody."""

from __future__ import annotations

import asyncio
import json
import logging
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeClient

from veo3_async import Veo3Client
from veo3_async._protocol.http import Call, Reply
from veo3_async._transport import recorder as recorder_module
from veo3_async._transport.recorder import Recorder, Seen, is_recording, recorded
from veo3_async.testing import FakeVeo3, HangUp, Life, Status

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]

PENDING = {"status": "pending"}
DONE = {"status": "completed", "video_url": "https://file.302.ai/a.mp4"}
QUICK = Life.scripted([PENDING, DONE])
PROMPT = "a lighthouse that nobody may hear of"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def exchanges_of(path: Path) -> list[dict[str, Any]]:
    return [line for line in lines_of(path) if "method" in line]


def seen(number: int, size: int = 100) -> Seen:
    call = Call("GET", f"/302/submit/veo3-pro?request_id={number}")
    return Seen(call, Reply(200, {}, b"x" * size), 1000.0 + number, 0.5)


async def written(recorder: Recorder, *some: Seen) -> None:
    for one in some:
        recorder.take(one)
    await recorder.aclose()


async def test_a_client_records_what_went_over_the_wire(
    server: FakeVeo3, tmp_path: Path, make_client: MakeClient
) -> None:
    """Method, path, status, headers, bodies and times of each request, in order."""
    path = tmp_path / "replies.jsonl"
    server.lives = [QUICK]
    server.fault(Status(503), times=1)
    async with make_client(record=path) as veo:
        request_id = await veo.submit(PROMPT, aspect_ratio="9:16")
        await veo.wait(request_id)
    head, *exchanges = lines_of(path)
    assert head["recording"] == 1
    assert head["host"] == "127.0.0.1"
    assert [(e["method"], e["status"]) for e in exchanges] == [
        ("POST", 200),
        ("GET", 503),
        ("GET", 200),
        ("GET", 200),
    ]
    post, _, pending, done = exchanges
    assert json.loads(post["sent"]) == {"text_prompt": "removed", "aspect_ratio": "9:16"}
    assert json.loads(post["body"]) == {"task_id": request_id}
    assert pending["path"] == f"/302/submit/veo3-pro?request_id={request_id}"
    assert json.loads(pending["body"])["status"] == "pending"
    assert {"Content-Type", "Date", "request-id"} <= done["headers"].keys()
    assert done["seconds"] >= 0
    assert done["at"] >= post["at"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


async def test_fault_32_neither_key_nor_prompt_is_in_it_unless_asked_for(
    server: FakeVeo3, tmp_path: Path, make_client: MakeClient
) -> None:
    """The key never, prompts on request."""
    for prompts in (False, True):
        path = tmp_path / f"{prompts}.jsonl"
        async with make_client(record=path, record_prompts=prompts) as veo:
            await veo.fetch(await veo.submit(PROMPT))
        text = path.read_text()
        assert server.api_key not in text
        assert "Authorization" not in text
        assert (PROMPT in text) is prompts


async def test_what_brought_no_reply_is_in_it(
    server: FakeVeo3, tmp_path: Path, make_client: MakeClient
) -> None:
    """A connection that broke off has its kind, a request that was cancelled says so."""
    path = tmp_path / "replies.jsonl"
    request_id = server.add(life=QUICK)
    server.fault(HangUp(reset=True), times=1)
    async with make_client(record=path) as veo:
        await veo.fetch(request_id)
        await server.stop()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(veo.fetch(request_id), 0.001)
    assert [e.get("error") for e in exchanges_of(path)[:2]] == ["reset", None]


async def test_another_run_goes_on_with_the_file(tmp_path: Path) -> None:
    """What is there stays, with a head for each run."""
    path = tmp_path / "replies.jsonl"
    await written(Recorder(path, secret="k"), seen(1))
    await written(Recorder(path, secret="k"), seen(2))
    assert [("recording" in line) for line in lines_of(path)] == [True, False, True, False]
    assert [e.path[-1] for e in recorded(path.read_bytes())] == ["1", "2"]


async def test_the_older_half_goes_where_it_is_full(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file stays below its size, with the newest in it, and one log line a time."""
    caplog.set_level(logging.INFO)
    path = tmp_path / "replies.jsonl"
    recorder = Recorder(path, secret="k", max_bytes=20_000)
    for number in range(200):
        await written(recorder, seen(number))
        assert path.stat().st_size <= 20_000
    kept = [int(e.path.rpartition("=")[2]) for e in recorded(path.read_bytes())]
    assert kept == list(range(kept[0], 200))
    assert len(kept) >= 30
    assert lines_of(path)[0]["recording"] == 1
    assert 1 <= len(caplog.records) <= 6
    assert [*tmp_path.iterdir()] == [path]


async def test_a_body_that_is_long_is_cut(tmp_path: Path) -> None:
    """64 KiB of it are kept, and how long it was."""
    path = tmp_path / "replies.jsonl"
    await written(Recorder(path, secret="k"), seen(1, size=100_000))
    [exchange] = recorded(path.read_bytes())
    assert (exchange.cut, len(exchange.body or "")) == (100_000, 65_536)


async def test_bytes_that_are_no_text_are_kept_as_they_are(tmp_path: Path) -> None:
    """They are in base64."""
    path, call = tmp_path / "replies.jsonl", Call("GET", "/a")
    await written(Recorder(path, secret="k"), Seen(call, Reply(200, {}, b"\xff\x00"), 1.0, 0.1))
    [exchange] = recorded(path.read_bytes())
    assert (exchange.body, exchange.base64) == ("/wA=", True)


async def test_what_cannot_be_written_harms_nobody(
    server: FakeVeo3,
    tmp_path: Path,
    make_client: MakeClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No folder, or a file that is no recording: one warning, and polling goes on."""
    other = tmp_path / "journal.db"
    other.write_bytes(b"SQLite format 3\0")
    for path in (tmp_path / "none" / "replies.jsonl", other, tmp_path):
        caplog.clear()
        request_id = server.add(life=Life.scripted([PENDING] * 9 + [DONE]))
        async with make_client(record=path) as veo:
            assert (await veo.wait(request_id)).best_url is not None
        warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert len(warnings) == 1
        assert warnings[0].startswith("requests are not recorded")
    assert other.read_bytes() == b"SQLite format 3\0"


async def test_a_reply_that_cannot_be_shown_costs_no_other(tmp_path: Path) -> None:
    """One that is nested too deeply to be looked through is counted, and the others are written."""
    path = tmp_path / "replies.jsonl"
    deep = Seen(Call("GET", "/a"), Reply(200, {}, b"[" * 950 + b"]" * 950), 1.0, 0.1)
    await written(Recorder(path, secret="k"), seen(1), deep, seen(2))
    assert len(recorded(path.read_bytes())) >= 2
    assert sum(line.get("lost", 0) for line in lines_of(path)) + len(exchanges_of(path)) == 3


async def test_what_was_lost_is_counted_once_it_can_be_written_again(tmp_path: Path) -> None:
    """The file says how many requests are missing."""
    path = tmp_path / "later" / "replies.jsonl"
    recorder = Recorder(path, secret="k")
    await written(recorder, seen(1), seen(2))
    path.parent.mkdir()
    await written(recorder, seen(3))
    assert [line.get("lost") for line in lines_of(path)] == [None, 2, None]


@pytest.mark.real_time
async def test_a_disk_that_hangs_holds_up_nothing_and_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing waits for a while, and no second thread is begun meanwhile."""
    monkeypatch.setattr(recorder_module, "_LAST_SECONDS", 0.05)
    goes_on, begun = threading.Event(), list[int]()

    def hang(_self: Recorder, content: bytes) -> None:
        begun.append(len(content))
        goes_on.wait()

    monkeypatch.setattr(Recorder, "_append", hang)
    recorder = Recorder(tmp_path / "replies.jsonl", secret="k")
    try:
        await written(recorder, seen(1))
        await written(recorder, seen(2))
        assert len(begun) == 1
    finally:
        goes_on.set()


async def test_no_more_waits_for_the_disk_than_eight_megabytes(tmp_path: Path) -> None:
    """What comes beyond is counted and not kept."""
    path = tmp_path / "replies.jsonl"
    recorder = Recorder(path, secret="k")
    await written(recorder, *(seen(number, size=1 << 20) for number in range(20)))
    await written(recorder, seen(20))
    assert len(recorded(path.read_bytes())) == 8
    assert [line["lost"] for line in lines_of(path) if "lost" in line] == [13]


def test_a_recording_is_told_from_other_files(tmp_path: Path) -> None:
    """A file that is not there, an empty one and a recording may be written to."""
    path = tmp_path / "a"
    assert is_recording(path)
    path.write_bytes(b"")
    assert is_recording(path)
    path.write_bytes(b"a video")
    assert not is_recording(path)


async def test_a_client_without_a_recording_wraps_nothing(veo: Veo3Client) -> None:
    """Who records nothing pays nothing."""
    async with veo:
        assert "Recorded" not in type(veo.runtime._sender()).__name__
