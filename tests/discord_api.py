"""A stand-in for Discord on the loopback, which refuses what the real service refuses."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import WSMsgType, web

__all__ = ["BOT", "DiscordApi", "discord_service"]

BOT: Final = 1
_BOT_USER: Final = {"id": str(BOT), "username": "bot", "discriminator": "0", "avatar": None}
_APPLICATION: Final[dict[str, Any]] = {
    "id": str(BOT),
    "name": "bot",
    "description": "",
    "icon": None,
    "flags": 0,
    "verify_key": "",
    "bot_public": True,
    "bot_require_code_grant": False,
    "summary": "",
    "owner": _BOT_USER,
    "team": None,
}


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, code: int, message: str, **more: object) -> None:
        self.status = status
        self.body = {"code": code, "message": message, **more}


class DiscordApi:
    """A private channel for each person, the interactions, and what stands in the channels.

    :param flood: Share of the requests that are answered with 429.
    :param answer_seconds: In which an interaction must be answered.
    :param interaction_seconds: After which its token is worth nothing.
    """

    def __init__(
        self,
        *,
        flood: float = 0.0,
        seed: int = 0,
        answer_seconds: float = 3.0,
        interaction_seconds: float = 900.0,
        max_upload: int = 10_000_000,
    ) -> None:
        self.channels: dict[int, dict[int, dict[str, Any]]] = {}
        """The bot's messages as a person sees them: ``content``, ``files`` (bytes each)."""
        self.statuses: list[int] = []
        """What requests got, in order."""
        self.changed = asyncio.Event()
        self.url = ""
        self.commands: list[dict[str, Any]] = []
        self._flood = flood
        self._random = random.Random(seed)
        self._answer_seconds = answer_seconds
        self._interaction_seconds = interaction_seconds
        self.max_upload = max_upload
        self._number = 1000
        self._began: dict[str, tuple[float, int]] = {}
        self._originals: dict[str, int] = {}
        self._nonces: dict[tuple[int, str], int] = {}
        self.gateway: web.WebSocketResponse | None = None

    async def ask(self, person: int, prompt: str) -> None:
        """Let a person use the command; its channel has the same number."""
        self.channels.setdefault(person, {})
        self._number += 1
        token = f"token-{self._number}"
        self._began[token] = (_now(), person)
        user = {"id": str(person), "username": "who", "discriminator": "0", "avatar": None}
        options = [{"name": "prompt", "type": 3, "value": prompt}]
        interaction = {
            "id": str(self._number),
            "application_id": str(BOT),
            "type": 2,
            "token": token,
            "version": 1,
            "channel_id": str(person),
            "channel": {"id": str(person), "type": 1, "recipients": [user]},
            "user": user,
            "data": {"id": "77", "name": "video", "type": 1, "options": options},
            "entitlements": [],
            "attachment_size_limit": self.max_upload,
            "app_permissions": "0",
        }
        assert self.gateway is not None
        await self._dispatch(self.gateway, "INTERACTION_CREATE", interaction)

    async def serve_gateway(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"op": 10, "d": {"heartbeat_interval": 40_000}})
        async for message in socket:
            said = message.json() if message.type is WSMsgType.TEXT else {}
            if said.get("op") == 1:
                await socket.send_json({"op": 11})
            if said.get("op") == 2:
                ready = {
                    "v": 10,
                    "user": _BOT_USER,
                    "guilds": [],
                    "session_id": "s",
                    "resume_gateway_url": self.url.replace("http", "ws") + "/gateway",
                    "application": {"id": str(BOT), "flags": 0},
                }
                await self._dispatch(socket, "READY", ready)
                self.gateway = socket
                self._wake()
        self.gateway = None
        self._wake()
        return socket

    async def answer(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/api").strip("/").split("/")
        fields, files = await _payload(request)
        try:
            if path[0] in {"channels", "webhooks"} and self._random.random() < self._flood:
                raise Refused(429, 0, "You are being rate limited.", retry_after=0.2)  # noqa: TRY301
            result = self._do(request.method, path, fields, files)
        except Refused as error:
            self.statuses.append(error.status)
            return _json(error.body, error.status)
        finally:
            self._wake()
        self.statuses.append(200)
        return _json(result)

    def _do(
        self, method: str, path: list[str], fields: dict[str, Any], files: list[bytes]
    ) -> object:
        match method, path:
            case "GET", ["users", "@me"]:
                return _BOT_USER
            case "GET", ["oauth2", "applications", "@me"] | ["applications", "@me"]:
                return _APPLICATION
            case "PUT", ["applications", _, "commands"]:
                self.commands = [each | {"id": "77", "version": "1"} for each in _rows(fields)]
                return [each | {"application_id": str(BOT)} for each in self.commands]
            case "POST", ["interactions", number, token, "callback"]:
                return self._called_back(number, token)
            case "GET" | "PATCH", ["webhooks", _, token, "messages", "@original"]:
                channel = self._channel_of(token, self._interaction_seconds, 401, 50027)
                return self._edit(channel, self._originals[token], fields, files)
            case "PATCH", ["channels", channel, "messages", message]:
                return self._edit(int(channel), int(message), fields, files)
            case "POST", ["channels", channel, "messages"]:
                return self._send(int(channel), fields, files)
        raise Refused(404, 0, f"404: Not Found {method} {path}")

    def _called_back(self, number: str, token: str) -> object:
        channel = self._channel_of(token, self._answer_seconds, 404, 10062)
        message = self._new(channel, {"content": "", "thinking": True})
        self._originals[token] = message
        return {"interaction": {"id": number, "type": 2, "response_message_id": str(message)}}

    def _channel_of(self, token: str, seconds: float, status: int, code: int) -> int:
        began, channel = self._began[token]
        if _now() - began > seconds:
            raise Refused(status, code, "Unknown interaction")
        return channel

    def _send(self, channel: int, fields: dict[str, Any], files: list[bytes]) -> object:
        key = (channel, str(fields.get("nonce")))
        if fields.get("enforce_nonce") and key in self._nonces:
            return self._message(channel, self._nonces[key])
        self._check(files)
        said = {"content": fields.get("content") or "", "files": files}
        said["reply"] = (fields.get("message_reference") or {}).get("message_id")
        self._nonces[key] = self._new(channel, said)
        return self._message(channel, self._nonces[key])

    def _edit(
        self, channel: int, message: int, fields: dict[str, Any], files: list[bytes]
    ) -> object:
        if message not in self.channels.get(channel, {}):
            raise Refused(404, 10008, "Unknown Message")
        self._check(files)
        if "content" in fields:
            self.channels[channel][message] |= {"content": fields["content"], "thinking": False}
        if "attachments" in fields:
            self.channels[channel][message]["files"] = files
        return self._message(channel, message)

    def _check(self, files: list[bytes]) -> None:
        if sum(map(len, files)) > self.max_upload:
            raise Refused(413, 40005, "Request entity too large")

    def _new(self, channel: int, said: dict[str, Any]) -> int:
        if channel not in self.channels:
            raise Refused(403, 50001, "Missing Access")
        self._number += 1
        self.channels[channel][self._number] = {"files": [], "reply": None, **said}
        return self._number

    def _message(self, channel: int, message: int) -> dict[str, Any]:
        return {
            "id": str(message),
            "channel_id": str(channel),
            "author": _BOT_USER,
            "content": self.channels[channel][message]["content"],
            "timestamp": "2026-11-27T00:00:00+00:00",
            "edited_timestamp": None,
            "tts": False,
            "mention_everyone": False,
            "mentions": [],
            "mention_roles": [],
            "attachments": [],
            "embeds": [],
            "pinned": False,
            "type": 0,
        }

    async def _dispatch(self, socket: web.WebSocketResponse, event: str, data: object) -> None:
        self._number += 1
        await socket.send_json({"op": 0, "t": event, "s": self._number, "d": data})

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


def _json(value: object, status: int = 200) -> web.Response:
    # discord.py reads JSON only where no charset is said, and waits at a 429 of the real service.
    headers = {"Content-Type": "application/json", "Via": "1.1 google"}
    return web.Response(body=json.dumps(value).encode(), status=status, headers=headers)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _rows(fields: Any) -> list[dict[str, Any]]:
    assert isinstance(fields, list)
    return fields


async def _payload(request: web.Request) -> tuple[Any, list[bytes]]:
    if not request.can_read_body:
        return {}, []
    if request.content_type != "multipart/form-data":
        return await request.json(), []
    form = await request.post()
    files = [value.file.read() for value in form.values() if isinstance(value, web.FileField)]
    return json.loads(str(form["payload_json"])), files


@asynccontextmanager
async def discord_service(api: DiscordApi) -> AsyncIterator[str]:
    """Serve it, and yield where."""
    app = web.Application(client_max_size=200_000_000)
    app.router.add_get("/gateway/", api.serve_gateway)
    app.router.add_get("/gateway", api.serve_gateway)
    app.router.add_route("*", "/api/{tail:.*}", api.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield api.url
    finally:
        await runner.cleanup()
