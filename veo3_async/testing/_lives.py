"""The life of a task as a value: what is said of it, and for how long.

A `Life` is a row of stages. A stage ends after its seconds, or once it has been told in so many
polls; the last one never ends. The documented times are those of the wire samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from veo3_async.testing._faults import Body, Fault

if TYPE_CHECKING:
    from random import Random

__all__ = ["Life", "Position", "Scripted", "Stage", "advance", "fields_at"]

Scripted = Mapping[str, Any] | bytes | tuple[int, "Mapping[str, Any] | bytes"] | Fault
"""One reply of a script: a JSON object, raw bytes, either with an HTTP status, or a fault."""

_Says = dict[str, Any] | Fault


class Stage(msgspec.Struct, frozen=True):
    """One state that a task is in."""

    says: _Says
    """Fields that change with this stage and stay until changed again, or a fault.

    True in ``video_url``, ``upsample_video_url``, ``completed_at`` or a media id of an image stands
    for the server's own; a text in ``images`` is the status of every source image."""
    seconds: float | None = None
    """How long it lasts at speed 1, or None where no time ends it."""
    polls: int | None = None
    """How many polls are told of it before it ends, or None where no poll ends it."""

    def __post_init__(self) -> None:
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds >= 0):
            message = f"seconds is a finite number of at least 0, not {self.seconds!r}"
            raise ValueError(message)
        if self.polls is not None and self.polls < 1:
            message = f"polls is at least 1, not {self.polls!r}"
            raise ValueError(message)


class Life(msgspec.Struct, frozen=True):
    """What becomes of one task, from the moment it is known to the server.

    :raises ValueError: There is no stage, or one before the last never ends.
    """

    stages: tuple[Stage, ...]
    """In order; the last one stays for ever."""
    upsample: bool = True
    """What ``req.enable_upsample`` says."""

    def __post_init__(self) -> None:
        if not self.stages:
            message = "a life has at least one stage"
            raise ValueError(message)
        if any(stage.seconds is None and stage.polls is None for stage in self.stages[:-1]):
            message = "every stage but the last has seconds or polls"
            raise ValueError(message)

    @property
    def duration(self) -> float | None:
        """Seconds until the last stage at speed 1, or None where it depends on the polls."""
        stages = self.stages[:-1]
        if any(stage.polls is not None for stage in stages):
            return None
        return sum(stage.seconds or 0.0 for stage in stages)

    @classmethod
    def documented(cls) -> Life:
        """Return the life of the wire page, every word of it: upsampled video after 334.692 s."""
        return cls((*_beginning(220.0), *_ending(), Stage(_FINISHED | _UPSAMPLED)))

    @classmethod
    def plain(cls) -> Life:
        """Return a life without upsampling: video after 231 s."""
        return cls((*_beginning(220.0), Stage(_GENERATED | _FINISHED)), upsample=False)

    @classmethod
    def pooled(cls) -> Life:
        """Return a life like the documented one, in which no worker holds the task half the time.

        Before and after each stage it waits in the pool, with ``running: false`` beside a word that
        is not final; the upsampled video is there after 334.692 s.
        """
        stages = cls.documented().stages
        return cls((*(half for stage in stages[:-1] for half in _halves(stage)), stages[-1]))

    @classmethod
    def failing(cls) -> Life:
        """Return a life that the service gives up after 120 s."""
        return cls((*_beginning(109.0), Stage(_FAILED)))

    @classmethod
    def retrying(cls, n: int = 1) -> Life:
        """Return a life in which the service repeats the generation by itself, then succeeds.

        Every failed attempt is shown for 5 s with ``running: false``, the last one as refused for
        safety; its errors stay in the completed reply.

        :param n: Failed attempts, 1 to 3 (the ``max_retries`` of the wire page).
        :raises ValueError: ``n`` is out of range.
        """
        if not 1 <= n <= _MAX_RETRIES:
            message = f"n is between 1 and {_MAX_RETRIES}, not {n!r}"
            raise ValueError(message)
        attempts = [
            stage
            for attempt in range(1, n + 1)
            for stage in (
                Stage(
                    _ATTEMPT_FAILED
                    | {"retry_count": attempt, "running": False}
                    | (_OVERLOADED if attempt < n else _UNSAFE),
                    5.0,
                ),
                Stage(_GENERATING | {"running": True}, 85.0),
            )
        ]
        return cls((*_beginning(85.0), *attempts, *_ending(), Stage(_FINISHED | _UPSAMPLED)))

    @classmethod
    def upsample_failing(cls) -> Life:
        """Return a life whose upsampling fails: the plain video after 231 s, the end after 345 s.

        The attempt is shown as failed at 290 s, with ``running: false``, and that is no end.
        """
        generated, upsampling, _ = _ending()
        shorter = msgspec.structs.replace(upsampling, seconds=52.0)
        failed = Stage(_UPSAMPLE_FAILED, 55.0)
        return cls(
            (
                *_beginning(220.0),
                generated,
                shorter,
                failed,
                Stage(_FINISHED | {"error_sleep": None}),
            )
        )

    @classmethod
    def scripted(cls, replies: Iterable[Scripted]) -> Life:
        """Return a life of these replies, exactly as given: one a poll, the last one repeats.

        :raises ValueError: There is no reply.
        """
        return cls(tuple(Stage(_verbatim(reply), polls=1) for reply in replies))

    @classmethod
    def random(cls, rng: Random) -> Life:
        """Return the documented life with each stage stretched at random, by 1 in the median."""
        return cls.documented().stretched(rng)

    @classmethod
    def mixed(cls, rng: Random) -> Life:
        """Return a stretched life of any kind, 70 of 100 as documented.

        10 have no upsampling, 10 have retries, 5 fail in the upsampling and 5 for good.
        """
        shares = [share for share, _ in _MIXTURE]
        (_, life), *_ = rng.choices(_MIXTURE, shares)
        return life().stretched(rng)

    def stretched(self, rng: Random, sigma: float = 0.35) -> Life:
        """Return this life with every duration multiplied by a lognormal random number.

        :param sigma: Standard deviation of its logarithm; the median is 1.
        """
        stages = tuple(
            msgspec.structs.replace(stage, seconds=stage.seconds * rng.lognormvariate(0.0, sigma))
            if stage.seconds is not None
            else stage
            for stage in self.stages
        )
        return msgspec.structs.replace(self, stages=stages)


