"""Whole lives of the wire page, with the phases that its rules say."""

from __future__ import annotations

from typing import Any, Final

from watching import UPSAMPLED, sample, says

from veo3_async._models import Phase, VideoTask

__all__ = ["DOCUMENTED", "GENERATING", "LIVES", "PENDING"]

Q, P, G, D, U = (
    Phase.QUEUED,
    Phase.PREPARING,
    Phase.GENERATING,
    Phase.GENERATED,
    Phase.UPSAMPLING,
)
R, X, C, CP, F = (
    Phase.RETRYING,
    Phase.UNKNOWN,
    Phase.COMPLETED,
    Phase.COMPLETED_PLAIN,
    Phase.FAILED,
)

DOCUMENTED: Final = tuple(
    sample(f"record_{name}")
    for name in (
        *("pending", "prompt_enhancement_checking", "prompt_enhancing", "image_downloading"),
        *("image_cropping", "image_uploading", "image_processing_completed"),
        *("video_generating_in_pool", "video_generating", "video_generation_completed"),
        *("video_generation_completed_in_pool", "video_upsampling", "video_upsampling_completed"),
        "completed_after_retries",
    )
)
PENDING, GENERATING = DOCUMENTED[0], DOCUMENTED[8]
GENERATED, UPSAMPLING = DOCUMENTED[9], DOCUMENTED[11]
NOT_UPSAMPLED: Final[dict[str, Any]] = {"wants_upsample": False}

LIVES: Final[dict[str, tuple[tuple[VideoTask, ...], list[Phase], list[Phase]]]] = {
    # its replies, what comes out under "best", and under "video"
    "documented": (DOCUMENTED, [Q, P, G, D, U, C], [Q, P, G, C]),
    "minimal": (
        (
            sample("record_pending_minimal"),
            sample("record_image_downloading_minimal"),
            sample("record_completed_text"),
        ),
        [Q, P, C],
        [Q, P, C],
    ),
    "without upsampling": (
        (
            sample("record_pending", **NOT_UPSAMPLED),
            sample("record_video_generating", **NOT_UPSAMPLED),
            sample("record_completed_without_upsample"),
        ),
        [Q, G, C],
        [Q, G, C],
    ),
    "failing": ((PENDING, GENERATING, sample("record_failed")), [Q, G, F], [Q, G, F]),
    "an image that cannot be fetched": (
        (PENDING, sample("record_image_failed"), sample("record_failed_image")),
        [Q, P, F],
        [Q, P, F],
    ),
    "retrying": (
        (
            PENDING,
            GENERATING,
            sample("record_video_generation_failed_running"),
            says("video_generating", 97_000, retry_count=1),
            sample("record_video_generation_failed_last_attempt"),
            says("prompt_enhancing", 403_000, retry_count=3),
            says("video_generating", 404_000, retry_count=3),
            says("completed", 500_000, retry_count=3, upsample_video_url=UPSAMPLED),
        ),
        [Q, G, R, G, R, P, G, C],
        [Q, G, R, G, R, P, G, C],
    ),
    "upsampling fails": (
        (
            PENDING,
            GENERATED,
            UPSAMPLING,
            sample("record_video_upsampling_failed"),
            sample("record_completed_plain_only"),
        ),
        [Q, D, U, R, CP],
        [Q, C],
    ),
    "upsampling is tried again": (
        (UPSAMPLING, sample("record_video_upsampling_failed"), sample("record_completed_in_data")),
        [U, R, C],
        [C],
    ),
    "given up with the plain video": (
        (PENDING, GENERATING, sample("record_failed_with_plain_video")),
        [Q, G, CP],
        [Q, G, C],
    ),
    "something new": (
        (PENDING, GENERATING, sample("record_unknown_status"), sample("record_completed_text")),
        [Q, G, X, C],
        [Q, G, C],
    ),
    "seen at its end only": ((sample("completed"),), [C], [C]),
    "in seconds": ((GENERATING, sample("record_completed_seconds")), [G, C], [G, C]),
    "under another id": ((GENERATING, sample("record_completed_other_id")), [G, C], [G, C]),
}
