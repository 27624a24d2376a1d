"""What a reply to a download means, as tables."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from veo3_async._download.content import Proof
from veo3_async._download.resumption import (
    Complete,
    Decision,
    LengthUnknown,
    PartialContent,
    Receive,
    Redirect,
    Refuse,
    Restart,
    Retry,
    TryFreshUrl,
    at_end,
    decide,
    is_usable,
    range_headers,
    resumable,
    without_length,
)
from veo3_async._protocol.http import Reply

URL = "https://file.302.ai/a/video.mp4"
HERE = PartialContent(url=URL, done=100, total=1000, validator='"1"')
REST = {"Content-Range": "bytes 100-999/1000", "ETag": '"1"'}


def plan(
    status: int, headers: dict[str, str] | None = None, content: PartialContent | None = None
) -> Decision:
    reply = Reply(status, CIMultiDict(headers or {}), b"")
    return decide(reply, content, max_bytes=5000, wall_now=0.0)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Receive(start=0, total=None, validator=None)),
        ({"Content-Length": "5000"}, Receive(start=0, total=5000, validator=None)),
        ({"ETag": '"x"'}, Receive(start=0, total=None, validator='"x"')),
        ({"ETag": 'W/"x"'}, Receive(start=0, total=None, validator=None)),
        ({"ETag": '"a"b"'}, Receive(start=0, total=None, validator=None)),
        (
            {"Content-Encoding": "aws-chunked"},
            Receive(start=0, total=None, validator=None, encoding="aws-chunked"),
        ),
        ({"Content-Type": "text/plain"}, Receive(start=0, total=None, validator=None)),
        (
            {"Transfer-Encoding": "Chunked", "Content-Length": "7"},
            Receive(start=0, total=None, validator=None, has_end=True),
        ),
    ],
)
def test_fault_58_whole_video(headers: dict[str, str], expected: Decision) -> None:
    """A 200 or 203 is the whole, whatever was asked for and however it is labelled."""
    for status in (200, 203):
        assert expected == plan(status, headers)
        assert expected == plan(status, headers, HERE)


@pytest.mark.parametrize(
    ("said", "total"), [("0-999/1000", 1000), ("0-9/1000", 1000), ("0-9/*", None)]
)
def test_fault_58_whole_as_a_part(said: str, total: int | None) -> None:
    """A 206 from the first byte on is the whole, asked for or not; its end is no proof."""
    headers = {"Content-Range": f"bytes {said}", "Transfer-Encoding": "chunked", "ETag": '"2"'}
    expected = Receive(start=0, total=total, validator='"2"')
    assert expected == plan(206, headers)
    assert expected == plan(206, headers, HERE)


def test_fault_34_end_of_a_body() -> None:
    """The end is proved by the length, else by the last chunk, else by the boxes of an mp4."""
    sized = Receive(start=0, total=9, validator=None)
    assert Complete() == at_end(sized, 9)
    assert isinstance(at_end(sized, 8), Retry)
    assert Complete() == at_end(Receive(start=0, total=None, validator=None, has_end=True), 8)
    unsized = Receive(start=0, total=None, validator=None)
    assert LengthUnknown() == at_end(unsized, 8)
    assert Complete() == without_length(unsized, Proof.WHOLE)
    assert isinstance(without_length(unsized, Proof.CUT), Retry)
    assert isinstance(without_length(unsized, Proof.NONE), Refuse)
    rest = Receive(start=5, total=None, validator='"1"')
    assert isinstance(without_length(rest, Proof.NONE), Restart)


def test_whole_that_is_too_large() -> None:
    """What is announced to be over the limit is refused before it comes."""
    assert isinstance(plan(200, {"Content-Length": "5001"}), Refuse)


def test_rest_continues_the_same_object() -> None:
    """A 206 of the range and object that were asked for is appended."""
    assert Receive(start=100, total=1000, validator='"1"') == plan(206, REST, HERE)


def test_rest_has_a_total_that_was_unknown() -> None:
    """Where no length was known, a 206 has it; a ``*`` leaves it as it was."""
    unsized = PartialContent(url=URL, done=100, validator='"1"')
    assert Receive(start=100, total=1000, validator='"1"') == plan(206, REST, unsized)
    open_end = REST | {"Content-Range": "bytes 100-199/*"}
    assert Receive(start=100, total=1000, validator='"1"') == plan(206, open_end, HERE)
    assert Receive(start=100, total=None, validator='"1"') == plan(206, open_end, unsized)


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
    assert isinstance(plan(206, REST | change, HERE), Restart)


def test_rest_of_a_dated_object() -> None:
    """With a date as validator a 206 may leave it out, but must not name another."""
    dated = PartialContent(url=URL, done=100, total=1000, validator="Wed, 06 Aug 2025 13:46:12 GMT")
    said = {"Content-Range": "bytes 100-999/1000"}
    assert isinstance(plan(206, said, dated), Receive)
    other = said | {"Last-Modified": "Wed, 06 Aug 2025 13:46:13 GMT"}
    assert isinstance(plan(206, other, dated), Restart)


def test_rest_that_is_too_large() -> None:
    """The limit holds for the whole, not for the rest."""
    content = PartialContent(url=URL, done=4000, validator='"1"')
    said = {"Content-Range": "bytes 4000-5000/5001", "ETag": '"1"'}
    assert isinstance(plan(206, said, content), Refuse)


@pytest.mark.parametrize("said", ["bytes */100", "bytes */99", ""])
def test_fault_34_416_is_never_an_end(said: str) -> None:
    """A 416 may be said of any range, so it begins the download again."""
    unsized = PartialContent(url=URL, done=100, validator='"1"')
    headers = {"Content-Range": said, "ETag": '"1"'}
    assert {Restart} == {type(plan(416, headers, here)) for here in (HERE, unsized)}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((status, Retry) for status in (202, 204, 206, 408, 409, 425, 429, 500, 502, 503, 504)),
        *((status, TryFreshUrl) for status in (400, 401, 402, 403, 404, 405, 407, 410, 416, 451)),
        *((status, TryFreshUrl) for status in (300, 301, 302, 303, 304, 307, 308)),
    ],
)
def test_fault_59_other_statuses(status: int, expected: type[Decision]) -> None:
    """Every other status passes, or speaks against the URL."""
    assert expected is type(plan(status))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect(status: int) -> None:
    """A redirect that says where to is one."""
    assert Redirect("/x") == plan(status, {"Location": "/x"})


def test_retry_after() -> None:
    """A 429 or 503 may say how long to wait, 120 s at most."""
    waits = [plan(status, {"Retry-After": "500"}) for status in (429, 503, 500)]
    assert [120.0, 120.0, None] == [w.retry_after for w in waits if isinstance(w, Retry)]


@given(
    st.integers(100, 999),
    st.dictionaries(
        st.sampled_from(["Content-Range", "Content-Length", "ETag", "Location", "Retry-After"]),
        st.text(),
    ),
    st.sampled_from([None, HERE, PartialContent(url=URL, done=1)]),
)
def test_decide_is_total(
    status: int, headers: dict[str, str], content: PartialContent | None
) -> None:
    """Any status and headers give a plan, and only a proved rest is appended."""
    result = plan(status, headers, content)
    if isinstance(result, Receive) and result.start:
        assert content is not None
        assert (206, content.done, content.validator) == (status, result.start, headers.get("ETag"))


@pytest.mark.parametrize(
    ("content", "url", "goes_on"),
    [
        (HERE, URL, True),
        (HERE, f"{URL}?sign=2", True),
        (HERE, "https://file.302.ai/b/video.mp4", False),
        (PartialContent(url=URL, done=0, validator='"1"'), URL, False),
        (PartialContent(url=URL, done=100), URL, False),
        (PartialContent(url=URL, done=100, total=100), URL, True),
        (PartialContent(url=URL, done=100, total=100), f"{URL}?sign=2", False),
        (PartialContent(url=URL, done=100, validator="Wed, 06 Aug 2025 13:46:12 GMT"), URL, True),
        (
            PartialContent(url=URL, done=100, validator="Wed, 06 Aug 2025 13:46:12 GMT"),
            f"{URL}?2",
            False,
        ),
    ],
)
def test_what_can_be_continued(content: PartialContent, url: str, *, goes_on: bool) -> None:
    """Bytes are continued from the same URL, or by an ETag from one signed anew."""
    assert (content if goes_on else None) == resumable(content, url)


def test_range_headers() -> None:
    """A Range is never sent without an If-Range."""
    assert {"Range": "bytes=100-", "If-Range": '"1"'} == range_headers(HERE)
    assert {} == range_headers(None)
    assert {} == range_headers(PartialContent(url=URL, done=100, total=100))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"validator": None}, True),
        ({"validator": "Wed, 06 Aug 2025 13:46:12 GMT"}, True),
        ({"validator": '"1"\r\nX-Injected: 1'}, False),
        ({"validator": "Wed, 06 Aug 2025 13:46:12 GMT\n"}, False),
        ({"validator": '"\u4e2d"'}, False),
        ({"validator": 'W/"1"'}, False),
        ({"validator": ""}, False),
        ({"done": 0}, False),
        ({"done": 101}, False),
        ({"done": -1}, False),
        ({"total": 99}, False),
        ({"total": None}, True),
    ],
)
def test_fault_34_record_that_can_be_used(change: dict[str, Any], *, expected: bool) -> None:
    """A side record counts only where it can be of this file, and be sent in a header."""
    content = msgspec.structs.replace(HERE, **change)
    assert expected == is_usable(content, size=100)


@pytest.mark.parametrize(
    ("modified", "is_strong"),
    [
        ("Wed, 06 Aug 2025 13:46:12 GMT", True),
        ("Wed Aug  6 13:46:12 2025", True),
        ("Wed Aug  6 14:46:10 2025", False),
        ("Wed, 06 Aug 2025 14:46:10 GMT", False),
        ("soon", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/Los_Angeles"])
def test_fault_34_dates_are_of_one_zone(
    monkeypatch: pytest.MonkeyPatch, zone: str, modified: str, *, is_strong: bool
) -> None:
    """A date without a zone is of HTTP's, not of this machine's: else 2 s could pass for hours."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        headers = {"Last-Modified": modified, "Date": "Wed, 06 Aug 2025 14:46:12 GMT"}
        received = plan(200, headers)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert isinstance(received, Receive)
    assert (modified if is_strong else None) == received.validator
