"""The families of endpoints, one module each: how a task is submitted, asked for and read.

A family is a module of this shape; to add one is to add the module and a row of `_FAMILIES`.
What its replies say comes out as a `VideoTask` of the same meaning for all, or as a `Problem`.
"""

from __future__ import annotations

import difflib
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final, Protocol

from veo3_async._errors import InvalidRequest
from veo3_async._models import VideoTask
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.families import queue, record, tasks, unified
from veo3_async._protocol.families._options import Image, Order, SubmitOptions, image_urls
from veo3_async._protocol.families._route import Route
from veo3_async._protocol.http import Call, Reply
from veo3_async._protocol.ids import check_model
from veo3_async._protocol.submission import checked_prompt, json_body

__all__ = [
    "Image",
    "Route",
    "SubmitOptions",
    "poll_call",
    "posted_to",
    "read",
    "route_for_id",
    "route_of",
    "siblings",
    "submit_call",
    "submitted",
]


class _Family(Protocol):
    @property
    def NAME(self) -> str: ...  # noqa: N802 - a constant of the module

    @property
    def MODELS(self) -> tuple[str, ...]: ...  # noqa: N802 - likewise

    @property
    def TAKES_WEBHOOKS(self) -> bool: ...  # noqa: N802 - likewise

    def route_of(self, model: str) -> Route: ...

    def posted_to(self, route: Route, *, image: object | None) -> Route: ...

    def body_of(self, route: Route, order: Order) -> dict[str, Any]: ...

    def submitted(self, route: Route, reply: Reply, *, wall_now: float) -> str | Problem: ...

    def poll_call(self, route: Route, request_id: str) -> Call: ...

    def read(
        self, route: Route, reply: Reply, *, request_id: str, wall_now: float
    ) -> VideoTask | Problem: ...

    def siblings(self, route: Route) -> tuple[Route, ...]: ...


_FAMILIES: Final[dict[str, _Family]] = {
    family.NAME: family for family in (record, queue, tasks, unified)
}

_SAME_LETTERS: Final = 0.8
"""From which likeness on a name is taken for a misspelt one (`difflib`, 0 to 1)."""


def route_of(model: str, family: str | None = None) -> Route:
    """Return where tasks of a model are posted and polled.

    A name that no family is known to have is the unified endpoint's, but for one that looks like
    a known name that is misspelt: that costs money elsewhere, or nothing is made.

    :param family: Says it where the name does not, and takes any name; None goes by the name.
    :raises InvalidRequest: The model cannot be a part of a path, is near to one that is known, or
        there is no such family.
    """
    check_model(model)
    if family is not None:
        if family not in _FAMILIES:
            message = f"there is no family {family!r}; there are {', '.join(_FAMILIES)}"
            raise InvalidRequest(message)
        return _FAMILIES[family].route_of(model)
    for one in _FAMILIES.values():
        if model in one.MODELS:
            return one.route_of(model)
    if _plain(model) in unified.MODELS:
        return unified.route_of(model)
    if near := _near(model):
        message = (
            f"no model {model!r} is known; near it are {', '.join(near)}. If it is the unified "
            f"endpoint's all the same, say family={unified.NAME!r}"
        )
        raise InvalidRequest(message)
    return unified.route_of(model)


def _near(model: str) -> list[str]:
    """Return known names that a name may be a slip of; another version of one is none."""
    known = [name for one in _FAMILIES.values() for name in one.MODELS]
    plain = _plain(model)
    close = difflib.get_close_matches(plain, known, n=3, cutoff=_SAME_LETTERS)
    return [name for name in close if _words(name) != _words(plain) or name == plain]


def _plain(model: str) -> str:
    """Return a name as the unified endpoint compares it."""
    return model.lower().replace("_", "-")


def _words(name: str) -> str:
    return re.sub(r"[0-9.]+", "#", name)


def route_for_id(request_id: str, default: Route) -> Route:
    """Return where an id from elsewhere is polled: by its known prefix, else the default."""
    return record.route_for_id(request_id) or default


def posted_to(route: Route, *, image: object | None) -> Route:
    """Return where a task with or without an image is posted; it is polled there, too.

    :raises InvalidRequest: The model wants an image, or takes none.
    """
    return _FAMILIES[route.family].posted_to(route, image=image)


def submit_call(
    route: Route,
    prompt: str,
    *,
    image: Image | None = None,
    options: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    webhook: str | None = None,
) -> Call:
    """Return the request that submits a task.

    :param image: URL of an image that the video begins with, or None; a list of several, and
        ``data:`` URLs, where the family takes them.
    :param options: Fields that the family documents, by their names; None in one leaves it away.
    :param extra: Further fields, as they are sent.
    :param webhook: URL that the service posts to at the end, where the family documents it.
    :raises InvalidRequest: Something of it cannot be sent, or the family does not know it.
    """
    family = _FAMILIES[route.family]
    order = Order(checked_prompt(prompt), image, options or {}, extra or {})
    body = json_body(family.body_of(route, order), extra)
    target = posted_to(route, image=image).path
    if webhook is not None:
        if not family.TAKES_WEBHOOKS:
            message = f"the family {family.NAME} has no webhooks; only unified has"
            raise InvalidRequest(message)
        target += "?" + urllib.parse.urlencode({"webhook": image_urls(webhook)[0]})
    return Call("POST", target, body)


def submitted(route: Route, reply: Reply, *, wall_now: float) -> str | Problem:
    """Return the id that a reply to a submission names, or what is wrong with the reply."""
    return _FAMILIES[route.family].submitted(route, reply, wall_now=wall_now)


def poll_call(route: Route, request_id: str) -> Call:
    """Return the request for the state of a task."""
    return _FAMILIES[route.family].poll_call(route, request_id)


def read(route: Route, reply: Reply, *, request_id: str, wall_now: float) -> VideoTask | Problem:
    """Judge a reply to a poll. Total: any bytes give a task or a problem.

    The id that the reply names is in the task, and may be another than the one asked for.
    """
    return _FAMILIES[route.family].read(route, reply, request_id=request_id, wall_now=wall_now)


def siblings(route: Route) -> tuple[Route, ...]:
    """Return the other paths of a family: to be asked before a 404 of the API ends an id."""
    return _FAMILIES[route.family].siblings(route)
