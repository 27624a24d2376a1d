"""Webhooks as a hint: few polls until one comes, and nothing in it is believed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest
from conftest import MakeClient
from hypothesis import given
from hypothesis import strategies as st

from veo3_async import InvalidRequest, Phase, Veo3Client
from veo3_async._polling.webhooks import Webhooks, webhook_url
from veo3_async.testing import FakeVeo3, Life

UNIFIED = "google-veo3.1"


@contextlib.asynccontextmanager
async def listening(veo: Veo3Client) -> AsyncIterator[str]:
    """Run a bot's web server, and yield the URL that it takes webhooks at."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readline()).decode()
        veo.webhook_received(line.split()[1].rpartition("/")[2])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/veo/{{token}}"
    finally:
        server.close()


@pytest.mark.anyio
async def test_tasks_with_a_webhook_cost_few_polls_and_are_seen_at_once(
    make_client: MakeClient,
) -> None:
    """40 tasks of five minutes: at most 5 polls each, and the end within a second of it."""
    lags = []
    async with FakeVeo3() as server:
        veo = make_client(base_url=server.url)
        async with listening(veo) as url:
            ids = [await veo.submit("a lamp", model=UNIFIED, webhook=url) for _ in range(40)]
            async for change in veo.watch(*ids):
                if change.final:
                    ended = server.ends_at(change.request_id)
                    assert ended is not None
                    lags.append(asyncio.get_running_loop().time() - ended)
        assert len(lags) == 40
        assert sum(lags) / 40 <= 1
        assert all(len(server.polls_of(request_id)) <= 5 for request_id in ids)


@pytest.mark.anyio
async def test_a_webhook_that_never_comes_costs_no_task(veo: Veo3Client) -> None:
    """The end is seen all the same, by the sparse polls."""
    request_id = await veo.submit(
        "a lamp", model=UNIFIED, webhook="http://127.0.0.1:9/nobody/{token}"
    )
    assert (await veo.wait(request_id)).phase is Phase.COMPLETED


@pytest.mark.anyio
async def test_forged_calls_cost_a_poll_a_second_at_most(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a token that leaked one, with any other none."""
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: "leaked")
    async with FakeVeo3(lives=[Life.scripted([{"status": "processing"}])]) as server:
        veo = make_client(base_url=server.url)
        request_id = await veo.submit(
            "a lamp", model=UNIFIED, webhook="http://127.0.0.1:9/nobody/{token}"
        )
        async with veo.watch(request_id):
            await asyncio.sleep(5)
            before = len(server.polls_of(request_id))
            for _ in range(20):
                for _ in range(500):
                    veo.webhook_received("leaked")
                    veo.webhook_received("guessed")
                await asyncio.sleep(0.5)
            assert len(server.polls_of(request_id)) - before <= 11
        await veo.aclose()


@pytest.mark.parametrize("webhook", ["", "https://bot.example/veo", "ftp://x/{token}", "{token}"])
def test_a_webhook_that_cannot_name_its_task_is_refused(webhook: str) -> None:
    """Its URL must have a place for the token: nothing else names the task."""
    with pytest.raises(InvalidRequest, match="token"):
        webhook_url(webhook)


@given(st.lists(st.tuples(st.sampled_from("ab?"), st.floats(0, 2)), max_size=60))
def test_a_token_is_worth_a_poll_a_second(calls: list[tuple[str, float]]) -> None:
    """However the calls come."""
    webhooks, now = Webhooks(), 0.0
    polls: dict[str, list[float]] = {"a": [], "b": []}
    webhooks.expect("a", "task a")
    webhooks.expect("b", "task b")
    for token, later in calls:
        now += later
        if (found := webhooks.received(token, now)) is not None:
            assert found == f"task {token}"
            polls[token].append(now)
    for moments in polls.values():
        assert all(b - a >= 1 for a, b in itertools.pairwise(moments))
