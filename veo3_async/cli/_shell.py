"""Commands that a person pastes into a shell: each word comes out as it is, whatever it is."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from typing import Final

__all__ = ["continued", "quoted"]

_MOST_ARGUMENTS: Final = 20


def quoted(word: str) -> str:
    """Return a word for a POSIX shell, in printable ASCII alone.

    So it survives a terminal of any encoding, which would show the rest as something else, or
    obey it.
    """
    if word.isascii() and word.isprintable():
        return shlex.quote(word)
    octal = "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\{byte:03o}"
        for byte in word.encode(errors="surrogateescape")
    )
    return f"\"$(printf '{octal}')\""


def continued(command: Sequence[str], ids: Sequence[str]) -> str:
    """Return the command that goes on with these ids, however many they are.

    More than fit a line come on its stdin, one a line, each quoted by itself.

    :param command: All of it but for the ids; it takes them as arguments, and - for stdin.
    """
    words = " ".join(map(quoted, command))
    if len(ids) <= _MOST_ARGUMENTS and "-" not in ids:
        marks = ["--"] if any(name.startswith("-") for name in ids) else []
        return f"  {' '.join([words, *marks, *map(quoted, ids)])}"
    # On stdin a line that begins with # is a comment; among the arguments - is stdin.
    arguments = [name for name in ids if name.startswith("#")]
    lines = " \\\n".join(quoted(name) for name in ids if not name.startswith("#"))
    listed = textwrap.indent(lines, "  ")
    more = " ".join(["-", *map(quoted, arguments)])
    return f"printf '%s\\n' \\\n{listed} | {words} {more}"
