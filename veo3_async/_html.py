"""Values as a notebook shows them: a small table, and the video where there is one."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Final

from veo3_async._text import plain

__all__ = ["facts_html"]

_SCHEMES: Final = ("https://", "http://")


def facts_html(facts: Iterable[tuple[str, object]], *, video: str | None = None) -> str:
    """Return a table of names and values; what is None or empty is left out.

    :param video: URL of a video to play; None for none. What is no http(s) is a text only.
    """
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(plain(value))}</td></tr>"
        for name, value in facts
        if value is not None and value != ""
    )
    table = f"<table>{rows}</table>"
    if video is None or not video.startswith(_SCHEMES):
        return table
    source = html.escape(plain(video))
    return f'<video src="{source}" width="480" controls preload="metadata"></video>{table}'
