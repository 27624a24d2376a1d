"""Which way a download goes: proxies, a session of one's own, and nothing of the environment."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
from download.video_host import SMALL, Answer, Asked, Host, hosting, serving

from veo3_async import DownloadError
from veo3_async._download.downloader import Downloader

pytestmark = pytest.mark.anyio

PROXIED = "http://video.internal/video.mp4?sign=1"


@contextlib.asynccontextmanager
async def proxying() -> AsyncIterator[Host]:
    """Run a proxy that answers by itself to absolute URLs."""
    async with hosting(serving(SMALL)) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def netrc(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "netrc"
    file.write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(file))


def address(host: Host) -> str:
    return f"http://127.0.0.1:{host.port}"


@pytest.mark.usefixtures("netrc")
@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_fault_20_proxy_of_the_environment(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str, scheme: str
) -> None:
    """With ``trust_env`` the environment's proxy is used, and ``.netrc`` is not."""
    async with proxying() as proxy:
        monkeypatch.setenv(name, f"{scheme}127.0.0.1:{proxy.port}")
        downloader = Downloader(trust_env=True, allow_private=True)
        path = await downloader.download(PROXIED, tmp_path / "video.mp4")
        await downloader.aclose()
    assert SMALL == path.read_bytes()
    assert [PROXIED] == [asked.target for asked in proxy.asked]
    assert not {"authorization", "proxy-authorization"} & set(proxy.asked[0].headers)


@pytest.mark.parametrize(("trust_env", "no_proxy"), [(False, ""), (True, "127.0.0.1"), (True, "*")])
async def test_fault_20_proxy_that_is_not_wanted(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, no_proxy: str, *, trust_env: bool
) -> None:
    """Without ``trust_env``, and for what NO_PROXY names, the way is direct."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    downloader = Downloader(trust_env=trust_env, allow_private=True)
    async with hosting(serving(SMALL)) as host:
        path = await downloader.download(host.url, tmp_path / "video.mp4")
        await downloader.aclose()
    assert SMALL == path.read_bytes()
    assert ["/video.mp4"] == [asked.target for asked in host.asked]


async def test_proxy_that_is_given(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that is given wins over the environment's; it may be on a private network."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with proxying() as proxy:
        downloader = Downloader(proxy=address(proxy), trust_env=True, allow_private=True)
        await downloader.download(PROXIED, tmp_path / "video.mp4")
        await downloader.aclose()
    assert 1 == len(proxy.asked)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/video.mp4",
        "https://metadata.internal/video.mp4",
        "https://localhost/video.mp4",
    ],
)
async def test_fault_35_private_addresses_behind_a_proxy(tmp_path: pathlib.Path, url: str) -> None:
    """What is private as it stands is refused before a proxy is asked for it."""
    async with proxying() as proxy:
        downloader = Downloader(proxy=address(proxy))
        with pytest.raises(DownloadError, match="not public"):
            await downloader.download(url, tmp_path / "video.mp4")
        await downloader.aclose()
    assert [] == proxy.asked


async def test_fault_35_clear_text_behind_a_proxy(tmp_path: pathlib.Path) -> None:
    """A name that only the proxy can resolve may be public, so it is not asked for in clear."""
    async with proxying() as proxy:
        downloader = Downloader(proxy=address(proxy), allow_private=True)
        with pytest.raises(DownloadError, match="not https"):
            await downloader.download("http://cdn.example/video.mp4", tmp_path / "video.mp4")
        await downloader.aclose()
    assert [] == proxy.asked


async def test_session_of_ones_own(tmp_path: pathlib.Path) -> None:
    """A session that is given asks with its own headers, and is not closed."""

    def moved(asked: Asked) -> Answer:
        if asked.target == "/video.mp4":
            return Answer(302, {"Location": "/b"})
        return serving(SMALL, **{"Content-Encoding": "gzip"})(asked)  # type: ignore[arg-type]

    async with aiohttp.ClientSession(headers={"X-Mine": "1"}) as session:
        downloader = Downloader(session=session, allow_private=True)
        async with hosting(moved) as host:
            path = await downloader.download(host.url, tmp_path / "video.mp4")
            await downloader.aclose()
        assert not session.closed
    assert SMALL == path.read_bytes()
    assert ["1", "1"] == [asked.headers["x-mine"] for asked in host.asked]
    assert host.asked[0].headers["user-agent"].startswith("Mozilla/5.0")


async def test_fault_35_session_of_ones_own_is_no_way_round(tmp_path: pathlib.Path) -> None:
    """The rule of where a URL may lead holds with a session of one's own."""
    async with aiohttp.ClientSession() as session, hosting(serving(SMALL)) as host:
        downloader = Downloader(session=session)
        with pytest.raises(DownloadError, match="not public"):
            await downloader.download(host.url, tmp_path / "video.mp4")
        await downloader.aclose()
    assert [] == host.asked
