"""What the fake gateway answers, decided without I/O: key, rate limit, routes, tasks.

`Gateway.answer` takes a request and the loop's time, and returns the truth and the fault that
meets it. Nothing here grows with the number of tasks but the tasks themselves.
"""

from __future__ import annotations

import email.utils
import hashlib
import itertools
import re
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import msgspec

from veo3_async.testing._faults import Body, Fault, Redirect, Rules, Status, Where
from veo3_async.testing._lives import Life, Position, advance, fields_at
from veo3_async.testing._replies import (
    IMAGE_URL,
    Answer,
    Request,
    TimeUnit,
    file_answer,
    json_answer,
    refusal,
    replacement,
    task_body,
)

if TYPE_CHECKING:
    from veo3_async.testing._films import Film

__all__ = ["MODELS", "Envelope", "Gateway", "Lives", "Outcome", "Received", "sample"]

MODELS: Final = ("veo3", "veo3-fast", "veo3-fast-frames", "veo3-pro", "veo3-pro-frames")
"""Every model that the wire page names."""

Envelope = Literal["task_id", "request_id", "id", "data", "data_object"]
"""Where the answer to a POST has the id: a field of that name, ``data`` as a text, or ``task_id``
in an object ``data``."""

Lives = Callable[[Random], Life] | Sequence[Life]
"""The life of each new task: drawn by a function, or taken from a row again and again."""

_ROUTE: Final = re.compile(r"/302/submit/([^/]+)")
_FILE: Final = re.compile(r"/files/([^/]+\.mp4)")


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """One request as it arrived."""

    method: str
    """Such as ``GET``."""
    path: str
    """Decoded, without the query."""
    target: str
    """Path and query exactly as they were on the wire."""
    request_id: str | None
    """The decoded ``request_id`` of the query, or None where there is none."""
    headers: Mapping[str, str]
    """Request headers, case-insensitive; the key is in ``Authorization``."""
    body: bytes
    """Empty for a GET."""
    at: float
    """Seconds of the loop's clock."""
    connection: int
    """Number of its connection, from 1 in order of arrival."""
    reused: bool
    """Whether it was not the first request of its connection."""

    @property
    def where(self) -> Where:
        """What the faults call it."""
        if self.path.startswith("/files/"):
            return "file"
        return "submit" if self.method == "POST" else "poll"

    def __repr__(self) -> str:  # without the headers: the key is in them
        return f"<Received {self.method} {self.target} at={self.at:.3f} on={self.connection}>"


class Outcome(msgspec.Struct, frozen=True):
    """The truth, and what goes wrong with its delivery."""

    answer: Answer
    fault: Fault | None = None


class _Task(msgspec.Struct):
    life: Life
    request: Request
    position: Position | None
    """None until the first poll, for a life that begins with it."""
    created: float
    renewals: int = 0


