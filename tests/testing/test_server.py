"""The fake on its socket: what arrives, what goes out, and how it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import re
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from veo3_async.testing import (
    Body,
    Cut,
    Drip,
    FakeVeo3,
    HangUp,
    Life,
    Redirect,
    Silence,
    Slow,
    Status,
    Video,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

pytestmark = pytest.mark.anyio

KEY = {"Authorization": "Bearer test-key"}
MOMENT = 0.05
STATE = Life.scripted([{"id": "id", "status": "pending"}])
BODY = b'{"id":"id","status":"pending"}'


@pytest.fixture
async def server() -> AsyncIterator[FakeVeo3]:
    async with FakeVeo3() as server:
        server.add("id", STATE)
        yield server


class _Line:
    """One connection, byte by byte: what a client library would hide shows here."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, server: FakeVeo3) -> _Line:
        port = int(server.url.rpartition(":")[2])
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def ask(self, target: str = "/302/submit/veo3-pro?request_id=id") -> None:
        head = f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test-key\r\n\r\n"
        self.writer.write(head.encode())

    async def rest(self) -> bytes:
        try:
            return await self.reader.read()
        finally:
            self.writer.close()

    async def within(self, seconds: float) -> bytes:
        got = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while chunk := await self.reader.read(4096):
                    got += chunk
                self.writer.close()
                pytest.fail("the connection was closed")
        return got

    async def reply(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        return await self.reader.readexactly(int(length[1]) if length else 0)


async def ask(server: FakeVeo3, target: str = "/302/submit/veo3-pro?request_id=id") -> bytes:
    line = await _Line.to(server)
    line.ask(target)
    return await line.rest()


async def fetched(
    url: str, method: str = "GET", *, headers: Mapping[str, str] = KEY, **options: Any
) -> tuple[int, Mapping[str, str], bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, headers=headers, allow_redirects=False, **options) as reply,
    ):
        return reply.status, reply.headers, await reply.read()


def poll_url(server: FakeVeo3, request_id: str = "id") -> str:
    return f"{server.url}/302/submit/veo3-pro?request_id={request_id}"


# --- lives, submissions, records ----------------------------------------------------------


async def test_a_life_runs_on_the_loops_clock() -> None:
    """A life at great speed is over by the next poll, and its video is served."""
    async with FakeVeo3(speed=1e6) as server:
        request_id = server.add()
        await asyncio.sleep(0.01)
        _, _, body = await fetched(poll_url(server, request_id))
        task = json.loads(body)
        status, headers, video = await fetched(task["upsample_video_url"], headers={})
    assert (task["status"], status, headers["Content-Type"]) == ("completed", 200, "video/mp4")
    assert video == server.video_of(task["upsample_video_url"])
    assert abs(task["completed_at"] / 1000 - time.time()) < 60


async def test_the_servers_clock_may_be_wrong() -> None:
    """With a skew the times in the replies, ``Date`` too, are that far ahead of this machine's."""
    async with FakeVeo3(clock_skew=3600.0) as server:
        _, headers, body = await fetched(poll_url(server, server.add()))
    served = email.utils.parsedate_to_datetime(headers["Date"]).timestamp()
    assert abs(json.loads(body)["created_at"] / 1000 - time.time() - 3600) < 60
    assert abs(served - time.time() - 3600) < 60


async def test_a_submission_makes_a_task() -> None:
    """The id that a POST answers with can be polled, and has the life that was drawn."""
    async with FakeVeo3(lives=[Life.failing()], speed=1e6) as server:
        url = f"{server.url}/302/submit/veo3-pro"
        _, _, body = await fetched(url, "POST", json={"text_prompt": "a lighthouse"})
        request_id = json.loads(body)["task_id"]
        await asyncio.sleep(0.01)
        _, _, body = await fetched(poll_url(server, request_id))
    assert server.ids == [request_id]
    assert json.loads(body)["status"] == "failed"
    assert json.loads(body)["req"]["prompt"] == "a lighthouse"


