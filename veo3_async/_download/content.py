"""What bytes are: whether they can be a video, and whether an mp4 is whole.

Labels lie: object stores send videos as ``text/plain`` or ``application/json``, and pages that say
"back soon" as ``video/mp4``. So the first bytes decide.

An mp4 is a row of boxes (ISO/IEC 14496-12, 4.2): four bytes of length, four of type; a length
of 1 says that eight more bytes hold it, a length of 0 that the box goes to the end.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import Final

__all__ = [
    "BOX_BYTES",
    "HEAD_BYTES",
    "BoxScanner",
    "Proof",
    "is_compressed",
    "is_text",
    "prove",
    "unfit",
]

HEAD_BYTES: Final = 512
"""How many of the first bytes decide: what browsers look at is 1,445 (WHATWG, MIME Sniffing), but
no video has so many without a control character in them."""

BOX_BYTES: Final = 16
"""How many bytes a box's header may have."""

_NEEDED: Final = frozenset({b"ftyp", b"moov", b"mdat"})
_MAX_BOXES: Final = 100_000
_PRINTABLE: Final = frozenset(range(0x20, 0x7F))

_BYTE_ORDER_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_MARKUP: Final = re.compile(rb"[ \t\r\n\f]*<[A-Za-z!?/]")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")

_PICTURE: Final = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF.{4}WEBP|BM.{4}\0\0\0\0|II\*\0|MM\0\*|%PDF-"
    rb"|.{4}ftyp(?:avi[fs]|hei[cmsx]|hevc|hevx|mif1|msf1)",
    re.DOTALL,
)
_VIDEO: Final = re.compile(
    rb".{4}(?:ftyp|styp|moov|mdat|free|skip|wide)"  # mp4, QuickTime
    rb"|\x1aE\xdf\xa3"  # Matroska, WebM
    rb"|RIFF.{4}AVI |FLV\x01|OggS|\0\0\x01[\xb3\xba]|0&\xb2u"
    rb"|G.{187}G",  # MPEG transport stream
    re.DOTALL,
)
_COMPRESSIONS: Final = frozenset(
    {"br", "compress", "dcb", "dcz", "deflate", "gzip", "x-compress", "x-gzip", "zstd"}
)


class Proof(enum.Enum):
    """What the boxes say about the end of a file."""

    WHOLE = "whole"
    """The boxes fill the file exactly, and none that a video needs is missing."""
    CUT = "cut"
    """The file ends inside a box, or before one that a video needs."""
    NONE = "none"
    """It is no mp4, or one whose end cannot be seen (an open last box, fragments without
    the index that ends them)."""


def is_text(head: bytes) -> bool:
    """Return whether a file that begins so is HTML, JSON or another text, not a video.

    :param head: Its first `HEAD_BYTES`, or all of a shorter one.

    Text of any encoding but UTF-16, which has a mark, is without control characters; a video begins
    with a length, whose first byte is 0, or has some other within its first bytes.
    """
    if head.startswith(_BYTE_ORDER_MARKS) or _MARKUP.match(head):
        return True
    return bool(head) and not _CONTROL.search(head)


def is_text_within(piece: bytes) -> bool:
    """Return whether a piece from the middle of a video can only be a text in its place.

    Any few bytes may be in a video, and begin like markup; so many without a control character are
    not.
    """
    return len(piece) >= HEAD_BYTES and not _CONTROL.search(piece, 0, HEAD_BYTES)


def is_compressed(encoding: str) -> bool:
    """Return whether a ``Content-Encoding`` names a compression.

    Others come too, and say nothing of the bytes: ``aws-chunked``, ``utf-8``, ``binary``.
    """
    return not _COMPRESSIONS.isdisjoint(re.split(r"[\s,;]+", encoding.lower()))


def unfit(head: bytes, encoding: str) -> str | None:
    """Say why a body that begins so is no video, or None where it may be one.

    :param head: Its first `HEAD_BYTES`, or all of a shorter one.
    :param encoding: What its ``Content-Encoding`` says.
    """
    if is_text(head):
        return "the server sent a text in place of the video"
    if _PICTURE.match(head):
        return "the server sent a picture or a document in place of the video"
    if is_compressed(encoding) and not _VIDEO.match(head):
        return f"the server sent the file compressed, as {encoding[:32]!r}, though asked not to"
    return None


class BoxScanner:
    """Walks the boxes of a file, of which it sees the headers only.

    ``next`` is where the next header is wanted, or None where there can be none.
    """

    def __init__(self) -> None:
        self.next: int | None = 0
        self._end = 0
        self._names: list[bytes] = []
        self._odd_at: int | None = None

    def add(self, header: bytes) -> None:
        """Take the bytes at ``next``: `BOX_BYTES`, or what there is to the end of the file."""
        assert self.next is not None  # noqa: S101 - nobody else walks
        length, name = _box(header)
        if length is None or len(self._names) == _MAX_BOXES:
            self._odd_at, self.next = self.next, None
            return
        self._names.append(name)
        self._end = self.next = self.next + length

    def verdict(self, size: int) -> Proof:
        """Return what is proved of a file of so many bytes, of which all was seen."""
        if self._odd_at is not None and self._odd_at + BOX_BYTES <= size:
            return Proof.NONE
        names = self._names
        if names[:1] != [b"ftyp"]:
            return Proof.NONE
        if self._odd_at is not None or self._end != size or not _NEEDED.issubset(names):
            return Proof.CUT
        return Proof.NONE if b"moof" in names and names[-1] != b"mfra" else Proof.WHOLE


def prove(size: int, read: Callable[[int, int], bytes]) -> Proof:
    """Walk the boxes of a file.

    :param size: Its length in bytes.
    :param read: Returns the bytes at an offset, so many or what there is.
    """
    boxes = BoxScanner()
    while boxes.next is not None and boxes.next < size:
        boxes.add(read(boxes.next, BOX_BYTES))
    return boxes.verdict(size)


def _box(header: bytes) -> tuple[int | None, bytes]:
    """Return a box's length and type; the length is None where the header makes no sense."""
    length, name, smallest = int.from_bytes(header[:4]), header[4:8], 8
    if length == 1:
        length, smallest = int.from_bytes(header[8:16]), 16
    sensible = len(header) >= smallest and length >= smallest and _PRINTABLE.issuperset(name)
    return (length if sensible else None), name
