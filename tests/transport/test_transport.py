"""One request over a real socket: what it looks like there, and what becomes of each trouble."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from broken_servers import black_hole, http, request_head, serving, unused_port
from conftest import MakeClient

from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.http import Call, Reply
from veo3_async._transport.endpoint import ApiKey
from veo3_async._transport.transport import Transport
from veo3_async.testing import (
    Body,
    Cut,
    Drip,
    FakeVeo3,
    Fault,
    HangUp,
    Life,
    Redirect,
    Silence,
    Status,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]

STATE = Life.scripted([{"id": "id", "status": "pending"}])
SUBMIT = Call("POST", "/302/submit/veo3-pro", b'{"text_prompt":"a"}')
POLL = Call("GET", "/302/submit/veo3-pro?request_id=id")


@contextlib.asynccontextmanager
async def transport_to(
    url: str,
    *,
    session: aiohttp.ClientSession | None = None,
    proxy: str | None = None,
    key: str = "test-key",
) -> AsyncIterator[Transport]:
    transport = Transport(
        ApiKey(key), url, session=session, max_connections=8, request_timeout=30.0, proxy=proxy
    )
    try:
        yield transport
    finally:
        await transport.aclose()


@pytest.fixture
async def transport(server: FakeVeo3) -> AsyncIterator[Transport]:
    server.add("id", STATE)
    async with transport_to(server.url) as transport:
        yield transport


async def test_a_call_arrives_as_it_is_and_its_reply_comes_back_whole(
    server: FakeVeo3, transport: Transport
) -> None:
    """Target, key and reply pass unchanged, and no cookie or redirect is minded."""
    reply = await transport.send(POLL)
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body) == (200, b'{"id":"id","status":"pending"}')
    [received] = server.requests
    assert (received.method, received.target) == ("GET", POLL.target)
    assert received.headers["Authorization"] == "Bearer test-key"
    assert not {"Cookie", "Content-Type", "Referer"} & set(received.headers)


async def test_a_body_is_sent_as_json(server: FakeVeo3, transport: Transport) -> None:
    """A POST carries its bytes and says what they are."""
    await transport.send(Call("POST", "/302/submit/veo3-pro", b'{"text_prompt":"a"}'))
    [received] = server.requests
    assert (received.method, received.body) == ("POST", b'{"text_prompt":"a"}')
    assert received.headers["Content-Type"] == "application/json"


async def test_connections_are_kept_for_gets_and_fresh_for_posts(
    server: FakeVeo3, transport: Transport
) -> None:
    """A poll reuses the connection of the last one; a POST never goes over a used one."""
    for _ in range(3):
        await transport.send(POLL)
        await transport.send(Call("POST", "/302/submit/veo3-pro", b'{"text_prompt":"a"}'))
    polls = {r.connection for r in server.requests if r.method == "GET"}
    posts = [r.connection for r in server.requests if r.method == "POST"]
    assert (len(polls), len(set(posts))) == (1, 3)


async def test_it_can_be_used_again_after_its_end(server: FakeVeo3, transport: Transport) -> None:
    """`aclose` closes every connection; a later call opens a new one."""
    await transport.send(POLL)
    await transport.aclose()
    await transport.aclose()
    assert isinstance(await transport.send(POLL), Reply)
    assert [r.connection for r in server.requests] == [1, 2]


async def test_its_end_is_complete_however_often_it_is_cancelled(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All sessions are closed before the cancellation comes out."""
    sessions = []

    async def slow_close(session: aiohttp.ClientSession) -> None:
        sessions.append(session)
        await asyncio.sleep(10)
        await close(session)

    close = aiohttp.ClientSession.close
    await transport.send(POLL)
    await transport.send(Call("POST", "/302/submit/veo3-pro", b"{}"))
    monkeypatch.setattr(aiohttp.ClientSession, "close", slow_close)
    closing = asyncio.create_task(transport.aclose())
    for _ in range(3):
        await asyncio.sleep(1)
        closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert [session.closed for session in sessions] == [True, True]


