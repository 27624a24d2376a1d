"""JSON as servers write it."""

from __future__ import annotations

import json
import math
from typing import Any, Final

import pytest
import wire
from hypothesis import given
from hypothesis import strategies as st

from veo3_async._models import Phase
from veo3_async._protocol.parsing import json_of, reason_in
from veo3_async._text import one_line

VIDEO: Final = b'"status": "completed", "upsample_video_url": "https://file.302.ai/a.mp4"'

ODD: Final[dict[str, bytes]] = {
    "emoji cut in two": b'{"enhanced_prompt": "\\ud83d", %s}',
    "surrogates the wrong way round": b'{"req": {"prompt": "\\ude00\\ud83d"}, %s}',
    "surrogate in a name": b'{"\\ud83d": 1, %s}',
    "NaN": b'{"created_at": NaN, %s}',
    "Infinity": b'{"x": [Infinity, -Infinity], %s}',
    "1e400": b'{"x": 1e400, "created_at": -1e400, %s}',
    "raw newline": b'{"req": {"prompt": "two\nlines\tand\x01more"}, %s}',
    "half a character": b'{"enhanced_prompt": "caf\xc3", %s}',
    "Latin-1": b'{"enhanced_prompt": "caf\xe9", %s}',
    "a digit too many": b'{"x": ' + b"9" * 5000 + b", %s}",
    "byte order mark": b"\xef\xbb\xbf{%s}",
    "mark and surrogate": b'\xef\xbb\xbf{"x": "\\ud83d", %s}',
    "blanks around": b" \r\n{%s}\n\n",
    "a comma too many": b'{"images": [{},], "x": ",}", %s,\n}',
    "NULs behind": b"{%s}\x00\x00",
    "a comment behind": b"{%s}\n<!-- served by node 7 -->",
    "no script": b")]}',\n{%s}",
    "an endless script": b"for(;;);{%s}",
}


@pytest.mark.parametrize("name", ODD)
def test_fault_48_what_python_reads_costs_no_video(name: str) -> None:
    """What stands beside the odd value is read, and the task can be written as JSON again."""
    task = wire.task_of(ODD[name].replace(b"%s", VIDEO))
    assert (task.phase, task.best_url) == (Phase.COMPLETED, "https://file.302.ai/a.mp4")
    json.loads(json.dumps(task.to_dict(), allow_nan=False))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_fault_48_another_encoding_of_unicode_is_read(encoding: str) -> None:
    """As the standard before RFC 8259 allowed."""
    body = wire.sample("completed").decode().encode(encoding)
    assert wire.task_of(body) == wire.task_of(wire.sample("completed"))


NONSENSE: Final[dict[str, bytes]] = {
    "HTML": b"<!DOCTYPE html><title>502 Bad Gateway</title>",
    "empty": b"",
    "blank": b" \n",
    "cut": wire.sample("completed")[:-100],
    "more behind": wire.sample("completed") + b"{}",
    "single quotes": b"{'status': 'pending'}",
    "a list and more": b"[503] upstream overloaded",
    "more before": b"served by x " + wire.sample("completed"),
    "deep list": b"[" * 200_000,
    "deep object": b'{"status":' * 200_000,
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "NUL": b"\x00" * 100,
}


@pytest.mark.parametrize("name", NONSENSE)
def test_fault_11_what_nobody_reads_is_no_json(name: str) -> None:
    """Cut replies, pages and depths without an end are nothing, and raise nothing."""
    assert json_of(NONSENSE[name]) is None


@given(st.recursive(st.none() | st.floats() | st.integers() | st.text(), st.lists))
def test_any_json_that_python_writes_is_read(value: Any) -> None:
    """What both parsers read is the same; what only Python reads is a text in its place."""
    read = json_of(json.dumps(value).encode())
    if "NaN" not in json.dumps(value) and "Infinity" not in json.dumps(value):
        assert read == value or "\\ud" in json.dumps(value)


@given(st.binary(max_size=300))
def test_any_bytes_are_json_or_none(body: bytes) -> None:
    """And what comes out can be written by everybody."""
    json.dumps(json_of(body), allow_nan=False).encode()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("text", "text"),
        (" two\n lines ", "two lines"),
        ("", None),
        (None, None),
        ({}, None),
        ([], None),
        ({"message": "", "error": {"detail": "deep"}}, "deep"),
        ([{"msg": "first"}, "second"], "first"),
        ({"code": "content_policy_violation"}, "content_policy_violation"),
        ({"code": 404}, "404"),
        ('{"message": "in text"}', "in text"),
        ('{"message": ""}', '{"message": ""}'),
        ("{not json", "{not json"),
        ('"[\\"a\\"]"', '"[\\"a\\"]"'),
        (5, "5"),
        (True, None),
        (math.nan, "nan"),
    ],
)
def test_fault_46_the_reason_in_a_value(value: object, said: str | None) -> None:
    """The first text of the fields that have one, out of objects, lists and JSON in a text."""
    assert reason_in(value) == said


def test_fault_46_a_reason_has_no_depth_without_end() -> None:
    """What is nested deeper than any error that was seen says nothing, and raises nothing."""
    value: object = "deep"
    for _ in range(5000):
        value = {"error": value}
    assert reason_in(value) is None
    assert reason_in('{"error":' * 3000 + "1" + "}" * 3000) is not None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, 中文, 👨\u200d👩\u200d👧, é", "plain, 中文, 👨\u200d👩\u200d👧, é"),
        ("a\tb\nc\r\nd\x0be\x0cf\x85g\u2028h\u2029i\xa0j\u3000k", "a b c d e f g h i j k"),
        ("\x1b[31mred\x07", "�[31mred�"),
        ("\x9b2J\x7f", "�2J�"),
        ("\u202eevil\u2066\u200f\u061c", "�evil���"),
        ("\ufeffx\u00ad\U000e0041", "�x��"),
        ("\ud83d", "�"),
        ("  ", ""),
        ("x" * 2000, "x" * 999 + "…"),
    ],
)
def test_fault_63_a_text_of_a_stranger_is_one_clean_line(text: str, shown: str) -> None:
    """White space is a space; control, bidi and format characters are replaced, emojis stay."""
    assert one_line(text) == shown


@given(st.text(max_size=3000), st.integers(1, 100))
def test_fault_63_any_text_is_shown(text: str, limit: int) -> None:
    """In so many characters, in UTF-8, and shown again it is the same."""
    shown = one_line(text, limit)
    assert len(shown) <= limit
    shown.encode()
    assert len(shown.splitlines()) <= 1
    assert one_line(shown, limit) == shown
