"""The options that several commands share, and what comes from files and stdin."""

from __future__ import annotations

import io
import json
import math
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

import typer

from veo3_async._transport.endpoint import DEFAULT_BASE_URL

__all__ = [
    "BaseUrl",
    "Directory",
    "ExistingJournal",
    "Family",
    "Images",
    "Interval",
    "Journal",
    "Json",
    "KeyFile",
    "MaybeServers",
    "Metadata",
    "Model",
    "Output",
    "Overwrite",
    "Params",
    "Plain",
    "Prefix",
    "Proxy",
    "Rate",
    "Replicas",
    "Servers",
    "Speed",
    "Timeout",
    "Until",
    "checked_path",
    "duration",
    "given_ids",
    "given_images",
    "given_metadata",
    "given_params",
    "given_prompt",
    "given_prompts",
    "made",
    "positive",
]


def positive(value: float | None) -> float | None:
    """Return a number above 0, or None for None.

    :raises typer.BadParameter: It is no such number.
    """
    if value is None or (math.isfinite(value) and value > 0):
        return value
    message = f"it is a number above 0, not {value:g}"
    raise typer.BadParameter(message)


_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|[smhd]?)")


def duration(text: str) -> float:
    """Return the seconds of a duration such as ``90``, ``5m`` or ``1h30m``.

    :raises typer.BadParameter: It is none, or not above 0.
    """
    parts = _PART.findall(text.replace(" ", "").lower())
    seconds = math.fsum(float(number) * _UNITS[unit] for number, unit in parts)
    is_whole = "".join(map("".join, parts)) == text.replace(" ", "").lower()
    if is_whole and 0 < seconds < math.inf:
        return seconds
    message = f"it is a number above 0 of seconds, or one with a unit such as 5m or 1h, not {text}"
    raise typer.BadParameter(message)


Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Results as JSON, one object a line on stdout.")
]
Plain: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--plain", help="One line of words a change, as on a terminal that moves no cursor."
    ),
]
KeyFile: TypeAlias = Annotated[
    pathlib.Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="The file that holds the API key. Default: $AI302_API_KEY, else $AI302_KEY.",
        rich_help_panel="Service",
    ),
]
BaseUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help=f"Where the API is. Default: $AI302_BASE_URL, else {DEFAULT_BASE_URL}.",
        rich_help_panel="Service",
    ),
]
Proxy: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The HTTP proxy to go through.", rich_help_panel="Service"),
]
Journal: TypeAlias = Annotated[
    pathlib.Path | None,
    typer.Option(
        dir_okay=False,
        help="The file that remembers every task until its end was told (see pending, resume).",
    ),
]
ExistingJournal: TypeAlias = Annotated[
    pathlib.Path,
    typer.Option("--journal", exists=True, dir_okay=False, help="The file to look into."),
]
Until: TypeAlias = Annotated[
    Literal["best", "video"],
    typer.Option(help="Wait for the upsampled video where one comes, or for the first video."),
]
Timeout: TypeAlias = Annotated[
    float | None,
    typer.Option(
        metavar="DURATION",
        parser=duration,
        help="Give up watching after this long, such as 90, 5m or 1h; the tasks go on. "
        "Default: never.",
    ),
]
Interval: TypeAlias = Annotated[
    float | None,
    typer.Option(
        metavar="DURATION",
        parser=duration,
        help="Ask for each task at this fixed interval, instead of when it is worth it.",
    ),
]
Directory: TypeAlias = Annotated[
    pathlib.Path | None,
    typer.Option(
        metavar="DIR", file_okay=False, help="Bring the videos there, named by request id."
    ),
]
Output: TypeAlias = Annotated[
    pathlib.Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", dir_okay=False, help="Bring the one video there."
    ),
]
Overwrite: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that are there.")
]
Model: TypeAlias = Annotated[
    str | None,
    typer.Option(help="veo3-pro, veo3-fast, veo3.1, … (see models). Default: veo3-pro."),
]
Family: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="record, queue, tasks or unified, where the model's name does not tell.",
        rich_help_panel="Service",
    ),
]
Images: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        metavar="URL|FILE",
        help="An image that the video begins with; a file is uploaded. May be repeated.",
    ),
]
Params: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        metavar="NAME=VALUE",
        help="An option of the model, such as aspect_ratio=9:16. May be repeated.",
    ),
]
Metadata: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="JSON", help="What is kept with the task and comes back with it."),
]
_SERVERS: Final = {
    "metavar": "URL",
    "help": "A NATS server with JetStream; once for each server of its cluster.",
    "rich_help_panel": "Several machines",
}
Servers: TypeAlias = Annotated[list[str], typer.Option("--nats", envvar="NATS_URL", **_SERVERS)]
MaybeServers: TypeAlias = Annotated[list[str] | None, typer.Option("--nats", **_SERVERS)]
Prefix: TypeAlias = Annotated[
    str,
    typer.Option(
        help="What the streams' names begin with: one for each API key.",
        rich_help_panel="Several machines",
    ),
]
Replicas: TypeAlias = Annotated[
    int,
    typer.Option(min=1, max=5, help="Copies of each stream.", rich_help_panel="Several machines"),
]
Rate: TypeAlias = Annotated[
    float,
    typer.Option(
        metavar="NUMBER",
        callback=positive,
        help="Requests a second that all workers together never exceed; the same for all.",
        rich_help_panel="Several machines",
    ),
]
Speed: TypeAlias = Annotated[
    float, typer.Option(callback=positive, help="How much faster than real tasks these are.")
]


