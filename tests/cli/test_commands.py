"""What the commands of 0.2 do: generate, bulk submissions, models, balance, settle, backup."""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess

import pytest
from cli_service import (
    DONE,
    FAILED,
    FOREVER,
    KEY,
    MODULE,
    TWO_STEPS,
    Command,
    Result,
    Service,
    on_terminal,
    one_line,
    running_service,
)

from veo3_async.cli._options import duration
from veo3_async.live._table import short_ids
from veo3_async.testing import HangUp, Status

# --- submitting ---------------------------------------------------------------------------


def test_generate_without_a_path_names_the_video_by_its_id(
    command: Command, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """The video of a new task is in the working directory, and the last line says where."""
    monkeypatch.chdir(tmp_path)
    result = command("generate", "--json", "a storm")
    assert result.code == 0
    (name,) = service.server.ids
    assert result.lines[0] == {"request_id": name}
    (file,) = tmp_path.glob("*.mp4")
    assert pathlib.Path(result.lines[-1]["path"]).name == file.name


def test_submit_file_is_a_task_a_line(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """Each line of the file is a prompt, and each id is on a line of its own, in their order."""
    file = tmp_path / "prompts.txt"
    file.write_text("# of today\na storm\n\nthe sea\n")
    result = command("submit", "--file", str(file))
    assert result.out.split() == list(service.server.ids)
    bodies = [json.loads(post.body)["text_prompt"] for post in service.server.requests]
    assert bodies == ["a storm", "the sea"]


def test_submit_file_stops_at_what_is_not_accepted(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """When the balance is used up, what was submitted is printed, and the next prompt named."""
    file = tmp_path / "prompts.txt"
    file.write_text("a storm\nthe sea\na tram\n")
    service.fault(Status(402), on="submit", after=1)
    result = command("submit", "--json", "--file", str(file), "--wait")
    assert result.code == 3
    assert [line["request_id"] for line in result.lines] == list(service.server.ids)
    assert result.err.splitlines()[:2] == [
        "1 of 3 submitted; the next one was not accepted:",
        "  the sea",
    ]


def test_submit_takes_a_model_its_options_an_image_file_and_metadata(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """What the client can say of a task the command line can say as well."""
    image = tmp_path / "a.png"
    image.write_bytes(b"\x89PNG\r\n\x1a\n")
    journal = ["--journal", str(tmp_path / "j.db")]
    options = ["--param", "aspect_ratio=9:16", "--metadata", '{"chat": 42}']
    made = command("submit", "x", "--model", "veo3.1", *options, "--image", str(image), *journal)
    assert made.code == 0, made.err
    post = service.server.requests[-1]
    assert json.loads(post.body)["aspect_ratio"] == "9:16"
    assert any("upload" in request.path for request in service.server.requests)
    (task,) = command("pending", *journal).lines
    assert (task["metadata"], task["model"]) == ({"chat": 42}, "veo3.1")


# --- the account --------------------------------------------------------------------------


def test_models_and_balance_are_listed(command: Command) -> None:
    """The models of the unified endpoint come as JSON lines, the balance as a number."""
    models = command("models")
    assert models.code == 0
    assert all(line["name"] for line in models.lines)
    balance = command("balance")
    assert balance.code == 0
    assert float(balance.out) > 0


def test_doubt_is_settled(command: Command, service: Service, tmp_path: pathlib.Path) -> None:
    """A submission whose answer was never seen is listed with a key, and settled by that key."""
    journal = ["--journal", str(tmp_path / "j.db")]
    service.fault(HangUp(), on="submit", times=1)
    assert command("submit", "a storm", *journal).code == 1
    (task,) = command("pending", *journal).lines
    assert task["in_doubt"]
    name = service.server.ids[0]
    settled = command("settle", str(task["key"]), name, *journal)
    assert (settled.code, settled.err) == (0, f"settled: {name}\n")
    (task,) = command("pending", *journal).lines
    assert task["request_id"] == name
    assert command("settle", "99", *journal).code == 1


def test_journal_is_read_and_copied_beside_a_bot(
    service: Service, command: Command, tmp_path: pathlib.Path
) -> None:
    """While another process watches with a journal, pending lists it and backup copies it."""
    journal = tmp_path / "j.db"
    name = service.add(life=FOREVER)
    bot = subprocess.Popen(
        [*MODULE, "watch", name, "--journal", str(journal)],
        stdout=subprocess.PIPE,
        env=service.environment,
    )
    try:
        assert bot.stdout is not None
        bot.stdout.readline()
        (task,) = command("pending", "--journal", str(journal)).lines
        assert task["request_id"] == name
        copy = tmp_path / "copy.db"
        made = command("journal", "backup", str(journal), str(copy))
        assert (made.code, made.out) == (0, f"{copy}\n")
        assert command("journal", "backup", str(journal), str(copy)).code == 1
    finally:
        bot.send_signal(signal.SIGINT)
        bot.communicate()
    assert command("pending", "--journal", str(copy)).lines == [task]


def test_list_shows_finished_tasks_too(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """The newest first, with the video or the reason, for people and as JSON."""
    journal = ["--journal", str(tmp_path / "j.db")]
    good, bad, late = service.add(life=DONE), service.add(life=FAILED), service.add(life=FOREVER)
    command("watch", good, bad, late, *journal, "--timeout", "2s", "--interval", "0.05")
    assert [line["request_id"] for line in command("pending", *journal).lines] == [late]
    lines = command("list", *journal, "--json").lines
    by_id = {line["request_id"]: line for line in lines}
    assert list(by_id) == [late, bad, good]
    assert by_id[good]["url"].endswith(".mp4")
    assert by_id[bad]["final"]["error"]["reason"] == "moderation"
    assert by_id[late]["final"] is None
    assert len(command("list", *journal, "--limit", "1").lines) == 1
    with on_terminal(service, "list", *journal, columns=200) as screen:
        assert screen.exit_code() == 0
        shown = screen.text
    assert "unsafe" in shown
    assert by_id[good]["url"] in shown


def test_trust_env_follows_the_proxy_of_the_environment(
    command: Command, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it the variable is named where no connection was made, and nothing else uses it."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    name = service.add(life=DONE)
    assert command("fetch", name).code == 0
    told = command("watch", name, "--trust-env", "--timeout", "1s")
    assert told.code == 1
    assert "no connection to 127.0.0.1:1" in told.err
    assert "watch --trust-env --timeout 1 " in told.err
    monkeypatch.setenv("AI302_BASE_URL", "http://127.0.0.1:1")
    hinted = command("watch", name, "--timeout", "1s")
    assert "pass --proxy or --trust-env" in hinted.err
    assert "which is not used" in hinted.err


def test_what_never_began_says_why(command: Command, service: Service) -> None:
    """A task that was handed to nobody has the reason beside it; one that ran is still at it."""
    name = service.add(life=DONE)
    nats = command("watch", name, "--nats", "nats://127.0.0.1:1", "--timeout", "1s")
    assert f"  {name}  never asked for: no NATS server can be reached" in nats.err
    late = command("watch", service.add(life=FOREVER), "--timeout", "1s", "--interval", "0.1")
    assert late.out.splitlines()[-1].endswith("still generating")


def test_extra_goes_into_the_request(command: Command, service: Service) -> None:
    """--extra says what no option does; a field that is not documented is refused as an option."""
    assert "--extra passes anything" in one_line_of(command("submit", "x", "--param", "mood=1"))
    assert command("submit", "x", "--extra", "mood=1").code == 0
    assert json.loads(service.server.requests[-1].body)["mood"] == 1


def test_a_pipe_gets_lines_of_words(command: Command, service: Service) -> None:
    """JSON only where it is asked for, whatever stdout is."""
    name = service.add(life=DONE)
    (line,) = command("watch", name, "--interval", "0.05").out.splitlines()
    assert line.split()[1:3] == [name, "completed"]
    made = command("generate", "a storm", "--timeout", "1s").out.splitlines()
    assert made[0] == list(service.server.ids)[-1]


def test_doctor_says_what_is_well_and_what_to_do(
    command: Command, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """A line for each thing, 0 where all is well; else what to do, and the key in none of it."""
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy.example:3128")
    journal = tmp_path / "j.db"
    command("submit", "a storm", "--journal", str(journal))
    well = command("doctor", "--journal", str(journal), "--folder", str(tmp_path), "--json")
    assert well.code == 0, well.out
    by_name = {line["name"]: line["text"] for line in well.lines}
    assert list(by_name) == [
        *("versions", "proxy", "host", "TLS", "clock", "service", "folder", "journal")
    ]
    assert "HTTPS_PROXY is set" in by_name["proxy"]
    assert "PTC" in by_name["service"]
    assert "1 pending" in by_name["journal"]
    assert "secret" not in well.out
    service.fault(HangUp(), on="submit", times=1)
    command("submit", "a storm", "--journal", str(journal))
    monkeypatch.setenv("AI302_API_KEY", "another")
    ill = command("doctor", "--journal", str(journal), "--folder", str(tmp_path / "no"))
    assert ill.code == 1
    assert [line.split()[:2] for line in ill.out.splitlines() if line.startswith("MEND")] == [
        ["MEND", "service"],
        ["MEND", "folder"],
        ["MEND", "journal"],
    ]


def test_doctor_measures_the_clock(service: Service, command: Command) -> None:
    """A server's clock that is not ours is told, with what to do."""
    with running_service(clock_skew=-90.0) as other:
        ill = command("doctor", "--base-url", other.server.url, "--json")
    (clock,) = (line for line in ill.lines if line["name"] == "clock")
    assert (clock["ok"], ill.code) == (False, 1)
    assert clock["text"] == "90 s ahead of the server's: set it, by NTP at best"
    assert service.server.requests == []


def test_doctor_says_which_facts_a_recording_settles(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """--record writes what doctor --recording reads: a line for each open question."""
    record = tmp_path / "replies.jsonl"
    name = service.add(life=TWO_STEPS)
    service.fault(Status(503, err_code=-10008), times=1)
    done = command("watch", "--json", name, "--interval", "0.05", "--record", str(record))
    assert done.code == 0, done.err
    assert KEY not in record.read_text()
    told = command("doctor", "--recording", str(record), "--json")
    said = [line["text"] for line in told.lines if line["name"] == "fact"]
    assert "is `id` the id asked for? yes, in 2 of 2 replies" in said
    assert "which words come? record completed 1 ×, record video_generating 1 ×" in said
    assert "in which unit are times? milliseconds" in said
    assert "which HTTP status has an err_code? -10008 with 503" in said
    assert "is a task known at one path only? still open" in said
    other = tmp_path / "other"
    other.write_text("{}")
    assert one_line_of(command("watch", "--json", name, "--record", str(other))).endswith(
        f"{other} is there and is no recording; name another file; see veo3-async watch --help"
    )


def one_line_of(result: Result) -> str:
    assert result.code == 2
    return one_line(result)


def test_serve_plays_a_recording(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """--replay answers as it was answered, whatever server that was."""
    record = tmp_path / "replies.jsonl"
    name = service.add(life=TWO_STEPS)
    command("watch", "--json", name, "--interval", "0.05", "--record", str(record))
    served = [*MODULE, "serve", "--json", "--replay", str(record)]
    with subprocess.Popen(served, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as fake:
        assert fake.stdout is not None
        url = json.loads(fake.stdout.readline())["AI302_BASE_URL"]
        key = tmp_path / "key"
        key.write_text("test-key")
        key.chmod(0o600)
        where = ["--base-url", url, "--key-file", str(key)]
        result = command("watch", "--json", name, *where, "--interval", "0.05")
        fake.send_signal(signal.SIGINT)
        fake.communicate()
    assert [line["phase"] for line in result.lines] == ["generating", "completed"]


def test_v_may_be_said_after_the_command(command: Command, service: Service) -> None:
    """So may -V."""
    name = service.add(life=DONE)
    said = command("fetch", name, "-vv").err
    assert said == "" or "debug: " in said
    logged = command("watch", "--json", name, "-v", "--interval", "0.05").err
    assert f"info: {name}" in logged
    assert "info: " not in command("watch", "--json", name, "--interval", "0.05").err
    assert command("pending", "-V").out == command("--version").out


# --- looking ------------------------------------------------------------------------------


def test_plain_is_a_line_of_words_a_change(command: Command, service: Service) -> None:
    """--plain writes the time, the id, the phase, and in the end the video."""
    name = service.add(life=TWO_STEPS)
    result = command("watch", name, "--plain", "--interval", "0.05")
    first, last = (line.split() for line in result.out.splitlines())
    assert (first[1:], last[1:3]) == ([name, "generating"], [name, "completed"])
    assert last[3].endswith(".mp4")


@pytest.mark.posix
@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"CI": "true"}])
def test_terminal_that_moves_no_cursor_gets_plain_lines(
    service: Service, environment: dict[str, str]
) -> None:
    """In a CI log and on a dumb terminal there is no table that is drawn again and again."""
    name = service.add(life=TWO_STEPS)
    with on_terminal(
        service, "watch", name, "--interval", "0.05", environment=environment, columns=200
    ) as terminal:
        assert terminal.exit_code() == 0
        assert f"{name}  generating" in terminal.text
        assert b"\x1b[" not in terminal.raw


def test_what_still_runs_says_why(command: Command) -> None:
    """An id that the service does not know (yet) is named with that, when the watch is over."""
    result = command("watch", "--json", "veo3-pro:nope", "--timeout", "3s", "--interval", "100ms")
    assert result.code == 1
    assert "veo3-pro:nope  waiting: the service does not know" in result.err


def test_fetch_has_url_and_phase(command: Command, service: Service) -> None:
    """A program finds where a task is and its best video under the names of a transition."""
    (task,) = command("fetch", service.add(life=DONE), "--json").lines
    assert (task["phase"], task["url"]) == ("completed", task["video_url"])


def test_download_makes_its_folder_or_takes_this_one(
    command: Command, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Without a path the video comes here; a path that ends with a slash is made."""
    monkeypatch.chdir(tmp_path)
    name = service.add(life=DONE)
    assert command("download", name).code == 0
    (here,) = tmp_path.glob("*.mp4")
    made = command("download", name, "new/folder/")
    assert made.code == 0
    assert tmp_path / made.out.strip() == tmp_path / "new" / "folder" / here.name


def test_verbose_logs_to_stderr(command: Command, service: Service) -> None:
    """-v tells on stderr what the library logs, and leaves stdout alone."""
    service.fault(Status(503), times=1)
    result = command("-vv", "fetch", service.add(life=DONE), "--json")
    assert result.code == 0
    assert len(result.lines) == 1


def test_errors_name_the_options_that_they_come_from(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """A refused key file is no matter of a variable, and a file in the way one of --overwrite."""
    file = tmp_path / "key"
    file.write_text("another")
    file.chmod(0o600)
    refused = command("fetch", "id", "--key-file", str(file))
    assert refused.code == 3
    assert "check --key-file" in one_line(refused)
    assert "AI302_API_KEY" not in refused.err
    name = service.add(life=DONE)
    target = tmp_path / "a.mp4"
    target.write_text("precious")
    assert "--overwrite" in one_line(command("download", name, str(target)))


@pytest.mark.posix
def test_key_file_that_others_can_read_is_named(
    command: Command, service: Service, tmp_path: pathlib.Path
) -> None:
    """One line on stderr says so, and how to mend it; the command goes on."""
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0o644)
    result = command("fetch", service.add(life=DONE), "--key-file", str(file))
    assert result.code == 0
    assert result.err == (
        f"veo3-async: others on this machine can get at the key: chmod 600 {file}\n"
    )


def test_serve_logs_requests_and_fails_as_told() -> None:
    """The fake names each request on stderr with its status, and refuses the share it is told."""
    words = [*MODULE, "serve", "--json", "--fail", "1", "--latency", "10ms", "--seed", "7"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        assert server.stdout is not None
        settings = json.loads(server.stdout.readline())
        try:
            asked = subprocess.run(
                [*MODULE, "fetch", "veo3-pro:1"], env=settings, capture_output=True, check=False
            )
        finally:
            server.send_signal(signal.SIGINT)
        _, log = server.communicate()
    assert asked.returncode == 1
    assert b"request_id=veo3-pro" in log
    assert b"  503\n" in log
    assert settings["AI302_API_KEY"].encode() not in log


# --- the parts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("5m", 300), ("1h30m", 5400), ("1.5h", 5400), ("250ms", 0.25), ("2D", 172800)],
)
def test_durations_have_units(text: str, seconds: float) -> None:
    """A duration is a number of seconds, or numbers with units."""
    assert duration(text) == pytest.approx(seconds)


def test_ids_are_shortened_where_they_are_alike() -> None:
    """What all ids begin with goes first, and the middle next: what differs is seen."""
    names = ["veo3-pro:68935cd4-0001-aaaa", "veo3-pro:7d1f5cd4-0001-aaab"]
    assert short_ids(names, 40) == names
    assert short_ids(names, 19) == ["…68935cd4-0001-aaaa", "…7d1f5cd4-0001-aaab"]
    assert len(set(short_ids(names, 12))) == 2
    assert all(len(name) <= 12 for name in short_ids(names, 12))
    assert short_ids(names[:1], 12) == ["veo3-p…-aaaa"]
    assert short_ids([], 12) == []
