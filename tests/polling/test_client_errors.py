"""What is wrong with the client: every watch ends with it, and a new one begins anew."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import pytest
from conftest import MakeClient
from over_the_wire import QUICK, UNENDING, collected

from veo3_async import (
    AuthenticationError,
    ClientClosed,
    FixedPacing,
    Phase,
    Progress,
    Veo3Client,
    Watch,
)
from veo3_async.testing import FakeVeo3, Life, Status

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]


async def raised_by(watch: Watch) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - it is looked at
        await collected(watch)
    return caught.value


async def test_a_clients_error_reaches_every_watcher_as_its_own(make_client: MakeClient) -> None:
    """Each watcher raises another instance of the same error, those that came to read late too."""
    veo = make_client(api_key="refused")
    watches = [veo.watch(f"veo3-pro:{n}") for n in range(5)]
    errors = await asyncio.gather(*map(raised_by, watches[:4]))
    errors.append(await raised_by(watches[4]))
    assert {type(error) for error in errors} == {AuthenticationError}
    assert len(set(map(id, errors))) == 5
    with pytest.raises(AuthenticationError) as caught:
        watches[0].add("veo3-pro:another")
    assert caught.value not in errors
    assert await raised_by(watches[0]) not in errors


async def test_the_first_error_is_the_one_that_is_raised(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """A refused key stays the reason although the client was closed before anybody read it."""
    veo = make_client(api_key="refused")
    watch = veo.watch(server.add(life=UNENDING))
    await asyncio.sleep(5)
    await veo.aclose()
    assert isinstance(await raised_by(watch), AuthenticationError)


async def test_a_finished_stream_ends_although_the_client_is_closed(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """What was complete before the client's end is read to a normal end."""
    watch = veo.watch(server.add(life=QUICK))
    await asyncio.sleep(10)
    await veo.aclose()
    assert [c.phase for c in await collected(watch)] == [Phase.GENERATING, Phase.COMPLETED]


async def test_unread_transitions_come_before_the_error(server: FakeVeo3, veo: Veo3Client) -> None:
    """Closing the client takes nothing away that was there to be read."""
    watch = veo.watch(server.add(life=UNENDING))
    await asyncio.sleep(5)
    await veo.aclose()
    assert (await anext(watch)).phase is Phase.GENERATING
    with pytest.raises(ClientClosed):
        await anext(watch)


async def test_fault_31_closed_before_the_first_poll(server: FakeVeo3, veo: Veo3Client) -> None:
    """Closing in the same breath as watching leaves nobody waiting."""
    watch = veo.watch(server.add())
    await veo.aclose()
    assert isinstance(await raised_by(watch), ClientClosed)
    assert server.received == 0


async def test_fault_31_closed_while_watched(server: FakeVeo3, veo: Veo3Client) -> None:
    """Every watcher gets `ClientClosed`, whatever it is waiting in."""
    request_id = server.add(life=UNENDING)
    waiting = [
        asyncio.create_task(veo.wait(request_id)),
        asyncio.create_task(collected(veo.watch(request_id))),
        asyncio.create_task(collected(veo.watch(keep_open=True))),
    ]
    await asyncio.sleep(5)
    await asyncio.create_task(veo.aclose())
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(error) for error in done} == {ClientClosed}
    polls = server.received
    await asyncio.sleep(100)
    assert server.received == polls


class Broken(FixedPacing):
    """Answers with what was set, until it is mended."""

    def __init__(self, answer: Callable[[], float]) -> None:
        super().__init__(1.0)
        self.answer: Callable[[], float] | None = answer

    def delay(self, progress: Progress, rand: float) -> float:
        return super().delay(progress, rand) if self.answer is None else self.answer()


def _raise() -> float:
    raise LookupError


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (_raise, LookupError),
        (lambda: math.nan, ValueError),
        (lambda: math.inf, ValueError),
        (lambda: -1.0, ValueError),
    ],
    ids=["raises", "nan", "inf", "negative"],
)
async def test_a_broken_pacing_ends_every_watch_and_a_new_one_works(
    server: FakeVeo3,
    make_client: MakeClient,
    caplog: pytest.LogCaptureFixture,
    answer: Callable[[], float],
    error: type[Exception],
) -> None:
    """A bug of the caller's pacing ends every stream with itself; nothing hangs after it."""
    pacing = Broken(answer)
    veo = make_client(pacing=pacing)
    ids = [server.add(life=Life.plain()) for _ in range(3)]
    errors = await asyncio.gather(*(raised_by(veo.watch(i)) for i in ids))
    assert {type(e) for e in errors} == {error}
    assert [r.levelname for r in caplog.records if r.name == "veo3_async"] == ["ERROR"]
    pacing.answer = None
    task = await veo.wait(ids[0])  # at once, while the old polling is being put away
    assert task.video_url is not None
    assert (await veo.fetch(ids[1])).video_url is not None


def _cancelled() -> float:
    future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    future.cancel()
    return future.result()


async def test_a_callback_that_raises_a_cancellation_hangs_nobody(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """Nobody cancelled the polling: every watch raises, and a new one works."""
    pacing = Broken(_cancelled)
    veo = make_client(pacing=pacing)
    ids = [server.add(life=Life.plain()) for _ in range(3)]
    errors = await asyncio.gather(*(raised_by(veo.watch(i)) for i in ids))
    assert {type(e) for e in errors} == {RuntimeError}
    pacing.answer = None
    await asyncio.sleep(1)  # the old polling is put away
    assert (await veo.wait(ids[0])).video_url is not None


async def test_after_a_refused_key_a_new_watch_raises_as_well(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """The client stays usable: each new watch asks once more, and a healed key works."""
    veo = make_client()
    request_id = server.add(life=QUICK)
    server.fault(Status(401, err_code=-10005), times=2)
    for _ in range(2):
        assert isinstance(await raised_by(veo.watch(request_id)), AuthenticationError)
    assert (await veo.wait(request_id)).status == "completed"
