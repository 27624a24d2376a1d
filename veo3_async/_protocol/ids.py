"""Request ids and model names: what may be sent, and which model an id names."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection
from typing import Final

from veo3_async._errors import (
    InvalidRequest,
)

__all__ = [
    "MAX_ID_BYTES",
    "check_model",
    "check_request_id",
    "check_request_ids",
    "is_form_of",
    "model_of",
]

MAX_ID_BYTES: Final = 1024
"""A real id has 45 bytes; common servers cut a request line at 8190."""

# The models that the wire page names; an id begins with the model it is polled under.
_MODEL_OF_ID: Final = re.compile(r"(veo3(?:-pro|-fast)?(?:-frames)?):")

_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_USUAL: Final = bytes(range(ord("!"), ord("~") + 1))

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check_request_id(request_id: object) -> str:
    """Return the id as it came, or refuse what can only be a mistake.

    :raises TypeError: It is no ``str``.
    :raises InvalidRequest: It is empty, padded with white space, longer than 1,024 bytes, or
        has control characters or lone surrogates in it.
    """
    if not isinstance(request_id, str):
        message = f"a request id is a str, not {type(request_id).__name__}"
        raise TypeError(message)
    if not request_id:
        fault = "it is empty"
    elif request_id != request_id.strip():
        fault = "it has white space around it; strip it"
    elif _CONTROL.search(request_id):
        fault = "it has control characters or lone surrogates in it"
    elif len(request_id.encode()) > MAX_ID_BYTES:
        fault = f"it is longer than {MAX_ID_BYTES} bytes"
    else:
        return request_id
    message = f"not a request id: {fault}: {request_id[:64]!r}"
    raise InvalidRequest(message, request_id=request_id[:MAX_ID_BYTES])


def check_request_ids(request_ids: Collection[object]) -> None:
    """Refuse what `check_request_id` refuses, wherever it stands.

    Those of the usual shape are looked at together: one by one, 50,000 hold up a loop.
    """
    with contextlib.suppress(TypeError, UnicodeEncodeError):  # no str, or a lone surrogate
        characters = "".join(request_ids).encode()  # type: ignore[arg-type]
        are_usual = all(request_ids) and not characters.translate(None, _USUAL)
        if are_usual and max(map(len, request_ids), default=0) <= MAX_ID_BYTES:  # type: ignore[arg-type]
            return
    for request_id in request_ids:
        check_request_id(request_id)


def check_model(model: object) -> str:
    """Return the model's name as it came.

    :raises InvalidRequest: It cannot be a part of a path.
    """
    if not isinstance(model, str) or not _MODEL_NAME.fullmatch(model):
        message = f"not a model name: {model!r}; use one such as 'veo3-pro'"
        raise InvalidRequest(message)
    return model


def model_of(request_id: str) -> str | None:
    """Return the model that an id begins with, or None where it is no known one."""
    named = _MODEL_OF_ID.match(request_id)
    return None if named is None else named[1]


def is_form_of(one: str, other: str) -> bool:
    """Return whether two ids are the same but for the prefix and the case."""
    return one.casefold().rpartition(":")[2] == other.casefold().rpartition(":")[2]
