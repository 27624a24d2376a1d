"""The client for threads: the same methods, from any of them, with nothing left behind."""

from __future__ import annotations

import concurrent.futures
import gc
import inspect
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cli_service import DONE, FOREVER, KEY, TWO_STEPS, Service, running_service

from veo3_async import (
    ClientClosed,
    FixedPacing,
    InvalidRequest,
    StillPending,
    TaskNotFound,
    Transition,
    Veo3Client,
    Watch,
)
from veo3_async.sync import SyncVeo3Client, SyncWatch
from veo3_async.testing import Status

pytestmark = pytest.mark.real_time


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service(speed=1000) as service:
        yield service


@pytest.fixture
def veo(service: Service) -> Iterator[SyncVeo3Client]:
    with client(service) as veo:
        yield veo


def client(service: Service, **options: Any) -> SyncVeo3Client:
    return SyncVeo3Client(
        KEY,
        base_url=service.server.url,
        max_polls_per_second=1000,
        pacing=FixedPacing(0.05),
        **options,
    )


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if "veo3_async" in thread.name}


def test_every_public_method_is_there() -> None:
    """Both clients have the same methods, and both watches, but for what awaits is only."""
    names = {name for name in dir(Veo3Client) if not name.startswith("_")} - {"aclose"}
    assert names <= set(dir(SyncVeo3Client))
    names = {name for name in dir(Watch) if not name.startswith("_")} - {"aclose"}
    assert names <= set(dir(SyncWatch))


def test_help_shows_what_is_called_and_what_comes_back() -> None:
    """`help` and the reference show no coroutine functions, and a watch that is one for threads."""
    watch = inspect.signature(SyncVeo3Client.watch)
    assert watch.return_annotation is SyncWatch
    assert not inspect.iscoroutinefunction(inspect.unwrap(SyncVeo3Client.wait))
    assert SyncVeo3Client.wait.__doc__ == Veo3Client.wait.__doc__


@pytest.mark.parametrize("name", ["__init__", "generate", "wait", "submit", "download"])
def test_signatures_and_docstrings_are_those_of_the_client(name: str) -> None:
    """An editor shows the same arguments and the same words."""
    ours, its = getattr(SyncVeo3Client, name), getattr(Veo3Client, name)
    assert inspect.signature(ours) == inspect.signature(its)
    assert ours.__doc__ == its.__doc__


def test_whole_life_of_a_task(veo: SyncVeo3Client, tmp_path: pathlib.Path) -> None:
    """Submitted, watched, fetched, waited for, downloaded, counted: each call returns its value."""
    request_id = veo.submit("a storm")
    changes = list(veo.watch(request_id))
    assert [change.final for change in changes].count(True) == 1
    assert changes[-1].request_id == request_id
    assert veo.wait(request_id).best_url == veo.fetch(request_id).best_url
    saved = veo.download(veo.fetch(request_id), tmp_path / "a.mp4")
    assert saved.read_bytes()[4:8] == b"ftyp"
    with veo.stream(veo.fetch(request_id)) as stream:
        assert b"".join(stream) == saved.read_bytes()
        assert stream.done == stream.total
    assert veo.generate("the sea").best_url
    assert veo.balance()
    assert veo.models()
    veo.poke(request_id)
    assert not veo.webhook_received("nope")
    assert veo.stats().transitions > 0


def test_errors_are_raised_where_the_call_is(veo: SyncVeo3Client, service: Service) -> None:
    """What the client raises comes out of the call, arguments that cannot be included."""
    with pytest.raises(TaskNotFound):
        veo.fetch("veo3-pro:nope")
    with pytest.raises(InvalidRequest):
        veo.watch("a\nb")
    with pytest.raises(StillPending):
        veo.wait(service.add(life=FOREVER), timeout=0.1)
    with pytest.raises(ValueError, match="max_connections"):
        SyncVeo3Client(KEY, max_connections=0)


def test_watch_is_what_a_watch_is(veo: SyncVeo3Client, service: Service) -> None:
    """It takes more ids, drops some, says what is left of them, and ends when it is closed."""
    one, two = service.add(life=FOREVER), service.add(life=TWO_STEPS)
    with veo.watch(one, keep_open=True) as watch:
        assert next(watch).request_id == one
        watch.add(two)
        assert {change.request_id for change in (next(watch), next(watch))} == {two}
        assert watch.request_ids == {one}
        assert len(watch) == 1
        assert watch.eta(one) is None
        watch.discard(one)
        assert watch.request_ids == frozenset()
    assert list(watch) == []
    assert repr(watch).startswith("<SyncWatch of <Watch: closed")
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(watch)


def test_200_threads_share_one_client(veo: SyncVeo3Client, service: Service) -> None:
    """Two hundred threads watch a task each, at once, and each gets its own end."""
    ids = [service.add(life=TWO_STEPS) for _ in range(200)]
    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        tasks = list(pool.map(lambda name: veo.wait(name, timeout=50), ids))
    assert [task.id for task in tasks] == ids
    assert threads() == {"veo3_async.sync"}


