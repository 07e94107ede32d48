"""A real process, killed at random moments of its saves (I1, I5)."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import stemmata
from makers import model_folder
from warm import WarmPython

KILLS = int(os.environ.get("STEMMATA_TEST_KILLS", "30"))

SAVER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from makers import model_folder
import stemmata

repo = stemmata.open({repo!r})
print("ready", flush=True)
for i in range(1000):
    seed = int(sys.argv[1]) * 1000 + i
    folder = model_folder(Path({work!r}) / "out", seed, width=96)
    version = repo.save(folder, "m", provenance={{}})
    repo.alias("m", "newest", version)
    print(version.id, seed, flush=True)
"""


def test_i5_kill_9_at_random_moments_loses_nothing_that_was_told(tmp_path: Path, storing: WarmPython) -> None:
    """The process prints an id once save() has returned: all of these must be there and sound."""
    repo_folder = tmp_path / "repo"
    stemmata.open(repo_folder, create=True).close()
    code = SAVER.format(
        tests=str(Path(__file__).parents[1]), repo=str(repo_folder), work=str(tmp_path / "work")
    )
    dice = random.Random(7)
    told: dict[str, int] = {}
    for attempt in range(KILLS):
        process = storing.piped(code, str(attempt))
        assert process.stdout.readline() == "ready\n"
        # On a busy machine none might be told before the signal: every other time one is waited for.
        out = process.stdout.readline() if attempt % 2 else ""
        # The moment is what is being varied; nothing waits for it to be any particular one.
        time.sleep(dice.random() * 0.12)
        process.send_signal(signal.SIGKILL)
        out += process.stdout.read()
        process.wait()
        process.stdout.close()
        process.stdin.close()
        for line in out.splitlines(keepends=True):
            parts = line.split()
            if line.endswith("\n") and len(parts) == 2:
                told[parts[0]] = int(parts[1])
    repo = stemmata.open(repo_folder)
    report = repo.check()
    assert report.problems == []
    versions = {v.id.hex: v for v in repo.versions("m")} if repo.models() else {}
    assert set(told) <= set(versions)
    assert told, "the test shows nothing"
    for number, (identity, seed) in enumerate(told.items()):
        if number % 10 == 0:
            expected = model_folder(tmp_path / "expected", seed, width=96)
            read = versions[identity].read("model.safetensors")
            assert read == (expected / "model.safetensors").read_bytes()
    extra = len(versions) - len(told)
    assert 0 <= extra <= KILLS, "a kill leaves at most the one version whose telling it cut off"
    assert repo.save(tmp_path / "expected", "m").id.hex not in told
