"""What goes out: values as JSON lines on stdout, words for people on stderr."""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Sequence
from typing import Final

import msgspec
from anyio import to_thread

from veo3_async import Pending, TaskFailed, Transition, Veo3Error, VideoTask
from veo3_async._text import is_hidden, plain

__all__ = [
    "emit",
    "give_up_stdout",
    "has_streams",
    "in_options",
    "in_words",
    "note",
    "plain",
    "put",
    "say",
    "wants_json",
]

_IN_ASCII: Final = {"…": "...", "–": "-", "━": "=", "╸": "-", "╺": "-"}
"""What is written for our own signs where the terminal's encoding lacks them."""
_ERRORS: Final = "veo3_async.ascii"


def has_streams() -> bool:
    """Return whether there is a stdout; where stderr was closed, what goes there is dropped.

    What the encoding of a stream lacks does not break off what writes to it.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - to the end
    if sys.stdout is None:
        say("stdout is closed; >/dev/null drops what is written")
        return False
    codecs.register_error(_ERRORS, _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors=_ERRORS)
    return True


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_IN_ASCII.get(char, "?") for char in lacking), error.end


def wants_json(asked: bool) -> bool:  # noqa: FBT001 - it is the option
    """Return whether results are JSON lines: asked for, or nobody looks at stdout."""
    return asked or not sys.stdout.isatty()


def note(text: str) -> None:
    """Tell a person something; the lines are as they are given."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def in_options(arguments: Sequence[str]) -> None:
    """Let `say` speak of options from now on, and of those that were given.

    :param arguments: Of the command line.
    """
    given = {argument.partition("=")[0] for argument in arguments}
    _WORDING[:] = _OPTIONS
    if "--key-file" in given:
        _WORDING.append((re.compile(r"\bAI302_API_KEY\b"), "--key-file"))


def say(trouble: object) -> None:
    """Tell what went wrong, in one line."""
    note(f"veo3-async: {in_words(trouble)}")


def in_words(trouble: object) -> str:
    """Return what went wrong as one line that names options where the client names arguments."""
    text = plain(trouble)
    for python, option in _WORDING:
        text = python.sub(option, text)
    return text


_OPTIONS: Final = (
    (re.compile(r"\boverwrite(=True)?(?= replaces| finishes)"), "--overwrite"),
    (re.compile(r"\b(?<!-)base_url\b"), "--base-url"),
    (re.compile(r"\b(model|family|image|metadata|proxy|timeout|until|extra)=(?=')"), r"--\1 "),
    (re.compile(r"\b(model|family|image|metadata|proxy|timeout|until|extra)=\B"), r"--\1"),
    (re.compile(r"\btrust_env=True\b"), "--trust-env"),
    (re.compile(r"\bapi_key= or (?=--key-file)"), ""),
)
_WORDING: Final[list[tuple[re.Pattern[str], str]]] = []
"""What errors say of arguments of Python, and what that is on the command line."""


def emit(value: object) -> None:
    """Write a value: a text in the encoding of stdout, anything else as JSON; one line."""
    encoding = sys.stdout.encoding or "utf-8"
    text = value if isinstance(value, str) else _json(value, encoding)
    sys.stdout.buffer.write(text.encode(encoding, _ERRORS) + b"\n")
    sys.stdout.buffer.flush()


async def put(value: object) -> None:
    """`emit` from the event loop, which a slow reader of our stdout must not stop."""
    await to_thread.run_sync(emit, value)


def give_up_stdout(error: OSError) -> None:
    """Drop what was not written yet, or the interpreter tries again and complains.

    A reader that has gone (``… | head -1``) needs no telling; a full disk does.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not isinstance(error, BrokenPipeError):
        say(error)


def _json(value: object, encoding: str) -> str:
    """Return JSON that any terminal and any log can take, and that says what the value says.

    Characters that a terminal obeys are escaped, and so are all of them beyond ASCII where the
    encoding is not UTF-8, which JSON is in.
    """
    match value:
        case Transition():
            value = msgspec.structs.asdict(value) | {"url": value.task.best_url}
        case VideoTask():
            value = value.to_dict() | {"url": value.best_url}
        case Pending():
            url = None if value.final is None else value.final.task.best_url
            value = msgspec.structs.asdict(value) | {"in_doubt": value.in_doubt, "url": url}
    text = _ENCODER.encode(value).decode()
    if codecs.lookup(encoding).name != "utf-8":
        return "".join(char if char.isascii() else _escaped(char) for char in text)
    if not text.isprintable():
        return "".join(_escaped(char) if is_hidden(char) else char for char in text)
    return text


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _plain_value(value: object) -> object:
    match value:
        case Veo3Error():
            reason = {"reason": value.reason.value} if isinstance(value, TaskFailed) else {}
            return reason | {
                "type": type(value).__name__,
                "message": value.message,
                "http_status": value.http_status,
                "err_code": value.err_code,
                "attempts": value.attempts,
                "elapsed": value.elapsed,
            }
        case os.PathLike():
            return os.fsencode(value).decode(errors="replace")
    message = f"no JSON is known for {type(value).__name__}"
    raise NotImplementedError(message)


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_plain_value)
