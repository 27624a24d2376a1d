"""Options and images of a submission: what each family takes is checked before anything is paid."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, TypedDict

import msgspec

from veo3_async._errors import InvalidRequest

__all__ = [
    "ANY",
    "ASPECT_RATIOS",
    "Image",
    "Order",
    "SubmitOptions",
    "checked_options",
    "image_urls",
    "one_image",
    "refuse_image",
]

Image: TypeAlias = str | Sequence[str]
"""A URL, or several where the family takes them."""

Allowed: TypeAlias = Sequence[object] | None

ANY: Final[Allowed] = None
"""Any value: the service checks it."""
ASPECT_RATIOS: Final[Allowed] = ("16:9", "9:16")


class SubmitOptions(TypedDict, total=False):
    """Named options of a submission; each family takes some of them, by the same names."""

    aspect_ratio: str
    """``16:9`` or ``9:16``; unified models may have others."""
    duration: int | str
    """Seconds; veo2 takes 5 to 8."""
    enable_upsample: bool
    """Whether an upsampled video is made of the plain one."""
    end_image: str
    """URL of the image that the video ends with."""
    enhance_prompt: bool
    """Whether the service rewrites the prompt; Veo takes English only, and this translates."""
    fps: int | str
    """Frames a second."""
    generate_audio: bool
    """Whether the video has sound."""
    mode: str
    """A word of the model's own."""
    negative_prompt: str
    """What the video is not to show."""
    quality: str
    """A word of the model's own."""
    resolution: str
    """Such as ``1080p``."""
    style: str
    """A word of the model's own."""
    video: str
    """URL of the video that this one is made from."""
    with_audio: bool
    """As ``generate_audio``, at models that call it so."""


class Order(msgspec.Struct, frozen=True):
    """What is to be submitted, as the caller said it."""

    prompt: str
    image: Image | None = None
    options: Mapping[str, Any] = {}
    """Fields that the family documents, by their names; None in one leaves it away."""
    extra: Mapping[str, Any] = {}
    """Further fields, as they are sent."""


def checked_options(
    options: Mapping[str, Any], known: Mapping[str, Allowed], *, of: str
) -> dict[str, Any]:
    """Return the options that were given, without those that are None.

    :param known: What is taken, and which values.
    :param of: Who takes them, for the message.
    :raises InvalidRequest: One is not known there, or its value is none of those that are.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if unknown := sorted(given.keys() - known.keys()):
        message = (
            f"{of} does not take {', '.join(unknown)}; it takes {', '.join(sorted(known))}, "
            "and extra= passes anything"
        )
        raise InvalidRequest(message)
    for name, value in given.items():
        allowed = known[name]
        if allowed is not None and value not in allowed:
            message = f"{name} of {of} is one of {', '.join(map(str, allowed))}, not {value!r:.64}"
            raise InvalidRequest(message)
    return given


def image_urls(image: object, *, data_urls: bool = False) -> list[str]:
    """Return the URLs of one image or several.

    :param data_urls: Whether a ``data:`` URL may be sent, too.
    :raises InvalidRequest: One of them cannot be fetched by the service, or there is none.
    """
    images = [image] if isinstance(image, str) or not isinstance(image, Sequence) else [*image]
    if not images:
        message = "image is an empty list; leave it away, or name an image"
        raise InvalidRequest(message)
    return [_url(one, data_urls=data_urls) for one in images]


def one_image(image: object) -> str:
    """Return the URL of the one image.

    :raises InvalidRequest: It cannot be fetched by the service, or there are several.
    """
    urls = image_urls(image)
    if len(urls) > 1:
        message = f"this model makes a video from one image, not from {len(urls)}"
        raise InvalidRequest(message)
    return urls[0]


def refuse_image(image: object | None, *, of: str, other: str) -> None:
    """Refuse an image where none is taken.

    :param other: Models that take one.
    :raises InvalidRequest: There is one.
    """
    if image is not None:
        message = f"{of} makes videos from text alone; with an image use {other}"
        raise InvalidRequest(message)


def _url(image: object, *, data_urls: bool) -> str:
    if isinstance(image, str):
        try:
            parts = urllib.parse.urlsplit(image)
        except ValueError:
            parts = urllib.parse.SplitResult("", "", "", "", "")
        if parts.scheme in {"http", "https"} and parts.hostname and image.isprintable():
            return image
        if data_urls and image.startswith("data:") and "," in image and image.isascii():
            return image
    message = (
        "the image is a public http(s) URL that the service can fetch; put a local file on a "
        f"web server first: {str(image)[:64]!r}"
    )
    raise InvalidRequest(message)
