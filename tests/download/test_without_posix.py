"""Downloads where there is no fcntl, no handle of a folder, no hard link and no sync of folders."""

from __future__ import annotations

import asyncio
import pathlib
import sys

import pytest
from download.video_host import (
    SMALL,
    Answer,
    always,
    entries,
    environment,
    hosting,
    in_turn,
    serving,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.skipif(
        not pathlib.Path("/proc/self/fd").is_dir(), reason="needs /proc, to see what is open"
    ),
]

PROGRAM = pathlib.Path(__file__).with_name("without_posix.py")
RECORD = ".video.mp4.veo3_async"


async def download(url: str, folder: pathlib.Path, *words: str) -> tuple[str, str]:
    """Run a process that downloads; return what it prints, and what it logs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        PROGRAM,
        url,
        folder,
        *words,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, logged = await process.communicate()
    return printed.decode().strip(), logged.decode().strip()


async def test_fault_70_whole_life_of_a_video(tmp_path: pathlib.Path) -> None:
    """It is cut, resumed by the next process, gets its name, and is known again by a third."""
    script = in_turn(serving(SMALL, sent=50_000), always(Answer(400)), serving(SMALL))
    async with hosting(script) as host:
        failed, _ = await download(host.url, tmp_path)
        assert failed.startswith("DownloadError")
        assert "50000 bytes are kept" in failed
        printed, logged = await download(host.url, tmp_path)
        assert ("video.mp4", SMALL) == (printed, (tmp_path / "video.mp4").read_bytes())
        assert [0, 50_000, 50_000] == host.starts
        assert 1 == len(logged.splitlines())
        for lacking in ("no file locks", "no hard links", "no sync"):
            assert lacking in logged
        assert ("video.mp4", "") == await download(host.url, tmp_path)
        assert 3 == len(host.asked)
        assert {"video.mp4", RECORD} == entries(tmp_path)


async def test_fault_70_foreign_file(tmp_path: pathlib.Path) -> None:
    """A foreign file is left alone, and replaced if that is wanted."""
    final = tmp_path / "video.mp4"
    final.write_bytes(b"\r\nmine\r\n")
    async with hosting(serving(SMALL)) as host:
        printed, _ = await download(host.url, tmp_path)
        assert printed.startswith("FileInTheWay")
        assert b"\r\nmine\r\n" == final.read_bytes()
        assert "video.mp4" == (await download(host.url, tmp_path, "overwrite"))[0]
    assert SMALL == final.read_bytes()
    assert {"video.mp4", RECORD} == entries(tmp_path)


@pytest.mark.parametrize("suffix", [".part", ".part.json"])
async def test_fault_70_symbolic_link_on_the_way(tmp_path: pathlib.Path, suffix: str) -> None:
    """Nothing is written through a link, though the system cannot refuse to follow it."""
    other = tmp_path / "other"
    other.touch()
    (tmp_path / f"video.mp4{suffix}").symlink_to(other)
    async with hosting(serving(SMALL)) as host:
        printed, _ = await download(host.url, tmp_path)
    assert printed.startswith("FileInTheWay")
    assert "" == other.read_text()


async def test_fault_70_no_such_folder(tmp_path: pathlib.Path) -> None:
    """A folder that is not there is said to be missing."""
    async with hosting(serving(SMALL)) as host:
        printed, _ = await download(host.url, tmp_path / "missing")
    assert "No such file or directory" in printed