async def test_what_arrived_is_recorded_as_it_was_on_the_wire(server: FakeVeo3) -> None:
    """Method, raw target, decoded id, headers, body and connection are kept, in order."""
    line = await _Line.to(server)
    for spelled in ("id", "a:b%3Ac%26%C3%BC"):
        line.ask(f"/302/submit/veo3-pro?request_id={spelled}")
        await line.reply()
    await fetched(f"{server.url}/302/submit/veo3-pro", "POST", data=b"{}")
    line.writer.close()
    first, second, third = server.requests
    assert second.target == "/302/submit/veo3-pro?request_id=a:b%3Ac%26%C3%BC"
    assert (second.path, second.request_id) == ("/302/submit/veo3-pro", "a:b:c&ü")
    assert [r.reused for r in server.requests] == [False, True, False]
    assert [r.connection for r in server.requests] == [1, 1, 2]
    assert (third.method, third.body, third.where) == ("POST", b"{}", "submit")
    assert first.headers["authorization"] == "Bearer test-key"
    assert server.polls_of("id") == [first]
    assert (server.connections, server.received) == (2, 3)
    assert "test-key" not in repr(server.requests)


async def test_records_can_be_turned_off() -> None:
    """Without records the requests are still counted."""
    async with FakeVeo3(record=False) as server:
        await fetched(poll_url(server))
    assert (server.requests, server.polls_of("id"), server.received) == ([], [], 1)


async def test_requests_at_the_same_time_are_counted() -> None:
    """Three slow answers at once are three in flight, and none when they are out."""
    async with FakeVeo3(latency=MOMENT) as server:
        await asyncio.gather(*(ask_once(server) for _ in range(3)))
        assert (server.max_in_flight, server.in_flight) == (3, 0)


async def ask_once(server: FakeVeo3) -> bytes:
    line = await _Line.to(server)
    line.ask()
    try:
        return await line.reply()
    finally:
        line.writer.close()


async def test_the_rate_limit_answers_429() -> None:
    """What is over the rate gets the 429 of the gateway."""
    async with FakeVeo3(rate_limit=2) as server:
        server.add("id", STATE)
        replies = [await fetched(poll_url(server)) for _ in range(3)]
    assert [status for status, _, _ in replies] == [200, 200, 429]
    assert replies[-1][1]["Retry-After"] == "1"


# --- faults -------------------------------------------------------------------------------


async def test_a_status_comes_with_its_hint_and_its_code(server: FakeVeo3) -> None:
    """Retry-After goes out as seconds or as any text, and the body has the code."""
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.fault(Status(503, 1.5, -10008), times=1)
    server.fault(Status(429, date), times=1)
    (status, headers, body), later = [await fetched(poll_url(server)) for _ in range(2)]
    assert (status, headers["Retry-After"]) == (503, "1.5")
    assert json.loads(body)["error"]["err_code"] == -10008
    assert (later[0], later[1]["Retry-After"]) == (429, date)
    assert json.loads(later[2])["error"]["message"] == "Too many connections"


@pytest.mark.parametrize(
    ("body", "content_type", "length"),
    [
        (Body.html(), "text/html; charset=utf-8", 65),
        (Body.empty(), "application/json", 0),
        (Body.bad_json(), "application/json", 17),
        (Body.huge(), "application/json", 3_000_000),
        (Body.gzip_bomb(2_000_000), "application/json", 2_000_000),
    ],
)
async def test_any_body_goes_out(
    server: FakeVeo3, body: Body, content_type: str, length: int
) -> None:
    """Each made-up body arrives whole, unpacked where it was compressed."""
    server.fault(body)
    status, headers, got = await fetched(poll_url(server))
    assert (status, headers["Content-Type"], len(got)) == (200, content_type, length)


async def test_a_redirect_points_where_it_was_told(server: FakeVeo3) -> None:
    """Status and Location are those of the fault."""
    server.fault(Redirect("http://127.0.0.1:1/x", 307))
    status, headers, _ = await fetched(poll_url(server))
    assert (status, headers["Location"]) == (307, "http://127.0.0.1:1/x")


async def test_a_hang_up_ends_the_connection_without_a_byte(server: FakeVeo3) -> None:
    """The client reads the end, and the next connection is served."""
    server.fault(HangUp(), times=1)
    assert await ask(server) == b""
    assert await ask_once(server) == BODY


