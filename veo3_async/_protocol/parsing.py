"""JSON as servers write it, and the words in it that say what went wrong."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from veo3_async._text import one_line

__all__ = ["json_of", "only", "opened", "reason_among", "reason_in"]


def json_of(body: bytes, *, is_text: bool = False) -> object:
    """Return what a body says in JSON, or None where it is none.

    Where the strict parser refuses it, it is read as Python would: a lone surrogate, half a
    character, NaN, 1e400 or a raw newline in some text must not cost what stands beside it. Nor
    must a comma too many, a prefix against being run as a script, or what stands behind an
    object, but for more JSON: nobody could say which of the two is meant.

    :param is_text: Whether it may as well be a text for people, which is no JSON then.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return msgspec.json.decode(_mended(body, is_text=is_text))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _mended(body: bytes, *, is_text: bool) -> bytes:
    """Return JSON that Python can read as JSON that everybody can."""
    text = body.decode(json.detect_encoding(body.removeprefix(codecs.BOM_UTF8)), errors="replace")
    text = _BEFORE.sub("", text, count=1)
    try:
        content, end = _DECODER.raw_decode(text)
    except json.JSONDecodeError:
        text = _COMMA_TOO_MANY.sub(r"\1", text)
        content, end = _DECODER.raw_decode(text)
    behind = text[end:]
    if behind.strip() and (is_text or not isinstance(content, dict) or _MORE.search(behind)):
        raise ValueError
    return json.dumps(content, ensure_ascii=False).encode(errors="replace")


def _finite(text: str) -> float | str:
    return value if math.isfinite(value := float(text)) else text


def _whole(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:  # of more digits than Python takes
        return text


_DECODER: Final = json.JSONDecoder(
    strict=False, parse_constant=str, parse_float=_finite, parse_int=_whole
)
_BEFORE: Final = re.compile(r"\A(?:\ufeff|\s|\)\]\}',?|while\(1\);|for\(;;\);)*")
_MORE: Final = re.compile(r"[{}\[\]]")
_COMMA_TOO_MANY: Final = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[\]}])', re.DOTALL)
"""Texts, which are kept, and commas before the end of an object or a list."""


def opened(value: object) -> object:
    """Return what a text says in JSON, where it is an object or a list; all else as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in {"{", "["}:
        return value
    found = json_of(value.encode(errors="replace"), is_text=True)
    return value if found is None else found


def only(value: object) -> object:
    """Return what a list of one holds, and what JSON in a text says; all else as it is."""
    value = opened(value)
    return opened(value[0]) if isinstance(value, list) and len(value) == 1 else value


_SAID: Final = (
    *("message", "error", "errors", "detail", "details", "msg", "reason"),
    *("message_cn", "message_jp", "error_message", "errorMessage", "error_msg", "err_msg"),
    *("errMsg", "fail_reason", "failReason", "failure_reason", "status_message", "status_msg"),
)
"""Fields in which servers say what went wrong."""
_TEXTS: Final = (*_SAID, "title", "text", "description", "cause", "code", "err_code")
"""The same within an error object, which has more that may say it."""
_SAYS_NOTHING: Final = frozenset(
    {"", "null", "none", "undefined", "{}", "[]", "success", "ok", "succeeded", "n/a"}
)
_MAX_DEPTH: Final = 4


def reason_in(value: object, depth: int = _MAX_DEPTH) -> str | None:
    """Return what a value says went wrong, as one line, or None where it says nothing.

    An object or a list is looked through, and so is JSON that stands in a text.
    """
    if isinstance(value, str):
        inner = opened(value) if depth else value
        said = None if inner is value else reason_in(inner, depth - 1)
        return said or (None if value.strip().lower() in _SAYS_NOTHING else one_line(value))
    if isinstance(value, dict) and depth:
        return next(filter(None, (reason_in(value.get(name), depth - 1) for name in _TEXTS)), None)
    if isinstance(value, list) and depth:
        return next(filter(None, (reason_in(item, depth - 1) for item in value)), None)
    return str(value) if value and isinstance(value, int | float) and value is not True else None


def reason_among(fields: Mapping[str, Any], names: Iterable[str] = ()) -> str | None:
    """Return what a failed task says went wrong, or None where it says nothing.

    :param names: Fields that say it in this family, the likeliest first.
    """
    return next(filter(None, (reason_in(fields.get(name)) for name in (*names, *_SAID))), None)
