"""Servers that limit how often they are asked, each in its own way; pure, in virtual time.

A limiter is asked for each request, in the order of their arrival, and says what becomes of it.
"""

from __future__ import annotations

import collections
import math
import random
from collections.abc import Callable
from typing import Final

import msgspec

from veo3_async._protocol.errors import Kind

__all__ = ["KINDS", "Answer", "Limiter", "refused_always"]

LATENCY: Final = 0.05
"""Seconds from a request to its answer."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a request meets."""

    refusal: Kind | None = None
    """None where the request is served."""
    retry_after: float | None = None
    """Seconds."""
    is_about_rate: bool = True
    """False where the gateway's own code says that the refusal is not for the rate."""
    seconds: float = LATENCY
    """From the request to this answer."""


Limiter = Callable[[float, str], Answer]
"""From the second since the first request, and the id, to the answer."""

SERVED: Final = Answer()
REFUSED: Final = Answer(Kind.THROTTLED)
NO_CHANNEL: Final = Answer(Kind.OVERLOADED, is_about_rate=False)


def a_window(count: int, seconds: float, *, hint: bool = False) -> Limiter:
    """Serve so many in each minute, or whatever, of the clock; refused requests do not count.

    :param hint: Whether a refusal says when the next window begins.
    """
    served: collections.Counter[int] = collections.Counter()

    def limiter(now: float, _: str) -> Answer:
        window = math.floor(now / seconds)
        if served[window] < count:
            served[window] += 1
            return SERVED
        left = (window + 1) * seconds - now
        return Answer(Kind.THROTTLED, math.ceil(left) if hint else None)

    return limiter


def each_second(count: int, refused: Answer = REFUSED) -> Limiter:
    """Serve the first so many of each second of the clock."""
    asked: collections.Counter[int] = collections.Counter()

    def limiter(now: float, _: str) -> Answer:
        asked[math.floor(now)] += 1
        return SERVED if asked[math.floor(now)] <= count else refused

    return limiter


def sliding(count: int, seconds: float) -> Limiter:
    """Serve so many in any window of so many seconds."""
    served: collections.deque[float] = collections.deque()

    def limiter(now: float, _: str) -> Answer:
        while served and served[0] <= now - seconds:
            served.popleft()
        if len(served) >= count:
            return REFUSED
        served.append(now)
        return SERVED

    return limiter


def bucket(rate: float, capacity: float) -> Limiter:
    """Serve what a token bucket has."""
    tokens, refilled = capacity, 0.0

    def limiter(now: float, _: str) -> Answer:
        nonlocal tokens, refilled
        tokens, refilled = min(capacity, tokens + (now - refilled) * rate), now
        if tokens < 1:
            return REFUSED
        tokens -= 1
        return SERVED

    return limiter


def banning(inner: Limiter, seconds: float, *, adds: bool = False) -> Limiter:
    """Refuse everything for a while after each refusal, those of the ban included.

    :param adds: Whether each refused request makes the ban so much longer, and does not only
        begin it anew.
    """
    until = -math.inf

    def limiter(now: float, request_id: str) -> Answer:
        nonlocal until
        if now >= until and inner(now, request_id) is SERVED:
            return SERVED
        until = (max(until, now) if adds else now) + seconds
        return REFUSED

    return limiter


def in_flight(count: int, seconds: float) -> Limiter:
    """Serve so many at once, each of which takes its time."""
    ends: collections.deque[float] = collections.deque()

    def limiter(now: float, _: str) -> Answer:
        while ends and ends[0] <= now:
            ends.popleft()
        if len(ends) >= count:
            return REFUSED
        ends.append(now + seconds)
        return Answer(seconds=seconds)

    return limiter


def each_id(seconds: float, *, hint: bool) -> Limiter:
    """Serve each id once in so many seconds."""
    last: dict[str, float] = {}

    def limiter(now: float, request_id: str) -> Answer:
        if now - last.get(request_id, -math.inf) < seconds:
            return Answer(Kind.THROTTLED, seconds if hint else None)
        last[request_id] = now
        return SERVED

    return limiter


def some(share: float, refused: Answer, seed: int = 1) -> Limiter:
    """Refuse some by chance, as a service does of which one node has no capacity."""
    rng = random.Random(seed)
    return lambda _, __: refused if rng.random() < share else SERVED


def of(*limiters: Limiter) -> Limiter:
    """Serve what all of them serve; the first refusal is the answer."""

    def limiter(now: float, request_id: str) -> Answer:
        for one in limiters:
            if (answer := one(now, request_id)).refusal is not None:
                return answer
        return answer

    return limiter


def refused_always(request_id: str) -> bool:
    """Return whether an id is one of those that `two_ids` refuses."""
    return request_id.endswith(("-000", "-001"))


def two_ids(retry_after: float | None) -> Limiter:
    """Refuse two ids, whenever they are asked for, and no others."""
    refused = Answer(Kind.THROTTLED, retry_after)
    return lambda _, request_id: refused if refused_always(request_id) else SERVED


KINDS: Final[dict[str, Callable[[], Limiter]]] = {
    "5 in each second": lambda: each_second(5),
    "5 in each second, 503": lambda: each_second(5, Answer(Kind.OVERLOADED)),
    "5 in each second, `Retry-After: 0`": lambda: each_second(5, Answer(Kind.THROTTLED, 0.0)),
    "20 in any second": lambda: sliding(20, 1),
    "5/s, one each 0.2 s": lambda: bucket(5, 1),
    "30 in any 10 s": lambda: sliding(30, 10),
    "60 a minute": lambda: a_window(60, 60),
    "60 a minute, with a hint": lambda: a_window(60, 60, hint=True),
    "3 in flight, 0.5 s each": lambda: in_flight(3, 0.5),
    "5/s, a ban of 3 s, renewed": lambda: banning(bucket(5, 5), 3),
    "5/s, a ban of 10 s, renewed": lambda: banning(bucket(5, 5), 10),
    "5/s, a ban of 60 s, renewed": lambda: banning(bucket(5, 5), 60),
    "5/s, each refusal adds 5 s": lambda: banning(bucket(5, 5), 5, adds=True),
    "an id each 8 s": lambda: each_id(8, hint=False),
    "an id each 8 s, with a hint": lambda: each_id(8, hint=True),
    "2 of 200 ids": lambda: two_ids(None),
    "2 of 200 ids, `Retry-After: 120`": lambda: two_ids(120.0),
    "1 node of 3: 429": lambda: some(1 / 3, REFUSED),
    "1 node of 3: 503, its own code": lambda: some(1 / 3, NO_CHANNEL),
    "1 node of 3: 503, its own code, `Retry-After: 60`": lambda: some(
        1 / 3, Answer(Kind.OVERLOADED, 60.0, is_about_rate=False)
    ),
    "1 node of 3: 503, `Retry-After: 5`": lambda: some(1 / 3, Answer(Kind.OVERLOADED, 5.0)),
    "1 node of 3: 503, `Retry-After: 60`": lambda: some(1 / 3, Answer(Kind.OVERLOADED, 60.0)),
    "by chance 1 % 429, 1 % 503": lambda: of(some(0.01, REFUSED), some(0.01, NO_CHANNEL, 2)),
    "no limit": lambda: of(some(0.0, REFUSED)),
}
