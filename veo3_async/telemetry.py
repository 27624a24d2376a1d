"""Metrics and traces of a client, by the API of OpenTelemetry (extra ``otel``).

::

    telemetry = Telemetry()
    async with Veo3Client(on_poll=telemetry.polled, on_change=telemetry.changed) as veo:
        telemetry.observe(veo)

Without an SDK nothing is recorded, and it costs next to nothing. Neither the API key, nor a
prompt, nor a URL of a video is in what is recorded.
"""

from __future__ import annotations

import collections
import re
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from veo3_async._models import Transition
from veo3_async._reports import PollReport, Stats

__all__ = ["MAX_SPANS", "HasStats", "Telemetry"]

MAX_SPANS: Final = 10_000
"""Tasks of which a span is open at once; of more the oldest is ended as unfinished. Of as many the
end is remembered, so that a task that is watched again is not counted again."""

_MAX_MODELS: Final = 64
"""Values of an attribute of metrics; what is beyond them is ``other``."""
_MODEL: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}(?=:|\Z)")
_FIRST_EVENTS: Final = 100
"""Polls that become events of one span; the rest is counted."""

_Attributes = Mapping[str, str | bool | int | float]


class HasStats(Protocol):
    """What `Telemetry.observe` needs of a client."""

    def stats(self) -> Stats:
        """Return what it is doing."""


class _Task:
    """The open span of one task, and the requests for it so far."""

    __slots__ = ("polls", "span")

    def __init__(self, span: Span) -> None:
        self.span: Final = span
        self.polls = 0


