"""A Discord bot: !video PROMPT answers with the video. Needs discord.py.

``DISCORD_TOKEN=… AI302_API_KEY=… python discord_bot.py``
"""

import os

import discord
from discord.ext import commands

from veo3_async import Veo3Client, Veo3Error


class VideoBot(commands.Bot):
    async def setup_hook(self) -> None:
        self.veo = Veo3Client()

    async def close(self) -> None:
        await self.veo.aclose()  # another task than that of setup_hook: that is fine
        await super().close()


intents = discord.Intents.default()
intents.message_content = True
bot = VideoBot(command_prefix="!", intents=intents)


@bot.command()
async def video(ctx: commands.Context[VideoBot], *, prompt: str) -> None:
    async with ctx.typing():
        try:
            task = await ctx.bot.veo.wait(await ctx.bot.veo.submit(prompt))
            await ctx.reply(task.best_url)
        except Veo3Error as error:
            await ctx.reply(f"no video: {error.message}")


if __name__ == "__main__":
    bot.run(os.environ["DISCORD_TOKEN"])
