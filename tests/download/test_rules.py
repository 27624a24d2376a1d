"""The pure rules of a download, as tables: replies, redirects, boxes, names."""

from __future__ import annotations

import contextlib
import functools
import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from veo3_async._download.mp4 import Proof, is_text, prove
from veo3_async._download.paths import file_name
from veo3_async._download.redirects import ForbiddenError, checked, next_hop, shown
from veo3_async._download.resumption import (
    Again,
    Expired,
    Finish,
    Kept,
    Plan,
    Redirect,
    Refuse,
    Restart,
    Write,
    judge,
    range_headers,
    resumable,
)
from veo3_async._protocol.http import Reply

URL = "https://file.302.ai/a/film.mp4"
KEPT = Kept(url=URL, done=100, total=1000, validator='"1"')
REST = {"Content-Range": "bytes 100-999/1000", "ETag": '"1"'}


def plan(status: int, headers: dict[str, str] | None = None, kept: Kept | None = None) -> Plan:
    reply = Reply(status, CIMultiDict(headers or {}), b"")
    return judge(reply, kept, max_bytes=5000, wall_now=0.0)


# --- what a reply means ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Write(start=0, total=None, validator=None)),
        ({"Content-Length": "5000"}, Write(start=0, total=5000, validator=None)),
        ({"ETag": '"x"'}, Write(start=0, total=None, validator='"x"')),
        ({"ETag": 'W/"x"'}, Write(start=0, total=None, validator=None)),
        ({"ETag": '"a"b"'}, Write(start=0, total=None, validator=None)),
        ({"Content-Encoding": "Identity"}, Write(start=0, total=None, validator=None)),
        ({"Content-Type": "video/mp4"}, Write(start=0, total=None, validator=None)),
    ],
)
def test_whole_film(headers: dict[str, str], expected: Plan) -> None:
    """A 200 is the whole, whatever was asked for."""
    assert expected == plan(200, headers)
    assert expected == plan(200, headers, KEPT)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "5001"},
        {"Content-Type": "TEXT/html"},
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "application/xhtml+xml"},
        {"Content-Encoding": "gzip"},
    ],
)
def test_whole_that_is_refused(headers: dict[str, str]) -> None:
    """What is too large, encoded, or by its own word no film is refused."""
    assert isinstance(plan(200, headers), Refuse)


def test_rest_continues_the_same_object() -> None:
    """A 206 of the range and object that were asked for is appended."""
    assert Write(start=100, total=1000, validator='"1"') == plan(206, REST, KEPT)


def test_rest_tells_a_total_that_was_unknown() -> None:
    """Where no length was known, a 206 tells it; a ``*`` leaves it as it was."""
    unsized = Kept(url=URL, done=100, validator='"1"')
    assert Write(start=100, total=1000, validator='"1"') == plan(206, REST, unsized)
    open_end = REST | {"Content-Range": "bytes 100-199/*"}
    assert Write(start=100, total=1000, validator='"1"') == plan(206, open_end, KEPT)
    assert Write(start=100, total=None, validator='"1"') == plan(206, open_end, unsized)


@pytest.mark.parametrize(
    "change",
    [
        {"Content-Range": "bytes 99-999/1000"},
        {"Content-Range": "bytes 100-999/1001"},
        {"Content-Range": "bytes=100-999/1000"},
        {"Content-Range": ""},
        {"ETag": '"2"'},
        {"ETag": 'W/"1"'},
        {"Content-Type": "multipart/byteranges"},
        {"Content-Encoding": "br"},
    ],
)
def test_rest_of_something_else(change: dict[str, str]) -> None:
    """A 206 that is not surely the rest of the same object begins the download again."""
    assert isinstance(plan(206, REST | change, KEPT), Restart)


