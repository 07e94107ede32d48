"""Which event makes which version, and what the versions say."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

import tiny_models as tiny
from stemmata.errors import EmptyDataset, InvalidArgument, InvalidName, TrainingSaveFailed
from stemmata.hf import VersionCallback, checkpoints
from stemmata.repository import Repository

HF = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWx"
PLAIN = "nobody-knows-this-shape-77"


def names(repo: Repository, model: str = "m") -> list[list[str]]:
    """Names of every version, oldest first."""
    return [v.names for v in reversed(repo.versions(model))]


def scores(*values: float) -> Any:
    """A compute_metrics that answers with these, one evaluation after another."""
    left = list(values)
    return lambda prediction: {"score": left.pop(0)}


def test_every_epoch_is_a_version_in_one_line(repo: Repository, base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    callback = VersionCallback(repo, "m", run_name="first", message="a try", labels={"by": "test"})
    trainer = tiny.trainer(model, tmp_path / "out", [callback], num_train_epochs=3)
    trainer.train()
    assert names(repo) == [["first/epoch-1"], ["first/epoch-2"], ["first/epoch-3", "first/final"]]
    one, two, three = reversed(repo.versions("m"))
    assert one.parents == []
    assert two.parents == [one.id.hex]
    assert three.parents == [two.id.hex]
    assert [v.step for v in (one, two, three)] == [2, 4, 6]
    assert [v.epoch for v in (one, two, three)] == [1.0, 2.0, 3.0]
    assert {v.run.id for v in (one, two, three) if v.run} == {three.run.id if three.run else None}
    assert three.event == "epoch"
    assert three.kind == "model"
    assert three.message == "a try"
    assert three.labels == {"by": "test"}
    assert three.config["learning_rate"] == 1e-2
    assert three.config["model.architecture"] == "GPT2LMHeadModel"
    assert three.config["model.parameters"] == three.config["model.trainable_parameters"]
    assert three.data["train.rows"] == 8
    assert three.data["train.fingerprint"]
    assert json.loads(three.provenance("seeds"))["seed"] == 7
    assert three.metrics["loss"] < one.metrics["loss"]


@pytest.mark.parametrize("kind", ["full", "lora", "untied", "resized"])
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`")
def test_i3_a_versions_files_are_those_of_the_trainers_save(
    repo: Repository, base: Path, tmp_path: Path, kind: str
) -> None:
    model = tiny.gpt2(tied=False) if kind == "untied" else AutoModelForCausalLM.from_pretrained(base)
    if kind == "resized":
        model.resize_token_embeddings(301, mean_resizing=False)
    if kind == "lora":
        model = tiny.with_lora(model)
    trainer = tiny.trainer(model, tmp_path / "out", [VersionCallback(repo, "m", run_name="r")])
    trainer.train()
    trainer.save_model(str(tmp_path / "theirs"))
    repo["m@r/final"].checkout(tmp_path / "ours")
    assert tiny.files_of(tmp_path / "ours") == tiny.files_of(tmp_path / "theirs")
    assert not (tmp_path / "ours/training_args.bin").exists()


def test_metrics_that_come_later_attach_under_their_own_names(repo: Repository, tmp_path: Path) -> None:
    trainer = tiny.trainer(
        tiny.gpt2(),
        tmp_path / "out",
        [VersionCallback(repo, "m", run_name="r")],
        eval_strategy="epoch",
        eval_dataset={"near": tiny.dataset(4), "far away": tiny.dataset(2)},
    )
    trainer.train()
    logged = {(row["step"], k): v for row in trainer.state.log_history for k, v in row.items()}
    for version in repo.versions("m"):
        assert not [k for k in version.record.metrics if k.startswith("eval_")], "the commit did not wait"
        assert version.metrics["eval_near_loss"] == logged[version.step, "eval_near_loss"]
        assert version.metrics["eval_far away_loss"] == logged[version.step, "eval_far away_loss"]
        assert version.metrics["loss"] == logged[version.step, "loss"]
        assert "epoch" not in version.metrics
        assert {a.event for a in version.annotations} == {"evaluation", "log"}
        told = [key for annotation in version.annotations for key in annotation.metrics]
        assert len(told) == len(set(told)), "each once, however many sets of data there are"


def test_a_version_speaks_of_the_data_that_were_known_when_it_was_made(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late it is written: the evaluation's data come up after the first epoch."""
    real, given = repo.save, list[Any]()

    def save(*a: Any, **k: Any) -> Any:
        given.append(k["data"])
        return real(*a, **k)

    monkeypatch.setattr(repo, "save", save)
    callback = VersionCallback(repo, "m", run_name="r")
    tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback], eval_strategy="epoch").train()
    assert "eval.rows" not in given[0]
    assert given[1]["eval.rows"] == 4


