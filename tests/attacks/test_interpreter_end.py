"""A save that is under way when the main thread has ended is finished: Python hands out no threads then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import stemmata

SCRIPT = """
import sys, traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import stemmata

root = Path(sys.argv[1])
repo = stemmata.open(root / "repo")
# Its thread and the pool that codes frames are there before the end; those of the second save are not.
repo.save(root / "first", "m", name="first", provenance={})
probe = ThreadPoolExecutor(1)


def job():
    try:
        while True:
            probe.submit(int).result()
    except RuntimeError:
        pass  # the main thread has ended
    version = repo.save(root / "second", "m", name="second", parents=["m@first"], provenance={})
    version.checkout(root / "back")


def told():
    try:
        job()
    except BaseException:
        traceback.print_exc()


ThreadPoolExecutor(1).submit(told)
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_save_of_another_thread_outlives_the_main_one(tmp_path: Path, threads: str) -> None:
    rng = np.random.default_rng(0)
    before = {f"t{i}": rng.normal(size=(512, 512)).astype(np.float32) for i in range(4)}
    after = {name: (a + rng.normal(size=a.shape) * 1e-5).astype(np.float32) for name, a in before.items()}
    for name, tensors in (("first", before), ("second", after)):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
    stemmata.open(tmp_path / "repo", create=True).close()
    env = {**os.environ, "STEMMATA_THREADS": threads, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], env=env, capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stderr) == (0, "")
    data = (tmp_path / "second" / "model.safetensors").read_bytes()
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == data
    with stemmata.open(tmp_path / "repo") as repo:
        assert repo["m@second"].read("model.safetensors") == data
