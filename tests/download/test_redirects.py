"""Redirects, names and addresses by real sockets, and what goes along."""

from __future__ import annotations

import logging
import pathlib
import socket
from typing import Any

import pytest
from download.video_host import SMALL, Answer, Asked, always, entries, hosting, in_turn, serving

from veo3_async import DownloadError
from veo3_async._download.downloader import Downloader

pytestmark = pytest.mark.anyio


async def test_fault_35_redirects_are_followed_without_secrets(
    downloader: Downloader, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to 5 redirects are followed; no key, cookie, proxy or netrc goes along."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("AI302_API_KEY", "sk-secret")

    def hop(asked: Asked) -> Answer:
        if (number := len(host.asked)) > 5:
            return serving(SMALL)(asked)
        return Answer(302, {"Location": f"/{number}?q=1#part", "Set-Cookie": "a=b; Path=/"})

    async with hosting(hop) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert SMALL == path.read_bytes()
    assert ["/video.mp4", *(f"/{n}?q=1" for n in range(1, 6))] == [a.target for a in host.asked]
    names = {name for asked in host.asked for name in asked.headers}
    assert names == {"host", "accept", "accept-encoding", "user-agent"}


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://8.8.8.8/x", "not https"),
        ("https://me:hunter2@127.0.0.1/x", "user name"),
        ("/video.mp4", "in a circle"),
        ("ftp://127.0.0.1/x", "not https"),
        ("https://[/x", "not a URL"),
    ],
)
async def test_fault_35_redirects_that_are_refused(
    downloader: Downloader, tmp_path: pathlib.Path, location: str, reason: str
) -> None:
    """A redirect to another scheme, to a user, or in a circle, is an error at once."""
    async with hosting(always(Answer(302, {"Location": location}))) as host:
        with pytest.raises(DownloadError, match=reason) as caught:
            await downloader.download(host.url, tmp_path / "video.mp4")
    assert 1 == len(host.asked)
    assert "hunter2" not in str(caught.value)


async def test_fault_35_too_many_redirects(downloader: Downloader, tmp_path: pathlib.Path) -> None:
    """The sixth redirect is one too many."""
    async with hosting(lambda _: Answer(307, {"Location": f"/{len(host.asked)}"})) as host:
        with pytest.raises(DownloadError, match="more than 5 times"):
            await downloader.download(host.url, tmp_path / "video.mp4")
    assert 6 == len(host.asked)


@pytest.mark.parametrize(
    "url",
    [
        "http://8.8.8.8/x.mp4",
        "https://me:it@file.302.ai/x",
        "file:///etc/passwd",
        "x",
    ],
)
async def test_fault_35_first_url(downloader: Downloader, tmp_path: pathlib.Path, url: str) -> None:
    """The URL itself is https without a user."""
    with pytest.raises(DownloadError) as caught:
        await downloader.download(url, tmp_path / "video.mp4")
    assert 0 == caught.value.attempts
    assert set() == entries(tmp_path)


async def test_fault_32_signed_urls_stay_secret(
    downloader: Downloader,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
    blocking_calls: list[str],
) -> None:
    """The query of a URL is in no error and no log line."""
    caplog.set_level(logging.DEBUG)
    script = in_turn(always(Answer(500)), serving(SMALL, sent=0), always(Answer(404)))
    async with hosting(script) as host:
        with pytest.raises(DownloadError) as caught:
            await downloader.download(f"{host.url}?sign=secret", tmp_path / "video.mp4")
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret" not in f"{error} {error!r} {error.__dict__}"
        error = error.__context__
    assert "asked again in" in caplog.text
    assert "secret" not in caplog.text
    blocking_calls.clear()  # pytest's log handler writes to a file


# --- 35: names ----------------------------------------------------------------------------------


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Return what names are resolved to: an answer for each time, and the last again and again."""
    answers: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: Any, *args: Any, **options: Any) -> Any:
        if host not in answers:
            return real(host, port, *args, **options)
        turn = answers[host]
        found = turn.pop(0) if len(turn) > 1 else turn[0]
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port))) for address in found
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return answers


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_fault_35_name_of_a_private_address(
    tmp_path: pathlib.Path, names: dict[str, list[list[str]]], scheme: str
) -> None:
    """A public name that leads to a private address is not connected to, whatever else it has."""
    names["video.example"] = [["127.0.0.1"]]
    downloader = Downloader()
    async with hosting(serving(SMALL)) as host:
        url = f"{scheme}://video.example:{host.port}/video.mp4"
        with pytest.raises(DownloadError, match="not public" if scheme == "https" else "not https"):
            await downloader.download(url, tmp_path / "video.mp4")
        await downloader.aclose()
    assert [] == host.asked
    assert set() == entries(tmp_path)


async def test_fault_35_name_where_private_addresses_are_allowed(
    downloader: Downloader, tmp_path: pathlib.Path, names: dict[str, list[list[str]]]
) -> None:
    """Beside an API on a private network a redirect may lead to another name of it, in clear."""
    names["minio.corp.example"] = [["127.0.0.1"]]
    names["cdn.example"] = [["127.0.0.1"]]

    def answer(asked: Asked) -> Answer:
        steps = {"/video.mp4": "minio.corp.example", "/a": "cdn.example"}
        if (to := steps.get(asked.target)) is None:
            return serving(SMALL)(asked)
        path = "a" if asked.target == "/video.mp4" else "b"
        return Answer(302, {"Location": f"http://{to}:{host.port}/{path}"})

    async with hosting(answer) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
    assert SMALL == path.read_bytes()
    assert ["127.0.0.1", "minio.corp.example", "cdn.example"] == [
        asked.headers["host"].partition(":")[0] for asked in host.asked
    ]


async def test_fault_35_clear_text_to_a_public_address(
    downloader: Downloader, tmp_path: pathlib.Path, names: dict[str, list[list[str]]]
) -> None:
    """Where private addresses are allowed, a public name is refused by http."""
    names["cdn.example"] = [["8.8.8.8"]]
    with pytest.raises(DownloadError, match=r"'cdn\.example' is not https"):
        await downloader.download("http://cdn.example/video.mp4", tmp_path / "video.mp4")


async def test_fault_35_the_checked_address_is_connected_to(
    tmp_path: pathlib.Path, names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is resolved once for a connection: what it becomes a moment later does not count."""
    names["video.example"] = [["8.8.8.8", "127.0.0.1"], ["127.0.0.1"]]
    connected: list[Any] = []

    async def start_connection(*, addr_infos: Any, **_: Any) -> socket.socket:
        connected.extend(info[4][0] for info in addr_infos)
        raise OSError

    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", start_connection)
    downloader = Downloader()
    with pytest.raises(DownloadError):
        await downloader.download("https://video.example/video.mp4", tmp_path / "video.mp4")
    await downloader.aclose()
    assert {"8.8.8.8"} == set(connected)
