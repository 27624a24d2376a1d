"""The picture of the page of the cookbook: what a real Chromium shows of it, as PNG.

``python -m benchmarks.page_picture`` serves ``tests/cookbook/sse_aiohttp.py`` beside a fake of the
service, types a prompt, and writes ``benchmarks/results/page.png`` while the video is playing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import runpy
import tempfile
from collections.abc import AsyncIterator
from typing import Any, Final

from aiohttp import web

from benchmarks._browser import chromium
from veo3_async import FixedPacing, Veo3Client
from veo3_async.testing import FakeVeo3

REPOSITORY: Final = pathlib.Path(__file__).parents[1]
FILE: Final = REPOSITORY / "benchmarks" / "results" / "page.png"
VIDEO: Final = REPOSITORY / "tests" / "tiny.webm"
PROMPT: Final = "a paper boat on a canal, morning fog"


@contextlib.asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def video(_: web.Request) -> web.FileResponse:
    return web.FileResponse(VIDEO)


def quick_client(**options: Any) -> Veo3Client:
    return Veo3Client(pacing=FixedPacing(0.2), **options)


async def main() -> None:
    recipe = runpy.run_path(str(REPOSITORY / "tests" / "cookbook" / "sse_aiohttp.py"))
    recipe["lifespan"].__globals__["Veo3Client"] = quick_client
    files = web.Application()
    files.router.add_get("/files/{name}", video)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        async with served(files) as place, FakeVeo3(speed=100, files_url=place) as service:
            os.environ["AI302_API_KEY"] = service.api_key
            os.environ["AI302_BASE_URL"] = service.url
            async with (
                served(recipe["make_app"]()) as url,
                chromium(pathlib.Path(folder, "profile")) as page,
            ):
                await page.open(url)
                await page.wait_until("document.readyState == 'complete' && !!document.forms[0]")
                await page.evaluate(f"form.prompt.value = {PROMPT!r}; form.requestSubmit()")
                await page.wait_until("video.currentTime > 0 && !video.hidden")
                FILE.write_bytes(await page.picture())
    print(f"{FILE.name}: {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    asyncio.run(main())
