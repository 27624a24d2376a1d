"""What the fake says of the account: balance, costs, submissions, uploads, models."""

from __future__ import annotations

import email.parser
import email.policy
import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

from veo3_async.testing._replies import Answer, json_answer, refusal

if TYPE_CHECKING:
    from veo3_async.testing._requests import Received

__all__ = ["MODEL_LIST", "UPLOAD", "Account", "is_account", "is_open"]

UPLOAD: Final = "/302/upload-file"
_MODELS: Final = "/302/v2/model/video"
_RECORD: Final = re.compile(r"/dashboard/record/(.+)")
_MAX_BYTES: Final = 50_000_000
_MAX_RECORDS: Final = 50
_PRICES: Final = {
    "veo3-fast": 1,
    "veo3-pro": 3,
    "veo3": 7,
    "veo2": 5,
    "veo3.1": 0.5,
    "veo3.1-pro": 1,
}
_PRICE_OF_OTHERS: Final = 0.5


def _parameter(name: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - as the sample has it
    return {"name": name, "required": name == "prompt", "description": "…", "max_num": 1} | more


def _options(*values: object) -> dict[str, Any]:
    return {"range": {"type": "list", "list": {"options": [*values]}}}


MODEL_LIST: Final[dict[str, Any]] = {
    "total": 2,
    "models": [
        {
            "model_name": "google-veo3.1",
            "display_name": "Google VEO3.1",
            "provider": "Google",
            "provider_en": "Google",
            "provider_jp": "Google",
            "price_text": "0.5 PTC/次",
            "price_text_en": "0.5 PTC/time",
            "price_text_jp": "0.5 PTC/回",
            "description": "…",
            "description_en": "…",
            "description_jp": "…",
            "capabilities": {"t2v": True, "i2v": True, "v2v": False},
            "parameters": [
                _parameter("prompt"),
                _parameter("image1"),
                _parameter("aspect_ratio", **_options("16:9", "9:16")),
                _parameter("enhance_prompt"),
            ],
        },
        {
            "model_name": "kling-21",
            "display_name": "Kling 21",
            "provider": "可灵",
            "provider_en": "Kling",
            "provider_jp": "Kling",
            "price_text": "…",
            "price_text_en": "…",
            "price_text_jp": "…",
            "description": "…",
            "description_en": "…",
            "description_jp": "…",
            "capabilities": {"t2v": False, "i2v": True, "v2v": False},
            "parameters": [
                _parameter("prompt"),
                _parameter("image1"),
                _parameter("end_image"),
                _parameter("duration", **_options(5, 10)),
            ],
        },
    ],
}


def is_account(path: str) -> bool:
    """Return whether a path is of the account, not of a task."""
    return path.startswith("/dashboard/") or path == _MODELS


def is_open(path: str) -> bool:
    """Return whether a path is answered without a key."""
    return path == _MODELS


class Account:
    """What was charged, and what was uploaded."""

    def __init__(self) -> None:
        self.balance = "12.345678"
        """In PTC, as the service writes it."""
        self.uploads: Final[dict[str, bytes]] = {}
        """What was uploaded, by the name under which it is served."""
        self._charged: Final[dict[str, dict[str, Any]]] = {}

    def charge(self, http_request_id: str, model: str, path: str, at: float) -> None:
        """Write down that a POST made a task.

        :param at: Seconds since the epoch.
        """
        price = _PRICES.get(model.removesuffix("-frames"), _PRICE_OF_OTHERS)
        self._charged[http_request_id] = {
            "request_id": http_request_id,
            "model": model,
            "path": path,
            "created_at": int(at),
            "cost": price,
        }

    def answer(self, request: Received) -> Answer:
        """Return what a GET about the account gets."""
        if request.path == _MODELS:
            return json_answer(200, MODEL_LIST)
        if request.path == "/dashboard/balance":
            return json_answer(200, {"data": {"balance": self.balance}})
        if request.path == "/dashboard/api-record":
            return self._records(request)
        found = _RECORD.fullmatch(request.path)
        if found is None or (charged := self._charged.get(found[1])) is None:
            return refusal(404, -10010)
        cost = {"cost": charged["cost"], "input_token": 0, "output_token": 0}
        return json_answer(200, {"data": cost | {"model": charged["model"], "process_time": 1}})

    def upload(self, request: Received, files_url: str) -> Answer:
        """Take a file of a multipart form."""
        if len(request.body) > _MAX_BYTES:
            return refusal(413)
        kind = request.headers.get("Content-Type", "")
        head = f"Content-Type: {kind}\r\n\r\n".encode()
        parser = email.parser.BytesParser(policy=email.policy.HTTP)
        form = parser.parsebytes(head + request.body)
        for part in form.iter_parts():
            name = part.get_param("name", header="content-disposition")
            content = part.get_payload(decode=True)
            if name == "file" and isinstance(content, bytes):
                key = hashlib.blake2b(content, digest_size=16).hexdigest() + ".jpg"
                self.uploads[key] = content
                answer = {"code": 200, "data": files_url + key, "message": "success"}
                return json_answer(200, answer)
        return refusal(400, -10011, "Invalid request: the form has no file")

    def _records(self, request: Received) -> Answer:
        query = request.query
        try:
            since, until = float(query["start_time"]), float(query["end_time"])
            page, limit = int(query.get("page", "1")), int(query.get("limit", "10"))
        except (KeyError, ValueError):
            return refusal(400, -10011)
        if not 1 <= limit <= _MAX_RECORDS or page < 1:
            return refusal(400, -10011)
        found = [r for r in self._charged.values() if since <= r["created_at"] <= until]
        items = found[(page - 1) * limit : page * limit]
        about = {"page": page, "limit": limit, "total": len(found)}
        return json_answer(200, {"items": items, "pagination": about})
