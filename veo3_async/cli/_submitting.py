"""The commands ``submit`` and ``generate``: what costs money."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import typer

from veo3_async import Veo3Client, Veo3Error
from veo3_async.cli._access import Access, Service
from veo3_async.cli._exits import ExitCode, InterruptError
from veo3_async.cli._follow import Wanted, on_loop
from veo3_async.cli._given import (
    checked_path,
    given_images,
    given_metadata,
    given_params,
    given_prompt,
    given_prompts,
)
from veo3_async.cli._groups import Group
from veo3_async.cli._options import (
    Directory,
    Extras,
    Family,
    Images,
    Interval,
    Journal,
    Metadata,
    Model,
    Output,
    Params,
)
from veo3_async.cli._output import note, put
from veo3_async.cli._output import plain as plain_text
from veo3_async.cli._watching import follow_all

__all__ = ["generate", "submit"]


class Task(Group, frozen=True, kw_only=True):
    """The options of every command that submits: what is to be made, and how."""

    prompt: Annotated[
        str | None, typer.Argument(help="What the video is to show; - reads stdin.")
    ] = None
    prompt_file: Annotated[
        pathlib.Path | None,
        typer.Option(exists=True, dir_okay=False, help="A file that holds the prompt."),
    ] = None
    image: Images = None
    model: Model = None
    family: Family = None
    param: Params = None
    extra: Extras = None
    metadata: Metadata = None

    def order(self, prompts: Sequence[str], *, in_json: bool) -> _Order:
        """Return what is to be submitted, checked.

        :raises typer.BadParameter: Something of it cannot be.
        """
        return _Order(
            prompts=prompts,
            images=given_images(self.image),
            params=given_params(self.param, "--param"),
            extra=given_params(self.extra, "--extra") or None,
            metadata=given_metadata(self.metadata),
            in_json=in_json,
        )


class _Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be submitted, and how its ids are told."""

    prompts: Sequence[str]
    images: list[str | pathlib.PurePath] | None
    params: dict[str, Any]
    extra: dict[str, Any] | None
    metadata: Any
    in_json: bool


def submit(
    task: Task,
    *,
    file: Annotated[
        pathlib.Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A file of prompts, one a line, for a task each; # begins a comment.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Watch until the video is there.")] = False,
    download: Directory = None,
    output: Output = None,
    interval: Interval = None,
    journal: Journal = None,
    wanted: Wanted,
    service: Service,
) -> int:
    """Submit a task, or one a line of --file, which costs money, and print its request id.

    With --wait, or --output or --download, which imply it, it is then watched as by the command
    watch.
    """
    access = service.access(
        journal=journal, interval=interval, model=task.model, family=task.family
    )
    prompts = _prompts(task.prompt, task.prompt_file, file)
    path = checked_path(download, output, overwrite=wanted.overwrite, tasks=len(prompts))
    waits = wait or path is not None
    ids = _submitted(access, task.order(prompts, in_json=wanted.json))
    return follow_all(access, ids, wanted.watch(path)) if waits else ExitCode.DONE


def generate(
    task: Task,
    *,
    output: Output = None,
    journal: Journal = None,
    wanted: Wanted,
    service: Service,
) -> int:
    """Submit a task, which costs money, watch it, and bring its video to disk.

    Without --output the video is named by request id, in the directory in which one is.
    """
    download = pathlib.Path() if output is None else None
    return submit(
        task, download=download, output=output, journal=journal, wanted=wanted, service=service
    )


def _prompts(
    prompt: str | None, prompt_file: pathlib.Path | None, file: pathlib.Path | None
) -> list[str]:
    if file is None:
        return [given_prompt(prompt, prompt_file)]
    if prompt is not None or prompt_file is not None:
        message = "--file brings all prompts; leave out the others"
        raise typer.BadParameter(message)
    return given_prompts(file)


def _submitted(access: Access, order: _Order) -> list[str]:
    """Submit one after another, and tell each id as soon as it is known.

    What was not accepted ends it, for the next one would likely fare the same, and cost money.
    """
    veo, ids = access.client(), list[str]()

    async def main() -> None:
        async with veo:
            for prompt in order.prompts:
                ids.append(await _one_submitted(veo, prompt, order))
                await _told(ids[-1], in_json=order.in_json)

    try:
        on_loop(main)
    except InterruptError:
        note("interrupted: the task may exist and may have been charged; look at your account")
        raise
    except Veo3Error:
        if len(order.prompts) > 1:
            note(f"{len(ids)} of {len(order.prompts)} submitted; the next one was not accepted:")
            note(f"  {plain_text(order.prompts[len(ids)])}")
        raise
    return ids


async def _one_submitted(veo: Veo3Client, prompt: str, order: _Order) -> str:
    return await veo.submit(
        prompt, image=order.images, metadata=order.metadata, extra=order.extra, **order.params
    )


async def _told(request_id: str, *, in_json: bool) -> None:
    try:
        await put({"request_id": request_id} if in_json else plain_text(request_id))
    except OSError:
        note(f"submitted, and stdout did not take the id: {plain_text(request_id)}")
        raise
