"""What a recording settles of what is not known about the API; pure.

What the documentation leaves open: whether the id of a reply is the one that was asked for,
whether a task is known at one path only, which words, times, codes and limits there are.
"""

from __future__ import annotations

import base64
import collections
import re
import statistics
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from veo3_async._models import Phase, VideoTask
from veo3_async._protocol import families
from veo3_async._protocol.errors import Problem, own_error
from veo3_async._protocol.families import Route
from veo3_async._protocol.http import Reply, http_date
from veo3_async._protocol.parsing import json_of
from veo3_async._text import one_line
from veo3_async._transport.recorder import Exchange

__all__ = ["Fact", "clock_offset", "facts"]

_QUEUE: Final = re.compile(r"/302/submit/(?:veo2|veo3)")
_BY_PATH: Final = re.compile(r"(/302/submit/veo3-v2|/302/v2/video/fetch)/(.+)")
_BY_QUERY: Final = re.compile(r"/302/submit/[^/]+")
_TIMES: Final = ("created_at", "status_update_time", "completed_at", "startTime", "finishTime")
_SECONDS_BELOW: Final = 10**11
_LIMITS: Final = re.compile(r"retry-after|(x-)?ratelimit.*", re.IGNORECASE)
_HOSTS_OF_SAMPLES: Final = 5


class Fact(msgspec.Struct, frozen=True):
    """An open question, and what a recording says to it."""

    question: str
    answer: str | None
    """None where it says nothing."""


class _Poll(msgspec.Struct, frozen=True):
    """A request for the state of a task, and what its reply is read as."""

    request_id: str
    path: str
    family: str
    content: Any
    outcome: VideoTask | Problem


def facts(exchanges: Sequence[Exchange]) -> list[Fact]:
    """Return what is settled by what went over the wire, and what stays open."""
    polls = [poll for one in exchanges if (poll := _poll_of(one)) is not None]
    return [
        Fact("is `id` the id asked for?", _ids(polls)),
        Fact("is a task known at one path only?", _paths(polls)),
        Fact("which words come?", _words(polls)),
        Fact("in which unit are times?", _times(polls)),
        Fact("which fields are not documented?", _fields(polls)),
        Fact("where is the id of a new task?", _submissions(exchanges)),
        Fact("which HTTP status has an err_code?", _codes(exchanges)),
        Fact("what says a limit?", _limits(exchanges)),
        Fact("where are the videos?", _hosts(polls)),
        Fact("is this machine's clock right?", _clock(exchanges)),
    ]


def _poll_of(one: Exchange) -> _Poll | None:
    if one.method != "GET" or one.status is None or one.body is None:
        return None
    route, request_id = _route_of(one.path)
    if route is None or not request_id:
        return None
    body = base64.b64decode(one.body) if one.base64 else one.body.encode()
    reply = Reply(one.status, {name.title(): said for name, said in one.headers.items()}, body)
    outcome = families.read(route, reply, request_id=request_id, wall_now=one.at)
    return _Poll(request_id, route.path, route.family, json_of(body), outcome)


def _route_of(target: str) -> tuple[Route | None, str]:
    path, _, query = target.partition("?")
    if found := _BY_PATH.fullmatch(path):
        family = "tasks" if "submit" in found[1] else "unified"
        return Route(family, found[1]), urllib.parse.unquote(found[2])
    if _BY_QUERY.fullmatch(path) is None:
        return None, ""
    request_id = dict(urllib.parse.parse_qsl(query)).get("request_id", "")
    return Route("queue" if _QUEUE.fullmatch(path) else "record", path), request_id


def _states(polls: Iterable[_Poll]) -> Iterator[tuple[_Poll, VideoTask]]:
    for poll in polls:
        if isinstance(poll.outcome, VideoTask):
            yield poll, poll.outcome


def _ids(polls: Sequence[_Poll]) -> str | None:
    said = [(poll.request_id, task.id) for poll, task in _states(polls) if task.id]
    others = {pair for pair in said if pair[0] != pair[1]}
    if not said:
        return None
    if not others:
        return f"yes, in {len(said)} of {len(said)} replies"
    asked, got = min(others)
    return f"no, {len(others)} ids differ: asked for {one_line(asked)}, got {one_line(got)}"


