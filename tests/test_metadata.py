"""Metadata as JSON: what goes in comes out, or is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo3_async import InvalidRequest
from veo3_async._metadata import METADATA_BYTES, metadata_from_json, metadata_json

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@given(JSON)
def test_whatever_json_can_say_comes_back(metadata: Any) -> None:
    """Lone surrogates too; and the text can be written to any file."""
    text = metadata_json(metadata)

    assert metadata_from_json(text) == metadata
    assert text is None or text.encode()


def test_what_json_makes_of_it_comes_back() -> None:
    """Tuples are lists and keys are text, as everywhere in JSON."""
    assert metadata_from_json(metadata_json({1: (2, 3)})) == {"1": [2, 3]}


@pytest.mark.parametrize(
    "wrong",
    [object(), b"bytes", {1, 2}, float("nan"), [float("-inf")], ENDLESS, {(1, 2): 3}],
    ids=["object", "bytes", "set", "nan", "infinity", "circular", "tuple as key"],
)
def test_what_json_cannot_say_is_refused(wrong: Any) -> None:
    """The error names the argument."""
    with pytest.raises(InvalidRequest, match="metadata is whatever JSON can say"):
        metadata_json(wrong)


@pytest.mark.parametrize("letter", ["x", "ж", "\ud800", '"'])
def test_the_limit_is_of_the_text_that_is_kept(letter: str) -> None:
    """Up to 16 kB of UTF-8 are taken, escapes and quotes included; one more is refused."""
    size = len((metadata_json(letter) or "").encode()) - 2
    room, rest = divmod(METADATA_BYTES - 2, size)

    assert len((metadata_json(letter * room + "x" * rest) or "").encode()) == METADATA_BYTES
    with pytest.raises(InvalidRequest, match=r"may take 16,384 bytes of JSON, and this takes 16,"):
        metadata_json(letter * room + "x" * (rest + 1))
