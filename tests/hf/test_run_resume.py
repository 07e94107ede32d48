"""`stemmata run --resume --keep`: a command that is killed and started again unchanged goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed
from transformers import Trainer

import tiny_models as tiny
from stemmata.attach import hook
from stemmata.attach.settings import Settings, read_report
from stemmata.catalog import queries
from stemmata.errors import IncompleteState
from stemmata.hf import VersionCallback, attached, distributed
from stemmata.repository import Repository
from stemmata.repository import open as open_repository

pytestmark = pytest.mark.usefixtures("one_thread")
TESTS = str(Path(__file__).parents[1])
JOB = """
import torch
import tiny_models as tiny

torch.set_num_threads(1)


def trainer(folder, *callbacks):
    model = tiny.gpt2()
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.2  # so that a random state that is not restored shows
    return tiny.trainer(
        model, folder, list(callbacks), num_train_epochs=4, save_strategy="epoch", save_total_limit=1
    )
"""
# What kills it is outside of what it does: the same script, started again, finds itself killed already.
SCRIPT = """
import os, signal, time
from pathlib import Path
from transformers import TrainerCallback
import stemmata
from job import torch, trainer


class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **live):
        if state.global_step == 5 and not Path("killed").exists():
            with stemmata.open() as repo:
                while "m.resume" not in repo.models() or repo.versions("m.resume")[0].step != 4:
                    time.sleep(0.05)
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)


mine = trainer("out", Kill())
mine.train()
torch.save(mine.model.state_dict(), "weights.pt")
"""


@pytest.mark.slow
def test_a_command_that_is_killed_and_started_again_unchanged_ends_bit_for_bit_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "train.py").write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STEMMATA_")}
    path = os.pathsep.join(p for p in (TESTS, environment.get("PYTHONPATH", "")) if p)
    environment |= {"PYTHONPATH": path, "STEMMATA_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "stemmata.cli.main", "run", "m", "--run-name", "r", "--resume"]
    command += ["--keep", "1", "--", sys.executable, "train.py"]
    for status in (128 + signal.SIGKILL, 0):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, done.stderr
    assert "m@r: 4 versions" in " ".join(done.stderr.split())

    monkeypatch.syspath_prepend(tmp_path)
    from job import trainer  # type: ignore[import-not-found]

    whole = trainer(tmp_path / "whole")
    whole.train()
    found = torch.load(tmp_path / "weights.pt", weights_only=True)
    expected = whole.model.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with open_repository(tmp_path / ".stemmata") as repo:
        line = list(reversed(repo.versions("m")))
        assert [v.name for v in line] == [f"r/epoch-{n}" for n in range(1, 5)]
        assert len({v.run.id for v in line if v.run}) == 1
        assert [v.name for v in line if v.labels.get("deletable") == "keep=1"]
        assert repo["m.resume@r/step-8"].labels == {}


# --- in one process -----------------------------------------------------------------------------------


@pytest.fixture
def wrapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Every Trainer made from here on is one of `stemmata run --run-name r --resume`."""
    (tmp_path / "report").touch()
    settings = Settings(
        str(tmp_path / "models"), "m", "epoch", "r", str(tmp_path / "report"), keep="best:1", resume=True
    )
    monkeypatch.setattr(Trainer, "__init__", Trainer.__init__)
    monkeypatch.setattr(Trainer, "train", Trainer.train)
    hook.wrap(sys.modules["transformers.trainer"], settings)
    start_again(monkeypatch)
    return settings


def start_again(monkeypatch: pytest.MonkeyPatch, *argv: str) -> None:
    """As a new process, of the command line `argv`."""
    monkeypatch.setattr(attached, "_trainings", iter(range(1, 100)))
    monkeypatch.setattr(sys, "orig_argv", ["python", *(argv or ("train.py",))])


def training(out: Path, seed: int = 0, epochs: int = 1, **more: Any) -> Any:
    settings = {"save_strategy": "epoch", "num_train_epochs": epochs, **more}
    return tiny.trainer(tiny.gpt2(seed=seed), out, [], **settings)


def warnings(settings: Settings) -> list[str]:
    return [text for kind, text in read_report(Path(settings.report)) if kind == "warning"]