class Gateway:
    """The tasks, the rules, and the answers."""

    def __init__(
        self,
        *,
        api_key: str,
        speed: float,
        rate_limit: float | None,
        lives: Lives | None,
        envelope: Envelope,
        film: Film,
        time_unit: TimeUnit = "ms",
        keyed_by_path: bool = False,
        seed: int,
    ) -> None:
        if speed <= 0:
            message = f"speed is above 0, not {speed!r}"
            raise ValueError(message)
        if envelope not in get_args(Envelope):
            message = f"envelope is one of {', '.join(get_args(Envelope))}, not {envelope!r}"
            raise ValueError(message)
        if time_unit not in get_args(TimeUnit):
            message = f"time_unit is 'ms' or 's', not {time_unit!r}"
            raise ValueError(message)
        self.rng: Final = Random(seed)
        self.rules: Final = Rules()
        self.tasks: Final[dict[str, _Task]] = {}
        self.films: Final[dict[str, Film]] = {}
        self.files_url = ""
        self.epoch = 0.0
        """What the server's clock shows at 0 of the loop's, in seconds since the epoch."""
        self._authorization: Final = f"Bearer {api_key}"
        self._speed: Final = speed
        self._window: Final = None if rate_limit is None else _Window(rate_limit)
        self._draw: Final = _drawn_from(lives)
        self._envelope: Final = envelope
        self._film: Final = film
        self._time_unit: Final = time_unit
        self._keyed_by_path: Final = keyed_by_path
        self._expired: Final[set[str]] = set()

    # --- what the test does ---------------------------------------------------------------

    def add(
        self,
        request_id: str | None,
        life: Life | None,
        request: Request,
        *,
        now: float,
        waits: bool = False,
    ) -> str:
        """Register a task and return its id.

        :raises ValueError: The id is taken.
        """
        if request_id is None:
            model = request.model.removesuffix("-frames")
            request_id = f"{model}:{uuid.UUID(int=self.rng.getrandbits(128), version=4)}"
        if request_id in self.tasks:
            message = f"there is a task {request_id!r} already"
            raise ValueError(message)
        life = self._draw(self.rng) if life is None else life
        self.tasks[request_id] = _Task(life, request, None if waits else Position(now), now)
        return request_id

    def ends_at(self, request_id: str) -> float | None:
        """Return when the last stage of a task begins, or None where the polls decide."""
        task = self.tasks[request_id]
        duration = task.life.duration
        if duration is None or task.position is None:
            return None
        return task.created + duration / self._speed

    def renew(self, request_id: str) -> None:
        """Let the URLs of a task expire: they answer 403, and the next poll tells new ones."""
        task = self.tasks[request_id]
        self._expired.update(self._name(request_id, field) for field in _URL_FIELDS)
        task.renewals += 1

    def urls(self, request_id: str) -> dict[str, str]:
        """Return the URLs under which the videos of a task are served."""
        return {field: self.files_url + self._name(request_id, field) for field in _URL_FIELDS}

    def film(self, name: str) -> Film:
        """Return what is served under a file name."""
        return self.films.get(name, self._film)

    # --- what the client does -------------------------------------------------------------

    def answer(self, request: Received) -> Outcome:
        """Decide what a request gets; its ``Date`` is of the clock that the times in it are of."""
        outcome = self._outcome(request)
        date = email.utils.formatdate(self.epoch + request.at, usegmt=True)
        outcome.answer.headers["Date"] = date
        return outcome

    def _outcome(self, request: Received) -> Outcome:
        where = request.where
        if where != "file" and (refused := self._refused(request)):
            return Outcome(refused)
        fault = self.rules.choose(where, request.request_id, reused=request.reused, rng=self.rng)
        if isinstance(fault, Status | Body | Redirect):
            return Outcome(replacement(fault))
        if where == "file":
            return Outcome(self._file(request), fault)
        truth = self._api(request)
        return truth if fault is None else Outcome(truth.answer, fault)

    def _refused(self, request: Received) -> Answer | None:
        if request.headers.get("Authorization") != self._authorization:
            return refusal(401, 10001 if "Authorization" in request.headers else -10001)
        if self._window is not None and not self._window.admits(request.at):
            answer = refusal(429)
            answer.headers["Retry-After"] = "1"
            return answer
        return None

    def _api(self, request: Received) -> Outcome:
        route = _ROUTE.fullmatch(request.path)
        if route is None:
            return Outcome(refusal(404, -10010))
        if (model := route[1]) not in MODELS:
            return Outcome(refusal(400, -10009))
        if request.method == "GET":
            return self._poll(request, model)
        if request.method == "POST":
            return Outcome(self._submit(request, model))
        return Outcome(refusal(405))

    def _poll(self, request: Received, model: str) -> Outcome:
        if not request.request_id:
            return Outcome(refusal(400, -10011))
        task = self.tasks.get(request.request_id)
        if task is None or (self._keyed_by_path and task.request.model != model):
            return Outcome(refusal(404, -10010))
        if task.position is None:
            task.created, task.position = request.at, Position(request.at)
        task.position = advance(task.life, task.position, request.at, self._speed)
        says = task.life.stages[task.position.index].says
        if isinstance(says, Status | Body | Redirect):
            return Outcome(replacement(says))
        answer = json_answer(200, self._state(request.request_id, task, task.position))
        return Outcome(answer, None if isinstance(says, dict) else says)

    def _state(self, request_id: str, task: _Task, position: Position) -> dict[str, Any]:
        return task_body(
            fields_at(task.life, position.index),
            request_id=request_id,
            request=task.request,
            upsample=task.life.upsample,
            created=self._milliseconds(task.created),
            updated=self._milliseconds(position.since),
            urls=self.urls(request_id),
            unit=self._time_unit,
        )

    def _submit(self, request: Received, model: str) -> Answer:
        wanted = _understood(request.body, model)
        if isinstance(wanted, str):
            return refusal(400, -10011, wanted)
        request_id = self.add(None, None, wanted, now=request.at)
        if self._envelope == "data_object":
            return json_answer(200, {"data": {"task_id": request_id}})
        return json_answer(200, {self._envelope: request_id})

    def _file(self, request: Received) -> Answer:
        route = _FILE.fullmatch(request.path)
        if route is None or request.method != "GET":
            return refusal(404)
        if (name := route[1]) in self._expired:
            return refusal(403)
        said, if_range = request.headers.get("Range"), request.headers.get("If-Range")
        return file_answer(self.film(name), name, said=said, if_range=if_range)

    def _name(self, request_id: str, field: str) -> str:
        seed = f"{field} {self.tasks[request_id].renewals} {request_id}"
        return hashlib.blake2b(seed.encode(), digest_size=16).hexdigest() + ".mp4"

    def _milliseconds(self, at: float) -> int:
        return round((self.epoch + at) * 1000)


class _Window:
    """At most ``rate`` requests in any second (one in ``1 / rate`` seconds, for a rate below 1)."""

    def __init__(self, rate: float) -> None:
        if rate <= 0:
            message = f"rate_limit is above 0, not {rate!r}"
            raise ValueError(message)
        self._most: Final = max(1, int(rate))
        self._length: Final = self._most / rate
        self._admitted: Final[deque[float]] = deque()

    def admits(self, now: float) -> bool:
        while self._admitted and self._admitted[0] <= now - self._length:
            self._admitted.popleft()
        if len(self._admitted) >= self._most:
            return False
        self._admitted.append(now)
        return True


_URL_FIELDS: Final = ("video_url", "upsample_video_url")


def sample(model: str) -> Request:
    """Return what a task was asked to be that nobody submitted."""
    return Request(model, "a lighthouse in a storm", (IMAGE_URL,))


def _drawn_from(lives: Lives | None) -> Callable[[Random], Life]:
    if callable(lives):
        return lives
    row = itertools.cycle([Life.documented()] if lives is None else lives)
    return lambda _rng: next(row)


def _understood(body: bytes, model: str) -> Request | str:
    """Return what a POST asks for, or what is wrong with it."""
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "Invalid request: the body is no JSON"
    if not isinstance(content, dict):
        return "Invalid request: the body is no JSON object"
    prompt, image = content.get("text_prompt"), content.get("input_image")
    if not isinstance(prompt, str) or not prompt.strip():
        return "Invalid request: text_prompt is missing"
    if not model.endswith("-frames"):
        return Request(model, prompt, ())
    if not isinstance(image, str) or not image.startswith(("https://", "http://")):
        return "Invalid request: input_image is missing or no public URL"
    return Request(model, prompt, (image,))
