"""What the fake server can do wrong, and when: values, and the choice among them.

Every fault is a frozen value. `Status`, `Body` and `Redirect` are answered in place of the truth;
the others spoil how the truth is delivered.
"""

from __future__ import annotations

import gzip
import http
from typing import TYPE_CHECKING, Final, Literal, get_args

import msgspec

if TYPE_CHECKING:
    import random

__all__ = [
    "Body",
    "Cut",
    "Drip",
    "Fault",
    "HangUp",
    "Redirect",
    "Rules",
    "Silence",
    "Slow",
    "Status",
    "Stranger",
    "Where",
]

Where = Literal["poll", "submit", "upload", "account", "file", "connect"]
"""What a fault spoils: a GET for a state, a POST of a task, an upload, a GET about the account, a
video file, or a connection as it is made."""

_NGINX: Final = (
    "<html>\r\n<head><title>{0}</title></head>\r\n<body>\r\n<center><h1>{0}</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
_HTML: Final = b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"


class Status(msgspec.Struct, frozen=True):
    """Answer with an HTTP status and the gateway's error body."""

    code: int
    """HTTP status, such as 429."""
    retry_after: float | str | None = None
    """Seconds, or any text such as an HTTP date, for ``Retry-After``; None sends none."""
    err_code: int | None = None
    """The gateway's own code in the body, such as ``-10008``; None leaves it out."""


Stranger = Literal["nginx", "cloudflare", "kubernetes", "fastapi", "aws", "spring", "firewall"]
"""Who answers in place of the API."""


class Body(msgspec.Struct, frozen=True):
    """Answer with these bytes, whatever they are."""

    content: bytes
    """Sent as it is."""
    code: int = 200
    """HTTP status."""
    content_type: str = "application/json"
    """Value of ``Content-Type``."""
    encoding: str | None = None
    """Value of ``Content-Encoding``, which the content must already have; None sends none."""

    @classmethod
    def html(cls, code: int = 200) -> Body:
        """Return the HTML page of a gateway."""
        return cls(_HTML, code, "text/html; charset=utf-8")

    @classmethod
    def foreign(cls, code: int, by: Stranger = "nginx") -> Body:
        """Return what something else than the API answers with an HTTP status.

        :param by: ``nginx`` has a page, ``cloudflare`` a line of text, the others
            JSON of their own; ``firewall`` says nothing at all.
        """
        phrase = http.HTTPStatus(code).phrase
        title = f"{code} {phrase}"
        kubernetes = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        bodies: dict[Stranger, object] = {
            "kubernetes": kubernetes | {"reason": phrase.replace(" ", ""), "code": code},
            "fastapi": {"detail": phrase},
            "aws": {"message": phrase},
            "spring": {"status": code, "error": phrase, "path": "/302/submit/veo3-pro"},
        }
        if by in bodies:
            return cls(msgspec.json.encode(bodies[by]), code)
        match by:
            case "nginx":
                return cls(_NGINX.format(title).encode(), code, "text/html")
            case "cloudflare":
                return cls(b"error code: 1020", code, "text/plain; charset=UTF-8")
            case _:
                return cls.empty(code)

    @classmethod
    def refusal(cls, text: str = "upstream is saturated", code: int = 200) -> Body:
        """Return a refusal in the shape of a task, as gateways have it under any status."""
        says = {"id": "", "status": "error", "status_update_time": 0, "error": text}
        return cls(msgspec.json.encode(says), code)

    @classmethod
    def empty(cls, code: int = 200) -> Body:
        """Return nothing at all."""
        return cls(b"", code)

    @classmethod
    def bad_json(cls) -> Body:
        """Return JSON that breaks off."""
        return cls(b'{"id": "veo3-pro:')

    @classmethod
    def huge(cls, size: int = 3_000_000) -> Body:
        """Return a valid JSON object of so many bytes, at least 24."""
        frame = b'{"status":"%s"}'
        return cls(frame % (b"x" * (size - len(frame) + 2)))

    @classmethod
    def gzip_bomb(cls, size: int = 64_000_000) -> Body:
        """Return JSON of so many bytes, compressed to about a thousandth of them."""
        return cls(gzip.compress(cls.huge(size).content, mtime=0), encoding="gzip")


class Redirect(msgspec.Struct, frozen=True):
    """Answer with a redirect."""

    location: str
    """Where to, as sent."""
    code: int = 302
    """HTTP status."""


class HangUp(msgspec.Struct, frozen=True):
    """Close the connection before a byte of the answer."""

    reset: bool = False
    """True sends a TCP reset, False an orderly end."""
    reused_only: bool = False
    """True spares the first request of a connection: a stale keep-alive connection."""


class Silence(msgspec.Struct, frozen=True):
    """Take the request and say no more until the server stops or the client goes."""

    after_headers: bool = False
    """True sends status and headers first."""


class Drip(msgspec.Struct, frozen=True):
    """Send the headers, then the body byte by byte, then close."""

    interval: float = 1.0
    """Seconds between two bytes."""


class Cut(msgspec.Struct, frozen=True):
    """Close the connection within the body."""

    framing: Literal["length", "chunked", "close"] = "length"
    """How the end of the body was announced: ``Content-Length``, chunks, or by closing."""
    at: int | None = None
    """How many bytes of the body are sent, fewer where it is shorter; None sends half."""


class Slow(msgspec.Struct, frozen=True):
    """Answer truthfully, but late."""

    seconds: float
    """How late."""


Fault = Status | Body | Redirect | HangUp | Silence | Drip | Cut | Slow
"""Everything that can go wrong with one request."""


class _Rule(msgspec.Struct):
    fault: Fault
    rate: float | None
    times: int | None
    after: int

    def fires(self, *, reused: bool, rng: random.Random) -> bool:
        if isinstance(self.fault, HangUp) and self.fault.reused_only and not reused:
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.times == 0 or (self.rate is not None and rng.random() >= self.rate):
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Rules:
    """Which fault meets which request; the cost of a choice does not grow with the ids."""

    def __init__(self) -> None:
        self._rules: dict[tuple[Where, str | None], list[_Rule]] = {}

    def __len__(self) -> int:
        return sum(rule.times != 0 for rules in self._rules.values() for rule in rules)

    def add(
        self,
        fault: Fault,
        *,
        on: Where,
        request_id: str | None,
        rate: float | None,
        times: int | None,
        after: int,
    ) -> None:
        """Add a rule; see ``FakeVeo3.fault``.

        :raises ValueError: A number is out of its range, or the fault makes no sense there.
        """
        _check(fault, on, request_id)
        if rate is not None and not 0 <= rate <= 1:
            message = f"rate is between 0 and 1, not {rate!r}"
            raise ValueError(message)
        if after < 0 or (times is not None and times < 1):
            message = f"times is at least 1 and after at least 0, not {times!r} and {after!r}"
            raise ValueError(message)
        self._rules.setdefault((on, request_id), []).append(_Rule(fault, rate, times, after))

    def remove(self, fault: Fault | None) -> None:
        """Remove the rules of one fault, or all for None."""
        self._rules = {
            key: left
            for key, rules in self._rules.items()
            if (left := [rule for rule in rules if fault is not None and rule.fault != fault])
        }

    def choose(
        self, on: Where, request_id: str | None, *, reused: bool, rng: random.Random
    ) -> Fault | None:
        """Return the fault that meets a request: of its own rules first, then of those for all."""
        for key in {(on, request_id): None, (on, None): None}:
            for rule in self._rules.get(key, ()):
                if rule.fires(reused=reused, rng=rng):
                    return rule.fault
        return None


def _check(fault: Fault, on: Where, request_id: str | None) -> None:
    if on not in get_args(Where):
        message = f"on is one of {', '.join(get_args(Where))}, not {on!r}"
        raise ValueError(message)
    if request_id is not None and on != "poll":
        message = f"only polls have a request id, on={on!r} has none"
        raise ValueError(message)
    if on == "connect" and not isinstance(fault, HangUp):
        message = f"a connection can only be hung up as it is made, not {fault!r}"
        raise ValueError(message)
