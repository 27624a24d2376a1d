"""Messages of a consumer: who is idle asks for one, and gets one."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import math
from typing import Final, TypeAlias

import anyio
from nats.aio.msg import Msg

from veo3_async._errors import Veo3Error
from veo3_async.cluster._nats.connection import CLOSE_SECONDS, Link
from veo3_async.cluster._nats.delivery import delivery
from veo3_async.cluster._nats.inbox import Inbox

__all__ = ["Message", "Pull"]

_PULL_SECONDS: Final = 5.0
_OVERDUE_SECONDS: Final = _PULL_SECONDS + 1.0
_TROUBLE_SECONDS: Final = 0.25

_NOTHING_CAME: Final = "408"
_STATUS: Final = "Status"
_UNFILLED: Final = "Nats-Pending-Messages"

# What a message is acknowledged with: ADR-15 of the NATS architecture.
_DONE: Final = b"+ACK"
_BUSY: Final = b"+WPI"
_AGAIN: Final = b'-NAK {"delay": %d}'


class Message:
    """One delivery of a message; it ends in `done` or `again`, through whatever connection."""

    __slots__ = ("_link", "_reply", "_stored_at", "attempts", "data", "sequence", "subject")

    def __init__(self, msg: Msg, link: Link) -> None:
        _, delivered, sequence, _, stored_at, *_ = delivery(msg.reply)
        self._reply = msg.reply
        self._stored_at = stored_at
        self._link = link
        self.subject: Final[str] = msg.subject
        self.data: Final[bytes] = msg.data
        self.sequence: Final = int(sequence)
        """In its stream."""
        self.attempts: Final = int(delivered)
        """Deliveries so far, from 1."""

    @property
    def stored_at(self) -> float:
        """Seconds since the epoch of the server's clock."""
        return int(self._stored_at) / 1e9

    async def busy(self) -> None:
        """Say that it is still being worked on."""
        await self._link.post(self._reply, _BUSY)

    async def done(self) -> None:
        """End it, and return when the server has heard of that.

        :raises ServiceUnavailable: It does not answer.
        """
        await self._link.request(self._reply, _DONE)

    async def again(self, delay: float = 0.0) -> None:
        """Hand it back, to be delivered after so many seconds."""
        await self._link.post(self._reply, _AGAIN % (max(0.0, delay) * 1e9))

    async def hand_back(self, delay: float = 0.0) -> None:
        """Hand it back, whatever happens meanwhile; else it comes again when its time is over."""
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await self.again(delay)


_Waiter: TypeAlias = asyncio.Future[Message | None]


class Pull:
    """Messages of one consumer, one for each who asks.

    Those who begin to wait in the same turn of the loop are one request for as many messages,
    so there is never a message that nobody waits for.
    """

    def __init__(self, link: Link, stream: str, consumer: str) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = Inbox(link, self._arrived)
        self._closed = False
        self.disturbed_at = -math.inf
        """When requests were last lost: a server was restarted, or another one leads. What it
        was to deliver later may come at once. Seconds of the loop's clock."""
        self._unasked: list[_Waiter] = []
        self._waiters: collections.deque[tuple[float, _Waiter]] = collections.deque()
        self._requests: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def next(self) -> Message | None:
        """Return the next message, or None where there was none for about 5 s.

        :raises ClusterError: There is no permission to ask.
        """
        waiter: _Waiter = self._loop.create_future()
        if not self._unasked:
            self._loop.call_soon(self._ask)
        self._unasked.append(waiter)
        try:
            message = await waiter
        except BaseException:
            # Delivered at the very moment of a cancellation: nobody else may have it meanwhile.
            if waiter.done() and not waiter.cancelled() and (late := waiter.result()):
                await late.hand_back()
            raise
        if message is None:
            self._link.check(self._subject)
        return message

    def wake(self) -> None:
        """Let everybody ask anew: what they asked for is lost."""
        self.disturbed_at = self._loop.time()
        waiters = [*self._unasked, *(waiter for _, waiter in self._waiters)]
        self._unasked.clear()
        self._waiters.clear()
        _resolve(waiters)

    async def aclose(self) -> None:
        """Ask for nothing more, and hand back what was on its way. May be repeated."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self.wake()
        await self._inbox.aclose()

    def _ask(self) -> None:
        waiters = [waiter for waiter in self._unasked if not waiter.done()]
        self._unasked.clear()
        if self._closed:
            _resolve(waiters)
        if self._closed or not waiters:
            return
        now = self._loop.time()
        self._waiters.extend((now, waiter) for waiter in waiters)
        if self._timer is None:
            self._timer = self._loop.call_later(_OVERDUE_SECONDS, self._give_up)
        request = self._loop.create_task(self._request(len(waiters)))
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)

    async def _request(self, batch: int) -> None:
        payload = b'{"batch": %d, "expires": %d}' % (batch, int(_PULL_SECONDS * 1e9))
        # Where that fails nothing comes, and `next` looks why; all are woken when it is back.
        with contextlib.suppress(Veo3Error):
            await self._inbox.ask(self._subject, payload)

    def _give_up(self) -> None:
        """Wake who waits too long: the server cannot, where the connection was lost."""
        overdue = self._loop.time() - _OVERDUE_SECONDS
        while self._waiters and self._waiters[0][0] <= overdue:
            _resolve([self._waiters.popleft()[1]])
        self._timer = None
        if self._waiters:
            self._timer = self._loop.call_at(self._waiters[0][0] + _OVERDUE_SECONDS, self._give_up)

    async def _arrived(self, msg: Msg) -> None:
        if not msg.reply:
            self._heard(msg.headers or {})
            return
        message = Message(msg, self._link)
        while self._waiters:
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(message)
                return
        await message.hand_back()

    def _heard(self, headers: dict[str, str]) -> None:
        """Wake those who get a status in place of a message."""
        unfilled = headers.get(_UNFILLED, "")
        waiters = self._oldest(int(unfilled) if unfilled.isdecimal() else len(self._waiters))
        if headers.get(_STATUS) == _NOTHING_CAME:
            _resolve(waiters)
        else:
            self.disturbed_at = self._loop.time()
            self._loop.call_later(_TROUBLE_SECONDS, _resolve, waiters)
            self._link.trouble()

    def _oldest(self, number: int) -> list[_Waiter]:
        found: list[_Waiter] = []
        while self._waiters and len(found) < number:
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                found.append(waiter)
        return found


def _resolve(waiters: list[_Waiter]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
