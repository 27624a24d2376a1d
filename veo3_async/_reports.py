"""What a client says of itself and of the account: polls, statistics, costs, models."""

from __future__ import annotations

import decimal

import msgspec

from veo3_async._errors import Veo3Error
from veo3_async._html import facts_html
from veo3_async._pydantic import ForPydantic

__all__ = ["Cost", "ModelParameter", "PollReport", "Stats", "VideoModel"]


class PollReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``on_poll`` gets after every physical request for the state of a task."""

    request_id: str
    """The id that was asked for."""
    attempt: int
    """How many requests for this id this one makes, from 1."""
    status: int | None
    """HTTP status, or None where no reply came."""
    err_code: int | None
    """The gateway's own code, or None."""
    duration: float
    """Seconds that the request took, connecting included."""
    error: Veo3Error | None
    """What was wrong with the reply, or None."""
    next_poll_in: float | None
    """Seconds until this id is due again, or None where nobody watches it any more."""


class Stats(ForPydantic, msgspec.Struct, frozen=True, kw_only=True):
    """What a client is doing, at one moment."""

    watched: int = 0
    """Ids that are being polled."""
    in_flight: int = 0
    """Requests under way."""
    polls: int = 0
    """Physical requests sent so far."""
    transitions: int = 0
    """Transitions observed so far."""
    ends: dict[str, int] = {}
    """Final transitions so far, by phase, whoever watches; a caller's own timeout is none."""
    submissions: int = 0
    """Tasks submitted so far."""
    downloads: int = 0
    """Videos brought to disk so far; one that was there already is none."""
    downloaded_bytes: int = 0
    """Bytes that these videos have."""
    last_reply_age: float | None = None
    """Seconds since a reply last brought what was asked for; None before the first."""
    failures: dict[str, int] = {}
    """Requests that brought no state, by kind: ``connect``, ``dns``, ``certificate``, ``timeout``,
    ``reset`` (the network), ``local``, ``session`` (this program), ``throttled``, ``overloaded``,
    ``no_channel``, ``server`` (the service), ``not_found``, ``invalid``, ``authentication``,
    ``quota`` (the API's own word), ``unexpected`` (not the API)."""
    rate: float
    """Requests a second that the throttle allows now."""
    throttled_seconds: float = 0.0
    """Seconds that the rate has been below ``max_polls_per_second``, or paused, so far."""
    throttle_reason: str | None = None
    """Why the rate is below its maximum now, or None where it is not: the service refused
    (``throttled``, ``overloaded``), no answers come (``silent``), or this machine is short of files
    or ports (``local``)."""
    lag_p50: float | None = None
    """Median seconds between the moment a poll was due and the moment it was sent."""
    lag_p95: float | None = None
    """95th percentile of the same; both None before the first poll, both to about 10 %."""
    oldest: float | None = None
    """Seconds since the longest-watched id was added, or None where none is watched."""
    expected_polls: float | None = None
    """Requests that a task takes on average, as a `LearnedPacing` knows now; else None."""
    expected_lag: float | None = None
    """Seconds from the end of a task to the poll that sees it, on average, likewise."""

    def _repr_html_(self) -> str:
        return facts_html((name, getattr(self, name)) for name in self.__struct_fields__)


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one request cost, as the account's record says."""

    cost: decimal.Decimal | None = None
    """PTC, of which one is 1 USD; None where the record does not say."""
    model: str = ""
    """What was asked for."""
    input_token: int | None = None
    """Tokens that went in, at models that count them."""
    output_token: int | None = None
    """Tokens that came out, at models that count them."""
    process_time: float | None = None
    """How long it took, in the unit of the record, which is not documented."""


class ModelParameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of a model, as the list of models has it."""

    name: str = ""
    """Such as ``duration``; ``image1`` and the like are sent as ``image``."""
    required: bool = False
    """Whether a submission without it is refused."""
    description: str = ""
    """In English where there is a text in it."""
    options: tuple[str, ...] = ()
    """The values that it may have; empty where the list does not say."""
    minimum: float | None = None
    """The least that it may be; None where the list does not say."""
    maximum: float | None = None
    """The most that it may be; None where the list does not say."""
    step: float | None = None
    """Between two values that it may have; None where the list does not say."""


class VideoModel(ForPydantic, msgspec.Struct, frozen=True, kw_only=True):
    """A model of the unified endpoint, as the list of models has it."""

    name: str = ""
    """What ``model=`` takes."""
    display_name: str = ""
    """As people call it."""
    provider: str = ""
    """Who makes it."""
    price: str = ""
    """A text, such as ``0.5 PTC/time``."""
    description: str = ""
    """In English where there is a text in it."""
    takes_text: bool = False
    """Whether it makes a video from text alone."""
    takes_image: bool = False
    """Whether it makes one from an image."""
    takes_video: bool = False
    """Whether it makes one from a video."""
    parameters: tuple[ModelParameter, ...] = ()
    """What a submission may say."""
