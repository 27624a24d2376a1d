"""`FakeVeo3`: the gateway on a real socket of the loopback."""

from __future__ import annotations

import asyncio
import contextlib
import http
import os
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import aiohttp
import anyio.to_thread
import msgspec
from aiohttp import web

from veo3_async.testing._delivery import deliver, hang_up
from veo3_async.testing._dialects import Family, find
from veo3_async.testing._faults import Fault, HangUp, Where
from veo3_async.testing._gateway import Envelope, Gateway, Hook, Lives, sample
from veo3_async.testing._replay import Replay
from veo3_async.testing._replies import TimeUnit
from veo3_async.testing._requests import Received
from veo3_async.testing._videos import Video

if TYPE_CHECKING:
    from types import TracebackType

    from aiohttp.web_protocol import RequestHandler

    from veo3_async.testing._lives import Life

__all__ = ["FakeVeo3"]

_MODEL_OF: Final[dict[Family, str]] = {
    "record": "veo3-pro",
    "queue": "veo3",
    "tasks": "veo3.1",
    "unified": "google-veo3.1",
}
_HOOK_TRIES: Final = 3

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class FakeVeo3:
    """302.AI's veo3-pro endpoint on this machine: real HTTP, made-up videos.

    ::

        async with FakeVeo3(speed=100) as server:
            request_id = server.add()
            async with Veo3Client(server.api_key, base_url=server.url) as veo:
                task = await veo.wait(request_id)

    It serves the poll and the submission of every family of the wire page, uploads, webhooks, what
    the account says, and the video files that its replies point to. It knows no clock but the
    event loop's, starts no thread, and stops at once, whatever it is doing.

    :param api_key: The only key that is not answered with 401.
    :param speed: Factor by which all lives run faster, above 0.
    :param latency: Seconds before every answer.
    :param rate_limit: API requests that are let in during any one second, above 0; more are
        answered with 429 and ``Retry-After: 1``, and do not count. None lets all in.
    :param lives: The life of each task that is submitted, or added without one: a function of a
        ``random.Random`` (such as ``Life.random`` or ``Life.mixed``), or a row that is taken
        again and again. None: the documented life.
    :param envelope: Where the answer to a POST has the id.
    :param video: How every video file is made and served, unless `serve` says otherwise.
    :param files_url: Where the videos are said to be, such as the ``url`` of another server.
        None: here.
    :param clock_skew: Seconds that the times in the replies are ahead of this machine's clock.
    :param time_unit: Of the times in the replies: ``"ms"``, or ``"s"`` as gateways of this kind.
    :param keyed_by_path: Whether a task is known at the path only that it was posted to.
    :param seed: Of the ids, the lives and the faults at a rate.
    :param host: A name of the loopback.
    :param port: TCP port; 0 takes a free one. It stays the same when the server is started again.
    :param on_reply: A plain function that gets each request and the HTTP status that answers it.
    :param record: Whether `requests` is kept. Turn it off for long runs.
    :raises ValueError: A number is out of its range, or the host is not the loopback.
    """

    def __init__(
        self,
        *,
        api_key: str = "test-key",
        speed: float = 1.0,
        latency: float = 0.0,
        rate_limit: float | None = None,
        lives: Lives | None = None,
        envelope: Envelope = "task_id",
        video: Video | None = None,
        files_url: str | None = None,
        clock_skew: float = 0.0,
        time_unit: TimeUnit = "ms",
        keyed_by_path: bool = False,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
        on_reply: Callable[[Received, int], object] | None = None,
        record: bool = True,
    ) -> None:
        if host not in _LOOPBACK:
            message = f"host is one of {', '.join(_LOOPBACK)}, not {host!r}"
            raise ValueError(message)
        self.api_key: Final = api_key
        self.requests: Final[list[Received]] = []
        """What arrived, in order; empty with ``record=False``."""
        self.connections: int = 0
        """Connections accepted so far."""
        self.in_flight: int = 0
        """Requests that are being answered."""
        self.max_in_flight: int = 0
        """The most at one moment so far."""
        self.received: int = 0
        """Requests so far, recorded or not."""
        self._gateway: Final = Gateway(
            api_key=api_key,
            speed=speed,
            rate_limit=rate_limit,
            lives=lives,
            envelope=envelope,
            video=video or Video(),
            time_unit=time_unit,
            keyed_by_path=keyed_by_path,
            seed=seed,
        )
        self._latency: Final = latency
        self._files_url: Final = files_url
        self._clock_skew: Final = clock_skew
        self._host: Final = host
        self._port = port
        self._on_reply: Final = on_reply
        self._record: Final = record
        self._by_id: Final[defaultdict[str | None, list[Received]]] = defaultdict(list)
        self._handlers: Final[set[asyncio.Task[Any]]] = set()
        self._runner: web.ServerRunner | None = None
        self._listener: _Listener | None = None

    @classmethod
    def replay(cls, file: str | os.PathLike[str], *, speed: float = 1.0, **options: Any) -> Self:  # noqa: ANN401 - those of the constructor
        """Return a server that answers as a recording has it (``Veo3Client(record=…)``).

        Each request gets the replies that it got, in their order: the next one where its moment has
        come by the clock of the recording, else the last one again. A submission gets the next one
        at once, whatever its prompt is. What timed out or broke off does so again. The URLs in the
        replies are those of the recording, so nothing is there to be downloaded. `ids` has the
        tasks that were asked for.

        :param file: The recording.
        :param speed: How much faster its clock runs, above 0; ``math.inf`` goes on with every
            request.
        :param options: As for the constructor.
        :raises ValueError: The speed or an option is out of its range; from `start`: there is no
            request in it.
        :raises OSError: From `start`: it cannot be read.
        """
        server = cls(**options)
        server._gateway.replay = Replay(file, speed)
        return server

    def __repr__(self) -> str:
        state = self.url if self._runner is not None else "stopped"
        return (
            f"<FakeVeo3 {state} tasks={len(self._gateway.tasks)} requests={self.received} "
            f"in_flight={self.in_flight} faults={len(self._gateway.rules)}>"
        )

    # --- lifetime -------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        return 0 if self._listener is None else len(self._listener.connections)

    async def start(self) -> None:
        """Listen. After `stop` it comes back on the same port, with the tasks that it knew.

        :raises OSError: The port is taken.
        """
        if self._runner is not None:
            return
        if self._gateway.replay is not None:
            await anyio.to_thread.run_sync(self._gateway.replay.load)
        listener = _Listener(self._handle, self._accept)
        runner = web.ServerRunner(listener, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port, reuse_address=True).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner, self._listener = runner, listener
        self._port = runner.addresses[0][1]
        self._gateway.epoch = time.time() + self._clock_skew - _now()
        self._gateway.files.url = f"{self._files_url or self.url}/files/"

    async def stop(self) -> None:
        """Close every connection and refuse new ones; what is being answered breaks off."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        handlers = list(self._handlers)
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        await runner.cleanup()

    @property
    def url(self) -> str:
        """Base URL, such as ``http://127.0.0.1:45123``.

        :raises RuntimeError: It was never started, so the port is not known yet.
        """
        if not self._port:
            message = "the server has no URL before it is started: use `async with`"
            raise RuntimeError(message)
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    # --- what the test says ---------------------------------------------------------------

    def add(
        self,
        request_id: str | None = None,
        life: Life | None = None,
        *,
        family: Family = "record",
        model: str | None = None,
        begins: Literal["now", "first_poll"] = "now",
    ) -> str:
        """Make a task known and return its id; to be called on the running event loop.

        :param request_id: Any text; None makes one up, such as ``veo3-pro:68935cd4-…``.
        :param life: What becomes of it; None takes the next of ``lives``.
        :param family: Whose protocol says what becomes of it.
        :param model: What was asked for; None is ``veo3-pro``, or one of the family's.
        :param begins: When the life begins.
        :raises ValueError: The id is taken.
        """
        waits = begins == "first_poll"
        return self._gateway.add(
            request_id, life, sample(model or _MODEL_OF[family], family), now=_now(), waits=waits
        )

    def fault(
        self,
        fault: Fault,
        *,
        on: Where = "poll",
        request_id: str | None = None,
        rate: float | None = None,
        times: int | None = None,
        after: int = 0,
    ) -> None:
        """Let something go wrong from now on.

        The first fault that fires meets the request, those for its id before those for all. A
        ``Status``, ``Body`` or ``Redirect`` stands in place of the truth: a POST that gets one made
        no task. The other faults spoil the delivery of the truth: the POST made its task.

        :param on: What it meets: a ``poll``, a ``submit``, a ``file``, or (only `HangUp`) each
            new connection: ``connect``.
        :param request_id: The only id whose polls it meets; None meets all.
        :param rate: Probability, 0 to 1, that it meets a request; None always.
        :param times: How many requests it meets in all, at least 1; None without end.
        :param after: How many requests it spares first.
        :raises ValueError: A number is out of its range, or the fault makes no sense there.
        """
        self._gateway.rules.add(
            fault, on=on, request_id=request_id, rate=rate, times=times, after=after
        )

    def heal(self, fault: Fault | None = None) -> None:
        """End one fault, or all of them; what already hangs goes on hanging."""
        self._gateway.rules.remove(fault)

    def serve(self, name: str, video: Video) -> str:
        """Serve this video under a file name (such as ``a.mp4``) from now on; return its URL."""
        self._gateway.files.videos[name] = video
        return f"{self._gateway.files.url}{name}"

    def video_of(self, url: str) -> bytes:
        """Return the bytes that a download of this URL must bring."""
        name = url.rpartition("/")[2]
        return self._gateway.files.video(name).content(name)

    def expire_urls(self, request_id: str) -> None:
        """Let the video URLs of a task answer 403; the next poll tells fresh ones.

        :raises KeyError: The id is not known.
        """
        self._gateway.renew(request_id)

    def set_balance(self, balance: str) -> None:
        """Say from now on that this is left, in PTC as the service writes it."""
        self._gateway.account.balance = balance

    # --- what the test sees ---------------------------------------------------------------

    @property
    def lives(self) -> Lives | None:
        """The life of each task to come that has none of its own; None is the documented one."""
        return self._gateway.lives

    @lives.setter
    def lives(self, lives: Lives | None) -> None:
        self._gateway.lives = lives

    @property
    def ids(self) -> list[str]:
        """The ids of all tasks, submitted ones and those of a recording included, in order."""
        replay = self._gateway.replay
        return [*self._gateway.tasks, *(() if replay is None else replay.ids)]

    def ends_at(self, request_id: str) -> float | None:
        """Return the loop's time at which the last stage of a task begins.

        None where the polls decide, or before the first poll of a life that begins with it.

        :raises KeyError: The id is not known.
        """
        return self._gateway.ends_at(request_id)

    @property
    def uploads(self) -> dict[str, bytes]:
        """What was uploaded, by its URL."""
        uploads = self._gateway.account.uploads
        return {self._gateway.files.url + name: content for name, content in uploads.items()}

    def polls_of(self, request_id: str) -> list[Received]:
        """Return the recorded polls of an id, in order; empty with ``record=False``."""
        return list(self._by_id.get(request_id, ()))

    # --- what the client does -------------------------------------------------------------

    def _accept(self, transport: asyncio.Transport) -> int:
        self.connections += 1
        gateway = self._gateway
        fault = gateway.rules.choose("connect", None, reused=False, rng=gateway.rng)
        if isinstance(fault, HangUp):
            hang_up(transport, reset=fault.reset)
        return self.connections

    async def _handle(self, request: web.BaseRequest, line: _Line) -> web.StreamResponse:
        if (task := asyncio.current_task()) is not None:
            self._handlers.add(task)
            task.add_done_callback(self._handlers.discard)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            received = await _receive(request, line)
            self._note(received)
            if self._latency:
                await asyncio.sleep(self._latency)
            answer = self._gateway.answer(received)
            if self._on_reply is not None:
                self._on_reply(received, answer.answer.status)
            self._call_hooks()
            return await deliver(request, answer)
        finally:
            self.in_flight -= 1

    def _call_hooks(self) -> None:
        """See to the webhooks of the tasks that were made."""
        while self._gateway.hooks:
            task = asyncio.create_task(self._call_hook(self._gateway.hooks.pop()))
            self._handlers.add(task)
            task.add_done_callback(self._handlers.discard)

    async def _call_hook(self, hook: Hook) -> None:
        """Post at the end of a task, up to 3 times, 2 · N s apart, until 200 answers."""
        await asyncio.sleep(max(0.0, hook.at - _now()))
        body = msgspec.json.encode(self._gateway.hook_body(hook))
        headers = {"Content-Type": "application/json"}
        async with aiohttp.ClientSession() as session:
            for attempt in range(1, _HOOK_TRIES + 1):
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.post(hook.url, data=body, headers=headers) as reply:
                        if reply.status == http.HTTPStatus.OK:
                            return
                if attempt < _HOOK_TRIES:
                    await asyncio.sleep(2.0 * attempt)

    def _note(self, received: Received) -> None:
        self.received += 1
        if self._record:
            self.requests.append(received)
            if received.where == "poll" and received.request_id is not None:
                self._by_id[received.request_id].append(received)


class _Line(msgspec.Struct):
    """One connection."""

    number: int
    requests: int = 0


_Handler = Callable[[web.BaseRequest, _Line], Awaitable[web.StreamResponse]]


class _Listener(web.Server):
    """aiohttp's low-level server: without its router and middlewares a poll costs half."""

    def __init__(self, handler: _Handler, accept: Callable[[asyncio.Transport], int]) -> None:
        # A client that goes must not leave a handler behind that is silent for ever.
        super().__init__(self._on_request, handler_cancellation=True, access_log=None)
        self._handler: Final = handler
        self._accept: Final = accept
        self._lines: Final[dict[RequestHandler, _Line]] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._lines[handler] = _Line(self._accept(transport))

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        self._lines.pop(handler, None)
        super().connection_lost(handler, exc)

    async def _on_request(self, request: web.BaseRequest) -> web.StreamResponse:
        line = self._lines[request.protocol]
        line.requests += 1
        return await self._handler(request, line)


async def _receive(request: web.BaseRequest, line: _Line) -> Received:
    place = find(request.path)
    in_path = None if place is None else place.request_id
    return Received(
        method=request.method,
        path=request.path,
        target=request.raw_path,
        request_id=in_path or request.query.get("request_id"),
        headers=request.headers,
        body=await request.content.read() if request.body_exists else b"",
        at=_now(),
        connection=line.number,
        reused=line.requests > 1,
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
