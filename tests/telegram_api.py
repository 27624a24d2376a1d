"""A stand-in for Telegram's Bot API on the loopback, which refuses what the real one refuses."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import aiohttp
from aiohttp import web
from cookbook_apps import served

__all__ = ["TelegramApi", "telegram"]

MAX_BY_URL: Final = 20_000_000
MAX_UPLOAD: Final = 50_000_000


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, description: str, **parameters: object) -> None:
        self.status = status
        self.description = description
        self.parameters = parameters


class TelegramApi:
    """Private chats, one for each person, and what stands in them."""

    def __init__(self, *, flood: float = 0.0, seed: int = 0) -> None:
        self.chats: dict[int, dict[int, dict[str, Any]]] = {}
        """The bot's messages as a person sees them: ``text`` or ``video``, and ``reply_to``."""
        self.calls: list[tuple[str, int]] = []
        """What was tried: the method and the HTTP status that it got."""
        self.takes_urls = True
        """False: no URL can be fetched from here."""
        self.is_polled = False
        """Whether a bot has asked for what people write."""
        self.changed = asyncio.Event()
        self._flood = flood
        self._random = random.Random(seed)
        self._updates: list[dict[str, Any]] = []
        self._asked = asyncio.Event()
        self._messages = 0
        self._said_by_people = 0

    def ask(self, chat: int, text: str) -> None:
        """Let a person write to the bot."""
        self.chats.setdefault(chat, {})
        self._said_by_people += 1
        entity = {"type": "bot_command", "offset": 0, "length": len(text.split(maxsplit=1)[0])}
        message = self._message(chat, 1_000_000 + self._said_by_people, text) | {
            "from": {"id": chat, "is_bot": False, "first_name": "who asks"},
            "entities": [entity],
        }
        self._updates.append({"update_id": self._said_by_people, "message": message})
        self._asked.set()

    def delete(self, chat: int) -> None:
        """Let a person delete all that the bot has written."""
        self.chats[chat].clear()

    async def answer(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        fields = await self._fields(request)
        if method == "getMe":
            return _ok({"id": 1, "is_bot": True, "first_name": "bot", "username": "a_bot"})
        if method == "getUpdates":
            return _ok(await self._updates_from(fields))
        try:
            result = await self._do(method, fields)
        except Refused as error:
            self.calls.append((method, error.status))
            refusal = {
                "ok": False,
                "error_code": error.status,
                "description": error.description,
                "parameters": error.parameters,
            }
            return web.json_response(refusal, status=error.status)
        finally:
            self._wake()
        self.calls.append((method, 200))
        return _ok(result)

    async def _do(self, method: str, fields: Mapping[str, Any]) -> object:
        chat = int(fields["chat_id"])
        if self._random.random() < self._flood:
            raise Refused(429, "Too Many Requests: retry after 1", retry_after=1)
        if chat not in self.chats:
            raise Refused(403, "Forbidden: bot was blocked by the user")
        match method:
            case "sendMessage":
                said = {"text": fields["text"], "reply_to": _replied(fields)}
                return self._send(chat, said)
            case "sendVideo":
                return self._send(chat, {"video": await self._video(fields["video"], fields)})
            case "editMessageText":
                return self._edit(chat, fields, {"text": fields["text"]})
            case "editMessageMedia":
                self._find(chat, fields)
                media = json.loads(fields["media"])["media"]
                return self._edit(chat, fields, {"video": await self._video(media, fields)})
        raise Refused(404, "Not Found")

    def _send(self, chat: int, said: dict[str, Any]) -> dict[str, Any]:
        self._messages += 1
        self.chats[chat][self._messages] = said
        return self._message(chat, self._messages, said.get("text"))

    def _find(self, chat: int, fields: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self.chats[chat][int(fields["message_id"])]
        except KeyError:
            raise Refused(400, "Bad Request: message to edit not found") from None

    def _edit(self, chat: int, fields: Mapping[str, Any], said: dict[str, Any]) -> dict[str, Any]:
        message = self._find(chat, fields)
        if "text" in said and "text" not in message:
            raise Refused(400, "Bad Request: there is no text in the message to edit")
        if said.items() <= message.items():
            raise Refused(
                400,
                "Bad Request: message is not modified: specified new message content and reply "
                "markup are exactly the same as a current content and reply markup of the message",
            )
        message.pop("text", None)
        message.update(said)
        return self._message(chat, int(fields["message_id"]), said.get("text"))

    async def _video(self, source: str, fields: Mapping[str, Any]) -> str:
        """Return what names a video: where it was fetched from, or the hash of its bytes."""
        if source.startswith("attach://"):
            content = fields[source.removeprefix("attach://")]
            if len(content) > MAX_UPLOAD:
                raise Refused(413, "Request Entity Too Large")
            return hashlib.sha256(content).hexdigest()
        if not self.takes_urls:
            raise Refused(400, "Bad Request: wrong type of the web page content")
        async with aiohttp.ClientSession() as session, session.get(source) as reply:
            if not reply.ok or (reply.content_length or 0) > MAX_BY_URL:
                raise Refused(400, "Bad Request: failed to get HTTP URL content")
        return source

    async def _fields(self, request: web.Request) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, value in (await request.post()).items():
            fields[name] = value.file.read() if isinstance(value, web.FileField) else value
        return fields

    async def _updates_from(self, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Forget what comes before the offset, and return what comes after it."""
        offset = int(fields.get("offset", 0))
        self._updates = [each for each in self._updates if each["update_id"] >= offset]
        self.is_polled = True
        self._wake()
        if not self._updates and int(fields.get("timeout", 0)):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), 0.5)
        self._asked.clear()
        return self._updates[: int(fields.get("limit", 100))]

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def _message(self, chat: int, number: int, text: str | None) -> dict[str, Any]:
        message = {"message_id": number, "date": 1, "chat": {"id": chat, "type": "private"}}
        return message if text is None else message | {"text": text}


def _replied(fields: Mapping[str, Any]) -> int | None:
    number = json.loads(fields.get("reply_parameters", "{}")).get("message_id")
    return int(number or fields.get("reply_to_message_id") or 0) or None


def _ok(result: object) -> web.Response:
    return web.json_response({"ok": True, "result": result})


@asynccontextmanager
async def telegram(api: TelegramApi) -> AsyncIterator[str]:
    """Serve it, and yield where."""
    app = web.Application(client_max_size=200_000_000)
    app.router.add_route("*", "/bot{token}/{method}", api.answer)
    async with served(app, shutdown_timeout=0.1) as url:
        yield url
