"""What an error of nats-py means: which of ours it is, and so who must act."""

from __future__ import annotations

from typing import Final

import nats.errors
import nats.js.errors

from veo3_async._errors import ClientClosed, ServiceUnavailable, Veo3Error
from veo3_async.cluster._errors import ClusterError

__all__ = [
    "ERRORS",
    "NoJetStreamError",
    "NotStoredError",
    "closed",
    "denied",
    "is_missing",
    "is_unwanted",
    "translated",
]


class NoJetStreamError(ServiceUnavailable):
    """Raised where nobody answers for JetStream: it is starting, or there is none."""


class NotStoredError(TimeoutError):
    """Raised where it is not known that a message was stored."""


ERRORS: Final = (TimeoutError, nats.errors.Error, OSError)
"""What a call of nats-py raises."""

# Error codes of the JetStream API (server/errors.json of nats-server).
_WRONG_LAST_SEQUENCE: Final = frozenset({10071, 10164})
_STORE_FAILED: Final = 10077  # its text says why
_PER_SUBJECT: Final = "maximum messages per subject exceeded"
_PASSES: Final = frozenset({10002, 10005})
"""Codes of the 400s that end by themselves: an account that is full, a node that is away."""
_STAYS: Final = {
    10006: "replicas need a NATS cluster: pass replicas=1, or start three servers",
    10010: "replicas need a NATS cluster: pass replicas=1, or start three servers",
    10035: "give the account of this user JetStream",
    10039: "give the account of this user JetStream",
    10074: "replicas need a NATS cluster: pass replicas=1, or start three servers",
    10076: "start the server with JetStream (-js)",
}
"""Codes of the 500s that only its operator can end, and how."""


def translated(error: BaseException, subject: str, place: str) -> Veo3Error:
    """Return an error of ours.

    :param subject: What it is about.
    :param place: Hosts and ports, without credentials.
    """
    match error:
        case nats.js.errors.APIError(description=str()):
            return _of_api(error, subject)
        case nats.errors.ConnectionClosedError():
            return ServiceUnavailable(f"the connection to NATS at {place} is lost: {subject}")
        case nats.errors.NoRespondersError() | nats.js.errors.Error():
            return NoJetStreamError(f"no JetStream at {place} answers: {subject}")
        case NotStoredError():
            return ServiceUnavailable(
                f"NATS at {place} does not say that it stored {subject}: it is away or overloaded, "
                "or its disk is or was full; make room, and restart it"
            )
        case TimeoutError():
            return ServiceUnavailable(f"NATS at {place} does not answer: {subject}")
    return ServiceUnavailable(f"NATS at {place}: {type(error).__name__}: {subject}")


def _of_api(error: nats.js.errors.APIError, subject: str) -> Veo3Error:
    said = f"{subject}: {error.description}"
    if advice := _STAYS.get(error.err_code or 0):
        return ClusterError(f"NATS cannot do this: {said}; {advice}")
    # What somebody has removed is made again by whoever looks after it.
    if error.code is None or error.code >= 500 or is_missing(error) or error.err_code in _PASSES:
        return ServiceUnavailable(f"NATS cannot do this now: {said}")
    return ClusterError(f"NATS refuses this: {said}")


def is_missing(error: BaseException) -> bool:
    """Return whether a stream or a consumer is not there."""
    return isinstance(error, nats.js.errors.NotFoundError | nats.js.errors.NoStreamResponseError)


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
