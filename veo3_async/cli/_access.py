"""How a command reaches the service, and how it was called itself."""

from __future__ import annotations

import pathlib
import shutil
import sys
from collections.abc import Callable

import msgspec
import typer

from veo3_async import FixedPacing, PollReport, Veo3Client
from veo3_async._transport.endpoint import DEFAULT_BASE_URL

__all__ = ["Access", "keyless_client", "program"]


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """The options that make a client; the key is not among them, only where it is."""

    key_file: pathlib.Path | None = None
    base_url: str | None = None
    journal: pathlib.Path | None = None
    interval: float | None = None
    rate: float = 20.0
    """Requests a second."""

    def client(self, on_poll: Callable[[PollReport], object] | None = None) -> Veo3Client:
        """Return a client.

        :param on_poll: Gets a report of every poll.
        :raises AuthenticationError: There is no key, or it cannot be one.
        :raises typer.BadParameter: The base URL or the key file cannot be used.
        """
        key = None
        try:
            if self.key_file is not None:
                key = self.key_file.read_text(encoding="utf-8-sig").strip()
            return Veo3Client(
                key,
                base_url=self.base_url,
                journal=self.journal,
                pacing=None if self.interval is None else FixedPacing(self.interval),
                max_polls_per_second=self.rate,
                on_poll=on_poll,
            )
        except UnicodeDecodeError:
            message = f"{self.key_file} is no text file"
            raise typer.BadParameter(message) from None
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        finally:
            del key

    def options(self) -> list[str]:
        """Return them as they were given."""
        given = {
            "--key-file": self.key_file,
            "--base-url": self.base_url,
            "--journal": self.journal,
            "--interval": None if self.interval is None else f"{self.interval:g}",
        }
        return [part for name, value in given.items() if value for part in (name, str(value))]


def keyless_client(
    journal: pathlib.Path | None = None, *, base_url: str | None = DEFAULT_BASE_URL
) -> Veo3Client:
    """Return a client for what asks the API nothing, so that nobody needs a key for it.

    :param base_url: Where the API would be: where it is on a private network, so may videos be.
    :raises typer.BadParameter: The base URL cannot be used.
    """
    try:
        return Veo3Client("none", base_url=base_url, journal=journal)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def program() -> list[str]:
    """Return the words that called this program, so that they can be given as a command."""
    called = pathlib.Path(sys.argv[0])
    if called.name == "__main__.py":
        return sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    return [called.name if shutil.which(called.name) else str(called)]
