"""The client for programs without an event loop: scripts, Flask, Django, Celery.

::

    with SyncVeo3Client() as veo:
        for change in veo.watch(request_id):
            print(change.phase)

An event loop on a thread of its own does the work, and a call waits for it. Ctrl-C ends what it
interrupts. Callbacks (``on_poll``, ``on_change``, ``progress``) are called on that thread, and
cannot call the client.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import inspect
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Final, NoReturn, ParamSpec, Self, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from veo3_async._client import Veo3Client
from veo3_async._errors import ClientClosed
from veo3_async._models import Transition
from veo3_async._pacing.policies import Eta
from veo3_async._polling.watch import Watch

if TYPE_CHECKING:
    from veo3_async._download.stream import VideoStream

__all__ = ["SyncVeo3Client", "SyncVideoStream", "SyncWatch"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _LoopThread:
    """An event loop on a thread, from the first call on; a daemon, so that it holds up no exit."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._pid: Final = os.getpid()
        self._thread: threading.Thread | None = None
        self._portal: BlockingPortal | None = None
        self._stopped = False

    def start_soon(
        self, work: Callable[..., Awaitable[_T]], *args: object
    ) -> concurrent.futures.Future[_T]:
        """Let the loop do it.

        :raises ClientClosed: The loop was stopped, or belongs to another process.
        """
        if self._pid != os.getpid():
            message = "this client was made before a fork; make one in each process"
            raise ClientClosed(message)
        with self._lock:
            if self._stopped:
                message = "this client was closed; make another one"
                raise ClientClosed(message)
            if self._portal is None:
                self._portal = self._started()
            return self._portal.start_task_soon(work, *args)

    def call(self, work: Callable[..., Awaitable[_T]], *args: object) -> _T:
        """Let the loop do it, and wait for that; what interrupts the waiting ends the work.

        :raises ClientClosed: As `start_soon`.
        """
        return _outcome(self.start_soon(work, *args))

    def stop(self, last: Callable[[], Awaitable[object]]) -> None:
        """Do a last thing, if anything was done before, and end the thread. May be repeated."""
        with self._lock:
            portal, self._portal = self._portal, None
            self._stopped = True
        if portal is None or self._thread is None or self._pid != os.getpid():
            return
        try:
            portal.call(last)
        finally:
            portal.call(portal.stop)
            self._thread.join()

    def _started(self) -> BlockingPortal:
        ready: concurrent.futures.Future[BlockingPortal] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=anyio.run, args=(_serve, ready), name="veo3_async.sync", daemon=True
        )
        self._thread.start()
        return ready.result()


async def _serve(ready: concurrent.futures.Future[BlockingPortal]) -> None:
    async with BlockingPortal() as portal:
        ready.set_result(portal)
        await portal.sleep_until_stopped()


def _outcome(future: concurrent.futures.Future[_T]) -> _T:
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        message = "the client was closed meanwhile"
        raise ClientClosed(message) from None
    finally:
        future.cancel()  # of no effect where it is done


def _described(call: Callable[_P, _T], method: Callable[..., Any], returns: object = None) -> None:
    """Give a method name, docstring and parameters of the client's; it is no coroutine function.

    :param returns: What it returns where that is not what the client's does.
    """
    functools.update_wrapper(call, method)
    del call.__dict__["__wrapped__"]
    signature = inspect.signature(method)
    if returns is not None:
        signature = signature.replace(return_annotation=returns)
    call.__dict__["__signature__"] = signature


