"""What the fake gateway answers, decided without I/O: key, rate limit, routes, tasks.

`Gateway.answer` takes a request and the loop's time, and returns the truth and the fault that
meets it. Nothing here grows with the number of tasks but the tasks themselves.
"""

from __future__ import annotations

import email.utils
import hashlib
import itertools
import uuid
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import msgspec

from veo3_async.testing._account import Account, is_open
from veo3_async.testing._dialects import (
    POSTED_AT,
    RECORD_MODELS,
    Family,
    Place,
    find,
    said_by,
    submitted_reply,
    webhook_body,
)
from veo3_async.testing._faults import Body, Redirect, Rules, Status
from veo3_async.testing._files import URL_FIELDS, Files, file_name
from veo3_async.testing._lives import Life, Position, advance, fields_at
from veo3_async.testing._orders import understood
from veo3_async.testing._replies import (
    IMAGE_URL,
    Answer,
    Request,
    TimeUnit,
    json_answer,
    refusal,
    replacement,
    task_body,
)
from veo3_async.testing._requests import Outcome, Received, Window

if TYPE_CHECKING:
    from veo3_async.testing._replay import Replay
    from veo3_async.testing._videos import Video

__all__ = ["MODELS", "Envelope", "Gateway", "Hook", "Lives", "sample"]

MODELS: Final = RECORD_MODELS
"""Every model of the record family that the wire page names."""

Envelope = Literal["task_id", "request_id", "id", "data", "data_object"]
"""Where the answer to a POST has the id: a field of that name, ``data`` as a text, or ``task_id``
in an object ``data``."""

Lives = Callable[[Random], Life] | Sequence[Life]
"""The life of each new task: drawn by a function, or taken from a row again and again."""


