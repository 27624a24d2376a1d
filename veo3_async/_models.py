"""The values that the API speaks of and the values that the caller gets.

Field names and meaning of `VideoTask`, `SourceImage` and `GenerationRequest` follow
302.AI's record of a veo3-pro task; times are integers, milliseconds since the epoch of the
server's clock. Before a task is finished most fields are absent or null, so every one has a
default, and whatever the record does not know is kept in ``extra``. Tasks of all families of
endpoints have these fields.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from veo3_async._errors import FailureReason, TaskFailed, Veo3Error, failure_reason_of
from veo3_async._html import facts_html
from veo3_async._pydantic import ForPydantic

__all__ = [
    "FINAL",
    "GenerationRequest",
    "Phase",
    "SourceImage",
    "Transition",
    "VideoTask",
]


class Phase(enum.StrEnum):
    """Where a task is; few and stable, whatever new statuses the service invents."""

    QUEUED = "queued"
    """Accepted, nothing has begun."""
    PREPARING = "preparing"
    """The source image is being fetched."""
    GENERATING = "generating"
    """The video is being made."""
    GENERATED = "generated"
    """The plain video is there; upsampling may follow."""
    UPSAMPLING = "upsampling"
    """The plain video is there and is being upsampled."""
    RETRYING = "retrying"
    """An attempt failed and the service tries again by itself."""
    UNKNOWN = "unknown"
    """The service said something new; the raw status says what."""
    COMPLETED = "completed"
    """Final: the video that was asked for is there."""
    COMPLETED_PLAIN = "completed_plain"
    """Final: the upsampling failed for good or never came; the plain video is there."""
    FAILED = "failed"
    """Final: the service gave the task up, refuses it, or completed it without a video."""
    LOST = "lost"
    """Final for this watch only: sight of the task is lost (unknown id, timeout, standstill)."""

    @property
    def is_final(self) -> bool:
        """Whether nothing follows this phase."""
        return self in FINAL


class SourceImage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One image that the video is made from, as the service sees it."""

    url: str = ""
    """Where the service fetched it."""
    status: str = ""
    """The service's word for how far it is (``pending``, ``downloading``, ``completed``)."""
    media_id: str = msgspec.field(default="", name="mediaId")
    """The upstream's handle, on the wire ``mediaId``; empty until the image was fetched."""
    error: str = ""
    """What went wrong with it in some attempt; empty where nothing did."""
    extra: dict[str, Any] = {}
    """Fields that the API's page does not name, and values of a type it does not allow."""


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the service understood of the request."""

    model: str = ""
    """Model name, such as ``veo3-pro``."""
    prompt: str = ""
    """The prompt as it was sent."""
    images: tuple[str, ...] = ()
    """URLs of the source images."""
    enhance_prompt: bool | None = None
    """Whether the service rewrites the prompt; None where it did not say."""
    enable_upsample: bool | None = None
    """Whether an upsampled video follows the plain one; None where the service did not say."""
    aspect_ratio: str = ""
    """``16:9`` or ``9:16``; empty where the service did not say."""
    enable_prompt_enhance: bool | None = None
    """Another name of ``enhance_prompt``, as some gateways spell it."""
    extra: dict[str, Any] = {}
    """Fields that the API's page does not name, and values of a type it does not allow."""


