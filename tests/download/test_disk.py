"""What lies on disk before, while and after a download."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from veo3_async import DownloadError, VideoTask
from veo3_async._download.downloader import Downloader
from veo3_async.testing import Cut, FakeVeo3, Status, Video

pytestmark = pytest.mark.anyio

LIFE = pathlib.Path(__file__).with_name("download_life.py")
SIZE = 3 << 20


@pytest.fixture
def url(server: FakeVeo3) -> str:
    return server.serve("a.mp4", Video(size=SIZE))


@pytest.fixture
async def downloader() -> AsyncIterator[Downloader]:
    downloader = Downloader(allow_private=True)
    yield downloader
    await downloader.aclose()


@pytest.fixture
def final(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "storm.mp4"


@pytest.fixture
def part(final: pathlib.Path) -> pathlib.Path:
    return final.with_name("storm.mp4.part")


@pytest.fixture
def record(final: pathlib.Path) -> pathlib.Path:
    return final.with_name("storm.mp4.part.json")


def entries(folder: pathlib.Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


async def broken_off(
    server: FakeVeo3, downloader: Downloader, url: str, path: pathlib.Path, after: int
) -> None:
    """Download so many bytes, and let the rest be refused."""
    server.fault(Cut(at=after), on="file", times=1)
    server.fault(Status(400), on="file", times=1)
    with pytest.raises(DownloadError):
        await downloader.download(url, path)


# --- 36: what is there already --------------------------------------------------------------------


async def test_fault_36_existing_file(
    server: FakeVeo3, downloader: Downloader, url: str, final: pathlib.Path
) -> None:
    """A file that is there is not touched, and the host is not even asked."""
    final.write_text("mine")
    with pytest.raises(DownloadError, match="overwrite replaces it"):
        await downloader.download(url, final)
    assert "mine" == final.read_text()
    assert {"storm.mp4"} == entries(final.parent)
    assert 0 == server.received


async def test_fault_36_overwrite_replaces_files_only(
    server: FakeVeo3, downloader: Downloader, url: str, final: pathlib.Path
) -> None:
    """A pipe, a socket or a device (``/dev/null``, as root) stays what it is."""
    os.mkfifo(final)
    with pytest.raises(DownloadError, match="no file"):
        await downloader.download(url, final, overwrite=True)
    assert final.is_fifo()
    assert entries(final.parent) == {final.name}
    assert server.received == 0


async def test_fault_36_overwrite(
    server: FakeVeo3, downloader: Downloader, url: str, final: pathlib.Path
) -> None:
    """With ``overwrite=True`` the old file stays until the new one is whole."""
    final.write_text("old")
    await broken_off_with_overwrite(server, downloader, url, final)
    assert "old" == final.read_text()
    await downloader.download(url, final, overwrite=True)
    assert server.video_of(url) == final.read_bytes()


async def broken_off_with_overwrite(
    server: FakeVeo3, downloader: Downloader, url: str, final: pathlib.Path
) -> None:
    server.fault(Status(400), on="file", times=1)
    with pytest.raises(DownloadError):
        await downloader.download(url, final, overwrite=True)


@pytest.mark.parametrize("exists", [True, False])
async def test_fault_36_final_symlink(
    server: FakeVeo3,
    downloader: Downloader,
    url: str,
    final: pathlib.Path,
    *,
    exists: bool,
) -> None:
    """A link in the video's place counts as a file; overwriting replaces the link, not its end."""
    other = final.with_name("other")
    if exists:
        other.write_text("mine")
    final.symlink_to(other)
    with pytest.raises(DownloadError, match="overwrite replaces it"):
        await downloader.download(url, final)
    await downloader.download(url, final, overwrite=True)
    assert server.video_of(url) == final.read_bytes()
    assert not final.is_symlink()
    assert exists == other.exists()
    assert not exists or other.read_text() == "mine"


@pytest.mark.parametrize("suffix", [".part", ".part.json"])
async def test_fault_36_symlink_on_the_way(
    downloader: Downloader, url: str, final: pathlib.Path, suffix: str
) -> None:
    """Nothing is written through a link that lies in wait."""
    other = final.with_name("other")
    other.touch()
    final.with_name(f"storm.mp4{suffix}").symlink_to(other)
    with pytest.raises(DownloadError, match="symbolic links"):
        await downloader.download(url, final)
    assert "" == other.read_text()
    assert not final.exists()


