"""What the public names promise to a type checker. Never run: checked by mypy and basedpyright.

Each function is what somebody who uses the package would write.
"""

from __future__ import annotations

import asyncio
import datetime
import decimal
import pathlib
from typing import TYPE_CHECKING, Any, Literal, assert_type

import veo3_async
from veo3_async import (
    AuthenticationError,
    BackoffPacing,
    ClientClosed,
    CompletedWithoutVideo,
    Cost,
    DownloadError,
    Eta,
    FailureReason,
    FileInTheWay,
    FixedPacing,
    GenerationRequest,
    InvalidRequest,
    Journal,
    JournalError,
    LearnedPacing,
    ModelParameter,
    Pacing,
    Pending,
    Phase,
    PollReport,
    Progress,
    QuotaExceeded,
    ServiceUnavailable,
    SourceImage,
    Stats,
    StillPending,
    SubmitOptions,
    SubmitUncertain,
    TaskFailed,
    TaskNotFound,
    Transition,
    UnexpectedReply,
    Until,
    Veo3Client,
    Veo3Error,
    VideoModel,
    VideoStream,
    VideoTask,
    Watch,
)
from veo3_async.cluster import Changes, Cluster, ClusterError, ClusterStats, ClusterWatch
from veo3_async.testing import (
    MODELS,
    Body,
    Cut,
    Drip,
    FakeVeo3,
    Fault,
    HangUp,
    Life,
    Received,
    Redirect,
    Silence,
    Slow,
    Stage,
    Status,
)

if TYPE_CHECKING:
    import aiohttp


async def watch(veo: Veo3Client, ids: list[str]) -> None:
    async for change in veo.watch("veo3-pro:1"):
        assert_type(change, Transition)
        assert_type(change.request_id, str)
        assert_type(change.phase, Phase)
        assert_type(change.previous, Phase | None)
        assert_type(change.status, str)
        assert_type(change.task, VideoTask)
        assert_type(change.observed_at, float)
        assert_type(change.final, bool)
        assert_type(change.eta, float | None)
        assert_type(change.error, Veo3Error | None)
    async with veo.watch(*ids, until="video", timeout=60, keep_open=True) as changes:
        assert_type(changes, Watch)
        assert_type(len(changes), int)
        assert_type(changes.request_ids, frozenset[str])
        assert_type(changes.eta("veo3-pro:1"), Eta | None)
        changes.add("veo3-pro:2", "veo3-pro:3")
        changes.discard("veo3-pro:2")
        assert_type(await anext(changes), Transition)
        assert_type([change async for change in changes], list[Transition])
        await changes.aclose()


async def one_task(veo: Veo3Client) -> None:
    until: Literal["best", "video"] = "best"
    assert_type(await veo.wait("veo3-pro:1"), VideoTask)
    limit = datetime.timedelta(minutes=10)
    assert_type(await veo.wait("veo3-pro:1", until=until, timeout=limit), VideoTask)
    assert_type(await veo.fetch("veo3-pro:1"), VideoTask)


async def generate_and_ask(veo: Veo3Client, options: SubmitOptions, until: Until) -> None:
    task = await veo.generate(
        "a lighthouse", on_change=print, until=until, image=b"", metadata={"chat": 1}, **options
    )
    assert_type(task, VideoTask)
    assert_type(task.phase.is_final, bool)
    assert_type(task.to_dict(), dict[str, Any])
    await veo.submit("a lamp", image=pathlib.Path("x.jpg"), aspect_ratio="9:16", webhook="…")
    veo.poke("veo3-pro:1")
    assert_type(veo.webhook_received("token"), bool)
    models = await veo.models()
    assert_type(models, tuple[VideoModel, ...])
    assert_type(models[0].parameters, tuple[ModelParameter, ...])
    assert_type(await veo.balance(), decimal.Decimal | None)
    assert_type(await veo.cost("veo3-pro:1"), decimal.Decimal | None)
    assert_type(Cost().cost, decimal.Decimal | None)
    await veo.settle(1, "veo3-pro:1")
    stream = veo.stream(task)
    assert_type(stream, VideoStream)
    async for piece in stream:
        assert_type(piece, bytes)


async def submit_and_download(veo: Veo3Client, task: VideoTask) -> None:
    request_id = await veo.submit(
        "a lighthouse in a storm",
        image="https://example.com/x.jpg",
        model="veo3-fast",
        extra={"enable_upsample": True},
    )
    assert_type(request_id, str)

    shown: list[float] = []

    def show(done: int, total: int | None) -> None:
        shown.append(done if total is None else done / total)

    path = await veo.download(task, "storm.mp4", progress=show, resume=False, overwrite=True)
    assert_type(path, pathlib.Path)
    await veo.download("https://file.302.ai/x.mp4", path)


async def journal() -> None:
    kept = Journal(pathlib.Path("veo3.db"), keep_finished=datetime.timedelta(days=7))
    async with Veo3Client(journal=kept) as veo:
        for pending in await veo.pending():
            assert_type(pending, Pending)
            assert_type(pending.request_id, str | None)
            assert_type(pending.in_doubt, bool)
            assert_type(pending.final, Transition | None)
        watch = await veo.resume(until="best", timeout=None, keep_open=False)
        assert_type(watch, Watch)
    await kept.aclose()


