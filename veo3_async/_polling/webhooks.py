"""Webhooks as a hint: which task a token stands for, and how often it may be asked for.

Nothing in the body of a webhook is believed. Whoever knows a token can make the client ask for its
task, once a second at most; what is no token of ours costs nothing.

A webhook may be a moment ahead of what the service answers to a poll, so a task that still runs
then is asked for once or twice more, before it is left to the sparse polls again.
"""

from __future__ import annotations

import collections
import secrets
from typing import Final

from veo3_async._errors import InvalidRequest

__all__ = ["HINT_SECONDS", "SPARSE_SECONDS", "Webhooks", "spared", "webhook_url"]

SPARSE_SECONDS: Final = 180.0
"""Seconds between two polls of a task whose end a webhook will report: if it never comes, the
end is seen all the same."""

HINT_SECONDS: Final = 1.0
"""Seconds at least between a poll that a webhook makes and the one before."""

_PLACE: Final = "{token}"
_MOST: Final = 100_000
_ASKED_AGAIN: Final = (HINT_SECONDS, 5.0)
"""Seconds after a hint at which a task is asked for again that ran on at it."""


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


def spared(delay: float, after_hint: float) -> float:
    """Return the seconds until the next poll of a running task whose webhook is still awaited.

    :param delay: What the pacing says.
    :param after_hint: How many seconds after the last hint the last poll was sent: negative where
        it came while that was under way, infinite where there was none.
    """
    again = next((moment for moment in _ASKED_AGAIN if after_hint < moment), None)
    if again is None:
        return max(delay, SPARSE_SECONDS)
    return HINT_SECONDS if after_hint < 0 else max(HINT_SECONDS, again - after_hint)


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
        if request_id is None or now < self._hinted.get(token, -HINT_SECONDS) + HINT_SECONDS:
            return None
        self._hinted[token] = now
        return request_id
