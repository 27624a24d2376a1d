"""Errors as JSON, for the journal and the cluster."""

from __future__ import annotations

from typing import Final

import msgspec

from veo3_async import _errors
from veo3_async._errors import (
    Veo3Error,
)
from veo3_async._models import VideoTask

__all__ = ["Fault", "error_of", "fault_of"]


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as JSON.

    Without the body of a reply: what a stranger sent has no place in what is kept.
    """

    message: str
    type: str = ""
    http_status: int | None = None
    err_code: int | None = None
    attempts: int = 0
    elapsed: float | None = None


def fault_of(error: Veo3Error) -> Fault:
    """Return what is kept of an error."""
    return Fault(
        message=storable(error.message),
        type=type(error).__name__,
        http_status=error.http_status,
        err_code=error.err_code,
        attempts=error.attempts,
        elapsed=error.elapsed,
    )


def storable(text: str) -> str:
    # A lone surrogate has no UTF-8, and must not cost the row.
    return text.encode(errors="backslashreplace").decode()


_ERRORS: Final[dict[str, type[Veo3Error]]] = {n: getattr(_errors, n) for n in _errors.__all__}


def error_of(fault: Fault, request_id: str, task: VideoTask) -> Veo3Error:
    """Return the error of a task of which `fault_of` kept what matters."""
    return _ERRORS.get(fault.type, Veo3Error)(
        fault.message,
        request_id=request_id,
        http_status=fault.http_status,
        err_code=fault.err_code,
        attempts=fault.attempts,
        elapsed=fault.elapsed,
        task=task,
    )
