"""Whether it is still the API that answers: of one client, over all its ids.

A page, a redirect or a refusal of whoever sits between is an outage, and is waited out. But a
client that never had a reply of the API and gets nothing else for minutes has a wrong
``base_url``, a key that a proxy refuses, or a certificate that will not get better: it ends with
an error that shows what came.
"""

from __future__ import annotations

from typing import Final

from veo3_async._errors import (
    AuthenticationError,
    ServiceUnavailable,
    UnexpectedReply,
    Veo3Error,
)
from veo3_async._protocol.errors import Kind, Problem

__all__ = ["Contact"]

_FOREIGN_SECONDS: Final = 300.0
"""A client that never had a reply of the API ends after so long of nothing but foreign ones."""
_REFUSED_SECONDS: Final = 60.0
"""The same where all of them are 401 or 403."""
_REFUSED_AFTER_CONTACT_SECONDS: Final = 600.0
"""The same for a client that had replies of the API: somebody has locked it out since."""
_CERTIFICATE_SECONDS: Final = 60.0
_REFUSALS: Final = frozenset({401, 403})


class Contact:
    """What has answered the polls of a client.

    :param had_reply: Whether a reply of the API is known from an earlier process.
    """

    __slots__ = ("_certificate_since", "_foreign_since", "_refused_since", "had_reply")

    def __init__(self, *, had_reply: bool = False) -> None:
        self.had_reply: bool = had_reply
        """Whether the API itself has ever answered."""
        self._foreign_since: float | None = None
        self._refused_since: float | None = None
        self._certificate_since: float | None = None

    def heard(self, answer: object, now: float) -> Veo3Error | None:
        """Take in an outcome; return the error that ends every watch, or None to go on.

        :param answer: A `Problem`, or anything else for a reply that held a state.
        :param now: Seconds of any clock that goes on.
        """
        if not isinstance(answer, Problem):
            if self._foreign_since or self._certificate_since or not self.had_reply:
                self.had_reply = True
                self._foreign_since = self._refused_since = self._certificate_since = None
            return None
        self._note(answer, now)
        if _lasted(self._certificate_since, now) >= _CERTIFICATE_SECONDS:
            return self._error(answer, ServiceUnavailable, _CERTIFICATE_SECONDS)
        patience = _REFUSED_AFTER_CONTACT_SECONDS if self.had_reply else _REFUSED_SECONDS
        if _lasted(self._refused_since, now) >= patience:
            return self._error(answer, AuthenticationError, patience)
        if not self.had_reply and _lasted(self._foreign_since, now) >= _FOREIGN_SECONDS:
            return self._error(answer, UnexpectedReply, _FOREIGN_SECONDS)
        return None

    def _note(self, problem: Problem, now: float) -> None:
        is_foreign = problem.kind is Kind.UNEXPECTED and not problem.from_api
        is_refusal = is_foreign and problem.http_status in _REFUSALS
        is_certificate = problem.kind is Kind.CERTIFICATE
        self.had_reply = self.had_reply or problem.from_api
        self._foreign_since = _began(self._foreign_since, now) if is_foreign else None
        self._refused_since = _began(self._refused_since, now) if is_refusal else None
        self._certificate_since = _began(self._certificate_since, now) if is_certificate else None

    def _error(self, problem: Problem, error: type[Veo3Error], patience: float) -> Veo3Error:
        return error(
            f"nothing else came for {patience:.0f} s: {problem.message}",
            http_status=problem.http_status,
            err_code=problem.err_code,
            body=problem.body,
        )


def _began(since: float | None, now: float) -> float:
    return now if since is None else since


def _lasted(since: float | None, now: float) -> float:
    return -1.0 if since is None else now - since