async def test_a_hang_up_may_be_a_reset(server: FakeVeo3) -> None:
    """The client sees a TCP reset instead of an end."""
    server.fault(HangUp(reset=True))
    with pytest.raises(ConnectionResetError):
        await ask(server)


async def test_a_stale_connection_answers_its_first_request_only(server: FakeVeo3) -> None:
    """Reuse of a connection meets the hang-up, a fresh one does not."""
    server.fault(HangUp(reused_only=True))
    line = await _Line.to(server)
    line.ask()
    assert await line.reply() == BODY
    line.ask()
    assert await line.rest() == b""


async def test_connections_can_be_reset_as_they_are_made(server: FakeVeo3) -> None:
    """The request never arrives, and the next connection is served."""
    server.fault(HangUp(reset=True), on="connect", times=1)
    with pytest.raises(ConnectionError):
        await ask(server)
    assert (server.received, server.connections) == (0, 1)
    assert await ask_once(server) == BODY


@pytest.mark.parametrize(
    ("fault", "begins"), [(Silence(), b""), (Silence(after_headers=True), b"HTTP/1.1 200 OK\r\n")]
)
async def test_silence_lasts_until_the_client_goes(
    server: FakeVeo3, fault: Silence, begins: bytes
) -> None:
    """Nothing, or the headers only, comes; when the client goes the handler ends."""
    server.fault(fault)
    line = await _Line.to(server)
    line.ask()
    got = await line.within(MOMENT)
    assert got.startswith(begins)
    assert got == begins or got.endswith(b"\r\n\r\n")
    assert server.in_flight == 1
    line.writer.close()
    async with asyncio.timeout(5):
        while server.in_flight:
            await asyncio.sleep(0)


@pytest.mark.parametrize("fault", [Silence(), Silence(after_headers=True), Drip(), Slow(60)])
async def test_stopping_breaks_off_whatever_hangs(server: FakeVeo3, fault: Any) -> None:
    """The stop is at once, and the client that was waiting reads the end."""
    server.fault(fault)
    asked = asyncio.create_task(ask(server))
    while not server.in_flight:
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await server.stop()
        await asked
    assert server.in_flight == 0


