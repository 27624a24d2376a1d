"""File names that are made of a request id."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from veo3_async._download.paths import file_name

URL = "https://file.302.ai/a/video.mp4"


def test_fault_36_name_of_a_video() -> None:
    """A usual id is the name, with the colon gone; a bare URL gives a hash of it."""
    usual = "veo3-pro:68935cd4-58f5-49ce-878e-40b785dd33b8"
    assert "veo3-pro-68935cd4-58f5-49ce-878e-40b785dd33b8.mp4" == file_name(usual, URL)
    assert "video-c359f8ee3113e07a.mp4" == file_name(None, URL)


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
