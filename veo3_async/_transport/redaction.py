"""What is taken out of requests and replies before they are written where others read them.

Keys, passwords, tokens, the values of URLs' queries (there the signatures are), embedded files and,
unless they are asked for, prompts. All else stays as it came, byte for byte: how a server spells
its JSON may be what a report is about.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from veo3_async._protocol.parsing import json_of

__all__ = ["REMOVED", "Redaction"]

REMOVED: Final = "removed"

_SHORTEST_SECRET: Final = 8
"""A key as short as a word is made up for a test; taking it out would spoil other words."""
_SHORTEST_QUOTED: Final = 8
"""Characters of a prompt that is looked for within other texts, too, such as an error's."""

_SECRET_NAME: Final = re.compile(
    r"api_?key|authorization|cookie|passw|secret|token|credential|signature|webhook", re.IGNORECASE
)
_PROMPT_NAME: Final = re.compile("prompt", re.IGNORECASE)

_SEPARATOR: Final = r"[?&;]|\\+u0026|&amp;"
_VALUE: Final = r"(?:[^&;#\\\s\"'<>]|\\+/|\\+u00(?!26)[0-9a-fA-F]{2})"
_PATTERNS: Final = (
    (re.compile(rf"((?:{_SEPARATOR})[\w.%\[\]-]+=){_VALUE}+"), rf"\1{REMOVED}"),
    (
        re.compile(rf"(https?:\\*/\\*/[^\s\"'<>?]+\?)(?:(?!=){_VALUE})+(?![^&;#\\\s\"'<>])"),
        rf"\1{REMOVED}",
    ),
    (re.compile(r"(https?:\\*/\\*/)[^\s\"'<>/@\\]+@"), rf"\1{REMOVED}@"),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]+", re.IGNORECASE), rf"\1 {REMOVED}"),
    (re.compile(r"\bsk-[\w-]{8,}"), REMOVED),
    (re.compile(r"(data:[\w/+.\\-]+;base64,)[\w+/=\\]+"), rf"\1{REMOVED}"),
)
_FIELD: Final = re.compile(r'(?s)("([^"\\]*)"\s*:\s*")((?:[^"\\]|\\.)*)')
"""In what is no whole JSON: a field with a text."""

_HEADERS: Final = re.compile(
    r"content-type|date|retry-after|(x-)?request-id|server|via|cf-ray|x-cache|cache-control|age"
    r"|location|(x-)?ratelimit.*",
    re.IGNORECASE,
)
"""Those of a reply that say something of how to read it. Cookies are not among them."""

_QUERY: Final = frozenset({"request_id", "page", "limit", "start_time", "end_time"})
"""What our own requests say in their queries and everybody may read."""


class Redaction:
    """The rule for one client.

    :param secret: Its API key.
    :param prompts: Whether prompts stay.
    """

    def __init__(self, secret: str, *, prompts: bool = False) -> None:
        is_long = len(secret) >= _SHORTEST_SECRET
        self._secrets: Final = sorted(_spellings(secret), key=len, reverse=True) if is_long else []
        self._keeps_prompts: Final = prompts

    def target(self, target: str) -> str:
        """Return path and query of a request of ours."""
        path, mark, query = target.partition("?")
        pieces = (
            piece if name in _QUERY else f"{name}={REMOVED}"
            for piece in query.split("&")
            for name in (piece.partition("=")[0],)
        )
        return self._without_secrets(path + mark + ("&".join(pieces) if mark else ""))

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers of a reply that matter."""
        kept = {n: v for n, v in headers.items() if _HEADERS.fullmatch(n)}
        return {name: self._text(value) for name, value in kept.items()}

    def body(self, body: bytes, *, beside: Iterable[str] = ()) -> bytes:
        """Return a body.

        :param beside: Texts that are taken out of it as well, such as the prompt of its request.
        """
        content, hidden = json_of(body), list(beside)
        clean = _hide(content, self._is_hidden, hidden)
        text = self._text(_without(_decoded(body), hidden))
        if content is None:
            return _encoded(_FIELD.sub(self._field, text), body)
        # Where it was spelled in a way that was not found, it is spelled anew.
        if _texts_left(json_of(text.encode()), self._is_hidden):
            text = self._text(_without(msgspec.json.encode(clean).decode(), hidden))
        return _encoded(text, body)

    def hidden_in(self, body: bytes | None) -> list[str]:
        """Return the texts that a request's body hides, for `body` of its reply."""
        hidden: list[str] = []
        if body is not None:
            _hide(json_of(body), self._is_hidden, hidden)
        return hidden

    def _is_hidden(self, name: str) -> bool:
        if _SECRET_NAME.search(name):
            return True
        return not self._keeps_prompts and _PROMPT_NAME.search(name) is not None

    def _field(self, found: re.Match[str]) -> str:
        return found[1] + (REMOVED if self._is_hidden(found[2]) else found[3])

    def _text(self, text: str) -> str:
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return self._without_secrets(text)

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, REMOVED)
        return text


def _spellings(secret: str) -> set[str]:
    """Return how a secret is written: as it is, in JSON, in a URL, and in base64."""
    in_json = json.dumps(secret)[1:-1]
    return {
        secret,
        in_json,
        in_json.replace("/", r"\/"),
        urllib.parse.quote(secret),
        urllib.parse.quote(secret, safe=""),
        base64.b64encode(secret.encode()).decode().rstrip("="),
    }


def _hide(value: object, is_hidden: Callable[[str], bool], hidden: list[str]) -> object:
    """Return a value of JSON without what fields of hidden names say, and note what that was."""
    match value:
        case dict():
            return {
                name: _all_hidden(item, hidden)
                if is_hidden(name)
                else _hide(item, is_hidden, hidden)
                for name, item in value.items()
            }
        case list():
            return [_hide(item, is_hidden, hidden) for item in value]
        case str() if value.lstrip()[:1] in {"{", "["}:
            before = len(hidden)
            inner = _hide(json_of(value.encode(errors="replace")), is_hidden, hidden)
            return msgspec.json.encode(inner).decode() if len(hidden) > before else value
    return value


def _all_hidden(value: object, hidden: list[str]) -> object:
    match value:
        case dict():
            return {name: _all_hidden(item, hidden) for name, item in value.items()}
        case list():
            return [_all_hidden(item, hidden) for item in value]
        case str() if value:
            hidden.append(value)
            return REMOVED
    return value


def _texts_left(value: object, is_hidden: Callable[[str], bool]) -> bool:
    hidden: list[str] = []
    _hide(value, is_hidden, hidden)
    return any(text != REMOVED for text in hidden)


def _without(text: str, hidden: Iterable[str]) -> str:
    """Return a text without others, however they are spelled in it."""
    for one in sorted(set(hidden), key=len, reverse=True):
        for spelled in (json.dumps(one), json.dumps(one, ensure_ascii=False)):
            for form in (spelled, spelled.replace("/", r"\/")):
                nested = json.dumps(form, ensure_ascii=False)[1:-1]
                text = text.replace(form, f'"{REMOVED}"')
                text = text.replace(nested, rf"\"{REMOVED}\"")
                if len(one) >= _SHORTEST_QUOTED:
                    text = text.replace(form[1:-1], REMOVED).replace(one, REMOVED)
    return text


def _decoded(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body.decode("latin-1")


def _encoded(text: str, body: bytes) -> bytes:
    """Return a text in the encoding that `_decoded` found."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return text.encode("latin-1", errors="replace")
    return text.encode()
