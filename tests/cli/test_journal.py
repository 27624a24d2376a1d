"""The command line with a journal: what is listed, and what is resumed."""

from __future__ import annotations

import pathlib
import subprocess
import time

import pytest
from cli_service import (
    DONE,
    KEY,
    MODULE,
    Command,
    Result,
    Service,
    one_line,
)

from veo3_async import Journal, Veo3Client
from veo3_async.testing import Drip, HangUp, Life, Status


def test_journal_is_listed_and_resumed(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """What was submitted with a journal is pending, is gone on with, and then is not any more."""
    journal = ["--journal", str(tmp_path / "veo3.db")]
    name = command("submit", "a storm", *journal).out.strip()
    monkeypatch.delenv("AI302_API_KEY")
    listed = command("pending", *journal)
    (task,) = listed.lines
    assert listed.code == 0
    assert listed.err == "1 pending\n"
    assert (task["request_id"], task["prompt"], task["in_doubt"]) == (name, "a storm", False)
    monkeypatch.setenv("AI302_API_KEY", KEY)
    resumed = command("resume", "--json", *journal, "--interval", "0.2")
    assert resumed.code == 0
    assert resumed.lines[-1]["request_id"] == name
    assert resumed.lines[-1]["final"]
    assert command("pending", *journal).err == "0 pending\n"
    assert command("resume", "--json", *journal) == Result(0, "", "nothing is pending\n")


def test_what_is_accepted_beside_a_resume_is_not_its_matter(
    command: Command, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Another process gets at the journal when all is over, not between listing and watching."""
    journal = ["--journal", str(tmp_path / "veo3.db")]
    mine, theirs = command("submit", "a storm", *journal).out.strip(), service.add(life=DONE)

    async def aclose_and_let_others_in(veo: Veo3Client) -> None:
        await aclose(veo)
        other = Journal(tmp_path / "veo3.db")
        await other.accept([theirs], at=time.time())
        await other.aclose()

    aclose = Veo3Client.aclose
    with monkeypatch.context() as patch:
        patch.setattr(Veo3Client, "aclose", aclose_and_let_others_in)
        result = command("resume", "--json", *journal, "--interval", "0.2")
    assert result.code == 0
    assert {line["request_id"] for line in result.lines} == {mine}
    assert [task["request_id"] for task in command("pending", *journal).lines] == [theirs]


def test_a_journal_is_listed_wherever_the_service_is(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """What asks the service nothing does not mind an address that cannot be one."""
    journal = ["--journal", str(tmp_path / "veo3.db")]
    name = command("submit", "a storm", *journal).out.strip()
    monkeypatch.setenv("AI302_BASE_URL", "nowhere")
    (task,) = command("pending", *journal).lines
    assert task["request_id"] == name


def test_submission_in_doubt_is_named(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """A submission without an answer stays in the journal, and resume names it."""
    journal = ["--journal", str(tmp_path / "veo3.db")]
    service.fault(HangUp(), on="submit")
    assert command("submit", "a storm", *journal).code == 1
    (task,) = command("pending", *journal).lines
    assert (task["request_id"], task["in_doubt"]) == (None, True)
    assert "in doubt, look at your account: a storm" in command("resume", "--json", *journal).err


def test_what_was_being_saved_when_the_process_died_is_resumed(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """With --download an end is owed until its video is on disk; those that are, are not."""
    journal, videos = ["--journal", str(tmp_path / "veo3.db")], tmp_path / "videos"
    names = [service.add(life=Life.plain()) for _ in range(2)]
    service.fault(Drip(0.01), on="file", after=1, times=1)
    words = ["watch", *names, *journal, "--download", str(videos), "--interval", "0.05"]
    with subprocess.Popen(
        [*MODULE, *words],
        env=service.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 40
        while True:
            there = list(videos.glob("*.mp4"))
            parts = {part.stem for part in videos.glob("*.part")}
            if there and len(parts) == 1 and there[0].name not in parts:
                break  # one is saved, and the other one is not
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    (saved,) = there
    before = saved.stat()
    resumed = command("resume", "--json", *journal, "--download", str(videos), "--interval", "0.05")
    assert resumed.code == 0
    assert len(list(videos.glob("*.mp4"))) == 2
    assert not list(videos.glob("*.part"))
    assert saved.stat() == before
    assert command("pending", *journal).err == "0 pending\n"


def test_a_video_that_could_not_be_saved_stays_pending(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """A disk that was full, a link that was broken: the next `resume` brings it, and only it."""
    journal, videos = ["--journal", str(tmp_path / "veo3.db")], tmp_path / "videos"
    words = [*journal, "--download", str(videos), "--interval", "0.05"]
    saved, not_saved = service.add(life=Life.plain()), service.add(life=Life.plain())
    assert command("watch", saved, *words).code == 0
    service.fault(Status(404), on="file", times=1)
    failed = command("watch", not_saved, *words)
    assert (failed.code, failed.err) == (1, "1 task: 1 video, 0 saved, 1 failed\n")
    (task,) = command("pending", "--json", *journal).lines
    assert (task["request_id"], task["phase"]) == (not_saved, "completed")
    assert command("resume", *words).err == "1 task: 1 video, 1 saved\n"
    assert len(list(videos.glob("*.mp4"))) == 2
    assert command("pending", *journal).err == "0 pending\n"


def test_file_that_is_no_journal_is_one_line(command: Command, tmp_path: pathlib.Path) -> None:
    """A file of another kind is left alone."""
    file = tmp_path / "veo3.db"
    file.write_bytes(b"something else entirely" * 100)
    result = command("pending", "--journal", str(file))
    assert result.code == 1
    assert str(file) in one_line(result)
    assert file.read_bytes().startswith(b"something else")


@pytest.mark.parametrize(
    "arguments", [["watch", "id"], ["submit", "a storm"], ["submit", "a storm", "--wait"]]
)
def test_journal_that_cannot_be_opened_is_one_line(
    command: Command, service: Service, tmp_path: pathlib.Path, arguments: list[str]
) -> None:
    """Nothing was begun, so there is nothing to go on with, and no request was made."""
    result = command(*arguments, "--journal", str(tmp_path / "missing" / "veo3.db"))
    assert result.code == 1
    assert "check that its directory exists" in one_line(result)
    assert service.server.received == 0


@pytest.mark.parametrize("name", ["pending", "resume"])
def test_journal_that_is_not_there_is_a_usage_error(
    command: Command, tmp_path: pathlib.Path, name: str
) -> None:
    """What is only read is not made."""
    result = command(name, "--journal", str(tmp_path / "missing" / "veo3.db"))
    assert result.code == 2
    assert "does not exist" in one_line(result)
