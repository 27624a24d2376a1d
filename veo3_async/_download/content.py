"""Whether bytes can be a film, and whether a film is whole, told from its mp4 boxes.

An mp4 is a row of boxes (ISO/IEC 14496-12, 4.2): four bytes of length, four of type; a length
of 1 says that eight more bytes hold it, a length of 0 that the box goes to the end.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

__all__ = ["HEAD_BYTES", "Proof", "is_text", "prove"]

HEAD_BYTES: Final = 16
"""How many bytes `is_text` and a box header need."""

_NEEDED: Final = frozenset({b"ftyp", b"moov", b"mdat"})
_MAX_BOXES: Final = 100_000
_TEXT: Final = frozenset(b"\t\n\r") | frozenset(range(0x20, 0x7F))
_BYTE_ORDER_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


class Proof(enum.Enum):
    """What the boxes say about the end of a file."""

    WHOLE = "whole"
    """The boxes fill the file exactly, and none that a film needs is missing."""
    CUT = "cut"
    """The file ends inside a box, or before one that a film needs."""
    NONE = "none"
    """It is no mp4, or one whose end cannot be seen (an open last box, fragments without
    the index that ends them)."""


def is_text(head: bytes) -> bool:
    """Return whether a file that begins so is HTML, JSON or another text, not a film.

    :param head: Its first `HEAD_BYTES`, or all of a shorter one.

    A film begins with the length of its first box, so its first byte is 0.
    """
    return head.startswith(_BYTE_ORDER_MARKS) or (bool(head) and _TEXT.issuperset(head))


def prove(size: int, read: Callable[[int, int], bytes]) -> Proof:
    """Walk the boxes of a file.

    :param size: Its length in bytes.
    :param read: Returns the bytes at an offset, so many or what there is.
    """
    names: list[bytes] = []
    offset = 0
    while offset < size:
        length, name = _box(read(offset, HEAD_BYTES))
        if length is None or len(names) == _MAX_BOXES:
            return Proof.NONE if offset + HEAD_BYTES <= size else _cut(names)
        names.append(name)
        offset += length
    if names[:1] != [b"ftyp"] or offset > size or not _NEEDED.issubset(names):
        return _cut(names)
    return Proof.NONE if b"moof" in names and names[-1] != b"mfra" else Proof.WHOLE


def _box(header: bytes) -> tuple[int | None, bytes]:
    """Return a box's length and type; the length is None where the header makes no sense."""
    length, name, smallest = int.from_bytes(header[:4]), header[4:8], 8
    if length == 1:
        length, smallest = int.from_bytes(header[8:16]), 16
    sensible = len(header) >= smallest and length >= smallest and _TEXT.issuperset(name)
    return (length if sensible else None), name


def _cut(names: list[bytes]) -> Proof:
    return Proof.CUT if names[:1] == [b"ftyp"] else Proof.NONE
