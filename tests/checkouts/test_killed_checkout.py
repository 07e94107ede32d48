"""A real process, killed while it checks out: the target is as before or complete (I3, I5)."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import stemmata
from makers import contents, model_folder
from warm import WarmPython

KILLS = 12

CODE = """
import sys
import stemmata
version = stemmata.open(sys.argv[1])["m"]
print("ready", flush=True)
version.checkout(sys.argv[2])
version.path()
print("done", flush=True)
"""


def test_i5_kill_9_during_a_checkout_leaves_no_part_of_it_at_the_target(
    tmp_path: Path, storing: WarmPython
) -> None:
    repo = stemmata.open(tmp_path / "repo", create=True)
    source = model_folder(tmp_path / "out", layers=40, width=256)
    version = repo.save(source, "m", provenance={})
    expected = contents(source)
    dice = random.Random(3)
    for number in range(KILLS):
        target = tmp_path / f"target-{number}"
        process = storing.piped(CODE, str(tmp_path / "repo"), str(target))
        assert process.stdout.readline() == "ready\n"
        # The moment is what is being varied; nothing waits for it to be any particular one.
        time.sleep(dice.random() * 0.15)
        process.send_signal(signal.SIGKILL)
        process.stdout.read()
        process.wait()
        process.stdout.close()
        process.stdin.close()
        if target.exists():
            assert contents(target) == expected
        assert contents(version.path()) == expected
        assert contents(version.checkout(tmp_path / f"again-{number}")) == expected
    assert repo.check().problems == []


TERMINATED = """
import os, signal, sys
from stemmata.checkouts import writing
from stemmata.cli.main import main

real = writing.fill


def fill(folder, *rest):
    real(folder, *rest)
    assert list(folder.iterdir())
    os.kill(os.getpid(), signal.SIGTERM)


writing.fill = fill
sys.argv = ["stemmata", "-R", sys.argv[1], "checkout", "m", "-o", sys.argv[2]]
main()
"""


def test_i5_what_a_batch_system_sends_leaves_nothing_beside_the_target(
    tmp_path: Path, storing: WarmPython
) -> None:
    with stemmata.open(tmp_path / "repo", create=True) as repo:
        repo.save(model_folder(tmp_path / "out"), "m", provenance={})
    place = tmp_path / "place"
    place.mkdir()
    done = storing.run(TERMINATED, str(tmp_path / "repo"), str(place / "target"))
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert list(place.iterdir()) == []
