"""Submitting over real HTTP: once, or not at all, or it says that it does not know."""

from __future__ import annotations

import asyncio
import json
import pathlib
import time
from collections.abc import Iterable
from typing import Any

import pytest
from conftest import MakeClient

from veo3_async import (
    AuthenticationError,
    ClientClosed,
    InvalidRequest,
    Journal,
    JournalError,
    LearnedPacing,
    Phase,
    QuotaExceeded,
    ServiceUnavailable,
    StillPending,
    SubmitUncertain,
    TaskFailed,
    Veo3Client,
    Watch,
)
from veo3_async.testing import (
    Cut,
    FakeVeo3,
    Fault,
    HangUp,
    Life,
    Redirect,
    Silence,
    Slow,
    Status,
)

pytestmark = pytest.mark.anyio


def posts(server: FakeVeo3) -> list[Any]:
    return [r for r in server.requests if r.method == "POST"]


async def test_submitted_task_is_watched_to_its_video(server: FakeVeo3, veo: Veo3Client) -> None:
    """The id that a submission returns is one that ``wait`` takes."""
    request_id = await veo.submit("a lamp", image="https://example.com/lamp.jpg")
    task = await veo.wait(request_id)
    assert task.best_url is not None
    (post,) = posts(server)
    assert post.path == "/302/submit/veo3-pro-frames"
    assert json.loads(post.body) == {
        "text_prompt": "a lamp",
        "input_image": "https://example.com/lamp.jpg",
    }


@pytest.mark.parametrize(
    "fault", [HangUp(), HangUp(reset=True), Silence(), Cut(), Status(500), Status(502), Status(504)]
)
async def test_fault_33_lost_answer_is_never_sent_again(
    server: FakeVeo3, veo: Veo3Client, fault: Fault
) -> None:
    """A submission that may have arrived is sent once, and the error says so."""
    server.fault(fault, on="submit")
    with pytest.raises(SubmitUncertain, match="may have been charged"):
        await veo.submit("a lamp")
    assert len(posts(server)) == 1


@pytest.mark.parametrize("code", [429, 503])
async def test_fault_33_refusal_for_want_of_capacity_is_sent_again(
    server: FakeVeo3, veo: Veo3Client, code: int
) -> None:
    """429 and 503 prove that no task exists, so the submission goes on when they have passed."""
    server.fault(Status(code, retry_after="2"), on="submit", times=2)
    request_id = await veo.submit("a lamp")
    assert len(posts(server)) == 3
    assert server.ids == [request_id]


