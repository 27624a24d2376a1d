"""How to get into NATS: by arguments, by the environment, by files."""

from __future__ import annotations

import pathlib

import pytest

from veo3_async.cluster._environment import chosen_servers, connect_options
from veo3_async.cluster._names import Names


def test_the_environment_says_where_nats_is() -> None:
    """What is given goes before it; several are separated by commas."""
    assert ["nats://a", "nats://b"] == chosen_servers(None, {"NATS_URL": "nats://a, nats://b"})
    assert ["nats://127.0.0.1:4222"] == chosen_servers(None, {})
    assert ["nats://c"] == chosen_servers("nats://c", {"NATS_URL": "nats://a"})


def test_secrets_come_from_the_environment_or_from_a_file(tmp_path: pathlib.Path) -> None:
    """A password file may end in a newline; what is given as an argument goes before all."""
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    environment = {"NATS_USER": "me", "NATS_PASSWORD_FILE": str(secret)}
    assert {"user": "me", "password": "hunter2"} == connect_options({}, environment)
    assert {"token": "hunter2"} == connect_options({}, {"NATS_TOKEN_FILE": str(secret)})
    assert {"token": "t"} == connect_options({}, {"NATS_TOKEN": "t"})
    creds = {"NATS_CREDS": str(secret), "NATS_USER": "me"}
    assert {"user_credentials": str(secret)} == connect_options({}, creds)
    assert {"user": "other"} == connect_options({"user": "other"}, environment)


@pytest.mark.parametrize("name", ["NATS_CREDS", "NATS_PASSWORD_FILE", "NATS_CA", "NATS_CERT"])
def test_a_file_that_is_missing_is_named_by_its_variable(tmp_path: pathlib.Path, name: str) -> None:
    """What an operator must correct is the variable."""
    with pytest.raises(ValueError, match=name):
        connect_options({}, {name: str(tmp_path / "none")})


@pytest.mark.parametrize("prefix", ["veo3_workers", "KV_veo3", "a_workers"])
def test_prefixes_that_share_a_bucket_are_refused(prefix: str) -> None:
    """The bucket of one would be that of another one's workers."""
    with pytest.raises(ValueError, match="share streams"):
        Names(prefix)
