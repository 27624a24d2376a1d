"""Render the reference of all public names: ``python .ci/reference.py [FOLDER]``.

What pdoc warns of is an error: a public name that is not there, a type that cannot be resolved. So
is a public name without a description.
"""

from __future__ import annotations

import importlib
import pathlib
import re
import sys
import warnings
from types import ModuleType
from typing import Final

import jinja2
import pdoc
import pdoc.doc
import pdoc.doc_ast
import pdoc.render
import pdoc.render_helpers

MODULES: Final = (
    "veo3_async",
    "veo3_async.cluster",
    "veo3_async.live",
    "veo3_async.sync",
    "veo3_async.telemetry",
    "veo3_async.testing",
    "veo3_async.testing.plugin",
)
FIELD: Final = re.compile(r"^( *):(param|raises) ([^:\n]+): ", re.MULTILINE)


@jinja2.pass_context
def to_markdown(context: jinja2.runtime.Context, docstring: str) -> str:
    """Return a docstring as Markdown, for what pdoc does not read as it is meant.

    It takes the last colon of a line for the end of a field's name, knows ``:return:`` alone, and
    leaves the colons that announce a block.
    """
    docstring = FIELD.sub(r"\1:\2 \3:\n\1    ", docstring).replace(":returns:", ":return:")
    docstring = re.sub(r"^::$", "", docstring, flags=re.MULTILINE)
    return pdoc.render_helpers.to_markdown_with_context(context, docstring)


def describe(module: ModuleType) -> list[str]:
    """Let pdoc know what is said of a module's names; return those of which nothing is.

    The description of a constant or an alias stands where it was made, in a private module.
    """
    names = getattr(module, "__all__", ())
    for name in names:
        getattr(module, name)  # some are loaded when they are asked for
    said = pdoc.doc_ast.walk_tree(module).var_docstrings
    for name, made_in in list(sys.modules.items()):
        if name.startswith("veo3_async."):
            found = pdoc.doc_ast.walk_tree(made_in).var_docstrings
            said |= {name: text for name, text in found.items() if name in names}
    members = pdoc.doc.Module(module).members
    return [f"{module.__name__}.{name}" for name in names if not members[name].docstring]


def main() -> None:
    """Render them into the folder that is named, or into ``.reference``."""
    warnings.simplefilter("error")
    if silent := [name for module in MODULES for name in describe(importlib.import_module(module))]:
        sys.exit(f"without a description: {', '.join(silent)}")
    version = importlib.import_module("veo3_async").__version__
    pdoc.render.configure(
        docformat="restructuredtext",
        footer_text=f"veo3_async {version}",
        include_undocumented=False,
        show_source=False,
    )
    pdoc.render.env.filters["to_markdown"] = to_markdown
    folder = pathlib.Path(*sys.argv[1:2] or [".reference"])
    pdoc.pdoc(*MODULES, "!veo3_async.cli", output_directory=folder)
    sys.stdout.write(f"{folder / 'veo3_async.html'}\n")


if __name__ == "__main__":
    main()
