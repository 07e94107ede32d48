"""Processes that commit into one folder: nothing lost, nothing doubled (I6), killed or not (I5)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from ledger import Ledger
from stemmata.catalog.catalog import Catalog
from stemmata.log.entries import unseal
from stemmata.log.verify import verify_log
from stemmata.storage.local import LocalStorage

WRITER = """
import sys
from stemmata.catalog.catalog import Catalog
from stemmata.log.identity import read_identity
from stemmata.log.ops import ModelConfigure
from stemmata.storage.local import LocalStorage
from stemmata.transaction import commit

storage = LocalStorage(sys.argv[1])
catalog = Catalog.open(storage, read_identity(storage))

def plan(catalog):
    row = catalog.connection.execute("SELECT value FROM settings WHERE key = 'counter'").fetchone()
    return [ModelConfigure(model="m", settings={"counter": (int(row[0]) if row else 0) + 1})]

print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    print(commit(catalog, storage, plan, by=sys.argv[3]).txn, flush=True)
catalog.close()
"""


def start(folder: Path, count: int, name: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(count), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setenv("STEMMATA_CACHE", str(tmp_path / "user"))
    return Ledger(LocalStorage(tmp_path / "repo"))


def entries(ledger: Ledger) -> list[dict]:  # type: ignore[type-arg]
    return [msgspec.json.decode(unseal(ledger.storage.get(k.key))) for k in ledger.storage.list("log/")]


def counter(ledger: Ledger) -> int:
    with closing(Catalog.open(ledger.storage, ledger.identity)) as catalog:
        catalog.refresh()
        assert catalog.connection.execute("SELECT COUNT(*) FROM voids").fetchone() == (0,)
        row = catalog.connection.execute("SELECT value FROM settings WHERE key = 'counter'").fetchone()
        return int(row[0]) if row is not None else 0


def test_i6_processes_lose_nothing_and_double_nothing(ledger: Ledger, tmp_path: Path) -> None:
    running = [start(tmp_path / "repo", 15, f"process {i}") for i in range(4)]
    for process in running:
        go(process)
    told = []
    for process in running:
        output, _ = process.communicate(timeout=100)
        assert process.returncode == 0
        told += output.split()
    assert len(told) == 60
    assert sorted(e["txn"] for e in entries(ledger)) == sorted(told)
    assert counter(ledger) == 60
    assert list(verify_log(ledger.storage, ledger.identity)) == []


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is of POSIX")
def test_i5_a_killed_process_leaves_whole_entries_and_a_usable_catalog(
    ledger: Ledger, tmp_path: Path
) -> None:
    told: list[str] = []
    for wanted in (1, 3, 6):
        process = start(tmp_path / "repo", 1000, "victim")
        go(process)
        assert process.stdout is not None
        told += [process.stdout.readline().strip() for _ in range(wanted)]
        process.send_signal(signal.SIGKILL)
        told += process.communicate(timeout=60)[0].split()
        written = [e["txn"] for e in entries(ledger)]
        # What was told is there; what was written and not told any more is whole.
        assert set(told) <= set(written)
        assert counter(ledger) == len(written)
        assert list(verify_log(ledger.storage, ledger.identity)) == []
