"""How each family of endpoints says what a task is: from a record to its own words.

The gateway knows a task as a record; queue, tasks and unified say the same otherwise. Fields and
their order are those of the wire samples.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

__all__ = [
    "POSTED_AT",
    "RECORD_MODELS",
    "Family",
    "Place",
    "find",
    "said_by",
    "submitted_reply",
    "webhook_body",
]

Family = Literal["record", "queue", "tasks", "unified"]
"""The protocols that the fake speaks."""

RECORD_MODELS: Final = ("veo3-fast", "veo3-fast-frames", "veo3-pro", "veo3-pro-frames")
QUEUE_MODELS: Final = ("veo3", "veo2")

POSTED_AT: Final[dict[Family, str]] = {
    "record": "/302/submit/{model}",
    "queue": "/302/submit/{model}",
    "tasks": "/302/submit/veo3-v2",
    "unified": "/302/v2/video/create",
}
"""Where a task of a family is posted to."""


class Place(msgspec.Struct, frozen=True):
    """What a path means."""

    family: Family
    model: str = ""
    """In the path; empty where the body has it."""
    request_id: str | None = None
    """In the path; None where the query has it."""


_SUBMIT: Final = re.compile(r"/302/submit/([^/]+)")
_BY_PATH: Final[dict[Family, re.Pattern[str]]] = {
    "tasks": re.compile(r"/302/submit/veo3-v2(?:/(.+))?", re.DOTALL),
    "unified": re.compile(r"/302/v2/video/(?:create|fetch/(.+))", re.DOTALL),
}


def find(path: str) -> Place | None:
    """Return which family and model a path is of, None where it is of none."""
    for family, pattern in _BY_PATH.items():
        if found := pattern.fullmatch(path):
            return Place(family, request_id=found[1])
    if (found := _SUBMIT.fullmatch(path)) is None:
        return None
    return Place("queue" if found[1] in QUEUE_MODELS else "record", found[1])


def submitted_reply(family: Family, request_id: str, created: int) -> dict[str, Any]:
    """Return the answer to a POST, but for the record family, which has several.

    :param created: Milliseconds since the epoch.
    """
    match family:
        case "queue":
            waiting = {"queue_position": 0, "request_id": request_id, "status": "IN_QUEUE"}
            return {"logs": None, "metrics": {}, **waiting}
        case "tasks":
            where = "The task has been created, please /v1/veo/tasks/{task_id} query progress"
            return {"data": request_id, "code": "IN_PROGRESS", "message": where}
        case _:
            return {"task_id": request_id, "status": "pending", "created_at": _iso(created)}


def said_by(family: Family, record: dict[str, Any]) -> dict[str, Any]:
    """Return what a family says of a task.

    :param record: The state of it, as the record family says it.
    """
    return _DIALECTS[family](record)


def webhook_body(record: dict[str, Any], http_request_id: str, webhook: str) -> dict[str, Any]:
    """Return what the unified endpoint posts at the end of a task, which names no task.

    :param record: The state of it, as the record family says it.
    :param http_request_id: Of the POST that made it.
    """
    says = _unified(record)
    wanted = ("video_url", "raw_response") if says["video_url"] else ("video_url", "error")
    return {
        "model": says["model"],
        "result": {name: says[name] for name in wanted if name in says},
        "status": says["status"],
        "request_id": http_request_id,
        "webhook": webhook,
    }


def _queue(record: dict[str, Any]) -> dict[str, Any]:
    ended, url = _ended(record), _url(record)
    status = {"completed": "COMPLETED", "failed": "FAILED"}.get(ended or "", "IN_PROGRESS")
    says: dict[str, Any] = {"request_id": record["id"], "status": status}
    if ended == "failed":
        return says | {"error": _reason(record)}
    if record["status"] == "pending":
        return says | {"status": "IN_QUEUE", "queue_position": 3, "logs": None, "metrics": {}}
    says |= {"logs": None, "metrics": {}}
    if not ended or url is None:
        return says
    video = {"url": url, "content_type": "video/mp4", "file_name": "output.mp4"}
    return says | {"video": video | {"file_size": 4194304}, "seed": 12345}


def _tasks(record: dict[str, Any]) -> dict[str, Any]:
    ended = _ended(record)
    status = {"completed": "SUCCESS", "failed": "FAILURE"}.get(ended or "", "IN_PROCESSING")
    return {
        "finishTime": record["completed_at"],
        "startTime": record["created_at"],
        "status": status,
        "taskId": record["id"],
        "videoUrl": (_url(record) or "") if ended == "completed" else "",
    }


def _unified(record: dict[str, Any]) -> dict[str, Any]:
    ended = _ended(record)
    running = "pending" if record["status"] == "pending" else "processing"
    request = record["req"]
    says: dict[str, Any] = {
        "task_id": record["id"],
        "status": ended or running,
        "model": request["model"],
        "mode": "i2v" if request["images"] else "t2v",
        "req": {"model": request["model"], "prompt": request["prompt"]},
        "attempts": record["retry_count"] + 1,
        "created_at": _iso(record["created_at"]),
        "updated_at": _iso(record["status_update_time"]),
        "webhook": "",
        "video_url": "",
    }
    if request["images"]:
        says["req"]["image"] = list(request["images"])
    if ended == "completed":
        says |= {"completed_at": says["updated_at"], "execution_time": "212.4"}
        raw = {"id": f"up-{record['id']}", "status": "completed", "video_url": _url(record)}
        says |= {"video_url": _url(record) or "", "raw_response": raw}
    if ended == "failed":
        says |= {"failed_at": says["updated_at"], "execution_time": "61.2"}
        says["error"] = {
            "error": "Task failed",
            "message": _reason(record),
            "error_type": "UpstreamError",
            "attempts": says["attempts"],
            "execution_time": "61.2",
            "is_network_error": False,
        }
    return says


def _ended(record: dict[str, Any]) -> Literal["completed", "failed"] | None:
    match record["status"]:
        case "completed":
            return "completed"
        case "failed":
            return "failed"
        case _:
            return None


def _url(record: dict[str, Any]) -> str | None:
    url: str | None = record["upsample_video_url"] or record["video_url"]
    return url


def _reason(record: dict[str, Any]) -> str:
    return str(record.get("video_generation_error") or "generation failed")


def _iso(milliseconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


_DIALECTS: Final[dict[Family, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "record": lambda record: record,
    "queue": _queue,
    "tasks": _tasks,
    "unified": _unified,
}
