"""The fake's other families, uploads, webhooks and accounts, over real HTTP."""

from __future__ import annotations

import asyncio
import io
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from veo3_async import InvalidRequest, Phase, TaskFailed, TaskNotFound, Veo3Client
from veo3_async.testing import FakeVeo3, Family, Life, Status

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]

REPLIES = Path(__file__).parents[1] / "replies"
MODELS: dict[Family, str] = {
    "record": "veo3-pro",
    "queue": "veo3",
    "tasks": "veo3.1",
    "unified": "google-veo3.1",
}


MOMENT = r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{6}Z"


def content(name: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((REPLIES / f"{name}.json").read_bytes())
    return said


def shape(value: Any) -> Any:
    """Return the fields and types of a value, whatever it says."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value)


@pytest.fixture
async def http(server: FakeVeo3) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a session that has the key."""
    headers = {"Authorization": f"Bearer {server.api_key}"}
    async with aiohttp.ClientSession(server.url, headers=headers) as session:
        yield session


async def got(session: aiohttp.ClientSession, path: str, status: int = 200) -> Any:
    async with session.get(path) as reply:
        assert reply.status == status
        assert reply.headers["request-id"]
        return await reply.json()


@pytest.mark.parametrize("family", MODELS)
async def test_a_task_of_each_family_is_made_and_watched(
    server: FakeVeo3, make_client: Any, family: Family
) -> None:
    """From the POST to the video, through the public client."""
    veo: Veo3Client = make_client(model=MODELS[family])
    request_id = await veo.submit("a lighthouse in a storm")
    async with veo.watch(request_id) as changes:
        seen = [change async for change in changes]
    first = Phase.GENERATING if family == "tasks" else Phase.QUEUED  # tasks have no word for it
    assert seen[0].phase is first
    last = seen[-1]
    assert (last.phase, last.task.family, last.final) == (Phase.COMPLETED, family, True)
    assert Phase.GENERATING in {change.phase for change in seen}
    assert server.video_of(last.task.best_url or "")
    assert {call.request_id for call in server.polls_of(request_id)} == {request_id}


@pytest.mark.parametrize("family", MODELS)
async def test_a_failure_of_each_family_says_why(
    server: FakeVeo3, make_client: Any, family: Family
) -> None:
    """Where the family has a field for it; tasks have none."""
    veo: Veo3Client = make_client(model=MODELS[family])
    said = "no reason given" if family == "tasks" else "unsafe prompt"
    with pytest.raises(TaskFailed, match=said):
        await veo.wait(server.add(family=family, life=Life.failing()))


@pytest.mark.parametrize("family", MODELS)
async def test_an_id_is_known_to_its_own_family_only(
    server: FakeVeo3, make_client: Any, family: Family
) -> None:
    """Each family has its own ids; bare ones do not tell whose they are."""
    request_id = server.add("68935cd4-58f5-49ce-878e-40b785dd33b8", family=family)
    for other, model in MODELS.items():
        veo: Veo3Client = make_client(model=model)
        if other == family:
            assert (await veo.fetch(request_id)).family == family
        else:
            with pytest.raises(TaskNotFound):
                await veo.fetch(request_id)


@pytest.mark.parametrize(
    ("family", "at", "sample"),
    [
        ("queue", 0.0, "queue_in_queue"),
        ("queue", 100.0, "queue_in_progress"),
        ("queue", 400.0, "queue_completed"),
        ("tasks", 100.0, "tasks_in_processing"),
        ("tasks", 400.0, "tasks_success"),
    ],
)
async def test_what_is_said_has_the_shape_of_its_sample(
    server: FakeVeo3, http: aiohttp.ClientSession, family: Family, at: float, sample: str
) -> None:
    """Fields, their types and their words."""
    request_id = server.add(family=family)
    await asyncio.sleep(at)
    path = f"/302/submit/veo3?request_id={request_id}"
    said = await got(http, path if family == "queue" else f"/302/submit/veo3-v2/{request_id}")
    expected = content(sample)
    assert said["status"] == expected["status"]
    said.pop("metrics", None), expected.pop("metrics", None)
    assert shape(said) == shape(expected)


@pytest.mark.parametrize(
    ("life", "at", "sample"),
    [
        (Life.documented(), 0.0, "unified_pending"),
        (Life.documented(), 400.0, "unified_completed"),
        (Life.failing(), 400.0, "unified_failed"),
    ],
)
async def test_what_the_unified_endpoint_says_has_fields_of_its_sample(
    server: FakeVeo3, http: aiohttp.ClientSession, life: Life, at: float, sample: str
) -> None:
    """The word, the times, and where the video or the reason is."""
    request_id = server.add(family="unified", life=life)
    await asyncio.sleep(at)
    said = await got(http, f"/302/v2/video/fetch/{request_id}")
    expected = content(sample)
    assert said["status"] == expected["status"]
    for name in ("created_at", "updated_at", "completed_at", "failed_at"):
        assert (name in said) == (name in expected)
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{6}Z", said.get(name, expected["created_at"])
        )
    assert shape(said.get("error")) == shape(expected.get("error"))
    assert bool(said["video_url"]) == bool(expected.get("video_url"))