def make_client(session: aiohttp.ClientSession) -> Veo3Client:
    def on_poll(report: PollReport) -> None:
        assert_type(report.request_id, str)
        assert_type(report.attempt, int)
        assert_type(report.status, int | None)
        assert_type(report.err_code, int | None)
        assert_type(report.duration, float)
        assert_type(report.error, Veo3Error | None)
        assert_type(report.next_poll_in, float | None)

    return Veo3Client(
        "key",
        base_url="https://api.302.ai",
        model="veo3-pro",
        session=session,
        pacing=FixedPacing(datetime.timedelta(seconds=5), jitter=0.2),
        max_polls_per_second=10,
        max_connections=8,
        request_timeout=20.0,
        journal="veo3.db",
        proxy="http://127.0.0.1:3128",
        on_poll=on_poll,
    )


async def lifetime() -> None:
    class Mine(Veo3Client):
        """A client of somebody's own."""

    async with Mine() as veo:
        assert_type(veo, Mine)
        stats = veo.stats()
        assert_type(stats, Stats)
        assert_type(stats.watched, int)
        assert_type(stats.failures, dict[str, int])
        assert_type(stats.rate, float)
        assert_type(stats.lag_p95, float | None)
    await veo.aclose()


def values(task: VideoTask) -> None:
    assert_type(task.best_url, str | None)
    assert_type(task.video_url, str | None)
    assert_type(task.running, bool | None)
    assert_type(task.completed_at, int | None)
    assert_type(task.images, tuple[SourceImage, ...])
    assert_type(task.req, GenerationRequest | None)
    assert_type(task.extra, dict[str, Any])
    if task.req is not None:
        assert_type(task.req.images, tuple[str, ...])
        assert_type(task.req.enable_upsample, bool | None)
    for image in task.images:
        assert_type(image.media_id, str)


def phases(phase: Phase) -> bool:
    match phase:
        case Phase.QUEUED | Phase.PREPARING | Phase.GENERATING | Phase.GENERATED:
            return False
        case Phase.UPSAMPLING | Phase.RETRYING | Phase.UNKNOWN:
            return False
        case Phase.COMPLETED | Phase.COMPLETED_PLAIN | Phase.FAILED | Phase.LOST:
            return True


async def errors(veo: Veo3Client) -> str:
    try:
        await veo.wait("veo3-pro:1", timeout=1.0)
    except StillPending as error:
        timed_out: TimeoutError = error
        return str(timed_out)
    except (TaskFailed, TaskNotFound, CompletedWithoutVideo) as error:
        if isinstance(error, TaskFailed):
            assert_type(error.reason, FailureReason)
        return "" if error.task is None else error.task.status
    except (AuthenticationError, QuotaExceeded, InvalidRequest, ClientClosed) as error:
        return error.message
    except (ServiceUnavailable, UnexpectedReply, SubmitUncertain) as error:
        return error.body or ""
    except FileInTheWay as error:
        as_download_error: DownloadError = error
        return str(as_download_error)
    except (DownloadError, JournalError, Veo3Error) as error:
        assert_type(error.request_id, str | None)
        assert_type(error.http_status, int | None)
        assert_type(error.err_code, int | None)
        assert_type(error.attempts, int)
        assert_type(error.elapsed, float | None)
    return ""


class Patient:
    """A pacing of somebody's own: it inherits nothing."""

    def delay(self, progress: Progress, rand: float) -> float:
        assert_type(progress.phase, Phase)
        assert_type(progress.age, float)
        assert_type(progress.previous_age, float | None)
        assert_type(progress.polls, int)
        return 60.0 + rand

    def phase_ended(self, last: Progress, lasted: float, successor: Phase) -> None:
        pass

    def eta(self, progress: Progress) -> Eta | None:
        return Eta(low=1.0, median=2.0, high=progress.age)


PACINGS: list[Pacing] = [
    Patient(),
    FixedPacing(),
    BackoffPacing(1, 30, factor=2),
    LearnedPacing(polls_per_task=20, max_interval=datetime.timedelta(minutes=1)),
]


async def several_machines(veo: Veo3Client) -> None:
    options = {"user_credentials": "bot.creds"}
    async with Cluster(["nats://127.0.0.1:4222"], replicas=3, options=options) as cluster:
        assert_type(cluster, Cluster)
        await cluster.watch("veo3-pro:1", "veo3-pro:2", model="veo3", metadata={"chat": 42})
        async with ClusterWatch(cluster, "veo3-pro:1", timeout=600) as watch:
            async for transition in watch:
                assert_type(transition, Transition)
        assert_type(await cluster.submit(veo, "a lighthouse in a storm"), str)
        assert_type(await cluster.stats(), ClusterStats)
        async with cluster.transitions("veo3-pro:1", since=0.0) as changes:
            assert_type(changes, Changes)
            assert_type([change async for change in changes], list[Transition])
        try:
            await cluster.work(veo, slots=8, stop=asyncio.Event())
        except ClusterError as error:
            refused: Veo3Error = error
            raise refused from None


async def fake() -> None:
    async with FakeVeo3(speed=1000, rate_limit=20) as server:
        assert_type(server.url, str)
        request_id = server.add(life=Life.documented())
        assert_type(request_id, str)
        server.fault(Status(429, retry_after=1))
        server.fault(HangUp())
        assert_type(server.requests, list[Received])
        async with Veo3Client(server.api_key, base_url=server.url, pacing=Patient()) as veo:
            await veo.wait(request_id)


assert_type(veo3_async.__version__, str)


def faults() -> tuple[Fault, ...]:
    """Make faults, which are values with options."""
    return (
        Body(b"{}", 502),
        Cut("chunked", at=20),
        Drip(interval=1.0),
        Redirect("https://api.302.ai/elsewhere"),
        Silence(after_headers=True),
        Slow(1.0),
    )


def lives() -> tuple[Life, ...]:
    """Make lives, which are values, too."""
    assert_type(len(MODELS), int)
    return (Life((Stage({"status": "video_generating"}, polls=1),)), Life.plain())
