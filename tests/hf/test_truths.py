"""What a version says of itself is of the weights that it holds: config, metrics, parent, base."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2ForSequenceClassification, Trainer, TrainerCallback

import tiny_models as tiny
from stemmata.errors import BaseMissing, NameTaken
from stemmata.hf import VersionCallback, origin
from stemmata.hf.filesets import unwrap
from stemmata.repository import Repository
from stemmata.resuming import missing_parts

IDS = torch.tensor([[5, 6, 7, 8], [9, 1, 1, 1]])


def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits  # type: ignore[no-any-return]


def test_a_version_has_the_config_of_the_model_that_was_saved(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is written while the next save waits."""
    small, large = torch.nn.Linear(1, 1), torch.nn.Linear(9, 9)
    save, begun = repo.save, threading.Event()

    def slow(*given: Any, **named: Any) -> Any:
        begun.wait(0.5)  # longer than the next save takes to begin
        return save(*given, **named)

    monkeypatch.setattr(repo, "save", slow)
    with repo.run("m", "r") as run:
        run.save(small, step=1)
        run.save(large, step=2)
    sizes = [v.config["model.parameters"] for v in reversed(repo.versions("m"))]
    assert sizes == [2, 90]


@pytest.mark.parametrize("merged", [False, True])
def test_a_base_that_changed_since_its_version_is_named_nowhere(
    repo: Repository, base: Path, tmp_path: Path, merged: bool
) -> None:
    """By an adapter merged into it, or by hand: loaded on the version the new one would be another model."""
    model = AutoModelForCausalLM.from_pretrained(base)
    tiny.trainer(model, tmp_path / "full", [VersionCallback(repo, "m", run_name="full")], max_steps=1).train()
    if merged:
        first = tiny.with_lora(model, init_lora_weights=False)
        tiny.trainer(first, tmp_path / "a", [VersionCallback(repo, "m", run_name="a")], max_steps=1).train()
        assert torch.equal(logits(first), logits(repo["m@a/final"].load())), "its base is the version"
        model = first.merge_and_unload()
    else:
        with torch.no_grad():
            model.transformer.h[0].attn.c_attn.weight.add_(1.0)
    second = tiny.with_lora(model, init_lora_weights=False)
    callback = VersionCallback(repo, "m", run_name="b")
    with pytest.warns(UserWarning, match="is no longer the one at m@full"):
        tiny.trainer(second, tmp_path / "b", [callback], max_steps=1).train()
    version = repo["m@b/final"]
    assert version.base is not None
    assert version.base.version is None
    with pytest.raises(BaseMissing):
        version.load()


def evaluated(trainer: Any, losses: list[float]) -> None:
    """Evaluations that find these losses, one after the other."""
    left = iter(losses)

    def evaluate(*_: Any, **__: Any) -> dict[str, float]:
        found = {"eval_loss": next(left)}
        trainer.log(dict(found))
        args, state = trainer.args, trainer.state
        trainer.control = trainer.callback_handler.on_evaluate(args, state, trainer.control, found)
        return found

    trainer.evaluate = evaluate


