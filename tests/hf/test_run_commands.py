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
from campaigns import LONG
from stemmata.intake import Outcome, Watcher
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


def within(folder: Path) -> dict[str, str]:
    """An environment with the helpers of these tests within reach."""
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
    return environment


RUN = [sys.executable, "-m", "stemmata.cli.main", "run"]
LAUNCHERS = ("module", "torchrun") if LONG else ("torchrun",)
METHODS = trl_commands.METHODS if LONG else ("sft",)
"""Each is two Pythons that import TRL. Its trainers themselves are in test_trl.py, in every run."""


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_script_and_its_launcher(tmp_path: Path, launcher: str) -> None:
    """With two processes the first one writes. `accelerate launch` is below: TRL's commands go through it."""
    (tmp_path / "mine.py").write_text(SCRIPT)
    command, status = {
        "module": ([sys.executable, "-m", "mine", "a", "b"], 3),
        "torchrun": (["torchrun", "--nproc-per-node", "2", "mine.py", "a"], 1),
    }[launcher]
    words = [*RUN, "m", "--every", "1", "-R", "kept", "--", *command]
    done = subprocess.run(
        words, cwd=tmp_path, env=within(tmp_path), capture_output=True, text=True, check=False
    )
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
@pytest.mark.parametrize("method", METHODS)
def test_the_commands_that_trl_ships(tmp_path: Path, method: str) -> None:
    """Unmodified, under `run`; and somebody watches the same training, looking whenever it writes a line."""
    assert shutil.which("trl", path=str(BIN)) is not None
    words = [*trl_commands.command(tmp_path, method), "--save_strategy", "epoch"]
    told: list[Outcome] = []
    with (
        open_repository(tmp_path / "watched", create=True) as other,
        subprocess.Popen(
            [*RUN, "m", "--run-name", "r", "--", *words],
            cwd=tmp_path,
            env=within(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as training,
    ):
        watcher = Watcher(other, tmp_path / "out", "m", tell=told.append)
        said = ""
        assert training.stdout is not None
        for line in training.stdout:
            said += line
            watcher.look()
        assert training.wait() == 0, said
        watcher.look()
        watcher.look()
        assert [(o.found.name, o.status) for o in told] == [
            (name, "new") for name in ("out/step-1", "out/step-2", "out/final")
        ]
        weights = (tmp_path / "out/model.safetensors").read_bytes()
        assert other["m@out/final"].read("model.safetensors") == weights
        assert other["m@out/step-2"].epoch == 2.0
    assert "stemmata: m@r: 2 versions" in said
    with open_repository(tmp_path / ".stemmata") as repo:
        final = repo["m@r/final"]
        assert final.names == ["r/epoch-2", "r/final"]
        final.checkout(tmp_path / "ours")
        ours, theirs = tiny.files_of(tmp_path / "ours"), tiny.files_of(tmp_path / "out")
        assert ours["model.safetensors"] == theirs["model.safetensors"]
        assert set(ours) <= set(theirs)
        assert repo["m@r/epoch-1"].load() is not None
