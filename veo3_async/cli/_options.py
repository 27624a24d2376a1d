"""The options that several commands share."""

from __future__ import annotations

import math
import pathlib
import re
from typing import Annotated, Final, Literal, TypeAlias

import typer

from veo3_async._transport.endpoint import DEFAULT_BASE_URL
from veo3_async._transport.recorder import is_recording

__all__ = [
    "BaseUrl",
    "Directory",
    "ExistingJournal",
    "Extras",
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
    "Record",
    "RecordPrompts",
    "Replicas",
    "Servers",
    "Speed",
    "Timeout",
    "TrustEnv",
    "Until",
    "duration",
    "positive",
    "recording",
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


def recording(path: pathlib.Path | None) -> pathlib.Path | None:
    """Return the file of a recording.

    :raises typer.BadParameter: It cannot be one; better to know before anything is recorded.
    """
    if path is None:
        return None
    if not path.absolute().parent.is_dir():
        message = f"there is no directory {path.absolute().parent}"
        raise typer.BadParameter(message)
    if path.exists() and not is_recording(path):
        message = f"{path} is there and is no recording; name another file"
        raise typer.BadParameter(message)
    return path


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
TrustEnv: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--trust-env",
        help="Follow HTTP_PROXY, HTTPS_PROXY and NO_PROXY where there is no --proxy.",
        rich_help_panel="Service",
    ),
]
Record: TypeAlias = Annotated[
    pathlib.Path | None,
    typer.Option(
        metavar="FILE",
        dir_okay=False,
        callback=recording,
        help="Keep requests and replies there, for a bug report: without the key and prompts, 16 "
        "MiB at most.",
        rich_help_panel="Service",
    ),
]
RecordPrompts: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--record-prompts", help="Keep the prompts in it, too.", rich_help_panel="Service"
    ),
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
Extras: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--extra",
        metavar="NAME=VALUE",
        help="A field of the request that the model does not document. May be repeated.",
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
