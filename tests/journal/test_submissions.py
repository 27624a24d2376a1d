"""What the journal knows of a submission, and how doubt about one ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from journal_values import NOON, change

from veo3_async import InvalidRequest, Journal, JournalError, Phase, TaskFailed
from veo3_async._metadata import Origin

pytestmark = pytest.mark.anyio

V2 = ("unified", "/302/v2/video/create")


async def in_doubt(journal: Journal, **options: Any) -> int:
    return await journal.intend("a lighthouse", model="veo3-pro", image=None, at=NOON, **options)


async def ids(journal: Journal) -> list[str | None]:
    return [task.request_id for task in await journal.pending()]


# --- where it was submitted, and what belongs to it -------------------------------------------


async def test_a_submission_is_known_with_all_that_belongs_to_it(path: Path) -> None:
    """Family, path, metadata, token and the reply's request id are there in the next process."""
    metadata = {"chat": 42, "who": ["Ada", None, 1.5, True], "text": "\ud800 \\ud800 ж"}
    async with Journal(path) as journal:
        key = await in_doubt(journal, family=V2[0], path=V2[1], metadata=metadata, token="t0k")
        [doubt] = await journal.pending()
        await journal.submitted(key, "301504317665393", at=NOON + 2, http_request_id="2025-abc")
    async with Journal(path) as journal:
        [task] = await journal.pending()
        known = await journal.known(["301504317665393", "nobody's"])
        by_token = [await journal.request_id_of(token) for token in ("t0k", "other", "")]

    for found in (doubt, task):
        assert (found.family, found.path, found.metadata, found.token) == (*V2, metadata, "t0k")
    assert (doubt.http_request_id, task.http_request_id) == (None, "2025-abc")
    assert known == {"301504317665393": Origin(*V2, metadata, http_request_id="2025-abc")}
    assert by_token == ["301504317665393", None, None]


async def test_metadata_outlives_changes_and_the_end(journal: Journal) -> None:
    """What is recorded of a task leaves alone what belongs to it, also after the delivery."""
    key = await in_doubt(journal, family=V2[0], path=V2[1], metadata=42, token="t0k")
    await journal.submitted(key, "veo3-pro:1", at=NOON)
    await journal.record(change("veo3-pro:1", Phase.GENERATING))
    end = change("veo3-pro:1", Phase.FAILED, error=TaskFailed("gave up"))
    await journal.record(end)
    [task] = await journal.pending()
    journal.delivered(end, at=NOON)

    assert task.final is not None
    assert (task.family, task.path, task.metadata, task.token) == (*V2, 42, "t0k")
    assert await journal.pending() == []
    assert await journal.known(["veo3-pro:1"]) == {"veo3-pro:1": Origin(*V2, 42, was_seen=True)}


async def test_what_is_known_of_a_watched_id_is_filled_in(journal: Journal) -> None:
    """Where it was submitted is never changed by a later guess; metadata is what was said last."""
    key = await in_doubt(journal, family=V2[0], path=V2[1], metadata="first")
    await journal.submitted(key, "veo3-pro:1", at=NOON)
    await journal.accept(["veo3-pro:2", "veo3-pro:3"], at=NOON)
    guess = ("record", "/302/submit/veo3-pro")

    everything = ["veo3-pro:1", "veo3-pro:2", "veo3-pro:3"]
    origins = {"veo3-pro:1": Origin(*guess, "second"), "veo3-pro:2": Origin(*guess)}
    await journal.accept(everything, at=NOON, origins=origins)
    await journal.accept(everything, at=NOON, origins={"veo3-pro:1": Origin()})

    assert await journal.known(everything) == {
        "veo3-pro:1": Origin(*V2, "second"),
        "veo3-pro:2": Origin(*guess),
        "veo3-pro:3": Origin(),
    }


async def test_many_ids_are_known_at_once(journal: Journal) -> None:
    """As many as a client may watch, in one call, in any order."""
    everything = [f"veo3-pro:{number}" for number in range(4500)]
    await journal.accept(everything, at=NOON)

    assert list(await journal.known(reversed(everything))) == everything[::-1]
    assert [task.request_id for task in await journal.pending()] == everything


