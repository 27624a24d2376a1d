"""The options by which a command logs in to NATS; secrets are in files or in the environment."""

from __future__ import annotations

import pathlib
from typing import Annotated, Any, Final, TypeAlias

import typer

from veo3_async.cli._groups import Group

__all__ = ["Login"]

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


class Login(Group, frozen=True, kw_only=True):
    """The options by which a command logs in to NATS."""

    creds: Creds = None
    user: User = None
    password_file: PasswordFile = None
    token_file: TokenFile = None
    ca: Ca = None
    cert: Cert = None
    cert_key: CertKey = None

    def environment(self) -> dict[str, str]:
        """Return what was given, by the names of the environment's variables."""
        given = {
            "NATS_CREDS": self.creds,
            "NATS_USER": self.user,
            "NATS_PASSWORD_FILE": self.password_file,
            "NATS_TOKEN_FILE": self.token_file,
            "NATS_CA": self.ca,
            "NATS_CERT": self.cert,
            "NATS_KEY": self.cert_key,
        }
        return {name: str(value) for name, value in given.items() if value is not None}
