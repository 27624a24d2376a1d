"""The video files that the replies of the fake point to: what is served, and until when."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from veo3_async.testing._replies import Answer, file_answer, refusal

if TYPE_CHECKING:
    from veo3_async.testing._requests import Received
    from veo3_async.testing._videos import Video

__all__ = ["URL_FIELDS", "Files", "file_name"]

URL_FIELDS: Final = ("video_url", "upsample_video_url")
_FILE: Final = re.compile(r"/files/([^/]+\.(?:mp4|jpg))")


def file_name(request_id: str, field: str, renewals: int) -> str:
    """Return the name of a video of a task.

    :param renewals: How often its URLs have expired.
    """
    seed = f"{field} {renewals} {request_id}"
    return hashlib.blake2b(seed.encode(), digest_size=16).hexdigest() + ".mp4"


class Files:
    """What is served under ``/files/``.

    :param video: What a name has that has no video of its own.
    :param uploads: What was uploaded, by name.
    """

    def __init__(self, video: Video, uploads: Mapping[str, bytes]) -> None:
        self.url = ""
        """Where they are, with a slash at the end."""
        self.videos: Final[dict[str, Video]] = {}
        """What is served under a name, where it is not the usual video."""
        self._video: Final = video
        self._uploads: Final = uploads
        self._expired: Final[set[str]] = set()

    def video(self, name: str) -> Video:
        """Return what is served under a file name."""
        return self.videos.get(name, self._video)

    def expire(self, names: Iterable[str]) -> None:
        """Answer 403 to these names from now on."""
        self._expired.update(names)

    def answer(self, request: Received) -> Answer:
        """Return what a request for a file gets."""
        route = _FILE.fullmatch(request.path)
        if route is None or request.method != "GET":
            return refusal(404)
        if (name := route[1]) in self._expired:
            return refusal(403)
        if (uploaded := self._uploads.get(name)) is not None:
            return Answer(200, {"Content-Type": "image/jpeg"}, uploaded)
        said, if_range = request.headers.get("Range"), request.headers.get("If-Range")
        return file_answer(self.video(name), name, said=said, if_range=if_range)
