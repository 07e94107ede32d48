"""Many runs: several trainings with one callback, searches, sweeps of many processes."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
from transformers import Trainer, TrainerCallback

import tiny_models as tiny
from stemmata.errors import TrainingSetup
from stemmata.hf import VersionCallback
from stemmata.repository import Repository
from warm import WarmPython

WAIT = 30


def test_one_callback_for_several_trainings_makes_a_run_of_each(repo: Repository, tmp_path: Path) -> None:
    callback = VersionCallback(repo, "m", every="end")
    for name in ("a", "b"):
        tiny.trainer(tiny.gpt2(), tmp_path / name, [callback], run_name=name, num_train_epochs=1).train()
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "c", [callback], run_name="b", num_train_epochs=1)
    trainer.train()
    trainer.train()
    versions = list(reversed(repo.versions("m")))
    assert [v.name for v in versions] == ["a/final", "b/final", "b-2/final", "b-3/final"]
    assert len({v.run.id for v in versions if v.run}) == 4


def test_runs_that_differ_in_case_alone_have_names_of_their_own(repo: Repository, tmp_path: Path) -> None:
    """`demo/final` would be `Demo/final`, which is another run's."""
    for name, every in (("Demo", "epoch"), ("demo", 3)):
        callback = VersionCallback(repo, "m", every=every)  # type: ignore[arg-type]
        tiny.trainer(tiny.gpt2(), tmp_path / name, [callback], run_name=name).train()
        assert callback.missing == {}
    assert callback.run_name == "demo-2"
    assert repo["m@demo-2/final"].names == ["demo-2/final"]
    assert repo["m@DEMO/latest"].run != repo["m@demo-2/latest"].run


def test_a_search_makes_a_run_of_each_trial_pruned_ones_too(repo: Repository, tmp_path: Path) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    class AtOnce(optuna.pruners.BasePruner):
        def prune(self, study: Any, trial: Any) -> bool:
            return trial.number == 1

    callback = VersionCallback(repo, "m")
    trainer = Trainer(
        model_init=lambda: tiny.gpt2(),
        args=tiny.arguments(tmp_path / "out", eval_strategy="epoch", run_name="sweep"),
        train_dataset=tiny.dataset(8),
        eval_dataset=tiny.dataset(4),
        callbacks=[callback],
    )
    trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2)},
        hp_name=lambda trial: f"try-{trial.number}",
        direction="minimize",
        n_trials=3,
        backend="optuna",
        pruner=AtOnce(),
        compute_objective=lambda metrics: metrics["eval_loss"],
    )
    callback.wait()
    names = {v.name: v for v in repo.versions("m")}
    assert set(names) == {f"sweep/try-{n}/epoch-{e}" for n, e in ((0, 1), (0, 2), (1, 1), (2, 1), (2, 2))}
    rates = [names[f"sweep/try-{n}/epoch-1"].config["trial.learning_rate"] for n in range(3)]
    assert len(set(rates)) == 3
    assert names["sweep/try-1/epoch-1"].config["learning_rate"] == rates[1]
    assert "eval_loss" in names["sweep/try-1/epoch-1"].metrics, "what pruned it"
    assert "sweep/try-2/final" in names["sweep/try-2/epoch-2"].names


