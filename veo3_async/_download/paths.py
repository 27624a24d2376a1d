"""Where a video goes: file names that are made of the request id."""

from __future__ import annotations

import errno
import hashlib
import os
import pathlib
import re
from typing import Final

__all__ = ["file_name", "final_path"]

_USUAL_ID: Final = re.compile(r"([a-z0-9-]{1,40}):([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def file_name(request_id: str | None, url: str) -> str:
    """Return the name of a video in a folder: made of the request id, never of what a server says.

    ``veo3-pro:6893…`` gives ``veo3-pro-6893….mp4``. An id of another shape gives its harmless
    characters and a hash of it, so that no two ids share a name; a bare URL gives a hash.
    """
    if not request_id:
        return f"video-{_digest(url, 16)}.mp4"
    if usual := _USUAL_ID.fullmatch(request_id):
        return f"{usual[1]}-{usual[2]}.mp4"
    harmless = re.sub(r"[^A-Za-z0-9-]+", "_", request_id)[:80]
    return f"video-{harmless}-{_digest(request_id, 8)}.mp4"


def final_path(path: str | os.PathLike[str], name: str) -> pathlib.Path:
    """Return where a video goes, absolute, links in its folder resolved.

    :param path: A file, or a folder; what ends with a slash is a folder.
    :param name: The file's name in a folder.
    :raises OSError: No file can be there.
    """
    text = os.fspath(path)
    if not _can_be_a_path(text):
        raise OSError(errno.EINVAL, "no file can be named so; name another path")
    if os.path.isdir(text) or text.endswith((os.sep, os.altsep or os.sep)):  # noqa: PTH112 - a Path drops the slash
        text = os.path.join(text, name)  # noqa: PTH118
    folder, last = os.path.split(text)
    return pathlib.Path(os.path.realpath(folder or os.curdir), last)


def _can_be_a_path(text: str) -> bool:
    try:
        return bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _digest(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:digits]
