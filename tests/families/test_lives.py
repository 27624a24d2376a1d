"""Every family through the one client: submitted, watched, journalled, downloaded."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from conftest import MakeClient
from over_the_wire import without_debug

from veo3_async import FixedPacing, InvalidRequest, Phase, SubmitUncertain, TaskNotFound, Veo3Client
from veo3_async.testing import FakeVeo3, HangUp, Life

pytestmark = pytest.mark.anyio

MODELS = {
    "record": "veo3-pro",
    "queue": "veo3",
    "tasks": "veo3.1",
    "unified": "google-veo3.1",
}
UNDER = {
    "record": "/302/submit/veo3-pro?",
    "queue": "/302/submit/veo3?",
    "tasks": "/302/submit/veo3-v2/",
    "unified": "/302/v2/video/fetch/",
}


@pytest.mark.parametrize("family", MODELS)
async def test_a_task_is_polled_where_it_was_posted(
    server: FakeVeo3, veo: Veo3Client, family: str
) -> None:
    """The id alone does not name the family: the client remembers where it was submitted."""
    task = await veo.generate("a lighthouse", model=MODELS[family])
    assert (task.phase, task.is_final) == (Phase.COMPLETED, True)
    assert task.best_url is not None
    polls = [r for r in server.requests if r.method == "GET" and "model" not in r.target]
    assert polls
    assert all(r.target.startswith(UNDER[family]) for r in polls)


@pytest.mark.parametrize("family", MODELS)
async def test_the_journal_knows_where_to_poll_after_a_restart(
    make_client: MakeClient, tmp_path: Path, family: str
) -> None:
    """A new process resumes a task of each family, with its metadata, from the file alone."""
    first = make_client(journal=tmp_path / "veo3.db")
    request_id = await first.submit("a lighthouse", model=MODELS[family], metadata={"chat": 42})
    await first.aclose()

    second = make_client(journal=tmp_path / "veo3.db")
    [task] = await second.pending()
    assert (task.request_id, task.metadata) == (request_id, {"chat": 42})
    changes = [change async for change in await second.resume()]
    assert changes[-1].phase is Phase.COMPLETED
    assert {json.dumps(change.metadata) for change in changes} == {'{"chat": 42}'}
    assert await second.pending() == []


@pytest.mark.timeout(300)
async def test_a_thousand_ids_of_all_families_in_one_watch(make_client: MakeClient) -> None:
    """One stream, one poller, one rate limit: each id ends once, with its own video."""
    veo = make_client(pacing=FixedPacing(60), max_polls_per_second=200)
    posts = [
        veo.submit(f"take {number}", model=model)
        for number in range(250)
        for model in MODELS.values()
    ]
    with without_debug():
        ids = await asyncio.gather(*posts)
        ends = [change async for change in veo.watch(*ids) if change.final]
    assert sorted(change.request_id for change in ends) == sorted(ids)
    assert {change.phase for change in ends} == {Phase.COMPLETED}
    assert len({change.task.best_url for change in ends}) == len(ids)


@pytest.mark.parametrize("family", MODELS)
async def test_a_video_of_each_family_comes_to_disk(
    veo: Veo3Client, tmp_path: Path, family: str
) -> None:
    """The task that generate returns can be downloaded."""
    task = await veo.generate("a lighthouse", model=MODELS[family])
    path = await veo.download(task, tmp_path)
    assert path.stat().st_size > 0


async def test_an_id_from_elsewhere_is_polled_where_the_model_says(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """A bare id names no family: model= on the watch does."""
    request_id = server.add(family="unified")
    assert (await veo.wait(request_id, model="google-veo3.1")).phase is Phase.COMPLETED
    assert (await veo.fetch(request_id, model="google-veo3.1")).phase is Phase.COMPLETED


async def test_fault_13_the_other_paths_of_the_family_are_tried_before_an_end(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """An id that was posted to veo3-fast, and has no prefix, is found from veo3-pro."""
    request_id = server.add("68935cd4-58f5-49ce-878e-40b785dd33b8", model="veo3-fast")
    assert (await veo.wait(request_id)).phase is Phase.COMPLETED
    with pytest.raises(TaskNotFound):
        await veo.wait("veo3-pro:nobody")


@pytest.mark.parametrize("model", ["veo3-por", "veo3-prp", "veo3-fsat"])
async def test_a_misspelt_model_costs_nothing(
    server: FakeVeo3, veo: Veo3Client, model: str
) -> None:
    """The error says what is near, and nothing was posted."""
    with pytest.raises(InvalidRequest, match="veo3-"):
        await veo.submit("a lighthouse", model=model)
    assert server.received == 0


async def test_an_option_that_the_family_does_not_know_costs_nothing(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """The error says which ones it knows; extra= passes anything."""
    with pytest.raises(InvalidRequest, match="aspect_ratio"):
        await veo.submit("a lighthouse", resolution="1080p")
    assert server.received == 0
    await veo.submit("a lighthouse", aspect_ratio="9:16", extra={"resolution": "1080p"})
    [request] = server.requests
    assert json.loads(request.body) == {
        "text_prompt": "a lighthouse",
        "aspect_ratio": "9:16",
        "resolution": "1080p",
    }


@pytest.mark.parametrize("source", ["bytes", "path"])
async def test_an_image_of_ones_own_is_uploaded_once(
    server: FakeVeo3, veo: Veo3Client, tmp_path: Path, source: str
) -> None:
    """A path or bytes: what the service then fetches is what was handed in."""
    content = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 500
    path = tmp_path / "lamp.jpg"
    path.write_bytes(content)
    await veo.submit("a lamp", image=path if source == "path" else content)
    [(url, uploaded)] = server.uploads.items()
    assert uploaded == content
    assert json.loads(server.requests[-1].body)["input_image"] == url


async def test_an_image_that_is_too_large_or_not_there_costs_nothing(
    server: FakeVeo3, veo: Veo3Client, tmp_path: Path
) -> None:
    """Both are said before anything is sent."""
    with pytest.raises(InvalidRequest, match="cannot be read"):
        await veo.submit("a lamp", image=tmp_path / "nothing.jpg")
    with pytest.raises(InvalidRequest, match="50 MB"):
        await veo.submit("a lamp", image=bytes(50_000_001))
    assert server.received == 0


async def test_metadata_that_is_no_json_costs_nothing(server: FakeVeo3, veo: Veo3Client) -> None:
    """Neither does more than 16 kB of it."""
    for metadata in ({1, 2}, float("nan"), "x" * 20_000):
        with pytest.raises(InvalidRequest, match="metadata"):
            await veo.submit("a lamp", metadata=metadata)
    assert server.received == 0


async def test_fault_33_a_submission_in_doubt_says_what_the_account_shows(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """Never decided by us: a note beside the error, for the person who looks."""
    server.fault(HangUp(), on="submit")
    with pytest.raises(SubmitUncertain) as caught:
        await veo.submit("a lamp")
    [note] = caught.value.__notes__
    assert "/302/submit/veo3-pro" in note


async def test_balance_cost_and_models(server: FakeVeo3, veo: Veo3Client) -> None:
    """What the dashboard says; the list of models is asked for once."""
    server.set_balance("12.50")
    assert str(await veo.balance()) == "12.50"
    assert await veo.models() is await veo.models()
    request_id = await veo.submit("a lamp")
    assert await veo.cost(request_id) is not None


async def test_the_doubt_about_a_submission_is_settled(
    server: FakeVeo3, make_client: MakeClient, tmp_path: Path
) -> None:
    """With the id that a person found it is pending, and without one it is gone."""
    veo = make_client(journal=tmp_path / "veo3.db")
    server.fault(HangUp(), on="submit", times=2)
    for _ in range(2):
        with pytest.raises(SubmitUncertain):
            await veo.submit("a lamp")
    one, other = await veo.pending()
    await veo.settle(one.key, server.ids[0])
    await veo.settle(other.key)
    assert [task.request_id for task in await veo.pending()] == [server.ids[0]]


async def test_a_poke_is_a_poll_now(server: FakeVeo3, make_client: MakeClient) -> None:
    """Whoever presses refresh sees the end at once; ids that nobody watches are ignored."""
    veo = make_client(pacing=FixedPacing(3600))
    request_id = server.add(life=Life.documented())
    watch = veo.watch(request_id)
    await anext(watch)
    await asyncio.sleep(1000)
    veo.poke(request_id, "veo3-pro:nobody")
    began = asyncio.get_running_loop().time()
    assert [change async for change in watch][-1].final
    assert asyncio.get_running_loop().time() - began < 10


async def test_every_change_reaches_the_hook_once(make_client: MakeClient) -> None:
    """Whoever watches, and with the metadata."""
    seen: list[tuple[str, object]] = []
    veo = make_client(on_change=lambda change: seen.append((change.phase, change.metadata)))
    request_id = await veo.submit("a lamp", metadata=7)
    watches = [veo.watch(request_id) for _ in range(3)]
    phases = [[change.phase async for change in watch] for watch in watches]
    assert [(phase, 7) for phase in phases[0]] == seen


DOCUMENTED = (
    *("veo3-pro", "veo3-pro-frames", "veo3-fast", "veo3-fast-frames"),
    *("veo3", "veo2", "veo3-v2", "veo3.1", "veo3.1-pro"),
    *("google-veo3", "google-veo3-fast", "google-veo3-pro", "google-veo3.1", "google-veo3.1-pro"),
    *("google-veo3.1-t2v", "google-veo3.1-i2v", "google-veo3.1-r2v"),
    *("sora-2", "wan2.7-t2v", "viduq3-pro", "minimax-hailuo-2.3", "runway-gen4"),
    *("official-kling-v3", "doubao-seedance-2-0-260128", "pixverse-v4.5"),
)
REFUSED = {
    "veo3-pro-frames": "pass image=",
    "veo3-fast-frames": "pass image=",
    "veo2": "wants aspect_ratio",
    "veo3-v2": "veo3-v2 serves veo3-fast, .*name one of them",
}


@pytest.mark.parametrize("model", DOCUMENTED)
async def test_each_documented_model_is_served_or_refused_with_what_to_do(
    server: FakeVeo3, veo: Veo3Client, model: str
) -> None:
    """By its bare name: what it lacks is said before anything is sent, and then it works."""
    if (why := REFUSED.get(model)) is not None:
        with pytest.raises(InvalidRequest, match=why):
            await veo.submit("a lighthouse", model=model)
        assert server.received == 0
    if model == "veo2":
        request_id = await veo.submit("a lighthouse", model=model, aspect_ratio="16:9", duration=5)
    elif model == "veo3-v2":
        request_id = await veo.submit("a lighthouse", model=model, extra={"model": "veo3-pro"})
    else:
        image = "https://example.com/a.jpg" if model in REFUSED else None
        request_id = await veo.submit("a lighthouse", model=model, image=image)
    assert (await veo.wait(request_id)).phase is Phase.COMPLETED