@pytest.mark.parametrize("metadata", [object(), float("nan"), {"x": {1, 2}}, "x" * 16_383])
async def test_metadata_that_cannot_be_kept_is_refused(journal: Journal, metadata: Any) -> None:
    """Nothing is written, so nothing may be sent."""
    with pytest.raises(InvalidRequest, match="metadata"):
        await in_doubt(journal, metadata=metadata)
    with pytest.raises(InvalidRequest, match="metadata"):
        origins = {"veo3-pro:1": Origin(metadata=metadata)}
        await journal.accept(["veo3-pro:1"], at=NOON, origins=origins)

    assert await journal.pending() == []


# --- doubt ------------------------------------------------------------------------------------


async def test_doubt_ends_with_an_id(journal: Journal) -> None:
    """The id that somebody found in the account is pending, with all that was submitted."""
    key = await in_doubt(journal, family=V2[0], path=V2[1], metadata=42)
    await journal.settle(key, "veo3-pro:found", at=NOON + 60)

    [task] = await journal.pending()
    assert (task.request_id, task.phase, task.since) == ("veo3-pro:found", Phase.QUEUED, NOON + 60)
    assert (task.prompt, task.family, task.metadata) == ("a lighthouse", "unified", 42)


async def test_doubt_ends_without_an_id(journal: Journal) -> None:
    """What was not found in the account did not arrive, and is not listed again."""
    key = await in_doubt(journal)
    other = await in_doubt(journal)
    await journal.settle(key, at=NOON + 60)

    assert [task.key for task in await journal.pending()] == [other]


async def test_what_is_in_no_doubt_is_not_settled(journal: Journal) -> None:
    """A key that is unknown, pending, finished, refused or settled is an error that says so."""
    pending, finished, refused, settled = [await in_doubt(journal) for _ in range(4)]
    await journal.submitted(pending, "veo3-pro:1", at=NOON)
    await journal.submitted(finished, "veo3-pro:2", at=NOON)
    end = change("veo3-pro:2")
    await journal.record(end)
    journal.delivered(end, at=NOON)
    await journal.refused(refused, "no", at=NOON)
    await journal.settle(settled, at=NOON)
    reasons = {
        99: "the journal has no submission 99",
        pending: f"submission {pending} is not in doubt: it is queued",
        finished: f"submission {finished} is not in doubt: it is completed",
        refused: f"submission {refused} is not in doubt: it is refused",
        settled: f"submission {settled} is not in doubt: it is refused",
    }

    for key, reason in reasons.items():
        for request_id in (None, "veo3-pro:other"):
            with pytest.raises(JournalError, match=reason):
                await journal.settle(key, request_id, at=NOON)
    assert await ids(journal) == ["veo3-pro:1"]


async def test_an_answer_that_comes_after_all_is_kept(journal: Journal) -> None:
    """Even after it was settled as not arrived, the id that it brought is pending."""
    settled, refused, found = [await in_doubt(journal) for _ in range(3)]
    await journal.settle(settled, at=NOON)
    await journal.refused(refused, "no", at=NOON)
    await journal.settle(found, "veo3-pro:by-hand", at=NOON)
    for number, key in enumerate([settled, refused, found]):
        await journal.submitted(key, f"veo3-pro:{number}", at=NOON)

    expected = {"veo3-pro:by-hand", "veo3-pro:0", "veo3-pro:1", "veo3-pro:2"}
    assert set(await ids(journal)) == expected


async def test_a_submission_that_has_its_id_is_not_refused(journal: Journal) -> None:
    """A paid task is not dropped by a refusal that comes late."""
    key = await in_doubt(journal)
    await journal.submitted(key, "veo3-pro:1", at=NOON)
    await journal.refused(key, "no", at=NOON)

    assert await ids(journal) == ["veo3-pro:1"]