def test_many_threads_read_one_watch(veo: SyncVeo3Client, service: Service) -> None:
    """Each end of a watch goes to one of the threads that read it."""
    ids = [service.add(life=TWO_STEPS) for _ in range(30)]
    ends: list[str] = []
    with veo.watch(*ids) as watch:

        def read() -> None:
            ends.extend(change.request_id for change in watch if change.final)

        readers = [threading.Thread(target=read) for _ in range(5)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    assert sorted(ends) == sorted(ids)


def test_closing_ends_the_waiting_of_other_threads(service: Service) -> None:
    """Who waits for a task, or for a change, gets ClientClosed when another thread closes."""
    veo = client(service)
    name = service.add(life=FOREVER)
    watch = veo.watch(name)
    next(watch)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting: list[concurrent.futures.Future[Any]] = [
            pool.submit(veo.wait, name),
            pool.submit(lambda: next(watch)),
        ]
        while veo.stats().polls < 2:
            time.sleep(0.01)
        veo.close()
        for future in waiting:
            assert isinstance(future.exception(), ClientClosed)
    veo.close()
    with pytest.raises(ClientClosed):
        veo.fetch(name)
    assert threads() == set()


def test_forgotten_client_leaves_nothing_behind(service: Service) -> None:
    """Without a last reference the thread ends, with all that runs on it."""
    veo = client(service)
    watch = veo.watch(service.add(life=FOREVER))
    next(watch)
    assert threads() == {"veo3_async.sync"}
    del veo, watch
    gc.collect()
    assert threads() == set()


def test_client_that_is_never_used_starts_nothing(service: Service) -> None:
    """No thread is there before the first call."""
    veo = client(service)
    assert threads() == set()
    veo.close()


def test_end_is_acknowledged_when_its_thread_asks_for_the_next_one(
    service: Service, tmp_path: pathlib.Path
) -> None:
    """Another thread that reads on does not acknowledge what this one still deals with."""
    one, two = service.add(life=DONE), service.add(life=DONE)
    journal = tmp_path / "veo3.db"
    with client(service, journal=journal) as veo:
        watch = veo.watch(one, two)
        mine = next(watch)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            other: Transition = pool.submit(next, watch).result()
            assert pool.submit(lambda: list(watch)).result() == []
        assert {task.request_id for task in veo.pending()} == {mine.request_id}
        assert other.request_id != mine.request_id
        assert list(watch) == []
        assert veo.pending() == []


def test_end_that_raised_is_delivered_again(service: Service, tmp_path: pathlib.Path) -> None:
    """Who breaks off in a with has not dealt with the end, and the next process gets it."""
    name = service.add(life=DONE)
    journal = tmp_path / "veo3.db"

    def life(*, fails: bool) -> list[str]:
        with client(service, journal=journal) as veo, veo.resume() as watch:
            if fails:
                watch.close()
                with veo.watch(name) as first:
                    next(first)
                    raise ZeroDivisionError
            return [change.request_id for change in watch]

    with pytest.raises(ZeroDivisionError):
        life(fails=True)
    assert life(fails=False) == [name]
    assert life(fails=False) == []


def test_call_from_a_callback_is_refused(service: Service) -> None:
    """A callback runs on the client's own loop, where a call that waits would wait for ever."""
    errors: list[BaseException] = []

    def call_back(_: object) -> None:
        try:
            caller.stats()
        except RuntimeError as error:
            errors.append(error)

    with client(service, on_poll=call_back) as caller:
        caller.wait(service.add(life=DONE))
    assert errors


@pytest.mark.posix
def test_fault_65_use_after_a_fork_is_an_error(service: Service) -> None:
    """A forked child (a worker of Celery) gets an error that says to make a client of its own."""
    veo = client(service)
    veo.stats()
    if (child := os.fork()) == 0:
        try:
            veo.stats()
        except ClientClosed as error:
            os._exit(0 if "fork" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    veo.close()


_SCRIPT = """
import sys, threading, time
from veo3_async.sync import SyncVeo3Client
veo = SyncVeo3Client()
try:
    with veo:
        watch = veo.watch(sys.argv[1])
        print(next(watch).phase, flush=True)
        next(watch) if sys.argv[2] == "next" else veo.wait(sys.argv[1])
except KeyboardInterrupt:
    ours = [thread for thread in threading.enumerate() if thread.name == "veo3_async.sync"]
    while threading.active_count() > 1:  # what reads files and names for it ends by itself
        time.sleep(0.01)
    print("interrupted", len(ours), flush=True)
"""


@pytest.mark.posix
@pytest.mark.parametrize("where", ["next", "wait"])
def test_ctrl_c_ends_the_waiting_and_leaves_nothing(service: Service, where: str) -> None:
    """Ctrl-C comes out of the call as KeyboardInterrupt; after the with no thread is left."""
    words = [sys.executable, "-c", _SCRIPT, service.add(life=FOREVER), where]
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | service.environment,
    ) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "generating\n"
        time.sleep(0.2)  # until it waits; a signal before that does the same
        script.send_signal(signal.SIGINT)
        out, err = script.communicate()
    assert (out, err, script.returncode) == ("interrupted 0\n", "", 0)


def test_program_that_closes_nothing_ends(service: Service) -> None:
    """A script that forgets to close ends nevertheless, without a word."""
    program = (
        "import sys; from veo3_async.sync import SyncVeo3Client as C; v = C(); v.fetch(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, service.add(life=DONE)],
        capture_output=True,
        env=os.environ | service.environment,
        check=False,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_refused_key_reaches_every_thread(veo: SyncVeo3Client, service: Service) -> None:
    """What is wrong with the client is raised in each thread, and the key is in none of it."""
    service.fault(Status(401))
    name = service.add(life=FOREVER)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        errors = [pool.submit(veo.wait, name).exception() for _ in range(5)]
    assert all(error is not None and KEY not in repr(error) for error in errors)