class Telemetry:
    """Records the polls and changes of clients: counters, a histogram, and one span a task.

    The span of a task begins when the service made it, where it says so, ends with its last
    transition, and has its polls and phases as events; no poll is a trace of its own.

    :param meter: What makes the metrics; None takes the one of the global provider.
    :param tracer: What makes the spans, likewise.
    """

    def __init__(self, *, meter: Meter | None = None, tracer: Tracer | None = None) -> None:
        meter = metrics.get_meter("veo3_async") if meter is None else meter
        self._tracer: Final = trace.get_tracer("veo3_async") if tracer is None else tracer
        self._tasks: Final[collections.OrderedDict[str, _Task]] = collections.OrderedDict()
        self._ended_before: Final[collections.OrderedDict[str, None]] = collections.OrderedDict()
        self._models: Final[set[str]] = set()
        self._clients: Final[weakref.WeakSet[HasStats]] = weakref.WeakSet()
        self._polls: Final = meter.create_counter(
            "veo3.polls", "{poll}", "Requests for the state of a task"
        )
        self._poll_duration: Final = meter.create_histogram(
            "veo3.poll.duration", "s", "Time that such a request took"
        )
        self._failures: Final = meter.create_counter(
            "veo3.poll.failures", "{poll}", "Requests that brought no state, by error"
        )
        self._transitions: Final = meter.create_counter(
            "veo3.transitions", "{transition}", "Changes of tasks, by phase"
        )
        self._ends: Final = meter.create_counter(
            "veo3.tasks.ended", "{task}", "Tasks that ended, by phase and model"
        )
        self._task_duration: Final = meter.create_histogram(
            "veo3.task.duration", "s", "From the making of a task to its end, by phase and model"
        )
        for name, unit, description, of in _GAUGES:
            meter.create_observable_gauge(name, [self._observer(of)], unit, description)

    def observe(self, client: HasStats) -> None:
        """Let the gauges show a client, as long as somebody holds it; several add up."""
        self._clients.add(client)

    def close(self) -> None:
        """End the spans of tasks that nobody watches to their end."""
        while self._tasks:
            self._tasks.popitem()[1].span.end()

    def polled(self, report: PollReport) -> None:
        """Record a poll; for ``on_poll``."""
        attributes: dict[str, str | int] = {"veo3.model": self._model_of(report.request_id)}
        if report.status is not None:
            attributes["http.response.status_code"] = report.status
        self._polls.add(1, attributes)
        self._poll_duration.record(report.duration, attributes)
        if report.error is not None:
            self._failures.add(1, {**attributes, "error.type": type(report.error).__name__})
        task = self._tasks.get(report.request_id)
        if task is not None:
            task.polls = report.attempt
            if report.attempt <= _FIRST_EVENTS:
                task.span.add_event("poll", _of_poll(report))

    def changed(self, change: Transition) -> None:
        """Record a change of a task; for ``on_change``."""
        if change.request_id in self._ended_before:
            return
        attributes = self._attributes(change)
        self._transitions.add(1, attributes)
        task = self._tasks.get(change.request_id) or self._opened(change)
        task.span.add_event(
            change.phase.value, {"veo3.status": change.status}, _nanoseconds(change.observed_at)
        )
        if change.final:
            self._ended(change, task, attributes)

    def _opened(self, change: Transition) -> _Task:
        if len(self._tasks) >= MAX_SPANS:
            _, oldest = self._tasks.popitem(last=False)
            oldest.span.end()
        began = _began(change)
        span = self._tracer.start_span(
            "veo3.task",
            context=trace.set_span_in_context(trace.INVALID_SPAN),  # whoever polls is no parent
            kind=SpanKind.CLIENT,
            attributes={
                "veo3.request_id": change.request_id,
                "veo3.model": self._model_of(change.request_id, change),
            },
            start_time=_nanoseconds(began),
        )
        task = self._tasks[change.request_id] = _Task(span)
        return task

    def _ended(self, change: Transition, task: _Task, attributes: dict[str, str]) -> None:
        ended = (
            change.observed_at
            if change.task.completed_at is None
            else change.task.completed_at / 1000
        )
        self._ends.add(1, attributes)
        if change.task.created_at is not None:
            self._task_duration.record(max(0.0, ended - change.task.created_at / 1000), attributes)
        task.span.set_attributes({"veo3.phase": change.phase.value, "veo3.polls": task.polls})
        if change.error is not None:
            task.span.set_attribute("error.type", type(change.error).__name__)
            task.span.set_status(Status(StatusCode.ERROR, change.error.message))
        else:
            task.span.set_status(Status(StatusCode.OK))
        task.span.end(_nanoseconds(max(ended, _began(change))))
        self._tasks.pop(change.request_id, None)
        self._ended_before[change.request_id] = None
        if len(self._ended_before) > MAX_SPANS:
            self._ended_before.popitem(last=False)

    def _attributes(self, change: Transition) -> dict[str, str]:
        return {
            "veo3.model": self._model_of(change.request_id, change),
            "veo3.phase": change.phase.value,
        }

    def _model_of(self, request_id: str, change: Transition | None = None) -> str:
        """Return the model that a reply or the id names, of a bounded number of them."""
        request = None if change is None else change.task.req
        named = _MODEL.match(request.model) if request is not None else None
        if named is None and ":" in request_id:
            named = _MODEL.match(request_id)
        if named is None:
            return "unknown"
        if len(self._models) < _MAX_MODELS:
            self._models.add(named[0])
        return named[0] if named[0] in self._models else "other"

    def _observer(
        self, of: Callable[[Stats], float | None]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        clients = self._clients

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            values = [of(client.stats()) for client in tuple(clients)]  # on the exporter's thread
            known = [value for value in values if value is not None]
            return [Observation(sum(known))] if known else []

        return observe


_GAUGES: Final[tuple[tuple[str, str, str, Callable[[Stats], float | None]], ...]] = (
    ("veo3.watched", "{task}", "Tasks that are being polled", lambda stats: stats.watched),
    ("veo3.in_flight", "{request}", "Requests under way", lambda stats: stats.in_flight),
    ("veo3.rate", "{request}/s", "Requests a second that are allowed", lambda stats: stats.rate),
    ("veo3.lag.p50", "s", "Median lateness of polls", lambda stats: stats.lag_p50),
    ("veo3.lag.p95", "s", "95th percentile of it", lambda stats: stats.lag_p95),
    ("veo3.oldest", "s", "Age of the longest-watched task", lambda stats: stats.oldest),
    ("veo3.last_reply", "s", "Time since the last good reply", lambda stats: stats.last_reply_age),
    ("veo3.submissions", "{task}", "Tasks submitted so far", lambda stats: stats.submissions),
    ("veo3.downloads", "{video}", "Videos brought to disk so far", lambda stats: stats.downloads),
    ("veo3.downloaded", "By", "What they have", lambda stats: stats.downloaded_bytes),
    (
        "veo3.throttled",
        "s",
        "Time below the highest rate so far",
        lambda stats: stats.throttled_seconds,
    ),
)


def _of_poll(report: PollReport) -> _Attributes:
    event: dict[str, str | bool | int | float] = {
        "veo3.attempt": report.attempt,
        "veo3.duration": report.duration,
    }
    if report.status is not None:
        event["http.response.status_code"] = report.status
    if report.err_code is not None:
        event["veo3.err_code"] = report.err_code
    if report.error is not None:
        event["error.type"] = type(report.error).__name__
    return event


def _began(change: Transition) -> float:
    """Return when a task began, by the service's clock, but not after we saw it."""
    made = change.task.created_at
    return change.observed_at if made is None else min(change.observed_at, made / 1000)


def _nanoseconds(moment: float) -> int:
    return round(moment * 1e6) * 1000
