"""A fake of the service, for tests and for building a bot without a key.

`FakeVeo3` is a real server on the loopback: it plays the `Life` of each task, breaks down as
told (`Status`, `HangUp`, `Silence`, …) and records what arrived (`Received`). `FakeVeo3.replay`
answers as a recording of a client has it (``Veo3Client(record=…)``), and within `no_waiting` no
back-off and no interval takes real time. With pytest, the fixture ``veo3_server`` is one that runs;
see ``veo3_async.testing.plugin``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from veo3_async.testing._dialects import Family
from veo3_async.testing._faults import (
    Body,
    Cut,
    Drip,
    Fault,
    HangUp,
    Redirect,
    Silence,
    Slow,
    Status,
    Stranger,
    Where,
)
from veo3_async.testing._gateway import MODELS, Envelope, Lives
from veo3_async.testing._lives import Life, Stage
from veo3_async.testing._no_waiting import no_waiting
from veo3_async.testing._replies import TimeUnit
from veo3_async.testing._requests import Received
from veo3_async.testing._videos import Video

if TYPE_CHECKING:
    from veo3_async.testing._server import FakeVeo3

__all__ = [
    "MODELS",
    "Body",
    "Cut",
    "Drip",
    "Envelope",
    "FakeVeo3",
    "Family",
    "Fault",
    "HangUp",
    "Life",
    "Lives",
    "Received",
    "Redirect",
    "Silence",
    "Slow",
    "Stage",
    "Status",
    "Stranger",
    "TimeUnit",
    "Video",
    "Where",
    "no_waiting",
]

if not TYPE_CHECKING:  # or no checker would find a name that is misspelt

    def __getattr__(name: str) -> object:
        # Every run of pytest imports the plugin: aiohttp waits for the first server.
        if name == "FakeVeo3":
            from veo3_async.testing._server import FakeVeo3  # noqa: PLC0415

            globals()[name] = FakeVeo3
            return FakeVeo3
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
