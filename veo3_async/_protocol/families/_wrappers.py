"""What stands around the state of a task: envelopes of gateways, lists of one, JSON in a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from veo3_async._protocol.parsing import opened

__all__ = ["Merge", "merged_with", "unwrapped"]

Merge: TypeAlias = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]

_WRAPPERS: Final = ("data", "detail", "result")
_BARE_WRAPPERS: Final = ("task", "record", "output", "response", "payload", "body")
"""Of these the state is taken only where nothing around it is one."""
_ALL_WRAPPERS: Final = frozenset(_WRAPPERS + _BARE_WRAPPERS)
_ENVELOPE_WORDS: Final = frozenset({"success", "ok"})
_MAX_WRAPPERS: Final = 4


def merged_with(outer: dict[str, Any], inner: dict[str, Any]) -> dict[str, Any]:
    """Return what an envelope and its content say; the content first, where it says something."""
    return outer | {name: value for name, value in inner.items() if value not in (None, "")}


def unwrapped(
    content: object,
    telling: Iterable[str],
    merge: Merge = merged_with,
    depth: int = _MAX_WRAPPERS,
) -> dict[str, Any] | None:
    """Return the state that a reply is or holds: in a list of one, in ``data`` and the like.

    Each of them may be JSON in a text.

    :param telling: Fields of which a state has at least one.
    :param merge: Makes one of an envelope and its content.
    """
    content = opened(content)
    if isinstance(content, list) and len(content) == 1 and depth:
        return unwrapped(content[0], telling, merge, depth - 1)
    if not isinstance(content, dict):
        return None
    if not depth or _ALL_WRAPPERS.isdisjoint(content):
        return content
    for name in _wrappers_of(content):
        if isinstance(content.get(name), dict | list | str):
            inner = unwrapped(content[name], telling, merge, depth - 1)
            if inner is not None and _tells(inner, telling):
                outer = {key: value for key, value in content.items() if key != name}
                return merge(outer, inner)
    return content


def _wrappers_of(content: dict[str, Any]) -> tuple[str, ...]:
    status = content.get("status")
    is_bare = not isinstance(status, str) or status.lower() in _ENVELOPE_WORDS
    return _WRAPPERS + _BARE_WRAPPERS if is_bare else _WRAPPERS


def _tells(content: dict[str, Any], telling: Iterable[str]) -> bool:
    return any(isinstance(content.get(name), str | bool | int) for name in telling)