def test_rest_of_a_dated_object() -> None:
    """With a date as validator a 206 may leave it out, but must not tell another."""
    dated = Kept(url=URL, done=100, total=1000, validator="Wed, 06 Aug 2025 13:46:12 GMT")
    said = {"Content-Range": "bytes 100-999/1000"}
    assert isinstance(plan(206, said, dated), Write)
    other = said | {"Last-Modified": "Wed, 06 Aug 2025 13:46:13 GMT"}
    assert isinstance(plan(206, other, dated), Restart)


def test_rest_that_is_too_large() -> None:
    """The limit holds for the whole, not for the rest."""
    kept = Kept(url=URL, done=4000, validator='"1"')
    said = {"Content-Range": "bytes 4000-5000/5001", "ETag": '"1"'}
    assert isinstance(plan(206, said, kept), Refuse)


@pytest.mark.parametrize(
    ("said", "etag", "is_end"),
    [
        ("bytes */100", '"1"', True),
        ("bytes */99", '"1"', False),
        ("bytes */100", '"2"', False),
        ("bytes */100", None, False),
        ("", '"1"', False),
    ],
)
def test_nothing_left(said: str, etag: str | None, *, is_end: bool) -> None:
    """A 416 is the end only if the same object has just the length that is here."""
    headers = {"Content-Range": said} | ({"ETag": etag} if etag else {})
    kept = Kept(url=URL, done=100, validator='"1"')
    assert (Finish if is_end else Restart) is type(plan(416, headers, kept))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((status, Again) for status in (202, 204, 206, 408, 409, 425, 429, 500, 502, 503, 504)),
        *((status, Expired) for status in (403, 404, 410)),
        *((status, Refuse) for status in (300, 304, 400, 401, 402, 405, 407, 416, 418, 451)),
        *((status, Refuse) for status in (301, 302, 303, 307, 308)),
    ],
)
def test_other_statuses(status: int, expected: type[Plan]) -> None:
    """Every other status passes, has expired, or is the end."""
    assert expected is type(plan(status))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect(status: int) -> None:
    """A redirect that says where to is one."""
    assert Redirect("/x") == plan(status, {"Location": "/x"})


def test_retry_after() -> None:
    """A 429 or 503 may say how long to wait, 120 s at most."""
    waits = [plan(status, {"Retry-After": "500"}) for status in (429, 503, 500)]
    assert [120.0, 120.0, None] == [w.retry_after for w in waits if isinstance(w, Again)]


@given(
    st.integers(100, 999),
    st.dictionaries(
        st.sampled_from(["Content-Range", "Content-Length", "ETag", "Location", "Retry-After"]),
        st.text(),
    ),
    st.sampled_from([None, KEPT, Kept(url=URL, done=1)]),
)
def test_judge_is_total(status: int, headers: dict[str, str], kept: Kept | None) -> None:
    """Any status and headers give a plan, and only a proved rest is appended."""
    result = plan(status, headers, kept)
    if isinstance(result, Write) and result.start:
        assert kept is not None
        assert (206, kept.done, kept.validator) == (status, result.start, headers.get("ETag"))


@pytest.mark.parametrize(
    ("kept", "url", "goes_on"),
    [
        (KEPT, URL, True),
        (KEPT, f"{URL}?sign=2", True),
        (KEPT, "https://file.302.ai/b/film.mp4", False),
        (Kept(url=URL, done=0, validator='"1"'), URL, False),
        (Kept(url=URL, done=100), URL, False),
        (Kept(url=URL, done=100, total=100), URL, True),
        (Kept(url=URL, done=100, total=100), f"{URL}?sign=2", False),
        (Kept(url=URL, done=100, validator="Wed, 06 Aug 2025 13:46:12 GMT"), URL, True),
        (Kept(url=URL, done=100, validator="Wed, 06 Aug 2025 13:46:12 GMT"), f"{URL}?2", False),
    ],
)
def test_what_can_be_continued(kept: Kept, url: str, *, goes_on: bool) -> None:
    """Bytes are continued from the same URL, or by an ETag from one signed anew."""
    assert (kept if goes_on else None) == resumable(kept, url)


