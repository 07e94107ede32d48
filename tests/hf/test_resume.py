"""States to resume from: complete ones only, and whose line a training goes on with."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, TrainerCallback

import tiny_models as tiny
from stemmata.errors import IncompleteState, TrainingSaveFailed, TrainingSetup
from stemmata.hf import VersionCallback
from stemmata.hf.resume import goes_on, mark_from
from stemmata.repository import Repository
from stemmata.resuming import missing_parts

PARTS = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "model.safetensors")


def training(
    repo: Repository, out: Path, *callbacks: Any, run: str | None = "r", every: Any = "epoch", **more: Any
) -> Any:
    model = tiny.gpt2()
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.2
    callback = VersionCallback(repo, "m", every=every, resume=True)
    settings = {"save_strategy": "epoch", "num_train_epochs": 3, "run_name": run, **more}
    return tiny.trainer(model, out, [*callbacks, callback], **settings)


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def ended(repo: Repository, out: Path) -> dict[str, torch.Tensor]:
    trainer = training(repo, out)
    assert repo.resume("m", run="r") is None
    trainer.train()
    return weights(trainer)


def test_trap_4_a_state_with_a_part_missing_is_refused_by_its_name(repo: Repository, tmp_path: Path) -> None:
    """The Trainer resumes without a word from what lacks a part, and ends with other weights."""
    expected = ended(repo, tmp_path / "out")
    shutil.rmtree(tmp_path / "out/checkpoint-6")
    for part in ("rng_state.pth", "optimizer.pt"):
        shutil.copytree(tmp_path / "out/checkpoint-4", tmp_path / part / "checkpoint-4")
        (tmp_path / part / "checkpoint-4" / part).unlink()
        naive = training(repo, tmp_path / part, run="naive")
        naive.callback_handler.callbacks.pop()
        naive.train(resume_from_checkpoint=True)
        assert not same(expected, weights(naive))

    ours = training(repo, tmp_path / "other")
    ours.train(resume_from_checkpoint=repo.resume("m", run="r", step=4))
    assert same(expected, weights(ours))

    repo.save(
        tmp_path / part / "checkpoint-4", "m.resume", name="r/broken", run=repo["m.resume@r/step-4"].run
    )
    with pytest.raises(IncompleteState, match=f"m.resume@r/broken lacks {part}"):
        repo.resume("m", run="r")


class Spoil(TrainerCallback):
    """Takes a part away before anybody sees the checkpoint."""

    def __init__(self, part: str) -> None:
        self.part = part

    def on_save(self, args: Any, state: Any, control: Any, **live: Any) -> None:
        if state.global_step == 4:
            (Path(args.output_dir) / "checkpoint-4" / self.part).unlink()


def test_an_incomplete_checkpoint_is_never_kept_as_a_state(
    repo: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.suppress(TrainingSaveFailed):  # where the training is asked to stop at it
        training(repo, tmp_path / "out", Spoil("scheduler.pt"), num_train_epochs=2).train()
    assert [v.name for v in repo.versions("m.resume")] == ["r/step-2"]
    assert "scheduler.pt" in caplog.text


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_asked_for(part: str) -> None:
    whole = dict.fromkeys(PARTS, 1)
    assert missing_parts(whole, lambda _: b"") == []
    assert missing_parts({**whole, part: 0}, lambda _: b"") == [part]
    assert missing_parts({k: v for k, v in whole.items() if k != part}, lambda _: b"") == [part]


def test_every_shard_and_every_processs_random_state_is_asked_for() -> None:
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()
    there = ["optimizer.pt", "scheduler.pt", "trainer_state.json", "model.safetensors.index.json"]
    there += ["model-1.safetensors", "rng_state_1.pth"]
    missing = missing_parts(dict.fromkeys(there, 1), lambda _: index, processes=2)
    assert missing == ["model-2.safetensors", "rng_state_0.pth"]
    folders = ["pytorch_model_fsdp_0/.metadata", "pytorch_model_fsdp_0/__0_0.distcp", "optimizer_0/.metadata"]
    sharded = [*folders, "scheduler.pt", "trainer_state.json", "rng_state_0.pth", "rng_state_1.pth"]
    pieces = b"..X\x0c__0_0.distcp..X\x0c__1_0.distcp"
    assert missing_parts(dict.fromkeys(sharded, 1), lambda _: pieces) == [
        "optimizer_0/__0_0.distcp",
        "optimizer_0/__1_0.distcp",
        "pytorch_model_fsdp_0/__1_0.distcp",
    ]


@pytest.mark.parametrize(
    "index", [b"[" * 100_000, b"{}", b'{"weight_map": {"a": 1}}', b'{"weight_map": {"a": []}}', b"\xff", b"7"]
)
def test_an_index_that_is_none_counts_as_missing(index: bytes) -> None:
    whole = dict.fromkeys([*PARTS, "model.safetensors.index.json"], 1)
    assert missing_parts(whole, lambda _: index) == ["model.safetensors.index.json"]


def test_an_index_is_bounded_before_it_is_read() -> None:
    whole = {**dict.fromkeys(PARTS, 1), "model.safetensors.index.json": 1 << 40}
    assert missing_parts(whole, lambda _: pytest.fail("read")) == ["model.safetensors.index.json"]


def test_random_states_of_no_end_are_not_counted() -> None:
    whole = dict.fromkeys([*PARTS, f"rng_state_{10**15}.pth"], 1)
    for processes in (None, 10**15):
        missing = missing_parts(whole, lambda _: b"", processes=processes)
        assert missing[:2] == ["rng_state_0.pth", "rng_state_1.pth"]
        assert len(missing) == 100


@pytest.mark.parametrize(("setting", "value"), [("save_strategy", "no"), ("save_only_model", True)])
def test_settings_that_keep_no_state_are_refused_before_the_first_step(
    repo: Repository, tmp_path: Path, setting: str, value: Any
) -> None:
    with pytest.raises(TrainingSetup, match=f"set {setting}="):
        training(repo, tmp_path / "out", **{setting: value}).train()
    assert repo.models() == []


def test_a_state_changes_nothing_of_its_version(repo: Repository, tmp_path: Path) -> None:
    training(repo, tmp_path / "out", num_train_epochs=1).train()
    version, state = repo["m@r/final"], repo["m.resume@r/step-2"]
    assert not [f.path for f in version.files if f.path in PARTS[:4]]
    assert set(PARTS) <= {f.path for f in state.files}
    assert state.kind == "checkpoint"
    assert state.parents == [version.id.hex]
    assert version.load() is not None


def test_i10_a_token_that_a_tokenizer_was_loaded_with_is_in_no_state(
    repo: Repository, tmp_path: Path
) -> None:
    tiny.tokenizer().save_pretrained(tmp_path / "from")
    trainer = training(repo, tmp_path / "out", num_train_epochs=1)
    trainer.processing_class = AutoTokenizer.from_pretrained(tmp_path / "from", use_auth_token="Zk9x81qPqZ")
    trainer.train()
    for kept in (repo["m@r/final"], repo["m.resume@r/step-2"]):
        assert "tokenizer_config.json" in {file.path for file in kept.files}
        assert b"Zk9x81qPqZ" not in b"".join(kept.read(file.path) for file in kept.files)


def test_a_fork_names_its_source(repo: Repository, tmp_path: Path) -> None:
    training(repo, tmp_path / "out").train()
    training(repo, tmp_path / "fork", run="s").train(resume_from_checkpoint=repo.resume("m", run="r", step=4))
    fork = repo["m@s/final"]
    assert fork.parents == [repo["m@r/epoch-2"].id.hex]
    assert fork.run != repo["m@r/final"].run


def test_steps_made_again_with_other_bytes_get_a_number(repo: Repository, tmp_path: Path) -> None:
    training(repo, tmp_path / "out").train()
    again = training(repo, tmp_path / "out2", max_grad_norm=1e-3)
    again.train(resume_from_checkpoint=repo.resume("m", run="r", step=2))
    names = [v.name for v in reversed(repo.versions("m"))]
    assert names == ["r/epoch-1", "r/epoch-2", "r/epoch-3", "r/epoch-2-2", "r/epoch-3-2"]
    assert repo["m@r/epoch-2-2"].parents == [repo["m@r/epoch-1"].id.hex]
    assert {v.run for v in repo.versions("m")} == {repo["m@r/final"].run}


@pytest.mark.parametrize("best", [False, True])
def test_a_run_that_goes_on_past_its_end_names_what_it_ends_with(
    repo: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture, best: bool
) -> None:
    more: dict[str, Any] = {"eval_strategy": "epoch", "load_best_model_at_end": True} if best else {}
    training(repo, tmp_path / "out", num_train_epochs=2, **more).train()
    before = {name: repo[f"m@r/{name}"].id for name in (["final", "best"] if best else ["final"])}
    longer = training(repo, tmp_path / "out", num_train_epochs=4, **more)
    longer.train(resume_from_checkpoint=str(repo.resume("m", run="r")))
    for name, version in before.items():
        assert repo[f"m@r/{name}"].id == version
        assert repo[f"m@r/{name}-2"].step > repo["m@r/epoch-2"].step
    assert repo["m@r/final-2"].step == 8
    (said,) = (record.message for record in caplog.records if "went on" in record.message)
    assert said.endswith("; r/final is what it ended with before")


def test_a_finished_job_that_is_started_again_makes_nothing_new(repo: Repository, tmp_path: Path) -> None:
    training(repo, tmp_path / "out").train()
    before = repo.versions("m")[0]
    training(repo, tmp_path / "out").train(resume_from_checkpoint=repo.resume("m"))
    assert repo.versions("m")[0] == before
    assert len(repo.versions("m")) == 3


def test_a_run_that_got_another_name_is_found_by_the_one_it_asked_for(
    repo: Repository, tmp_path: Path
) -> None:
    callback = VersionCallback(repo, "m", run_name="r", every="end")
    tiny.trainer(tiny.gpt2(), tmp_path / "old", [callback], num_train_epochs=1).train()
    training(repo, tmp_path / "out", num_train_epochs=2).train()
    path = repo.resume("m", run="r")
    assert path is not None
    training(repo, tmp_path / "out", num_train_epochs=3).train(resume_from_checkpoint=path)
    assert repo.versions("m")[0].name == "r-2/epoch-3"


class Die(TrainerCallback):
    """Ends the training between a state and the version of the same step."""

    def on_save(self, args: Any, state: Any, control: Any, **live: Any) -> None:
        if state.global_step == 2:
            raise RuntimeError("killed")


def left_by(dying: Any, repo: Repository) -> Path:
    """The newest state of a training that is killed."""
    dying.add_callback(Die())
    with pytest.raises(RuntimeError, match="killed"):
        dying.train()
    for callback in dying.callback_handler.callbacks:
        if isinstance(callback, VersionCallback):
            callback.wait()
    state = repo.resume("m", run="r")
    assert state is not None
    return state


def test_an_epoch_whose_state_alone_was_written_gets_its_version_when_the_run_goes_on(
    repo: Repository, tmp_path: Path
) -> None:
    """Saves by steps come before the epoch's end: a process that is killed then has no version of it."""
    more = {"save_strategy": "steps", "save_steps": 2, "logging_strategy": "steps", "logging_steps": 1}
    training(repo, tmp_path / "whole", run="whole", **more).train()
    dying = training(repo, tmp_path / "out", **more)
    state = left_by(dying, repo)
    training(repo, tmp_path / "out", **more).train(resume_from_checkpoint=state)
    line = [v for v in reversed(repo.versions("m")) if v.name.startswith("r/")]
    assert [v.name for v in line] == ["r/epoch-1", "r/epoch-2", "r/epoch-3"]
    assert [v.parents for v in line] == [[], *([v.id.hex] for v in line[:-1])]
    for version in line:
        other = repo[f"m@whole/{version.name.partition('/')[2]}"]
        assert version.record.content == other.record.content
        assert version.metrics["loss"] == other.metrics["loss"]