class Position(msgspec.Struct, frozen=True):
    """Where in its life a task is."""

    since: float
    """When it came into the stage, on the loop's clock."""
    index: int = 0
    """The stage."""
    told: int = 0
    """Polls that were told of the stage."""


def advance(life: Life, position: Position, now: float, speed: float) -> Position:
    """Return where a task is at a poll, this poll counted."""
    index, since, told = position.index, position.since, position.told
    while index + 1 < len(life.stages):
        stage = life.stages[index]
        if stage.polls is not None and told >= stage.polls:
            ended = now
        elif stage.seconds is not None and since + stage.seconds / speed <= now:
            ended = since + stage.seconds / speed
        else:
            break
        index, since, told = index + 1, ended, 0
    return Position(since, index, told + 1)


def fields_at(life: Life, index: int) -> dict[str, Any]:
    """Return what all stages up to this one have changed."""
    fields: dict[str, Any] = {}
    for stage in life.stages[: index + 1]:
        if isinstance(stage.says, dict):
            fields |= stage.says
    return fields


def _verbatim(reply: Scripted) -> Fault:
    code = 200
    if isinstance(reply, tuple):
        code, reply = reply
    if isinstance(reply, Mapping):
        reply = msgspec.json.encode(dict(reply))
    return Body(reply, code) if isinstance(reply, bytes) else reply


def _halves(stage: Stage) -> tuple[Stage, Stage]:
    assert stage.seconds is not None  # noqa: S101 - only the last has none
    says = stage.says if isinstance(stage.says, dict) else {}
    half = stage.seconds / 2
    return Stage(says | {"running": False}, half), Stage(says | {"running": True}, half)


def _beginning(generating: float) -> tuple[Stage, ...]:
    return (
        Stage({"status": "pending", "running": False}, 0.9),
        Stage({"status": "prompt_enhancement_checking", "running": True}, 0.8),
        Stage({"status": "prompt_enhancing"}, 2.5),
        Stage(
            {
                "status": "image_downloading",
                "images": "downloading",
                "enhanced_prompt": _ENHANCED,
            },
            1.4,
        ),
        Stage({"status": "image_cropping", "images": "cropping"}, 1.3),
        Stage({"status": "image_uploading", "images": "uploading"}, 2.9),
        Stage(_IMAGES_THERE, 1.2),
        Stage(_GENERATING, generating),
    )


