"""What is given to a command beside its options: ids, prompts, images, where videos are to go."""

from __future__ import annotations

import io
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import typer

__all__ = [
    "checked_path",
    "given_ids",
    "given_images",
    "given_metadata",
    "given_params",
    "given_prompt",
    "given_prompts",
    "made",
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


def given_params(words: Sequence[str] | None, option: str) -> dict[str, Any]:
    """Return what a request says beside the prompt: a value that is JSON as that, else as a text.

    :param option: As which they were given.
    :raises typer.BadParameter: One has no name, or one comes twice.
    """
    params: dict[str, Any] = {}
    for word in words or ():
        name, sign, value = word.partition("=")
        if not sign or not name.isidentifier() or name in params:
            message = f"{option} is NAME=VALUE, each name once, not {word!r}"
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