async def test_fault_33_server_that_never_has_capacity_ends_it(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """After five tries the submission is given up, and certainly has made no task."""
    server.fault(Status(503), on="submit")
    with pytest.raises(ServiceUnavailable) as caught:
        await veo.submit("a lamp")
    assert (caught.value.attempts, len(posts(server)), server.ids) == (5, 5, [])


async def test_fault_33_no_connection_is_tried_again(make_client: MakeClient) -> None:
    """Nothing was sent where nobody listened, so nothing is uncertain."""
    veo = make_client(base_url="http://127.0.0.1:1")
    with pytest.raises(ServiceUnavailable) as caught:
        await veo.submit("a lamp")
    assert caught.value.attempts == 5


async def test_fault_33_submission_never_reuses_a_connection(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """A kept connection that the server has just hung up would make every answer uncertain."""
    await veo.fetch(server.add())
    server.fault(HangUp(reused_only=True), on="submit")
    for _ in range(3):
        await veo.submit("a lamp")
    assert len({post.connection for post in posts(server)}) == 3


@pytest.mark.parametrize(
    ("code", "err_code", "error"),
    [
        (400, -10011, InvalidRequest),
        (401, -10001, AuthenticationError),
        (402, -10004, QuotaExceeded),
    ],
)
async def test_refusal_says_who_must_act(
    server: FakeVeo3, veo: Veo3Client, code: int, err_code: int, error: type[Exception]
) -> None:
    """What the service refuses is sent once and is the error of the one who must act."""
    server.fault(Status(code, err_code=err_code), on="submit")
    with pytest.raises(error):
        await veo.submit("a lamp")
    assert len(posts(server)) == 1


async def test_bad_prompt_is_refused_before_anything_is_sent(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """An empty prompt or a local image costs no request."""
    with pytest.raises(InvalidRequest):
        await veo.submit("")
    with pytest.raises(InvalidRequest, match="web server"):
        await veo.submit("a lamp", image="lamp.jpg")
    assert server.requests == []


# --- with a journal -------------------------------------------------------------------------


async def test_journal_knows_what_was_submitted_and_what_was_delivered(
    make_client: MakeClient, tmp_path: pathlib.Path
) -> None:
    """A task is pending from its submission until its end was dealt with."""
    veo = make_client(journal=tmp_path / "veo3.db")
    request_id = await veo.submit("a lamp")
    (task,) = await veo.pending()
    assert (task.request_id, task.prompt, task.phase) == (request_id, "a lamp", Phase.QUEUED)
    await veo.wait(request_id)
    assert await veo.pending() == []


async def test_what_was_submitted_here_is_not_written_down_again_for_its_first_watch(
    server: FakeVeo3,
    make_client: MakeClient,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The journal has it; by a later watch it may know more, and is asked."""
    accept, accepted = Journal.accept, list[str]()

    async def noted(journal: Journal, request_ids: Iterable[str], **options: Any) -> None:
        accepted.extend(ids := list(request_ids))
        await accept(journal, ids, **options)

    monkeypatch.setattr(Journal, "accept", noted)
    veo = make_client(journal=tmp_path / "veo3.db")
    request_id, other = await veo.submit("a lamp"), server.add()
    async with veo.watch(request_id, other) as changes:
        seen = {(await anext(changes)).request_id for _ in range(2)}
    assert seen == {request_id, other}
    assert accepted == [other]

    server.fault(Status(404), times=3)  # seen before, it is not given up for that
    assert (await veo.wait(request_id)).video_url
    assert accepted == [other, request_id]
    assert [task.request_id for task in await veo.pending()] == [other]


async def test_fault_37_killed_between_two_submissions_resumes_both(
    make_client: MakeClient, tmp_path: pathlib.Path
) -> None:
    """What the first process accepted, the second one watches to its end."""
    first = make_client(journal=tmp_path / "veo3.db")
    ids = {await first.submit("a lamp"), await first.submit("a lighthouse")}
    await first.aclose()
    second = make_client(journal=tmp_path / "veo3.db")
    ends = {c.request_id: c.phase async for c in await second.resume() if c.final}
    assert ends == dict.fromkeys(ids, Phase.COMPLETED)
    assert await second.pending() == []


async def deal_with(changes: Watch, *, raising: bool) -> None:
    """Read a watch as a bot would that breaks off at the end, or fails over it."""
    async with changes:
        async for change in changes:
            if change.final and raising:
                raise ZeroDivisionError
            if change.final:
                break


async def test_fault_24_end_that_a_consumer_failed_over_is_delivered_again(
    make_client: MakeClient, server: FakeVeo3, tmp_path: pathlib.Path
) -> None:
    """A consumer that raises over a final transition gets it again, even if the service forgot."""
    first = make_client(journal=tmp_path / "veo3.db")
    request_id = await first.submit("a lamp")
    with pytest.raises(ZeroDivisionError):
        await deal_with(first.watch(request_id), raising=True)
    await first.aclose()
    server.fault(Status(404))
    second = make_client(journal=tmp_path / "veo3.db")
    (end,) = [change async for change in await second.resume()]
    assert (end.final, end.phase, end.error) == (True, Phase.COMPLETED, None)


async def test_end_that_a_consumer_left_normally_is_not_delivered_again(
    make_client: MakeClient, tmp_path: pathlib.Path
) -> None:
    """Leaving the watch without an error says that its last transition was dealt with."""
    veo = make_client(journal=tmp_path / "veo3.db")
    await deal_with(veo.watch(await veo.submit("a lamp")), raising=False)
    assert await veo.pending() == []


async def test_who_is_content_with_the_plain_video_leaves_the_task_to_the_others(
    make_client: MakeClient, tmp_path: pathlib.Path
) -> None:
    """The journal owes a task as long as one watcher waits for its best video."""
    veo = make_client(journal=tmp_path / "veo3.db")
    request_id = await veo.submit("a lamp")
    best = asyncio.create_task(veo.wait(request_id))
    await veo.wait(request_id, until="video")
    (task,) = await veo.pending()
    assert task.final is None
    await best
    assert await veo.pending() == []


async def test_failure_that_wait_has_raised_is_not_delivered_again(
    make_client: MakeClient, server: FakeVeo3, tmp_path: pathlib.Path
) -> None:
    """An error that reached the caller is dealt with."""
    veo = make_client(journal=tmp_path / "veo3.db")
    with pytest.raises(TaskFailed):
        await veo.wait(server.add(life=Life.failing()))
    assert await veo.pending() == []


@pytest.mark.usefixtures("no_task_left")
async def test_fault_37_portal_in_between_leaves_the_task_pending(
    make_client: MakeClient, server: FakeVeo3, tmp_path: pathlib.Path
) -> None:
    """What was paid for is pending still after a start behind something that is not the API."""
    veo = make_client(journal=tmp_path / "veo3.db")
    request_id = await veo.submit("a lamp")
    server.fault(Redirect("http://portal.example/login"))
    with pytest.raises(StillPending):
        await veo.wait(request_id, timeout=3600)
    assert [task.request_id for task in await veo.pending()] == [request_id]
    await veo.aclose()


async def test_fault_33_uncertain_submission_is_listed_in_doubt(
    make_client: MakeClient, server: FakeVeo3, tmp_path: pathlib.Path
) -> None:
    """Who pays can see what may have been charged, with the prompt and the time."""
    server.fault(HangUp(), on="submit")
    veo = make_client(journal=tmp_path / "veo3.db")
    with pytest.raises(SubmitUncertain):
        await veo.submit("a lamp")
    (task,) = await veo.pending()
    assert task.in_doubt
    assert task.prompt == "a lamp"
    assert task.submitted_at is not None
    assert abs(task.submitted_at - time.time()) < 60


async def test_refused_submission_is_not_pending(
    make_client: MakeClient, server: FakeVeo3, tmp_path: pathlib.Path
) -> None:
    """What certainly made no task is closed in the journal."""
    server.fault(Status(402), on="submit")
    veo = make_client(journal=tmp_path / "veo3.db")
    with pytest.raises(QuotaExceeded):
        await veo.submit("a lamp")
    assert await veo.pending() == []


async def test_fault_38_refusal_that_cannot_be_written_down_reaches_the_caller(
    make_client: MakeClient,
    server: FakeVeo3,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The service's word is the error; the journal's trouble is a note of it, and logged."""
    server.fault(Status(429, retry_after="10"), on="submit", times=1)
    server.fault(Status(402), on="submit")
    veo = make_client(journal=tmp_path / "veo3.db")
    submitting = asyncio.create_task(veo.submit("a lamp"))
    while not posts(server):
        await asyncio.sleep(0.1)
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(QuotaExceeded) as caught:
        await submitting
    (note,) = caught.value.__notes__
    assert "in doubt" in note
    assert "veo3.db" in note
    assert "was deleted" in caplog.text


async def test_fault_31_closed_between_two_tries_has_submitted_nothing(
    make_client: MakeClient, server: FakeVeo3, tmp_path: pathlib.Path
) -> None:
    """What certainly did not arrive is not in doubt: nothing is pending, and it raises."""
    server.fault(Status(503), on="submit")
    veo = make_client(journal=tmp_path / "veo3.db")
    submitting = asyncio.create_task(veo.submit("a lamp"))
    while not veo.stats().failures:
        await asyncio.sleep(0.01)
    await veo.aclose()
    with pytest.raises(ClientClosed):
        await submitting
    assert await make_client(journal=tmp_path / "veo3.db").pending() == []


async def test_fault_23_cancelled_submission_stays_in_doubt(
    make_client: MakeClient, server: FakeVeo3, tmp_path: pathlib.Path
) -> None:
    """A caller that gives up while the request is under way leaves a trace of it."""
    server.fault(Slow(20), on="submit")
    veo = make_client(journal=tmp_path / "veo3.db")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await veo.submit("a lamp")
    (task,) = await veo.pending()
    assert task.in_doubt


async def test_fault_31_closed_while_a_submission_is_under_way_is_uncertain(
    make_client: MakeClient, server: FakeVeo3, tmp_path: pathlib.Path
) -> None:
    """A client that is closed has not taken back what it sent: the journal keeps it in doubt."""
    server.fault(Slow(20), on="submit")
    veo = make_client(journal=tmp_path / "veo3.db")
    submitting = asyncio.create_task(veo.submit("a lamp"))
    while not posts(server):
        await asyncio.sleep(0.1)
    await veo.aclose()
    with pytest.raises(SubmitUncertain, match="may have been charged"):
        await submitting
    (task,) = await make_client(journal=tmp_path / "veo3.db").pending()
    assert task.in_doubt


async def test_fault_31_closed_before_its_turn_a_submission_is_no_doubt(
    make_client: MakeClient, server: FakeVeo3, tmp_path: pathlib.Path
) -> None:
    """What waited for a permit when the client was closed was not sent, and its error says so."""
    veo = make_client(journal=tmp_path / "veo3.db", max_polls_per_second=0.1)
    await veo.fetch(server.add())
    submitting = asyncio.create_task(veo.submit("a lamp"))
    await asyncio.sleep(1)
    await veo.aclose()
    with pytest.raises(ClientClosed):
        await submitting
    assert posts(server) == []
    assert await make_client(journal=tmp_path / "veo3.db").pending() == []


async def test_fault_38_ids_that_cannot_be_written_end_and_others_go_on(
    make_client: MakeClient, server: FakeVeo3, tmp_path: pathlib.Path
) -> None:
    """Accepting fails loudly when the file is gone, and what was accepted is polled on."""
    path = tmp_path / "veo3.db"
    veo = make_client(journal=path)
    accepted = server.add()
    changes = veo.watch(accepted)
    assert (await anext(changes)).phase is Phase.QUEUED
    for file in tmp_path.iterdir():
        file.unlink()
    late = server.add()
    changes.add(late)
    change = await anext(c async for c in changes if c.request_id == late)
    assert change.final
    assert isinstance(change.error, JournalError)
    before = len(server.polls_of(accepted))
    await asyncio.sleep(20)
    assert len(server.polls_of(accepted)) > before
    assert server.polls_of(late) == []


async def test_journal_that_cannot_be_opened_raises_on_entering(
    make_client: MakeClient, tmp_path: pathlib.Path
) -> None:
    """Trouble with the file shows before the first task, and says what to do."""
    (tmp_path / "veo3.db").write_bytes(b"no database" * 100)
    with pytest.raises(JournalError, match=r"veo3\.db"):
        await make_client(journal=tmp_path / "veo3.db").__aenter__()


async def test_pending_without_a_journal_says_what_is_missing(veo: Veo3Client) -> None:
    """The error says how to make a client with a journal."""
    with pytest.raises(JournalError, match="journal="):
        await veo.pending()


async def test_what_was_learned_of_the_pace_outlives_the_process(
    make_client: MakeClient, tmp_path: pathlib.Path
) -> None:
    """A client with a journal begins with what the one before it learned."""
    first = make_client(journal=tmp_path / "veo3.db", pacing=None)
    await first.wait(await first.submit("a lamp"))
    knew = first.stats().expected_lag
    await first.aclose()
    wise = LearnedPacing()
    second = make_client(journal=tmp_path / "veo3.db", pacing=wise)
    await second.pending()
    async with asyncio.timeout(60):
        while wise.tasks == 0:
            await asyncio.sleep(1)
    assert wise.tasks == 1
    assert second.stats().expected_lag == pytest.approx(knew, rel=0.01)  # rounded when kept


async def test_knowledge_that_makes_no_sense_costs_no_task(
    make_client: MakeClient, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What somebody has edited is said once, and the polling goes on without it."""
    journal = Journal(tmp_path / "veo3.db")
    await journal.save("pacing", '{"version": 99}')
    veo = make_client(journal=journal, pacing=None)
    assert (await veo.wait(await veo.submit("a lamp"))).best_url is not None
    assert "another version" in caplog.text
    await veo.aclose()
    assert await journal.load("pacing") is not None
    await journal.aclose()
