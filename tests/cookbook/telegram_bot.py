"""A Telegram bot: /video PROMPT answers with the video. Needs aiogram 3.

``TELEGRAM_TOKEN=… AI302_API_KEY=… python telegram_bot.py``

Each person gets one message, which shows the progress and becomes the video or the reason why
there is none. To edit it twice does no harm, so a bot that is killed between sending and noting
down simply does it again in its next life. What was submitted is in ``bot.db``.
"""

import asyncio
import contextlib
import logging
import os
import pathlib
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from aiogram import Bot, Dispatcher, Router
from aiogram.exceptions import (
    AiogramError,
    ClientDecodeError,
    TelegramBadRequest,
    TelegramEntityTooLarge,
    TelegramNetworkError,
    TelegramRetryAfter,
    TelegramServerError,
)
from aiogram.filters import Command, CommandObject
from aiogram.types import FSInputFile, InputMediaVideo, Message, Update

from veo3_async import (
    SubmitUncertain,
    Transition,
    Veo3Client,
    Veo3Error,
    VideoTask,
    Watch,
)

READERS = 16  # people who are served at once; one who waits for flood control holds up no other
MAX_UPLOAD = 50_000_000  # bytes; by URL, Telegram takes 20 MB
TRY_AGAIN = 30.0  # seconds after a refused key, an empty balance or a full disk
IN_DOUBT = (
    "The connection broke while your video was being ordered: it may have been ordered or not. "
    "Please ask again only if you would pay twice."
)

log = logging.getLogger(__name__)
router = Router()

Place = dict[str, int]
"""Where a person waits: chat, message (ours, the one that is edited), question (theirs)."""

Outcome = Literal["done", "unchanged", "refused"]

FLOOD = (TelegramRetryAfter,)
FAULTS = (TelegramRetryAfter, TelegramNetworkError, TelegramServerError, ClientDecodeError)


async def call(
    method: Callable[[], Awaitable[object]], wait_for: tuple[type[AiogramError], ...] = ()
) -> Outcome:
    """Call Telegram, again after the errors that are worth waiting for; never raise the others."""
    while True:
        try:
            await method()
        except AiogramError as error:
            if isinstance(error, TelegramBadRequest) and "not modified" in error.message:
                return "unchanged"
            if not isinstance(error, wait_for) or isinstance(error, TelegramEntityTooLarge):
                log.info("Telegram refuses: %s", error)
                return "refused"
            await asyncio.sleep(getattr(error, "retry_after", 5.0))
        else:
            return "done"