def given_ids(arguments: Sequence[str], file: pathlib.Path | None) -> list[str]:
    """Return the ids of the arguments, of the file, and of stdin for ``-``; each once.

    In the file and on stdin a line each; what begins with ``#`` is a comment.

    :raises typer.BadParameter: There is none, or what is to be read is no text.
    """
    lines = [] if file is None else _text_of(file).splitlines()
    if "-" in arguments:
        lines += _stdin_text().splitlines()
    listed = [line for line in map(str.strip, lines) if line and not line.startswith("#")]
    given = [word.strip() for word in arguments if word != "-"]
    ids = list(dict.fromkeys([*filter(None, given), *listed]))
    if not ids:
        message = "no request id was given: as arguments, with --file, or on stdin with -"
        raise typer.BadParameter(message)
    return ids


def given_prompt(argument: str | None, file: pathlib.Path | None) -> str:
    """Return the prompt of the argument, the file, or stdin for ``-``.

    :raises typer.BadParameter: There is none or more than one, or it is no text.
    """
    if (argument is None) is (file is None):
        message = "give the prompt as one argument, with --prompt-file, or on stdin with -"
        raise typer.BadParameter(message)
    if file is not None:
        return _text_of(file).strip()
    return _stdin_text().strip() if argument == "-" else argument or ""


def given_prompts(file: pathlib.Path) -> list[str]:
    """Return the prompts of a file, one a line; what begins with ``#`` is a comment.

    :raises typer.BadParameter: There is none, or it is no text.
    """
    lines = map(str.strip, _text_of(file).splitlines())
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        message = f"there is no prompt in {file}"
        raise typer.BadParameter(message)
    return prompts


def given_images(words: Sequence[str] | None) -> list[str | pathlib.PurePath] | None:
    """Return URLs as they are, and paths of files that are there; None for none.

    :raises typer.BadParameter: One is neither.
    """
    images = [word if "://" in word else pathlib.Path(word) for word in words or ()]
    for image in images:
        if isinstance(image, pathlib.Path) and not image.is_file():
            message = f"--image is a public URL or a file, and there is no file {image}"
            raise typer.BadParameter(message)
    return [*images] or None


def given_params(words: Sequence[str] | None) -> dict[str, Any]:
    """Return the options of a model: a value that is JSON as that, another as a text.

    :raises typer.BadParameter: One has no name, or one comes twice.
    """
    params: dict[str, Any] = {}
    for word in words or ():
        name, sign, value = word.partition("=")
        if not sign or not name.isidentifier() or name in params:
            message = f"--param is NAME=VALUE, each name once, not {word!r}"
            raise typer.BadParameter(message)
        params[name] = _value_of(value)
    return params


def given_metadata(text: str | None) -> Any:  # noqa: ANN401 - whatever JSON can say
    """Return what ``--metadata`` says; None where it was not given.

    :raises typer.BadParameter: It is no JSON.
    """
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        message = f"--metadata is JSON, such as '{{\"chat\": 42}}': {error}"
        raise typer.BadParameter(message) from None


def _value_of(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def checked_path(
    directory: pathlib.Path | None,
    file: pathlib.Path | None,
    *,
    overwrite: bool,
    tasks: int = 1,
) -> pathlib.Path | None:
    """Return where videos are to be brought to, once it is certain that they can be.

    :raises typer.BadParameter: They cannot; better to know before something is paid for.
    """
    if directory is not None and file is not None:
        message = "--download and --output exclude each other"
        raise typer.BadParameter(message)
    if directory is not None:
        return made(directory)
    if file is None:
        return None
    if tasks > 1:
        message = "--output is for the video of one task; --download DIR takes those of many"
        raise typer.BadParameter(message)
    if file.exists() and not overwrite:
        message = f"{file} is there already; --overwrite replaces it"
        raise typer.BadParameter(message)
    if not file.absolute().parent.is_dir():
        message = f"there is no directory {file.absolute().parent}"
        raise typer.BadParameter(message)
    return file


def made(directory: pathlib.Path) -> pathlib.Path:
    """Return a directory, made where it was not there.

    :raises typer.BadParameter: It cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{directory} cannot be made: {error.strerror}"
        raise typer.BadParameter(message) from None
    return directory


def _text_of(file: pathlib.Path) -> str:
    return _decoded(file.read_bytes(), str(file))


def _stdin_text() -> str:
    if sys.stdin is None:
        message = "stdin is closed, so - has nothing to read"
        raise typer.BadParameter(message)
    return _decoded(sys.stdin.buffer.read(), "stdin")


def _decoded(content: bytes, name: str) -> str:
    """Return a text as editors on any system write it: with a byte order mark, and with CR LF."""
    try:
        return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig").read()
    except UnicodeDecodeError:
        message = f"{name} is no UTF-8 text"
        raise typer.BadParameter(message) from None