def test_two_trainings_of_a_command_go_on_each_with_its_own(
    wrapped: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start in range(2):
        start_again(monkeypatch)
        first = training(tmp_path / "a", 1)
        first.train()
        second = training(tmp_path / "b", 2, epochs=1 + start)
        second.train()
    with open_repository(wrapped.repository) as repo:
        assert {v.name for v in repo.versions("m")} == {"r/epoch-1", "r-2/epoch-1", "r-2/epoch-2"}
        for trainer, name in ((first, "r/final"), (second, "r-2/epoch-2")):
            saved = repo["m@" + name].state_dict()["transformer.wte.weight"]
            assert torch.equal(saved, trainer.model.transformer.wte.weight)
        assert repo["m@r-2/epoch-2"].parents == [repo["m@r-2/epoch-1"].id.hex]
    assert warnings(wrapped) == []


def test_another_command_line_under_the_name_starts_from_the_beginning_and_is_told(
    wrapped: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path / "a").train()
    start_again(monkeypatch, "other.py")
    assert training(tmp_path / "b").train().metrics["train_loss"] > 0
    with open_repository(wrapped.repository) as repo:
        assert [v.run.name for v in repo.versions("m") if v.run] == ["r-2", "r"]
    (words,) = warnings(wrapped)
    assert "run r is there, but its states are of another command line" in words


def test_a_script_that_says_where_to_go_on_from_is_left_alone(
    wrapped: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path / "a").train()
    start_again(monkeypatch)
    asked: list[str] = []
    monkeypatch.setattr(attached.AttachedCallback, "last_state", lambda self: asked.append("!") or "")
    training(tmp_path / "a").train(str(tmp_path / "a/checkpoint-2"))
    training(tmp_path / "b").train(resume_from_checkpoint=str(tmp_path / "a/checkpoint-2"))
    assert asked == []
    training(tmp_path / "c").train(False)
    assert asked == ["!"]


@pytest.mark.parametrize(("setting", "value"), [("save_strategy", "no"), ("save_only_model", True)])
def test_settings_that_make_no_states_are_a_warning_and_the_versions_are_saved(
    wrapped: Settings, tmp_path: Path, setting: str, value: Any
) -> None:
    training(tmp_path / "a", **{setting: value}).train()
    with open_repository(wrapped.repository) as repo:
        assert repo["m@r/final"].step == 2
        assert repo.models() == ["m"]
    (words,) = warnings(wrapped)
    assert "--resume keeps no states" in words
    assert f"set {setting}=" in words


def flip_a_bit_of_state(folder: Path, name: str) -> None:
    """In what the repository stores for that state alone."""
    with open_repository(folder / "models") as repo:
        packs = {
            version.name: set(
                queries.packs_of(repo.session.catalog.connection, repo.session.row(version.id).seq)
            )
            for model in repo.models()
            for version in repo.versions(model)
        }
    (pack,) = packs.pop(name).difference(*packs.values())
    path = next((folder / "models/packs").rglob(f"{pack}*"))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def test_a_broken_state_is_told_and_the_newest_sound_one_before_it_taken(
    wrapped: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = training(tmp_path / "a", epochs=3)
    whole.train()
    flip_a_bit_of_state(tmp_path, "r/step-6")
    with open_repository(wrapped.repository) as repo:
        state = repo["m.resume@r/step-4"]
        (tmp_path / "a/checkpoint-4/optimizer.pt").unlink()
        lacking = tmp_path / "a/checkpoint-4"
        repo.save(lacking, "m.resume", name="r/broken", step=4, run=state.run, config=state.config)
        with pytest.raises(IncompleteState, match=r"r/broken lacks optimizer\.pt"):
            repo.resume("m", run="r")
    start_again(monkeypatch)
    again = training(tmp_path / "b", epochs=3)
    again.train()
    expected = whole.model.state_dict()
    assert all(torch.equal(expected[name], value) for name, value in again.model.state_dict().items())
    incomplete, damaged = warnings(wrapped)
    assert "r/broken lacks optimizer.pt" in incomplete
    assert "the state r/step-6 is broken" in damaged
    for words in (incomplete, damaged):
        assert "it goes on from r/step-4, the newest sound state before it" in words
    with open_repository(wrapped.repository) as repo:
        assert [v.name for v in reversed(repo.versions("m"))] == [f"r/epoch-{n}" for n in (1, 2, 3)]


def test_where_no_state_is_sound_a_warning_names_each_and_it_starts_anew(
    wrapped: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path / "a").train()
    flip_a_bit_of_state(tmp_path, "r/step-2")
    start_again(monkeypatch)
    assert training(tmp_path / "b").train().global_step == 2
    (words,) = warnings(wrapped)
    assert "it starts from the beginning" in words
    with open_repository(wrapped.repository) as repo:
        assert [v.run.name for v in repo.versions("m") if v.run] == ["r-2", "r"]


# --- several processes ----------------------------------------------------------------------------------


def test_every_process_goes_on_from_what_the_first_one_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each for itself might see another state: one more can be written meanwhile."""
    store = torch.distributed.HashStore()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed.distributed_c10d, "_get_default_store", lambda: store)
    for training, word in enumerate(("4f", "")):
        asked: list[int] = []

        def process(rank: int) -> str:
            monkeypatch.setattr(distributed, "_trainings", iter([training]))  # noqa: B023
            made = distributed.Meeting(SimpleNamespace(process_index=rank, world_size=2))
            return made.word(lambda: asked.append(rank) or word)  # type: ignore[func-returns-value]  # noqa: B023

        assert [process(0), process(1)] == [word, word]
        assert asked == [0]


# --- another number of processes ----------------------------------------------------------------------


def test_another_number_of_processes_is_told_once(
    repo: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def train(epochs: int) -> None:
        callback = VersionCallback(repo, "m", resume=True)
        settings = {"save_strategy": "epoch", "num_train_epochs": epochs, "run_name": "r"}
        trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback], **settings)
        trainer.train(resume_from_checkpoint=state)

    state: Path | None = None
    train(1)
    train(1)
    assert "processes" not in caplog.text
    state = tmp_path / "out/checkpoint-2"
    found = json.loads((state / "trainer_state.json").read_text())
    (mark,) = found["stateful_callbacks"]["stemmata"].values()
    mark["processes"] = 4  # as a job on four devices leaves it
    (state / "trainer_state.json").write_text(json.dumps(found))
    train(2)
    said = [r.getMessage() for r in caplog.records if "processes" in r.getMessage()]
    assert len(said) == 1
    assert "was trained by 4 processes and goes on with 1" in said[0]
    assert "not end bit for bit" in said[0]