async def test_a_trouble_of_its_end_is_raised(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a session says when it is closed is for the caller of `aclose`."""

    async def broken_close(session: aiohttp.ClientSession) -> None:
        await close(session)
        raise LookupError

    close = aiohttp.ClientSession.close
    await transport.send(POLL)
    monkeypatch.setattr(aiohttp.ClientSession, "close", broken_close)
    with pytest.raises(LookupError):
        await transport.aclose()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (HangUp(), Kind.RESET),
        (HangUp(reset=True), Kind.RESET),
        (Silence(), Kind.TIMEOUT),
        (Silence(after_headers=True), Kind.TIMEOUT),
        (Drip(), Kind.TIMEOUT),
        (Cut("length"), Kind.RESET),
        (Cut("chunked"), Kind.RESET),
        (Body.huge(), Kind.UNEXPECTED),
        (Body.gzip_bomb(8_000_000), Kind.UNEXPECTED),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_trouble_is_a_problem_of_its_kind(
    server: FakeVeo3, transport: Transport, fault: Fault, kind: Kind
) -> None:
    """What breaks on the way is no exception, and the next call is served."""
    server.fault(fault, times=1)
    problem = await transport.send(POLL)
    assert isinstance(problem, Problem)
    assert problem.kind is kind, problem
    assert isinstance(await transport.send(POLL), Reply)
    assert server.received == 2


@pytest.mark.parametrize("fault", [Status(429, retry_after=7), Status(500), Body.html(502)])
async def test_a_status_is_a_reply(
    server: FakeVeo3, transport: Transport, fault: Status | Body
) -> None:
    """Any HTTP status is for the wire to judge; the transport raises for none."""
    server.fault(fault)
    reply = await transport.send(POLL)
    assert isinstance(reply, Reply)
    assert reply.status == fault.code


async def test_a_redirect_is_not_followed(server: FakeVeo3, transport: Transport) -> None:
    """The key goes nowhere else: the redirect itself is the reply."""
    server.fault(Redirect(f"{server.url}/files/elsewhere.mp4", 307))
    reply = await transport.send(POLL)
    assert isinstance(reply, Reply)
    assert (reply.status, server.received) == (307, 1)


async def test_refused(server: FakeVeo3, transport: Transport) -> None:
    """A port where nobody listens is `CONNECT`, and is served when somebody does."""
    await server.stop()
    problem = await transport.send(POLL)
    assert isinstance(problem, Problem)
    assert problem.kind is Kind.CONNECT
    await server.start()
    assert isinstance(await transport.send(POLL), Reply)


async def test_a_connect_that_nobody_answers_ends_after_ten_seconds() -> None:
    """The time to connect is bounded by itself, well below that of the whole request."""
    with black_hole() as port:
        async with transport_to(f"http://127.0.0.1:{port}") as transport:
            began = asyncio.get_running_loop().time()
            problem = await transport.send(POLL)
    assert isinstance(problem, Problem)
    assert problem.kind is Kind.CONNECT
    assert asyncio.get_running_loop().time() - began == pytest.approx(10, abs=1)


async def test_a_name_that_is_not_known_is_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed lookup has its own kind."""

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    async with transport_to("http://nobody.invalid") as transport:
        problem = await transport.send(POLL)
    assert isinstance(problem, Problem)
    assert problem.kind is Kind.DNS


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Kind.UNEXPECTED),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", Kind.UNEXPECTED),
        (http(b"{}", "200 OK", "Content-Length: 7"), Kind.UNEXPECTED),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Kind.UNEXPECTED),
    ],
    ids=["no HTTP", "long header", "two lengths", "no chunk"],
)
async def test_what_is_no_http_is_unexpected(answer: bytes, kind: Kind) -> None:
    """Bytes that cannot be a response are judged as what they are, not as a status 400."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(answer)
        await writer.drain()
        await reader.read()

    async with serving(handler) as port, transport_to(f"http://127.0.0.1:{port}") as transport:
        problem = await transport.send(POLL)
    assert isinstance(problem, Problem)
    assert problem.kind is kind, problem


async def test_a_body_of_the_largest_size_is_taken() -> None:
    """One MiB is a reply, one byte more is none, compressed or not."""
    sizes = iter((1 << 20, (1 << 20) + 1) * 2)
    packed = iter((False, False, True, True))

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        body = b"x" * next(sizes)
        headers = ["Connection: close"]
        if next(packed):
            body = gzip.compress(body)
            headers.append("Content-Encoding: gzip")
        writer.write(http(body, "200 OK", *headers))
        await writer.drain()

    async with serving(handler) as port, transport_to(f"http://127.0.0.1:{port}") as transport:
        answers = [await transport.send(POLL) for _ in range(4)]
    kinds = [a.kind if isinstance(a, Problem) else len(a.body) for a in answers]
    assert kinds == [1 << 20, Kind.UNEXPECTED] * 2


async def test_a_body_that_is_too_large_ends_its_connection(
    server: FakeVeo3, transport: Transport
) -> None:
    """The rest of it is not waited for, and no response is left to the garbage collector."""
    asyncio.get_running_loop().set_debug(enabled=True)
    server.fault(Body.huge(), times=1)
    assert isinstance(await transport.send(POLL), Problem)
    await asyncio.sleep(1)
    assert server.open_connections == 0


async def test_fault_05_a_stale_connection_costs_one_request(
    server: FakeVeo3, transport: Transport
) -> None:
    """A kept connection that was hung up is a `RESET`: nothing is silently sent again."""
    await transport.send(POLL)
    server.fault(HangUp(reused_only=True), times=1)
    problem = await transport.send(POLL)
    assert isinstance(problem, Problem)
    assert problem.kind is Kind.RESET
    assert server.received == 2
    assert isinstance(await transport.send(POLL), Reply)


async def test_the_key_is_taken_out_of_what_the_server_echoes(server: FakeVeo3) -> None:
    """A body with the key in it comes back without."""
    server.fault(Body(b'{"status":"pending","error_message":"bad key test-key"}'))
    async with transport_to(server.url) as transport:
        reply = await transport.send(POLL)
    assert isinstance(reply, Reply)
    assert reply.body == b'{"status":"pending","error_message":"bad key [key]"}'


async def test_a_made_up_short_key_spoils_no_reply() -> None:
    """A key as short as a word is no secret, and its characters are left in place."""
    async with FakeVeo3(api_key="e") as server:
        server.add("id", STATE)
        async with transport_to(server.url, key="e") as transport:
            reply = await transport.send(POLL)
    assert isinstance(reply, Reply)
    assert reply.body == b'{"id":"id","status":"pending"}'


# --- a borrowed session ------------------------------------------------------------------------


async def test_a_borrowed_session_is_used_and_left_as_it_was(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """It is not closed, gets no header or cookie from us, and its own options do not spoil ours."""
    request_id = server.add()
    async with aiohttp.ClientSession(
        headers={"X-App": "bot", "Authorization": "Bearer of-the-app"},
        raise_for_status=True,
        cookies={"app": "cookie"},
    ) as session:
        before = dict(session.headers)
        async with make_client(session=session) as veo:
            server.fault(Status(500), times=1)
            assert (await veo.fetch(request_id)).status
        assert not session.closed
        assert dict(session.headers) == before
    assert {r.headers["Authorization"] for r in server.requests} == {"Bearer test-key"}
    assert {r.headers["X-App"] for r in server.requests} == {"bot"}


async def test_a_borrowed_sessions_base_url_and_middlewares_do_not_matter(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """Requests go to our base URL, once each, whatever the session would do with its own."""
    asked: list[str] = []

    async def middleware(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        asked.append(str(request.url))
        return await handler(request)

    async with (
        aiohttp.ClientSession(base_url="http://127.0.0.1:9/", middlewares=[middleware]) as session,
        make_client(session=session) as veo,
    ):
        await veo.fetch(server.add())
    assert (asked, server.received) == ([], 1)


async def test_a_borrowed_session_that_is_closed_ends_what_waits_for_a_connection() -> None:
    """The waiting is cancelled from within aiohttp; that is no cancellation of ours."""

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(silent) as port:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
        async with transport_to(f"http://127.0.0.1:{port}", session=session) as transport:
            calls = [asyncio.create_task(transport.send(POLL)) for _ in range(2)]
            await asyncio.sleep(0.1)
            await session.close()
            first, second = await asyncio.gather(*calls)
    assert isinstance(first, Problem)
    assert isinstance(second, Problem)
    assert second.kind is Kind.SESSION


@pytest.mark.filterwarnings("ignore:.*[Aa]uth.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("source", ["auth", "netrc"])
async def test_credentials_of_a_borrowed_session_are_an_error_that_says_so(
    server: FakeVeo3, source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No key is sent beside them, which is aiohttp's rule, and nobody wonders what was sent."""
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1\nlogin me\npassword secret\n")
    (tmp_path / "netrc").chmod(0o600)
    session = (
        aiohttp.ClientSession(trust_env=True)
        if source == "netrc"
        else aiohttp.ClientSession(auth=aiohttp.BasicAuth("me", "secret"))
    )
    async with session, transport_to(server.url, session=session) as transport:
        for call in (POLL, SUBMIT):
            problem = await transport.send(call)
            assert isinstance(problem, Problem)
            assert problem.kind is Kind.AUTHENTICATION
            assert ".netrc" in problem.message
    assert server.received == 0