async def test_fault_36_foreign_part(
    downloader: Downloader, url: str, final: pathlib.Path, part: pathlib.Path
) -> None:
    """A ``.part`` with something in it and no record beside it is somebody else's."""
    part.write_text("mine")
    with pytest.raises(DownloadError, match="not a download of ours"):
        await downloader.download(url, final)
    assert "mine" == part.read_text()
    assert {"storm.mp4.part"} == entries(final.parent)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
async def test_fault_36_foreign_record(
    downloader: Downloader,
    url: str,
    final: pathlib.Path,
    part: pathlib.Path,
    record: pathlib.Path,
    make: Callable[[pathlib.Path], None],
) -> None:
    """Where the record's place is taken no empty ``.part`` is left, and one with bytes stays."""
    make(record)
    with pytest.raises(DownloadError):
        await downloader.download(url, final)
    assert {"storm.mp4.part.json"} == entries(final.parent)
    part.write_text("mine")
    with pytest.raises(DownloadError):
        await downloader.download(url, final)
    assert "mine" == part.read_text()
    assert {"storm.mp4.part", "storm.mp4.part.json"} == entries(final.parent)


async def test_fault_36_part_with_another_name(
    downloader: Downloader, url: str, final: pathlib.Path, part: pathlib.Path
) -> None:
    """A ``.part`` that is a hard link of another file is left alone."""
    other = final.with_name("other")
    other.write_text("mine")
    part.hardlink_to(other)
    with pytest.raises(DownloadError, match="not a download of ours"):
        await downloader.download(url, final)
    assert "mine" == other.read_text()


async def test_fault_36_pipe_in_the_way(
    downloader: Downloader, url: str, final: pathlib.Path, part: pathlib.Path
) -> None:
    """A pipe in the place of the ``.part`` is refused, and nobody waits for its other end."""
    os.mkfifo(part)
    with pytest.raises(DownloadError, match="not a download of ours"):
        await downloader.download(url, final)


async def test_fault_36_crash_between_link_and_unlink(
    server: FakeVeo3,
    downloader: Downloader,
    url: str,
    final: pathlib.Path,
    part: pathlib.Path,
    record: pathlib.Path,
) -> None:
    """A ``.part`` that is the finished video itself is never written to."""
    final.write_bytes(b"a video that is whole")
    part.hardlink_to(final)
    record.write_text(json.dumps({"url": url, "done": 20, "total": 20}))
    with final.open("rb") as old:
        await downloader.download(url, final, overwrite=True)
        assert b"a video that is whole" == old.read()
    assert server.video_of(url) == final.read_bytes()
    assert {"storm.mp4"} == entries(final.parent)


@pytest.mark.posix
async def test_fault_36_two_processes(
    server: FakeVeo3, downloader: Downloader, url: str, final: pathlib.Path, part: pathlib.Path
) -> None:
    """A ``.part`` that another process is writing is left to it."""
    await broken_off(server, downloader, url, final, after=5000)
    before = part.read_bytes()
    with part.open("rb") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="another download"):
            await downloader.download(url, final)
    assert before == part.read_bytes()
    await downloader.download(url, final)
    assert server.video_of(url) == final.read_bytes()


@pytest.mark.parametrize("path", ["missing/storm.mp4", "missing/"])
async def test_fault_36_no_such_folder(
    downloader: Downloader, url: str, tmp_path: pathlib.Path, path: str
) -> None:
    """A folder that is not there is not made, and not taken for a file."""
    with pytest.raises(DownloadError, match="No such file or directory"):
        await downloader.download(url, f"{tmp_path}/{path}")
    assert set() == entries(tmp_path)


