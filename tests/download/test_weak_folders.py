"""Folders that are not ext4: the video arrives, and what cannot be promised is said once."""

from __future__ import annotations

import errno
import fcntl
import os
import pathlib
import stat
from collections.abc import Callable
from typing import Any

import pytest
from download.video_host import SMALL, Answer, Asked, entries, hosting, in_turn, serving

from veo3_async import FileInTheWay
from veo3_async._download.downloader import Downloader

pytestmark = pytest.mark.anyio

Break = Callable[[pytest.MonkeyPatch], None]


def _failing(name: str, code: int, *, of: str = "any") -> Break:
    """Return what makes a call of ``os`` or ``fcntl`` fail, for all handles or those of a kind."""
    module = fcntl if name == "flock" else os

    def break_it(monkeypatch: pytest.MonkeyPatch) -> None:
        real = getattr(module, name)

        def call(*args: Any, **options: Any) -> Any:
            is_folder = of != "any" and stat.S_ISDIR(os.fstat(args[0]).st_mode)
            if of == "any" or is_folder == (of == "folder"):
                raise OSError(code, os.strerror(code))
            return real(*args, **options)

        monkeypatch.setattr(module, name, call)

    return break_it


def _as_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1000)


def _not_listable(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def call(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & os.O_DIRECTORY:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", call)


LOCK, RACE, SYNC = "no file locks", "no hard links", "no sync"
CODES = {name: getattr(errno, name) for name in ("EINVAL", "ENOSYS", "EOPNOTSUPP", "ENOLCK")}
WEAK: dict[str, tuple[Break, str | None]] = {
    **{f"flock {name}": (_failing("flock", code), LOCK) for name, code in CODES.items()},
    "folder EINVAL": (_failing("fsync", errno.EINVAL, of="folder"), SYNC),
    "folder EIO": (_failing("fsync", errno.EIO, of="folder"), SYNC),
    "folder EBADF": (_failing("fsync", errno.EBADF, of="folder"), SYNC),
    "file EINVAL": (_failing("fsync", errno.EINVAL, of="file"), SYNC),
    "link EPERM": (_failing("link", errno.EPERM), RACE),
    "link ENOTSUP": (_failing("link", errno.ENOTSUP), RACE),
    "link ENOSYS": (_failing("link", errno.ENOSYS), RACE),
    "link EACCES": (_failing("link", errno.EACCES), RACE),
    "link EMLINK": (_failing("link", errno.EMLINK), RACE),
    "setxattr ENOTSUP": (_failing("setxattr", errno.ENOTSUP), None),
    "setxattr ENOSPC": (_failing("setxattr", errno.ENOSPC), None),
    "not listable": (_not_listable, SYNC),
    "one user for all": (_as_another_user, None),
}


@pytest.mark.posix
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(("weaken", "said"), WEAK.values(), ids=WEAK)
async def test_fault_60_the_video_arrives(
    downloader: Downloader,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    weaken: Break,
    said: str | None,
    *,
    overwrite: bool,
) -> None:
    """It comes, is resumed, and is known again; one line says what is lacking, if that matters."""
    weaken(monkeypatch)
    async with hosting(in_turn(serving(SMALL, sent=5000), serving(SMALL))) as host:
        for name in ("a.mp4", "b.mp4"):
            path = await downloader.download(host.url, tmp_path / name, overwrite=overwrite)
            assert SMALL == path.read_bytes()
        requests = len(host.asked)
        assert path == await downloader.download(host.url, path)
    assert 3 == requests == len(host.asked)
    lines = [record.message for record in caplog.records if record.levelname == "WARNING"]
    shown = said is not None and not (overwrite and said == RACE)
    assert [True] * shown == [str(said) in line for line in lines]
    names = {name for name in entries(tmp_path) if not name.startswith(".")}
    assert {"a.mp4", "b.mp4"} == names


async def test_fault_60_no_hard_links_and_a_foreign_file(
    downloader: Downloader, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without hard links a foreign file that came meanwhile is left alone all the same."""
    _failing("link", errno.EPERM)(monkeypatch)
    final = tmp_path / "video.mp4"

    def answer(asked: Asked) -> Answer:
        final.write_text("mine")
        return serving(SMALL)(asked)

    async with hosting(answer) as host:
        with pytest.raises(FileInTheWay):
            await downloader.download(host.url, final)
    assert "mine" == final.read_text()
