"""The command ``doctor``: what this machine has, and what to do about what it lacks."""

from __future__ import annotations

import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Annotated, Any, Final, TypeAlias

import typer

from veo3_async import Veo3Client, Veo3Error
from veo3_async._text import plain
from veo3_async.cli._access import Access, keyless_client
from veo3_async.cli._exits import ExitCode
from veo3_async.cli._follow import on_loop
from veo3_async.cli._options import BaseUrl, Json, KeyFile, Proxy
from veo3_async.cli._output import emit

__all__ = ["doctor"]

Finding: TypeAlias = tuple[str, bool, str]
"""What was looked at, whether it is well, and what was found or what to do."""

_PACKAGES: Final = ("aiohttp", "anyio", "msgspec", "rich", "typer")
_PROXY_VARIABLES: Final = ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy")


def doctor(
    *,
    journal: Annotated[
        pathlib.Path | None, typer.Option(dir_okay=False, help="A journal to look at as well.")
    ] = None,
    folder: Annotated[
        pathlib.Path, typer.Option(file_okay=False, help="Where videos are to go.")
    ] = pathlib.Path(),
    json: Json = False,
    key_file: KeyFile = None,
    base_url: BaseUrl = None,
    proxy: Proxy = None,
) -> int:
    """Look at key, balance, connection, proxies, folder and journal: a line each, with what to do.

    It costs nothing. Exit code 0 if all is well.
    """
    findings: list[Finding] = []
    for finding in _findings(
        Access(key_file=key_file, base_url=base_url, proxy=proxy), folder, journal
    ):
        findings.append(finding)
        name, is_well, text = finding
        if json:
            emit({"name": name, "ok": is_well, "text": plain(text)})
        else:
            emit(f"{'ok  ' if is_well else 'MEND'}  {name:<10}  {plain(text)}")
    return ExitCode.DONE if all(is_well for _, is_well, _ in findings) else ExitCode.FAILED


def _findings(
    access: Access, folder: pathlib.Path, journal: pathlib.Path | None
) -> Iterator[Finding]:
    yield _versions()
    yield _proxies(access)
    yield _service(access)
    yield _folder(folder)
    if journal is not None:
        yield _journal(journal)


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
    if named:
        return "proxy", True, f"none is used; {', '.join(named)} is set: --proxy takes its value"
    return "proxy", True, "none"


def _service(access: Access) -> Finding:
    try:
        veo = access.client()
        began = time.monotonic()
        balance = _asked(veo, veo.balance)
    except (Veo3Error, typer.BadParameter) as error:
        return "service", False, str(error)
    took = f"answered in {time.monotonic() - began:.2f} s"
    if balance is None:
        return "service", True, f"{took}; it does not say what the balance is"
    if balance <= 0:
        return "service", False, f"{took}; the balance is {balance} PTC: pay in before submitting"
    return "service", True, f"{took}; the key is taken, and the balance is {balance} PTC"


def _folder(folder: pathlib.Path) -> Finding:
    path = folder.absolute()
    if not path.is_dir():
        return "folder", False, f"there is no directory {path}: make it"
    if not os.access(path, os.W_OK | os.X_OK):
        return "folder", False, f"{path} cannot be written to: name another with --folder"
    return "folder", True, f"{path} can be written to"


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
