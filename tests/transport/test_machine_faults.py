"""Clocks that jump, a machine at its limits, thousands of ids, ids and keys that cannot be.

The numbers are those of the list of faults; "back to the schedule" means that the id stays watched
and its video is found in the end.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest
from conftest import MakeClient
from over_the_wire import (
    QUICK,
    UNENDING,
    URL,
    collected,
    jumping_loop,
    most_in_a_second,
    now,
    without_debug,
)
from virtual_time import WallClock

from veo3_async import (
    AuthenticationError,
    FixedPacing,
    InvalidRequest,
    Phase,
    Veo3Client,
)
from veo3_async.testing import (
    FakeVeo3,
    Life,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]


# --- clocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [3600, -3600, 86400 * 365])
async def test_fault_22_the_wall_clock_jumps(
    server: FakeVeo3, veo: Veo3Client, wall_clock: WallClock, shift: float
) -> None:
    """The schedule does not notice; only ``observed_at`` has the new time."""
    request_id = server.add(life=Life.plain())
    watch = veo.watch(request_id)
    first = await anext(watch)
    began = now()
    wall_clock.shift(shift)
    rest = await collected(watch)
    assert [c.phase for c in rest] == [Phase.PREPARING, Phase.GENERATING, Phase.COMPLETED]
    assert now() - began == pytest.approx(231, abs=3)
    assert rest[-1].observed_at - first.observed_at == pytest.approx(231 + shift, abs=3)
    gaps = [b.at - a.at for a, b in zip(server.requests, server.requests[1:], strict=False)]
    assert max(gaps) < 3


@pytest.mark.parametrize("gap", [30.0, 3600.0])
async def test_fault_22_no_burst_on_waking(
    server: FakeVeo3, make_client: MakeClient, gap: float
) -> None:
    """A blocked loop or a machine that slept: what is overdue goes out at the rate, not at once."""
    veo = make_client(max_polls_per_second=10.0, pacing=FixedPacing(10.0))
    ids = [server.add(life=UNENDING) for _ in range(90)]
    async with veo.watch(*ids):
        await asyncio.sleep(30)
        before = server.received
        jumping_loop().jump(gap)
        woke = now()
        await asyncio.sleep(20)
    later = [r.at for r in server.requests[before:]]
    assert later[0] >= woke
    assert most_in_a_second(later) <= 10 + 1
    assert {r.request_id for r in server.requests[before:]} == set(ids)


# --- this machine ---------------------------------------------------------------------------------

EXHAUSTED = """
import asyncio, resource, socket
from veo3_async import FixedPacing, Veo3Client
from veo3_async.testing import FakeVeo3, Life
from virtual_time import VirtualTimeSelectorLoop

DONE = {"status": "completed", "running": False, "video_url": "https://file.302.ai/a.mp4"}

async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is no matter here
    reports = []
    async with FakeVeo3(api_key="key") as server:
        ids = [server.add(life=Life.scripted([DONE])) for _ in range(10)]
        async with Veo3Client("key", base_url=server.url, on_poll=reports.append) as veo:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            taken = [socket.socket()]
            resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0].fileno() + 1, hard))
            watch = veo.watch(*ids)
            await asyncio.sleep(60)
            troubles = len(reports)
            stats = veo.stats()
            print(stats.failures, stats.watched, stats.throttle_reason, server.received)
            print("paused" if troubles <= 12 else troubles)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            taken[0].close()
            print(sum([change.final async for change in watch]))

with asyncio.Runner(loop_factory=VirtualTimeSelectorLoop) as runner:
    runner.run(main())
