"""What a recording settles of the open questions: pure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from veo3_async._transport.facts import clock_offset, facts
from veo3_async._transport.recorder import Exchange

PRO = "/302/submit/veo3-pro"
FRAMES = "/302/submit/veo3-pro-frames"
NOT_FOUND = {"error": {"err_code": -10010, "message": "Resource not found"}}


def got(path: str, content: object, status: int = 200, **more: Any) -> Exchange:
    body = json.dumps(content)
    return Exchange(at=1e9, seconds=0.1, method="GET", path=path, status=status, body=body, **more)


def answers(*exchanges: Exchange) -> dict[str, str | None]:
    return {fact.question: fact.answer for fact in facts(exchanges)}


def test_nothing_is_settled_by_nothing() -> None:
    """Every question stays open."""
    assert set(answers().values()) == {None}


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["a"], "yes, in 1 of 1 replies"),
        (["a", "b"], "no, 1 ids differ: asked for a, got b"),
        ([""], None),
    ],
)
def test_whether_the_id_is_the_one_asked_for(ids: list[str], said: str | None) -> None:
    """Another id in one reply is enough for a no."""
    polls = (got(f"{PRO}?request_id=a", {"id": name, "status": "pending"}) for name in ids)
    assert answers(*polls)["is `id` the id asked for?"] == said


@pytest.mark.parametrize(
    ("elsewhere", "said"),
    [
        (({"id": "a", "status": "pending"}, 200), "no: a task was found at two paths"),
        ((NOT_FOUND, 404), "yes: a task was found at one path and not at another"),
        (({}, 502), None),
    ],
)
def test_whether_a_task_is_known_at_one_path(elsewhere: tuple[Any, int], said: str | None) -> None:
    """Only what the API itself says of the other path counts."""
    here = got(f"{PRO}?request_id=a", {"id": "a", "status": "pending"})
    there = got(f"{FRAMES}?request_id=a", *elsewhere)
    assert answers(here, there)["is a task known at one path only?"] == said


def test_a_word_that_nobody_knows_is_marked() -> None:
    """So are fields that are not documented."""
    said = answers(
        got(f"{PRO}?request_id=a", {"id": "a", "status": "video_dreaming", "mood": 1}),
        got("/302/v2/video/fetch/7", {"task_id": "7", "status": "processing"}),
        got("/302/submit/veo3-v2/x", {"taskId": "x", "status": "IN_PROCESSING"}),
        got("/302/submit/veo3?request_id=q", {"request_id": "q", "status": "IN_QUEUE"}),
    )
    assert said["which words come?"] == (
        "queue IN_QUEUE 1 ×, record video_dreaming (NOT KNOWN) 1 ×, tasks IN_PROCESSING 1 ×, "
        "unified processing 1 ×"
    )
    assert said["which fields are not documented?"] is not None
    assert "mood" in said["which fields are not documented?"]


def test_units_limits_codes_and_hosts() -> None:
    """What is seen is listed."""
    said = answers(
        got(f"{PRO}?request_id=a", {"id": "a", "status": "pending", "created_at": 1754617044}),
        got(f"{PRO}?request_id=a", NOT_FOUND, 404),
        got(f"{PRO}?request_id=a", {}, 429, headers={"retry-after": "3", "X-RateLimit-Limit": "9"}),
        got(
            f"{PRO}?request_id=a",
            {"id": "a", "status": "completed", "video_url": "https://h/a.mp4"},
        ),
        Exchange(at=1.0, seconds=0.1, method="POST", path=PRO, status=200, body='{"task_id": "a"}'),
    )
    assert said["in which unit are times?"] == "seconds"
    assert said["which HTTP status has an err_code?"] == "-10010 with 404"
    assert said["what says a limit?"] == "429 1 ×, X-RateLimit-Limit: 9, retry-after: 3"
    assert said["where are the videos?"] == "h"
    assert said["where is the id of a new task?"] == "task_id: str"


def test_the_clocks_offset_is_the_median_of_the_dates() -> None:
    """A date has whole seconds, so half a second is added."""
    date = {"Date": "Sun, 09 Sep 2001 01:47:40 GMT"}  # 1e9 + 60
    exchanges = [got(PRO, {}, headers=date), got(PRO, {}), got(PRO, {}, headers={"date": "no"})]
    assert clock_offset(exchanges) == pytest.approx(60.45)
    assert answers(*exchanges)["is this machine's clock right?"] == "the server's is 60 s ahead"
