"""A watch with a timeout, polled by whatever workers there are."""

from __future__ import annotations

import datetime
import math
import time
from typing import TYPE_CHECKING, Final, Self

import anyio

from veo3_async._arguments import seconds
from veo3_async._errors import StillPending
from veo3_async._models import Phase, Transition, VideoTask
from veo3_async._pacing.policies import Eta

if TYPE_CHECKING:
    from veo3_async.cluster._cluster import Cluster

__all__ = ["ClusterWatch"]


class ClusterWatch:
    """Some ids, handed in and listened to until they are final or the time is over.

    An async context manager and an async iterator of `Transition`.

    :param request_ids: As the service gave them.
    :param timeout: Seconds for the whole watch, after which every unfinished id ends with
        `StillPending` here, and the workers go on with it; None waits for ever.
    """

    def __init__(
        self, cluster: Cluster, *request_ids: str, timeout: float | datetime.timedelta | None = None
    ) -> None:
        self._cluster: Final = cluster
        self._changes: Final = cluster.transitions(*request_ids)
        self._timeout: Final = math.inf if timeout is None else seconds("timeout", timeout)
        self._deadline = math.inf
        self._left: Final[dict[str, Transition | None]] = dict.fromkeys(request_ids)
        """The last transition of each that is not final."""

    async def __aenter__(self) -> Self:
        self._deadline = anyio.current_time() + self._timeout
        await self._cluster.watch(*self._left)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._changes.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Transition:
        """Return the next change, or the end of one for which the time is over.

        :raises ClusterError: As `Changes`.
        """
        if anyio.current_time() < self._deadline:
            with anyio.CancelScope(deadline=self._deadline):
                return self._noted(await anext(self._changes))
        if not self._left:
            raise StopAsyncIteration
        return self._given_up(*self._left.popitem())

    def eta(self, request_id: str) -> Eta | None:
        """Return what is left by the last transition: no pacing knows more in this process."""
        last = self._left.get(request_id)
        if last is None or last.eta is None:
            return None
        left = max(0.0, last.observed_at + last.eta - time.time())
        return Eta(left, left, left)

    def _noted(self, change: Transition) -> Transition:
        if change.final:
            self._left.pop(change.request_id, None)
        else:
            self._left[change.request_id] = change
        return change

    def _given_up(self, request_id: str, last: Transition | None) -> Transition:
        task = VideoTask(id=request_id, status="") if last is None else last.task
        return Transition(
            request_id=request_id,
            phase=Phase.LOST,
            previous=None if last is None else last.phase,
            status="" if last is None else last.status,
            task=task,
            observed_at=time.time(),
            final=True,
            error=StillPending(
                f"not finished after {self._timeout:g} s; the workers go on with it",
                request_id=request_id,
                elapsed=self._timeout,
                task=task,
            ),
        )
