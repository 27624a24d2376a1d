"""When the log says that nothing comes, and that it comes again."""

from __future__ import annotations

import pytest

from veo3_async._polling.outage import Outage
from veo3_async._protocol.errors import Kind


def test_an_outage_is_logged_once_and_its_end_once() -> None:
    """After 30 s without a state, whatever the faults were; the end has the whole time."""
    outage = Outage()
    logged = [outage.failed(kind, at) for kind, at in ((Kind.CONNECT, 10.0), (Kind.SERVER, 39.0))]
    assert logged == [None, None]
    assert outage.failed(Kind.TIMEOUT, 40.5) == 30.5
    assert outage.failed(Kind.TIMEOUT, 200.0) is None
    assert outage.ended(210.0) == 200.0
    assert [outage.since, outage.ended(211.0)] == [None, None]
    assert [outage.failed(Kind.CONNECT, at) for at in (300.0, 330.0)] == [None, 30.0]


def test_what_passes_soon_is_not_logged() -> None:
    """A state in between ends the count, and says nothing."""
    outage = Outage()
    for at in range(0, 600, 29):
        assert outage.failed(Kind.RESET, at) is None
        assert outage.ended(at + 1.0) is None


@pytest.mark.parametrize("kind", [Kind.NOT_FOUND, Kind.INVALID])
def test_the_services_word_on_one_id_is_no_outage(kind: Kind) -> None:
    """An id that is unknown for ever is not the service's absence."""
    outage = Outage()
    assert [outage.failed(kind, at) for at in (0.0, 100.0)] == [None, None]
    assert outage.since is None
