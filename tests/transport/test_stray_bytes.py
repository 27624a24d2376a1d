"""Connections that cannot be trusted: bytes before the request, replies of another id."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from broken_servers import http, request_head, serving
from conftest import MakeClient

from veo3_async import FixedPacing, Phase

pytestmark = pytest.mark.anyio

IDS = [f"veo3-pro:{number}" for number in range(4)]


class Service:
    """Answers each id with its own video after a while, and once writes a reply too many.

    :param with_ids: Whether its replies name the id that they are about.
    """

    def __init__(self, *, with_ids: bool) -> None:
        self._with_ids = with_ids
        self._polls = 0
        self.is_stray_sent = False

    def _reply(self, request_id: str) -> bytes:
        state: dict[str, object] = {"status": "video_generating", "running": True}
        if self._polls > 60:
            state = {
                "status": "completed",
                "video_url": f"https://file.302.ai/{request_id[9:]}.mp4",
            }
        if self._with_ids:
            state["id"] = request_id
        return http(json.dumps(state).encode())

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            line, *_ = await request_head(reader)
            request_id = line.split("request_id=")[1].split()[0]
            self._polls += 1
            reply = self._reply(request_id)
            writer.write(reply)
            await writer.drain()
            if self._polls == 9 and not self.is_stray_sent:
                self.is_stray_sent = True
                await asyncio.sleep(0.1)
                writer.write(reply)


@pytest.mark.parametrize("with_ids", [True, False], ids=["ids", "no ids"])
@pytest.mark.parametrize("session", ["own", "borrowed"])
async def test_fault_43_a_stray_reply_goes_to_nobody(
    make_client: MakeClient, session: str, *, with_ids: bool
) -> None:
    """The connection is thrown away: every id ends with its own video, without a failure."""
    service = Service(with_ids=with_ids)
    async with serving(service.handle) as port, aiohttp.ClientSession() as lent:
        veo = make_client(
            base_url=f"http://127.0.0.1:{port}",
            pacing=FixedPacing(5),
            max_connections=2,
            session=lent if session == "borrowed" else None,
        )
        ends = {c.request_id: c async for c in veo.watch(*IDS) if c.final}
        failures = veo.stats().failures
        await veo.aclose()
    assert service.is_stray_sent
    assert {end.phase for end in ends.values()} == {Phase.COMPLETED}
    assert {i: end.task.video_url for i, end in ends.items()} == {
        i: f"https://file.302.ai/{i[9:]}.mp4" for i in IDS
    }
    assert failures == {}


async def test_fault_42_a_connection_that_is_off_by_one_is_closed(make_client: MakeClient) -> None:
    """A reply that names another watched id ends its connection, and each id gets its own."""
    opened = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        last, is_shifted = "", opened == 1
        while True:
            line, *_ = await request_head(reader)
            asked = line.split("request_id=")[1].split()[0]
            named, last = (last or asked) if is_shifted else asked, asked
            state: dict[str, object] = {
                "id": named,
                "status": "completed",
                "video_url": f"https://file.302.ai/{named[9:]}.mp4",
            }
            if is_shifted and named == asked:
                state = {"id": named, "status": "video_generating", "running": True}
            writer.write(http(json.dumps(state).encode()))
            await writer.drain()

    async with serving(handle) as port:
        veo = make_client(
            base_url=f"http://127.0.0.1:{port}", pacing=FixedPacing(5), max_connections=1
        )
        ends = {c.request_id: c.task.video_url async for c in veo.watch(*IDS) if c.final}
        await veo.aclose()
    assert ends == {i: f"https://file.302.ai/{i[9:]}.mp4" for i in IDS}
    assert opened > 1
