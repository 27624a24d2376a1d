"""Errors as JSON, for the journal and the cluster."""

from __future__ import annotations

from typing import Final

import msgspec

from veo3_async import _errors
from veo3_async._errors import Veo3Error
from veo3_async._models import VideoTask

__all__ = [
    "StoredError",
    "error_from_json",
    "error_json",
    "restored_error",
    "storable",
    "stored_error",
]

_CLASSES: Final[dict[str, type[Veo3Error]]] = {n: getattr(_errors, n) for n in _errors.__all__}


class StoredError(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of an error: all but the body of a reply, which may hold anything."""

    message: str
    type: str = ""
    http_status: int | None = None
    err_code: int | None = None
    attempts: int = 0
    elapsed: float | None = None


def stored_error(error: Veo3Error) -> StoredError:
    """Return what is kept of an error."""
    return StoredError(
        message=storable(error.message),
        type=type(error).__name__,
        http_status=error.http_status,
        err_code=error.err_code,
        attempts=error.attempts,
        elapsed=error.elapsed,
    )


def restored_error(stored: StoredError, request_id: str, task: VideoTask) -> Veo3Error:
    """Return the error of a task; of a class that is not known here the base of all."""
    return _CLASSES.get(stored.type, Veo3Error)(
        stored.message,
        request_id=request_id,
        http_status=stored.http_status,
        err_code=stored.err_code,
        attempts=stored.attempts,
        elapsed=stored.elapsed,
        task=task,
    )


def error_json(error: Veo3Error | str) -> str:
    """Return the JSON of an error, or of a reason that is only text."""
    stored = StoredError(storable(error)) if isinstance(error, str) else stored_error(error)
    return msgspec.json.encode(stored).decode()


def error_from_json(text: str, request_id: str, task: VideoTask) -> Veo3Error:
    """Return the error of which `error_json` made text.

    :raises ValueError: It is no such text.
    """
    return restored_error(msgspec.json.decode(text, type=StoredError), request_id, task)


def storable(text: str) -> str:
    """Return a text with its lone surrogates spelled out: they have no UTF-8."""
    return text.encode(errors="backslashreplace").decode()
