"""HTTP without I/O: hints, dates, compressed bodies."""

from __future__ import annotations

import email.utils
import gzip
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Final

import pytest
import wire
from hypothesis import example, given
from hypothesis import strategies as st

from veo3_async._protocol.http import MAX_BODY_BYTES, Reply, inflated, server_time

WALL: Final = wire.WALL
HTML: Final = b"<!DOCTYPE html><title>502 Bad Gateway</title>"


def hint_of(body: bytes, status: int, headers: Mapping[str, str]) -> float | None:
    return wire.problem_of(body, status, headers).retry_after


def http_date(seconds: float) -> str:
    return email.utils.formatdate(seconds, usegmt=True)


@pytest.fixture(params=["UTC", "Asia/Shanghai", "XXX+11"])
def _time_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


HINTS: Final[dict[str, float | None]] = {
    "0": 0,
    "1": 1,
    "07": 7,
    " 30 ": 30,
    "1.5": 1.5,
    "120": 120,
    "121": 120,
    "999999999": 120,
    "9999999999": None,
    "1" * 5000: None,
    "": None,
    "-1": None,
    "+1": None,
    "NaN": None,
    "inf": None,
    "Infinity": None,
    "1e3": None,
    "0x10": None,
    "1_0": None,
    "١٢": None,
    "1,5": None,
    "1.": None,
    "soon": None,
    "1 minute": None,
    http_date(WALL + 1): 1,
    http_date(WALL + 30): 30,
    http_date(WALL + 3600): 120,
    http_date(WALL): None,
    http_date(WALL - 1): None,
    http_date(0): None,
    "Wed, 25 Jun 2025 12:40:30 GMT": 30,
    "Wed, 25 Jun 2025 12:40:30 -0000": 30,
    "Wednesday, 25-Jun-25 12:40:30 GMT": 30,
    "Wed Jun 25 12:40:30 2025": 30,
    "Wed, 25 Jun 2025 20:40:30 +0800": 30,
    "Wed, 25 Jun 2025 12:40:30 +9999": None,
    "Wed, 32 Jun 2025 12:40:30 GMT": None,
    "Wed, 25 Jun 99999 12:40:30 GMT": None,
    "Wed, 25 Jun 2025 99:99:99 GMT": None,
    "Wed, 25 Jun": None,
}


@pytest.mark.usefixtures("_time_zone")
@pytest.mark.parametrize("said", HINTS, ids=lambda said: said[:40] or "empty")
def test_fault_8_retry_after(said: str) -> None:
    """Seconds or an HTTP date, 0 to 120; what is neither, or past, is ignored."""
    for status in (429, 503):
        assert hint_of(b"", status, {"Retry-After": said}) == HINTS[said]


@pytest.mark.parametrize(
    ("status", "body"), [(200, HTML), (404, b""), (500, b""), (503, wire.sample("error_balance"))]
)
def test_fault_8_only_what_is_about_capacity_pauses_everybody(status: int, body: bytes) -> None:
    """A hint beside another trouble says nothing of the rate."""
    assert hint_of(body, status, {"Retry-After": "5"}) is None


@pytest.mark.parametrize("skew", [-3600, 0, 3600])
def test_fault_8_22_a_date_is_measured_by_the_clock_of_the_server(skew: float) -> None:
    """Ours may be an hour off; the reply's own ``Date`` is not."""
    dates = {"Retry-After": http_date(WALL + skew + 30), "Date": http_date(WALL + skew)}
    assert hint_of(b"", 429, dates) == 30
    assert hint_of(b"", 429, dates | {"Date": "today"}) == (
        None if skew < 0 else min(120, 30 + skew)
    )


@given(st.text() | st.from_regex(r"\w{3}, ?[0-9]{1,3} \w{3} [0-9]{1,6} [0-9:]{1,9} \S{1,5}"))
@example("Mon, 01 Jan 0001 00:00:00 GMT")
@example("Fri, 31 Dec 9999 23:59:59 -2359")
@example("Mon, 01 Jan 2024 00:00:00 +99999999999999")
def test_fault_8_any_header_gives_a_hint_or_none(said: str) -> None:
    """0 to 120 seconds or none, from any text in any place."""
    hint = hint_of(b"", 429, {"Retry-After": said, "Date": said})
    assert hint is None or 0 <= hint <= 120


@pytest.mark.usefixtures("_time_zone")
def test_the_time_of_the_server() -> None:
    """Its ``Date`` in seconds since the epoch, or None where it sends none."""
    assert server_time(Reply(200, {"Date": "Wed, 25 Jun 2025 12:40:00 GMT"}, b"")) == WALL
    assert server_time(Reply(200, {}, b"")) is None


PLAIN = b'{"status": "pending"}' * 50


@pytest.mark.parametrize(
    ("body", "encoding", "plain"),
    [
        (PLAIN, "", PLAIN),
        (PLAIN, "identity", PLAIN),
        (gzip.compress(PLAIN), "gzip", PLAIN),
        (gzip.compress(PLAIN), " X-GZIP ", PLAIN),
        (zlib.compress(PLAIN), "deflate", PLAIN),
        (gzip.compress(PLAIN)[:-9], "gzip", None),
        (PLAIN, "gzip", PLAIN),
        (PLAIN, "br", PLAIN),
        (b"\x8b\x03\x80", "br", None),
        (b"(\xb5/\xfd", "zstd", None),
        (PLAIN, "utf-8", PLAIN),
        (PLAIN, "aws-chunked", PLAIN),
        (gzip.compress(PLAIN), "", PLAIN),
        (gzip.compress(PLAIN), "br", PLAIN),
        (gzip.compress(PLAIN), "gzip, identity", PLAIN),
        (PLAIN, "deflate", PLAIN),
        (gzip.compress(gzip.compress(PLAIN)), "gzip, gzip", PLAIN),
        (gzip.compress(gzip.compress(bytes(MAX_BODY_BYTES + 1))), "gzip", None),
        (b"not JSON", "gzip", None),
        (b"not JSON", "", b"not JSON"),
        (zlib.compress(PLAIN)[2:-4], "deflate", PLAIN),
        (zlib.compress(PLAIN)[2:-4], " Deflate", PLAIN),
        (gzip.compress(PLAIN) + gzip.compress(b"!"), "gzip", PLAIN + b"!"),
        (8 * gzip.compress(b"!"), "gzip", b"!!!!!!!!"),
        (9 * gzip.compress(b"!"), "gzip", None),
        (9 * gzip.compress(b""), "gzip", None),
        (gzip.compress(bytes(MAX_BODY_BYTES)), "gzip", bytes(MAX_BODY_BYTES)),
        (gzip.compress(bytes(MAX_BODY_BYTES + 1)), "gzip", None),
        (b"", "gzip", b""),
    ],
    ids=range(29),
)
def test_fault_11_a_compressed_body_is_inflated_up_to_its_limit(
    body: bytes, encoding: str, plain: bytes | None
) -> None:
    """Whatever the label says; a bomb, a torso, a compression that was not asked for is None."""
    assert inflated(body, encoding) == plain