class Hook(msgspec.Struct, frozen=True):
    """A webhook that is to be called at the end of a task."""

    request_id: str
    url: str
    http_id: str
    """Of the POST that made the task."""
    at: float
    """When, on the loop's clock."""


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
        video: Video,
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
        self.epoch = 0.0
        """What the server's clock shows at 0 of the loop's, in seconds since the epoch."""
        self._authorization: Final = f"Bearer {api_key}"
        self._speed: Final = speed
        self._window: Final = None if rate_limit is None else Window(rate_limit)
        self.lives = lives
        self._envelope: Final = envelope
        self._time_unit: Final = time_unit
        self._keyed_by_path: Final = keyed_by_path
        self.account: Final = Account()
        self.files: Final = Files(video, self.account.uploads)
        self.replay: Replay | None = None
        """A recording that answers in place of the tasks, or None."""
        self.hooks: Final[list[Hook]] = []
        """Webhooks of tasks that were made, for the server to call."""
        self._answers: Final = itertools.count(1)

    # --- what the test does ---------------------------------------------------------------

    @property
    def lives(self) -> Lives | None:
        """The life of each new task; None is the documented one."""
        return self._lives

    @lives.setter
    def lives(self, lives: Lives | None) -> None:
        self._lives = lives
        self._draw = _drawn_from(lives)

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
            request_id = _made_up(request, self.rng)
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
        self.files.expire(file_name(request_id, field, task.renewals) for field in URL_FIELDS)
        task.renewals += 1

    def urls(self, request_id: str) -> dict[str, str]:
        """Return the URLs under which the videos of a task are served."""
        renewals = self.tasks[request_id].renewals
        return {
            field: self.files.url + file_name(request_id, field, renewals) for field in URL_FIELDS
        }

    # --- what the client does -------------------------------------------------------------

    def answer(self, request: Received) -> Outcome:
        """Decide what a request gets; its ``Date`` is of the clock that the times in it are of."""
        outcome = self._outcome(request)
        date = email.utils.formatdate(self.epoch + request.at, usegmt=True)
        outcome.answer.headers.setdefault("Date", date)
        if request.where != "file":
            outcome.answer.headers.setdefault("request-id", self._http_id(next(self._answers)))
        return outcome

    def hook_body(self, hook: Hook) -> dict[str, Any]:
        """Return what is posted at the end of a task."""
        task = self.tasks[hook.request_id]
        last = Position(hook.at, len(task.life.stages) - 1)
        return webhook_body(self._record(hook.request_id, task, last), hook.http_id, hook.url)

    @staticmethod
    def _http_id(number: int) -> str:
        digest = hashlib.blake2b(b"%d" % number, digest_size=16).digest()
        return str(uuid.UUID(bytes=digest, version=4))

    def _outcome(self, request: Received) -> Outcome:
        where = request.where
        if where != "file" and not is_open(request.path) and (refused := self._refused(request)):
            return Outcome(refused)
        fault = self.rules.choose(where, request.request_id, reused=request.reused, rng=self.rng)
        if isinstance(fault, Status | Body | Redirect):
            return Outcome(replacement(fault))
        if self.replay is not None and where != "file":
            played = self.replay.answer(request)
            return Outcome(played.answer, fault or played.fault)
        match where:
            case "file":
                return Outcome(self.files.answer(request), fault)
            case "upload":
                return Outcome(self.account.upload(request, self.files.url), fault)
            case "account":
                return Outcome(self.account.answer(request), fault)
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
        place = find(request.path)
        if place is None:
            return Outcome(refusal(404, -10010))
        if place.family == "record" and place.model not in MODELS:
            return Outcome(refusal(400, -10009))
        if request.method == "GET":
            return self._poll(request, place)
        if request.method == "POST":
            return Outcome(self._submit(request, place))
        return Outcome(refusal(405))

    def _poll(self, request: Received, place: Place) -> Outcome:
        if not request.request_id:
            return Outcome(refusal(400, -10011))
        task = self.tasks.get(request.request_id)
        if task is None or not self._is_there(task, request, place):
            return Outcome(refusal(404, -10010))
        if task.position is None:
            task.created, task.position = request.at, Position(request.at)
        task.position = advance(task.life, task.position, request.at, self._speed)
        says = task.life.stages[task.position.index].says
        if isinstance(says, Status | Body | Redirect):
            return Outcome(replacement(says))
        record = self._record(request.request_id, task, task.position)
        answer = json_answer(200, said_by(task.request.family, record))
        return Outcome(answer, None if isinstance(says, dict) else says)

    def _is_there(self, task: _Task, request: Received, place: Place) -> bool:
        if task.request.family != place.family:
            return False
        is_same = request.path == task.request.path
        return is_same or place.family in {"tasks", "unified"} or not self._keyed_by_path

    def _record(self, request_id: str, task: _Task, position: Position) -> dict[str, Any]:
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

    def _submit(self, request: Received, place: Place) -> Answer:
        wanted = understood(request, place)
        if isinstance(wanted, str):
            return refusal(400, -10011, wanted)
        request_id = self.add(None, None, wanted, now=request.at)
        http_id = self._http_id(next(self._answers))
        self.account.charge(http_id, wanted.model, request.path, self.epoch + request.at)
        if wanted.webhook is not None and (ends := self.ends_at(request_id)) is not None:
            self.hooks.append(Hook(request_id, wanted.webhook, http_id, ends))
        answer = json_answer(200, self._submitted(place.family, request_id, request.at))
        answer.headers["request-id"] = http_id
        return answer

    def _submitted(self, family: Family, request_id: str, at: float) -> dict[str, Any]:
        if family != "record":
            return submitted_reply(family, request_id, self._milliseconds(at))
        if self._envelope == "data_object":
            return {"data": {"task_id": request_id}}
        return {self._envelope: request_id}

    def _milliseconds(self, at: float) -> int:
        return round((self.epoch + at) * 1000)


def sample(model: str, family: Family) -> Request:
    """Return what a task was asked to be that nobody submitted."""
    path = POSTED_AT[family].format(model=model)
    return Request(model, "a lighthouse in a storm", (IMAGE_URL,), family, path)


def _made_up(request: Request, rng: Random) -> str:
    """Return an id as the family has them."""
    if request.family == "unified":
        return str(300_000_000_000_000 + rng.getrandbits(46))
    bare = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    return bare if request.family != "record" else f"{request.model.removesuffix('-frames')}:{bare}"


def _drawn_from(lives: Lives | None) -> Callable[[Random], Life]:
    if callable(lives):
        return lives
    row = itertools.cycle([Life.documented()] if lives is None else lives)
    return lambda _rng: next(row)
