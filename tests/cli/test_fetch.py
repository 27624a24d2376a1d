"""What ``fetch`` and ``download`` write into pipes."""

from __future__ import annotations

import pathlib

import pytest
from cli_service import (
    DONE,
    FOREVER,
    Command,
    Result,
    Service,
    one_line,
)

from veo3_async import VideoTask
from veo3_async.cli._show import show_task


def test_fetch_writes_the_task(command: Command, service: Service) -> None:
    """One look is one line of JSON, whatever the state is."""
    name = service.add(life=FOREVER)
    result = command("fetch", name)
    (task,) = result.lines
    assert result.code == 0
    assert (task["id"], task["status"]) == (name, "video_generating")


def test_a_failed_task_is_shown_with_the_reason(capfd: pytest.CaptureFixture[str]) -> None:
    """Of two the nearer one, as in every error."""
    show_task(VideoTask(status="failed", failure_reason="unsafe", error_message="[403]"))
    assert capfd.readouterr().out.splitlines()[-1].split() == ["error", "unsafe"]


def test_fetch_of_an_unknown_id_is_exit_code_1(command: Command) -> None:
    """An id that the service does not know is one line and 1."""
    result = command("fetch", "veo3-pro:nope")
    assert result.code == 1
    assert "veo3-pro:nope" in one_line(result)


def test_download_of_a_url_needs_no_key(
    command: Command, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """A URL is enough; the path is printed."""
    task = command("fetch", service.add(life=DONE)).lines[0]
    monkeypatch.delenv("AI302_API_KEY")
    target = tmp_path / "a.mp4"
    assert command("download", task["video_url"], str(target)) == Result(0, f"{target}\n", "")
    assert target.read_bytes() == service.server.video_of(task["video_url"])
    received = service.server.received
    assert command("download", task["video_url"], str(target)) == Result(0, f"{target}\n", "")
    assert service.server.received == received
    target.write_text("mine")
    again = command("download", task["video_url"], str(target))
    assert again.code == 1
    assert str(target) in one_line(again)


def test_download_of_another_scheme_sends_nothing(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """What looks like a URL is not asked for as an id."""
    result = command("download", "ftp://file.302.ai/a.mp4", str(tmp_path))
    assert result.code == 1
    assert "is not https" in one_line(result)
    assert service.server.received == 0


def test_download_of_an_id_asks_for_its_url(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """An id is looked up; one that has no video yet is refused."""
    name = service.add(life=DONE)
    result = command("download", name, str(tmp_path), "--json")
    (line,) = result.lines
    assert result.code == 0
    assert line["source"] == name
    assert pathlib.Path(line["path"]).parent == tmp_path
    early = command("download", service.add(life=FOREVER), str(tmp_path))
    assert early.code == 1
    assert "no video; the service says 'video_generating'" in one_line(early)
