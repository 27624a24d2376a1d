"""Every sample of family A and every error, over real HTTP and through the public client."""

from __future__ import annotations

import pytest
import wire
from conftest import MakeClient

from veo3_async import (
    AuthenticationError,
    FixedPacing,
    InvalidRequest,
    Phase,
    QuotaExceeded,
    ServiceUnavailable,
    TaskFailed,
    TaskNotFound,
    UnexpectedReply,
    Veo3Client,
    Veo3Error,
)
from veo3_async.testing import Body, FakeVeo3, Life, TimeUnit

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]

RECORDS = [name for name in ["completed", *wire.names("record_")] if "request" not in name]
ERRORS: dict[str, tuple[int, type[Veo3Error]]] = {
    "error_401_invalid_key": (401, AuthenticationError),
    "error_401_missing_key": (401, AuthenticationError),
    "error_429_no_money": (429, QuotaExceeded),
    "error_503_no_channel": (503, ServiceUnavailable),
    "error_503_no_models": (503, ServiceUnavailable),
    "error_balance": (402, QuotaExceeded),
    "error_code_balance": (403, QuotaExceeded),
    "error_code_internal": (500, ServiceUnavailable),
    "error_code_invalid_parameter": (400, InvalidRequest),
    "error_code_rate_limit": (429, ServiceUnavailable),
    "error_code_unauthorized": (401, AuthenticationError),
    "error_credential_expired": (401, AuthenticationError),
    "error_disabled": (403, AuthenticationError),
    "error_invalid_request": (400, InvalidRequest),
    "error_network": (502, ServiceUnavailable),
    "error_not_found": (404, TaskNotFound),
    "error_not_supported": (400, InvalidRequest),
    "error_quota_total": (429, QuotaExceeded),
    "error_task_shaped_saturated": (429, ServiceUnavailable),
    "error_task_shaped_upstream": (500, ServiceUnavailable),
    "error_task_style": (500, ServiceUnavailable),
    "error_text": (503, ServiceUnavailable),
    "error_upstream_timeout": (504, ServiceUnavailable),
}


@pytest.mark.parametrize("name", RECORDS)
async def test_each_record_arrives_as_it_is_read(
    server: FakeVeo3, veo: Veo3Client, name: str
) -> None:
    """What `fetch` returns is the sample; the answer to a submission alone is no state."""
    server.fault(Body(wire.sample(name)))
    if name == "record_submitted":
        with pytest.raises(UnexpectedReply):
            await veo.fetch(wire.ID)
    else:
        assert await veo.fetch(wire.ID) == wire.task_of(wire.sample(name))


@pytest.mark.parametrize("name", wire.names("error_"))
async def test_each_error_says_who_must_act(server: FakeVeo3, veo: Veo3Client, name: str) -> None:
    """Under the HTTP status that it was seen with, and under 200 by its code."""
    status, error = ERRORS[name]
    server.fault(Body(wire.sample(name), status))
    with pytest.raises(error) as caught:
        await veo.fetch(wire.ID)
    assert caught.value.http_status == status
    server.heal()
    server.fault(Body(wire.sample(name), 200))
    with pytest.raises(error):
        await veo.fetch(wire.ID)


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("record_video_generation_failed_running", Phase.RETRYING),
        ("record_video_generation_failed_waiting", Phase.RETRYING),
        ("record_video_generation_failed_last_attempt", Phase.RETRYING),
        ("record_video_upsampling_failed", Phase.RETRYING),
        ("record_video_generating_in_pool", Phase.GENERATING),
        ("record_video_generation_completed_in_pool", Phase.GENERATED),
        ("record_unknown_status", Phase.UNKNOWN),
        ("record_image_failed", Phase.PREPARING),
    ],
)
async def test_fault_44_a_watch_goes_on_after_what_is_no_end(
    server: FakeVeo3, make_client: MakeClient, name: str, phase: Phase
) -> None:
    """For an hour, and then the video comes."""
    veo = make_client(pacing=FixedPacing(20.0, jitter=0.0))
    hour = [Body(wire.sample(name))] * 180
    request_id = server.add(wire.ID, Life.scripted([*hour, Body(wire.sample("completed"))]))
    async with veo.watch(request_id) as changes:
        assert [change.phase async for change in changes] == [phase, Phase.COMPLETED]


async def test_fault_45_a_refusal_is_waited_out(server: FakeVeo3, veo: Veo3Client) -> None:
    """In the shape of a task, with 200, 429 and 500."""
    server.add(wire.ID, Life.plain())
    for status in (200, 429, 500):
        server.fault(Body.refusal(code=status), times=3)
    assert (await veo.wait(wire.ID)).phase is Phase.COMPLETED


async def test_fault_46_a_failure_says_why(server: FakeVeo3, veo: Veo3Client) -> None:
    """The reason stands in the error and in the task."""
    server.add(wire.ID, Life.scripted([Body(wire.sample("record_failed_image"))]))
    with pytest.raises(TaskFailed, match="status code 404") as caught:
        await veo.wait(wire.ID)
    assert caught.value.task is not None
    assert caught.value.task.failure_reason == "Request failed with status code 404"
    assert caught.value.task.is_final


async def test_trap_9_a_task_under_another_id_is_the_answer(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """Gateways have ids of their own."""
    server.add(wire.ID, Life.scripted([Body(wire.sample("record_completed_other_id"))]))
    task = await veo.wait(wire.ID)
    assert task.id == "veo3-pro:1767600000-AbCdEf1234"
    assert task.upsample_video_url is not None


@pytest.mark.parametrize("unit", ["ms", "s"])
async def test_fault_50_a_life_in_either_unit_is_the_same(unit: TimeUnit) -> None:
    """Every word of the page, waiting in the pool before each stage."""
    pacing = FixedPacing(2.0, jitter=0.0)
    async with (
        FakeVeo3(time_unit=unit, lives=[Life.pooled()]) as server,
        Veo3Client(server.api_key, base_url=server.url, pacing=pacing) as veo,
        veo.watch(server.add()) as changes,
    ):
        phases = [change.phase async for change in changes]
    assert phases == [
        *(Phase.QUEUED, Phase.PREPARING, Phase.GENERATING, Phase.GENERATED),
        *(Phase.UPSAMPLING, Phase.COMPLETED),
    ]
