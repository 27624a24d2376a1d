"""How a command reaches the service, and how it was called itself."""

from __future__ import annotations

import os
import pathlib
import shutil
import stat
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import typer

from veo3_async import FixedPacing, PollReport, Veo3Client
from veo3_async._transport.endpoint import DEFAULT_BASE_URL
from veo3_async.cli._groups import Group
from veo3_async.cli._options import BaseUrl, KeyFile, Proxy, Record, RecordPrompts, TrustEnv
from veo3_async.cli._output import say

__all__ = ["Access", "Service", "keyless_client", "program"]


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """The options that make a client; the key is not among them, only where it is."""

    key_file: pathlib.Path | None = None
    base_url: str | None = None
    journal: pathlib.Path | None = None
    interval: float | None = None
    proxy: str | None = None
    trust_env: bool = False
    record: pathlib.Path | None = None
    record_prompts: bool = False
    model: str | None = None
    family: str | None = None
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
                key = _key_of(self.key_file)
            return Veo3Client(
                key,
                base_url=self.base_url,
                model="veo3-pro" if self.model is None else self.model,
                family=self.family,
                proxy=self.proxy,
                trust_env=self.trust_env,
                record=self.record,
                record_prompts=self.record_prompts,
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
        """Return them as they were given, but for a proxy with a password."""
        given = {
            "--key-file": self.key_file,
            "--base-url": self.base_url,
            "--journal": self.journal,
            "--proxy": self.proxy if self.proxy is None or "@" not in self.proxy else None,
            "--record": self.record,
            "--model": self.model,
            "--family": self.family,
            "--interval": None if self.interval is None else f"{self.interval:g}",
        }
        flags = {"--trust-env": self.trust_env, "--record-prompts": self.record_prompts}
        words = [part for name, value in given.items() if value for part in (name, str(value))]
        return words + [name for name, is_given in flags.items() if is_given]


class Service(Group, frozen=True, kw_only=True):
    """The options of every command that asks the API something."""

    key_file: KeyFile = None
    base_url: BaseUrl = None
    proxy: Proxy = None
    trust_env: TrustEnv = False
    record: Record = None
    record_prompts: RecordPrompts = False

    def access(self, **more: Any) -> Access:  # noqa: ANN401 - fields of `Access`
        """Return them with options that not every command has."""
        return Access(**msgspec.structs.asdict(self), **more)

    def keyless(self, journal: pathlib.Path | None = None) -> Veo3Client:
        """Return a client for what asks the API nothing, as `keyless_client`."""
        return keyless_client(
            journal, base_url=self.base_url, proxy=self.proxy, trust_env=self.trust_env
        )


def _key_of(file: pathlib.Path) -> str:
    key = file.read_text(encoding="utf-8-sig").strip()
    mode = file.stat().st_mode
    if os.name == "posix" and stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
        say(f"others on this machine can get at the key: chmod 600 {file}")
    return key


def keyless_client(
    journal: pathlib.Path | None = None,
    *,
    base_url: str | None = DEFAULT_BASE_URL,
    proxy: str | None = None,
    trust_env: bool = False,
) -> Veo3Client:
    """Return a client for what asks the API nothing, so that nobody needs a key for it.

    :param base_url: Where the API would be: where it is on a private network, so may videos be.
    :raises typer.BadParameter: The base URL or the proxy cannot be used.
    """
    try:
        return Veo3Client(
            "none", base_url=base_url, journal=journal, proxy=proxy, trust_env=trust_env
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def program() -> list[str]:
    """Return the words that called this program, so that they can be given as a command."""
    called = pathlib.Path(sys.argv[0])
    if called.name == "__main__.py":
        return sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    return [called.name if shutil.which(called.name) else str(called)]
