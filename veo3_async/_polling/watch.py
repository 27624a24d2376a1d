"""What the caller iterates: a mailbox that the poller fills, and the handle on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NoReturn, Protocol, Self

from veo3_async._models import Transition
from veo3_async._pacing.policies import Eta
from veo3_async._polling.mailbox import Mailbox
from veo3_async._protocol.ids import check_request_ids

__all__ = ["Subscriptions", "Watch"]


class Subscriptions(Protocol):
    """What a watch needs of the one who polls."""

    def subscribe(self, mailbox: Mailbox, request_ids: Iterable[str]) -> None:
        """Begin to fill the mailbox with the changes of these ids."""

    def unsubscribe(self, mailbox: Mailbox, request_ids: Iterable[str]) -> None:
        """Stop it; ids that nobody watches any more are not polled any more."""

    def acknowledge(self, transition: Transition) -> None:
        """Note that a final transition was dealt with."""

    def abandon(self, mailbox: Mailbox) -> None:
        """Stop it for all ids; may be called from any thread."""

    def eta(self, mailbox: Mailbox, request_id: str) -> Eta | None:
        """Return what is left for an id."""


class Watch:
    """An async iterator of transitions, and an async context manager that ends it.

    It ends when every id has had its final transition, or, opened with ``keep_open=True``,
    when it is closed. It owns no task: breaking out of it, `aclose` and garbage collection all
    make the client stop polling the ids that nobody else watches.

    Made by ``Veo3Client.watch``; to be used in the event loop that it was made in. Several
    tasks may read one watch; each transition goes to one of them. With a journal, a final
    transition is acknowledged when the task that took it asks for the next one or leaves the
    ``async with`` normally, neither raising nor cancelled; one that a task took that has returned
    since, when another task does either. `aclose` and garbage collection acknowledge nothing: what
    was taken last is delivered again after a restart.
    """

    def __init__(self, mailbox: Mailbox, subscriptions: Subscriptions, *, owner: object) -> None:
        self._mailbox = mailbox
        self._subscriptions = subscriptions
        self._owner = owner  # lives as long as somebody watches
        self._closed = False
        self._handed_out: dict[asyncio.Task[Any], Transition] = {}
        """The final transition that each reader has not dealt with yet."""

    def __repr__(self) -> str:
        state = "closed, " if self._closed else ""
        return f"<Watch: {state}{len(self._mailbox.states)} ids, {self._mailbox.unread} unread>"

    def __reduce__(self) -> NoReturn:
        message = "a watch is not pickled or copied; make another one, they share their polls"
        raise TypeError(message)

    def __len__(self) -> int:
        return len(self._mailbox.states)

    @property
    def request_ids(self) -> frozenset[str]:
        """The ids that are not final yet."""
        return frozenset(self._mailbox.states)

    def add(self, *request_ids: str) -> None:
        """Watch these ids as well. One that is being watched already is left as it is.

        :raises InvalidRequest: One of them cannot be an id; none is added then.
        :raises ClientClosed: The watch has ended, by its timeout, with its last id or closed; or
            the client was closed.
        """
        check_request_ids(request_ids)
        self._subscriptions.subscribe(self._mailbox, request_ids)

    def discard(self, *request_ids: str) -> None:
        """Watch these ids no longer; nothing of them comes out any more, read or unread."""
        self._subscriptions.unsubscribe(self._mailbox, request_ids)

    def eta(self, request_id: str) -> Eta | None:
        """Return how long the video of an id will take, or None where nothing is known."""
        return self._subscriptions.eta(self._mailbox, request_id)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Transition:
        self._acknowledge()
        transition = await self._mailbox.take()
        if transition.final and (reader := asyncio.current_task()) is not None:
            self._handed_out[reader] = transition
        return transition

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if exc[0] is None:
            self._acknowledge()
        await self.aclose()

    def _acknowledge(self) -> None:
        # Who asks for the next one, or leaves normally, has dealt with the last one. Who breaks
        # off or raises may have not, and a journal delivers it again after a restart.
        if not self._handed_out:
            return
        this = asyncio.current_task()
        for reader in tuple(self._handed_out):
            if reader is this or reader.done():
                end = self._handed_out.pop(reader)
                if reader is this or _has_returned(reader):
                    self._subscriptions.acknowledge(end)

    async def aclose(self) -> None:
        """End the watch; who iterates it comes to an end. Never blocks, and may be repeated."""
        self._closed = True
        self._subscriptions.unsubscribe(self._mailbox, tuple(self._mailbox.states))
        self._mailbox.close()

    def __del__(self) -> None:
        if self._mailbox.states or self._mailbox.deadline is not None:
            self._subscriptions.abandon(self._mailbox)


def _has_returned(reader: asyncio.Task[Any]) -> bool:
    # A task that raised has a stack: of where it did. To ask for the exception itself would make
    # asyncio believe that it was seen, and not log it.
    return not reader.cancelled() and not reader.get_stack(limit=1)
