"""Webhooks as a hint: few polls until one comes, and nothing in it is believed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pathlib
from collections.abc import AsyncIterator

import pytest
from conftest import MakeClient
from hypothesis import given
from hypothesis import strategies as st

from veo3_async import InvalidRequest, Veo3Client, Watch
from veo3_async._polling.webhooks import SPARSE_SECONDS, Webhooks, webhook_url
from veo3_async.testing import FakeVeo3, Life, Stage

UNIFIED = "google-veo3.1"
NOWHERE = "http://127.0.0.1:9/nobody/{token}"


@contextlib.asynccontextmanager
async def listening(veo: Veo3Client, port: int = 0) -> AsyncIterator[str]:
    """Run a bot's web server, and yield the URL that it takes webhooks at.

    :param port: TCP port; 0 takes a free one.
    """

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readline()).decode()
        is_ours = veo.webhook_received(line.split()[1].rpartition("/")[2])
        status = "200 OK" if is_ours else "404 Not Found"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", port)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/veo/{{token}}"
    finally:
        server.close()


@pytest.fixture
def leaked(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the token of every task to come."""
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: "leaked")
    return "leaked"


async def lags_of(server: FakeVeo3, watch: Watch) -> list[float]:
    """Return for each id how many seconds after its end it was told."""
    lags = []
    async for change in watch:
        if change.final:
            ended = server.ends_at(change.request_id)
            assert ended is not None
            lags.append(asyncio.get_running_loop().time() - ended)
    return lags


@pytest.mark.anyio
@pytest.mark.timeout(300)
async def test_tasks_with_a_webhook_cost_few_requests_and_are_seen_at_once(
    make_client: MakeClient,
) -> None:
    """200 tasks of 2 to 10 minutes: 5 requests or fewer, and the end within a second of it."""
    async with FakeVeo3(lives=Life.mixed) as server:
        veo = make_client(base_url=server.url)
        async with listening(veo) as url:
            ids = [await veo.submit("a lamp", model=UNIFIED, webhook=url) for _ in range(200)]
            lags = await lags_of(server, veo.watch(*ids))
        polls = [len(server.polls_of(request_id)) for request_id in ids]
        durations = [(server.ends_at(one) or 0.0) - server.polls_of(one)[0].at for one in ids]
    assert len(lags) == 200
    assert sum(lags) / 200 <= 1
    assert sum(polls) / 200 + 1 <= 5  # with the one that submitted it
    assert all(n <= 3 + lasted / SPARSE_SECONDS for n, lasted in zip(polls, durations, strict=True))


@pytest.mark.anyio
async def test_a_webhook_is_waited_for_after_a_restart_too(
    make_client: MakeClient, tmp_path: pathlib.Path
) -> None:
    """The journal keeps its token: the next process takes it, and polls as rarely."""
    async with FakeVeo3() as server:
        first = make_client(base_url=server.url, journal=tmp_path / "veo3.db")
        async with listening(first) as url:
            port = int(url.split(":")[2].partition("/")[0])
            ids = [await first.submit("a lamp", model=UNIFIED, webhook=url) for _ in range(20)]
            await asyncio.sleep(60)
        await first.aclose()
        second = make_client(base_url=server.url, journal=tmp_path / "veo3.db")
        watch = await second.resume()
        async with listening(second, port):
            lags = await lags_of(server, watch)
        assert len(lags) == len(ids)
        assert sum(lags) / len(lags) <= 1
        assert all(len(server.polls_of(request_id)) <= 4 for request_id in ids)


@pytest.mark.anyio
async def test_fault_39_a_webhook_that_comes_before_the_url_is_followed_by_polls_as_usual(
    make_client: MakeClient, leaked: str
) -> None:
    """The word may be ahead of its video: what has ended is asked for again soon."""
    stages = (
        Stage({"status": "processing"}, 60),
        Stage({"status": "completed"}, 5),
        Stage({"status": "completed", "video_url": True, "completed_at": True}),
    )
    async with FakeVeo3(lives=[Life(stages, upsample=False)]) as server:
        veo = make_client(base_url=server.url)
        request_id = await veo.submit("a lamp", model=UNIFIED, webhook=NOWHERE)
        watching = asyncio.create_task(lags_of(server, veo.watch(request_id)))
        await asyncio.sleep(62)
        assert veo.webhook_received(leaked)
        [lag] = await watching
    assert lag <= 5


@pytest.mark.anyio
@pytest.mark.parametrize("early", [0.1, 0.9, 4])
async def test_a_webhook_that_is_ahead_of_the_replies_to_polls_costs_a_poll_or_two(
    make_client: MakeClient, leaked: str, early: float
) -> None:
    """One node posts it, another one answers polls: the end is seen soon after it all the same."""
    async with FakeVeo3() as server:
        veo = make_client(base_url=server.url)
        request_id = await veo.submit("a lamp", model=UNIFIED, webhook=NOWHERE)
        watching = asyncio.create_task(lags_of(server, veo.watch(request_id)))
        duration = Life.documented().duration
        assert duration is not None
        await asyncio.sleep(duration - early)
        assert veo.webhook_received(leaked)
        [lag] = await watching
        assert 0 <= lag <= 1 + early / 4
        assert len(server.polls_of(request_id)) <= 6


@pytest.mark.anyio
async def test_a_webhook_that_comes_while_a_poll_is_under_way_is_not_lost(
    make_client: MakeClient, leaked: str
) -> None:
    """The reply on its way may be older than the webhook."""
    async with FakeVeo3(latency=3) as server:
        veo = make_client(base_url=server.url)
        request_id = await veo.submit("a lamp", model=UNIFIED, webhook=NOWHERE)
        watching = asyncio.create_task(lags_of(server, veo.watch(request_id)))
        while len(server.polls_of(request_id)) < 2:
            await asyncio.sleep(0.1)
        assert veo.webhook_received(leaked)
        await asyncio.sleep(5)
        assert len(server.polls_of(request_id)) == 3
        watching.cancel()


@pytest.mark.anyio
async def test_a_webhook_that_never_comes_costs_no_task(
    make_client: MakeClient,
) -> None:
    """Each end is seen all the same, by the sparse polls."""
    async with FakeVeo3(lives=Life.mixed) as server:
        veo = make_client(base_url=server.url)
        ids = [await veo.submit("a lamp", model=UNIFIED, webhook=NOWHERE) for _ in range(50)]
        lags = await lags_of(server, veo.watch(*ids))
    assert len(lags) == len(ids)
    assert max(lags) <= SPARSE_SECONDS + 5


@pytest.mark.anyio
async def test_forged_calls_cost_a_poll_a_second_at_most(
    make_client: MakeClient, leaked: str
) -> None:
    """10,000 a second, with a token that leaked: one poll a second; with any other none."""
    async with FakeVeo3(lives=[Life.scripted([{"status": "processing"}])]) as server:
        veo = make_client(base_url=server.url)
        request_id = await veo.submit("a lamp", model=UNIFIED, webhook=NOWHERE)
        async with veo.watch(request_id):
            for token, most in (("guessed", 0), (leaked, 11)):
                await asyncio.sleep(5)
                before = server.received
                for _ in range(100):
                    for _ in range(1000):
                        veo.webhook_received(token)
                    await asyncio.sleep(0.1)
                assert server.received - before <= most
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
        assert all(b - a > 1 - 1e-9 for a, b in itertools.pairwise(moments))