async def test_fault_33_what_waits_for_a_connection_was_certainly_not_sent() -> None:
    """A pool that the app itself has filled is no doubt about what was charged."""

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    connector = aiohttp.TCPConnector(limit=1)
    async with (
        serving(silent) as port,
        aiohttp.ClientSession(connector=connector) as session,
        transport_to(f"http://127.0.0.1:{port}", session=session) as transport,
    ):
        assert transport.max_connections == 1
        first, second = await asyncio.gather(*(transport.send(SUBMIT) for _ in range(2)))
    assert isinstance(first, Problem)
    assert isinstance(second, Problem)
    assert (first.kind, second.kind) == (Kind.TIMEOUT, Kind.CONNECT)
    assert "nothing was sent" in second.message


async def test_fault_32_a_key_that_a_header_repeats_is_taken_out() -> None:
    """A reply keeps its headers, but for what a server echoes of the key."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await request_head(reader)
        [key] = [line for line in head if line.startswith("Authorization")]
        writer.write(http(b"{}", "200 OK", f"X-Echo: {key}", "Retry-After: 3"))

    key = "sk-canary-7f3a9c51"
    async with (
        serving(echo) as port,
        transport_to(f"http://127.0.0.1:{port}", key=key) as transport,
    ):
        reply = await transport.send(POLL)
    assert isinstance(reply, Reply)
    assert reply.headers["X-Echo"] == "Authorization: Bearer [key]"
    assert reply.headers["retry-after"] == "3"


@pytest.mark.parametrize("borrowed", [False, True])
async def test_fault_20_the_environment_is_ignored(
    server: FakeVeo3,
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    borrowed: bool,
) -> None:
    """A proxy or a ``.netrc`` in the environment changes neither the way nor the key."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    netrc.chmod(0o600)
    nobody = f"http://127.0.0.1:{unused_port()}"
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, nobody)
    monkeypatch.setenv("NETRC", str(netrc))
    session = aiohttp.ClientSession() if borrowed else None
    await make_client(session=session).fetch(server.add())
    if session is not None:
        await session.close()
    assert [r.headers["Authorization"] for r in server.requests] == ["Bearer test-key"]


