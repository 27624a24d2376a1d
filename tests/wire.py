"""The recorded and constructed replies of the API, and what the client reads in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from veo3_async._models import VideoTask
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.families import Route, read, route_of
from veo3_async._protocol.http import Reply

REPLIES: Final = Path(__file__).parent / "replies"
ID: Final = "veo3-pro:3f2b7a10-5c4d-4e8f-9a1b-2c3d4e5f6071"
WALL: Final = 1_750_855_200.0
RECORD: Final = route_of("veo3-pro")

Content = bytes | str | Mapping[str, Any] | list[Any]


def sample(name: str) -> bytes:
    """Return the bytes of a sample."""
    return (REPLIES / f"{name}.json").read_bytes()


def content(name: str) -> dict[str, Any]:
    """Return a sample as JSON."""
    said: dict[str, Any] = json.loads(sample(name))
    return said


def names(beginning: str) -> list[str]:
    """Return the names of the samples that begin so."""
    return sorted(path.stem for path in REPLIES.glob(f"{beginning}*.json"))


def judged(
    said: Content,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    route: Route = RECORD,
    asked: str = ID,
) -> VideoTask | Problem:
    """Return what a reply means."""
    if not isinstance(said, bytes):
        said = (said if isinstance(said, str) else json.dumps(said)).encode()
    reply = Reply(status, headers or {}, said)
    return read(route, reply, request_id=asked, wall_now=WALL)


def task_of(said: Content, status: int = 200, *, route: Route = RECORD) -> VideoTask:
    """Return the task that a reply must hold."""
    outcome = judged(said, status, route=route)
    assert isinstance(outcome, VideoTask), outcome
    return outcome


def problem_of(
    said: Content,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    route: Route = RECORD,
) -> Problem:
    """Return the problem that a reply must be."""
    outcome = judged(said, status, headers, route=route)
    assert isinstance(outcome, Problem), outcome
    return outcome


def json_of(content: Mapping[str, Any]) -> bytes:
    """Return JSON as a server writes it."""
    return json.dumps(content).encode()
