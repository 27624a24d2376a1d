"""A journal for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from veo3_async import Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "veo3.db"


@pytest.fixture
async def journal(path: Path) -> AsyncIterator[Journal]:
    journal = Journal(path)
    yield journal
    await journal.aclose()
