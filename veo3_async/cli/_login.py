"""The options by which a command logs in to NATS; secrets are in files or in the environment."""

from __future__ import annotations

import pathlib
from typing import Annotated, Any, Final, TypeAlias

import typer

__all__ = ["Ca", "Cert", "CertKey", "Creds", "PasswordFile", "TokenFile", "User", "login_of"]

_LOGIN: Final = "Log in to NATS"


def _file(variable: str, text: str) -> Any:  # noqa: ANN401 - as typer has it
    return typer.Option(
        envvar=variable, exists=True, dir_okay=False, help=text, rich_help_panel=_LOGIN
    )


Creds: TypeAlias = Annotated[
    pathlib.Path | None, _file("NATS_CREDS", "A file of credentials, as nsc makes it.")
]
User: TypeAlias = Annotated[
    str | None,
    typer.Option(
        envvar="NATS_USER",
        help="The user; the password comes from NATS_PASSWORD or --password-file.",
        rich_help_panel=_LOGIN,
    ),
]
PasswordFile: TypeAlias = Annotated[
    pathlib.Path | None, _file("NATS_PASSWORD_FILE", "A file that holds the password.")
]
TokenFile: TypeAlias = Annotated[
    pathlib.Path | None,
    _file("NATS_TOKEN_FILE", "A file that holds a token; else it comes from NATS_TOKEN."),
]
Ca: TypeAlias = Annotated[
    pathlib.Path | None, _file("NATS_CA", "Certificates that sign the server's.")
]
Cert: TypeAlias = Annotated[
    pathlib.Path | None, _file("NATS_CERT", "The certificate of this client.")
]
CertKey: TypeAlias = Annotated[
    pathlib.Path | None, _file("NATS_KEY", "The private key of that certificate.")
]


def login_of(  # noqa: PLR0917 - as the options come
    creds: pathlib.Path | None,
    user: str | None,
    password_file: pathlib.Path | None,
    token_file: pathlib.Path | None,
    ca: pathlib.Path | None,
    cert: pathlib.Path | None,
    cert_key: pathlib.Path | None,
) -> dict[str, str]:
    """Return what was given, by the names of the environment's variables."""
    given = {
        "NATS_CREDS": creds,
        "NATS_USER": user,
        "NATS_PASSWORD_FILE": password_file,
        "NATS_TOKEN_FILE": token_file,
        "NATS_CA": ca,
        "NATS_CERT": cert,
        "NATS_KEY": cert_key,
    }
    return {name: str(value) for name, value in given.items() if value is not None}