@pytest.mark.parametrize("name", ["default", "style"])
def test_best_is_the_best_epoch_also_where_the_trainer_brings_no_weights_back(
    repo: Repository, base: Path, tmp_path: Path, name: str
) -> None:
    """It looks for an adapter that is not called "default" where none is, says so, and goes on."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM", fan_in_fan_out=True)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config, adapter_name=name)
    settings = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    callback = VersionCallback(repo, "m", run_name="r")
    trainer = tiny.trainer(model, tmp_path / "out", [callback], num_train_epochs=3, **settings)
    evaluated(trainer, [1.0, 5.0, 6.0])
    trainer.train()
    assert repo["m@r/best"] == repo["m@r/epoch-1"]
    assert repo["m@r/best"].metrics["eval_loss"] == 1.0
    assert repo["m@r/final"].step == 6


def test_best_has_the_metrics_of_the_checkpoint_that_was_loaded(repo: Repository, tmp_path: Path) -> None:
    """The best evaluation of all was at a step that no checkpoint was written at."""
    callback = VersionCallback(repo, "m", every="end", run_name="r")
    settings = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 2}
    trainer = tiny.trainer(
        tiny.gpt2(), tmp_path / "out", [callback], max_steps=4, load_best_model_at_end=True, **settings
    )
    evaluated(trainer, [6.0, 5.0, 4.0, 5.5])
    trainer.train()
    assert str(trainer.state.best_model_checkpoint).endswith("checkpoint-2")
    assert (repo["m@r/best"].step, repo["m@r/best"].metrics["eval_loss"]) == (2, 5.0)


def test_what_was_logged_before_an_earlier_version_is_told_once(repo: Repository, tmp_path: Path) -> None:
    callback = VersionCallback(repo, "m", run_name="r")
    settings = {"logging_strategy": "steps", "logging_steps": 3, "num_train_epochs": 4}
    tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback], **settings).train()
    told = ["loss" in repo[f"m@r/epoch-{n}"].metrics for n in (1, 2, 3, 4)]
    assert told == [False, True, True, False], "logged at steps 3 and 6; an epoch has two"


def test_a_classifiers_adapter_comes_back_with_what_the_script_set(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    labels = {0: "neg", 1: "pos"}
    full = GPT2ForSequenceClassification.from_pretrained(base, num_labels=2, id2label=labels)
    full.config.pad_token_id = 1
    model = tiny.with_lora(full, init_lora_weights=False, task_type="SEQ_CLS")
    with repo.run("m", "r") as run:
        run.save(model)
    loaded = repo["m@r/save-1"].load()
    assert torch.equal(logits(model), logits(loaded)), "the end of a padded row is where its padding begins"
    assert loaded.config.id2label == labels
    assert loaded.config.label2id == {"neg": 0, "pos": 1}
    given = repo["m@r/save-1"].load(pad_token_id=3)
    assert given.config.pad_token_id == 3


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
def test_added_tokens_whose_rows_alone_are_trained_come_back(repo: Repository, base: Path) -> None:
    full = AutoModelForCausalLM.from_pretrained(base)
    before = full.get_input_embeddings().weight.shape[0]
    full.resize_token_embeddings(before + 6, mean_resizing=False)
    model = tiny.with_lora(full, trainable_token_indices=[before, before + 1], init_lora_weights=False)
    with repo.run("m", "r") as run:
        run.save(model)
    ids = torch.tensor([[5, before, before + 1]])
    assert torch.equal(logits(model, ids), logits(repo["m@r/save-1"].load(), ids))


def test_wrappers_come_off_in_any_order() -> None:
    model = torch.nn.Linear(2, 2)
    compiled = torch.compile(model, backend="eager")

    class Parallel(torch.nn.parallel.DistributedDataParallel):
        def __init__(self, module: torch.nn.Module) -> None:
            torch.nn.Module.__init__(self)
            self.module = module

    outside = torch.compile(Parallel(model), backend="eager")
    for wrapped in (model, compiled, Parallel(model), Parallel(compiled), outside):
        assert unwrap(wrapped) is model


@pytest.mark.parametrize("own_output", [False, True])
def test_the_parent_is_whose_checkpoint_a_training_goes_on_from(
    repo: Repository, tmp_path: Path, own_output: bool
) -> None:
    """Whatever lies in its own output folder under that number."""
    settings = {"save_strategy": "epoch", "num_train_epochs": 2}
    for name in ("a", "b"):
        model = tiny.gpt2(seed=1 if name == "a" else 2)
        callback = VersionCallback(repo, "m", run_name=name)
        tiny.trainer(model, tmp_path / name, [callback], **settings).train()
    output = tmp_path / ("b" if own_output else "fresh")
    callback = VersionCallback(repo, "m", run_name="c")
    trainer = tiny.trainer(tiny.gpt2(), output, [callback], save_strategy="no", num_train_epochs=2)
    trainer.train(resume_from_checkpoint=str(tmp_path / "a/checkpoint-2"))
    line = [v for v in repo.versions("m") if v.run is not None and v.run.name == "c"]
    assert line[-1].parents == [repo["m@a/epoch-1"].id.hex]


def test_a_checkpoint_is_read_once_to_find_its_version(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many runs have a version of that step."""
    for seed in range(4):
        repo.save(tiny.saved_base(tmp_path / f"{seed}", seed=seed), "m", step=2)
    read: list[Path] = []
    hash_file = origin.hash_file
    monkeypatch.setattr(origin, "hash_file", lambda path: (read.append(path), hash_file(path))[1])
    found = origin.version_of_checkpoint(tmp_path / "0", 2, "m", repo.session)
    assert found == [*repo.versions("m")][-1].id
    assert len(read) == 1


def test_deepspeed_keeps_a_scheduler_of_its_own_with_its_optimizer() -> None:
    files = ["trainer_state.json", "model.safetensors", "rng_state.pth"]
    deepspeed = [*files, "global_step4/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"]
    sizes = dict.fromkeys([*deepspeed, "global_step4/mp_rank_00_model_states.pt"], 1)
    assert "scheduler.pt" not in missing_parts(sizes, lambda _: b"")
    assert "scheduler.pt" in missing_parts(dict.fromkeys([*files, "optimizer.pt"], 1), lambda _: b"")


