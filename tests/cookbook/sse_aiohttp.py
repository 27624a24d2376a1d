"""A page that makes videos: a prompt, the progress, the video. Needs aiohttp only.

``AI302_API_KEY=… python sse_aiohttp.py``, then open http://127.0.0.1:8000. Whoever can open the
page can spend your money: put a login before it.
"""

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import AsyncIterator

from aiohttp import web

from veo3_async import InvalidRequest, Transition, Veo3Client, Veo3Error, Watch

KEEP = 1000  # finished tasks that are answered from memory
HEARTBEAT = 15.0  # seconds: proxies cut a connection that is silent for long
RETRY = 3.0  # seconds after which a browser connects again
TRY_AGAIN = 30.0  # seconds after a refused key or an empty balance


class Task:
    """What was seen of one task, for any number of pages."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.final = False
        self.changed = asyncio.Event()

    def publish(self, *, final: bool = False, **fields: object) -> None:
        self.events.append(json.dumps(fields | {"final": final}))
        self.final = final
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class Videos:
    """Watches all tasks, whether a page is open or not, and goes on after a restart."""

    def __init__(self, veo: Veo3Client, watch: Watch) -> None:
        self.tasks: dict[str, Task] = {}
        self._veo = veo
        self._watch = watch
        self._missed: list[str] = []
        self._closing = False
        self._start = secrets.token_hex(4)  # our event ids differ from those before a restart

    async def submit(self, prompt: str) -> str:
        request_id = await self._veo.submit(prompt)
        self.task(request_id)
        return request_id

    def task(self, request_id: str) -> Task:
        """Return a task; one that is not known yet is watched from now on."""
        if request_id not in self.tasks:
            try:
                self._watch.add(request_id)
            except InvalidRequest:
                raise
            except Veo3Error:
                self._missed.append(request_id)  # `run` is about to open the next watch
            self.tasks[request_id] = Task()
        return self.tasks[request_id]

    async def run(self) -> None:
        while True:
            try:
                async with self._watch as changes:
                    async for change in changes:
                        self._tell(change)
            except Veo3Error as error:  # of the key, the balance or the disk: it concerns all
                for task in self.tasks.values():
                    if not task.final:
                        task.publish(phase="paused", reason=error.message)
            await asyncio.sleep(TRY_AGAIN)
            with contextlib.suppress(Veo3Error):
                self._watch = await self._veo.resume(keep_open=True)
                self._watch.add(*self._missed)
                self._missed.clear()

    def _tell(self, change: Transition) -> None:
        self.tasks.setdefault(change.request_id, Task()).publish(
            final=change.final,
            phase=change.phase,
            eta=change.eta,
            url=change.task.best_url,
            reason=change.error and change.error.message,
        )
        if change.final:
            finished = [request_id for request_id, task in self.tasks.items() if task.final]
            for request_id in finished[:-KEEP]:
                del self.tasks[request_id]

    def already_seen(self, task: Task, last_event_id: str) -> int:
        """Return how many events a page has seen that connects again."""
        start, _, number = last_event_id.partition("-")
        known = start == self._start and number.isdecimal()
        return min(int(number), len(task.events)) if known else 0

    async def stream(self, task: Task, seen: int) -> AsyncIterator[str]:
        """Yield the events that a page has not seen; the last one has ``final``."""
        yield f"retry: {RETRY * 1000:.0f}\n\n"
        while not self._closing:
            changed = task.changed
            for event in task.events[seen:]:
                seen += 1
                yield f"id: {self._start}-{seen}\ndata: {event}\n\n"
            if task.final:
                return
            try:
                await asyncio.wait_for(changed.wait(), HEARTBEAT)
            except TimeoutError:
                yield ": still here\n\n"

    def close(self) -> None:
        """End the streams; the pages connect again when the program is back."""
        self._closing = True
        for task in self.tasks.values():
            task.wake()


VIDEOS = web.AppKey("VIDEOS", Videos)


async def lifespan(app: web.Application) -> AsyncIterator[None]:
    async with Veo3Client(journal="videos.db") as veo:
        app[VIDEOS] = Videos(veo, await veo.resume(keep_open=True))
        running = asyncio.create_task(app[VIDEOS].run())
        yield
        running.cancel()
        await asyncio.wait([running])


async def end_streams(app: web.Application) -> None:
    app[VIDEOS].close()


async def page(_: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


async def submit(request: web.Request) -> web.Response:
    try:
        prompt = (await request.json())["prompt"]
        return web.json_response({"id": await request.app[VIDEOS].submit(prompt)})
    except (KeyError, TypeError, ValueError, InvalidRequest) as error:
        return web.json_response({"reason": str(error)}, status=400)
    except Veo3Error as error:
        return web.json_response({"reason": error.message}, status=503)


async def events(request: web.Request) -> web.StreamResponse:
    videos = request.app[VIDEOS]
    try:
        task = videos.task(request.match_info["request_id"])
    except InvalidRequest as error:
        return web.json_response({"reason": error.message}, status=404)
    seen = videos.already_seen(task, request.headers.get("Last-Event-ID", ""))
    if task.final and seen == len(task.events):
        return web.Response(status=204)  # a browser does not connect again after this
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
    )
    await response.prepare(request)
    with contextlib.suppress(ConnectionResetError):  # the page was closed
        async for event in videos.stream(task, seen):
            await response.write(event.encode())
    return response


def make_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(lifespan)
    app.on_shutdown.append(end_streams)  # otherwise it would wait for them for a minute
    app.add_routes(
        [
            web.get("/", page),
            web.post("/videos", submit),
            web.get("/videos/{request_id}/events", events),
        ]
    )
    return app


PAGE = """<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Videos</title>
<style>
  body { font: 18px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto }
  form { display: flex; gap: .5rem } input { flex: 1 }
  input, button { font: inherit; padding: .4rem }
  progress, video { width: 100% } video { margin-top: 1rem; background: #000 }
</style>
<form><input name="prompt" placeholder="a lighthouse in a storm" required autofocus>
<button>Make a video</button></form>
<p id="phase"></p>
<progress id="bar" hidden></progress>
<video id="video" controls autoplay muted loop playsinline hidden></video>
<script>
const form = document.querySelector("form"), [phase, bar, video] =
  ["phase", "bar", "video"].map(id => document.getElementById(id));
let source, began, ends, timer;

function show(text, state) {
  phase.textContent = text;
  bar.hidden = state !== "running";
  form.querySelector("button").disabled = state === "running";
}

function tick() {
  if (!ends) return bar.removeAttribute("value");
  const left = Math.max(0, ends - Date.now());
  bar.value = (Date.now() - began) / (Date.now() - began + left + 1);
  phase.textContent = `${phase.dataset.name} … about ${Math.ceil(left / 1000)} s left`;
}

function follow(id) {
  location.hash = id;  // reloading the page goes on with this video
  video.hidden = true;
  began = Date.now(); ends = 0;
  timer = setInterval(tick, 500);
  source = new EventSource(`videos/${encodeURIComponent(id)}/events`);
  source.onmessage = message => {
    const change = JSON.parse(message.data);
    phase.dataset.name = change.phase;
    ends = change.eta == null ? 0 : Date.now() + change.eta * 1000;
    show(change.reason ? `${change.phase}: ${change.reason}` : `${change.phase} …`, "running");
    if (!change.final) return;
    finish(change.url ? "Here it is." : `No video: ${change.reason}`);
    if (change.url) { video.src = change.url; video.hidden = false; }
  };
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) finish("There is no such video.");
  };
}

function finish(text) {
  source.close();
  clearInterval(timer);
  show(text, "finished");
}

form.onsubmit = async event => {
  event.preventDefault();
  show("sending …", "running");
  try {
    const reply = await fetch("videos", {
      method: "POST",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify({prompt: form.prompt.value}),
    });
    const {id, reason} = await reply.json();
    if (id) follow(id); else show(`No video: ${reason ?? reply.statusText}`, "finished");
  } catch (error) {
    show(`No answer: ${error.message}. It may have been submitted.`, "finished");
  }
};

if (location.hash) follow(decodeURIComponent(location.hash.slice(1)));
</script>
"""


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
