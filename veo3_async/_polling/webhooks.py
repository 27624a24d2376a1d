"""Webhooks as a hint: which task a token stands for, and how often it may be asked for.

Nothing in the body of a webhook is believed. Whoever knows a token can make the client ask for its
task, once a second at most; what is no token of ours costs nothing.
"""

from __future__ import annotations

import collections
import secrets
from typing import Final

from veo3_async._errors import InvalidRequest

__all__ = ["SPARSE_SECONDS", "Webhooks", "webhook_url"]

SPARSE_SECONDS: Final = 120.0
"""Seconds between two polls of a task whose end a webhook will report: if it never comes, the
end is seen all the same."""

_PLACE: Final = "{token}"
_MOST: Final = 100_000
_HINT_SECONDS: Final = 1.0


def webhook_url(webhook: str) -> tuple[str, str]:
    """Return the URL that is handed to the service, and the token in it.

    :param webhook: A public URL with ``{token}`` in it.
    :raises InvalidRequest: It has no such place, or is no http(s) URL.
    """
    if not webhook.startswith(("https://", "http://")) or _PLACE not in webhook:
        message = (
            "webhook is a public URL with {token} in it, such as "
            f"'https://bot.example/veo/{{token}}', not {webhook[:64]!r}: a webhook names no task, "
            "so its URL must"
        )
        raise InvalidRequest(message)
    token = secrets.token_urlsafe(18)
    return webhook.replace(_PLACE, token), token


class Webhooks:
    """The tokens of one client's tasks; of very many the oldest are forgotten."""

    def __init__(self) -> None:
        self._tasks: collections.OrderedDict[str, str] = collections.OrderedDict()
        self._hinted: dict[str, float] = {}

    def expect(self, token: str, request_id: str) -> None:
        """Know a token."""
        self._tasks[token] = request_id
        if len(self._tasks) > _MOST:
            old, _ = self._tasks.popitem(last=False)
            self._hinted.pop(old, None)

    def knows(self, token: str) -> bool:
        """Whether a token is one of ours."""
        return token in self._tasks

    def received(self, token: str, now: float) -> str | None:
        """Return the task that is worth a poll now, or None.

        :param now: Seconds of a monotonic clock.
        """
        request_id = self._tasks.get(token)
        if request_id is None or now < self._hinted.get(token, -_HINT_SECONDS) + _HINT_SECONDS:
            return None
        self._hinted[token] = now
        return request_id
