"""Where a task is polled: where it was submitted; else by its prefix, else by default."""

from __future__ import annotations

import functools

from veo3_async._metadata import Origin
from veo3_async._protocol.families import Route, route_for_id

__all__ = ["polled_at", "submitted_to"]


def submitted_to(origin: Origin) -> Route | None:
    """Return where a task was submitted; None where that is not known."""
    if origin.family is None or origin.path is None:
        return None
    return _route(origin.family, origin.path)


def polled_at(request_id: str, origin: Origin, default: Route) -> Route:
    """Return where a task is polled.

    :param origin: What is known of it.
    :param default: Where an id is polled of which nothing is known.
    """
    return submitted_to(origin) or route_for_id(request_id, default)


@functools.lru_cache(maxsize=256)
def _route(family: str, path: str) -> Route:
    # A million ids of a journal share a dozen of them.
    return Route(family, path)
