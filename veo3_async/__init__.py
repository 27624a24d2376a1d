"""Asyncio client for 302.AI's veo3-pro video generation: watches any number of tasks, loses none.

::

    async with Veo3Client() as veo:
        async for change in veo.watch("veo3-pro:6893…"):
            print(change.phase, change.task.best_url)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from veo3_async._client import Veo3Client
from veo3_async._errors import (
    AuthenticationError,
    ClientClosed,
    CompletedWithoutVideo,
    DownloadError,
    FailureReason,
    FileInTheWay,
    InvalidRequest,
    JournalError,
    QuotaExceeded,
    ServiceUnavailable,
    StillPending,
    SubmitUncertain,
    TaskFailed,
    TaskNotFound,
    UnexpectedReply,
    Veo3Error,
)
from veo3_async._journal.rows import Pending
from veo3_async._lifecycle.phases import Until
from veo3_async._models import GenerationRequest, Phase, SourceImage, Transition, VideoTask
from veo3_async._pacing.learned import LearnedPacing
from veo3_async._pacing.policies import BackoffPacing, Eta, FixedPacing, Pacing, Progress
from veo3_async._polling.watch import Watch
from veo3_async._protocol.families import SubmitOptions
from veo3_async._reports import Cost, ModelParameter, PollReport, Stats, VideoModel

if TYPE_CHECKING:
    from veo3_async._download.stream import VideoStream
    from veo3_async._journal.journal import Journal

    __version__: str

__all__ = [
    "AuthenticationError",
    "BackoffPacing",
    "ClientClosed",
    "CompletedWithoutVideo",
    "Cost",
    "DownloadError",
    "Eta",
    "FailureReason",
    "FileInTheWay",
    "FixedPacing",
    "GenerationRequest",
    "InvalidRequest",
    "Journal",
    "JournalError",
    "LearnedPacing",
    "ModelParameter",
    "Pacing",
    "Pending",
    "Phase",
    "PollReport",
    "Progress",
    "QuotaExceeded",
    "ServiceUnavailable",
    "SourceImage",
    "Stats",
    "StillPending",
    "SubmitOptions",
    "SubmitUncertain",
    "TaskFailed",
    "TaskNotFound",
    "Transition",
    "UnexpectedReply",
    "Until",
    "Veo3Client",
    "Veo3Error",
    "VideoModel",
    "VideoStream",
    "VideoTask",
    "Watch",
]

if not TYPE_CHECKING:  # or no checker would find a name that is misspelt

    def __getattr__(name: str) -> object:
        if name == "__version__":
            import importlib.metadata  # noqa: PLC0415 - takes 20 ms, and is seldom asked for

            return importlib.metadata.version("veo3_async")
        if name == "Journal":
            from veo3_async._journal.journal import Journal  # noqa: PLC0415 - loads sqlite3

            globals()[name] = Journal
            return Journal
        if name == "VideoStream":
            from veo3_async._download.stream import VideoStream  # noqa: PLC0415 - loads aiohttp

            globals()[name] = VideoStream
            return VideoStream
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "__version__"})
