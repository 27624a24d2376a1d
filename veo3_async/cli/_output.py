"""What goes out: values as JSON lines on stdout, words for people on stderr."""

from __future__ import annotations

import os
import sys
from typing import Final

import msgspec
from anyio import to_thread

from veo3_async import Pending, Transition, Veo3Error

__all__ = ["emit", "give_up_stdout", "has_streams", "note", "plain", "put", "say", "wants_json"]


def has_streams() -> bool:
    """Return whether there is a stdout; where stderr was closed, what goes there is dropped."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - as long as the process
    if sys.stdout is None:
        say("stdout is closed; >/dev/null drops what is written")
    return sys.stdout is not None


def wants_json(asked: bool) -> bool:  # noqa: FBT001 - it is the option
    """Return whether results are JSON lines: asked for, or nobody looks at stdout."""
    return asked or not sys.stdout.isatty()


def plain(text: object) -> str:
    """Return a text as one line without control characters.

    Much of it was written by servers, and a terminal obeys escape sequences.
    """
    line = " ".join(str(text).split())
    return "".join(char if char.isprintable() else "�" for char in line)


def note(text: str) -> None:
    """Tell a person something; the lines are as they are given."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def say(trouble: object) -> None:
    """Tell what went wrong, in one line."""
    note(f"veo3-async: {plain(trouble)}")


def emit(value: object) -> None:
    """Write a value: a text as it is, anything else as JSON; one line."""
    line = value.encode(errors="replace") if isinstance(value, str) else _json(value)
    sys.stdout.buffer.write(line + b"\n")
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


def _json(value: object) -> bytes:
    match value:
        case Transition():
            value = msgspec.structs.asdict(value) | {"url": value.task.best_url}
        case Pending():
            value = msgspec.structs.asdict(value) | {"in_doubt": value.in_doubt}
    return _ENCODER.encode(value)


def _plain_value(value: object) -> object:
    match value:
        case Veo3Error():
            return {
                "type": type(value).__name__,
                "message": value.message,
                "http_status": value.http_status,
                "err_code": value.err_code,
                "attempts": value.attempts,
                "elapsed": value.elapsed,
            }
        case os.PathLike():
            return os.fspath(value)
    message = f"no JSON is known for {type(value).__name__}"
    raise NotImplementedError(message)


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_plain_value)