async def test_a_drip_brings_the_truth_byte_by_byte(server: FakeVeo3) -> None:
    """All bytes come one by one, then the end; at a byte a second hardly any."""
    server.fault(Drip(0.0001), times=1)
    assert (await ask(server)).endswith(b"\r\n\r\n" + BODY)
    server.fault(Drip())
    line = await _Line.to(server)
    line.ask()
    await line.reader.readuntil(b"\r\n\r\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(line.reader.read(1), MOMENT)
    line.writer.close()


@pytest.mark.parametrize(
    ("framing", "announced", "part"),
    [
        ("length", b"Content-Length: 30", BODY[:15]),
        ("chunked", b"Transfer-Encoding: chunked", b"f\r\n" + BODY[:15] + b"\r\n"),
        ("close", b"Connection: close", BODY[:15]),
    ],
)
async def test_a_cut_body_ends_in_the_middle(
    server: FakeVeo3, framing: Any, announced: bytes, part: bytes
) -> None:
    """The head promises the whole, half of it comes, then the end."""
    server.fault(Cut(framing))
    head, _, body = (await ask(server)).partition(b"\r\n\r\n")
    assert announced in head
    assert body == part


async def test_a_slow_answer_is_the_truth(server: FakeVeo3) -> None:
    """Nothing comes at first, then what would have come anyway."""
    server.fault(Slow(2 * MOMENT))
    line = await _Line.to(server)
    line.ask()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(line.reader.read(1), MOMENT)
    assert await line.reply() == BODY
    line.writer.close()


async def test_a_fault_in_a_script_meets_its_poll() -> None:
    """A script may hang up between two replies."""
    async with FakeVeo3() as server:
        server.add("id", Life.scripted([{"n": 1}, HangUp(), {"n": 2}]))
        assert await ask_once(server) == b'{"n":1}'
        assert await ask(server) == b""
        assert await ask_once(server) == b'{"n":2}'


async def test_a_lost_answer_to_a_submission_leaves_a_task(server: FakeVeo3) -> None:
    """A POST that is hung up on has arrived; one that is refused has made nothing."""
    url = f"{server.url}/302/submit/veo3-pro"
    server.fault(Status(503), on="submit", times=1)
    server.fault(HangUp(), on="submit", times=1)
    assert (await fetched(url, "POST", json={"text_prompt": "a"}))[0] == 503
    assert server.ids == ["id"]
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await fetched(url, "POST", json={"text_prompt": "a"})
    assert len(server.ids) == 2


async def test_healing_brings_the_truth_back(server: FakeVeo3) -> None:
    """After `heal` a poll is answered as ever."""
    server.fault(Status(500))
    assert (await fetched(poll_url(server)))[0] == 500
    server.heal()
    assert (await fetched(poll_url(server)))[0] == 200


# --- files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "status", "span", "said"),
    [
        ({}, 200, (0, 1000), None),
        ({"Range": "bytes=100-"}, 206, (100, 1000), "bytes 100-999/1000"),
        ({"Range": "bytes=0-99"}, 206, (0, 100), "bytes 0-99/1000"),
        ({"Range": "bytes=990-2000"}, 206, (990, 1000), "bytes 990-999/1000"),
        ({"Range": "bytes=-10"}, 206, (990, 1000), "bytes 990-999/1000"),
        ({"Range": "bytes=1000-"}, 416, (0, 0), "bytes */1000"),
        ({"Range": "bytes=5-4"}, 200, (0, 1000), None),
        ({"Range": "bytes=0-1,5-6"}, 200, (0, 1000), None),
        ({"Range": "bytes=100-", "If-Range": '"other"'}, 200, (0, 1000), None),
        ({"Range": "bytes=100-", "If-Range": "ETAG"}, 206, (100, 1000), "bytes 100-999/1000"),
    ],
)
async def test_a_range_is_obeyed(
    server: FakeVeo3, asked: dict[str, str], status: int, span: tuple[int, int], said: str | None
) -> None:
    """Status, Content-Range and bytes follow RFC 9110."""
    video = Video(size=1000)
    url = server.serve("a.mp4", video)
    headers = {k: v.replace("ETAG", video.validator("a.mp4") or "") for k, v in asked.items()}
    got = await fetched(url, headers=headers)
    assert (got[0], got[2]) == (status, video.content("a.mp4")[slice(*span)])
    assert got[1].get("Content-Range") == said
    assert "Authorization" not in server.requests[-1].headers


async def test_a_server_may_ignore_ranges_hide_lengths_and_weaken_tags(server: FakeVeo3) -> None:
    """What a video's options say is what is served."""
    deaf = await fetched(server.serve("a.mp4", Video(ranges=False)), headers={"Range": "bytes=5-"})
    unsized = await fetched(server.serve("b.mp4", Video(sized=False, etag="none")))
    weak = await fetched(
        server.serve("c.mp4", Video(etag="weak")),
        headers={"Range": "bytes=5-", "If-Range": Video(etag="weak").validator("c.mp4") or ""},
    )
    assert (deaf[0], "Accept-Ranges" in deaf[1], len(deaf[2])) == (200, False, 65536)
    assert ("Content-Length" in unsized[1], "ETag" in unsized[1]) == (False, False)
    assert (weak[0], weak[1]["ETag"][:2]) == (200, "W/")


async def test_another_version_is_another_video(server: FakeVeo3) -> None:
    """Bytes and ETag change with the version, the size does not."""
    first = await fetched(server.serve("a.mp4", Video()))
    second = await fetched(server.serve("a.mp4", Video(version=1)))
    assert first[1]["ETag"] != second[1]["ETag"]
    assert len(first[2]) == len(second[2])
    assert first[2][:156] == second[2][:156]
    assert first[2] != second[2]


async def test_a_file_is_cut_at_any_byte(server: FakeVeo3) -> None:
    """A cut file ends where it was told, across the server's own blocks."""
    video = Video(size=200_000)
    server.serve("a.mp4", video)
    server.fault(Cut(at=150_000), on="file")
    _, _, body = (await ask(server, "/files/a.mp4")).partition(b"\r\n\r\n")
    assert body == video.content("a.mp4")[:150_000]