class VideoTask(ForPydantic, msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The state of one video-generation task, as one reply has it."""

    id: str = ""
    """The request id, such as ``veo3-pro:68935cd4-…``."""
    status: str = ""
    """The service's own word; ``phase`` is ours."""
    phase: Phase = Phase.UNKNOWN
    """Where the task is, by this reply alone; a watch also knows the replies before."""
    failure_reason: str | None = None
    """The service's own words on what went wrong, as one line; None where it has none, and for a
    task whose best video is there."""
    family: str = ""
    """The family of endpoints that the reply came from, such as ``record``."""
    ended: bool = False
    """Whether the service says that the task has ended. Where the video that was asked for is not
    there yet, or the word is one of a gateway between, that is believed after 60 s."""
    wants_upsample: bool | None = None
    """Whether an upsampled video is to come; None while nothing says so."""
    running: bool | None = None
    """Whether a worker of the service holds the task just now. Between two stages none does, so
    False is no end; None where it did not say."""
    created_at: int | None = None
    """Milliseconds since the epoch, server's clock."""
    status_update_time: int | None = None
    """Milliseconds since the epoch, server's clock: when the status last changed."""
    completed_at: int | None = None
    """Milliseconds since the epoch, server's clock; None before the end."""
    retry_count: int | None = None
    """Attempts that the service has repeated by itself; None where it did not say."""
    max_retries: int | None = None
    """How many it would repeat; None where it did not say."""
    enhanced_prompt: str | None = None
    """The prompt as rewritten by the service."""
    images: tuple[SourceImage, ...] = ()
    """The source images and how far they are."""
    req: GenerationRequest | None = None
    """What the service understood of the request."""
    video_generation_id: str | None = None
    """The upstream's handle of the generation."""
    video_generation_status: str | None = None
    """``MEDIA_GENERATION_STATUS_…``, the upstream's state of the generation."""
    video_media_id: str | None = None
    """The upstream's handle of the video."""
    video_url: str | None = None
    """The plain video; None until it is there."""
    upsample_generation_id: str | None = None
    """The upstream's handle of the upsampling."""
    upsample_status: str | None = None
    """``MEDIA_GENERATION_STATUS_…``, the upstream's state of the upsampling."""
    upsample_video_url: str | None = None
    """The upsampled video; None until it is there, or where none was asked for."""
    error_message: str | None = None
    """What went wrong in some attempt; it stays even when a later attempt succeeds."""
    video_generation_error: str | None = None
    """The upstream's reason; it stays even when a later attempt succeeds."""
    upsample_error: str | None = None
    """What went wrong in the upsampling; it stays even when a later attempt succeeds."""
    error: str | None = None
    """The service's words where it gave the task up; where it sent an object, that one's message,
    and the object is in ``extra``."""
    needs_safe_enhancement: bool | None = None
    """Whether an attempt was refused as unsafe."""
    error_sleep: int | None = None
    """Milliseconds that the service waits before its next attempt."""
    start_image_media_id: str | None = msgspec.field(default=None, name="startImageMediaId")
    """The upstream's handle of the first image, on the wire ``startImageMediaId``."""
    end_image_media_id: str | None = msgspec.field(default=None, name="endImageMediaId")
    """The same of the last image, on the wire ``endImageMediaId``."""
    veo3_start_image_media_id: str | None = msgspec.field(
        default=None, name="veo3StartImageMediaId"
    )
    """The same of the first image for veo3, on the wire ``veo3StartImageMediaId``."""
    reference_image_media_ids: tuple[str, ...] = msgspec.field(
        default=(), name="referenceImageMediaIds"
    )
    """The same of further images, on the wire ``referenceImageMediaIds``."""
    extra: dict[str, Any] = {}
    """Fields that the API's page does not name, and values of a type it does not allow."""

    @property
    def best_url(self) -> str | None:
        """The upsampled video where there is one, else the plain one, else None."""
        return self.upsample_video_url or self.video_url

    @property
    def is_final(self) -> bool:
        """Whether the service says in this reply how the task ended, and nothing follows."""
        return self.phase in FINAL

    @property
    def failure_kind(self) -> FailureReason | None:
        """What kind of reason the service gives for a failure of the task or of an attempt.

        None where nothing has failed. `TaskFailed.reason` is the same.
        """
        if self.failure_reason is None and self.phase is not Phase.FAILED:
            return None
        failed = [image.error for image in self.images if image.error]
        if self.failure_reason is not None and self.failure_reason in failed:
            kind = failure_reason_of([self.failure_reason])
            return kind if kind is FailureReason.MODERATION else FailureReason.IMAGE
        kind = failure_reason_of(self._said_of_failure())
        if kind is FailureReason.UNKNOWN and (failed or self._has_failed_image):
            return FailureReason.IMAGE
        if kind is FailureReason.UNKNOWN and self.needs_safe_enhancement:
            return FailureReason.MODERATION
        return kind

    def _said_of_failure(self) -> Iterator[str]:
        """Yield what the service says of a failure, the most telling first."""
        yield from filter(None, (self.failure_reason, self.error))
        error = self.extra.get("error")
        if isinstance(error, dict):
            yield from (v for v in error.values() if isinstance(v, str))
        yield from (
            value
            for name, value in self.extra.items()
            if isinstance(value, str) and ("error" in name or "code" in name)
        )
        others = (self.video_generation_error, self.upsample_error, self.error_message)
        yield from filter(None, others)

    @property
    def _has_failed_image(self) -> bool:
        return any(image.status.lower() == "failed" for image in self.images)

    @property
    def created_datetime(self) -> datetime.datetime | None:
        """``created_at`` as a moment in UTC; None where it is not known."""
        return _datetime(self.created_at, 1000)

    @property
    def status_update_datetime(self) -> datetime.datetime | None:
        """``status_update_time`` as a moment in UTC; None where it is not known."""
        return _datetime(self.status_update_time, 1000)

    @property
    def completed_datetime(self) -> datetime.datetime | None:
        """``completed_at`` as a moment in UTC; None where it is not known."""
        return _datetime(self.completed_at, 1000)

    def __repr__(self) -> str:
        return f"VideoTask({', '.join(f'{name}={value!r}' for name, value in self._facts())}, …)"

    def _repr_html_(self) -> str:
        return facts_html(self._facts(), video=self.best_url)

    def _facts(self) -> list[tuple[str, object]]:
        """Return what a person wants to know of it; the other fields are there to be asked for."""
        facts = {
            "id": self.id,
            "phase": self.phase.value,
            "status": self.status,
            "failure_reason": self.failure_reason,
            "best_url": self.best_url,
        }
        return [(name, value) for name, value in facts.items() if value is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return the task as a dict that can be written as JSON, by its names on the wire."""
        return _to_dict(self)


class Transition(ForPydantic, msgspec.Struct, frozen=True, kw_only=True):
    """One change of one task, as a watch yields it."""

    request_id: str
    """The id that was watched."""
    phase: Phase
    """Where the task is now."""
    previous: Phase | None
    """The phase of the transition before, or None for the first."""
    status: str
    """The service's own word, unchanged; empty where it never said one."""
    task: VideoTask
    """The state that the change was seen in; for an id that never answered, only its id."""
    observed_at: float
    """Seconds since the epoch of this machine's clock."""
    final: bool
    """True exactly once for an id, and nothing follows."""
    eta: float | None = None
    """Seconds that are left by what was learned so far; None where nothing is known."""
    eta_range: tuple[float, float] | None = None
    """Between how many seconds that is in 8 of 10 tasks; None where that is not known."""
    eta_is_guess: bool = False
    """Whether it comes from documented durations, for nothing was learned of the model yet."""
    error: Veo3Error | None = None
    """Why a final transition has no video; None where it has one."""
    metadata: Any = None
    """What the program attached to the task when it was submitted, as JSON has it; or None."""

    @property
    def observed_datetime(self) -> datetime.datetime:
        """``observed_at`` as a moment in UTC."""
        return datetime.datetime.fromtimestamp(self.observed_at, datetime.UTC)

    def to_dict(self) -> dict[str, Any]:
        """Return the transition as a dict that can be written as JSON.

        ``url`` is the best video so far, and ``error`` has ``type`` and ``message``, and of a
        `TaskFailed` its ``reason``.
        """
        return _to_dict(self) | {"url": self.task.best_url}

    def _repr_html_(self) -> str:
        before = "" if self.previous is None else f"{self.previous.value} → "
        facts = (
            ("id", self.request_id),
            ("phase", before + self.phase.value),
            ("status", self.status),
            ("left", None if self.eta is None else f"{self.eta:.0f} s"),
            ("error", self.error),
        )
        return facts_html(facts, video=self.task.best_url if self.final else None)


def _to_dict(value: msgspec.Struct) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.to_builtins(value, enc_hook=_error_to_dict)
    return content


def _error_to_dict(value: object) -> object:
    if not isinstance(value, Veo3Error):
        message = f"no JSON is known for {type(value).__name__}"
        raise NotImplementedError(message)
    reason = {"reason": value.reason.value} if isinstance(value, TaskFailed) else {}
    return {"type": type(value).__name__, "message": value.message} | reason


def _datetime(value: int | None, units: int) -> datetime.datetime | None:
    try:
        return (
            None if value is None else datetime.datetime.fromtimestamp(value / units, datetime.UTC)
        )
    except (OverflowError, OSError, ValueError):  # a server may write any number
        return None


FINAL: Final = frozenset({Phase.COMPLETED, Phase.COMPLETED_PLAIN, Phase.FAILED, Phase.LOST})
