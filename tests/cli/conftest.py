"""A service on another thread, and the command line in this process."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import pytest
from cli_service import KEY, Command, Result, Service, running_service

from veo3_async.cli import main


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service(speed=200) as service:
        yield service


@pytest.fixture
def command(
    service: Service, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """Return a function that runs a command in this process, with the key in the environment."""
    monkeypatch.setenv("AI302_API_KEY", KEY)
    monkeypatch.setenv("AI302_BASE_URL", service.server.url)

    def run(*arguments: str, stdin: str = "") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        monkeypatch.setattr(sys, "argv", ["/usr/bin/veo3-async", *arguments])
        code = main(arguments)
        result = Result(code, *capfd.readouterr())
        assert KEY not in result.out + result.err
        assert "Traceback" not in result.err
        return result

    return run