def test_range_headers() -> None:
    """A Range is never sent without an If-Range."""
    assert {"Range": "bytes=100-", "If-Range": '"1"'} == range_headers(KEPT)
    assert {} == range_headers(None)
    assert {} == range_headers(Kept(url=URL, done=100, total=100))


# --- where a redirect may lead --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "location", "expected"),
    [
        (URL, "b.mp4?x=1#end", "https://file.302.ai/a/b.mp4?x=1"),
        (URL, "//cdn.302.ai/x", "https://cdn.302.ai/x"),
        (URL, "https://eu.file.302.ai/x", "https://eu.file.302.ai/x"),
        (URL, "https://302.ai/x", "https://302.ai/x"),
        (URL, "https://file.302.ai:443/x", "https://file.302.ai:443/x"),
        (URL, "HTTPS://FILE.302.AI/x y", "https://FILE.302.AI/x%20y"),
        (URL, "/vid\udce9o.mp4", "https://file.302.ai/vid%E9o.mp4"),
        ("https://302.ai/x", "https://file.302.ai/y", "https://file.302.ai/y"),
        ("https://a.example:8443/x", "https://a.example:8443/y", "https://a.example:8443/y"),
        ("https://video.co.uk/x", "https://eu.video.co.uk/y", "https://eu.video.co.uk/y"),
        ("http://127.0.0.1:1/x", "http://localhost:2/y", "http://localhost:2/y"),
        ("http://[::1]:1/x", "http://127.1.2.3/y", "http://127.1.2.3/y"),
    ],
)
def test_fault_35_hops_that_are_followed(first: str, location: str, expected: str) -> None:
    """A redirect may stay in the family of the first host, or on this machine."""
    assert expected == next_hop([first], location)


@pytest.mark.parametrize(
    ("first", "location"),
    [
        (URL, "http://file.302.ai/x"),
        (URL, "https://evil.example/x"),
        (URL, "https://302.ai.evil.example/x"),
        (URL, "https://evil302.ai/x"),
        (URL, "https://file.302.ai:22/x"),
        (URL, "https://me@file.302.ai/x"),
        (URL, "https://file.302.ai\\@evil.example/x"),
        (URL, "https://evil.example\\.302.ai/x"),
        (URL, "https://1.2.3.4/x"),
        (URL, "https://127.0.0.1/x"),
        (URL, "http://127.0.0.1/x"),
        (URL, "http://localhost/x"),
        (URL, "https://[::1]/x"),
        (URL, "https://[::ffff:10.0.0.1]/x"),
        (URL, "https://2130706433/x"),
        (URL, "https://0x7f.1/x"),
        (URL, "https://file.302.ai:port/x"),
        (URL, "https://[/x"),
        (URL, f"https://{'a' * 64}.302.ai/x"),
        (URL, f"https://{'a.' * 130}302.ai/x"),
        (URL, "https://f\u00fcr.302.ai/x"),
        (URL, "data:text/plain,x"),
        (URL, "/vid\ud800o.mp4"),
        (URL, "https://file\udcff.302.ai/x"),
        (URL, URL),
        ("https://5.6.7.8/x", "https://5.6.7.8/y"),
        ("https://5.6.7.8/x", "https://1.6.7.8/y"),
        ("https://video.co.uk/x", "https://evil.co.uk/y"),
        ("https://302.ai/x", "https://evil.ai/y"),
        ("http://127.0.0.1:1/x", "https://file.302.ai/y"),
        ("http://127.0.0.1:1/x", "http://10.0.0.1/y"),
    ],
)
def test_fault_35_hops_that_are_refused(first: str, location: str) -> None:
    """A redirect out of the family, to an address, a user, another scheme or back is refused."""
    with pytest.raises(ForbiddenError):
        next_hop([first], location)


def test_fault_35_the_first_host_makes_the_rule() -> None:
    """After a redirect down the tree the family is still that of the first host."""
    trail = ["https://302.ai/x", "https://file.302.ai/y"]
    assert "https://cdn.302.ai/z" == next_hop(trail, "https://cdn.302.ai/z")