def test_a_copy_that_somebody_took_from_is_no_state(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stemmata.hf import resume

    before = resume._copy

    def copy(source: Path, target: Path) -> None:
        before(source, target)
        (target / "scheduler.pt").unlink()

    monkeypatch.setattr(resume, "_copy", copy)
    trainer = training(repo, tmp_path / "out", num_train_epochs=1)
    callback = next(c for c in trainer.callback_handler.callbacks if isinstance(c, VersionCallback))
    trainer.train()
    assert "scheduler.pt" in callback.missing["r/the state of step 2"]
    assert repo.models() == ["m"]


class Rival(TrainerCallback):
    """Another training under the same name: it commits first, and is not over at the end of this one."""

    def __init__(self, repo: Repository) -> None:
        self.run = repo.run("m", "r")

    def on_step_end(self, args: Any, state: Any, control: Any, **live: Any) -> None:
        if state.global_step == 1:
            self.save(1)

    def save(self, epoch: int) -> None:
        self.run.save(torch.nn.Linear(1, 1), epoch=epoch)
        self.run._recorder.drain()


@pytest.mark.parametrize("every", ["epoch", "end"])
def test_a_run_whose_name_another_got_goes_on_under_its_own(
    repo: Repository, tmp_path: Path, every: str
) -> None:
    """What a checkpoint says of the name is older than the first commit, which decides it."""
    rival = Rival(repo)
    dying = training(repo, tmp_path / "out", rival, every=every)
    state = left_by(dying, repo)
    training(repo, tmp_path / "out", every=every).train(resume_from_checkpoint=state)
    for epoch in (2, 3):
        rival.save(epoch)
    rival.run.close()
    assert rival.run.missing == {}
    (mine,) = {v.run.id for v in repo.versions("m.resume") if v.run is not None}
    line = [v for v in reversed(repo.versions("m")) if v.run is not None and v.run.id == mine]
    expected = {
        "epoch": [["r-2/epoch-1"], ["r-2/epoch-2"], ["r-2/epoch-3", "r-2/final"]],
        "end": [["r-2/final"]],
    }
    assert [v.names for v in line] == expected[every]
    assert [v.parents for v in line] == [[], *([v.id.hex] for v in line[:-1])]
    others = [v.name for v in reversed(repo.versions("m")) if v not in line]
    assert others == ["r/epoch-1", "r/epoch-2", "r/epoch-3"]


def test_a_state_is_not_copied_where_there_is_no_room_for_it(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stemmata.hf import resume, space

    class Fill(TrainerCallback):
        def on_save(self, *a: Any, **live: Any) -> None:
            monkeypatch.setattr(space, "free_bytes", lambda folder: 4096)
            monkeypatch.setattr(resume, "_copy", None)

    trainer = training(repo, tmp_path / "out", Fill(), num_train_epochs=1)
    callback = next(c for c in trainer.callback_handler.callbacks if isinstance(c, VersionCallback))
    trainer.train()
    assert "has 4.0 KiB free" in callback.missing["r/the state of step 2"]
    assert list((repo.session.cache_folder() / "writing").iterdir()) == []


def test_a_run_that_got_another_experiments_name_is_not_what_that_goes_on_from(
    repo: Repository, tmp_path: Path
) -> None:
    """A job that asks for a new name starts from the beginning, whatever earlier runs were called."""
    for number in range(2):
        training(repo, tmp_path / f"exp-{number}", run="exp", num_train_epochs=1).train()
    assert repo["m@exp-2/final"].run is not None
    assert repo.resume("m", run="exp-2") is None, "nobody asked for it yet"
    for number in range(2):
        training(repo, tmp_path / f"two-{number}", run="exp-2", num_train_epochs=1).train()
    assert repo.resume("m", run="exp-3") is None
    names = {v.run.name for v in repo.versions("m") if v.run is not None}
    assert names == {"exp", "exp-2", "exp-2-2", "exp-2-3"}

    state = repo.resume("m", run="exp-2")
    training(repo, tmp_path / "fork", run="exp-2-3").train(resume_from_checkpoint=state)
    fork = repo["m@exp-2-3-2/epoch-2"]
    assert fork.parents == [repo["m@exp-2-3/final"].id.hex]
    assert fork.run != repo["m@exp-2-3/final"].run


LONG = "a" * 120 + "-seed-"


@pytest.mark.parametrize(("run", "others"), [(LONG + "1", [LONG + "2", LONG]), ("exp 1", ["exp-1", "exp*1"])])
def test_a_run_whose_name_makes_the_same_slug_is_another_experiment(
    repo: Repository, tmp_path: Path, run: str, others: list[str]
) -> None:
    training(repo, tmp_path / "out", run=run, num_train_epochs=1).train()
    state = repo.resume("m", run=run)
    assert state is not None
    assert [repo.resume("m", run=other) for other in others] == [None] * len(others)
    first = repo.versions("m")[0].run
    training(repo, tmp_path / "out", run=run, num_train_epochs=2).train(resume_from_checkpoint=state)
    assert repo.versions("m")[0].run == first
    training(repo, tmp_path / "fork", run=others[0], num_train_epochs=2).train(resume_from_checkpoint=state)
    assert repo.versions("m")[0].run != first
    training(repo, tmp_path / "nameless", run=None, num_train_epochs=3).train(
        resume_from_checkpoint=repo.resume("m", run=run)
    )
    assert repo.versions("m")[0].run == first
    found = repo.resume("m", run=run)
    assert found is not None
    assert json.loads((found / "trainer_state.json").read_bytes())["global_step"] == 6


def test_a_state_that_an_earlier_release_kept_is_found_by_a_name_that_is_its_slug(
    repo: Repository, tmp_path: Path
) -> None:
    training(repo, tmp_path / "out", num_train_epochs=1).train()
    state = tmp_path / "out/checkpoint-2"
    repo.save(state, "old.resume", name="exp-1/step-2", config={"resume.asked": "exp-1"})
    assert repo.resume("old", run="exp-1") is not None
    assert repo.resume("old", run="exp 1") is None
    mark = {"id": "0" * 32, "run": "exp-1", "asked": "exp-1", "processes": 1}
    assert goes_on(mark_from(mark, repo, "m"), "exp 1"), "the state itself was given"


class Raise(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **live: Any) -> None:
        if state.global_step == 5:
            raise KeyboardInterrupt


def test_a_state_that_is_being_written_is_waited_for(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted cell, and the next one that goes on: the newest state may be in memory yet."""
    asked, real = threading.Event(), repo.save

    def save(*a: Any, **k: Any) -> Any:
        if k.get("step") == 4:
            # A little longer than it takes to ask: who does not wait gets the state before.
            assert asked.wait(60)
            time.sleep(0.3)
        return real(*a, **k)

    monkeypatch.setattr(repo, "save", save)
    trainer = training(repo, tmp_path / "out", Raise())
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    signal.signal(signal.SIGTERM, before)  # the next training of a callback would put it back
    asked.set()
    found = repo.resume("m", run="r")
    assert found is not None
    assert json.loads((found / "trainer_state.json").read_text())["global_step"] == 4
