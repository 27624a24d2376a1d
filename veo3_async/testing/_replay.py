"""A recording of a client (``Veo3Client(record=…)``), played again: a bug report becomes a test."""

from __future__ import annotations

import base64
import math
import os
import pathlib
import urllib.parse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from veo3_async.testing._account import is_account
from veo3_async.testing._dialects import find
from veo3_async.testing._faults import Body, Fault, HangUp, Silence
from veo3_async.testing._replies import Answer, refusal, replacement
from veo3_async.testing._requests import Outcome

if TYPE_CHECKING:
    from veo3_async.testing._requests import Received

__all__ = ["Replay"]

_NEVER_ARRIVED: Final = frozenset(
    {"connect", "dns", "local", "session", "certificate", "cancelled"}
)
_SENT_ANEW: Final = frozenset({"connection", "content-length", "transfer-encoding"})


class _Line(msgspec.Struct, frozen=True):
    """What a line of a recording says of one request."""

    at: float
    method: str
    path: str
    status: int | None = None
    headers: dict[str, str] = {}
    body: str | None = None
    base64: bool = False
    error: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells its requests from others: method, path, and the id of a task."""
        path, _, query = self.path.partition("?")
        path = urllib.parse.unquote(path)
        return self.method, path, _request_id(path, query)

    def outcome(self) -> Outcome:
        """Return what the same request gets again."""
        fault: Fault | None = None
        if self.error is not None:
            fault = Silence() if self.error == "timeout" else HangUp(reset=self.error == "reset")
            if self.status is not None:  # it came, and was no reply to anything
                return Outcome(replacement(Body.empty(self.status)))
        body = (self.body or "").encode()
        if self.base64:
            body = base64.b64decode(body)
        headers = {n: v for n, v in self.headers.items() if n.lower() not in _SENT_ANEW}
        return Outcome(Answer(self.status or 200, headers, body), fault)


class _Part:
    """The requests of one kind, in order."""

    def __init__(self) -> None:
        self.lines: Final[list[_Line]] = []
        self.at = -1
        """The one that was answered last."""


class Replay:
    """What a recording answers.

    Each request gets the replies that it got, in their order: the next one where its moment has
    come by the clock of the recording, else the last one again. A submission gets the next at once.

    :param file: The recording; `load` reads it.
    :param speed: How much faster its clock runs; ``math.inf`` goes on with every request.
    :raises ValueError: The speed is not above 0.
    """

    def __init__(self, file: str | os.PathLike[str], speed: float) -> None:
        if not speed > 0:
            message = f"speed is above 0, not {speed!r}"
            raise ValueError(message)
        self._file: Final = file
        self._speed: Final = speed
        self._began_at = 0.0
        self._started: float | None = None
        self._parts: Final[dict[tuple[str, str, str], _Part]] = {}

    @property
    def ids(self) -> list[str]:
        """The ids of the tasks that were asked for; empty before it is loaded."""
        return list(dict.fromkeys(request_id for _, _, request_id in self._parts if request_id))

    def load(self) -> None:
        """Read the file; not to be called on an event loop. May be repeated.

        :raises ValueError: There is no request in it.
        :raises OSError: It cannot be read.
        """
        if self._parts:
            return
        lines = _lines(pathlib.Path(self._file).read_bytes())
        if not lines:
            message = f"{self._file} has no request in it; is it what record= has written?"
            raise ValueError(message)
        self._began_at = lines[0].at
        for line in lines:
            self._parts.setdefault(line.key, _Part()).lines.append(line)

    def answer(self, request: Received) -> Outcome:
        """Return what a request gets."""
        if self._started is None:
            self._started = request.at
        query = request.target.partition("?")[2]
        key = request.method, request.path, _request_id(request.path, query)
        part = self._parts.get(key)
        if part is None:
            return Outcome(refusal(404, -10010, "the recording has no reply to that"))
        if self._goes_on(part, request.at - self._started, request.method):
            part.at += 1
        if part.at >= len(part.lines):
            return Outcome(refusal(404, -10010, "the recording has no more replies to that"))
        return part.lines[part.at].outcome()

    def _goes_on(self, part: _Part, elapsed: float, method: str) -> bool:
        following = part.at + 1
        if following == 0 or method == "POST":
            return True
        if following >= len(part.lines):
            return False
        due = part.lines[following].at - self._began_at
        return math.isinf(self._speed) or elapsed * self._speed >= due


def _lines(content: bytes) -> Sequence[_Line]:
    found: list[_Line] = []
    for line in content.splitlines():
        try:
            found.append(msgspec.json.decode(line, type=_Line))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # what the file says of itself
    return [line for line in found if line.error not in _NEVER_ARRIVED]


def _request_id(path: str, query: str) -> str:
    """Return the id of the task that a request is about, empty where it is about none."""
    if is_account(path):
        return ""
    place = find(path)
    in_path = None if place is None else place.request_id
    return in_path or dict(urllib.parse.parse_qsl(query)).get("request_id", "")
