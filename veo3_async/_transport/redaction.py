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
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

_SEPARATOR: Final = r"[?&;]|\\{1,9}u0026|&amp;"
_VALUE: Final = r"(?:[^&;#\\\s\"'<>]|\\{1,9}/|\\{1,9}u00(?!26)[0-9a-fA-F]{2})"
_PATTERNS: Final = (
    (re.compile(rf"((?:{_SEPARATOR})[\w.%\[\]-]+=){_VALUE}+"), rf"\1{REMOVED}"),
    (
        re.compile(
            rf"(https?:\\{{0,9}}/\\{{0,9}}/[^\s\"'<>?]{{1,2048}}\?)(?:(?!=){_VALUE})+(?![^&;#\\\s\"'<>])"
        ),
        rf"\1{REMOVED}",
    ),
    (re.compile(r"(https?:\\{0,9}/\\{0,9}/)[^\s\"'<>/@\\]{1,2048}@"), rf"\1{REMOVED}@"),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]+", re.IGNORECASE), rf"\1 {REMOVED}"),
    (re.compile(r"\bsk-[\w-]{8,}"), REMOVED),
    (re.compile(r"(data:[\w/+.\\-]+;base64,)[\w+/=\\]+"), rf"\1{REMOVED}"),
)
_FIELD: Final = re.compile(r'"([^"\\]*)\\{0,9}"\s{0,9}:\s{0,9}\\{0,9}"')
_REST: Final = re.compile(r'(?s)(?:[^"\\]|\\.)*')
"""In what is no whole JSON: the beginning of a field with a text, and that text. Where the field
stands within a text, it is all the rest of that."""

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
        content = json_of(body)
        hidden = sorted({*beside, *self._hidden(content)}, key=len, reverse=True)
        encoding = _encoding_of(body)
        text = self._text(self._clean(body.decode(encoding), content, hidden))
        return text.encode(encoding, errors="replace")

    def hidden_in(self, body: bytes | None) -> list[str]:
        """Return the texts that a request's body hides, for `body` of its reply."""
        return [] if body is None else list(self._hidden(json_of(body)))

    def _hidden(self, value: object, *, all_of_it: bool = False) -> Iterator[str]:
        """Yield the texts of a value of JSON that stand in fields of hidden names."""
        match value:
            case dict():
                for name, item in value.items():
                    yield from self._hidden(item, all_of_it=all_of_it or self._is_hidden(name))
            case list():
                for item in value:
                    yield from self._hidden(item, all_of_it=all_of_it)
            case str() if all_of_it and value:
                yield value
            case str() if value.lstrip()[:1] in {"{", "["}:
                yield from self._hidden(json_of(value.encode(errors="replace")))

    def _clean(self, text: str, content: object, hidden: Sequence[str]) -> str:
        """Return a text of JSON without hidden texts, spelled as it was wherever that goes."""
        spelled = _without(text, hidden)
        if content is None:
            return "".join(self._without_fields(spelled))
        clean = self._clean_value(content, hidden)
        if json_of(spelled.encode(errors="replace")) == clean:
            return spelled
        return msgspec.json.encode(clean).decode()

    def _clean_value(self, value: object, hidden: Sequence[str], *, gone: bool = False) -> object:
        match value:
            case dict():
                return {
                    name: self._clean_value(item, hidden, gone=gone or self._is_hidden(name))
                    for name, item in value.items()
                }
            case list():
                return [self._clean_value(item, hidden, gone=gone) for item in value]
            case str() if gone and value:
                return REMOVED
            case str() if value.lstrip()[:1] in {"{", "["}:
                return self._clean(value, json_of(value.encode(errors="replace")), hidden)
            case str():
                return _quoting_none(value, hidden)
        return value

    def _is_hidden(self, name: str) -> bool:
        if _SECRET_NAME.search(name):
            return True
        return not self._keeps_prompts and _PROMPT_NAME.search(name) is not None

    def _without_fields(self, text: str) -> Iterator[str]:
        """Yield the parts of a text that is no whole JSON, without those of hidden fields."""
        at = 0
        for field in _FIELD.finditer(text):
            if field.start() >= at and self._is_hidden(field[1]):
                yield text[at : field.end()]
                yield REMOVED
                rest = _REST.match(text, field.end())
                at = field.end() if rest is None else rest.end()
        yield text[at:]

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


def _without(text: str, hidden: Iterable[str]) -> str:
    """Return a text of JSON without others, however they are spelled in it."""
    for one in hidden:
        for spelled in (json.dumps(one), json.dumps(one, ensure_ascii=False)):
            for form in (spelled, spelled.replace("/", r"\/")):
                nested = json.dumps(form, ensure_ascii=False)[1:-1]
                text = text.replace(form, f'"{REMOVED}"')
                text = text.replace(nested, rf"\"{REMOVED}\"")
                if len(one) >= _SHORTEST_QUOTED:
                    text = text.replace(form[1:-1], REMOVED)
    return text


def _quoting_none(text: str, hidden: Iterable[str]) -> str:
    for one in hidden:
        if len(one) >= _SHORTEST_QUOTED:
            text = text.replace(one, REMOVED)
    return text


def _encoding_of(body: bytes) -> str:
    try:
        body.decode()
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"
