"""What an error of nats-py means: which of ours it is, and so who must act."""

from __future__ import annotations

from typing import Final

import nats.errors
import nats.js.errors

from veo3_async._errors import ClientClosed, ServiceUnavailable, Veo3Error
from veo3_async.cluster._errors import ClusterError

__all__ = ["ERRORS", "closed", "denied", "is_unwanted", "translated"]

ERRORS: Final = (TimeoutError, nats.errors.Error, OSError)
"""What a call of nats-py raises."""

# Error codes of the JetStream API (server/errors.json of nats-server).
_WRONG_LAST_SEQUENCE: Final = frozenset({10071, 10164})
_STORE_FAILED: Final = 10077  # its text says why
_PER_SUBJECT: Final = "maximum messages per subject exceeded"
_ACCOUNT_IS_FULL: Final = 10002


def translated(error: BaseException, subject: str, place: str) -> Veo3Error:
    """Return an error of ours.

    :param subject: What it is about.
    :param place: Hosts and ports, without credentials.
    """
    match error:
        case nats.js.errors.APIError(code=int(code)):
            said = f"{subject}: {error.description}"
            if code >= 500 or error.err_code == _ACCOUNT_IS_FULL:
                return ServiceUnavailable(f"NATS cannot do this now: {said}")
            return ClusterError(f"NATS refuses this: {said}")
        case nats.errors.ConnectionClosedError() | nats.errors.AuthorizationError():
            return ClusterError(f"NATS at {place} refuses the credentials by now")
        case nats.errors.NoRespondersError() | nats.js.errors.Error():
            return ServiceUnavailable(f"no JetStream at {place} answers: {subject}")
        case TimeoutError():
            return ServiceUnavailable(f"NATS at {place} does not answer: {subject}")
    return ServiceUnavailable(f"NATS at {place}: {type(error).__name__}: {subject}")


def is_unwanted(error: BaseException) -> bool:
    """Return whether a message was not stored because another one is there."""
    if not isinstance(error, nats.js.errors.APIError):
        return False
    if error.err_code in _WRONG_LAST_SEQUENCE:
        return True
    return error.err_code == _STORE_FAILED and _PER_SUBJECT in (error.description or "")


def denied(subject: str) -> ClusterError:
    """Return the error of a user who may not publish to a subject."""
    return ClusterError(f"NATS gives this user no permission for {subject}")


def closed() -> ClientClosed:
    """Return the error of a call that comes too early or too late."""
    return ClientClosed("this cluster is not connected, or was closed")
