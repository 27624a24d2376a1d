"""What things are called on NATS, and every setting of every stream and consumer.

For the prefix ``veo3``:

================  ==========================  ================================================
stream            subjects                    holds
================  ==========================  ================================================
veo3_WATCH        ``veo3.watch.<token>``      a message for each id that is watched
veo3_CHANGE       ``veo3.change.<token>``     records; the last one of an id is its state
veo3_RATE         ``veo3.rate.<number>``      permits, which go round
KV_veo3           ``$KV.veo3.<name>``         what is shared: the rate, what the pacing learned
KV_veo3_workers   ``$KV.veo3_workers.<name>`` a sign of life of each worker
================  ==========================  ================================================
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final, TypeAlias

import msgspec

from veo3_async._protocol.ids import check_request_id

__all__ = [
    "LIFE_SIGN_SECONDS",
    "Names",
    "Settings",
    "checked",
    "permits",
    "pollers",
    "request_id_of",
    "token_of",
]

Settings: TypeAlias = dict[str, Any]
"""Settings of a stream or a consumer, as the JetStream API names them; durations in seconds."""

_PREFIX: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SHARES_A_BUCKET: Final = re.compile(r"KV_.*|.*_workers")
"""Prefixes some of whose streams would be those of another prefix."""

_KEEP_RECORDS: Final = 64  # of one id: a life has at most about 20, and there are faults

LIFE_SIGN_SECONDS: Final = 5.0
"""How often a worker shows that it lives; one that was silent for three times as long is dead."""

_PERMIT_WAIT: Final = 5.0
_MAX_WAITING: Final = 8192  # slots of all workers together; the server's own default is 512


class Names(msgspec.Struct, frozen=True):
    """What everything is called."""

    prefix: str

    def __post_init__(self) -> None:
        if not isinstance(self.prefix, str) or not _PREFIX.fullmatch(self.prefix):
            message = f"prefix is 1 to 64 letters, digits, - and _, not {self.prefix!r}"
            raise ValueError(message)
        if _SHARES_A_BUCKET.fullmatch(self.prefix):
            message = (
                "prefix does not begin with KV_ or end with _workers, for it would share streams "
                f"with another prefix: not {self.prefix!r}"
            )
            raise ValueError(message)

    @property
    def watch(self) -> str:
        """The stream of what is watched."""
        return f"{self.prefix}_WATCH"

    @property
    def change(self) -> str:
        """The stream of records."""
        return f"{self.prefix}_CHANGE"

    @property
    def rate(self) -> str:
        """The stream of permits."""
        return f"{self.prefix}_RATE"

    @property
    def shared(self) -> str:
        """The stream of a key-value bucket."""
        return f"KV_{self.prefix}"

    @property
    def workers(self) -> str:
        """The stream of a key-value bucket whose entries expire."""
        return f"KV_{self.prefix}_workers"

    @property
    def any_change(self) -> str:
        """The subjects of all records."""
        return f"{self.prefix}.change.*"

    def watch_of(self, request_id: str) -> str:
        """Return the subject under which an id is watched."""
        return f"{self.prefix}.watch.{token_of(request_id)}"

    def change_of(self, request_id: str) -> str:
        """Return the subject of an id's records."""
        return f"{self.prefix}.change.{token_of(request_id)}"

    def permit(self, number: int) -> str:
        """Return the subject of a permit."""
        return f"{self.prefix}.rate.{number}"

    def number_of(self, permit: str) -> int:
        """Return which permit a subject is of; 0 where it is somebody else's."""
        number = permit.rpartition(".")[2]
        return int(number) if number.isdecimal() else 0

    def entry(self, name: str) -> str:
        """Return the subject of what is shared under a name."""
        return f"$KV.{self.prefix}.{name}"

    def life_sign(self, worker: str) -> str:
        """Return the subject of a worker's signs of life."""
        return f"$KV.{self.prefix}_workers.{worker}"

    def streams(self, replicas: int, keep: float) -> dict[str, Settings]:
        """Return the streams that every process needs.

        :param keep: Seconds for which records are kept.
        """
        bucket: Settings = {
            "storage": "file",
            "num_replicas": replicas,
            "max_msgs_per_subject": 1,
            "discard": "new",
            "allow_rollup_hdrs": True,
            "allow_direct": True,
        }
        return {
            self.watch: {
                "subjects": [f"{self.prefix}.watch.*"],
                "retention": "workqueue",
                "storage": "file",
                "num_replicas": replicas,
                "max_msgs_per_subject": 1,
                "discard": "new",
                "discard_new_per_subject": True,
            },
            self.change: {
                "subjects": [self.any_change],
                "retention": "limits",
                "storage": "file",
                "num_replicas": replicas,
                "max_msgs_per_subject": _KEEP_RECORDS,
                "max_age": keep,
                "allow_direct": True,
            },
            self.shared: {**bucket, "subjects": [f"$KV.{self.prefix}.>"]},
            self.workers: {
                **bucket,
                "subjects": [f"$KV.{self.prefix}_workers.>"],
                "max_age": 3 * LIFE_SIGN_SECONDS,
            },
        }

    def rate_stream(self, replicas: int, max_rate: float) -> Settings:
        """Return the settings of the stream of permits; they say the rate, so that all agree."""
        return {
            "subjects": [f"{self.prefix}.rate.*"],
            "retention": "workqueue",
            "storage": "file",
            "num_replicas": replicas,
            "max_msgs_per_subject": 1,
            "discard": "new",
            "discard_new_per_subject": True,
            "metadata": {"max_polls_per_second": f"{max_rate:g}"},
        }


def pollers(ack_wait: float) -> Settings:
    """Return the settings of the consumer that hands ids to the workers.

    What waits for its next poll counts as pending, so that is not limited.
    """
    return {
        "ack_policy": "explicit",
        "ack_wait": ack_wait,
        "max_deliver": -1,
        "max_ack_pending": -1,
        "max_waiting": _MAX_WAITING,
    }


def permits() -> Settings:
    """Return the settings of the consumer that hands permits to the workers.

    A worker gives a permit back at once, for later: the wait is that after a death.
    """
    return pollers(_PERMIT_WAIT)


def token_of(request_id: str) -> str:
    """Spell an id as one token of a subject: base64url without padding."""
    return base64.urlsafe_b64encode(request_id.encode()).rstrip(b"=").decode()


def request_id_of(subject: str) -> str:
    """Return the id that the last token of a subject spells.

    :raises ValueError: It spells none, or not as `token_of` does.
    """
    token = subject.rpartition(".")[2]
    padded = token + "=" * (-len(token) % 4)
    try:
        request_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        request_id = ""
    if not request_id or token_of(request_id) != token:
        message = f"the last token of {subject[:128]!r} is not the base64url of a request id"
        raise ValueError(message)
    return request_id


def checked(request_ids: tuple[str, ...]) -> list[str]:
    """Return ids as they came, each once.

    :raises InvalidRequest: One of them cannot be one.
    :raises TypeError: One is no ``str``.
    """
    return list(dict.fromkeys(check_request_id(request_id) for request_id in request_ids))