@pytest.mark.parametrize("family", ["queue", "tasks", "unified"])
async def test_a_submission_is_answered_as_its_sample(
    http: aiohttp.ClientSession, family: Family
) -> None:
    """The id is where the family has it."""
    sample = {"queue": "queue_submitted", "tasks": "tasks_submitted", "unified": "unified_created"}
    path = {
        "queue": "/302/submit/veo3",
        "tasks": "/302/submit/veo3-v2",
        "unified": "/302/v2/video/create",
    }[family]
    body = {"prompt": "a lamp", "model": "veo3.1"}
    async with http.post(path, json=body) as reply:
        assert shape(await reply.json()) == shape(content(sample[family]))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/302/submit/veo3", {"text_prompt": "a lamp"}),
        ("/302/submit/veo2", {"prompt": "a lamp"}),
        ("/302/submit/veo3-v2", {"prompt": "a lamp"}),
        ("/302/submit/veo3-v2", {"prompt": "a", "model": "m", "images": ["data:x,"]}),
        ("/302/v2/video/create", {"model": "kling-21"}),
        ("/302/v2/video/create?webhook=https://example.com/x", {"prompt": "a", "model": "m"}),
    ],
)
async def test_what_a_family_does_not_take_is_refused(
    server: FakeVeo3, http: aiohttp.ClientSession, path: str, body: Any
) -> None:
    """With -10011, and no task is made; webhooks go to the loopback only."""
    async with http.post(path, json=body) as reply:
        assert (reply.status, (await reply.json())["error"]["err_code"]) == (400, -10011)
    assert server.ids == []


# --- account and uploads ------------------------------------------------------------------------


async def test_the_account_says_what_was_charged(
    server: FakeVeo3, http: aiohttp.ClientSession
) -> None:
    """By the id of the POST's own reply, and in a span of time."""
    assert await got(http, "/dashboard/balance") == content("account_balance")
    server.set_balance("0.5")
    assert (await got(http, "/dashboard/balance"))["data"]["balance"] == "0.5"
    async with http.post("/302/submit/veo3-pro", json={"text_prompt": "a lamp"}) as reply:
        http_id = reply.headers["request-id"]
    assert await got(http, f"/dashboard/record/{http_id}") == content("account_record")
    now = int(time.time())
    span = f"start_time={now - 3600}&end_time={now + 3600}"
    records = await got(http, f"/dashboard/api-record?page=1&limit=50&{span}")
    assert [item["request_id"] for item in records["items"]] == [http_id]
    assert records["pagination"]["total"] == 1
    assert (await got(http, "/dashboard/api-record?start_time=0&end_time=9"))["items"] == []
    await got(http, f"/dashboard/api-record?limit=51&{span}", 400)
    await got(http, "/dashboard/record/unknown", 404)


async def test_the_models_are_listed_without_a_key(server: FakeVeo3) -> None:
    """As the sample has them."""
    async with aiohttp.ClientSession(server.url) as session:
        assert await got(session, "/302/v2/model/video") == content("unified_models")
        await got(session, "/dashboard/balance", 401)


async def test_a_file_is_uploaded_and_served(server: FakeVeo3, http: aiohttp.ClientSession) -> None:
    """A multipart form with a field ``file``; what is too large or no form is refused."""
    photo = bytes(range(256)) * 8192
    form = aiohttp.FormData()
    form.add_field("file", io.BytesIO(photo), filename="a.jpg", content_type="image/jpeg")
    async with http.post("/302/upload-file", data=form) as reply:
        said = await reply.json()
    assert shape(said) == shape(content("upload_file"))
    assert server.uploads == {said["data"]: photo}
    async with http.get(said["data"]) as reply:
        assert await reply.read() == photo
    async with http.post("/302/upload-file", data=b"x") as reply:
        assert reply.status == 400
    server.fault(Status(503), on="upload")
    async with http.post("/302/upload-file", data=b"x") as reply:
        assert reply.status == 503


# --- webhooks -----------------------------------------------------------------------------------


class _Bot:
    """Takes webhooks, and answers the first of them with an error."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.times: list[float] = []

    async def take(self, request: web.BaseRequest) -> web.Response:
        self.bodies.append(await request.json())
        self.times.append(asyncio.get_running_loop().time())
        return web.Response(status=500 if len(self.bodies) == 1 else 200)


@pytest.mark.parametrize(
    ("life", "sample"),
    [
        (Life.documented(), "unified_webhook_completed"),
        (Life.failing(), "unified_webhook_failed"),
    ],
)
async def test_a_webhook_is_called_at_the_end_and_again(life: Life, sample: str) -> None:
    """Its body names no task; what is not acknowledged with 200 comes again after 2 s."""
    bot = _Bot()
    runner = web.ServerRunner(web.Server(bot.take))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    hook = f"http://{host}:{port}/veo?token=abc"
    body = {"model": "google-veo3.1", "prompt": "a lamp"}
    async with FakeVeo3(lives=[life]) as server:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        began = asyncio.get_running_loop().time()
        async with (
            aiohttp.ClientSession(server.url, headers=headers) as http,
            http.post("/302/v2/video/create", params={"webhook": hook}, json=body) as reply,
        ):
            task_id = (await reply.json())["task_id"]
            http_id = reply.headers["request-id"]
        await asyncio.sleep(500)
    await runner.cleanup()
    first, second = bot.bodies
    assert first == second
    assert (first["request_id"], first["webhook"]) == (http_id, hook)
    assert http_id != task_id
    expected = content(sample)
    assert (set(first), first["status"]) == (set(expected), expected["status"])
    assert set(first["result"]) == set(expected["result"])
    assert bot.times[0] - began == pytest.approx(life.duration, abs=1)
    assert bot.times[1] - bot.times[0] == pytest.approx(2, abs=0.5)


async def test_a_model_that_is_misspelt_posts_nothing(server: FakeVeo3, veo: Veo3Client) -> None:
    """No money is risked."""
    with pytest.raises(InvalidRequest, match="veo3-pro"):
        await veo.submit("a lamp", model="veo3-por")
    assert server.received == 0
