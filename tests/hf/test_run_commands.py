"""`stemmata run` on whole commands: scripts, launchers, and those that TRL ships, all unchanged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tiny_models as tiny
import trl_commands
from stemmata.repository import open as open_repository

TESTS = str(Path(__file__).parents[1])
BIN = Path(sys.executable).parent
SCRIPT = """
import os, sys
import tiny_models as tiny
names = sys.argv[1:]
more = {"ddp_backend": "gloo"} if "WORLD_SIZE" in os.environ else {}
trainers = [tiny.trainer(tiny.gpt2(), "out/" + name, [], run_name=name, **more) for name in names]
for trainer in trainers:
    trainer.train()
sys.exit(3)
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`stemmata run` in `folder`, with the helpers of these tests within reach."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STEMMATA_")}
    path = [TESTS, str(folder), environment.get("PYTHONPATH", "")]
    environment.update(
        PYTHONPATH=os.pathsep.join(p for p in path if p),
        PATH=f"{BIN}{os.pathsep}{environment['PATH']}",
        STEMMATA_CACHE=str(folder / "cache"),
        HF_HOME=str(folder / "hf"),
        HF_HUB_OFFLINE="1",
        OMP_NUM_THREADS="1",
    )
    return subprocess.run(
        [sys.executable, "-m", "stemmata.cli.main", "run", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


LAUNCHERS = ("module", "torchrun") if os.environ.get("STEMMATA_TEST_LARGE") else ("torchrun",)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_script_and_its_launcher(tmp_path: Path, launcher: str) -> None:
    """With two processes the first one writes. `accelerate launch` is below: TRL's commands go through it."""
    (tmp_path / "mine.py").write_text(SCRIPT)
    command, status = {
        "module": ([sys.executable, "-m", "mine", "a", "b"], 3),
        "torchrun": (["torchrun", "--nproc-per-node", "2", "mine.py", "a"], 1),
    }[launcher]
    done = run(tmp_path, "m", "--every", "1", "-R", "kept", "--", *command)
    assert done.returncode == status, done.stderr
    runs, last = (["a", "b"], 4) if launcher == "module" else (["a"], 2)
    with open_repository(tmp_path / "kept") as repo:
        assert sorted(v.name for v in repo.versions("m") if v.name) == [
            f"{name}/step-{step}" for name in runs for step in range(1, last + 1)
        ]
    for name in runs:
        told = " ".join(done.stderr.split())
        assert f"stemmata: m@{name}: {last} versions in {tmp_path / 'kept'}" in told


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", trl_commands.METHODS)
def test_the_commands_that_trl_ships(tmp_path: Path, method: str) -> None:
    assert shutil.which("trl", path=str(BIN)) is not None
    words = trl_commands.command(tmp_path, method)
    done = run(tmp_path, "m", "--run-name", "r", "--", *words)
    assert done.returncode == 0, done.stderr
    assert "stemmata: m@r: 2 versions" in done.stderr
    with open_repository(tmp_path / ".stemmata") as repo:
        final = repo["m@r/final"]
        assert final.names == ["r/epoch-2", "r/final"]
        final.checkout(tmp_path / "ours")
        ours, theirs = tiny.files_of(tmp_path / "ours"), tiny.files_of(tmp_path / "out")
        assert ours["model.safetensors"] == theirs["model.safetensors"]
        assert set(ours) <= set(theirs)
        assert repo["m@r/epoch-1"].load() is not None
