"""An end that is delivered again finds its video on disk; a foreign file is an error of its own."""

from __future__ import annotations

import json
import os
import pathlib
import shutil

import pytest
from download.video_host import ID, SMALL, entries, hosting, serving

from veo3_async import DownloadError, FileInTheWay, VideoTask
from veo3_async._download.downloader import Downloader
from veo3_async.testing import FakeVeo3, Video


@pytest.fixture(params=["attribute", "hidden file"])
def _record(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the record as an attribute, and as where there are none."""
    if request.param == "hidden file":
        monkeypatch.delattr(os, "setxattr")
        monkeypatch.delattr(os, "getxattr")


pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("_record")]


async def in_another_life(
    source: VideoTask | str, path: pathlib.Path, *, overwrite: bool = False
) -> tuple[pathlib.Path, list[tuple[int, int | None]]]:
    """Download with a downloader that knows nothing of earlier ones."""
    downloader, seen = Downloader(allow_private=True), list[tuple[int, int | None]]()
    try:
        there = await downloader.download(
            source, path, overwrite=overwrite, progress=lambda *now: seen.append(now)
        )
    finally:
        await downloader.aclose()
    return there, seen


def visible(folder: pathlib.Path) -> set[str]:
    return {name for name in entries(folder) if not name.startswith(".")}


async def test_fault_61_the_video_is_there_already(tmp_path: pathlib.Path) -> None:
    """After a restart nothing is asked: the path comes back, and progress says that all is here."""
    async with hosting(serving(SMALL)) as host:
        task = VideoTask(id=ID, video_url=f"{host.url}?sign=1")
        path, _ = await in_another_life(task, tmp_path)
        again = VideoTask(id=ID, video_url=f"{host.url.replace('video', 'moved')}?sign=2")
        for _ in range(3):
            expected = (path, [(len(SMALL), len(SMALL))])
            assert expected == await in_another_life(again, tmp_path)
    assert SMALL == path.read_bytes()
    assert 1 == len(host.asked)
    assert {path.name} == visible(tmp_path)


async def test_fault_61_bare_urls(tmp_path: pathlib.Path) -> None:
    """A video that was brought by its URL is known by that, and by the task that has it."""
    final = tmp_path / "video.mp4"
    async with hosting(serving(SMALL)) as host:
        for source in (host.url, host.url, VideoTask(id=ID, video_url=host.url)):
            assert final == (await in_another_life(source, final))[0]
        assert 1 == len(host.asked)
        with pytest.raises(FileInTheWay):
            await in_another_life(f"{host.url}?another", final)


async def test_fault_61_overwrite_fetches_it_anew(tmp_path: pathlib.Path) -> None:
    """With ``overwrite=True`` a video that is there is fetched again, and known again."""
    final = tmp_path / "video.mp4"
    async with hosting(serving(SMALL)) as host:
        for overwrite in (False, True, False):
            await in_another_life(host.url, final, overwrite=overwrite)
    assert 2 == len(host.asked)


async def test_fault_61_renamed_with_its_folder(tmp_path: pathlib.Path) -> None:
    """The record goes where the folder goes."""
    (tmp_path / "a").mkdir()
    async with hosting(serving(SMALL)) as host:
        await in_another_life(host.url, tmp_path / "a" / "video.mp4")
        (tmp_path / "a").rename(tmp_path / "b")
        await in_another_life(host.url, tmp_path / "b" / "video.mp4")
    assert 1 == len(host.asked)


@pytest.mark.parametrize("content", [b"", b"mine", SMALL[:-1], SMALL + b"\0"])
async def test_fault_61_foreign_file(tmp_path: pathlib.Path, content: bytes) -> None:
    """A file that somebody else put there, or changed, is left alone, and the host is not asked."""
    final = tmp_path / "video.mp4"
    async with hosting(serving(SMALL)) as host:
        await in_another_life(host.url, final)
        final.write_bytes(content)
        with pytest.raises(FileInTheWay, match="overwrite replaces it") as caught:
            await in_another_life(host.url, final)
        assert isinstance(caught.value, DownloadError)
        assert str(final) in caught.value.message
        assert content == final.read_bytes()
        assert 1 == len(host.asked)


async def test_fault_61_video_of_another_task(tmp_path: pathlib.Path) -> None:
    """The video of another task, and the plain one of this task, are not what is asked for."""
    final = tmp_path / "video.mp4"
    async with hosting(serving(SMALL)) as host:
        plain = VideoTask(id=ID, video_url=host.url)
        await in_another_life(plain, final)
        better = VideoTask(id=ID, video_url=host.url, upsample_video_url=f"{host.url}?up")
        for other in (VideoTask(id="veo3-pro:2", video_url=f"{host.url}?2"), better):
            with pytest.raises(FileInTheWay):
                await in_another_life(other, final)


async def test_fault_61_folder_or_link_of_that_name(tmp_path: pathlib.Path) -> None:
    """What is no file is in the way, even where it leads to the video."""
    async with hosting(serving(SMALL)) as host:
        await in_another_life(host.url, tmp_path / "a.mp4")
        (tmp_path / "b.mp4").symlink_to(tmp_path / "a.mp4")
        os.mkfifo(tmp_path / "c.mp4")
        for name in ("b.mp4", "c.mp4"):
            with pytest.raises(FileInTheWay):
                await in_another_life(host.url, tmp_path / name)
    assert 1 == len(host.asked)


@pytest.mark.posix
@pytest.mark.parametrize("name", ["video.mp4.part", "video.mp4.part.json"])
async def test_fault_61_foreign_part(tmp_path: pathlib.Path, name: str) -> None:
    """What lies in the place of a ``.part`` or its record is in the way, too."""
    (tmp_path / name).mkdir()
    with pytest.raises(FileInTheWay, match=f"{name} is not a download of ours; move it away"):
        await in_another_life("http://127.0.0.1:9/video.mp4", tmp_path / "video.mp4")


async def test_fault_61_crash_between_name_and_removal(tmp_path: pathlib.Path) -> None:
    """A process that died between the hard link and the end left two names: the old one goes."""
    final, part = tmp_path / "video.mp4", tmp_path / "video.mp4.part"
    async with hosting(serving(SMALL)) as host:
        await in_another_life(host.url, final)
        part.hardlink_to(final)
        part.with_name("video.mp4.part.json").write_text(json.dumps({"url": host.url, "done": 9}))
        await in_another_life(host.url, final)
    assert SMALL == final.read_bytes()
    assert {"video.mp4"} == visible(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"{", b"null", b'{"identity": 5}', b"\xff" * 70_000])
async def test_fault_61_damaged_record(tmp_path: pathlib.Path, damage: bytes) -> None:
    """A record that makes no sense makes the file a foreign one."""
    final, hidden = tmp_path / "video.mp4", tmp_path / ".video.mp4.veo3_async"
    async with hosting(serving(SMALL)) as host:
        await in_another_life(host.url, final)
        if hidden.exists():
            hidden.write_bytes(damage)
        else:
            os.setxattr(final, "user.veo3_async", damage[:4000])
        with pytest.raises(FileInTheWay):
            await in_another_life(host.url, final)


async def test_fault_61_copy_without_its_record(tmp_path: pathlib.Path) -> None:
    """A copy without the record is foreign, and so is a later file of the same name."""
    final = tmp_path / "video.mp4"
    async with hosting(serving(SMALL)) as host:
        await in_another_life(host.url, final)
        shutil.copyfile(final, tmp_path / "copy.mp4")
        with pytest.raises(FileInTheWay):
            await in_another_life(host.url, tmp_path / "copy.mp4")


async def test_fault_61_file_that_came_meanwhile(tmp_path: pathlib.Path) -> None:
    """A file that comes while the video does is no less foreign for the record of the video."""
    final = tmp_path / "video.mp4"
    async with hosting(serving(SMALL)) as host:
        inner = host.answer

        def answer(asked: object) -> object:
            final.write_bytes(bytes(len(SMALL)))
            return inner(asked)  # type: ignore[arg-type]

        host.answer = answer  # type: ignore[assignment]
        for _ in range(2):
            with pytest.raises(FileInTheWay):
                await in_another_life(host.url, final)
    assert bytes(len(SMALL)) == final.read_bytes()


async def test_fault_61_secrets_are_in_no_record(tmp_path: pathlib.Path) -> None:
    """The record that others can read has no signed URL in it."""
    async with hosting(serving(SMALL)) as host:
        path, _ = await in_another_life(f"{host.url}?sign=secret", tmp_path / "video.mp4")
    texts = [file.read_bytes() for file in tmp_path.iterdir()]
    if hasattr(os, "getxattr"):
        texts += [os.getxattr(path, "user.veo3_async")]
    assert len(texts) == 2
    assert not any(b"secret" in text for text in texts)


async def test_fault_61_fresh_urls_of_the_same_task(
    server: FakeVeo3, tmp_path: pathlib.Path
) -> None:
    """A task whose URLs were renewed between two starts is known by its id."""
    url = server.serve("a.mp4", Video(size=5000))
    await in_another_life(VideoTask(id=ID, video_url=url), tmp_path)
    moved = server.serve("b.mp4", Video(size=5000))
    await in_another_life(VideoTask(id=ID, video_url=moved), tmp_path)
    assert 1 == server.received