async def test_fault_20_a_proxy_that_is_given_is_used(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """With ``proxy=`` the request goes to it with the whole URL, and its answer is the answer."""
    heads: list[list[str]] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await request_head(reader))
        writer.write(http(b'{"status":"pending"}'))
        await writer.drain()

    async with serving(proxy) as port:
        task = await make_client(proxy=f"http://127.0.0.1:{port}").fetch("veo3-pro:1")
    assert (task.status, server.received) == ("pending", 0)
    [head] = heads
    assert head[0] == f"GET {server.url}/302/submit/veo3-pro?request_id=veo3-pro:1 HTTP/1.1"


async def test_fault_20_a_proxy_that_refuses_is_a_trouble_of_the_connection() -> None:
    """An https API behind a proxy that says 407 to CONNECT: no key is sent, the kind `CONNECT`."""
    heads: list[list[str]] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await request_head(reader))
        writer.write(http(b"", "407 Proxy Authentication Required"))
        await writer.drain()

    async with (
        serving(proxy) as port,
        transport_to("https://api.invalid", proxy=f"http://127.0.0.1:{port}") as transport,
    ):
        problem = await transport.send(POLL)
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.http_status) == (Kind.CONNECT, 407)
    [head] = heads
    assert head[0].startswith("CONNECT api.invalid:443 ")
    assert "test-key" not in "\n".join(head)


async def test_nothing_is_logged(
    server: FakeVeo3, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    """A request, served or not, is no matter for a log."""
    caplog.set_level(logging.DEBUG)
    for fault in (HangUp(), Body.huge(), Silence(), Cut("chunked")):
        server.fault(fault, times=1)
        await transport.send(POLL)
    assert [r for r in caplog.records if r.name != "asyncio"] == []


async def test_repr_shows_the_host_and_whose_session_it_is(transport: Transport) -> None:
    """The state is readable, the key is not."""
    assert repr(transport).endswith(", own session>")
    assert "test-key" not in repr(transport)
