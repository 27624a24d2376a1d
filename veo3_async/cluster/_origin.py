"""What travels with an id to the workers: where it is polled, and what was attached to it."""

from __future__ import annotations

from typing import Any

import msgspec

from veo3_async._metadata import Origin, metadata_from_json, metadata_json
from veo3_async._protocol.families import route_of

__all__ = ["decode_origin", "encode_origin", "made_origin"]

_USUAL_MODEL = "veo3-pro"


class _Payload(msgspec.Struct, frozen=True, omit_defaults=True):
    family: str | None = None
    path: str | None = None
    metadata: Any = None


def made_origin(model: str | None, family: str | None, metadata: object) -> Origin:
    """Return what a caller says of ids.

    :raises InvalidRequest: There is no such family or model, or the metadata cannot be kept.
    """
    kept = metadata_from_json(metadata_json(metadata))
    if model is None and family is None:
        return Origin(metadata=kept)
    route = route_of(_USUAL_MODEL if model is None else model, family)
    return Origin(route.family, route.path, kept)


def encode_origin(origin: Origin) -> bytes:
    """Return the payload of the message by which an id is watched; empty where nothing is said."""
    payload = _Payload(origin.family, origin.path, origin.metadata)
    return b"" if payload == _Payload() else msgspec.json.encode(payload)


def decode_origin(payload: bytes) -> Origin:
    """Return what a payload says.

    :raises ValueError: It is none.
    """
    try:
        said = msgspec.json.decode(payload or b"{}", type=_Payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        message = f"not an origin: {error}"
        raise ValueError(message) from None
    return Origin(said.family, said.path, said.metadata)
