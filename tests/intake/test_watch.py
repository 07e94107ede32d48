"""`watch`: complete ones only, through rotation, restarts and a second watcher. No test sleeps."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from campaigns import LONG
from makers import model_folder
from stemmata.intake import Outcome, Watcher, import_folders
from stemmata.intake import taking as taking_module
from stemmata.repository import Repository
from stemmata.repository import open as open_repository
from warm import WarmPython

NOW = 2e9
TRAINING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import tiny_models as tiny
from transformers import TrainerCallback

class Wait(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        print("saved", state.global_step, flush=True)
        sys.stdin.readline()

out = Path(sys.argv[1])
trainer = tiny.trainer(tiny.gpt2(), out, [Wait()], num_train_epochs=3, save_strategy="epoch",
                       eval_strategy="epoch", save_total_limit=1)
trainer.train()
trainer.save_model()
print("done", flush=True)
"""


class Watched:
    """A watcher and what it told."""

    def __init__(self, repo: Repository, folder: Path, **more: Any) -> None:
        self.told: list[Outcome] = []
        self.watcher = Watcher(repo, folder, "m", tell=self.told.append, **more)

    def look(self, times: int = 2) -> list[tuple[str, str]]:
        before = len(self.told)
        for _ in range(times):
            self.watcher.look()
        return [(o.found.name, o.status) for o in self.told[before:]]


def test_a_checkpoint_is_taken_at_the_second_equal_look(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    watched = Watched(repo, tmp_path / "out")
    assert watched.look() == []  # not even the folder is there
    folder = checkpoint(tmp_path / "out", 2, whole=False)
    assert watched.look(3) == []
    checkpoint(tmp_path / "out", 2)
    assert watched.look(1) == []
    (folder / "tokenizer.json").write_text("{}")
    assert watched.look(1) == []
    assert watched.look(1) == [("out/step-2", "new")]
    assert watched.look(3) == []
    assert repo["m@out/step-2"].metrics["eval_loss"] == 1.0
    assert "tokenizer.json" in {f.path for f in repo["m@out/step-2"].files}


def test_a_state_cut_in_half_is_waited_for(repo: Repository, tmp_path: Path, checkpoint: Any) -> None:
    state = checkpoint(tmp_path / "out", 2) / "trainer_state.json"
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2])
    watched = Watched(repo, tmp_path / "out")
    assert watched.look(3) == []
    assert "cut off" in watched.watcher.unfinished()[0].reason
    state.write_bytes(whole)
    assert watched.look() == [("out/step-2", "new")]
    assert watched.watcher.unfinished() == []


def written(folder: Path, ago: float, *names: str) -> None:
    """Let files look written so long ago; all of them where none is named."""
    at = NOW - ago
    for name in names or [p.name for p in folder.iterdir()]:
        os.utime(folder / name, (at, at))