async def test_a_client_that_leaves_in_the_middle_of_a_video_is_no_trouble(
    server: FakeVeo3, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is logged and nothing is left."""
    server.serve("a.mp4", Video(size=50_000_000))
    line = await _Line.to(server)
    line.ask("/files/a.mp4")
    await line.reader.read(1000)
    line.writer.transport.abort()
    async with asyncio.timeout(5):
        while server.in_flight:
            await asyncio.sleep(0.001)
    assert not caplog.records


@pytest.mark.parametrize("target", ["/files/", "/files/a.html", "/files/a/b.mp4"])
async def test_only_videos_are_files(server: FakeVeo3, target: str) -> None:
    """Any other path below /files is not found."""
    assert (await fetched(server.url + target))[0] == 404


def test_a_video_is_made_of_whole_mp4_boxes() -> None:
    """The boxes ftyp, moov and mdat fill the file to its last byte, at any size."""
    for size in (156, 1000, 65536, 65537, 200_000):
        content = Video(size=size).content("a.mp4")
        boxes, at = [], 0
        while at < len(content):
            boxes.append(content[at + 4 : at + 8])
            at += int.from_bytes(content[at : at + 4], "big")
        assert (boxes, at, len(content)) == ([b"ftyp", b"moov", b"mdat"], size, size)


@pytest.mark.parametrize("size", [155, 1 << 33])
def test_a_video_has_room_for_its_boxes(size: int) -> None:
    """Too small and too big sizes are refused."""
    with pytest.raises(ValueError, match="size is between"):
        Video(size=size)


async def test_the_files_may_be_on_another_server() -> None:
    """With ``files_url`` the URLs of a task point to the other one, which serves the video."""
    async with FakeVeo3() as files, FakeVeo3(files_url=files.url, speed=1e6) as server:
        request_id = server.add(life=Life.plain())
        await asyncio.sleep(0.01)
        url = json.loads((await fetched(poll_url(server, request_id)))[2])["video_url"]
        assert url.startswith(files.url)
        assert (await fetched(url))[2] == server.video_of(url)


# --- lifetime -----------------------------------------------------------------------------


async def test_it_comes_back_on_the_same_port_with_its_tasks() -> None:
    """Stopped, connections are refused; started again, all is as before."""
    async with FakeVeo3() as server:
        server.add("id", STATE)
        url = server.url
        await server.stop()
        with pytest.raises(ConnectionRefusedError):
            await ask(server)
        await server.start()
        await server.start()
        assert (server.url, await ask_once(server)) == (url, BODY)


async def test_a_taken_port_is_an_error_and_leaves_nothing() -> None:
    """The second server on a port says so, and can be stopped."""
    async with FakeVeo3() as server:
        second = FakeVeo3(port=int(server.url.rpartition(":")[2]))
        with pytest.raises(OSError, match="in use"):
            await second.start()
        await second.stop()


async def test_no_task_is_left_when_it_has_stopped() -> None:
    """Idle keep-alive connections and silent handlers end with the server."""
    before = asyncio.all_tasks()
    async with FakeVeo3() as server:
        server.add("id", STATE)
        idle, silent = await _Line.to(server), await _Line.to(server)
        idle.ask()
        await idle.reply()
        server.fault(Silence())
        silent.ask()
        while not server.in_flight:
            await asyncio.sleep(0)
    assert await idle.rest() + await silent.rest() == b""
    assert asyncio.all_tasks() == before


async def test_its_repr_shows_the_state_and_not_the_key(server: FakeVeo3) -> None:
    """URL, tasks, requests, flights and faults can be read."""
    server.fault(Status(500), rate=0.5)
    assert repr(server) == f"<FakeVeo3 {server.url} tasks=1 requests=0 in_flight=0 faults=1>"
    await server.stop()
    assert repr(server) == "<FakeVeo3 stopped tasks=1 requests=0 in_flight=0 faults=1>"


async def test_it_has_no_url_before_it_is_started() -> None:
    """The message says how to start it."""
    with pytest.raises(RuntimeError, match="async with"):
        _ = FakeVeo3().url


def test_it_listens_on_the_loopback_only() -> None:
    """Any other host is refused: the fake has no defences."""
    with pytest.raises(ValueError, match="host is one of"):
        FakeVeo3(host="0.0.0.0")
