"""What OpenTelemetry's own in-memory exporters get of a client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import MakeClient
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from veo3_async import Phase, PollReport, Transition, VideoTask, telemetry
from veo3_async.telemetry import Telemetry
from veo3_async.testing import FakeVeo3, Life, Status


class Recorded:
    """A `Telemetry` on an SDK of its own, and what that has got."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._exporter = InMemorySpanExporter()
        self._meters = MeterProvider([self._reader])
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.telemetry = Telemetry(
            meter=self._meters.get_meter("test"), tracer=tracers.get_tracer("test")
        )

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def points(self) -> dict[str, dict[tuple[Any, ...], Any]]:
        """Return the values by metric and attributes."""
        data = self._reader.get_metrics_data()
        return {
            metric.name: {
                tuple(sorted((point.attributes or {}).items())): getattr(point, "value", point)
                for point in metric.data.data_points
            }
            for resource in (data.resource_metrics if data is not None else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def close(self) -> None:
        self._meters.shutdown()


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorded = Recorded()
    yield recorded
    recorded.close()


def change(phase: Phase, request_id: str = "veo3-pro:1", **fields: Any) -> Transition:
    task = VideoTask(id=request_id, created_at=fields.pop("created_at", 90_000))
    values = {"previous": None, "status": phase.value, "observed_at": 100.0, "task": task}
    return Transition(request_id=request_id, phase=phase, final=phase.is_final, **(values | fields))


def report(attempt: int, request_id: str = "veo3-pro:1") -> PollReport:
    return PollReport(
        request_id=request_id,
        attempt=attempt,
        status=200,
        err_code=None,
        duration=0.1,
        error=None,
        next_poll_in=1.0,
    )


async def test_a_task_is_one_span_with_its_polls_and_phases(
    recorded: Recorded, server: FakeVeo3, make_client: MakeClient
) -> None:
    """From the making of the task to its end: one span without a parent, polls as its events."""
    hooks = recorded.telemetry
    client = make_client(on_poll=hooks.polled, on_change=hooks.changed)
    task = await client.wait(server.add(life=Life.documented()))
    (span,) = recorded.spans
    assert span.parent is None
    assert span.start_time == (task.created_at or 0) * 1_000_000
    assert span.end_time is not None
    assert span.end_time > span.start_time
    assert span.status.status_code is StatusCode.OK
    assert span.attributes is not None
    assert (span.attributes["veo3.request_id"], span.attributes["veo3.phase"]) == (
        task.id,
        "completed",
    )
    names = [event.name for event in span.events]
    assert [name for name in names if name != "poll"] == [
        "queued", "preparing", "generating", "generated", "upsampling", "completed",
    ]  # fmt: skip
    assert names.count("poll") > 1


async def test_metrics_count_polls_failures_ends_and_durations(
    recorded: Recorded, server: FakeVeo3, make_client: MakeClient
) -> None:
    """Polls, failures by error, ends by phase and model, and the gauges of the client."""
    hooks = recorded.telemetry
    client = make_client(on_poll=hooks.polled, on_change=hooks.changed)
    hooks.observe(client)
    ids = [server.add(life=Life.plain()), server.add(life=Life.failing())]
    server.fault(Status(500), times=2)
    ends = [change async for change in client.watch(*ids) if change.final]
    assert len(ends) == 2
    points = recorded.points()
    assert sum(points["veo3.polls"].values()) == client.stats().polls
    assert sum(points["veo3.poll.failures"].values()) == 2
    assert all(("error.type", "ServiceUnavailable") in key for key in points["veo3.poll.failures"])
    assert points["veo3.tasks.ended"] == {
        (("veo3.model", "veo3-pro"), ("veo3.phase", end.phase.value)): 1 for end in ends
    }
    (duration, _) = points["veo3.task.duration"].values()
    assert duration.count == 1
    assert duration.sum > 0
    assert points["veo3.rate"] == {(): client.stats().rate}
    assert points["veo3.watched"] == {(): 0}
    failed = next(span for span in recorded.spans if span.status.status_code is StatusCode.ERROR)
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "TaskFailed"


async def test_key_prompt_and_url_are_in_nothing_that_is_recorded(
    recorded: Recorded, make_client: MakeClient
) -> None:
    """Whatever is exported has neither the key, nor what was asked for, nor where the video is."""
    hooks = recorded.telemetry
    async with FakeVeo3(
        api_key="sk-canary-7f3d9b", speed=1000, lives=[Life.documented()]
    ) as server:
        client = make_client(
            api_key=server.api_key,
            base_url=server.url,
            on_poll=hooks.polled,
            on_change=hooks.changed,
        )
        hooks.observe(client)
        server.fault(Status(500), times=1)
        await client.generate("a secret lighthouse")
    text = "".join(span.to_json() for span in recorded.spans) + repr(recorded.points())
    assert text
    for secret in ("canary", "lighthouse", ".mp4"):
        assert secret not in text


def test_task_that_is_watched_again_is_not_counted_again(recorded: Recorded) -> None:
    """A second watch of a finished task makes neither a span nor a count."""
    for _ in range(2):
        recorded.telemetry.changed(change(Phase.COMPLETED))
    assert len(recorded.spans) == 1
    assert list(recorded.points()["veo3.tasks.ended"].values()) == [1]


def test_open_spans_and_names_of_models_are_bounded(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more tasks than are kept the oldest span ends; strangers' names make no more metrics."""
    monkeypatch.setattr(telemetry, "MAX_SPANS", 3)
    for n in range(5):
        recorded.telemetry.changed(change(Phase.QUEUED, f"veo3-pro:{n}"))
    assert len(recorded.spans) == 2
    recorded.telemetry.close()
    assert len(recorded.spans) == 5
    for n in range(200):
        recorded.telemetry.changed(change(Phase.COMPLETED, f"model-{n}:1"))
    assert len(recorded.points()["veo3.tasks.ended"]) <= 65


def test_events_of_a_span_are_bounded_and_the_polls_counted(recorded: Recorded) -> None:
    """A task that is polled a thousand times does not fill its span; the number is there."""
    recorded.telemetry.changed(change(Phase.QUEUED))
    for attempt in range(1, 1001):
        recorded.telemetry.polled(report(attempt))
    recorded.telemetry.changed(change(Phase.COMPLETED))
    (span,) = recorded.spans
    assert span.attributes is not None
    assert span.attributes["veo3.polls"] == 1000
    assert len(span.events) <= 102


def test_without_an_sdk_nothing_happens() -> None:
    """With the API alone, whose spans and counters do nothing, the hooks do nothing either."""
    hooks = Telemetry()
    hooks.polled(report(1))
    hooks.changed(change(Phase.COMPLETED))
    hooks.close()