def _paths(polls: Sequence[_Poll]) -> str | None:
    known: dict[str, dict[str, bool]] = collections.defaultdict(dict)
    for poll in polls:
        is_known = isinstance(poll.outcome, VideoTask)
        if is_known or (isinstance(poll.outcome, Problem) and poll.outcome.kind == "not_found"):
            known[poll.request_id][poll.path] = known[poll.request_id].get(poll.path) or is_known
    both = [paths for paths in known.values() if len(paths) > 1]
    if any(all(paths.values()) for paths in both):
        return "no: a task was found at two paths"
    if any(any(paths.values()) for paths in both):
        return "yes: a task was found at one path and not at another"
    return None


def _words(polls: Sequence[_Poll]) -> str | None:
    words = collections.Counter(
        (poll.family, task.status, task.phase is Phase.UNKNOWN)
        for poll, task in _states(polls)
        if task.status
    )
    listed = (
        f"{family} {one_line(word, 40)}{' (NOT KNOWN)' if is_new else ''} {count} ×"
        for (family, word, is_new), count in sorted(words.items())
    )
    return ", ".join(listed) or None


def _times(polls: Sequence[_Poll]) -> str | None:
    units = {
        "text"
        if isinstance(value, str)
        else ("seconds" if 0 < value < _SECONDS_BELOW else "milliseconds")
        for poll, _ in _states(polls)
        if isinstance(poll.content, dict)
        for name in _TIMES
        if isinstance(value := poll.content.get(name), str | int | float) and value
    }
    return ", ".join(sorted(units)) or None


def _fields(polls: Sequence[_Poll]) -> str | None:
    names = sorted({one_line(name, 40) for _, task in _states(polls) for name in task.extra})
    if any(True for _ in _states(polls)):
        return ", ".join(names) or "none came"
    return None


def _submissions(exchanges: Sequence[Exchange]) -> str | None:
    shapes = {
        ", ".join(_shape_of(content))
        for one in exchanges
        if one.method == "POST" and one.status == 200 and "upload" not in one.path
        if isinstance(content := json_of((one.body or "").encode()), dict)
    }
    return "; ".join(sorted(shapes)) or None


def _shape_of(content: dict[str, Any]) -> Iterator[str]:
    for name, value in content.items():
        kind = "{…}" if isinstance(value, dict) else type(value).__name__
        yield f"{one_line(name, 40)}: {kind}"


def _codes(exchanges: Sequence[Exchange]) -> str | None:
    pairs = {
        (error.err_code, one.status)
        for one in exchanges
        if one.status is not None
        if (error := own_error(json_of((one.body or "").encode()))) is not None
        if error.err_code is not None
    }
    return ", ".join(f"{code} with {status}" for code, status in sorted(pairs)) or None


def _limits(exchanges: Sequence[Exchange]) -> str | None:
    refused = sum(one.status == 429 for one in exchanges)
    said = {
        f"{name}: {one_line(value, 40)}"
        for one in exchanges
        for name, value in one.headers.items()
        if _LIMITS.fullmatch(name)
    }
    parts = [f"429 {refused} ×"] if refused else []
    return ", ".join(parts + sorted(said)[:_HOSTS_OF_SAMPLES]) or None


def _hosts(polls: Sequence[_Poll]) -> str | None:
    urls = {url for _, task in _states(polls) for url in (task.video_url, task.upsample_video_url)}
    hosts = {urllib.parse.urlsplit(url).hostname or "?" for url in urls if url}
    return ", ".join(sorted(hosts)) or None


def clock_offset(exchanges: Iterable[Exchange]) -> float | None:
    """Return the seconds that the server's clock is ahead, to a second at best; None: not known."""
    apart = [
        served - (one.at + one.seconds / 2)
        for one in exchanges
        for name, value in one.headers.items()
        if name.lower() == "date" and (served := http_date(value)) is not None
    ]
    return statistics.median(apart) + 0.5 if apart else None  # a date has whole seconds


def _clock(exchanges: Sequence[Exchange]) -> str | None:
    offset = clock_offset(exchanges)
    if offset is None or abs(offset) < 1:
        return None if offset is None else "yes"
    return f"the server's is {abs(offset):.0f} s {'ahead' if offset > 0 else 'behind'}"
