"""Paths that go on meaning what they meant."""

from __future__ import annotations

import os

__all__ = ["absolute", "lasting"]


def absolute(path: str | os.PathLike[str]) -> str:
    """Return a path that means the present folder, whatever ``chdir`` does later.

    Not normalized, for a link may be in it.

    :raises FileNotFoundError: The present folder is gone.
    """
    name = os.fsdecode(path)
    if os.path.isabs(name):  # noqa: PTH117
        return name
    return os.path.join(os.fsdecode(os.getcwdb()), name)  # noqa: PTH109, PTH118


def lasting(path: str | os.PathLike[str]) -> str:
    """Return `absolute` of a path, or the path itself where the present folder is gone."""
    try:
        return absolute(path)
    except FileNotFoundError:
        return os.fspath(path)  # its opening says so
