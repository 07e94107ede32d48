"""Models that are sharded over processes: whole checkpoints become versions, anything less never does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

import tiny_models as tiny
from stemmata.errors import TrainingSaveFailed, TrainingSetup
from stemmata.hf import VersionCallback, checkpoints, filesets, sharded
from stemmata.hf import callback as callback_module
from stemmata.repository import Repository
from stemmata.repository import open as open_repository
from warm import WarmPython

TESTS = Path(__file__).parents[1]
MODEL_FILES = {"config.json", "generation_config.json", "model.safetensors"}


def train_in_two_processes(warm: WarmPython, where: Path, *jobs: str) -> dict[str, list[int]]:
    """The exit codes of what tests/sharded_trainings.py does."""
    begin = f"import sys; sys.path.insert(0, {str(TESTS)!r}); import sharded_trainings as s; "
    done = warm.run(begin + "s.main(s.Path(sys.argv[1]), sys.argv[2:])", str(where), *jobs)
    assert done.returncode == 0, done.stderr[-6000:]
    codes = json.loads(done.stdout.splitlines()[-1])
    assert all(code == [0, 0] or name == "killed" for name, code in codes.items()), done.stderr[-6000:]
    return codes


def is_gathered(version: Any, gathered: Path) -> bool:
    """Whether a version, loaded, is what torch gathered of the training at that save."""
    expected = torch.load(gathered, weights_only=True)
    found = version.load().state_dict()
    return found.keys() == expected.keys() and all(torch.equal(found[n], expected[n]) for n in found)


def test_two_processes_whole_checkpoints_of_fsdp_and_tensor_parallel_become_versions(
    tmp_path: Path, warm: WarmPython
) -> None:
    train_in_two_processes(warm, tmp_path, "damaged", "not_followed", "self_sharded", "tensor_parallel")
    here = tmp_path / "damaged"
    with open_repository(here / "models") as repo:
        first, fourth = reversed(repo.versions("m"))
        assert (first.name, fourth.name) == ("r/epoch-1", "r/epoch-4")
        assert {f.path for f in first.files} == {*MODEL_FILES, "tokenizer.json", "tokenizer_config.json"}
        assert (first.event, first.step, first.epoch, first.metrics["loss"] > 0) == ("epoch", 1, 1.0, True)
        assert (fourth.parents, fourth.config["model.architecture"]) == ([first.id.hex], "GPT2LMHeadModel")
        assert fourth.config["model.parameters"] == sum(p.numel() for p in tiny.gpt2().parameters())
        assert is_gathered(first, here / "out/gathered-1.pt")
        assert is_gathered(fourth, here / "out/gathered-4.pt")
    missing = json.loads((here / "missing.json").read_text())
    assert [name for name, _ in sorted(missing.items())] == [
        f"r/{n}" for n in ("epoch-2", "epoch-3", "epoch-5", "final")
    ]
    assert "mlp.c_fc.weight has no elements" in missing["r/epoch-2"]
    assert "lacks the shard model-00002-of-00002.safetensors" in missing["r/epoch-3"]
    assert "lacks transformer.h.0.ln_1.bias" in missing["r/epoch-5"]
    for rank in (0, 1):
        shards, none = json.loads((here / f"refused-{rank}.json").read_text())
        assert "state_dict_type=SHARDED_STATE_DICT" in shards
        assert "'state_dict_type': 'FULL_STATE_DICT'" in shards
        assert "set save_strategy='epoch'" in none
    assert not (here / "none").exists()
    here = tmp_path / "self_sharded"
    for rank in (0, 1):
        callback, loop = json.loads((here / f"refused-{rank}.json").read_text())
        assert "sharded over processes, and not by the Trainer" in callback
        assert "'state_dict_type': 'FULL_STATE_DICT'" in callback
        assert "gather it on every process" in loop
        with open_repository(here / f"models-{rank}") as repo:
            assert repo.models() == []
    assert not (here / "none").exists()
    here = tmp_path / "tensor_parallel"
    with open_repository(here / "models") as repo:
        second, fourth = reversed(repo.versions("m"))
        assert (second.names, fourth.names) == (["r/step-2"], ["r/step-4", "r/final"])
        assert is_gathered(second, here / "out/gathered-2.pt")
        assert is_gathered(fourth, here / "out/gathered-4.pt")


def test_two_processes_of_fsdp_killed_and_requeued_end_the_same(tmp_path: Path, warm: WarmPython) -> None:
    codes = train_in_two_processes(warm, tmp_path, "resumed")
    assert codes["killed"] == [-9, -9]
    whole, again = json.loads((tmp_path / "resumed/digests.json").read_text())
    assert whole == again
    for folder in ("a", "b"):
        with open_repository(tmp_path / "resumed" / folder / "models") as repo:
            versions = list(reversed(repo.versions("m")))
            assert [v.name for v in versions] == ["r/epoch-1", "r/epoch-2", "r/epoch-3"]
            assert versions[-1].names == ["r/epoch-3", "r/best", "r/final"]
            assert "eval_loss" in versions[0].metrics
            state = repo.versions("m.resume")[0]
            assert {"optimizer.bin", "rng_state_1.pth", "scheduler.pt"} <= {f.path for f in state.files}


# --- what is refused ------------------------------------------------------------------------------------


def emptied(**marks: Any) -> Any:
    model = tiny.gpt2()
    model.transformer.wpe.weight = torch.nn.Parameter(torch.empty(0))
    for mark, value in marks.items():
        setattr(model.transformer.wpe.weight, mark, value)
    return model


@pytest.mark.parametrize("marks", [{"ds_id": 3}, {"ds_shape": (9, 9)}])
def test_a_tensor_that_zero_emptied_is_never_committed(tmp_path: Path, marks: dict[str, Any]) -> None:
    with pytest.raises(TrainingSetup, match=r"wpe\.weight has no elements"):
        filesets.begin(emptied(**marks), None, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_of_no_elements_is_never_committed_where_there_are_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deep copy of what ZeRO left has none of its marks, and what FSDP flattened never had them."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(TrainingSetup, match=r"wpe\.weight has no elements"):
        filesets.begin(emptied(), None, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_that_is_empty_by_itself_is_saved(repo: Repository) -> None:
    model = torch.nn.Linear(2, 2)
    model.register_parameter("none", torch.nn.Parameter(torch.empty(0)))
    kept = repo.save(model, "m").state_dict()
    assert kept["none"].shape == (0,)
    assert torch.equal(kept["weight"], model.weight)


GATHERED = {"zero_optimization.stage3_gather_16bit_weights_on_model_save": True}


def as_zero_leaves(model: Any) -> Any:
    """Parameters that look as DeepSpeed's ZeRO-3 leaves them between steps (its package is not needed)."""
    for parameter in model.parameters():
        parameter.ds_shape, parameter.ds_numel = parameter.shape, parameter.numel()
        parameter.data = torch.empty(0)
    return model


