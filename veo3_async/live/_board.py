"""What is known of the tasks that are followed, and what it adds up to; draws nothing."""

from __future__ import annotations

import collections
import itertools
import pathlib
from collections.abc import Iterable
from typing import Final

import msgspec

from veo3_async._errors import ServiceUnavailable, StillPending, UnexpectedReply, Veo3Error
from veo3_async._models import Phase, Transition
from veo3_async._reports import PollReport

__all__ = ["Board", "Row"]

_STANDINGS: Final = ("video", "saved", "failed", "left")
_WITH_VIDEO: Final = frozenset({Phase.COMPLETED, Phase.COMPLETED_PLAIN})


class Row(msgspec.Struct):
    """One task; times are in seconds since the epoch."""

    request_id: str
    began: float
    """When the service made the task, where it says so; else when we began to look."""
    phase: Phase | None = None
    """None before the first reply. The timeout of a watch leaves it as it was."""
    ended: float | None = None
    """When the task, or our sight of it, ended."""
    url: str | None = None
    """The best video so far."""
    error: Veo3Error | None = None
    """Why there is no video, or no file."""
    loaded: tuple[int, int | None] | None = None
    """Bytes that are here and bytes in all, while or after the video is brought to disk."""
    path: pathlib.Path | None = None
    """Where it is."""
    loading_since: tuple[float, int] | None = None
    """When the first bytes came, and how many of them were there before."""
    trouble: str | None = None
    """What was wrong with the last poll of it, or None."""

    @property
    def has_video(self) -> bool:
        """Whether it ended well."""
        return self.phase in _WITH_VIDEO

    @property
    def is_saving(self) -> bool:
        """Whether its video is being brought to disk."""
        return self.loaded is not None and self.path is None and self.error is None

    def speed(self, now: float) -> float | None:
        """Return the bytes a second that come, or None where that is not known yet."""
        if self.loaded is None or self.loading_since is None:
            return None
        began, before = self.loading_since
        return (self.loaded[0] - before) / (now - began) if now - began >= 1 else None

    def elapsed(self, now: float) -> float:
        """Return the seconds that the task has taken so far, or took."""
        return max(0.0, (self.ended or now) - self.began)


class Board:
    """The rows, by id, in the order in which they were given.

    :param request_ids: May be more than a screen holds, and more than a million.
    :param now: Seconds since the epoch.
    :param saves: Whether a row is only done when its video is on disk.
    """

    def __init__(self, request_ids: Iterable[str], *, now: float, saves: bool = False) -> None:
        self.rows: Final = {name: Row(name, now) for name in request_ids}
        self._saves: Final = saves
        self._counts: Final = collections.Counter(left=len(self.rows))
        self.trouble: str | None = None
        """Why the service gave no answer to the last poll, or None where it did."""
        self._active: Final[dict[str, None]] = {}
        """Those that go on, the one that changed last at the end."""

    def add(self, request_id: str, *, now: float) -> None:
        """Put in a row; it is not there yet."""
        self.rows[request_id] = Row(request_id, now)
        self._counts["left"] += 1

    def take(self, change: Transition) -> None:
        """Take note of a transition."""
        row, task = self.rows[change.request_id], change.task
        self._counts.subtract(self._standing(row))
        if task.created_at is not None:
            row.began = task.created_at / 1000
        row.url, row.error = task.best_url, change.error
        row.phase = change.previous if isinstance(change.error, StillPending) else change.phase
        if change.final:
            row.ended = _moment(task.completed_at) or change.observed_at
        self._settle(row)

    def polled(self, report: PollReport) -> None:
        """Take note of whether the service answers."""
        failed = isinstance(report.error, ServiceUnavailable | UnexpectedReply)
        self.trouble = report.error.message if report.error is not None and failed else None
        if (row := self.rows.get(report.request_id)) is not None:
            row.trouble = None if report.error is None else report.error.message

    def loading(self, request_id: str, done: int, total: int | None, *, now: float) -> None:
        """Take note of what is on disk of a video."""
        row = self.rows[request_id]
        row.loaded = done, total
        if row.loading_since is None or row.loading_since[1] > done:  # begun anew
            row.loading_since = now, done

    def saved(self, request_id: str, outcome: pathlib.Path | Veo3Error) -> None:
        """Take note of where a video is, or why it is not."""
        row = self.rows[request_id]
        self._counts.subtract(self._standing(row))
        if isinstance(outcome, Veo3Error):
            row.error = outcome
        else:
            row.path = outcome
        self._settle(row)

    def visible(self, limit: int) -> list[Row]:
        """Return all rows if there are no more than that, else those that changed last."""
        if len(self.rows) <= limit:
            return list(self.rows.values())
        return [self.rows[name] for name in itertools.islice(reversed(self._active), limit)]

    @property
    def left(self) -> list[Row]:
        """Those that another run would go on with."""
        return [row for row in self.rows.values() if self._goes_on(row)]

    @property
    def over(self) -> list[Row]:
        """All the others."""
        return [row for row in self.rows.values() if not self._goes_on(row)]

    @property
    def succeeded(self) -> bool:
        """Whether every video is there, and on disk where that was wanted."""
        return all(
            row.has_video and (row.path is not None or not self._saves)
            for row in self.rows.values()
        )

    def summary(self) -> str:
        """Return the counts as a sentence; costs the same for any number of rows."""
        videos, saved, failed, left = (self._counts[name] for name in _STANDINGS)
        counts = (
            f"{videos} video{'' if videos == 1 else 's'}",
            f"{saved} saved" if self._saves else "",
            f"{failed} failed" if failed else "",
            f"{left} still running" if left else "",
        )
        tasks = f"{len(self.rows)} task{'' if len(self.rows) == 1 else 's'}"
        return f"{tasks}: {', '.join(filter(None, counts))}"

    def _settle(self, row: Row) -> None:
        self._counts.update(self._standing(row))
        self._active.pop(row.request_id, None)
        if self._goes_on(row):
            self._active[row.request_id] = None

    def _standing(self, row: Row) -> list[str]:
        goes_on = self._goes_on(row)
        facts = (row.has_video, row.path is not None, bool(row.error) and not goes_on, goes_on)
        return list(itertools.compress(_STANDINGS, facts))

    def _goes_on(self, row: Row) -> bool:
        if row.ended is None or isinstance(row.error, StillPending):
            return True
        return self._saves and row.path is None and row.error is None


def _moment(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
