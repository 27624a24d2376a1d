"""Where NATS is and how to log in there, as the environment says."""

from __future__ import annotations

import pathlib
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["DEFAULT_SERVER", "chosen_servers", "connect_options"]

DEFAULT_SERVER: Final = "nats://127.0.0.1:4222"

_AS_TEXT: Final = {"user": "NATS_USER", "password": "NATS_PASSWORD", "token": "NATS_TOKEN"}
_SECRET_FILES: Final = {"password": "NATS_PASSWORD_FILE", "token": "NATS_TOKEN_FILE"}
_CREDENTIALS: Final = frozenset({*_AS_TEXT, "user_credentials", "nkeys_seed"})


def chosen_servers(
    given: str | Sequence[str] | None, environment: Mapping[str, str]
) -> Sequence[str]:
    """Return the URLs of the servers.

    :param given: One or several; None takes ``NATS_URL``, with commas between several.
    """
    if given is None:
        given = [url.strip() for url in environment.get("NATS_URL", DEFAULT_SERVER).split(",")]
    return [given] if isinstance(given, str) else given


def connect_options(given: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of ``nats.connect``: what is not given comes from the environment.

    :raises ValueError: A file that the environment names cannot be read.
    """
    options = dict(given)
    if _CREDENTIALS.isdisjoint(options):
        options |= _credentials(environment)
    if "tls" not in options and (context := _tls(environment)) is not None:
        options["tls"] = context
    return options


def _credentials(environment: Mapping[str, str]) -> dict[str, str]:
    if path := environment.get("NATS_CREDS"):
        _text_of("NATS_CREDS", path)
        return {"user_credentials": path}
    found = {name: environment[key] for name, key in _AS_TEXT.items() if environment.get(key)}
    for name, key in _SECRET_FILES.items():
        if path := environment.get(key):
            found[name] = _text_of(key, path).strip()
    return found


def _tls(environment: Mapping[str, str]) -> ssl.SSLContext | None:
    ca, certificate, key = (
        environment.get(name) or None for name in ("NATS_CA", "NATS_CERT", "NATS_KEY")
    )
    if ca is None and certificate is None:
        return None
    try:
        context = ssl.create_default_context(cafile=ca)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        message = f"NATS_CA, NATS_CERT or NATS_KEY cannot be used: {error}"
        raise ValueError(message) from None
    return context


def _text_of(name: str, path: str) -> str:
    try:
        return pathlib.Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        message = f"{name} cannot be read: {error}"
        raise ValueError(message) from None