@pytest.mark.parametrize("every", ["epoch", "end"])
def test_a_pruned_trials_best_is_no_other_step(repo: Repository, tmp_path: Path, every: Any) -> None:
    """The search ends it within an evaluation, when nobody has loaded the best weights."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    class AtTheSecond(optuna.pruners.BasePruner):
        def prune(self, study: Any, trial: Any) -> bool:
            return trial.number == 1 and len(trial.intermediate_values) >= 2

    callback = VersionCallback(repo, "m", every=every)
    scores = iter([0.9, 0.1] * 2)
    settings = {"metric_for_best_model": "score", "greater_is_better": True, "load_best_model_at_end": True}
    trainer = Trainer(
        model_init=lambda: tiny.gpt2(),
        args=tiny.arguments(
            tmp_path / "out", eval_strategy="epoch", save_strategy="epoch", run_name="s", **settings
        ),
        train_dataset=tiny.dataset(8),
        eval_dataset=tiny.dataset(4),
        callbacks=[callback],
        compute_metrics=lambda prediction: {"score": next(scores)},
    )
    trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-2)},
        hp_name=lambda trial: f"try-{trial.number}",
        direction="maximize",
        n_trials=2,
        backend="optuna",
        pruner=AtTheSecond(),
        compute_objective=lambda metrics: metrics["eval_score"],
    )
    callback.wait()
    assert callback.missing == {}
    whole = {name: v.step for v in repo.versions("m") for name in v.names if name.startswith("s/try-0/")}
    assert (whole["s/try-0/best"], whole["s/try-0/final"]) == (2, 4)
    pruned = {name: v.step for v in repo.versions("m") for name in v.names if name.startswith("s/try-1/")}
    if every == "epoch":
        first, second = (repo[f"m@s/try-1/epoch-{n}"] for n in (1, 2))
        assert first.names == ["s/try-1/epoch-1", "s/try-1/best"]
        assert second.names == ["s/try-1/epoch-2", "s/try-1/final"]
    else:
        assert pruned == {"s/try-1/final": 4}, "the best one's weights are only in the Trainer's checkpoint"


@pytest.mark.parametrize("named", [True, False])
def test_the_states_of_trials_are_found_where_the_trainer_writes_them(
    repo: Repository, tmp_path: Path, named: bool
) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    callback = VersionCallback(repo, "m", resume=True)
    trainer = Trainer(
        model_init=lambda: tiny.gpt2(),
        args=tiny.arguments(
            tmp_path / "out", eval_strategy="epoch", save_strategy="epoch", num_train_epochs=1, run_name="s"
        ),
        train_dataset=tiny.dataset(8),
        eval_dataset=tiny.dataset(4),
        callbacks=[callback],
    )
    # What an earlier search left there is nobody's state now.
    (tmp_path / "out/run-9/checkpoint-2").mkdir(parents=True)
    trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2)},
        hp_name=(lambda trial: f"trial-{trial.number}") if named else None,
        direction="minimize",
        n_trials=2,
        backend="optuna",
    )
    assert callback.missing == {}
    for number in range(2):
        state = repo[f"m.resume@s/trial-{number}/step-2"]
        found = json.loads(state.read("trainer_state.json"))
        assert found["trial_params"]["learning_rate"] == state_of(repo, number)
        assert repo.resume("m", run=f"s/trial-{number}") is not None


def state_of(repo: Repository, number: int) -> object:
    return repo[f"m@s/trial-{number}/epoch-1"].config["trial.learning_rate"]


def test_a_callback_is_copied_with_its_repositorys_folder_and_without_its_trainings(
    repo: Repository, tmp_path: Path
) -> None:
    """As searches do that train each trial in a process of its own."""
    callback = VersionCallback(repo, "m", run_name="r", every="end", resume=True)

    def train(by: VersionCallback) -> None:
        settings: dict[str, Any] = {"num_train_epochs": 1, "save_strategy": "epoch"}
        tiny.trainer(tiny.gpt2(), tmp_path / "out", [by], **settings).train()

    train(callback)
    for again in (pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback)):
        assert again.run_name is None
        train(again)
        again.repository.close()
    assert [v.name for v in reversed(repo.versions("m"))] == ["r/final", "r-2/final", "r-3/final"]


def test_a_callback_with_a_repository_in_no_folder_cannot_be_copied_and_says_so() -> None:
    callback = VersionCallback(Repository.in_memory(), "m")
    with pytest.raises(TrainingSetup, match="cannot be copied: that is no folder") as caught:
        copy.deepcopy(callback)
    assert "give the VersionCallback a folder" in str(caught.value)


def test_a_callback_in_two_threads_at_once_is_refused(repo: Repository, tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()

    class Hold(TrainerCallback):
        def on_step_end(self, *a: Any, **live: Any) -> None:
            begun.set()
            assert go.wait(WAIT)

    callback = VersionCallback(repo, "m", run_name="r")
    first = tiny.trainer(tiny.gpt2(), tmp_path / "a", [callback, Hold()], num_train_epochs=1)
    thread = threading.Thread(target=first.train)
    thread.start()
    try:
        assert begun.wait(WAIT)
        second = tiny.trainer(tiny.gpt2(), tmp_path / "b", [callback], num_train_epochs=1)
        with pytest.raises(TrainingSetup, match="one VersionCallback for each Trainer"):
            second.train()
    finally:
        go.set()
        thread.join()
    assert repo["m@r/epoch-1"] == repo["m@r/final"], "the first one was not harmed"


def test_a_callback_in_a_training_within_a_training_saves_the_inner_one_and_says_so(
    repo: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = VersionCallback(repo, "m")
    inner = tiny.trainer(tiny.gpt2(), tmp_path / "b", [callback], num_train_epochs=1, run_name="inner")

    class Within(TrainerCallback):
        def on_epoch_end(self, *a: Any, **live: Any) -> None:
            begun(inner)

    def begun(trainer: Any) -> None:
        handler = trainer.callback_handler
        handler.on_train_begin(trainer.args, trainer.state, trainer.control)

    outer = tiny.trainer(
        tiny.gpt2(), tmp_path / "a", [Within(), callback], num_train_epochs=1, run_name="outer"
    )
    with caplog.at_level(logging.ERROR, "stemmata"):
        outer.train()
    assert "given to two trainings at once" in caplog.text
    assert repo.models() == []
    callback.wait()


def test_sweeps_of_many_processes_into_one_repository(
    repo: Repository, tmp_path: Path, warm: WarmPython
) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import tiny_models as tiny
from stemmata.hf import VersionCallback
callback = VersionCallback({repo.where!r}, "m", run_name="sweep")
out = {str(tmp_path)!r} + "/out-" + sys.argv[1]
tiny.trainer(tiny.gpt2(seed=int(sys.argv[1])), out, [callback]).train()
"""
    started = [warm.start(script, str(n)) for n in range(2)]
    assert [s.wait() for s in started] == [0, 0]
    versions = repo.versions("m")
    assert sorted(v.name for v in versions) == [
        "sweep-2/epoch-1",
        "sweep-2/epoch-2",
        "sweep/epoch-1",
        "sweep/epoch-2",
    ]
    for name in ("sweep", "sweep-2"):
        assert len({v.run.id for v in versions if v.name.startswith(f"{name}/") and v.run}) == 1
    assert repo.check().sound


def test_two_runs_that_begin_under_one_name_at_once_have_one_each(repo: Repository) -> None:
    """Though their versions are of other steps, and no name of a version tells."""
    one, other = repo.run("m", "sft"), repo.run("m", "sft")
    one.save(tiny.gpt2(seed=1), step=100)
    one.save(tiny.gpt2(seed=2), step=300)
    one.close()
    other.save(tiny.gpt2(seed=3), step=150)
    other.save(tiny.gpt2(seed=4), step=300)
    other.close()
    assert not one.missing
    assert not other.missing
    runs = {v.run.name: v.run.id for v in repo.versions("m") if v.run is not None}
    assert [*runs] == ["sft-2", "sft"]
    assert len(set(runs.values())) == 2
    assert repo["m@sft/latest"].step == repo["m@sft-2/latest"].step == 300