def test_fault_35_five_hops() -> None:
    """The fifth redirect is followed, the sixth is not."""
    trail = [f"{URL}?{n}" for n in range(5)]
    trail.append(next_hop(trail, "?5"))
    with pytest.raises(ForbiddenError, match="more than 5"):
        next_hop(trail, "?6")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://me:it@file.302.ai/a@b?sign=secret", "https://file.302.ai/a@b"),
        ("https://file.302.ai#secret", "https://file.302.ai"),
        ("me:it@file.302.ai/x", "file.302.ai/x"),
        ("https://[/x?y", "https://[/x"),
    ],
)
def test_fault_32_shown_urls(url: str, expected: str) -> None:
    """A URL in a message has no query and no user in it, whatever else is wrong with it."""
    assert expected == shown(url)


@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_is_a_url_or_forbidden(text: str) -> None:
    """Nothing but `ForbiddenError` comes of any text, as a URL and as a redirect."""
    for attempt in (checked, functools.partial(next_hop, [URL]), shown):
        with contextlib.suppress(ForbiddenError):
            attempt(text)


# --- boxes ----------------------------------------------------------------------------------------


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
def test_whole_films(boxes: tuple[bytes, ...]) -> None:
    """Boxes that fill the file, with all that a film needs, prove it whole."""
    assert Proof.WHOLE is proof(b"".join(boxes))


@pytest.mark.parametrize("boxes", [(FTYP, MOOV, MDAT), (FTYP, MDAT, MOOV), (FTYP, MOOV, LARGE)])
def test_fault_34_a_film_cut_anywhere_is_never_whole(boxes: tuple[bytes, ...]) -> None:
    """No beginning of a film passes for the whole of it."""
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
    """Any bytes give an answer, and random ones are not a film."""
    assert Proof.WHOLE is not proof(data)


@pytest.mark.parametrize(
    "head",
    [
        b"<!DOCTYPE html>",
        b"\n<",
        b"\xef\xbb\xbf<",
        b'{"error":',
        b"[]",
        b"not found",
        b"\xff\xfe<\0",
    ],
)
def test_texts(head: bytes) -> None:
    """HTML, JSON and words are told from a film by their first bytes."""
    assert is_text(head)


@pytest.mark.parametrize("end", range(1, 17))
def test_films_are_no_texts(end: int) -> None:
    """A film is not taken for a text, however few of its bytes are there."""
    assert not is_text(FTYP[:end])


# --- names ----------------------------------------------------------------------------------------


def test_fault_36_name_of_a_film() -> None:
    """A usual id is the name, with the colon gone; a bare URL gives a hash of it."""
    usual = "veo3-pro:68935cd4-58f5-49ce-878e-40b785dd33b8"
    assert "veo3-pro-68935cd4-58f5-49ce-878e-40b785dd33b8.mp4" == file_name(usual, URL)
    assert "video-ea13ee6644eae7c5.mp4" == file_name(None, URL)


@given(st.text(min_size=1))
def test_fault_36_names_are_harmless(request_id: str) -> None:
    """Whatever an id is made of, its name is short and plain on every file system."""
    name = file_name(request_id, URL)
    assert name.removesuffix(".mp4").replace("-", "").replace("_", "").isalnum()
    assert name.isascii()
    assert len(name) < 120


def test_fault_36_no_two_ids_share_a_name() -> None:
    """Ids that differ only in what a file name cannot hold have different names."""
    ids = [
        "a-b:c",
        "a:b-c",
        "a:b",
        "a-b",
        "a_b",
        "A:b",
        "a/b",
        "../a:b",
        "a\0b",
        "a b",
        "",
        "x" * 500,
        "x" * 501,
    ]
    names = [file_name(request_id, f"{URL}{request_id}") for request_id in ids]
    folded = [name.lower() for name in names]
    assert all(a != b for a, b in itertools.combinations(folded, 2))