@pytest.fixture
def deepspeed(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """DeepSpeed's configuration, as accelerate answers from it."""
    settings: dict[str, object] = dict(GATHERED)
    plugin = SimpleNamespace(get_value=lambda key, default=None: settings.get(key, default))
    monkeypatch.setattr(sharded, "_plugin", lambda name: plugin if name == "deepspeed_plugin" else None)
    return settings


def begin(model: Any, every: str | int = "epoch", **more: Any) -> Any:
    settings = {"save_strategy": "epoch", "eval_strategy": "no", "process_index": 0, **more}
    steps = {name: settings.pop(name, 500) for name in ("save_steps", "eval_steps")}
    return sharded.sharding_of(model, SimpleNamespace(**settings), SimpleNamespace(**steps), every)


def test_zero_3_is_taken_only_where_it_gathers(deepspeed: dict[str, object]) -> None:
    whole, parts = tiny.gpt2(), as_zero_leaves(tiny.gpt2())
    found = begin(parts)
    assert found.wanted == {name: tuple(t.shape) for name, t in whole.state_dict().items()}
    assert found.weights == filesets.weight_bytes(whole)
    assert begin(whole) is None
    deepspeed.clear()
    with pytest.raises(
        TrainingSetup, match=r"set zero_optimization\.stage3_gather_16bit_weights_on_model_save"
    ):
        begin(parts)


def test_parts_that_look_whole_are_refused(deepspeed: dict[str, object]) -> None:
    model = tiny.gpt2()
    deepspeed["tensor_parallel.autotp_size"] = 2
    with pytest.raises(TrainingSetup, match=r"autotp_size to 1"):
        begin(model)
    deepspeed.clear()
    model.config.distributed_config = SimpleNamespace(pp_size=2, ep_size=1)
    with pytest.raises(TrainingSetup, match="pp_size=1"):
        begin(model)


class FullyShardedDataParallel(torch.nn.Module):
    """Stands for torch's class of that name, which makes nothing without an accelerator."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self._fsdp_wrapped_module = module


def test_fsdp_1_is_refused_for_its_version() -> None:
    with pytest.raises(TrainingSetup, match="'version': 2"):
        begin(FullyShardedDataParallel(tiny.gpt2()))


@pytest.mark.parametrize(
    ("every", "settings", "words"),
    [
        ("epoch", {"save_strategy": "no"}, r"set save_strategy='epoch'"),
        (3, {"save_strategy": "steps", "save_steps": 2}, r"save_steps=3"),
        (3, {"save_strategy": "epoch"}, r"save_strategy='steps' and save_steps=3"),
        ("eval", {"save_strategy": "epoch", "eval_strategy": "steps"}, r"what eval_strategy is"),
        (
            "eval",
            {"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 4, "eval_steps": 2},
            "save_steps to eval_steps",
        ),
    ],
)
def test_settings_that_make_no_checkpoint_when_a_version_is_due(
    deepspeed: dict[str, object], every: str | int, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(TrainingSetup, match=words):
        begin(as_zero_leaves(tiny.gpt2()), every, **settings)


def test_epochs_without_saves_at_their_ends_are_said(
    deepspeed: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    assert begin(as_zero_leaves(tiny.gpt2()), save_strategy="steps") is not None
    assert "only with save_strategy='epoch'" in caplog.text


# --- what is whole --------------------------------------------------------------------------------------


def rewrite(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_what_lacks_anything_is_told_by_its_name(deepspeed: dict[str, object], tmp_path: Path) -> None:
    tiny.gpt2().save_pretrained(tmp_path)
    found = begin(as_zero_leaves(tiny.gpt2()))
    assert found.problem(tmp_path) is None
    name = "transformer.h.0.attn.c_attn.weight"

    def halve(tensors: Any) -> None:
        # As a library may write a tensor that it keeps in one as several, under names of their own.
        first, second = tensors.pop(name).chunk(2)
        tensors |= {"query": first.clone(), "rest": second.clone()}

    rewrite(tmp_path, halve)
    assert found.problem(tmp_path) is None
    rewrite(tmp_path, lambda tensors: tensors.pop("query"))
    assert found.problem(tmp_path) == f"it lacks {name}"
    rewrite(tmp_path, lambda tensors: tensors.update({name: torch.zeros(16, 96)}))
    assert found.problem(tmp_path) == f"{name} is of shape [16, 96], not [32, 96]"
    rewrite(tmp_path, lambda tensors: tensors.update(unknown=torch.empty(0, 2)) or tensors.pop(name))
    assert found.problem(tmp_path) == "unknown has no elements"
    (tmp_path / "model.safetensors").unlink()
    assert found.problem(tmp_path) == "it holds no weights as safetensors"


def test_of_adapters_only_theirs_is_wanted(deepspeed: dict[str, object], tmp_path: Path) -> None:
    from peft import LoraConfig

    def made() -> Any:
        model = tiny.with_lora(tiny.gpt2())
        model.add_adapter("style", LoraConfig(r=2, target_modules=["c_fc"], fan_in_fan_out=True))
        return model

    made().save_pretrained(tmp_path)
    found = begin(as_zero_leaves(made()))
    assert found.problem(tmp_path) is None
    assert found.weights == filesets.weight_bytes(made())
    shutil.rmtree(tmp_path / "style")
    assert "it lacks style/base_model" in found.problem(tmp_path)


# --- which checkpoints become versions ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "epoch", "last", "evaluated", "expected"),
    [
        ("epoch", 2.0, False, False, ("epoch-2", "epoch")),
        ("epoch", 1.5, True, False, ("step-6", "save")),
        ("save", 2.0, True, False, ("step-6", "save")),
        ("eval", 2.0, False, True, ("step-6", "eval")),
        ("eval", 2.0, False, False, None),
        (3, 2.0, False, False, ("step-6", "step")),
        (4, 2.0, False, False, None),
        (4, 2.0, True, False, ("final", "end")),
        ("end", 2.0, False, True, None),
        ("end", 2.0, True, True, ("final", "end")),
    ],
)
def test_the_version_of_a_checkpoint(
    every: str | int, epoch: float, last: bool, evaluated: bool, expected: tuple[str, str] | None
) -> None:
    state = SimpleNamespace(global_step=6, epoch=epoch)
    assert checkpoints.wanted(every, state, last=last, evaluated=evaluated) == expected


@pytest.fixture
def held_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process trains as it is, and the callback goes by its checkpoints as if it were sharded."""
    monkeypatch.setattr(
        callback_module, "sharding_of", lambda live, *_: sharded._sharding(filesets.unwrap(live))
    )


@pytest.mark.usefixtures("held_in_parts", "one_thread")
def test_the_last_and_the_best_checkpoint(repo: Repository, tmp_path: Path) -> None:
    callback = VersionCallback(repo, "m", every="end", run_name="r")
    best = {"save_strategy": "epoch", "eval_strategy": "epoch", "load_best_model_at_end": True}
    worse = {"learning_rate": 0.5, "lr_scheduler_type": "constant", "max_grad_norm": 100.0}
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback], num_train_epochs=3, **best, **worse)
    trainer.train()
    final, found = repo["m@r/final"], repo["m@r/best"]
    assert final.step == 6
    assert found.step == trainer.state.best_global_step != 6
    weights = found.state_dict()
    assert all(torch.equal(weights[n], t) for n, t in trainer.model.state_dict().items() if n in weights)
    assert callback.missing == {}


class StopAt(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **live: Any) -> None:
        control.should_training_stop = state.global_step == 3


@pytest.mark.usefixtures("held_in_parts", "one_thread")
def test_an_end_without_a_checkpoint_is_told(repo: Repository, tmp_path: Path) -> None:
    steps = {"save_strategy": "steps", "save_steps": 2}
    callback = VersionCallback(repo, "m", every="save", run_name="r")
    tiny.trainer(tiny.gpt2(), tmp_path / "out", [StopAt(), callback], **steps).train()
    assert [v.names for v in repo.versions("m")] == [["r/step-2"]]
    assert list(callback.missing) == ["r/final"]
    assert "wrote none at its last step, 3" in callback.missing["r/final"]
    strict = VersionCallback(repo, "m", every="save", run_name="r", on_error="raise")
    with pytest.raises(TrainingSaveFailed, match="last step"):
        tiny.trainer(tiny.gpt2(), tmp_path / "other", [StopAt(), strict], **steps).train()
