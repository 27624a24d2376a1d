"""What bytes are, as tables: videos, texts, pictures, and whole or cut mp4s."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo3_async._download.content import Proof, is_text, is_text_within, prove, unfit


def box(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I4s", len(content) + 8, name) + content


FTYP, MOOV, MDAT = box(b"ftyp", b"isom0000"), box(b"moov", b"\0" * 40), box(b"mdat", b"\1" * 99)
LARGE = struct.pack(">I4sQ", 1, b"mdat", 16 + 99) + b"\1" * 99


def proof(data: bytes) -> Proof:
    return prove(len(data), lambda offset, size: data[offset : offset + size])


@pytest.mark.parametrize(
    "boxes",
    [
        (FTYP, MOOV, MDAT),
        (FTYP, MDAT, MOOV),
        (FTYP, box(b"free"), MOOV, LARGE),
        (FTYP, MOOV, box(b"moof"), MDAT, box(b"moof"), MDAT, box(b"mfra")),
    ],
)
def test_whole_videos(boxes: tuple[bytes, ...]) -> None:
    """Boxes that fill the file, with all that a video needs, prove it whole."""
    assert Proof.WHOLE is proof(b"".join(boxes))


@pytest.mark.parametrize("boxes", [(FTYP, MOOV, MDAT), (FTYP, MDAT, MOOV), (FTYP, MOOV, LARGE)])
def test_fault_34_a_video_cut_anywhere_is_never_whole(boxes: tuple[bytes, ...]) -> None:
    """No beginning of a video passes for the whole of it."""
    data = b"".join(boxes)
    assert Proof.WHOLE not in {proof(data[:end]) for end in range(len(data))}
    assert {Proof.CUT} == {proof(data[:end]) for end in range(len(FTYP), len(data))}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1" * 100,
        MOOV + MDAT,
        FTYP + MOOV + struct.pack(">I4s", 0, b"mdat") + b"\1" * 99,
        FTYP + MOOV + struct.pack(">I4s", 7, b"mdat") + b"\1" * 99,
        FTYP + MOOV + struct.pack(">I4sQ", 1, b"mdat", 15) + b"\1" * 99,
        FTYP + MOOV + MDAT + box(b"\0\0\0\0", b"\1" * 99),
        FTYP + MOOV + box(b"moof") + MDAT,
        FTYP + MOOV + MDAT + box(b"free") * 100_000,
    ],
)
def test_what_proves_nothing(data: bytes) -> None:
    """No mp4, an open end, fragments without an index, boxes without number prove nothing."""
    assert Proof.NONE is proof(data)


@given(st.binary(max_size=200))
def test_any_bytes_can_be_walked(data: bytes) -> None:
    """Any bytes give an answer, and random ones are not a video."""
    assert Proof.WHOLE is not proof(data)


@pytest.mark.parametrize(
    "head",
    [
        b"<!DOCTYPE html>",
        b"\n<p",
        b"\xef\xbb\xbf<",
        b'{"error":',
        b"[]",
        b"not found",
        b"\xff\xfe<\0",
        "视频不存在".encode(),
        "видео не найдено".encode("cp1251"),
        "视频不存在".encode("gbk"),
        b"--boundary\r\nContent-Type: video/mp4\r\n",
        b"<html>\0\0",
        b"G" * 600,
    ],
)
def test_fault_58_texts(head: bytes) -> None:
    """HTML, JSON and words in any encoding are distinguished from a video by their first bytes."""
    assert is_text(head[:512])
    assert unfit(head[:512], "") is not None


@pytest.mark.parametrize("end", range(1, 17))
def test_videos_are_no_texts(end: int) -> None:
    """A video is not taken for a text, however few of its bytes are there."""
    assert not is_text(FTYP[:end])


def test_fault_58_text_in_the_middle() -> None:
    """A rest may begin with any bytes, but not with 512 of which none is a control character."""
    assert not is_text_within(b"<html>" + b"\0" * 600)
    assert not is_text_within(b"\xff\xfe" + b"\1" * 600)
    assert not is_text_within(b"x" * 511)
    assert is_text_within(b"x" * 512 + b"\0")


PICTURES = {
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    "png": b"\x89PNG\r\n\x1a\n\0\0",
    "gif": b"GIF89a\x01\0\x01\0",
    "webp": b"RIFF\x24\0\0\0WEBPVP8 ",
    "bmp": b"BM\x36\0\0\0\0\0\0\0",
    "tiff": b"II*\0\x08\0",
    "avif": b"\0\0\0\x20ftypavif\0\0",
    "heic": b"\0\0\0\x20ftypheic\0\0",
    "pdf": b"%PDF-1.7\n\0",
}

VIDEOS = {
    "mp4": FTYP,
    "mov": b"\0\0\0\x08wide\0\0\0\0mdat",
    "webm": b"\x1aE\xdf\xa3\x01\0\0\0",
    "avi": b"RIFF\x24\0\0\0AVI LIST",
    "flv": b"FLV\x01\x05\0\0\0\x09",
    "ogg": b"OggS\0\x02",
    "mpeg": b"\0\0\x01\xba\x44\0",
    "ts": (b"G\x40\0\x10" + b"\xff" * 184) * 2,
}


@pytest.mark.parametrize("head", PICTURES.values(), ids=PICTURES)
def test_fault_58_pictures(head: bytes) -> None:
    """A picture in place of a video is none, whatever its label says."""
    assert unfit(head, "") is not None


@pytest.mark.parametrize("head", VIDEOS.values(), ids=VIDEOS)
@pytest.mark.parametrize(
    "encoding", ["", "aws-chunked", "utf-8", "binary", "none", "gzip", "br, x"]
)
def test_fault_58_videos(head: bytes, encoding: str) -> None:
    """The bytes of a video are one, whatever their label says."""
    assert unfit(head, encoding) is None


def test_fault_58_unknown_bytes() -> None:
    """Bytes of no known kind may be a video, but not where they are said to be compressed."""
    head = b"\x01\x02\x03" * 50
    assert unfit(head, "aws-chunked") is None
    assert unfit(head, "GZIP") is not None
    assert unfit(b"\x1f\x8b\x08\0" * 9, "aws-chunked,gzip") is not None
