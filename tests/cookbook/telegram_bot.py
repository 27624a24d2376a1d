"""A Telegram bot: /video PROMPT answers with the video. Needs aiogram 3.

``TELEGRAM_TOKEN=… AI302_API_KEY=… python telegram_bot.py``
"""

import asyncio
import os

from aiogram import Bot, Dispatcher, Router
from aiogram.filters import Command, CommandObject
from aiogram.types import Message

from veo3_async import Veo3Client

router = Router()


@router.message(Command("video"))
async def video(message: Message, command: CommandObject, veo: Veo3Client) -> None:
    request_id = await veo.submit(command.args or "a lighthouse in a storm")
    answer = await message.answer("queued")
    async with veo.watch(request_id) as changes:
        async for change in changes:
            if change.error is not None:
                await answer.edit_text(f"no video: {change.error.message}")
            elif change.final and change.task.best_url is not None:
                await message.answer_video(change.task.best_url)
            elif change.previous is not None:
                await answer.edit_text(f"{change.phase} …")


async def main(bot: Bot) -> None:
    async with Veo3Client(journal="bot.db") as veo:
        dispatcher = Dispatcher(veo=veo)  # aiogram hands it to every handler that names it
        dispatcher.include_router(router)
        await dispatcher.start_polling(bot)


if __name__ == "__main__":
    asyncio.run(main(Bot(os.environ["TELEGRAM_TOKEN"])))
