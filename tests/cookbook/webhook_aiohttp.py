"""Videos that announce themselves: 302.AI calls back when one is done. Needs aiohttp only.

``AI302_API_KEY=… PUBLIC_URL=https://bot.example python webhook_aiohttp.py``, where ``PUBLIC_URL``
is how the internet reaches this program. Then ``POST /videos`` with ``{"prompt": "…"}``, and
``GET /videos/<id>``. Whoever can open ``/videos`` can spend your money: put a login before it, and
leave ``/veo/`` open.
"""

import asyncio
import contextlib
import os
import pathlib
import urllib.parse
from collections.abc import AsyncIterator

from aiohttp import web

from veo3_async import InvalidRequest, Transition, Veo3Client, Veo3Error, Watch

PUBLIC_URL = os.environ["PUBLIC_URL"].rstrip("/")
MODEL = "google-veo3.1"  # of the unified family: the others have no webhooks
FOLDER = pathlib.Path("videos")
READERS = 4  # videos that are brought at the same time
TRY_AGAIN = 30.0  # seconds after a refused key or an empty balance


class Videos:
    """Brings every video into the folder, and goes on after a restart."""

    def __init__(self, veo: Veo3Client, watch: Watch) -> None:
        self.phases: dict[str, str] = dict.fromkeys(watch.request_ids, "pending")
        self._veo = veo
        self._watch = watch
        self._missed: list[str] = []

    async def submit(self, prompt: str) -> str:
        webhook = f"{PUBLIC_URL}/veo/{{token}}"  # the token is made for this task alone
        request_id = await self._veo.submit(prompt, model=MODEL, webhook=webhook)
        self.phases[request_id] = "pending"
        try:
            self._watch.add(request_id)
        except Veo3Error:
            self._missed.append(request_id)  # `run` is about to open the next watch
        return request_id

    async def run(self) -> None:
        while True:
            try:
                async with self._watch:
                    await asyncio.gather(*(self._read() for _ in range(READERS)))
            except (Veo3Error, OSError) as error:  # of the key, the balance or the disk
                print(f"no videos until this is mended: {error}")
            await asyncio.sleep(TRY_AGAIN)
            with contextlib.suppress(Veo3Error):
                self._watch = await self._veo.resume(keep_open=True)
                self._watch.add(*self._missed)
                self._missed.clear()

    async def _read(self) -> None:
        async for change in self._watch:
            self.phases[change.request_id] = change.phase
            if change.final:  # after a crash an end may come once more: this does no harm twice
                await self._keep(change)
                self.phases.pop(change.request_id, None)

    async def _keep(self, change: Transition) -> None:
        """Keep the video, or why there is none."""
        FOLDER.mkdir(exist_ok=True)
        try:
            if change.task.best_url is None and change.error is not None:
                raise change.error
            await self._veo.download(change.task, file_of(change.request_id, "mp4"))
        except Veo3Error as error:
            file_of(change.request_id, "txt").write_text(error.message, "utf-8")


def file_of(request_id: str, suffix: str) -> pathlib.Path:
    return FOLDER / f"{urllib.parse.quote(request_id, safe='')}.{suffix}"


VEO = web.AppKey("VEO", Veo3Client)
VIDEOS = web.AppKey("VIDEOS", Videos)


async def lifespan(app: web.Application) -> AsyncIterator[None]:
    async with Veo3Client(journal="videos.db") as veo:
        app[VEO] = veo
        app[VIDEOS] = Videos(veo, await veo.resume(keep_open=True))
        running = asyncio.create_task(app[VIDEOS].run())
        yield
        running.cancel()
        await asyncio.wait([running])


async def webhook(request: web.Request) -> web.Response:
    """Take the call as a hint. Anybody can make it, so nothing in its body is read."""
    is_ours = request.app[VEO].webhook_received(request.match_info["token"])
    return web.Response(status=200 if is_ours else 404)  # after a 404 it is tried again


async def submit(request: web.Request) -> web.Response:
    try:
        prompt = (await request.json())["prompt"]
        return web.json_response({"id": await request.app[VIDEOS].submit(prompt)}, status=202)
    except (KeyError, TypeError, ValueError, InvalidRequest) as error:
        return web.json_response({"reason": str(error)}, status=400)
    except Veo3Error as error:
        return web.json_response({"reason": error.message}, status=503)


async def video(request: web.Request) -> web.StreamResponse:
    """Answer with the video, how far it is (202), why there is none (410), or 404."""
    request_id = request.match_info["request_id"]
    phase = request.app[VIDEOS].phases.get(request_id)
    if phase is not None:
        return web.json_response({"phase": phase}, status=202)
    if (file := file_of(request_id, "mp4")).exists():
        return web.FileResponse(file)
    if (file := file_of(request_id, "txt")).exists():
        return web.json_response({"reason": file.read_text("utf-8")}, status=410)
    return web.json_response({"reason": "there is no such video"}, status=404)


def make_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(lifespan)
    app.add_routes(
        [
            web.post("/veo/{token}", webhook),
            web.post("/videos", submit),
            web.get("/videos/{request_id}", video),
        ]
    )
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
