"""Faults of connections, names and certificates, each through a client that watches.

The numbers are those of the list of faults; "back to the schedule" means that the id stays watched
and its video is found in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import aiohttp.abc
import pytest
import trustme
from broken_servers import black_hole, http, request_head, serving
from conftest import MakeClient
from over_the_wire import (
    DONE,
    QUICK,
    RUNNING,
    UNENDING,
    URL,
    collected,
    kinds,
    most_in_a_second,
    now,
)

from veo3_async import (
    FixedPacing,
    Phase,
    PollReport,
    ServiceUnavailable,
    Veo3Client,
)
from veo3_async.testing import (
    Body,
    Cut,
    Drip,
    FakeVeo3,
    Fault,
    HangUp,
    Life,
    Redirect,
    Silence,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_task_left")]


# --- connections -----------------------------------------------------------------------------


async def test_fault_01_refused(
    server: FakeVeo3, veo: Veo3Client, reports: list[PollReport]
) -> None:
    """While nobody listens the ids wait; when somebody does again, all are found."""
    ids = [server.add(life=QUICK) for _ in range(20)]
    await server.stop()
    watch = veo.watch(*ids)
    await asyncio.sleep(300)
    assert kinds(reports) == {"ServiceUnavailable"}
    await server.start()
    assert {c.request_id for c in await collected(watch) if c.phase is Phase.COMPLETED} == set(ids)
    assert veo.stats().failures.keys() == {"connect"}


@pytest.mark.parametrize("on", ["connect", "poll"])
async def test_fault_01_a_third_is_reset(server: FakeVeo3, veo: Veo3Client, on: Any) -> None:
    """30 % of the connections or of the requests are reset: no id is lost."""
    ids = [server.add(life=Life.scripted([RUNNING] * 5 + [DONE])) for _ in range(40)]
    server.fault(HangUp(reset=True), on=on, rate=0.3)
    server.fault(HangUp(), rate=0.1)
    ends = [c for c in await collected(veo.watch(*ids)) if c.final]
    assert [e.phase for e in ends] == [Phase.COMPLETED] * 40
    assert veo.stats().failures["reset"] > 20


async def test_fault_02_a_connect_black_hole(
    make_client: MakeClient, server: FakeVeo3, reports: list[PollReport]
) -> None:
    """A connect that nobody answers fails after 10 s, again and again; others are not touched."""
    with black_hole() as port:
        stuck = make_client(base_url=f"http://127.0.0.1:{port}", on_poll=reports.append)
        watch = stuck.watch("veo3-pro:1", "veo3-pro:2")
        task = await make_client().wait(server.add(life=QUICK))
        assert task.video_url == URL
        await asyncio.sleep(100)
        assert (stuck.stats().watched, len(watch)) == (2, 2)
        await watch.aclose()
    assert kinds(reports) == {"ServiceUnavailable"}
    assert len(reports) >= 6
    assert all(report.duration == pytest.approx(10, abs=1) for report in reports)


@pytest.mark.parametrize("after_headers", [False, True])
async def test_fault_03_silence(
    server: FakeVeo3, veo: Veo3Client, reports: list[PollReport], after_headers: bool
) -> None:
    """Accepted and never answered, or headers and no more: 20 s, and back to the schedule."""
    request_id = server.add(life=QUICK)
    server.fault(Silence(after_headers=after_headers), times=3)
    assert (await veo.wait(request_id)).video_url == URL
    silent = [r.duration for r in reports if r.error is not None]
    assert silent == [pytest.approx(20, abs=1)] * 3
    assert veo.stats().failures == {"timeout": 3}


async def test_fault_03_silence_of_one_id_holds_up_no_other(
    server: FakeVeo3, veo: Veo3Client
) -> None:
    """While one request hangs the others are polled as ever."""
    silent, other = server.add(life=UNENDING), server.add(life=UNENDING)
    server.fault(Silence(), request_id=silent)
    async with veo.watch(silent, other):
        await asyncio.sleep(61)
    assert len(server.polls_of(other)) == 31


async def test_fault_04_a_byte_a_second(
    server: FakeVeo3, veo: Veo3Client, reports: list[PollReport]
) -> None:
    """A reply that drips never falls silent: the total of 30 s ends it."""
    request_id = server.add(life=QUICK)
    server.fault(Drip(interval=1.0), times=2)
    assert (await veo.wait(request_id)).video_url == URL
    assert [r.duration for r in reports if r.error] == [pytest.approx(30, abs=1)] * 2
    assert veo.stats().failures == {"timeout": 2}


async def test_fault_05_hung_up_on(
    server: FakeVeo3, make_client: MakeClient, reports: list[PollReport]
) -> None:
    """Every reused connection is hung up: each call is one physical request, within the rate."""
    veo = make_client(on_poll=reports.append, max_polls_per_second=5.0)
    server.fault(HangUp(reused_only=True))
    ids = [server.add(life=Life.scripted([RUNNING] * 3 + [DONE])) for _ in range(30)]
    ends = [c for c in await collected(veo.watch(*ids)) if c.final]
    assert [e.phase for e in ends] == [Phase.COMPLETED] * 30
    assert server.received == len(reports) == veo.stats().polls
    assert kinds(reports) == {"ServiceUnavailable"}
    assert most_in_a_second([r.at for r in server.requests]) <= 5 + 1


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("at", [0, 1, 20, 60])
async def test_fault_06_a_body_that_is_cut(
    server: FakeVeo3, veo: Veo3Client, framing: Any, at: int
) -> None:
    """What came of a cut body is never a result, however its end was to be known."""
    request_id = server.add(life=Life.scripted([DONE]))
    server.fault(Cut(framing, at=at), times=3)
    watch = veo.watch(request_id)
    changes = await collected(watch)
    assert [c.phase for c in changes] == [Phase.COMPLETED]
    assert len(server.polls_of(request_id)) == 4
    assert sum(veo.stats().failures.values()) == 3


# --- where it goes to ----------------------------------------------------------------------------


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308, 300, 304])
async def test_fault_17_a_redirect(server: FakeVeo3, veo: Veo3Client, code: int) -> None:
    """It is not followed, the other host hears nothing, and it is waited out."""
    await veo.wait(server.add(life=QUICK))  # so that the client knows the API
    request_id = server.add(life=QUICK)
    async with FakeVeo3() as other:
        redirect = Redirect(f"{other.url}/302/submit/veo3-pro?request_id=1", code)
        server.fault(redirect, request_id=request_id, times=20)
        *_, end = await collected(veo.watch(request_id))
        assert other.connections == 0
    assert end.phase is Phase.COMPLETED
    assert veo.stats().failures == {"unexpected": 20}


@pytest.mark.parametrize(
    "page",
    [
        *(Body.html(code) for code in (200, 400, 401, 402, 403, 404, 503)),
        Body(b'{"status":"error","message":"upstream timeout"}'),
    ],
    ids=lambda page: f"{page.code} {len(getattr(page, 'content', ''))}",
)
async def test_faults_11_14_15_a_page_before_the_api_ends_nothing(
    server: FakeVeo3, veo: Veo3Client, page: Fault
) -> None:
    """Maintenance, a firewall, a load balancer: it is not the API that speaks, and it passes."""
    ids = [server.add(life=QUICK) for _ in range(20)]
    watch = veo.watch(*ids)
    await asyncio.sleep(1)
    server.fault(page)
    await asyncio.sleep(20)
    server.heal()
    ends = [c for c in await collected(watch) if c.final]
    assert [c.phase for c in ends] == [Phase.COMPLETED] * 20


@contextlib.asynccontextmanager
async def tls_server(context: ssl.SSLContext) -> AsyncIterator[tuple[int, list[list[str]]]]:
    heads: list[list[str]] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await request_head(reader))
        writer.write(
            http(b'{"status":"completed","running":false,"video_url":"%s"}' % URL.encode())
        )
        await writer.drain()

    async with serving(handler, ssl=context) as port:
        yield port, heads


def certificate(authority: trustme.CA, fault: str) -> ssl.SSLContext:
    """Return the context of a server whose certificate has a fault."""
    host = "another.example" if fault == "wrong host" else "127.0.0.1"
    year = datetime.timedelta(days=365)
    ended = datetime.datetime.now(datetime.UTC) - year if fault == "expired" else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host, not_after=ended).configure_cert(context)
    return context


@pytest.mark.parametrize("fault", ["unknown authority", "expired", "wrong host"])
async def test_fault_18_a_certificate_that_proves_nothing(
    make_client: MakeClient, fault: str
) -> None:
    """Tried again for a minute; then every watcher gets host and reason, and no key was sent."""
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    if fault != "unknown authority":
        authority.configure_trust(trusting)
    async with (
        tls_server(certificate(authority, fault)) as (port, heads),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session,
    ):
        veo = make_client(base_url=f"https://127.0.0.1:{port}", session=session)
        watches = [veo.watch("veo3-pro:1"), veo.watch("veo3-pro:2")]
        began = now()
        done = await asyncio.gather(*map(collected, watches), return_exceptions=True)
        assert 60 <= now() - began <= 120
        await veo.aclose()
    assert [type(e) for e in done] == [ServiceUnavailable] * 2
    assert "certificate of 127.0.0.1" in str(done[0])
    assert heads == []


async def test_fault_18_an_own_session_checks_certificates(make_client: MakeClient) -> None:
    """Without a borrowed session an unknown authority is refused, too."""
    async with tls_server(certificate(trustme.CA(), "unknown authority")) as (port, heads):
        veo = make_client(base_url=f"https://127.0.0.1:{port}")
        with pytest.raises(ServiceUnavailable, match="certificate"):
            await veo.wait("veo3-pro:1")
        with pytest.raises(ServiceUnavailable, match="certificate"):
            await veo.fetch("veo3-pro:1")
        await veo.aclose()
    assert heads == []


async def test_fault_18_a_good_certificate_is_good(make_client: MakeClient) -> None:
    """The same servers with nothing wrong serve: the tests above fail for the right reason."""
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with (
        tls_server(certificate(authority, "none")) as (port, heads),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session,
    ):
        veo = make_client(base_url=f"https://127.0.0.1:{port}", session=session)
        assert (await veo.wait("veo3-pro:1")).video_url == URL
        await veo.aclose()
    assert len(heads) == 1


async def test_fault_19_a_name_that_is_not_resolved_passes(
    server: FakeVeo3, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the name server is away the ids wait; afterwards they are found."""
    broken, known = True, socket.getaddrinfo
    lookups = 0

    def resolve(host: str, *args: Any, **options: Any) -> Any:
        nonlocal lookups
        lookups += 1
        if broken:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return known("127.0.0.1" if host == "api.internal" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    port = server.url.rpartition(":")[2]
    veo = make_client(base_url=f"http://api.internal:{port}")
    ids = [server.add(life=QUICK) for _ in range(5)]
    watch = veo.watch(*ids)
    await asyncio.sleep(60)
    assert veo.stats().failures.keys() == {"dns"}
    broken = False
    assert sum(c.phase is Phase.COMPLETED for c in await collected(watch)) == 5
    assert lookups > 5


class Names(aiohttp.abc.AbstractResolver):
    """A resolver that takes its time, counts, and can move the host."""

    def __init__(self, address: str, port: int) -> None:
        self.address, self.port, self.lookups = address, port, 0

    async def resolve(
        self,
        host: str,
        port: int = 0,  # noqa: ARG002 - ours is another
        family: socket.AddressFamily = socket.AF_INET,
    ) -> list[aiohttp.abc.ResolveResult]:
        self.lookups += 1
        await asyncio.sleep(1.0)
        return [
            {
                "hostname": host,
                "host": self.address,
                "port": self.port,
                "family": family,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
        ]

    async def close(self) -> None:
        """Do nothing."""


async def test_fault_19_one_lookup_for_all_and_a_new_address_is_found(
    server: FakeVeo3, make_client: MakeClient
) -> None:
    """20 ids at once ask for the name once; when the host moves, all follow."""
    port = int(server.url.rpartition(":")[2])
    names = Names("127.0.0.1", port)
    # An address is kept for 10 s of the machine's clock, which stands still here.
    connector = aiohttp.TCPConnector(resolver=names, limit=32, ttl_dns_cache=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        veo = make_client(
            base_url="http://api.internal",
            session=session,
            pacing=FixedPacing(10.0),
            max_polls_per_second=100,
        )
        ids = [server.add(life=UNENDING) for _ in range(20)]
        async with veo.watch(*ids):
            await asyncio.sleep(1.9)
            assert (names.lookups, server.received) == (1, 20)
            async with FakeVeo3() as moved:
                for request_id in ids:
                    moved.add(request_id, UNENDING)
                names.address, names.port = "127.0.0.1", int(moved.url.rpartition(":")[2])
                await server.stop()
                await asyncio.sleep(120)
                assert {r.request_id for r in moved.requests} == set(ids)
        await veo.aclose()