class Desk:
    """Takes orders, follows them, and brings the videos to the people."""

    def __init__(self, bot: Bot, veo: Veo3Client, watch: Watch) -> None:
        self._bot = bot
        self._veo = veo
        self._watch = watch
        self._missed: list[str] = []
        self._known: set[tuple[int, int]] = set()
        self._locks: dict[str, asyncio.Lock] = {}

    # --- orders -------------------------------------------------------------------------------

    async def order(self, message: Message, prompt: str) -> None:
        """Submit what a person asks for. Telegram may send a message again after a crash."""
        if (message.chat.id, message.message_id) in self._known:
            return
        answers: list[Message] = []

        async def answer() -> None:
            answers.append(await message.reply("ordering …"))

        if await call(answer, wait_for=FAULTS) != "done":
            return
        place = {
            "chat": message.chat.id,
            "message": answers[0].message_id,
            "question": message.message_id,
        }
        try:
            request_id = await self._veo.submit(prompt, metadata=place)
        except SubmitUncertain:
            await self._say(place, IN_DOUBT)
        except Veo3Error as error:
            await self._say(place, f"No video: {error.message}")
        else:
            self._follow(request_id)

    def _follow(self, request_id: str) -> None:
        try:
            self._watch.add(request_id)
        except Veo3Error:
            self._missed.append(request_id)  # `run` is about to open the next watch

    async def restore(self) -> None:
        """Load what was submitted before a restart, and tell people what cannot be known."""
        for task in await self._veo.pending():
            if task.metadata is None:
                continue
            self._known.add((task.metadata["chat"], task.metadata["question"]))
            if task.in_doubt:
                await self._say(task.metadata, IN_DOUBT)

    # --- deliveries ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Bring everything that is unfinished or undelivered to its end, until cancelled."""
        while True:
            try:
                await asyncio.gather(*(self._read(self._watch) for _ in range(READERS)))
            except Veo3Error as error:  # of the key, the balance or the disk: it concerns all
                log.warning("no video can be followed: %s", error)
                await self._pause(error)
            await asyncio.sleep(TRY_AGAIN)
            with contextlib.suppress(Veo3Error):
                self._watch = await self._veo.resume(keep_open=True)
                self._watch.add(*self._missed)
                self._missed.clear()

    async def _read(self, watch: Watch) -> None:
        # A final transition counts as delivered when this reader asks for the next one.
        async for change in watch:
            async with self._locks.setdefault(change.request_id, asyncio.Lock()):
                try:
                    await self._show(change)
                except Exception:
                    log.exception("%s could not be shown", change.request_id)
            if change.final:
                self._locks.pop(change.request_id, None)

    async def _pause(self, error: Veo3Error) -> None:
        try:
            waiting = await self._veo.pending()
        except Veo3Error:
            return
        for task in waiting:
            if task.metadata is not None and not task.in_doubt:
                await self._edit(task.metadata, f"paused: {error.message}")

    async def _show(self, change: Transition) -> None:
        place = change.metadata
        if place is None:
            return
        if not change.final:
            left = "" if change.eta is None else f" about {change.eta / 60:.0f} min"
            await self._edit(place, f"{change.phase} …{left}")
        elif change.task.best_url is None:
            reason = change.error.message if change.error else "the service gave no reason"
            await self._say(place, f"No video: {reason}")
        elif not await self._bring(place, change.task, change.task.best_url):
            await self._say(place, f"Your video: {change.task.best_url}")

    async def _bring(self, place: Place, task: VideoTask, url: str) -> bool:
        """Turn the message into the video: by its URL, else as a file. Return whether it is."""
        if await self._put(place, url):
            return True
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = await self._veo.download(task, pathlib.Path(folder, "video.mp4"))
            except Veo3Error as error:
                log.warning("the link is sent: %s", error)
                return False
            if path.stat().st_size > MAX_UPLOAD:
                return False
            return await self._put(place, FSInputFile(path))

    async def _put(self, place: Place, video: str | FSInputFile) -> bool:
        chat, message = place["chat"], place["message"]
        media = InputMediaVideo(media=video)
        outcome = await call(
            lambda: self._bot.edit_message_media(media, chat_id=chat, message_id=message),
            wait_for=FAULTS,
        )
        if outcome == "done":
            await self._ring(place, "Your video is there:")
        if outcome == "refused":  # the video, or the person has deleted the message
            outcome = await call(lambda: self._bot.send_video(chat, video), wait_for=FLOOD)
        return outcome != "refused"

    async def _say(self, place: Place, text: str) -> None:
        """Turn the message into these last words."""
        outcome = await self._edit(place, text, wait_for=FAULTS)
        if outcome == "done":
            await self._ring(place, "There is an answer:")
        if outcome == "refused":
            await call(lambda: self._bot.send_message(place["chat"], text), wait_for=FLOOD)

    async def _edit(
        self, place: Place, text: str, wait_for: tuple[type[AiogramError], ...] = ()
    ) -> Outcome:
        chat, message = place["chat"], place["message"]
        return await call(
            lambda: self._bot.edit_message_text(text, chat_id=chat, message_id=message),
            wait_for=wait_for,
        )

    async def _ring(self, place: Place, text: str) -> None:
        """Let the telephone ring: it does not when a message is edited."""
        chat, message = place["chat"], place["message"]
        await call(
            lambda: self._bot.send_message(chat, text, reply_to_message_id=message),
            wait_for=FLOOD,
        )


@router.message(Command("video"))
async def video(
    message: Message, command: CommandObject, desk: Desk, bot: Bot, event_update: Update
) -> None:
    if command.args:
        await desk.order(message, command.args)
    else:
        await call(lambda: message.reply("Say what it is to show: /video a paper boat"))
    # Telegram may forget this message now; otherwise all that came with it would come again
    # after a crash, when some of it is delivered already.
    await call(lambda: bot.get_updates(offset=event_update.update_id + 1, limit=1, timeout=0))


async def main(bot: Bot, **options: Any) -> None:
    async with Veo3Client(journal="bot.db") as veo:
        desk = Desk(bot, veo, await veo.resume(keep_open=True))
        await desk.restore()
        running = asyncio.create_task(desk.run())
        dispatcher = Dispatcher(desk=desk)  # aiogram hands it to every handler that names it
        dispatcher.include_router(router)
        try:
            # One after another: Telegram forgets a message only after its order is in bot.db.
            await dispatcher.start_polling(bot, handle_as_tasks=False, **options)
        finally:
            running.cancel()
            await asyncio.wait([running])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main(Bot(os.environ["TELEGRAM_TOKEN"])))