def _blocking(
    method: Callable[Concatenate[Veo3Client, _P], Awaitable[_T]],
) -> Callable[Concatenate[SyncVeo3Client, _P], _T]:
    """Return a coroutine function of the client's as a method that waits for it."""

    def call(self: SyncVeo3Client, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self.loop.call(functools.partial(method, self.client, *args, **kwargs))

    _described(call, method)
    return call


def _on_loop(
    method: Callable[Concatenate[Veo3Client, _P], _T],
) -> Callable[Concatenate[SyncVeo3Client, _P], _T]:
    """Return a plain method of the client's as one that is called on the loop."""

    def call(self: SyncVeo3Client, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        async def work() -> _T:
            return method(self.client, *args, **kwargs)

        return self.loop.call(work)

    _described(call, method)
    return call


def _watching(
    begin: Callable[Concatenate[SyncVeo3Client, _P], Watch],
) -> Callable[Concatenate[SyncVeo3Client, _P], SyncWatch]:
    """Return a method that makes a watch as one that makes a `SyncWatch`."""

    def call(self: SyncVeo3Client, /, *args: _P.args, **kwargs: _P.kwargs) -> SyncWatch:
        return SyncWatch(begin(self, *args, **kwargs), self)

    _described(call, begin, SyncWatch)
    return call


def _streaming(
    begin: Callable[Concatenate[SyncVeo3Client, _P], VideoStream],
) -> Callable[Concatenate[SyncVeo3Client, _P], SyncVideoStream]:
    """Return a method that makes a stream as one that makes a `SyncVideoStream`."""

    def call(self: SyncVeo3Client, /, *args: _P.args, **kwargs: _P.kwargs) -> SyncVideoStream:
        return SyncVideoStream(begin(self, *args, **kwargs), self)

    _described(call, begin, SyncVideoStream)
    return call


def _made_as(
    init: Callable[Concatenate[Veo3Client, _P], None],
) -> Callable[[Callable[..., None]], Callable[Concatenate[SyncVeo3Client, _P], None]]:
    """Return a decorator that gives a constructor the parameters of the client's."""

    def decorated(make: Callable[..., None]) -> Callable[Concatenate[SyncVeo3Client, _P], None]:
        return functools.wraps(init)(make)

    return decorated


def _finish(loop: _LoopThread, client: Veo3Client) -> None:
    """End what nobody has closed; the loop's own thread may be the one that finds that out."""
    if threading.current_thread().name == "veo3_async.sync":
        threading.Thread(target=loop.stop, args=(client.aclose,), daemon=True).start()
    else:  # at the end of the interpreter, where Python 3.12 starts no thread any more
        loop.stop(client.aclose)


class SyncVideoStream(Iterator[bytes]):
    """``VideoStream`` for threads: the bytes of a video in order, and a context manager."""

    def __init__(self, stream: VideoStream, client: SyncVeo3Client) -> None:
        self._stream: Final = stream
        self._client: Final = client

    def __repr__(self) -> str:
        """Say what it is, without the key."""
        return f"<SyncVideoStream of {self._stream!r}>"

    @property
    def done(self) -> int:
        """How many bytes have come, from the first on."""
        return self._stream.done

    @property
    def total(self) -> int | None:
        """How many bytes the video has; None before the first, or where the server does not say."""
        return self._stream.total

    def __next__(self) -> bytes:
        """Wait for the next bytes."""
        if data := self._client.loop.call(self._read):
            return data
        raise StopIteration

    async def _read(self) -> bytes:
        return await anext(self._stream, b"")

    def __enter__(self) -> Self:
        """Return it; it begins with the first bytes that are asked for."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection; no more bytes come. May be repeated."""
        with contextlib.suppress(ClientClosed):  # and so was the connection
            self._client.loop.call(self._stream.aclose)


class _Taken:
    """A final transition that a thread has not dealt with yet, and the task that keeps it."""

    def __init__(self) -> None:
        self.value: Final[concurrent.futures.Future[Transition | None]] = (
            concurrent.futures.Future()
        )
        self.thread: Final = threading.current_thread()
        self.dealt_with: Final = anyio.Event()


class SyncWatch(Iterator[Transition]):
    """`Watch` for threads: an iterator of transitions, and a context manager that ends it.

    Several threads may read one; each transition goes to one of them. With a journal, an end stays
    unacknowledged until the thread that took it asks for the next one, or leaves the ``with``
    normally.
    """

    def __init__(self, watch: Watch, client: SyncVeo3Client) -> None:
        self._watch: Final = watch
        self._client: Final = client
        self._lock: Final = threading.Lock()
        self._taken: Final[dict[_Taken, concurrent.futures.Future[None]]] = {}

    def __repr__(self) -> str:
        """Say what it is, without the key."""
        return f"<SyncWatch of {self._watch!r}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        message = "a watch is not pickled or copied; make another one, they share their polls"
        raise TypeError(message)

    def __len__(self) -> int:
        """Return how many ids are not final yet."""
        return len(self._watch)

    @property
    def request_ids(self) -> frozenset[str]:
        """The ids that are not final yet."""
        return self._on_loop(lambda: self._watch.request_ids)

    def add(self, *request_ids: str) -> None:
        """Watch these ids as well. Errors as of `Watch.add`."""
        self._on_loop(lambda: self._watch.add(*request_ids))

    def discard(self, *request_ids: str) -> None:
        """Watch these ids no longer; nothing of them comes out any more, read or unread."""
        self._on_loop(lambda: self._watch.discard(*request_ids))

    def eta(self, request_id: str) -> Eta | None:
        """Return how long the video of an id will take, or None where nothing is known."""
        return self._on_loop(lambda: self._watch.eta(request_id))

    def __next__(self) -> Transition:
        """Wait for the next transition of any of the ids."""
        self._deal_with_own()
        taken = _Taken()
        keeping = self._client.loop.start_soon(self._take, taken)
        keeping.add_done_callback(functools.partial(_pass_on, taken.value))
        with self._lock:
            self._taken[taken] = keeping
        try:
            change = taken.value.result()
        except BaseException:
            keeping.cancel()
            raise
        if change is None:
            raise StopIteration
        return change

    def __enter__(self) -> Self:
        """Return it; it watches already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the watch; left normally, what this thread took last is dealt with."""
        if kind is None:
            self._deal_with_own()
        self._end(functools.partial(self._watch.__aexit__, kind, error, traceback))

    def close(self) -> None:
        """End the watch; who iterates it comes to an end. May be repeated."""
        self._end(self._watch.aclose)

    def _end(self, last: Callable[[], Awaitable[None]]) -> None:
        with self._lock:
            keeping = list(self._taken.values())
            self._taken.clear()
        try:
            self._client.loop.call(last)
        except ClientClosed:
            return  # and so was the watch
        for future in keeping:
            future.cancel()

    async def _take(self, taken: _Taken) -> None:
        """Take a transition; of a final one this task is the reader until it is dealt with."""
        change = await anext(self._watch, None)
        taken.value.set_result(change)
        if change is not None and change.final:
            await taken.dealt_with.wait()

    def _deal_with_own(self) -> None:
        """Let the tasks return that have kept ends for this thread, or for one that is gone."""
        with self._lock:
            own = [
                (taken, keeping)
                for taken, keeping in self._taken.items()
                if taken.thread is threading.current_thread() or not taken.thread.is_alive()
            ]
            for taken, _ in own:
                del self._taken[taken]
        if any(not keeping.done() for _, keeping in own):
            self._on_loop(functools.partial(_set_all, [taken.dealt_with for taken, _ in own]))
            concurrent.futures.wait([keeping for _, keeping in own])

    def _on_loop(self, work: Callable[[], _T]) -> _T:
        async def working() -> _T:
            return work()

        return self._client.loop.call(working)


def _set_all(events: Iterable[anyio.Event]) -> None:
    for event in events:
        event.set()


def _pass_on(
    value: concurrent.futures.Future[Any], keeping: concurrent.futures.Future[None]
) -> None:
    """Let the thread know that nothing was taken."""
    if value.done():
        return
    if keeping.cancelled():
        value.set_exception(ClientClosed("the client was closed meanwhile"))
    elif (error := keeping.exception()) is not None:
        value.set_exception(error)


class SyncVeo3Client:
    """`Veo3Client`, of which every method waits, for any number of threads at once.

    Parameters, methods and errors are those of `Veo3Client`; `close` is its ``aclose``. Ended by
    ``with`` or by `close`; one that is forgotten is closed with the last reference to it.
    """

    client: Veo3Client
    """The client that does the work, on the loop of `loop` only."""
    loop: _LoopThread
    """The loop that it works on."""

    @_made_as(Veo3Client.__init__)
    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - of the client's types
        self.client = Veo3Client(*args, **options)
        self.loop = _LoopThread()
        self._forget: Final = weakref.finalize(self, _finish, self.loop, self.client).detach

    watch = _watching(_on_loop(Veo3Client.watch))
    resume = _watching(_blocking(Veo3Client.resume))
    wait = _blocking(Veo3Client.wait)
    fetch = _blocking(Veo3Client.fetch)
    submit = _blocking(Veo3Client.submit)
    generate = _blocking(Veo3Client.generate)
    download = _blocking(Veo3Client.download)
    models = _blocking(Veo3Client.models)
    balance = _blocking(Veo3Client.balance)
    cost = _blocking(Veo3Client.cost)
    pending = _blocking(Veo3Client.pending)
    settle = _blocking(Veo3Client.settle)
    stream = _streaming(_on_loop(Veo3Client.stream))
    poke = _on_loop(Veo3Client.poke)
    webhook_received = _on_loop(Veo3Client.webhook_received)
    stats = _on_loop(Veo3Client.stats)

    def __repr__(self) -> str:
        """Say what it is, without the key."""
        return f"<SyncVeo3Client of {self.client!r}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        message = "a client is not pickled or copied; make another one"
        raise TypeError(message)

    def __enter__(self) -> Self:
        """Start, so that trouble with the journal shows now."""
        try:
            self.loop.call(self.client.__aenter__)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End everything: who waits in another thread gets `ClientClosed`. May be repeated."""
        self.loop.stop(self.client.aclose)
        self._forget()