@pytest.mark.parametrize(
    ("every", "settings", "expected"),
    [
        (3, {}, [["r/step-3"], ["r/final"]]),
        (2, {}, [["r/step-2"], ["r/step-4", "r/final"]]),
        ("end", {}, [["r/final"]]),
        ("save", {"save_strategy": "steps", "save_steps": 2}, [["r/step-2"], ["r/step-4", "r/final"]]),
        ("eval", {"eval_strategy": "steps", "eval_steps": 3}, [["r/step-3"], ["r/step-4", "r/final"]]),
        ("epoch", {"max_steps": 3}, [["r/epoch-1"], ["r/step-3", "r/final"]]),
    ],
)
def test_each_choice_of_every(
    repo: Repository, tmp_path: Path, every: Any, settings: dict[str, Any], expected: list[list[str]]
) -> None:
    trainer = tiny.trainer(
        tiny.gpt2(), tmp_path / "out", [VersionCallback(repo, "m", every=every, run_name="r")], **settings
    )
    trainer.train()
    assert names(repo) == expected
    if every == "eval":
        assert "eval_loss" in repo["m@r/step-3"].record.metrics


@pytest.mark.parametrize("every", ["epoch", "end", 100, "save"])
def test_the_best_weights_are_never_the_last_steps(repo: Repository, tmp_path: Path, every: Any) -> None:
    trainer = tiny.trainer(
        tiny.gpt2(),
        tmp_path / "out",
        [VersionCallback(repo, "m", every=every, run_name="r")],
        num_train_epochs=3,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="score",
        greater_is_better=True,
    )
    trainer.compute_metrics = scores(0.3, 0.9, 0.5)
    trainer.train()
    trainer.save_model(str(tmp_path / "restored"))
    best, final = repo["m@r/best"], repo["m@r/final"]
    assert (best.step, best.epoch, best.metrics["eval_score"]) == (4, 2.0, 0.9)
    assert (final.step, final.epoch, final.metrics["eval_score"]) == (6, 3.0, 0.5)
    assert best != final
    best.checkout(tmp_path / "best")
    assert tiny.files_of(tmp_path / "best") == tiny.files_of(tmp_path / "restored")
    if every == "epoch":
        assert names(repo) == [["r/epoch-1"], ["r/epoch-2", "r/best"], ["r/epoch-3", "r/final"]]
    if every == "end":
        assert best.event == "best"
        assert best.parents == [], "it came before the last state, not from it"


def test_training_that_stops_early_keeps_its_last_state_too(repo: Repository, tmp_path: Path) -> None:
    trainer = tiny.trainer(
        tiny.gpt2(),
        tmp_path / "out",
        [VersionCallback(repo, "m", every="end", run_name="r"), EarlyStoppingCallback(1)],
        num_train_epochs=5,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="score",
        greater_is_better=True,
    )
    trainer.compute_metrics = scores(0.9, 0.1)
    trainer.train()
    assert repo["m@r/best"].step == 2
    assert repo["m@r/final"].step == 4


