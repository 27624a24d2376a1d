"""What one client knows of its tasks beside their ids.

For an id from elsewhere the journal may know where it was submitted; else its prefix says where it
is polled, else what the watch was opened with.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from veo3_async._lifecycle.places import polled_at
from veo3_async._metadata import Origin
from veo3_async._protocol.families import Route

if TYPE_CHECKING:
    from veo3_async._journal.journal import Journal
    from veo3_async._journal.rows import Watched

__all__ = ["Origins"]

_MOST: Final = 100_000
"""Submissions that are remembered until they are watched to their end."""

_FROM_ELSEWHERE: Final = Origin()


class Origins:
    """Where tasks are polled, and what was attached to them.

    :param journal: Keeps it, or None: then only what this client has submitted is known.
    """

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._submitted: collections.OrderedDict[str, Origin] = collections.OrderedDict()
        self._with_webhook: set[str] = set()
        self._never_watched: set[str] = set()

    def remember(self, request_id: str, origin: Origin, *, webhook: bool = False) -> None:
        """Keep what a submission was made with.

        :param webhook: Whether a webhook will report its end.
        """
        self._submitted[request_id] = origin
        self._never_watched.add(request_id)
        if webhook:
            self.expect_webhook(request_id)
        if len(self._submitted) > _MOST:
            self.forget(next(iter(self._submitted)))

    def expect_webhook(self, request_id: str) -> None:
        """Know that a webhook will report the end of a task."""
        self._with_webhook.add(request_id)

    def forget(self, request_id: str) -> None:
        """Forget a task that has ended."""
        self._submitted.pop(request_id, None)
        self._with_webhook.discard(request_id)
        self._never_watched.discard(request_id)

    def begin(self, request_ids: Iterable[str]) -> set[str]:
        """Return those of which it is the first watch after they were submitted here.

        The journal, if there is one, has these as they are. Of others, and later, it may know more,
        or that the end was delivered.
        """
        first = self._never_watched.intersection(request_ids)
        self._never_watched -= first
        return first

    def has_webhook(self, request_id: str) -> bool:
        """Whether a webhook will report the end of a task."""
        return request_id in self._with_webhook

    def known(self, request_id: str) -> Origin:
        """Return what this client has submitted a task with; nothing of one from elsewhere."""
        return self._submitted.get(request_id, _FROM_ELSEWHERE)

    def of(self, request_id: str, default: Route) -> Origin:
        """Return what is known without asking the journal, and where it is polled at the least.

        :param default: Where an id is polled of which nothing is known.
        """
        known = self.known(request_id)
        if known is not _FROM_ELSEWHERE:
            return known
        route = polled_at(request_id, known, default)
        return Origin(route.family, route.path)

    async def accept(self, request_ids: Iterable[str], default: Route) -> Sequence[Watched]:
        """Write ids into the journal, and return what is known of each.

        :raises JournalError: They could not be written down.
        """
        assert self._journal is not None  # noqa: S101 - the caller looked
        origins = {request_id: self.of(request_id, default) for request_id in request_ids}
        await self._journal.accept(origins, at=time.time(), origins=origins)
        return await self._journal.watched(origins)
