"""What passes is waited out, what does not is an error, and nothing is without a limit."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import ssl
import subprocess

import pytest
from download.video_host import (
    SMALL,
    VIDEO,
    Answer,
    Asked,
    always,
    dripping,
    entries,
    hosting,
    in_turn,
    serving,
)

from veo3_async import DownloadError
from veo3_async._download.downloader import Downloader

pytestmark = pytest.mark.anyio


async def test_passing_faults_are_waited_out(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """5xx, 429 and a connection that ends before the reply are tried again; Retry-After holds."""
    script = in_turn(
        always(Answer(500)),
        always(Answer(429, {"Retry-After": "7"})),
        always(Answer(503, {"Retry-After": "-1"})),
        always(Answer(200, {}, b"")),
        serving(SMALL, sent=0),
        serving(SMALL),
    )
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert SMALL == path.read_bytes()
    assert 6 == len(host.asked)
    bounds = [(0, 1), (7, 11), (0, 8), (0, 8), (0, 16)]
    in_bounds = [low <= w <= high for w, (low, high) in zip(host.waits, bounds, strict=True)]
    assert [True] * 5 == in_bounds


async def test_passing_faults_without_end(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """After 8 attempts in a row without a new byte it says what is kept; the next call goes on."""
    script = in_turn(serving(SMALL, sent=5000), *[always(Answer(502))] * 8, serving(SMALL))
    async with hosting(script) as host:
        with pytest.raises(DownloadError) as caught:
            await downloader.download(f"{host.url}?sign=secret", tmp_path / "video.mp4")
        assert entries(tmp_path) == {"video.mp4.part", "video.mp4.part.json"}
        path = await downloader.download(f"{host.url}?sign=secret", tmp_path / "video.mp4")
    assert SMALL == path.read_bytes()
    assert [0, *[5000] * 9] == host.starts
    assert (502, 9) == (caught.value.http_status, caught.value.attempts)
    assert "5000 bytes are kept in" in caught.value.message
    assert "secret" not in str(caught.value)


async def test_old_bytes_earn_no_patience(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A server that always cuts at the same byte and knows no Range is given up in the end."""
    async with hosting(serving(SMALL, etag=None, sent=5000)) as host:
        with pytest.raises(DownloadError, match="8 times in a row") as caught:
            await downloader.download(host.url, tmp_path / "video.mp4")
    assert 9 == len(host.asked)
    assert sum(host.waits) == pytest.approx(caught.value.elapsed, abs=0.1)


@pytest.mark.parametrize("status", [300, 304, 400, 401, 402, 403, 405, 416, 451])
async def test_permanent_refusals(
    downloader: Downloader, tmp_path: pathlib.Path, status: int
) -> None:
    """What another try would not change is an error at once."""
    async with hosting(always(Answer(status))) as host:
        with pytest.raises(DownloadError, match=f"HTTP {status}"):
            await downloader.download(host.url, tmp_path / "video.mp4")
    assert 1 == len(host.asked)
    assert set() == entries(tmp_path)


async def test_slow_link_is_left_for_a_better_one(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """Under 1 kB/s for 30 s the connection is given up, and another goes on with the rest."""
    script = in_turn(dripping(5000, every=6.0), dripping(30_000, every=29.0))
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert SMALL == path.read_bytes()
    assert [0, 25_000] == host.starts
    assert 30.0 <= host.waits[0] < 32.0


@pytest.mark.usefixtures("_slow_disk")
@pytest.mark.parametrize("has_length", [True, False])
async def test_a_slow_disk_is_no_slow_link(
    downloader: Downloader, tmp_path: pathlib.Path, *, has_length: bool
) -> None:
    """However long it takes to write, to prove the end and to sync, the video is asked for once."""
    async with hosting(serving(VIDEO, has_length=has_length)) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert VIDEO == path.read_bytes()
    assert [0] == host.starts


@pytest.mark.usefixtures("_slow_disk")
async def test_fault_34_what_came_before_a_cut_is_kept(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """Bytes that came while the disk was slow are not lost with their connection."""

    def cut(asked: Asked) -> Answer:
        return dataclasses.replace(serving(SMALL, sent=80_000)(asked), drip=(20_000, 0.6))

    async with hosting(in_turn(cut, serving(SMALL))) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert SMALL == path.read_bytes()
    assert [0, 80_000] == host.starts


@pytest.mark.usefixtures("_slow_disk", "_video_too_large")
async def test_what_is_too_large_is_removed_from_a_slow_disk(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """To remove it is not cut short, and it is not asked for again."""
    async with hosting(serving(VIDEO, has_length=False)) as host:
        with pytest.raises(DownloadError, match="the limit"):
            await downloader.download(host.url, tmp_path / "video.mp4")
    assert [0] == host.starts
    assert set() == entries(tmp_path)


@pytest.mark.usefixtures("_slow_disk")
async def test_a_slow_link_is_left_beside_a_slow_disk(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """The clock of the link goes on where it stood when the disk was done."""
    script = in_turn(dripping(100, every=2.0), serving(SMALL))
    async with hosting(script) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert SMALL == path.read_bytes()
    assert 2 == len(host.asked)


async def test_no_connection_is_a_passing_fault(
    downloader: Downloader, tmp_path: pathlib.Path
) -> None:
    """A host that nobody listens on is tried 8 times, and leaves nothing behind."""
    async with hosting(serving(SMALL)) as host:
        url = host.url
    with pytest.raises(DownloadError, match="no connection was made, 8 times") as caught:
        await downloader.download(url, tmp_path / "video.mp4")
    assert 8 == caught.value.attempts
    assert set() == entries(tmp_path)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
async def test_fault_18_certificate(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """A server that cannot prove who it is is not asked again."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    command = [*request.split(), "-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    async with hosting(serving(SMALL), tls) as host:
        with pytest.raises(DownloadError, match="certificate") as caught:
            await downloader.download(host.url, tmp_path / "video.mp4")
    assert 1 == caught.value.attempts


@pytest.mark.usefixtures("_video_too_large")
@pytest.mark.parametrize("has_length", [True, False])
async def test_size_cap(
    downloader: Downloader, tmp_path: pathlib.Path, *, has_length: bool
) -> None:
    """A video over the limit is refused, before or while it comes, and leaves nothing."""
    async with hosting(serving(VIDEO, has_length=has_length)) as host:
        with pytest.raises(DownloadError, match="the limit"):
            await downloader.download(host.url, tmp_path / "video.mp4")
    assert set() == entries(tmp_path)


async def test_the_limit_is_two_gibibytes(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """What is announced to be a byte larger is refused, and not a byte of it is taken."""
    length = {"Content-Length": str(2 * 1024**3 + 1)}
    answer = Answer(headers=length, body=SMALL, has_length=False)
    async with hosting(always(answer)) as host:
        with pytest.raises(DownloadError, match="more than 2147483648, the limit"):
            await downloader.download(host.url, tmp_path / "video.mp4")