@pytest.mark.parametrize("late", [False, True])
def test_a_stop_that_no_checkpoint_follows_keeps_the_last_state_or_says_that_it_is_lost(
    repo: Repository, tmp_path: Path, late: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """save_strategy="best" writes nothing at an evaluation that is no better; the stop comes after ours."""

    class LoadsFirst(Trainer):
        def log(self, logs: Any, *rest: Any) -> None:
            if late and "train_runtime" in logs:
                self._load_best_model()
            super().log(logs, *rest)

    callback = VersionCallback(repo, "m", every="end", run_name="r")
    settings = {"metric_for_best_model": "score", "greater_is_better": True, "load_best_model_at_end": True}
    trainer = LoadsFirst(
        tiny.gpt2(),
        tiny.arguments(
            tmp_path / "out", num_train_epochs=5, eval_strategy="epoch", save_strategy="best", **settings
        ),
        train_dataset=tiny.dataset(8),
        eval_dataset=tiny.dataset(4),
        callbacks=[callback, EarlyStoppingCallback(1)],
    )
    trainer.compute_metrics = scores(0.9, 0.1)
    trainer.train()
    assert repo["m@r/best"].step == 2
    if late:
        assert "belongs behind what ends the training" in callback.missing["r/final"]
        strict = VersionCallback(repo, "m", every="end", run_name="s", on_error="raise")
        again = LoadsFirst(
            tiny.gpt2(),
            trainer.args,
            train_dataset=tiny.dataset(8),
            eval_dataset=tiny.dataset(4),
            callbacks=[strict, EarlyStoppingCallback(1)],
        )
        again.compute_metrics = scores(0.9, 0.1)
        with pytest.raises(TrainingSaveFailed, match="give the VersionCallback last") as raised:
            again.train()
        assert "still in the running process" not in str(raised.value)
        assert "ended; not written" in caplog.text.partition("run s of m")[2]
        assert repo.save(again.model, "n").parents == [str(repo["m@s/best"].id)]
    else:
        assert repo["m@r/final"].step == 4
        assert repo["m@r/final"].record.content != repo["m@r/best"].record.content


@pytest.mark.parametrize("over", [False, True])
def test_processes_without_a_recorder_mark_the_last_weights_too(tmp_path: Path, over: bool) -> None:
    """They go by the marks whether to meet: one that lags behind would leave while rank 0 writes."""
    callback, model = VersionCallback(tmp_path / "r", "m"), torch.nn.Linear(2, 2)
    args = TrainingArguments(str(tmp_path / "out"), use_cpu=True, report_to="none")
    args.load_best_model_at_end = True
    state, control = TrainerState(global_step=3, max_steps=9), TrainerControl(should_training_stop=over)
    callback.on_evaluate(args, state, control, {}, model=model)
    assert bool(callback._untouched) is not over


class Dot(torch.nn.Module):
    """One weight: a thousand steps of it take a second."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.weight * x - labels).pow(2).mean()}


def test_a_step_of_a_long_epoch_is_not_its_end(repo: Repository, tmp_path: Path) -> None:
    """A step after an epoch of 1100 steps is epoch 1.0009."""
    rows = [{"x": torch.ones(1), "labels": torch.ones(1)}] * 1100
    callback = VersionCallback(repo, "m", run_name="r", on_error="raise")
    said = {"max_steps": 1101, "per_device_train_batch_size": 1, "logging_strategy": "no", "optim": "sgd"}
    arguments = tiny.arguments(tmp_path / "out", **said)
    Trainer(model=Dot(), args=arguments, train_dataset=rows, callbacks=[callback]).train()
    assert names(repo) == [["r/epoch-1"], ["r/step-1101", "r/final"]]


@pytest.mark.parametrize(
    ("epoch", "name"),
    [
        (3.0, "epoch-3"),
        (sum([0.1] * 10), "epoch-1"),
        (1 + 1 / 2000, None),
        (1999 / 2000, None),
        (7 - 1e-6, None),
        (0.0, None),
        (None, None),
    ],
)
def test_only_a_whole_epoch_is_called_one(epoch: float | None, name: str | None) -> None:
    assert checkpoints.epoch_name(SimpleNamespace(epoch=epoch)) == name


def test_an_evaluation_after_the_training_goes_to_the_weights_it_measured(
    repo: Repository, tmp_path: Path
) -> None:
    trainer = tiny.trainer(
        tiny.gpt2(),
        tmp_path / "out",
        [VersionCallback(repo, "m", run_name="r")],
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="score",
        greater_is_better=True,
    )
    trainer.compute_metrics = scores(0.9, 0.5, 0.9)
    trainer.train()
    trainer.evaluate(metric_key_prefix="after")
    assert repo["m@r/best"].metrics["after_score"] == 0.9
    assert "after_score" not in repo["m@r/final"].metrics


def test_runs_have_names_and_lines_of_their_own(repo: Repository, base: Path, tmp_path: Path) -> None:
    first = VersionCallback(repo, "m", every="end")
    model = AutoModelForCausalLM.from_pretrained(base)
    tiny.trainer(model, tmp_path / "a", [first]).train()
    assert re.fullmatch(r"\d{8}-\d{6}-[a-z2-7]{4}", first.run_name or "")
    second = VersionCallback(repo, "m", every="end")
    tiny.trainer(tiny.gpt2(), tmp_path / "b", [second], run_name="Try Nº 5 / late").train()
    third = VersionCallback(repo, "m", every="end")
    trainer = tiny.trainer(model, tmp_path / "c", [third], run_name="Try Nº 5 / late")
    trainer.train()
    trainer.train()
    assert second.run_name == "Try-Nº-5/late"
    oldest_first = list(reversed(repo.versions("m")))
    assert [v.name.removesuffix("/final") for v in oldest_first[1:]] == [
        "Try-Nº-5/late",
        "Try-Nº-5/late-2",
        "Try-Nº-5/late-3",
    ]
    assert len({v.run.id for v in oldest_first if v.run}) == 4
    one, other, again, last = oldest_first
    assert one.parents == other.parents == []
    assert again.parents == [one.id.hex], "the same model in memory was trained on"
    assert last.parents == [again.id.hex]


def test_the_first_version_of_a_run_knows_what_it_started_from(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    stored = repo.save(base, "base")
    from_checkout = AutoModelForCausalLM.from_pretrained(stored.path())
    from_folder = AutoModelForCausalLM.from_pretrained(base)
    loaded = stored.load()
    lora = tiny.with_lora(AutoModelForCausalLM.from_pretrained(base))
    for number, model in enumerate((from_checkout, from_folder, loaded, lora)):
        callback = VersionCallback(repo, "m", run_name=f"r{number}")
        tiny.trainer(model, tmp_path / "out", [callback], num_train_epochs=1).train()
        assert repo[f"m@r{number}/epoch-1"].parents == [stored.id.hex], number


def test_given_parents_are_kept(repo: Repository, base: Path, tmp_path: Path) -> None:
    stored = repo.save(base, "base")
    callback = VersionCallback(repo, "m", run_name="r", parents=[stored])
    tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback]).train()
    assert repo["m@r/epoch-1"].parents == [stored.id.hex]


def test_i10_no_token_of_the_arguments_enters_the_store(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", HF)
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py", "--hub_token", PLAIN, f"--note={HF}"])
    callback = VersionCallback(
        repo, "m", run_name="r", message=f"as {HF}", config={"api_key": PLAIN, "note": HF}, labels={"by": HF}
    )
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback], hub_token=PLAIN)
    trainer.save_model(str(tmp_path / "theirs"))
    assert PLAIN.encode() in (tmp_path / "theirs/training_args.bin").read_bytes()
    trainer.train()
    everything = [p.read_bytes() for p in (tmp_path / "models").rglob("*") if p.is_file()]
    for version in repo.versions("m"):
        everything.append(json.dumps(version.to_dict(), default=str).encode())
        everything += [version.provenance(kind) for kind in version.record.provenance]
        everything += [version.read(f.path) for f in version.files]
        assert version.config["hub_token"] == "***"
        assert version.labels == {"by": "***"}
    for token in (HF, PLAIN):
        assert not [data for data in everything if token.encode() in data]


def test_nothing_is_left_beside_the_repository(repo: Repository, tmp_path: Path) -> None:
    tiny.trainer(tiny.gpt2(), tmp_path / "out", [VersionCallback(repo, "m")]).train()
    writing = repo.session.cache_folder() / "writing"
    assert writing.is_dir()
    assert list(writing.iterdir()) == []
    assert not (tmp_path / "out").exists() or tiny.files_of(tmp_path / "out") == {}


def test_a_repository_in_memory_and_one_named_by_its_folder(tmp_path: Path) -> None:
    memory = Repository.in_memory()
    tiny.trainer(tiny.gpt2(), tmp_path / "a", [VersionCallback(memory, "m", run_name="r")]).train()
    assert len(memory.versions("m")) == 2
    by_path = VersionCallback(tmp_path / "made", "m", run_name="r")
    tiny.trainer(tiny.gpt2(), tmp_path / "b", [by_path]).train()
    assert (tmp_path / "made/stemmata.json").is_file()
    assert len(by_path.repository.versions("m")) == 2


def test_a_script_that_changes_its_folder_keeps_the_repository_it_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    callback = VersionCallback("models", "m", every="end")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback], num_train_epochs=1).train()
    assert callback.repository.where == str(tmp_path / "models")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_training_set_without_rows_is_named(repo: Repository, tmp_path: Path) -> None:
    from torch.utils.data import DataLoader

    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [VersionCallback(repo, "m")])
    trainer.get_train_dataloader = lambda: DataLoader([])  # type: ignore[method-assign]
    trainer.args.max_steps = 2
    with pytest.raises(EmptyDataset, match="no rows"):
        trainer.train()
    assert repo.models() == []


def test_a_training_that_is_asked_for_no_step_has_no_version_and_says_so(
    repo: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = VersionCallback(repo, "m", run_name="r")
    tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback], num_train_epochs=0).train()
    assert "run r of m has no version: no step was asked for" in caplog.text
    assert repo.models() == []


def test_an_evaluation_set_without_rows_is_a_warning(repo: Repository, tmp_path: Path) -> None:
    callback = VersionCallback(repo, "m", run_name="r")
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback], num_train_epochs=1)
    trainer.train()
    with pytest.warns(UserWarning, match="evaluation dataset has no rows"):
        trainer.evaluate(tiny.dataset(0))


def test_a_metric_that_no_version_can_have_costs_itself_alone(
    repo: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Log(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **live: Any) -> None:
            logs.update({"": 1.0, "line\nbreak": 2.0, "eval_much": 10**400, "mine": 3.0})

    callback = VersionCallback(repo, "m", run_name="r")
    tiny.trainer(tiny.gpt2(), tmp_path / "out", [Log(), callback]).train()
    assert callback.missing == {}
    assert repo["m@r/final"].metrics.keys() >= {"mine", "loss"}
    assert "the metric 'eval_much' is left out" in caplog.text


@pytest.mark.parametrize("every", ["epochs", 0, -1, True, 1.5, None])
def test_a_wrong_every_is_refused_at_once(repo: Repository, every: Any) -> None:
    with pytest.raises(InvalidArgument):
        VersionCallback(repo, "m", every=every)


def test_parents_that_are_no_versions_are_refused_at_once(repo: Repository) -> None:
    with pytest.raises(InvalidArgument, match="give versions"):
        VersionCallback(repo, "m", parents=["m@r/final"])  # type: ignore[list-item]


def test_a_wrong_model_name_is_refused_at_once(repo: Repository) -> None:
    with pytest.raises(InvalidName):
        VersionCallback(repo, "a model@home")