@pytest.mark.parametrize("path", ["storm\0.mp4", "storm\ud800.mp4", ""])
async def test_fault_36_no_name_of_a_file(
    server: FakeVeo3,
    downloader: Downloader,
    url: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    """What cannot be a path is an error as any other trouble with it, before the host is asked."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DownloadError, match="name another path") as caught:
        await downloader.download(VideoTask(id="veo3-pro:1", video_url=url), path, overwrite=True)
    assert str(caught.value).isprintable()
    assert "veo3-pro:1" == caught.value.request_id
    assert ({"here"}, set()) == (entries(tmp_path), entries(tmp_path / "here"))
    assert 0 == server.received


async def test_fault_36_folder_that_was_removed(
    downloader: Downloader, url: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the current folder is gone a bare name leads nowhere, and that is said."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(DownloadError, match="No such file or directory"):
        await downloader.download(url, "storm.mp4")


async def test_fault_36_relative_path(
    server: FakeVeo3,
    downloader: Downloader,
    url: str,
    final: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bare name lands in the current folder and comes back absolute."""
    monkeypatch.chdir(final.parent)
    assert final == await downloader.download(url, "storm.mp4")
    assert server.video_of(url) == final.read_bytes()


async def test_fault_60_permissions_follow_the_umask(
    server: FakeVeo3, downloader: Downloader, url: str, final: pathlib.Path
) -> None:
    """The video and its ``.part`` follow the umask; the record, with a signed URL, is private."""
    umask = os.umask(0o026)
    try:
        await broken_off(server, downloader, url, final, after=5000)
        modes = {entry.name: entry.stat().st_mode & 0o777 for entry in final.parent.iterdir()}
        await downloader.download(url, final)
    finally:
        os.umask(umask)
    assert {"storm.mp4.part": 0o640, "storm.mp4.part.json": 0o600} == modes
    assert 0o640 == final.stat().st_mode & 0o777


# --- the record -----------------------------------------------------------------------------------


def _claim(record: pathlib.Path, **claims: object) -> None:
    record.write_text(json.dumps(json.loads(record.read_text()) | claims))


@pytest.mark.parametrize("damage", ["{", "", "null", '{"url": 5}', "\0" * 50, "[" * 50_000])
async def test_damaged_record(
    server: FakeVeo3,
    downloader: Downloader,
    url: str,
    final: pathlib.Path,
    record: pathlib.Path,
    damage: str,
) -> None:
    """A record that makes no sense begins the download again."""
    await broken_off(server, downloader, url, final, after=5000)
    record.write_text(damage)
    await downloader.download(url, final)
    assert server.video_of(url) == final.read_bytes()
    assert "Range" not in server.requests[-1].headers


@pytest.mark.parametrize("validator", ['"1"\r\nX-Injected: 1', '"\u4e2d"', "\n", "x" * 9000])
async def test_record_that_cannot_be_a_header(
    server: FakeVeo3,
    downloader: Downloader,
    url: str,
    final: pathlib.Path,
    record: pathlib.Path,
    validator: str,
) -> None:
    """A record whose validator cannot be sent is passed over, and the download begins again."""
    await broken_off(server, downloader, url, final, after=5000)
    _claim(record, validator=validator)
    await downloader.download(url, final)
    assert server.video_of(url) == final.read_bytes()
    assert "Range" not in server.requests[-1].headers


@pytest.mark.parametrize(("done", "starts_at"), [(5001, None), (4000, 4000), (-1, None)])
async def test_record_and_file_disagree(
    server: FakeVeo3,
    downloader: Downloader,
    url: str,
    final: pathlib.Path,
    part: pathlib.Path,
    record: pathlib.Path,
    done: int,
    starts_at: int | None,
) -> None:
    """What the record does not vouch for is cut off; a file shorter than it is not trusted."""
    await broken_off(server, downloader, url, final, after=5000)
    _claim(record, done=done)
    if starts_at is not None:
        content = part.read_bytes()
        part.write_bytes(content[:starts_at] + bytes(5000 - starts_at))  # a crash's zeros
    await downloader.download(url, final)
    assert server.video_of(url) == final.read_bytes()
    wanted = None if starts_at is None else f"bytes={starts_at}-"
    assert wanted == server.requests[-1].headers.get("Range")


def _environment() -> dict[str, str]:
    root = str(LIFE.parent.parent)
    return os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


# --- 36: the disk fails ---------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("needs root on Linux, to mount a tmpfs")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_fault_36_disk_full(
    server: FakeVeo3, downloader: Downloader, url: str, small_disk: pathlib.Path
) -> None:
    """A full disk leaves no video but a part of one, which goes on when there is room."""
    final = small_disk / "storm.mp4"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_500_000))
    with pytest.raises(DownloadError, match=r"No space left on device.*bytes are kept"):
        await downloader.download(url, final)
    assert not final.exists()
    kept = json.loads((small_disk / "storm.mp4.part.json").read_text())["done"]
    assert 0 < kept <= (small_disk / "storm.mp4.part").stat().st_size
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    await downloader.download(url, final)
    assert server.video_of(url) == final.read_bytes()