def test_metrics_logged_after_their_evaluation_reach_its_version(repo: Repository, tmp_path: Path) -> None:
    """As of a Trainer that evaluates more: the best is chosen by them."""

    class Wide(Trainer):
        def evaluate(self, *given: Any, **named: Any) -> dict[str, float]:
            found = super().evaluate(*given, **named)
            found["eval_rouge"] = [0.9, 0.5, 0.7][round(self.state.epoch or 1) - 1]
            self.log({"eval_rouge": found["eval_rouge"]})
            return found

    callback = VersionCallback(repo, "m", run_name="r", keep="best:1")
    settings = {"metric_for_best_model": "rouge", "greater_is_better": True, "load_best_model_at_end": True}
    args = tiny.arguments(
        tmp_path / "out", num_train_epochs=3, eval_strategy="epoch", save_strategy="epoch", **settings
    )
    data = {"train_dataset": tiny.dataset(8), "eval_dataset": tiny.dataset(4)}
    Wide(tiny.gpt2(), args, callbacks=[callback], **data).train()
    assert [repo[f"m@r/epoch-{n}"].metrics["eval_rouge"] for n in (1, 2, 3)] == [0.9, 0.5, 0.7]
    assert repo["m@r/best"] == repo["m@r/epoch-1"]
    assert [v.name for v in repo.versions("m") if v.labels.get("deletable")] == ["r/epoch-2"]


def test_steps_made_again_with_the_same_bytes_get_no_further_names(repo: Repository, tmp_path: Path) -> None:
    """Nor does a job that has ended and is queued again lose its mean loss."""

    def job() -> None:
        callback = VersionCallback(repo, "m", resume=True, run_name="r")
        trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback], save_strategy="epoch")
        trainer.train(resume_from_checkpoint=repo.resume("m", run="r"))

    job()
    before = {v.id: (sorted(v.names), v.metrics.get("train_loss", 0)) for v in repo.versions("m")}
    assert before[repo["m@r/final"].id][1] > 1
    job()
    job()
    assert before == {v.id: (sorted(v.names), v.metrics.get("train_loss", 0)) for v in repo.versions("m")}


def test_other_bytes_of_a_step_made_again_get_a_number(repo: Repository, tmp_path: Path) -> None:
    folder = tiny.saved_base(tmp_path / "a", seed=1)
    first = repo.save(folder, "m", name="x", same_as_existing=True)
    assert repo.save(folder, "m", name="x", same_as_existing=True) == first
    with pytest.raises(NameTaken):
        repo.save(tiny.saved_base(tmp_path / "b", seed=2), "m", name="x", same_as_existing=True)
    assert first.names == ["x"]


def test_best_is_named_where_the_output_folder_is_gone(
    repo: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Queued again on another machine: the Trainer finds no best checkpoint, and brings nothing back."""
    settings = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}

    def job(every: Any, run: str, losses: list[float], epochs: int) -> None:
        callback = VersionCallback(repo, "m", resume=True, run_name=run, every=every)
        output = tmp_path / "out"
        shutil.rmtree(output, ignore_errors=True)
        trainer = tiny.trainer(tiny.gpt2(), output, [callback], num_train_epochs=4, **settings)
        evaluated(trainer, losses)
        if epochs < 4:
            trainer.add_callback(Ends(epochs))
        try:
            trainer.train(resume_from_checkpoint=repo.resume("m", run=run))
        except KeyboardInterrupt:
            callback.wait()

    for every, run in (("epoch", "r"), ("end", "s")):
        job(every, run, [1.0, 5.0], 2)
        job(every, run, [6.0, 7.0], 4)
    assert repo["m@r/best"] == repo["m@r/epoch-1"]
    assert "run s of m has no best: its best step was 2" in caplog.text


class Ends(TrainerCallback):
    """As a machine that is taken away, after so many epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        if state.epoch is not None and state.epoch >= self.epochs:
            raise KeyboardInterrupt


def test_the_last_epoch_has_its_name_also_where_the_last_weights_were_kept_first(
    repo: Repository, tmp_path: Path
) -> None:
    callback = VersionCallback(repo, "m", run_name="r")
    settings = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    trainer = tiny.trainer(
        tiny.gpt2(), tmp_path / "out", [callback], num_train_epochs=2, load_best_model_at_end=True, **settings
    )
    evaluated(trainer, [1.0, 5.0])
    trainer.train()
    assert repo["m@r/epoch-2"] == repo["m@r/final"]
    assert repo["m@r/epoch-1"] == repo["m@r/best"]


def test_what_a_script_logs_beside_the_loss_is_added_to_it(repo: Repository, tmp_path: Path) -> None:
    class Logs(TrainerCallback):
        def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            if state.global_step in (1, 3):
                trainer.log({"ce": float(state.global_step)})

    callback = VersionCallback(repo, "m", run_name="r")
    settings = {"logging_strategy": "steps", "logging_steps": 1}
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [Logs(), callback], num_train_epochs=2, **settings)
    trainer.train()
    assert [repo[f"m@r/epoch-{n}"].metrics["ce"] for n in (1, 2)] == [1.0, 3.0]
    assert all("loss" in repo[f"m@r/epoch-{n}"].metrics for n in (1, 2))
