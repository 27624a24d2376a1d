"""What a newcomer sees who has a wrong address or a wrong key."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from broken_servers import http, request_head, serving
from conftest import MakeClient

from veo3_async import AuthenticationError, FixedPacing, Phase, StillPending, UnexpectedReply
from veo3_async.testing import Body, FakeVeo3, Life

pytestmark = pytest.mark.anyio


async def test_fault_11_a_web_site_in_place_of_the_api_ends_within_5_minutes(
    make_client: MakeClient,
) -> None:
    """The error shows what came, and names base_url."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_head(reader)
            writer.write(http(b"<html>Welcome to our shop</html>", "404 Not Found"))

    async with serving(handle) as port:
        veo = make_client(base_url=f"http://127.0.0.1:{port}")
        began = asyncio.get_running_loop().time()
        with pytest.raises(UnexpectedReply, match="base_url") as caught:
            await veo.wait("veo3-pro:1")
        assert asyncio.get_running_loop().time() - began <= 330
        assert "Welcome to our shop" in (caught.value.body or "")
        await veo.aclose()


async def test_fault_15_a_refused_key_ends_within_two_requests(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """The API's own word on the key is believed at once, for all who watch."""
    veo = make_client(api_key="sk-wrong-0123456789")
    watches = [veo.watch(server.add()) for _ in range(2)]
    for watch in watches:
        with pytest.raises(AuthenticationError, match="AI302_API_KEY"):
            [change async for change in watch]
    assert server.received <= 2


async def test_fault_15_a_refusal_of_somebody_else_ends_a_client_that_never_had_a_reply(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """After a minute of nothing else: a proxy that wants a password of its own, say."""
    server.fault(Body.foreign(403, "cloudflare"))
    veo = make_client()
    began = asyncio.get_running_loop().time()
    with pytest.raises(AuthenticationError, match="403"):
        await veo.wait("veo3-pro:1")
    assert 60 <= asyncio.get_running_loop().time() - began <= 120


async def test_fault_11_a_client_that_had_a_reply_waits_a_page_out(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """An hour of maintenance ends nothing; the caller's timeout does."""
    veo = make_client(pacing=FixedPacing(20.0))
    request_id = server.add(life=Life.scripted([{"status": "video_generating"}]))
    watch = veo.watch(request_id, timeout=3700)
    assert (await anext(watch)).phase is Phase.GENERATING
    server.fault(Body.html())
    [end] = [change async for change in watch]
    assert isinstance(end.error, StillPending)


async def test_fault_11_a_journal_that_had_a_reply_waits_a_page_out(
    server: FakeVeo3, make_client: MakeClient, tmp_path: Path
) -> None:
    """A restart during the maintenance knows from its file that the address is right."""
    first = make_client(journal=tmp_path / "veo3.db")
    request_id = server.add(life=Life.scripted([{"status": "video_generating"}]))
    watch = first.watch(request_id)
    await anext(watch)
    await first.aclose()
    server.fault(Body.html())
    second = make_client(journal=tmp_path / "veo3.db", pacing=FixedPacing(20.0))
    [end] = [change async for change in await second.resume(timeout=3600)]
    assert isinstance(end.error, StillPending)