async def test_fault_36_sync_error(
    server: FakeVeo3,
    downloader: Downloader,
    url: str,
    final: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the bytes of a video cannot be made safe it does not get its name."""

    def fsync(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(DownloadError, match="Input/output error"):
            await downloader.download(url, final)
    assert not final.exists()
    await downloader.download(url, final)
    assert server.video_of(url) == final.read_bytes()
    assert {"storm.mp4"} == entries(final.parent)


async def test_fault_36_failed_sync_is_not_believed_later(
    server: FakeVeo3,
    downloader: Downloader,
    url: str,
    final: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bytes whose sync has failed are fetched again, though a second sync would succeed."""
    sync, failures = os.fsync, [errno.EIO]

    def fsync(handle: int) -> None:
        if failures:
            raise OSError(failures.pop(), "an error that comes once")
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DownloadError, match="comes once"):
        await downloader.download(url, final)
    await downloader.download(url, final)
    assert server.video_of(url) == final.read_bytes()
    assert [None, None] == [asked.headers.get("Range") for asked in server.requests]


async def test_short_writes(
    server: FakeVeo3,
    downloader: Downloader,
    url: str,
    final: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A system that takes only a part of what it is given gets the rest after it."""
    writev, write = os.writev, os.write

    def short_writev(handle: int, pieces: Any) -> int:
        return writev(handle, [pieces[0][:100]])

    def short_write(handle: int, data: Any) -> int:
        return write(handle, data[:50_000])

    monkeypatch.setattr(os, "writev", short_writev)
    monkeypatch.setattr(os, "write", short_write)
    await downloader.download(url, final)
    assert server.video_of(url) == final.read_bytes()


# --- the order of things --------------------------------------------------------------------------


def _steps(trace: str, folder: pathlib.Path) -> list[str]:
    """Return the calls on our files in order, those in a row that are the same once."""
    steps = [""]
    for line in trace.splitlines():
        if found := re.search(rf"(\w+)\(\d+<{re.escape(str(folder))}/?([^>]*)>", line):
            call, name = found.groups()
            step = f"{call} {name or 'folder'}"
            steps += [step] if step != steps[-1] else []
    return steps[1:]


async def _traced(url: str, final: pathlib.Path, *options: str) -> list[str]:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    trace = final.parent.with_name("trace")
    calls = "trace=write,writev,ftruncate,fsync,link,linkat,rename,renameat,renameat2,unlinkat"
    command = ["strace", "-f", "-y", "-o", str(trace), "-e", calls]
    child = await asyncio.create_subprocess_exec(
        *command, sys.executable, LIFE, url, final, *options, env=_environment()
    )
    code = await child.wait()
    text = trace.read_text()
    trace.unlink()
    if f"exited with {code}" not in text:
        pytest.skip("may not trace a process")
    assert 0 == code
    return _steps(text, final.parent)


@pytest.mark.real_time
@pytest.mark.parametrize("overwrite", [False, True])
async def test_fault_36_order_of_system_calls(
    server: FakeVeo3, url: str, final: pathlib.Path, *, overwrite: bool
) -> None:
    """The video is written, synced, given its name, and the folder synced, in that order."""
    steps = await _traced(url, final, *["overwrite"] * overwrite)
    assert server.video_of(url) == final.read_bytes()
    last_write = len(steps) - 1 - steps[::-1].index("writev storm.mp4.part")
    naming = ["renameat folder"] if overwrite else ["linkat folder"]
    assert ["ftruncate storm.mp4.part", "fsync storm.mp4.part"] == steps[last_write + 1 :][:2]
    assert [*naming, "fsync folder", "unlinkat folder"] == steps[-3:]