def _ending() -> tuple[Stage, Stage, Stage]:
    return (
        Stage(_GENERATED | {"status": "video_generation_completed"}, 7.0),
        Stage(
            {
                "status": "video_upsampling",
                "upsample_generation_id": "0a9372c6cadefb243e036aa4b0b22ca3",
                "upsample_status": _WAITING,
            },
            93.0,
        ),
        Stage({"status": "video_upsampling_completed", "upsample_status": _DONE}, 3.692),
    )


# What the samples say at each stage. The long texts make a finished reply as big as the real one.

_MAX_RETRIES: Final = 3
_ACTIVE: Final = "MEDIA_GENERATION_STATUS_ACTIVE"
_BROKEN: Final = "MEDIA_GENERATION_STATUS_FAILED"
_DONE: Final = "MEDIA_GENERATION_STATUS_SUCCESSFUL"
_WAITING: Final = "MEDIA_GENERATION_STATUS_PENDING"
_ENHANCED: Final = (
    "A vibrant, cinematic scene unfolds in a bustling ancient marketplace at golden hour, bathed "
    "in warm, honeyed sunlight. Stalls overflow with colorful spices, shimmering silks, and "
    "gleaming pottery, their rich reds, golds, and blues popping against weathered stone walls. "
    "The air hums with energy—merchants haggling, fabrics rustling, and distant flute melodies. A "
    "gentle breeze carries dust motes, glowing in the soft light. The camera glides low through "
    "the crowd, weaving between flowing robes, then tilts upward to capture towering minarets "
    "piercing a pastel sunset sky. Flickering lanterns cast a warm glow as evening creeps in. The "
    "atmosphere is lively yet mystical, rendered in a painterly, hyper-realistic style with "
    "intricate textures and subtle lens flares, evoking a timeless, epic tale."
)
_IMAGES_THERE: Final[dict[str, Any]] = {
    "status": "image_processing_completed",
    "images": "completed",
    "startImageMediaId": True,
    "veo3StartImageMediaId": True,
}
_GENERATING: Final[dict[str, Any]] = {
    "status": "video_generating",
    "video_generation_id": "d05cd3a20b973aac3e036aa4b0b22ca3",
    "video_generation_status": _ACTIVE,
}
_GENERATED: Final[dict[str, Any]] = {
    "video_generation_status": _DONE,
    "video_media_id": (
        "CAUSJDczNGNkMTI3LTY4NjktNGJkZC1hZmE3LTYyZmY5MzIxMjEyYxokMzIxMWEyNzItNDg1Yy00ZTY4LWE1Mzkt"
        "OGE2YWRkZGJiNjU1IgNDQUUqJDMyYWZhYzE0LWIyNGQtNGJjNC1hMTEzLTU5NTMzODFjZGU0ZA"
    ),
    "video_url": True,
}
_UPSAMPLED: Final[dict[str, Any]] = {"upsample_status": _DONE, "upsample_video_url": True}
_END: Final[dict[str, Any]] = {"running": False, "completed_at": True}
_FINISHED: Final[dict[str, Any]] = _END | {"status": "completed"}
_UPSAMPLE_FAILED: Final[dict[str, Any]] = {
    "status": "video_upsampling_failed",
    "running": False,
    "upsample_status": _BROKEN,
    "upsample_error": "upsampling timed out",
    "error_sleep": 5000,
}
_OVERLOADED: Final[dict[str, Any]] = {
    "error_message": "[503] upstream overloaded",
    "error_sleep": 5000,
}
_UNSAFE: Final[dict[str, Any]] = {
    "error_sleep": 5000,
    "needs_safe_enhancement": True,
    "error_message": "[403] evaluation failed",
    "video_generation_error": "your request contains unsafe prompt or images",
}
_ATTEMPT_FAILED: Final[dict[str, Any]] = {
    "status": "video_generation_failed",
    "video_generation_status": _BROKEN,
}
_FAILED: Final[dict[str, Any]] = _END | {
    "status": "failed",
    "retry_count": _MAX_RETRIES,
    "video_generation_status": _BROKEN,
    "error_message": "[400] rejected",
    "video_generation_error": "your request contains unsafe prompt or images",
    "needs_safe_enhancement": True,
}

_MIXTURE: Final[tuple[tuple[int, Callable[[], Life]], ...]] = (
    (70, Life.documented),
    (10, Life.plain),
    (6, Life.retrying),
    (4, lambda: Life.retrying(_MAX_RETRIES)),
    (5, Life.upsample_failing),
    (5, Life.failing),
)
