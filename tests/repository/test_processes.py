"""Many processes, one repository (I6)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import stemmata
from makers import model_folder

WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from makers import model_folder
import stemmata
from stemmata.records import Run

me, saves = int(sys.argv[1]), int(sys.argv[2])
repo = stemmata.open({repo!r})
run = Run(id=f"run-{{me}}", name=f"worker-{{me}}")
print("ready", flush=True)
sys.stdin.readline()
for i in range(saves):
    folder = model_folder(Path({work!r}) / f"out-{{me}}", me * 1000 + i)
    version = repo.save(folder, "m", name=f"worker-{{me}}/epoch-{{i}}", run=run, provenance={{}})
    repo.alias("m", "newest", version, why=f"{{me}}-{{i}}")
    repo.annotate(version, metrics={{"score": me * 1000 + i}})
"""


@pytest.mark.parametrize(("workers", "saves"), [(2, 6), (8, 3)])
def test_i6_processes_saving_at_once_lose_and_double_nothing(
    tmp_path: Path, workers: int, saves: int
) -> None:
    stemmata.open(tmp_path / "repo", create=True).close()
    code = WORKER.format(
        tests=str(Path(__file__).parents[1]), repo=str(tmp_path / "repo"), work=str(tmp_path / "work")
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(i), str(saves)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(workers)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr
    repo = stemmata.open(tmp_path / "repo")
    versions = list(repo.versions("m"))
    names = sorted(v.name for v in versions)
    assert names == sorted(f"worker-{w}/epoch-{i}" for w in range(workers) for i in range(saves))
    for version in versions:
        worker, epoch = (int(part) for part in version.name.removeprefix("worker-").split("/epoch-"))
        seed = worker * 1000 + epoch
        assert version.metrics == {"score": float(seed)}
        expected = model_folder(tmp_path / "expected", seed)
        assert version.read("model.safetensors") == (expected / "model.safetensors").read_bytes()
    moves = repo.history("m", "newest")
    assert sorted(m.why for m in moves) == sorted(f"{w}-{i}" for w in range(workers) for i in range(saves))
    assert [m.before for m in moves[1:]] == [m.after for m in moves[:-1]]
    assert repo.check().problems == []
