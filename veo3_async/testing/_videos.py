"""Video files without a picture: small valid mp4 boxes around bytes that follow from the name.

A video of any size costs no memory: its content is computed, so that a byte that went missing,
was doubled or came from another video shows.
"""

from __future__ import annotations

import functools
import hashlib
import random
import re
import struct
from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Excerpt", "Video", "requested_range"]

_BLOCK: Final = 1 << 16
_BOX: Final = struct.Struct(">I4s")


def _box(kind: bytes, content: bytes) -> bytes:
    return _BOX.pack(8 + len(content), kind) + content


_HEAD: Final = _box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41") + _box(
    b"moov",
    # mvhd version 0: times, scale 1000, duration 8 s, rate 1, volume 1, the identity matrix
    _box(
        b"mvhd",
        struct.pack(">5IIH10x", 0, 0, 0, 1000, 8000, 0x10000, 0x100)
        + struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
        + struct.pack(">7I", 0, 0, 0, 0, 0, 0, 1),
    ),
)
_SMALLEST: Final = len(_HEAD) + _BOX.size
_BIGGEST: Final = (1 << 32) - 1 + len(_HEAD)


class Video(msgspec.Struct, frozen=True, kw_only=True):
    """A video file, and how it is served.

    :raises ValueError: The size is out of range.
    """

    size: int = _BLOCK
    """Bytes, from 156 to about 4 GiB."""
    version: int = 0
    """Another version of the same name has other bytes and another ETag."""
    etag: Literal["strong", "weak", "none"] = "strong"
    """Which ``ETag`` is sent."""
    ranges: bool = True
    """Whether ``Range`` is obeyed; False always sends the whole."""
    sized: bool = True
    """Whether ``Content-Length`` is sent; False sends chunks."""

    def __post_init__(self) -> None:
        if not _SMALLEST <= self.size <= _BIGGEST:
            message = f"size is between {_SMALLEST} and {_BIGGEST} bytes, not {self.size!r}"
            raise ValueError(message)

    def validator(self, name: str) -> str | None:
        """Return the value of ``ETag``, or None where none is sent."""
        if self.etag == "none":
            return None
        digest = hashlib.blake2b(f"{name} {self.version} {self.size}".encode(), digest_size=16)
        return f'{"W/" if self.etag == "weak" else ""}"{digest.hexdigest()}"'

    def content(self, name: str) -> bytes:
        """Return all of it, to compare a download with."""
        return b"".join(Excerpt(self, name, 0, self.size).chunks())


class Excerpt(msgspec.Struct, frozen=True):
    """Bytes ``start`` to ``stop`` (not included) of a video."""

    video: Video
    name: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def chunks(self) -> Iterator[bytes]:
        """Yield them in order, at most 64 KiB at a time."""
        for number in range(self.start // _BLOCK, -(-self.stop // _BLOCK)):
            offset = number * _BLOCK
            block = self._block(number)
            yield block[max(0, self.start - offset) : self.stop - offset]

    def _block(self, number: int) -> bytes:
        block = number.to_bytes(8, "big") + _noise(f"{self.name} {self.video.version}")[8:]
        if number == 0:
            head = _HEAD + _BOX.pack(self.video.size - len(_HEAD), b"mdat")
            block = head + block[len(head) :]
        return block


@functools.lru_cache(maxsize=16)
def _noise(seed: str) -> bytes:
    return random.Random(seed).randbytes(_BLOCK)


def requested_range(said: str | None, size: int) -> tuple[int, int] | None:
    """Return the bytes that a ``Range`` header asks for, or None for the whole file.

    One range is obeyed, several are not (RFC 9110 allows to ignore the header).

    :raises ValueError: It asks for nothing that the file has.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", said or "")
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match[1], match[2]
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= stop:
        message = f"no byte of {said!r} is in a file of {size}"
        raise ValueError(message)
    return start, stop
