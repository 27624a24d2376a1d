"""Where a task is posted and polled."""

from __future__ import annotations

import msgspec

__all__ = ["Route"]


class Route(msgspec.Struct, frozen=True, gc=False):
    """The endpoint of one task; it travels with the id, for the id alone does not tell it."""

    family: str
    """Name of the family of endpoints, such as ``record``."""
    path: str
    """Path that the task was posted to, such as ``/302/submit/veo3-pro``."""
    model: str = ""
    """Model that is asked for at that path, or empty where the path names it."""
