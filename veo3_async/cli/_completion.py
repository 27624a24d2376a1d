"""The command ``completion``: what a shell needs in order to complete our commands and options."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined] # not in its list

from veo3_async.cli._exits import ExitCode
from veo3_async.cli._output import emit, note

__all__ = ["completion"]

_NAME: Final = "veo3-async"
_VARIABLE: Final = "_VEO3_ASYNC_COMPLETE"
_INTO: Final = {
    "bash": 'eval "$(veo3-async completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(veo3-async completion zsh)" in ~/.zshrc, after compinit',
    "fish": "veo3-async completion fish > ~/.config/fish/completions/veo3-async.fish",
}


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="Which shell.")],
) -> int:
    """Print what makes a shell complete commands and options.

    For bash: eval "$(veo3-async completion bash)" in ~/.bashrc; zsh likewise; for fish put it into
    ~/.config/fish/completions/veo3-async.fish.
    """
    emit(get_completion_script(prog_name=_NAME, complete_var=_VARIABLE, shell=shell))
    note(f"to have it in every shell: {_INTO[shell]}")
    return ExitCode.DONE
