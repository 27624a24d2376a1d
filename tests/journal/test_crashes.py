"""The journal across violent ends: kills, power cuts, a disk that fails to sync (37 and 38)."""

from __future__ import annotations

import collections
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from veo3_async._journal.database import Database
from veo3_async._journal.schema import JOURNAL

LIFE = Path(__file__).with_name("journal_life.py")
TRACED = "openat,lseek,write,pwrite64,fsync,fdatasync,ftruncate,rename,unlink"

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def run(*arguments: str | Path, prefix: Iterable[str | Path] = ()) -> list[str]:
    command = [*prefix, sys.executable, LIFE, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, check=True, env=environment, text=True)
    return done.stdout.splitlines()


def traced(trace: Path, *inject: str) -> list[str | Path]:
    return [
        "strace",
        "-f",
        "-qq",
        "-xx",
        "-s",
        "65536",
        "-o",
        trace,
        "-e",
        f"trace={TRACED}",
        *inject,
    ]


def by_fact(facts: Iterable[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = collections.defaultdict(set)
    for fact in facts:
        kind, _, request_id = fact.partition(" ")
        found[kind].add(request_id)
    return found


def rows(path: Path) -> list[tuple[str | None, str | None, str | None]]:
    ledger = Database(str(path), JOURNAL)
    query = "SELECT request_id, finished_at, delivered_at FROM tasks"
    try:
        found: list[tuple[str | None, str | None, str | None]]
        [found] = ledger.transact([lambda cursor: cursor.execute(query).fetchall()])
        return found
    finally:
        ledger.close()


class Found(NamedTuple):
    """The request ids in a journal, and those of them that have ended."""

    known: frozenset[str | None]
    ended: frozenset[str | None]


def found_in(path: Path) -> Found:
    found = rows(path)
    return Found(
        frozenset(request_id for request_id, _, _ in found),
        frozenset(request_id for request_id, finished_at, _ in found if finished_at),
    )


def check(found: Found, said: dict[str, set[str]]) -> None:
    """Check that what was acknowledged is in the journal."""
    assert said["accepted"] - found.known == set()
    assert said["recorded"] - found.ended == set()


def check_power_cuts(directory: Path, trace: str, scratch: Path) -> int:
    """Cut the power after every call that changed something; return how many disks were opened.

    A word that is said changes no disk: what was found on each is held against it.
    """
    rng = random.Random(6)
    disk = Disk(directory)
    said: dict[str, set[str]] = collections.defaultdict(set)
    opened: dict[int, Found] = {}
    found: list[Found] = []
    for call in calls(trace):
        if call.name == "write" and call.numbers[0] == 1:
            kind, _, request_id = call.strings[0].decode().strip().partition(" ")
            said[kind].add(request_id)
        elif disk.feed(call):
            found.clear()
            for state in disk.states(rng):
                key = hash(frozenset(state.items()))
                if key not in opened:
                    opened[key] = found_on(scratch, state)
                found.append(opened[key])
        else:
            continue
        for each in found:
            check(each, said)
    return len(opened)


def found_on(scratch: Path, state: dict[str, bytes]) -> Found:
    """Open the journal of a disk."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for name, content in state.items():
        (scratch / name).write_bytes(content)
    return found_in(scratch / "veo3.db")


@pytest.fixture
def scratch(tmp_path: Path) -> Iterable[Path]:
    """Lead to a directory in memory where there is one: thousands of disks are opened in it."""
    memory = Path("/dev/shm")
    place = (memory if memory.is_dir() else tmp_path) / f"veo3-journal-{os.getpid()}"
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_fault_37_killed_at_200_random_moments(tmp_path: Path) -> None:
    """Every acknowledged id is there, and every end is delivered at least once over all starts."""
    path = tmp_path / "veo3.db"

    facts = run(path, "--lives", "200", "--rounds", "1000")
    facts += run(path, "--rounds", "1")

    said = by_fact(facts)
    assert len(said["accepted"]) > 200
    assert "failed" not in said
    check(found_in(path), said)
    assert said["recorded"] - said["got"] == set()
    delivered = {request_id for request_id, _, delivered_at in rows(path) if delivered_at}
    assert delivered - said["got"] == set()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@needs_strace
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_fault_37_power_cut_at_every_write_and_sync(tmp_path: Path, scratch: Path) -> None:
    """Every acknowledged row is on every disk that a power cut may leave behind."""
    trace = tmp_path / "trace"
    directory = tmp_path / "journal"
    directory.mkdir()

    facts = run(directory / "veo3.db", "--rounds", "16", "--checkpoint", "30", prefix=traced(trace))

    assert len(by_fact(facts)["accepted"]) == 4 * (6 * 5 + 10)
    assert check_power_cuts(directory, trace.read_text(), scratch) > 500


@needs_strace
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("reader", [(), ("--reader",)], ids=["alone", "read by somebody"])
@pytest.mark.parametrize("which", ["9..11", "10+9", "20..40", "20..41"])
def test_fault_38_a_sync_that_fails_acknowledges_nothing(
    tmp_path: Path, scratch: Path, which: str, reader: tuple[str, ...]
) -> None:
    """EIO from fdatasync is an error; later rows are acknowledged, and a power cut costs none."""
    trace = tmp_path / "trace"
    directory = tmp_path / "journal"
    directory.mkdir()
    inject = ("-e", f"inject=fdatasync:error=EIO:when={which}")

    path = directory / "veo3.db"
    # What is read by somebody has fewer syncs in a round, and is to have a few after the failure.
    rounds = "32" if reader and which.startswith("20") else "16"
    facts = run(path, "--rounds", rounds, *reader, prefix=traced(trace, *inject))

    first_failure = facts.index("failed")
    assert by_fact(facts[first_failure:])["accepted"] != set()
    assert check_power_cuts(directory, trace.read_text(), scratch) > 500


# --- a disk that forgets ------------------------------------------------------------------
#
# `Disk` is fed with the system calls that strace saw, and says what its directory may look like
# after the power failed. What was written and not yet synced may be there, or not, or in parts of
# 512 bytes; files may have appeared, moved and vanished up to any point since the directory was
# synced. A sync that failed has made nothing durable, and the next one that succeeds does not
# make up for it (Linux marks the pages as clean all the same).

_SECTOR = 512
_CALL = re.compile(r"(\d+) +(\w+)\((.*)")
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)")
_RESULT = re.compile(r"\)\s+= (-?\d+)[^=]*$")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


class Call:
    """One finished system call."""

    def __init__(self, name: str, text: str, result: int) -> None:
        self.name = name
        self.result = result
        self.strings = [bytes.fromhex(s.replace("\\x", "")) for s in _STRING.findall(text)]
        self.numbers = [
            int(n) for n in re.findall(r"(?<![\w.])\d+(?![\w.])", _STRING.sub("", text))
        ]
        self.creates = "O_CREAT" in text


def calls(trace: str) -> Iterator[Call]:
    """Yield what ``strace -f -xx`` has recorded, in the order in which the calls ended."""
    begun: dict[str, tuple[str, str]] = {}
    for line in trace.splitlines():
        if resumed := _RESUMED.match(line):
            name, text = begun.pop(resumed[1])
            text += resumed[2]
        elif call := _CALL.match(line):
            name, text = call[2], call[3]
            if text.endswith("<unfinished ...>"):
                begun[call[1]] = name, text.removesuffix("<unfinished ...>")
                continue
        else:
            continue
        if result := _RESULT.search(text):
            yield Call(name, text[: result.start()], int(result[1]))


class File:
    """The bytes of one file: what the cache holds, what is durable, what is in between."""

    def __init__(self) -> None:
        self._cache = bytearray()
        self._durable = bytearray()
        self._dirty: list[tuple[int, bytes | None]] = []
        self.size = 0
        self.cache = b""
        self.durable = b""

    def change(self, offset: int, data: bytes | None) -> None:
        self._dirty.append((offset, data))
        _change(self._cache, offset, data)
        self.size = len(self._cache)
        self.cache = bytes(self._cache)

    def sync(self, *, failed: bool) -> None:
        if not failed:
            for offset, data in self._dirty:
                _change(self._durable, offset, data)
            self.durable = bytes(self._durable)
        self._dirty.clear()

    def torn(self, rng: random.Random) -> bytes:
        if not self._dirty:
            return self.durable
        content = self._durable.copy()
        for offset, data in self._dirty:
            if data is None:
                if rng.random() < 0.5:
                    _change(content, offset, None)
                continue
            for start in range(0, len(data), _SECTOR):
                if rng.random() < 0.5:
                    _change(content, offset + start, data[start : start + _SECTOR])
        return bytes(content)


class Disk:
    """One directory, as the calls change it; other files and those not worth it are left out."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptors: dict[int, File | None] = {}
        self._positions: dict[int, int] = {}
        # what the names stood for: durably, and after each change since
        self._history: list[dict[str, File]] = [{}]

    def feed(self, call: Call) -> bool:
        """Return whether the call has changed what may be on the disk."""
        match call.name:
            case "openat" if call.result >= 0:
                return self._open(call)
            case "pwrite64" | "write" if file := self._descriptors.get(call.numbers[0]):
                file.change(self._offset(call, file), call.strings[0][: call.result])
            case "lseek" if call.numbers[0] in self._descriptors:
                self._positions[call.numbers[0]] = call.result
                return False
            case "ftruncate" if file := self._descriptors.get(call.numbers[0]):
                file.change(call.numbers[1], None)
            case "fsync" | "fdatasync" if call.numbers[0] in self._descriptors:
                self._sync(call)
            case "rename" | "unlink" if call.result == 0:
                return self._rename(*(self._name(path) for path in call.strings))
            case _:
                return False
        return True

    def states(self, rng: random.Random) -> Iterator[dict[str, bytes]]:
        """Yield what the directory may hold after a power cut now."""
        first, last = self._history[0], self._history[-1]
        yield {name: file.cache for name, file in last.items()}
        yield {name: file.durable for name, file in first.items()}
        yield {name: file.durable for name, file in last.items()}
        yield {name: file.cache for name, file in first.items()}
        for _ in range(2):
            names = rng.choice(self._history)
            yield {name: file.torn(rng) for name, file in names.items()}

    def _name(self, path: bytes) -> str | None:
        whole = Path(path.decode())
        if whole.parent != self._directory or whole.name.endswith(("-shm", ".lock")):
            return None
        return whole.name

    def _offset(self, call: Call, file: File) -> int:
        if call.name == "pwrite64":
            return call.numbers[-1]
        return self._positions.pop(call.numbers[0], file.size)

    def _open(self, call: Call) -> bool:
        path = call.strings[0]
        name = self._name(path)
        names = self._history[-1]
        created = name is not None and name not in names and call.creates
        if name is not None and created:
            self._history.append({**names, name: File()})
        if Path(path.decode()) == self._directory:
            self._descriptors[call.result] = None
        elif name is not None:
            self._descriptors[call.result] = self._history[-1][name]
        else:
            self._descriptors.pop(call.result, None)
        return created

    def _sync(self, call: Call) -> None:
        file = self._descriptors[call.numbers[0]]
        if file is not None:
            file.sync(failed=call.result != 0)
        elif call.result == 0:
            del self._history[:-1]

    def _rename(self, old: str | None, new: str | None = None) -> bool:
        names = dict(self._history[-1])
        if old is None or old not in names:
            return False
        file = names.pop(old)
        if new is not None:
            names[new] = file
        self._history.append(names)
        return True


def _change(content: bytearray, offset: int, data: bytes | None) -> None:
    """Write there, or cut off what follows; what lies between is zeros."""
    content.extend(bytes(max(0, offset - len(content))))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data
