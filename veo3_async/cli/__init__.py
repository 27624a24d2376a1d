"""The command line, ``veo3-async`` (extra ``cli``).

Over the public names of the package, and the few rules below them that must not be there twice.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

__all__ = ["main"]

_EXTRA: Final = frozenset({"rich", "typer"})
_MISSING: Final = "veo3-async: typer or rich is missing: pip install 'veo3_async[cli]'\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what a command line says, and return the exit code.

    :param arguments: Without the name of the program; None takes those of the process.
    """
    try:
        from veo3_async.cli._app import run  # noqa: PLC0415 - it may not be installed
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(_MISSING)
        return 2
    return run(sys.argv[1:] if arguments is None else arguments)
