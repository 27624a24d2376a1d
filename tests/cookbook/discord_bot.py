"""A Discord bot: the slash command /video answers with the video. Needs discord.py.

``DISCORD_TOKEN=… AI302_API_KEY=… python discord_bot.py``

Each person gets one message, which shows the progress and becomes the video or the reason why
there is none. The bot edits it as its own message in the channel, for an interaction ends after
15 minutes, and with a restart. To edit it twice does no harm, so a bot that is killed between
sending and noting down does it again in its next life. What was submitted is in ``bot.db``.
"""

import asyncio
import contextlib
import logging
import os
import pathlib
import tempfile
from collections.abc import Awaitable, Callable

import aiohttp
import discord
from discord import app_commands

from veo3_async import SubmitUncertain, Transition, Veo3Client, Veo3Error, VideoTask, Watch

READERS = 16  # people who are served at once; one who waits for a rate limit holds up no other
TRY_AGAIN = 30.0  # seconds after a refused key, an empty balance or a full disk
IN_DOUBT = (
    "The connection broke while your video was being ordered: it may have been ordered or not. "
    "Please ask again only if you would pay twice."
)

log = logging.getLogger(__name__)

Place = dict[str, int]
"""Where a person waits: channel, message (ours, the one that is edited), user, limit (bytes)."""


async def call(method: Callable[[], Awaitable[object]], *, essential: bool = True) -> bool:
    """Call Discord, again where its servers fail; return whether it was done.

    discord.py waits for rate limits by itself.
    """
    while True:
        try:
            await method()
        except (discord.DiscordServerError, aiohttp.ClientError, OSError) as error:
            log.info("Discord cannot be reached: %s", error)
        except discord.HTTPException as error:  # the message or the channel is gone, 413, …
            log.info("Discord refuses: %s", error)
            return False
        else:
            return True
        if not essential:
            return False
        await asyncio.sleep(5)


class VideoBot(discord.Client):
    """Takes orders, follows them, and brings the videos to the people."""

    veo: Veo3Client
    watch: Watch

    def __init__(self) -> None:
        super().__init__(intents=discord.Intents.default())
        self.tree = app_commands.CommandTree(self)
        self.tree.add_command(video)
        self._missed: list[str] = []
        self._locks: dict[str, asyncio.Lock] = {}

    async def setup_hook(self) -> None:
        self.veo = Veo3Client(journal="bot.db")
        self.watch = await self.veo.resume(keep_open=True)
        for task in await self.veo.pending():
            if task.metadata is not None and task.in_doubt:
                await self.say(task.metadata, IN_DOUBT)
        self.following = asyncio.create_task(self.follow())
        await self.tree.sync()

    async def close(self) -> None:
        if hasattr(self, "following"):
            self.following.cancel()
            await asyncio.wait([self.following])
        if hasattr(self, "veo"):
            await self.veo.aclose()  # another task than that of setup_hook: that is fine
        await super().close()

    # --- orders -------------------------------------------------------------------------------

    async def order(self, place: Place, prompt: str) -> None:
        try:
            request_id = await self.veo.submit(prompt, metadata=place)
        except SubmitUncertain:
            await self.say(place, IN_DOUBT)
        except Veo3Error as error:
            await self.say(place, f"No video: {error.message}")
        else:
            await call(lambda: self.message(place).edit(content="ordered"), essential=False)
            try:
                self.watch.add(request_id)
            except Veo3Error:
                self._missed.append(request_id)  # `follow` is about to open the next watch

    # --- deliveries ---------------------------------------------------------------------------

    async def follow(self) -> None:
        """Bring everything that is unfinished or undelivered to its end, until cancelled."""
        while True:
            try:
                await asyncio.gather(*(self._read(self.watch) for _ in range(READERS)))
            except Veo3Error as error:  # of the key, the balance or the disk: it concerns all
                log.warning("no video can be followed: %s", error)
                await self._pause(error)
            await asyncio.sleep(TRY_AGAIN)
            with contextlib.suppress(Veo3Error):
                self.watch = await self.veo.resume(keep_open=True)
                self.watch.add(*self._missed)
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
            waiting = await self.veo.pending()
        except Veo3Error:
            return
        for task in waiting:
            if task.metadata is not None and not task.in_doubt:
                await self._progress(task.metadata, f"paused: {error.message}")

    async def _show(self, change: Transition) -> None:
        place = change.metadata
        if place is None:
            return
        if not change.final:
            left = "" if change.eta is None else f" about {change.eta / 60:.0f} min"
            await self._progress(place, f"{change.phase} …{left}")
        elif change.task.best_url is None:
            reason = change.error.message if change.error else "the service gave no reason"
            await self.say(place, f"No video: {reason}")
        elif not await self._bring(place, change.task):
            await self.say(place, f"Your video: {change.task.best_url}")

    async def _bring(self, place: Place, task: VideoTask) -> bool:
        """Put the video into the message as a file. Return whether it is there."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = await self.veo.download(task, pathlib.Path(folder, "video.mp4"))
            except Veo3Error as error:
                log.warning("the link is sent: %s", error)
                return False
            return path.stat().st_size <= place["limit"] and await self._put(
                place, "Your video:", path
            )

    async def say(self, place: Place, text: str) -> None:
        """Turn the message into these last words."""
        await self._put(place, text)

    async def _put(self, place: Place, text: str, *paths: pathlib.Path) -> bool:
        """Turn the message into its last state, and let the telephone ring, which an edit does not.

        Discord makes a message only once of the same nonce, so nobody gets it twice.
        """
        message, nonce = self.message(place), str(place["message"])
        done = await call(
            lambda: message.edit(content=text, attachments=[discord.File(path) for path in paths])
        )
        if done:
            ring = f"<@{place['user']}> ⬆"
            await call(lambda: message.reply(ring, nonce=nonce), essential=False)
            return True
        channel = self.get_partial_messageable(place["channel"])  # the message may be deleted
        return await call(
            lambda: channel.send(text, files=[discord.File(path) for path in paths], nonce=nonce)
        )

    async def _progress(self, place: Place, text: str) -> None:
        await call(lambda: self.message(place).edit(content=text), essential=False)

    def message(self, place: Place) -> discord.PartialMessage:
        return self.get_partial_messageable(place["channel"]).get_partial_message(place["message"])


@app_commands.command(description="Make a video.")
@app_commands.describe(prompt="what the video is to show")
@app_commands.allowed_installs(guilds=True, users=False)  # elsewhere the bot may not edit later
async def video(interaction: discord.Interaction[VideoBot], prompt: str) -> None:
    await interaction.response.defer(thinking=True)  # Discord waits for 3 s only
    answer = await interaction.original_response()
    place = {
        "channel": answer.channel.id,
        "message": answer.id,
        "user": interaction.user.id,
        "limit": interaction.filesize_limit,  # 10 MB, more in a boosted guild
    }
    await interaction.client.order(place, prompt)


if __name__ == "__main__":
    VideoBot().run(os.environ["DISCORD_TOKEN"])
