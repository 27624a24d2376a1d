"""Texts of strangers, made fit to be shown: one line, nothing that a terminal or a log obeys."""

from __future__ import annotations

import unicodedata
from typing import Final

__all__ = ["MAX_SHOWN", "is_hidden", "one_line", "plain"]

MAX_SHOWN: Final = 1000
"""Characters of a text of the service that are shown."""

_LONGEST: Final = 100_000
"""Characters of a line for a person; a signed URL has a few thousand."""

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_JOINERS: Final = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
"""Format characters that belong to words and emojis, and turn no text around."""

_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Control, format (bidi overrides among them), surrogate and private-use characters, and those
that separate lines and paragraphs."""


def one_line(text: str, limit: int = MAX_SHOWN) -> str:
    """Return a text as one line of at most so many characters.

    White space of any kind becomes one space; control characters (C0, C1, DEL), bidi and other
    format characters and lone surrogates become U+FFFD. What is cut ends with an ellipsis.
    """
    text = " ".join(text[: 4 * limit].split())
    if not text.isprintable():
        text = "".join(map(_shown, text))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def plain(value: object) -> str:
    """Return whatever it is as one line for a terminal, which obeys nothing in it."""
    return one_line(str(value), _LONGEST)


def is_hidden(char: str) -> bool:
    """Return whether a character is none to look at, but one that a terminal or a log obeys."""
    if char.isprintable() or char in _JOINERS:
        return False
    return unicodedata.category(char) in _HIDDEN


def _shown(char: str) -> str:
    return _REPLACEMENT if is_hidden(char) else char
