"""The picture of a watch in a notebook: what a real Chromium shows of its outputs, as PNG.

``python -m benchmarks.notebook_picture`` executes a notebook in a kernel, beside a fake of the
service, and writes ``benchmarks/results/notebook.png``.
"""

from __future__ import annotations

import asyncio
import html
import os
import pathlib
import tempfile
from typing import Any, Final

import nbclient
import nbformat
from aiohttp import web

from benchmarks._browser import chromium
from benchmarks.page_picture import served, video
from veo3_async.testing import FakeVeo3, Life

FILE: Final = pathlib.Path(__file__).parent / "results" / "notebook.png"

WATCH: Final = """\
from veo3_async import FixedPacing, Veo3Client
from veo3_async.live import show

async with Veo3Client(pacing=FixedPacing(0.2)) as veo:
    ends = await show(veo.watch(*ids))"""
LOOK: Final = "ends[ids[0]].task"

STYLE: Final = """
body { font: 14px sans-serif; margin: 16px; width: 680px; overflow: hidden }
.in { background: #f5f5f5; border: 1px solid #ddd; padding: 8px; font: 13px monospace }
.in, .out { margin: 6px 0 }
.out { overflow: hidden }
video { max-width: 300px }
"""


def executed(source: list[str]) -> list[Any]:
    """Return the cells of a notebook after a kernel has executed them."""
    v4: Any = nbformat.v4  # untyped
    notebook = v4.new_notebook(cells=[v4.new_code_cell(one) for one in source])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    return list(notebook.cells)


def drawn(cells: list[Any]) -> str:
    """Return a page with each cell's source and what a notebook shows under it."""
    parts = [f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>"]
    for cell in cells:
        parts.append(f"<pre class=in>{html.escape(cell['source'])}</pre>")
        parts += [
            f"<div class=out>{output['data']['text/html']}</div>"
            for output in cell["outputs"]
            if "text/html" in output.get("data", {})
        ]
    return "\n".join(parts)


async def main() -> None:
    pages = web.Application()
    pages.router.add_get("/files/{name}", video)
    page_of: dict[str, str] = {}

    async def notebook(_: web.Request) -> web.Response:
        return web.Response(text=page_of["notebook"], content_type="text/html")

    pages.router.add_get("/notebook", notebook)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        async with served(pages) as place, FakeVeo3(speed=150, files_url=place) as service:
            os.environ["AI302_API_KEY"] = service.api_key
            os.environ["AI302_BASE_URL"] = service.url
            ids = [
                service.add(life=life)
                for life in (Life.documented(), Life.retrying(), Life.failing(), Life.plain())
            ]
            _, *cells = await asyncio.to_thread(executed, [f"ids = {ids}", WATCH, LOOK])
            page_of["notebook"] = drawn(cells)
            async with chromium(pathlib.Path(folder, "profile")) as page:
                await page.open(f"{place}/notebook")
                await page.wait_until("document.querySelector('video')?.readyState >= 2")
                FILE.write_bytes(await page.picture())
    print(f"{FILE.name}: {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    asyncio.run(main())
