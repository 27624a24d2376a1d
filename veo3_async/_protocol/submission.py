"""What the families have in common in submitting a task, and what no id means. Without I/O.

A submission costs money, so it is sent again only when it certainly did not arrive: no
connection was made, or the gateway answered 429 or 503. A reply that refuses is an error that
says why. Anything else leaves it open whether the task exists.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from veo3_async._errors import InvalidRequest, SubmitUncertain, Veo3Error
from veo3_async._protocol.errors import (
    NO_CAPACITY,
    SUCCESS,
    Kind,
    Problem,
    own_error,
    problem_of,
)
from veo3_async._protocol.http import Reply
from veo3_async._protocol.ids import check_request_id, model_of
from veo3_async._protocol.parsing import json_of, only

__all__ = [
    "SubmitVerdict",
    "checked_prompt",
    "json_body",
    "submit_error",
    "submit_verdict",
    "submitted_id",
]

_NOT_SENT: Final = frozenset({Kind.CONNECT, Kind.DNS, Kind.LOCAL})
_NOT_TAKEN: Final = frozenset({429, 503})
_TURNED_AWAY: Final = frozenset({400, 401, 402, 403, 404, 405, 407, 410, 413, 414, 415, 422, 431})
"""Statuses of a refusal; where it is not the API's, what stands before the API has refused."""
_REDIRECTS: Final = range(300, 400)
_SEE_OTHER: Final = 303
"""Of all redirects the one that says that the request was carried out."""
_REFUSED: Final = frozenset(
    {
        Kind.INVALID,
        Kind.NOT_FOUND,
        Kind.AUTHENTICATION,
        Kind.QUOTA,
        Kind.CERTIFICATE,
        Kind.SESSION,
        Kind.THROTTLED,
        Kind.OVERLOADED,
        Kind.NO_CHANNEL,
    }
)


class SubmitVerdict(enum.Enum):
    """What is known of a submission that brought no id."""

    NOT_ARRIVED = "not_arrived"
    """It may be sent again."""
    REFUSED = "refused"
    """It was refused, and no task exists."""
    UNCERTAIN = "uncertain"
    """The task may exist and may have been charged."""


# --- what is sent ---------------------------------------------------------------------------


def checked_prompt(prompt: object) -> str:
    """Return the prompt as it came.

    :raises InvalidRequest: It is empty.
    """
    if isinstance(prompt, str) and prompt.strip():
        return prompt
    message = "the prompt is empty; say what the video is to show"
    raise InvalidRequest(message)


def json_body(fields: dict[str, Any], extra: object) -> bytes:
    """Return the JSON of a submission.

    :param extra: Further fields that the caller gave, or None.
    :raises InvalidRequest: They are no mapping, repeat a field, or cannot be written.
    """
    if extra is not None and not isinstance(extra, Mapping):
        message = f"extra is a mapping of field names to values, not {extra!r:.64}"
        raise InvalidRequest(message)
    if twice := fields.keys() & (extra or {}).keys():
        message = f"extra repeats {', '.join(sorted(twice))}, which have arguments of their own"
        raise InvalidRequest(message)
    try:
        return msgspec.json.encode(fields | dict(extra or {}))
    except (TypeError, ValueError, UnicodeError, RecursionError) as error:
        message = f"prompt or extra cannot be sent as JSON: {error}"
        raise InvalidRequest(message) from None


# --- what comes back ------------------------------------------------------------------------


def submitted_id(
    reply: Reply, *, wall_now: float, names: Sequence[str] = ("task_id", "request_id", "id")
) -> str | Problem:
    """Find the request id in the reply to a submission, in every envelope that was seen.

    One that begins with a model's name is it; the others may be of the gateway, for its own use.

    :param names: Fields that may have it, the likeliest first; ``data`` may be it, too.
    """
    content = json_of(reply.body)
    fields = only(content)
    if reply.status in SUCCESS and isinstance(fields, dict) and not _is_refusal(fields):
        ids = list(_ids(fields, names))
        if ids:
            return next(filter(model_of, ids), ids[0])
    return problem_of(reply, content, wall_now=wall_now)


_REFUSALS: Final = frozenset({"error", "failed", "fail", "failure", ""})
_HOLDERS: Final = ("data", "result", "detail", "task", "record", "output", "response", "payload")
_MAX_HOLDERS: Final = 4
_OF_HTTP: Final = frozenset({"request_id", "requestId"})
"""Beside a code and a message they are of the HTTP request, not of a task."""


def _is_refusal(fields: dict[str, Any]) -> bool:
    """Return whether a reply refuses: an error beside an id means that nothing was accepted.

    But the state of a task, which some gateways answer with, may have a field named ``error``.
    """
    error = own_error(fields)
    if error is None or (error.kind is None and error.says is None):
        return False
    status = fields.get("status")
    return error.is_own or not isinstance(status, str) or status.lower() in _REFUSALS


def _ids(fields: Mapping[str, object], names: Sequence[str]) -> Iterator[str]:
    holders = list(_holders(fields, _MAX_HOLDERS))
    texts = [text for holder in holders if (text := _id(only(holder.get("data"))))]
    if "data" in names:
        yield from texts
    for name in dict.fromkeys((*names, *map(_camel, names))):
        for holder in holders:
            if name in _OF_HTTP and {"code", "message"} <= holder.keys():
                continue
            if found := _id(only(holder.get(name))):
                yield found
    yield from texts


def _holders(value: object, depth: int) -> Iterator[Mapping[str, object]]:
    """Yield an object and those that it holds in the places of envelopes."""
    value = only(value)
    if isinstance(value, dict) and depth:
        yield value
        for name in _HOLDERS:
            yield from _holders(value.get(name), depth - 1)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _id(value: object) -> str | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # it was paid for, however it is spelled
    try:
        return check_request_id(value.strip() if isinstance(value, str) else value)
    except (TypeError, InvalidRequest):
        return None


def submit_verdict(problem: Problem) -> SubmitVerdict:
    """Say whether a submission may be sent again."""
    refused = problem.kind in NO_CAPACITY and problem.http_status in _NOT_TAKEN
    if problem.kind in _NOT_SENT or refused:
        return SubmitVerdict.NOT_ARRIVED
    if problem.http_status == _SEE_OTHER:
        return SubmitVerdict.UNCERTAIN
    turned_away = problem.kind is Kind.UNEXPECTED and (
        problem.http_status in _TURNED_AWAY or problem.http_status in _REDIRECTS
    )
    if problem.kind in _REFUSED or turned_away:
        return SubmitVerdict.REFUSED
    return SubmitVerdict.UNCERTAIN


def submit_error(problem: Problem, *, attempts: int, elapsed: float) -> Veo3Error:
    """Return the error of a submission that brought no id."""
    error = problem.error(attempts=attempts, elapsed=elapsed)
    if problem.kind is Kind.NOT_FOUND:
        error = InvalidRequest(
            "the service has no such model to submit to; check model= and base_url",
            http_status=error.http_status,
            err_code=error.err_code,
            attempts=attempts,
            elapsed=elapsed,
        )
    if submit_verdict(problem) is not SubmitVerdict.UNCERTAIN:
        return error
    return SubmitUncertain(
        "the submission may have arrived: the task may exist and may have been charged; look at "
        f"the account before sending it again ({problem.message})",
        http_status=error.http_status,
        err_code=error.err_code,
        attempts=attempts,
        elapsed=elapsed,
        body=error.body,
    )
