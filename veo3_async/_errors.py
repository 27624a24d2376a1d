"""Everything that can go wrong, split by who must act.

::

    Veo3Error
    ├── the caller
    │   ├── InvalidRequest          the id, the prompt or the image is wrong
    │   ├── TaskNotFound            the service does not know the id
    │   ├── StillPending            the caller's own timeout (also a TimeoutError)
    │   └── ClientClosed            the client is used after its end, or in another loop
    ├── the owner of the key
    │   └── AuthenticationError     the key is missing, refused, expired or disabled
    ├── the payer
    │   └── QuotaExceeded           the balance or a quota is used up
    ├── the makers of the video
    │   ├── TaskFailed              the service gave the task up
    │   └── CompletedWithoutVideo   the service says completed and has no video
    ├── nobody, or the operator of the network
    │   ├── ServiceUnavailable      the service cannot be reached or is overloaded
    │   └── UnexpectedReply         what answers is not the API
    ├── a person who can look at the account
    │   └── SubmitUncertain         a submission may or may not have arrived
    └── the owner of the machine
        ├── DownloadError           the video could not be brought to disk
        │   └── FileInTheWay        a file that is not this video has its name
        └── JournalError            the journal cannot be written or read
"""

from __future__ import annotations

import copy
import enum
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Self

from veo3_async._text import one_line

if TYPE_CHECKING:
    from veo3_async._models import VideoTask

__all__ = [
    "AuthenticationError",
    "ClientClosed",
    "CompletedWithoutVideo",
    "DownloadError",
    "FileInTheWay",
    "InvalidRequest",
    "JournalError",
    "QuotaExceeded",
    "ServiceUnavailable",
    "StillPending",
    "SubmitUncertain",
    "TaskFailed",
    "TaskNotFound",
    "UnexpectedReply",
    "Veo3Error",
]

_LONGEST_MESSAGE: Final = 10_000  # with the longest URL in it


class FailureReason(enum.StrEnum):
    """Why the service gave a task up, as far as its words tell."""

    MODERATION = "moderation"
    """Prompt, image or video was refused for its content: another prompt may pass."""
    IMAGE = "image"
    """A source image could not be fetched or used: another image may pass."""
    INTERNAL = "internal"
    """Trouble of the service or of those behind it: the same may pass at another time."""
    UNKNOWN = "unknown"
    """It gave no reason, or one that is none of these."""


_WORDS_OF_REASON: Final = (
    (
        FailureReason.MODERATION,
        re.compile(
            r"unsafe|safety|moderat|polic(?:y|ies)|inappropriate|flagged|sensitive|prohibited|nsfw"
            r"|violat|data ?inspection|harmful|explicit|copyright|filtered|content filter"
            r"|敏感|违规|违禁|审核|不当|不安全|色情|暴力|ポリシー|不適切"
        ),
    ),
    (FailureReason.IMAGE, re.compile(r"\bimages?\b|\bimg\b|mediaid|\bpicture|图片|图像|画像")),
    (
        FailureReason.INTERNAL,
        re.compile(
            r"internal|time ?d? ?out|timeout|overload|saturat|network|connection|unavailable"
            r"|upstream|capacity|rate ?limit|too many|try again|permission denied"
            r"|evaluation failed|\b5\d\d\b|server error|exception|异常|繁忙|负载|超时|稍后|重试"
        ),
    ),
)
"""What services and gateways write, in the order in which it counts: "unsafe prompt or images" is
about content."""


def failure_reason_of(said: Iterable[str]) -> FailureReason:
    """Return the reason that the first text with one gives.

    :param said: What the service says of a failure, the most telling first.
    """
    for text in said:
        words = text.lower().replace("_", " ")
        for reason, pattern in _WORDS_OF_REASON:
            if pattern.search(words):
                return reason
    return FailureReason.UNKNOWN


class Veo3Error(Exception):
    """Base of all errors of this package; carries what was known when it happened.

    :param message: One sentence for a person: what happened and what to do; white space and
        control characters in it are replaced, so that it is one line wherever it is written.
    :param request_id: The task it is about, or None where it is about the client.
    :param http_status: Status of the last reply, or None where none came.
    :param err_code: The gateway's own code (such as ``-10004``), or None.
    :param attempts: Physical requests made for this task so far.
    :param elapsed: Seconds from the first of them to the error, or None.
    :param task: The last state that was seen of the task, or None.
    :param body: The first 2 kB of a reply that made no sense, or None.

    Instances can be pickled and copied; the API key is never part of one.
    """

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        http_status: int | None = None,
        err_code: int | None = None,
        attempts: int = 0,
        elapsed: float | None = None,
        task: VideoTask | None = None,
        body: str | None = None,
    ) -> None:
        # Much of it was written by servers, and goes into logs, of which it must forge no line.
        message = one_line(message, _LONGEST_MESSAGE)
        super().__init__(message)
        self.message = message
        self.request_id = request_id
        self.http_status = http_status
        self.err_code = err_code
        self.attempts = attempts
        self.elapsed = elapsed
        self.task = task
        self.body = body

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message,), self.__dict__.copy()

    def with_evidence(
        self, *, http_status: int | None, attempts: int, elapsed: float | None
    ) -> Self:
        """Return the same error with what is known of the request that showed it."""
        error = copy.copy(self)
        error.http_status, error.attempts, error.elapsed = http_status, attempts, elapsed
        return error

    def __str__(self) -> str:
        evidence = [
            f"{name} {value if str(value).isprintable() else ascii(value)}"
            for name, value in (
                ("request", self.request_id),
                ("HTTP", self.http_status),
                ("err_code", self.err_code),
            )
            if value is not None
        ]
        return f"{self.message} ({', '.join(evidence)})" if evidence else self.message


class InvalidRequest(Veo3Error):
    """Raised when an id, a prompt or an option is wrong, by our check or by the service's (400)."""


class TaskNotFound(Veo3Error):
    """Raised when the service does not know an id: by a watch after 30 s of that, else at once."""


class StillPending(Veo3Error, TimeoutError):
    """Raised when the caller's own timeout ran out; the task goes on and can be watched again."""


class ClientClosed(Veo3Error):
    """Raised when the client was closed, or is used from another event loop or process."""


class AuthenticationError(Veo3Error):
    """Raised when the API key is missing, malformed, refused, expired or disabled."""


class QuotaExceeded(Veo3Error):
    """Raised when the balance or a quota of the key is used up; the tasks stay pending."""


class TaskFailed(Veo3Error):
    """Raised when the service gave a task up; ``task`` has its words, and ``reason`` what kind."""

    @property
    def reason(self) -> FailureReason:
        """Whose doing it was, told by the service's words: content, image, or its own trouble."""
        known = None if self.task is None else self.task.failure_kind
        if known not in {None, FailureReason.UNKNOWN}:
            return known
        return failure_reason_of([self.message])


class CompletedWithoutVideo(Veo3Error):
    """Raised when a task has been completed for 60 s and still has no video URL."""


class ServiceUnavailable(Veo3Error):
    """Raised when the service cannot be reached, is overloaded, or cannot prove who it is."""


class UnexpectedReply(Veo3Error):
    """Raised when what answers is not the API; ``body`` has the evidence."""


class SubmitUncertain(Veo3Error):
    """Raised when a submission may have arrived: the task may exist and may have been charged."""


class DownloadError(Veo3Error):
    """Raised when a video could not be brought to disk whole."""


class FileInTheWay(DownloadError):
    """Raised when a file that is not this video is where it, or its ``.part``, would be."""


class JournalError(Veo3Error):
    """Raised when the journal cannot be opened, written or read; the message says what to do."""
