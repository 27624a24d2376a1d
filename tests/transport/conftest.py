"""A client whose polls are reported."""

from __future__ import annotations

import pytest
from conftest import MakeClient

from veo3_async import (
    PollReport,
    Veo3Client,
)


@pytest.fixture
def reports() -> list[PollReport]:
    return []


@pytest.fixture
async def veo(make_client: MakeClient, reports: list[PollReport]) -> Veo3Client:
    return make_client(on_poll=reports.append)
