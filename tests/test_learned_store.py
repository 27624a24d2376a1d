"""What a pacing learned, exchanged with a store."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest

from veo3_async import JournalError, LearnedPacing, Phase
from veo3_async._learned_store import exchange, keep_learned
from veo3_async._pacing.policies import Progress

pytestmark = pytest.mark.anyio


def learned(tasks: int) -> LearnedPacing:
    pacing = LearnedPacing()
    for _ in range(tasks):
        learn(pacing)
    return pacing


def learn(pacing: LearnedPacing) -> None:
    pacing.phase_ended(Progress(phase=Phase.GENERATING, age=100), 110, Phase.COMPLETED)


def spelled(pacing: LearnedPacing) -> str:
    return msgspec.json.encode(pacing.to_dict()).decode()


class Memory:
    """A store that fails when a test lets it."""

    def __init__(self, text: str | None = None) -> None:
        self.texts = {} if text is None else {"pacing": text}
        self.saves = 0
        self.broken = False

    async def load(self, name: str) -> str | None:
        if self.broken:
            message = "the disk is full"
            raise JournalError(message)
        return self.texts.get(name)

    async def save(self, name: str, content: str) -> None:
        self.texts[name] = content
        self.saves += 1


@pytest.mark.parametrize(
    ("own", "stored", "after"),
    [(0, None, 0), (3, None, 3), (0, 3, 3), (2, 3, 3), (3, 3, 3), (3, 2, 3)],
)
async def test_who_has_seen_more_tasks_is_right(own: int, stored: int | None, after: int) -> None:
    """Pacing and store know the same afterwards, and nothing is written that was there."""
    pacing = learned(own)
    store = Memory(None if stored is None else spelled(learned(stored)))

    await exchange(pacing, store)

    assert pacing.tasks == after
    assert store.texts == ({"pacing": spelled(pacing)} if after else {})
    assert store.saves == (own > (stored or 0))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"tasks": 99, "version": 7}', '{"tasks": "x"}'])
async def test_what_cannot_be_read_is_said_and_replaced(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A text of another version, or of nobody's, costs a log line."""
    pacing, store = learned(1), Memory(text)

    await exchange(pacing, store)

    assert pacing.tasks == 1
    assert store.texts == {"pacing": spelled(pacing)}
    assert "cannot be read, and is replaced" in caplog.text


async def test_it_is_kept_until_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """Exchanged at once, at intervals and when cancelled; a store that fails is said once."""
    pacing, store = LearnedPacing(), Memory(spelled(learned(2)))
    keeping = asyncio.create_task(keep_learned(pacing, store, every=60))
    await asyncio.sleep(1)
    assert pacing.tasks == 2
    learn(pacing)
    await asyncio.sleep(60)
    assert store.texts == {"pacing": spelled(pacing)}
    store.broken = True
    await asyncio.sleep(600)
    store.broken = False
    learn(pacing)
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping

    assert store.texts == {"pacing": spelled(pacing)}
    assert caplog.text.count("cannot be loaded or saved: the disk is full") == 1