def test_new_weights_are_no_version_with_the_state_of_an_earlier_training(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    """A training that writes over what is there: its state comes last, long after its weights."""
    folder = checkpoint(tmp_path / "out", 2)
    old = (folder / "trainer_state.json").read_bytes()
    written(folder, 3600)
    model_folder(folder, 50)
    written(folder, 1, "config.json", "model.safetensors")
    watched = Watched(repo, tmp_path / "out", now=lambda: NOW)
    assert watched.look(3) == []
    (incomplete,) = watched.watcher.unfinished()
    assert "trainer_state.json is older than" in incomplete.reason
    (folder / "trainer_state.json").write_bytes(old.replace(b'"eval_loss": 1.0', b'"eval_loss": 0.5'))
    written(folder, 0, "trainer_state.json")
    assert watched.look() == [("out/step-2", "new")]
    assert repo["m@out/step-2"].metrics["eval_loss"] == 0.5


def test_while_what_is_left_out_is_written_a_checkpoint_is_not_taken(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    folder = checkpoint(tmp_path / "out", 2)
    watched = Watched(repo, tmp_path / "out")
    for size in range(1, 4):
        (folder / "optimizer.pt").write_bytes(b"x" * size)
        assert watched.look(1) == []
    assert watched.look(1) == [("out/step-2", "new")]
    (folder / "optimizer.pt").write_bytes(b"read by nobody")
    assert watched.look(3) == [], "what was taken is not read again for it"


def test_what_was_copied_or_touched_is_taken_when_it_has_been_left_alone(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    """A copy has its files in any order, and a callback may add some after the Trainer's last."""
    copied, added = checkpoint(tmp_path / "out", 2), checkpoint(tmp_path / "out", 4)
    written(copied, 90)
    written(copied, 30, "model.safetensors")
    written(added, 90)
    written(added, 85, "config.json")
    now = [NOW]
    watched = Watched(repo, tmp_path / "out", now=lambda: now[0])
    assert watched.look(3) == [("out/step-4", "new")]
    now[0] += 600
    assert watched.look() == [("out/step-2", "new")]
    now[0] = NOW
    written(checkpoint(tmp_path / "out", 6), 30, "trainer_state.json")
    assert [o.status for o in import_folders(repo, [tmp_path / "out"], model="m")] == ["known"] * 2 + ["new"]


def test_what_a_beginning_training_left_is_no_final_save(repo: Repository, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "tokenizer.json").write_text("{}")
    watched = Watched(repo, out)
    assert watched.look(3) == []
    model_folder(out, 3).joinpath("model.safetensors").rename(out / "model-00001-of-00002.safetensors")
    assert watched.look(3) == []
    shutil.copy(out / "model-00001-of-00002.safetensors", out / "model-00002-of-00002.safetensors")
    assert watched.look() == [("out/final", "new")]


def test_a_trainers_final_save_ends_with_its_arguments(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    out = tmp_path / "out"
    (checkpoint(out, 2) / "training_args.bin").write_bytes(b"")
    model_folder(out, 3)
    watched = Watched(repo, out)
    assert watched.look(3) == [("out/step-2", "new")]
    (out / "training_args.bin").write_bytes(b"")
    assert watched.look() == [("out/final", "new")]


def test_two_watchers_do_not_double(
    tmp_path: Path, repo: Repository, checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one saves between the first one's look at the repository and its save."""
    out = tmp_path / "out"
    checkpoint(out, 2)
    before = taking_module._run
    with open_repository(tmp_path / "models") as other:
        first, second = Watched(repo, out), Watched(other, out)
        first.look(1)
        second.look(1)

        def overtaken(*given: Any) -> Any:
            monkeypatch.setattr(taking_module, "_run", before)
            run = before(*given)
            assert second.look(1) == [("out/step-2", "new")]
            return run

        monkeypatch.setattr(taking_module, "_run", overtaken)
        assert first.look(1) == [("out/step-2", "known")]
    assert len(repo.versions("m")) == 1


def test_a_restart_goes_on_where_it_was(repo: Repository, tmp_path: Path, checkpoint: Any) -> None:
    out = tmp_path / "out"
    checkpoint(out, 2)
    Watched(repo, out).look()
    shutil.rmtree(out / "checkpoint-2")
    checkpoint(out, 4)
    assert Watched(repo, out).look() == [("out/step-4", "new")]
    one, two = repo["m@out/step-2"], repo["m@out/step-4"]
    assert two.parents == [one.id.hex]
    assert two.run == one.run


def test_rotation_while_it_is_read_makes_no_version_and_is_told_once(
    repo: Repository, tmp_path: Path, checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(tmp_path / "out", 2)
    before = taking_module._run

    def rotate(*given: Any) -> Any:
        shutil.rmtree(folder)
        return before(*given)

    monkeypatch.setattr(taking_module, "_run", rotate)
    watched = Watched(repo, tmp_path / "out")
    assert watched.look(4) == [("out/step-2", "gone")]
    assert "deleted before it could be taken" in watched.told[0].reason
    assert repo.models() == []


def test_a_checkpoint_that_was_taken_may_be_deleted_without_a_word(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    watched = Watched(repo, tmp_path / "out")
    checkpoint(tmp_path / "out", 2)
    checkpoint(tmp_path / "out", 4, whole=False)
    assert watched.look() == [("out/step-2", "new")]
    shutil.rmtree(tmp_path / "out")
    assert watched.look() == []
    (tmp_path / "out").write_text("a file now")
    assert watched.look() == []


@pytest.mark.parametrize("below", ["", "checkpoint-2"])
def test_a_share_that_is_away_for_a_while_ends_nothing_and_is_told_once(
    repo: Repository, tmp_path: Path, checkpoint: Any, unreachable: set[Path], below: str
) -> None:
    out = tmp_path / "out"
    checkpoint(out, 2)
    watched = Watched(repo, out)
    watched.look(1)
    unreachable.add(out / below)
    watched.look(3)
    assert watched.watcher.unfinished() == [] or below
    if not below:
        (told,) = watched.told
        assert (told.found.path, told.status) == (out, "failed")
        assert "Stale file handle" in told.reason
    watched.told.clear()
    unreachable.clear()
    assert watched.look() == [("out/step-2", "new")]


def test_another_training_in_the_folder_is_told_once(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    folder = checkpoint(tmp_path / "out", 2)
    watched = Watched(repo, tmp_path / "out")
    watched.look()
    model_folder(folder, 50)
    assert watched.look(4) == [("out/step-2", "failed")]
    assert watched.told[-1].error is not None
    assert watched.told[-1].error.kind == "name-taken"


def test_idle_once_and_stop_end_it(repo: Repository, tmp_path: Path, checkpoint: Any) -> None:
    checkpoint(tmp_path / "out", 2)
    now, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        now[0] += seconds
        slept.append(seconds)

    clocked: dict[str, Any] = {"interval": 5.0, "clock": lambda: now[0], "sleep": sleep}
    watched = Watched(repo, tmp_path / "out")
    watched.watcher.follow(idle=20.0, **clocked)
    assert [o.status for o in watched.told] == ["new"]
    assert slept == [0.5, *[5.0] * 4], "the second look at a complete checkpoint comes soon"
    slept.clear()
    Watched(repo, tmp_path / "out").watcher.follow(once=True, **clocked)
    assert slept == [0.5]
    Watched(repo, tmp_path / "out").watcher.follow(stopped=lambda: len(slept) == 3, **clocked)
    assert len(slept) == 3


@pytest.mark.slow
def test_trap_9_what_save_total_limit_deletes_is_kept(
    repo: Repository, tmp_path: Path, warm: WarmPython
) -> None:
    """A real Trainer that knows nothing of stemmata, rotating with a limit of one checkpoint."""
    out = tmp_path / "out"
    watched = Watched(repo, out)
    training = warm.piped(TRAINING, str(out), str(Path(__file__).parents[1]))
    with training.stdin, training.stdout:
        for line in training.stdout:
            if line.startswith("saved"):
                assert watched.look() == [(f"out/step-{line.split()[1]}", "new")]
                training.stdin.write("\n")
                training.stdin.flush()
    assert training.wait() == 0
    # By itself the folder holds the last checkpoint alone.
    assert [p.name for p in out.glob("checkpoint-*")] == ["checkpoint-6"]
    (final,) = watched.look()
    assert final[0] == "out/final"
    versions = [repo[f"m@out/step-{step}"] for step in (2, 4, 6)]
    assert [v.epoch for v in versions] == [1.0, 2.0, 3.0]
    assert [v.parents for v in versions] == [[], [versions[0].id.hex], [versions[1].id.hex]]
    history = json.loads((out / "checkpoint-6" / "trainer_state.json").read_bytes())["log_history"]
    logged = {row["step"]: row["eval_loss"] for row in history if "eval_loss" in row}
    assert {v.step: v.metrics["eval_loss"] for v in versions} == logged
    assert repo["m@out/final"].read("model.safetensors") == (out / "model.safetensors").read_bytes()


def test_the_command_says_each_version_and_ends_upon_sigterm(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    checkpoint(tmp_path / "out", 2)
    words = [sys.executable, "-m", "stemmata.cli.main", "watch", "out", "m", "-R", "models"]
    with subprocess.Popen(
        [*words, "--interval", "0.05"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith("m@out/step-2 ")
        watching.send_signal(signal.SIGTERM)
    assert watching.returncode == 0
    assert len(repo.versions("m")) == 1


def test_two_processes_that_watch_one_folder_make_each_version_once(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    for step in (2, 4, 6):
        checkpoint(tmp_path / "out", step)
    words = [sys.executable, "-m", "stemmata.cli.main", "watch", "out", "m", "-R", "models"]
    both = [
        subprocess.Popen(
            [*words, "--once", "--interval", "0.05", "--json"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    told = [json.loads(watching.communicate(timeout=100)[0])["versions"] for watching in both]
    assert [watching.returncode for watching in both] == [0, 0]
    for name in ("out/step-2", "out/step-4", "out/step-6"):
        assert sorted(v["status"] for found in told for v in found if v["name"] == name) == ["known", "new"]
    line = list(reversed(repo.versions("m")))
    assert [v.step for v in line] == [2, 4, 6]
    assert len({v.run.id for v in line if v.run}) == 1


def test_a_folder_that_is_not_there_or_stays_empty_is_said(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stemmata.cli.main import run

    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    words = ["--once", "--interval", "0.05", "--repo", repo.where]
    assert run(["watch", "sentiment", "out", *words]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "sentiment is not there yet" in told
    assert "is it stemmata watch out sentiment?" in told
    assert run(["watch", "out", "sentiment", *words]) == 0
    assert "nothing was taken in" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert run(["watch", "file", "sentiment", *words]) == 2
    assert "name the training's folder" in capsys.readouterr().err


def test_import_and_watch_as_commands(
    repo: Repository, tmp_path: Path, checkpoint: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from stemmata.cli.main import run

    checkpoint(tmp_path / "out", 2)
    checkpoint(tmp_path / "out", 4, whole=False)
    out, models = str(tmp_path / "out"), str(tmp_path / "models")
    assert run(["import", out, "--model", "m", "-R", models, "--dry-run"]) == 0
    said = capsys.readouterr()
    assert "m@out/step-2" in said.out
    assert "1 version would be taken in" in said.err
    assert repo.models() == []
    assert run(["watch", out, "m", "-R", models, "--once", "--interval", "0.05", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["versions"]
    assert [(v["name"], v["status"]) for v in told] == [("out/step-2", "new"), ("out/step-4", "incomplete")]
    assert run(["import", out, "--model", "m", "-R", models]) == 0
    said = capsys.readouterr()
    assert "there already" in said.out
    assert "nothing new" in said.err
    model_folder(tmp_path / "out" / "checkpoint-2", 50)
    assert run(["import", out, "--model", "m", "-R", models, "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["versions"][0]["status"] == "failed"


def test_what_failed_of_a_training_is_the_result_of_one_look_and_a_warning_of_many(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    from stemmata.cli.main import run

    words = ["watch", str(tmp_path / "out"), "m", "--repo", repo.where, "--interval", "0.05"]
    folder = checkpoint(tmp_path / "out", 2)
    assert run([*words, "--once"]) == 0
    model_folder(folder, 50)
    checkpoint(tmp_path / "out", 4)
    assert run([*words, "--until-idle", "0.1"]) == 0
    assert repo["m@out/step-4"].step == 4
    assert run([*words, "--once"]) == 4


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not LONG, reason="test_run_commands.py watches one in every run")
@pytest.mark.parametrize("method", ["sft", "dpo", "reward"])
def test_trls_commands_as_they_ship_are_watched(repo: Repository, tmp_path: Path, method: str) -> None:
    """Unmodified, while a watcher looks whenever they write a line."""
    trl_commands = pytest.importorskip("trl_commands", reason="the tiny models need the hf extra")
    bin_folder = Path(sys.executable).parent
    program, *words = trl_commands.command(tmp_path, method)
    watched = Watched(repo, tmp_path / "out")
    with subprocess.Popen(
        [str(bin_folder / program), *words, "--save_strategy", "epoch"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as training:
        assert training.stdout is not None
        said = []
        for line in training.stdout:
            said.append(line)
            watched.look(1)
    assert training.returncode == 0, "".join(said)
    watched.look()
    taken = [(o.found.name, o.status) for o in watched.told]
    assert [name for name, _ in taken] == ["out/step-1", "out/step-2", "out/final"], taken
    assert repo["m@out/final"].read("model.safetensors") == (tmp_path / "out/model.safetensors").read_bytes()
    assert repo["m@out/step-2"].epoch == 2.0
