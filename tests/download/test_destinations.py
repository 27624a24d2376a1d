"""Where a URL may lead, as tables."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo3_async._download.destinations import ForbiddenError, admitted, checked, next_hop, shown

URL = "https://file.302.ai/a/video.mp4"


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("b.mp4?x=1#end", "https://file.302.ai/a/b.mp4?x=1"),
        ("//cdn.302.ai/x", "https://cdn.302.ai/x"),
        ("https://file.302.ai:443/x", "https://file.302.ai:443/x"),
        ("https://cdn.example.com:8443/x", "https://cdn.example.com:8443/x"),
        ("https://d111.cloudfront.net./x", "https://d111.cloudfront.net./x"),
        ("https://8.8.8.8/x", "https://8.8.8.8/x"),
        ("https://[2606:4700::1111]/x", "https://[2606:4700::1111]/x"),
        ("HTTPS://FILE.302.AI/x y", "https://FILE.302.AI/x%20y"),
        ("/vid\udce9o.mp4", "https://file.302.ai/vid%E9o.mp4"),
    ],
)
def test_fault_35_hops_that_are_followed(location: str, expected: str) -> None:
    """A redirect may lead to any public host by https."""
    assert expected == next_hop([URL], location, allow_private=False)
    assert expected == next_hop([URL], location, allow_private=True)


PRIVATE = [
    "127.0.0.1",
    "127.1.2.3",
    "10.0.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "[::1]",
    "[::]",
    "[::ffff:10.0.0.1]",
    "[64:ff9b::a00:1]",
    "[2002:a00:1::]",
    "[fd00::1]",
    "[fe80::1]",
    "[ff02::1]",
    "localhost",
    "LOCALHOST.",
    "a.localhost",
    "intranet",
    "printer.local",
    "metadata.google.internal",
]


@pytest.mark.parametrize("host", PRIVATE)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_fault_35_what_is_not_public(scheme: str, host: str) -> None:
    """An address or a name that is not public is refused from the first URL on, unless allowed."""
    url = f"{scheme}://{host}:8000/x"
    with pytest.raises(ForbiddenError, match="not public"):
        checked(url, allow_private=False)
    with pytest.raises(ForbiddenError, match="not public"):
        next_hop([URL], url, allow_private=False)
    assert url == checked(url, allow_private=True) == next_hop([URL], url, allow_private=True)


@pytest.mark.parametrize(
    "location",
    [
        "http://8.8.8.8/x",
        "https://me@file.302.ai/x",
        "https://file.302.ai\\@evil.example/x",
        "https://evil.example\\.302.ai/x",
        "https://2130706433/x",
        "https://127.1/x",
        "https://0x7f.1/x",
        "https://0x7f000001/x",
        "https://017700000001/x",
        "https://1.2.3.4.5/x",
        "https://[fe80::1%25eth0]/x",
        "https://[::1.2.3]/x",
        "https://file.302.ai:port/x",
        "https://[/x",
        f"https://{'a' * 64}.302.ai/x",
        f"https://{'a.' * 130}302.ai/x",
        "https://f\u00fcr.302.ai/x",
        "ftp://file.302.ai/x",
        "file:///etc/passwd",
        "data:text/plain,x",
        "/vid\ud800o.mp4",
        "https://file\udcff.302.ai/x",
        URL,
    ],
)
@pytest.mark.parametrize("allow_private", [False, True])
def test_fault_35_hops_that_are_refused(location: str, *, allow_private: bool) -> None:
    """Clear text, a user, another scheme, a host that is none, and the way back are refused."""
    with pytest.raises(ForbiddenError):
        next_hop([URL], location, allow_private=allow_private)


@pytest.mark.parametrize(
    ("address", "scheme", "allow_private", "expected"),
    [
        ("8.8.8.8", "https", False, True),
        ("8.8.8.8", "https", True, True),
        ("8.8.8.8", "http", True, False),
        ("10.0.0.1", "https", False, False),
        ("10.0.0.1", "https", True, True),
        ("10.0.0.1", "http", True, True),
        ("::ffff:127.0.0.1", "https", False, False),
        ("fe80::1%eth0", "https", False, False),
    ],
)
def test_fault_35_resolved_addresses(
    address: str, scheme: str, *, allow_private: bool, expected: bool
) -> None:
    """What a name was resolved to is under the same rule as an address in a URL."""
    assert expected == admitted(address, scheme, allow_private=allow_private)


def test_fault_35_five_hops() -> None:
    """The fifth redirect is followed, the sixth is not."""
    trail = [f"{URL}?{n}" for n in range(5)]
    trail.append(next_hop(trail, "?5", allow_private=False))
    with pytest.raises(ForbiddenError, match="more than 5"):
        next_hop(trail, "?6", allow_private=False)


def test_fault_35_no_advice_that_cannot_be_followed() -> None:
    """What a redirect led to is named without its signature, and with no advice to pass it."""
    with pytest.raises(ForbiddenError) as caught:
        next_hop([URL], "https://10.0.0.1/x?sign=secret", allow_private=False)
    said = str(caught.value)
    assert "10.0.0.1" in said
    assert "secret" not in said
    assert "pass" not in said


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
    shown(text)
    for allow_private in (False, True):
        with contextlib.suppress(ForbiddenError):
            checked(text, allow_private=allow_private)
        with contextlib.suppress(ForbiddenError):
            next_hop([URL], text, allow_private=allow_private)
