"""What the exit code says."""

from __future__ import annotations

import enum
from typing import Final

from veo3_async import AuthenticationError, InvalidRequest, QuotaExceeded, Veo3Error

__all__ = ["EXIT_CODES", "ExitCode", "InterruptError", "exit_code"]

EXIT_CODES: Final = (
    "Exit codes: 0 all is there; 1 some failed, or was not finished in time; 2 usage: an "
    "argument, an id or a prompt cannot be used; 3 the key or its quota; 130 Ctrl-C; 143 SIGTERM."
)


class ExitCode(enum.IntEnum):
    """How it went, for scripts."""

    DONE = 0
    """All is there that was asked for."""
    FAILED = 1
    """Some of it is not: it failed, was not finished in time, or could not be reached."""
    USAGE = 2
    """An argument, an id, a prompt or a file cannot be used."""
    KEY = 3
    """The key or its quota: nothing works until their owner acts."""
    INTERRUPTED = 130
    """Ctrl-C: 128 and the number of the signal, as shells have it."""
    TERMINATED = 143
    """SIGTERM, likewise."""


class InterruptError(Exception):
    """Raised when Ctrl-C or SIGTERM has ended what ran.

    No `KeyboardInterrupt`: of that Typer makes an exit with 130, whatever it was.
    """

    def __init__(self, code: ExitCode) -> None:
        super().__init__(code)
        self.code = code


def exit_code(error: Veo3Error) -> ExitCode:
    """Return what an error means that ended everything."""
    match error:
        case AuthenticationError() | QuotaExceeded():
            return ExitCode.KEY
        case InvalidRequest():
            return ExitCode.USAGE
        case _:
            return ExitCode.FAILED
