"""The command ``doctor``: what this machine has, and what to do about what it lacks."""

from __future__ import annotations

import os
import pathlib
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Annotated, Any, Final, TypeAlias

import msgspec
import typer

from veo3_async import ServiceUnavailable, Veo3Client, Veo3Error
from veo3_async._text import plain
from veo3_async._transport.endpoint import find_base_url
from veo3_async._transport.facts import clock_offset, facts
from veo3_async._transport.recorder import recorded
from veo3_async.cli._access import Access, Service, keyless_client
from veo3_async.cli._exits import ExitCode
from veo3_async.cli._follow import on_loop
from veo3_async.cli._options import Json
from veo3_async.cli._output import emit

__all__ = ["doctor"]

Finding: TypeAlias = tuple[str, bool, str]
"""What was looked at, whether it is well, and what was found or what to do."""

_PACKAGES: Final = ("aiohttp", "anyio", "msgspec", "rich", "typer")
_CLOCK_SECONDS: Final = 5.0
_PROXY_VARIABLES: Final = (
    *("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"),
    *("https_proxy", "http_proxy", "all_proxy"),
)
_LEAST_FREE: Final = 200_000_000
"""Bytes on the disk: a few videos."""


def doctor(
    *,
    journal: Annotated[
        pathlib.Path | None, typer.Option(dir_okay=False, help="A journal to look at as well.")
    ] = None,
    folder: Annotated[
        pathlib.Path, typer.Option(file_okay=False, help="Where videos are to go.")
    ] = pathlib.Path(),
    recording: Annotated[
        pathlib.Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            metavar="FILE",
            help="What --record has written: say which open facts of the API it settles.",
        ),
    ] = None,
    json: Json = False,
    service: Service,
) -> int:
    """Look at key, balance, connection, clock, proxies, folder and journal: a line each.

    What is not well says what to do. It costs nothing. Exit code 0 if all is well.
    """
    findings: list[Finding] = []
    for finding in _findings(service.access(), folder, journal, recording):
        findings.append(finding)
        name, is_well, text = finding
        if json:
            emit({"name": name, "ok": is_well, "text": plain(text)})
        else:
            emit(f"{'ok  ' if is_well else 'MEND'}  {name:<10}  {plain(text)}")
    return ExitCode.DONE if all(is_well for _, is_well, _ in findings) else ExitCode.FAILED


def _findings(
    access: Access,
    folder: pathlib.Path,
    journal: pathlib.Path | None,
    recording: pathlib.Path | None,
) -> Iterator[Finding]:
    yield _versions()
    yield _proxies(access)
    with tempfile.TemporaryDirectory() as beside:
        record = access.record or pathlib.Path(beside) / "replies.jsonl"
        yield from _service(msgspec.structs.replace(access, record=record), record)
    yield _folder(folder)
    if journal is not None:
        yield _journal(journal)
    if recording is not None:
        yield from _facts(recording)


def _versions() -> Finding:
    import importlib.metadata  # noqa: PLC0415 - takes 20 ms

    found = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    python = f"Python {platform.python_version()} on {sys.platform}"
    return "versions", True, ", ".join([python, *found])


def _proxies(access: Access) -> Finding:
    """Say which proxy is used; variables that are set and not used surprise people."""
    if access.proxy is not None:
        return "proxy", True, "the one of --proxy"
    named = [name for name in _PROXY_VARIABLES if os.environ.get(name)]
    if named and access.trust_env:
        return "proxy", True, f"that of the environment: {', '.join(named)}"
    if named:
        return "proxy", True, f"none is used; {', '.join(named)} is set: --trust-env follows it"
    return "proxy", True, "none"


def _service(access: Access, record: pathlib.Path) -> Iterator[Finding]:
    """Ask for the balance, and look at what the reply says beside it.

    :param record: Where the requests are recorded.
    """
    url = find_base_url(access.base_url)
    is_safe = url.startswith("https://")
    began = time.monotonic()
    try:
        veo = access.client()
        balance = _asked(veo, veo.balance)
    except (Veo3Error, typer.BadParameter) as error:
        yield "host", True, url
        if isinstance(error, ServiceUnavailable) and "certificate" in str(error).lower():
            yield "TLS", False, f"{error}: is there a proxy that reads along?"
        yield "service", False, str(error)
        return
    yield "host", True, f"{url} answered in {time.monotonic() - began:.2f} s"
    yield "TLS", True, "the host has proved who it is" if is_safe else "none: on a private network"
    yield from _clock(record)
    if balance is None:
        yield "service", True, "it does not say what the balance is"
    elif balance <= 0:
        yield "service", False, f"the balance is {balance} PTC: pay in before submitting"
    else:
        yield "service", True, f"the key is taken, and the balance is {balance} PTC"


def _clock(record: pathlib.Path) -> Iterator[Finding]:
    offset = clock_offset(recorded(record.read_bytes()) if record.exists() else [])
    if offset is None:
        return
    if abs(offset) < _CLOCK_SECONDS:
        yield "clock", True, "as the server's"
    else:
        side = "behind" if offset > 0 else "ahead of"
        yield "clock", False, f"{abs(offset):.0f} s {side} the server's: set it, by NTP at best"


def _facts(recording: pathlib.Path) -> Iterator[Finding]:
    exchanges = recorded(recording.read_bytes())
    if not exchanges:
        yield "recording", False, f"{recording} has no request in it; --record FILE writes one"
        return
    yield "recording", True, f"{recording} has {len(exchanges)} requests"
    for fact in facts(exchanges):
        yield "fact", True, f"{fact.question} {fact.answer or 'still open'}"


def _folder(folder: pathlib.Path) -> Finding:
    path = folder.absolute()
    if not path.is_dir():
        return "folder", False, f"there is no directory {path}: make it"
    if not os.access(path, os.W_OK | os.X_OK):
        return "folder", False, f"{path} cannot be written to: name another with --folder"
    free = shutil.disk_usage(path).free
    if free < _LEAST_FREE:
        return "folder", False, f"{path} has {free / 1e6:.0f} MB left: make room for videos"
    return "folder", True, f"{path} can be written to, {free / 1e9:.0f} GB are free"


def _journal(journal: pathlib.Path) -> Finding:
    from veo3_async import Journal  # noqa: PLC0415 - loads sqlite3

    veo = keyless_client()
    try:
        tasks = _asked(veo, Journal(journal, read_only=True).pending)
    except Veo3Error as error:
        return "journal", False, str(error)
    in_doubt = sum(task.in_doubt for task in tasks)
    doubt = f", {in_doubt} of them in doubt: see pending and settle" if in_doubt else ""
    return "journal", not in_doubt, f"{journal} has {len(tasks)} pending{doubt}"


def _asked(veo: Veo3Client, ask: Callable[[], Coroutine[Any, Any, Any]]) -> Any:  # noqa: ANN401
    async def main() -> object:
        async with veo:
            return await ask()

    return on_loop(main)
