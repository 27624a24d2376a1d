"""What a POST asks the fake for, or what is wrong with it."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING, Any

import msgspec

from veo3_async.testing._replies import Request

if TYPE_CHECKING:
    from veo3_async.testing._dialects import Place
    from veo3_async.testing._requests import Received

__all__ = ["understood"]

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def understood(request: Received, place: Place) -> Request | str:
    """Return what a POST asks for, or what is wrong with it."""
    try:
        content = msgspec.json.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "Invalid request: the body is no JSON"
    if not isinstance(content, dict):
        return "Invalid request: the body is no JSON object"
    name = "text_prompt" if place.family == "record" else "prompt"
    prompt = content.get(name)
    if not isinstance(prompt, str) or not prompt.strip():
        return f"Invalid request: {name} is missing"
    model = place.model or content.get("model")
    if not isinstance(model, str) or not model:
        return "Invalid request: model is missing"
    images = _images(content, place)
    webhook = request.query.get("webhook")
    if isinstance(images, str):
        return images
    if webhook is not None and urllib.parse.urlsplit(webhook).hostname not in _LOOPBACK:
        return "Invalid request: the fake calls webhooks on the loopback only"
    if place.model == "veo2" and content.get("aspect_ratio") not in {"16:9", "9:16"}:
        return "Invalid request: aspect_ratio is missing"
    return Request(model, prompt, images, place.family, request.path, webhook)


def _images(content: dict[str, Any], place: Place) -> tuple[str, ...] | str:
    schemes: tuple[str, ...]
    match place.family:
        case "record":
            if not place.model.endswith("-frames"):
                return ()
            images, schemes = content.get("input_image"), ("https://", "http://")
            what = "input_image is missing or no public URL"
        case "tasks":
            images, schemes = content.get("images", []), ("https://", "http://")
            what = "images are public URLs"
        case "unified":
            images, schemes = content.get("image", []), ("https://", "http://", "data:")
            what = "image is a URL"
        case _:
            return ()
    row = [images] if isinstance(images, str) else images
    if isinstance(row, list) and all(isinstance(i, str) and i.startswith(schemes) for i in row):
        return tuple(row)
    return f"Invalid request: {what}"
