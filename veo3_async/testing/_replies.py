"""What the gateway says, as values: tasks, refusals, files.

The fields and their order are those of the wire samples; a test holds the two together.
"""

from __future__ import annotations

import http
from typing import Any, Final, Literal

import msgspec

from veo3_async.testing._dialects import Family
from veo3_async.testing._faults import Body, Redirect, Status
from veo3_async.testing._videos import Excerpt, Video, requested_range

__all__ = [
    "Answer",
    "Request",
    "TimeUnit",
    "file_answer",
    "json_answer",
    "refusal",
    "replacement",
    "task_body",
]

IMAGE_URL: Final = "https://file.302.ai/gpt/imgs/20250610/5da3c994668c42908e45d74227f21e17.jpg"
"""The source image of the documented example."""

_MEDIA_ID: Final = (
    "CAMaJGVkOTM3MzM3LWFjMDItNDc1Yi1hNTRjLWFmOTkzZDYxYWJkNSIDQ0FFKiRkODI2NjQ0OC00NjZkLTQzNDItOGI2"
    "ZS02NmJiYmY0NzczZDM"
)

# 302.AI's error table; the wording is the gateway's where it was seen (-10001, -10004, -10008,
# -10010), else the table's.
_MESSAGES: Final[dict[int, str]] = {
    10001: "Invalid API Key",  # the one code without a sign
    -10001: "Missing 302 Apikey",
    -10002: "This tool is disabled or deleted",
    -10003: "Network error, please try again later",
    -10004: "Insufficient account balance",
    -10005: "Account credential expired",
    -10006: "Total quota reached",
    -10007: "The daily quota is reached",
    -10008: "No available channels currently",
    -10009: "Current API function not supported",
    -10010: "Resource not found",
    -10011: "Invalid request",
    -10012: "The hourly quota is reached",
    -10018: "The monthly quota is reached",
    -1024: "AI interface connection timeout, please try again later",
}


class Answer(msgspec.Struct, frozen=True):
    """A whole answer, before anything goes wrong with it."""

    status: int
    headers: dict[str, str]
    body: bytes | Excerpt
    sized: bool = True
    """Whether ``Content-Length`` is sent."""


TimeUnit = Literal["ms", "s"]
"""Unit of the times in a reply: 302.AI's page has milliseconds, gateways of its kind seconds."""

_TIMES: Final = ("created_at", "status_update_time", "completed_at")
_IMAGE_IDS: Final = ("startImageMediaId", "veo3StartImageMediaId")


class Request(msgspec.Struct, frozen=True):
    """What a task was asked to be."""

    model: str
    prompt: str
    images: tuple[str, ...]
    family: Family = "record"
    path: str = "/302/submit/veo3-pro"
    """Where it was posted."""
    webhook: str | None = None


def json_answer(status: int, content: object) -> Answer:
    """Return an answer in JSON."""
    return Answer(status, {"Content-Type": "application/json"}, msgspec.json.encode(content))


def refusal(status: int, err_code: int | None = None, message: str | None = None) -> Answer:
    """Return the gateway's error body.

    :param message: What it says, or None for what the gateway says to that code or status.
    """
    if message is None:
        known = err_code is not None and err_code in _MESSAGES
        message = _MESSAGES[err_code or 0] if known else _reason(status)
    error: dict[str, Any] = {} if err_code is None else {"err_code": err_code}
    kind = "unauthorized" if err_code == 10001 else "api_error"
    error |= {"message": message, "message_cn": "…", "message_jp": "…", "type": kind}
    return json_answer(status, {"error": error})


def replacement(fault: Status | Body | Redirect) -> Answer:
    """Return what is answered in place of the truth."""
    match fault:
        case Status(code, retry_after, err_code):
            answer = refusal(code, err_code)
            if retry_after is not None:
                said = retry_after if isinstance(retry_after, str) else f"{retry_after:g}"
                answer.headers["Retry-After"] = said
            return answer
        case Body(content, code, content_type, encoding):
            headers = {"Content-Type": content_type}
            if encoding is not None:
                headers["Content-Encoding"] = encoding
            return Answer(code, headers, content)
        case Redirect(location, code):
            return Answer(code, {"Location": location}, b"")


def task_body(
    fields: dict[str, Any],
    *,
    request_id: str,
    request: Request,
    upsample: bool,
    created: int,
    updated: int,
    urls: dict[str, str],
    unit: TimeUnit,
) -> dict[str, Any]:
    """Return the state of a task as the wire has it.

    :param fields: What the stages of its life have changed so far.
    :param created: Milliseconds since the epoch; ``updated`` likewise.
    :param urls: The server's own URL for each URL field.
    :param unit: Of the times in the reply.
    """
    body = {
        "id": request_id,
        "status": "pending",
        "running": True,
        "created_at": created,
        "status_update_time": updated,
        **_NOTHING_YET,
        "req": {
            "model": request.model,
            "prompt": request.prompt,
            "images": request.images,
            "enhance_prompt": True,
            "enable_upsample": upsample,
        },
        **fields,
    }
    if isinstance(status := fields.get("images", "pending"), str):
        body["images"] = [_image(url, status) for url in request.images]
    own = {"completed_at": updated, **urls, **dict.fromkeys(_IMAGE_IDS, _MEDIA_ID)}
    told = {name: own.get(name, value) if value is True else value for name, value in body.items()}
    return told | {name: _in_unit(told[name], unit) for name in _TIMES}


def _in_unit(time: object, unit: TimeUnit) -> object:
    return time // 1000 if isinstance(time, int) and unit == "s" else time


def file_answer(video: Video, name: str, *, said: str | None, if_range: str | None) -> Answer:
    """Return a video or the range of it that was asked for.

    :param said: The request's ``Range``, or None; ``if_range`` likewise.
    """
    validator = video.validator(name)
    headers = {"Content-Type": "video/mp4"}
    if validator is not None:
        headers["ETag"] = validator
    if video.ranges:
        headers["Accept-Ranges"] = "bytes"
    # Only a strong validator proves that the parts fit together (RFC 9110, 13.1.5).
    holds = if_range is None or (if_range == validator and video.etag == "strong")
    try:
        span = requested_range(said, video.size) if video.ranges and holds else None
    except ValueError:
        headers = {"Content-Range": f"bytes */{video.size}", "Content-Type": "text/plain"}
        return Answer(http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers, b"")
    if span is None:
        return Answer(200, headers, Excerpt(video, name, 0, video.size), video.sized)
    headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{video.size}"
    return Answer(206, headers, Excerpt(video, name, *span), video.sized)


def _image(url: str, status: str) -> dict[str, str]:
    image = {"url": url, "status": status}
    return image | {"mediaId": _MEDIA_ID} if status == "completed" else image


def _reason(status: int) -> str:
    if status == http.HTTPStatus.TOO_MANY_REQUESTS:
        return "Too many connections"
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


_NOTHING_YET: Final[dict[str, Any]] = {
    "completed_at": None,
    "retry_count": 0,
    "max_retries": 3,
    "enhanced_prompt": None,
    "images": "pending",
    "video_generation_id": None,
    "video_generation_status": None,
    "video_media_id": None,
    "video_url": None,
    "upsample_generation_id": None,
    "upsample_status": None,
    "upsample_video_url": None,
}