"""


def run_script(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-X", "dev", "-W", "error", "-c", script],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_fault_26_out_of_file_descriptors() -> None:
    """Nobody can connect: all pause, one tries now and then, and when it is over all are found."""
    done = run_script(EXHAUSTED)
    [warning] = done.stderr.splitlines()  # a minute is long enough to be logged, once
    assert "this machine cannot open a connection: EMFILE" in warning
    first, *rest = done.stdout.splitlines()
    assert first.startswith("{'local': ")
    assert first.endswith(" 10 local 0")
    assert rest == ["paused", "10"]


# --- thousands at once ----------------------------------------------------------------------------


@pytest.mark.timeout(300)  # thousands of real requests, on a machine that may be busy
async def test_fault_27_five_thousand_at_once(make_client: MakeClient) -> None:
    """First polls are spread out under the limit, in the order of adding, each id once."""
    with without_debug():
        async with FakeVeo3() as server:
            veo = make_client(
                base_url=server.url,
                max_polls_per_second=200.0,
                pacing=FixedPacing(3600.0),
            )
            ids = [server.add(life=UNENDING) for _ in range(5000)]
            async with veo.watch(*ids):
                await asyncio.sleep(5000 / 200 + 2)
                asked = [r.request_id for r in server.requests]
                assert (len(asked), set(asked)) == (len(ids), set(ids))
                # Those that are on their way at the same time may overtake one another.
                place = {request_id: number for number, request_id in enumerate(ids)}
                assert all(abs(place[each or ""] - now) < 20 for now, each in enumerate(asked))
                assert most_in_a_second([r.at for r in server.requests]) <= 200 + 20


async def test_fault_41_no_id_starves(make_client: MakeClient) -> None:
    """With ten times more due than may be sent, the longest overdue goes first: all come round."""
    with without_debug():
        async with FakeVeo3() as server:
            veo = make_client(
                base_url=server.url,
                max_polls_per_second=30.0,
                pacing=FixedPacing(1.0, jitter=1.0),
            )
            ids = [server.add(life=UNENDING) for _ in range(300)]
            async with veo.watch(*ids):
                await asyncio.sleep(25)
                veo.watch(server.add(life=UNENDING))  # one that comes into the crowd
                await asyncio.sleep(25)
            gaps = [
                b.at - a.at
                for i in ids
                for a, b in zip(server.polls_of(i), server.polls_of(i)[1:], strict=False)
            ]
    assert {len(server.polls_of(i)) for i in ids} <= {4, 5, 6}
    assert max(gaps) < 10 + 2 + 1


# --- ids and keys ---------------------------------------------------------------------------------

IDS = (
    "veo3-pro:68935cd4-58f5-49ce-878e-40b785dd33b8",
    "a%3Ab",
    "a&request_id=b",
    "a#b",
    "a+b c",
    "a/../b?c=d;e",
    "%",
    "任务-é-🎬",
    "x" * 1024,
)


@pytest.mark.parametrize("request_id", IDS, ids=lambda i: i[:20].encode("unicode_escape").decode())
async def test_fault_28_an_id_arrives_as_it_is(
    server: FakeVeo3, veo: Veo3Client, request_id: str
) -> None:
    """Whatever is in an id, the server reads exactly it, and nothing but it."""
    server.add(request_id, QUICK)
    assert (await veo.fetch(request_id)).status == "video_generating"
    assert (await veo.wait(request_id)).video_url == URL
    assert {r.request_id for r in server.requests} == {request_id}
    assert {r.path for r in server.requests} == {"/302/submit/veo3-pro"}


async def test_fault_28_a_colon_is_sent_as_it_is(server: FakeVeo3, veo: Veo3Client) -> None:
    """On the wire the ``:`` of an id is a ``:``, as in the page's example."""
    server.add(IDS[0], QUICK)
    await veo.fetch(IDS[0])
    assert server.requests[0].target == f"/302/submit/veo3-pro?request_id={IDS[0]}"


@pytest.mark.parametrize(
    "request_id", ["", " ", "a\nb", "a\r\nX: y", "a\x00", " a", "a ", "\ud800", "x" * 10240]
)
async def test_fault_28_an_impossible_id_is_refused_here(
    server: FakeVeo3, veo: Veo3Client, request_id: str
) -> None:
    """What can only be a mistake is named, and nothing is sent."""
    with pytest.raises(InvalidRequest, match="not a request id"):
        veo.watch(request_id)
    with pytest.raises(InvalidRequest):
        await veo.wait(request_id)
    with pytest.raises(InvalidRequest):
        await veo.fetch(request_id)
    assert server.connections == 0


@pytest.mark.parametrize(
    "key", ["", "sk-with\nnewline", "sk-nul\0", "sk with space", " sk-padded", "sk-ключ", "sk\x7f"]
)
@pytest.mark.parametrize("source", ["argument", "AI302_API_KEY", "AI302_KEY"])
def test_fault_29_an_impossible_key_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, key: str, source: str
) -> None:
    """The error names where it came from, says what is wrong, and does not show it."""
    if source != "argument" and "\0" in key:
        pytest.skip("the environment holds no NUL")
    if source != "argument":
        monkeypatch.setenv(source, key)
    with pytest.raises(AuthenticationError) as caught:
        Veo3Client(key if source == "argument" else None)
    assert (source if source != "argument" else "the API key") in str(caught.value)
    assert not key.strip() or key.strip() not in str(caught.value)


def test_fault_29_no_key_says_how_to_give_one() -> None:
    """Without a key the error names the variable to set."""
    with pytest.raises(AuthenticationError, match="AI302_API_KEY"):
        Veo3Client()
