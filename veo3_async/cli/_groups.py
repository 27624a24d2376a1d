"""Options that several commands share, as one parameter of theirs."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

__all__ = ["Group", "expanded"]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter that stands for its fields, each of which is an option."""


def expanded(command: Callable[..., int], **beside: inspect.Parameter) -> Callable[..., int]:
    """Return a command with the fields of its groups as parameters, as typer reads them.

    :param beside: Further parameters, whose values the command does not get.
    """
    hints = typing.get_type_hints(command, include_extras=True)
    groups = {
        name: hint
        for name, hint in hints.items()
        if inspect.isclass(hint) and issubclass(hint, Group)
    }

    @functools.wraps(command)
    def run(**given: Any) -> int:  # noqa: ANN401 - whatever the options are
        for name, group in groups.items():
            fields = {field: given.pop(field) for field in group.__struct_fields__}
            given[name] = group(**fields)
        return command(**{name: value for name, value in given.items() if name not in beside})

    own = inspect.signature(command).parameters.values()
    parameters = [p for one in own for p in _parameters_of(one, hints, groups)]
    names = [p.name for p in parameters]
    parameters += [p for name, p in beside.items() if name not in names]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _parameters_of(
    one: inspect.Parameter, hints: dict[str, Any], groups: dict[str, type[Group]]
) -> Iterator[inspect.Parameter]:
    group = groups.get(one.name)
    if group is None:
        yield one.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[one.name])
        return
    fields = typing.get_type_hints(group, include_extras=True)
    for field in msgspec.structs.fields(group):
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.required else field.default,
            annotation=fields[field.name],
        )
