"""The callback for Lightning: which hook makes which version, and what the versions hold and say."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from transformers import TrainerCallback

import tiny_models as tiny
from lightning_models import Line, Validated, Wrapped, numbers, tokens, trainer
from stemmata import hf
from stemmata.errors import InvalidArgument, StorageFull, TrainingSaveFailed, TrainingSetup
from stemmata.lightning import VersionCallback
from stemmata.repository import Repository

pytestmark = pytest.mark.usefixtures("one_thread")


def names(repo: Repository) -> list[list[str]]:
    """Names of every version, oldest first."""
    return [v.names for v in reversed(repo.versions("m"))]


def same(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class At(pl.Callback):
    """Does something when a batch of a step is done."""

    def __init__(self, step: int, do: Any) -> None:
        self.step, self.do = step, do

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.do()


# --- which hook makes which version ---------------------------------------------------------------------


def test_every_epoch_is_a_version_with_its_own_metrics(repo: Repository, tmp_path: Path) -> None:
    """Lightning validates inside the epoch; every second one here, and once before the first step."""
    callback = VersionCallback(repo, "m", run_name="r", message="a try", labels={"by": "test"})
    module = Validated(optimizer={"name": "sgd", "momentum": 0.0})
    trainer(tmp_path, callback, max_epochs=3, check_val_every_n_epoch=2).fit(module, numbers(), numbers(4))
    assert names(repo) == [["r/epoch-1"], ["r/epoch-2"], ["r/epoch-3", "r/final"]]
    one, two, three = reversed(repo.versions("m"))
    assert [v.step for v in (one, two, three)] == [2, 4, 6]
    assert [v.epoch for v in (one, two, three)] == [1.0, 2.0, 3.0]
    assert [v.parents for v in (one, two, three)] == [[], [one.id.hex], [two.id.hex]]
    trained = {"loss", "loss_step", "loss_epoch"}
    assert [set(v.record.metrics) for v in (one, two, three)] == [trained, {*trained, "val_loss"}, trained]
    assert [set(v.metrics) - set(v.record.metrics) for v in (one, two, three)] == [{"late"}] * 3
    assert [v.metrics["late"] for v in (one, two, three)] == [0.0, 1.0, 2.0]
    assert three.metrics["loss"] < one.metrics["loss"]
    assert (three.message, three.labels, three.kind) == ("a try", {"by": "test"}, "files")
    assert three.config["lr"] == 0.1
    assert three.config["token"] == "***"
    assert three.config["optimizer.name"] == "sgd"
    assert three.config["trainer.max_epochs"] == 3
    assert three.config["trainer.optimizer"] == "SGD"
    assert three.config["model.architecture"] == "Validated"
    assert (three.data["train.rows"], three.data["eval.rows"]) == (8, 4)
    assert same(three.state_dict(), module.state_dict())
    assert callback.run_name == "r"
    assert callback.missing == {}


@pytest.mark.parametrize(
    ("every", "settings", "expected"),
    [
        (3, {}, [["r/step-3"], ["r/final"]]),
        (1, {"accumulate_grad_batches": 2}, [["r/step-1"], ["r/step-2", "r/final"]]),
        ("end", {}, [["r/final"]]),
        ("epoch", {"max_steps": 3}, [["r/epoch-1"], ["r/step-3", "r/final"]]),
    ],
)
def test_when_it_saves(repo: Repository, tmp_path: Path, every: Any, settings: Any, expected: Any) -> None:
    callback = VersionCallback(repo, "m", run_name="r", every=every)
    trainer(tmp_path, callback, **settings).fit(Line(), numbers())
    assert names(repo) == expected
    epochs = {"r/step-3": 1.5, "r/epoch-1": 1.0, "r/step-1": 1.0}
    assert all(
        v.epoch == epochs.get(v.names[0], 2.0) for v in repo.versions("m") if v.step != 3 or every == 3
    )


class Unkeepable(Validated):
    """Logs metrics under names that no version could have."""

    def training_step(self, batch: Any, number: int) -> Any:
        self.log("acc ", 0.5)
        return super().training_step(batch, number)

    def validation_step(self, batch: Any, number: int) -> None:
        self.log("val\nacc", 0.5)
        super().validation_step(batch, number)


def test_a_metric_whose_name_cannot_be_kept_costs_no_version(
    repo: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = VersionCallback(repo, "m", run_name="r")
    trainer(tmp_path, callback).fit(Unkeepable(), numbers(), numbers(4))
    assert callback.missing == {}
    assert [v.name for v in reversed(repo.versions("m"))] == ["r/epoch-1", "r/epoch-2"]
    assert repo["m@r/final"].metrics.keys() == {"loss", "loss_step", "loss_epoch", "late", "val_loss"}
    for name in ("acc ", "val\nacc"):
        assert caplog.text.count(f"the metric {name!r} is left out") == 1


def test_a_validation_is_of_its_step_alone(repo: Repository, tmp_path: Path) -> None:
    """In the middle of an epoch: not of the version that the epoch's end makes two steps later."""
    callback = VersionCallback(repo, "m", run_name="r", every=1)
    settings = {"max_epochs": 1, "val_check_interval": 2}
    trainer(tmp_path, callback, **settings).fit(Validated(), numbers(12), numbers(4))
    found = {v.step: v.metrics for v in repo.versions("m")}
    assert [step for step, metrics in found.items() if "val_loss" in metrics] == [2]
    (told,) = repo["m@r/step-2"].annotations
    assert told.event == "evaluation"
    assert "late" in repo["m@r/step-3"].metrics


def test_validate_beside_a_training_and_a_trial_run_make_nothing(repo: Repository, tmp_path: Path) -> None:
    callback = VersionCallback(repo, "m", run_name="r")
    trainer(tmp_path, callback, fast_dev_run=True).fit(Validated(), numbers(), numbers())
    assert repo.models() == []
    made = trainer(tmp_path, callback, max_epochs=1)
    made.fit(Line(), numbers())
    made.validate(Validated(lr=0.5), numbers(), verbose=False)
    assert [v.metrics.keys() & {"val_loss"} for v in repo.versions("m")] == [set()]


def test_several_trainings_are_several_runs_in_a_line(repo: Repository, tmp_path: Path) -> None:
    callback, module = VersionCallback(repo, "m", run_name="r"), Line()
    made = trainer(tmp_path, callback, max_epochs=1)
    made.fit(module, numbers())
    made.fit(module, numbers())  # has its epochs already: nothing is trained
    trainer(tmp_path, callback, max_epochs=1).fit(module, numbers())
    assert names(repo) == [["r/epoch-1", "r/final"], ["r-2/epoch-1", "r-2/final"]]
    assert repo["m@r-2/final"].parents == [repo["m@r/final"].id.hex]


def test_averaged_weights_that_come_at_the_end_are_the_final_ones(repo: Repository, tmp_path: Path) -> None:
    """By a callback that stands after this one."""
    module = Line()
    average = WeightAveraging(avg_fn=lambda old, new, _count: (old + new) / 2)
    trainer(tmp_path, VersionCallback(repo, "m", run_name="r"), average).fit(module, numbers())
    assert names(repo) == [["r/epoch-1"], ["r/epoch-2"], ["r/final"]]
    final = repo["m@r/final"].state_dict()
    assert same(final, module.state_dict())
    assert not same(final, repo["m@r/epoch-2"].state_dict())


def test_a_callback_goes_to_another_process_by_its_repositorys_folder(
    repo: Repository, tmp_path: Path
) -> None:
    callback = VersionCallback(repo, "m", run_name="r", every="end")
    trainer(tmp_path, callback, max_epochs=1).fit(Line(), numbers())
    spawned = pickle.loads(pickle.dumps(callback))
    assert spawned.run_name is None
    trainer(tmp_path, spawned, max_epochs=1).fit(Line(), numbers())
    spawned.repository.close()
    assert names(repo) == [["r/final"], ["r-2/final"]]


def test_the_older_name_of_lightning(repo: Repository, tmp_path: Path) -> None:
    import pytorch_lightning

    class Older(pytorch_lightning.LightningModule):
        training_step, validation_step = Validated.training_step, Validated.validation_step

        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(3, 1)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    callback = VersionCallback(repo, "m", run_name="r")
    trainer(tmp_path, callback, kind=pytorch_lightning, max_epochs=1).fit(Older(), numbers(), numbers())
    assert "val_loss" in repo["m@r/final"].metrics


# --- what is saved --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_a_librarys_model_inside_loads_without_lightning(
    repo: Repository, base: Path, tmp_path: Path, kind: str
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base).train()
    if kind == "adapter":
        model = tiny.with_lora(model)
    module = Wrapped(model, tokenizer=tiny.tokenizer(), distance=torch.nn.MSELoss())
    trainer(tmp_path, VersionCallback(repo, "m", run_name="r"), max_epochs=1).fit(module, tokens())
    version = repo["m@r/final"]
    assert version.kind == kind
    assert version.load_tokenizer().eos_token == "<end>"
    loaded, batch = version.load(), next(iter(tokens()))
    with torch.no_grad():
        assert torch.equal(loaded.eval()(batch).logits, model.eval()(batch).logits)


def test_what_is_taken_by_itself_loses_nothing_that_is_trained(
    repo: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    student, teacher = tiny.gpt2(), tiny.gpt2(seed=1).requires_grad_(False)
    for beside, whole, words in (
        ({"teacher": teacher}, False, ""),
        ({"head": torch.nn.Linear(2, 2)}, True, "trains more than its model (head.weight)"),
        ({"other": tiny.gpt2(seed=2)}, True, "holds several models (model, other)"),
    ):
        caplog.clear()
        callback = VersionCallback(repo, "m", run_name="r")
        module = Wrapped(student, **beside)
        trainer(tmp_path, callback, max_epochs=1).fit(module, tokens())
        version = repo[f"m@{callback.run_name}/final"]
        assert ("config.json" not in {f.path for f in version.files}) == whole
        if whole:
            again = copy.deepcopy(module)
            torch.nn.utils.vector_to_parameters(torch.zeros(10**6), again.parameters())
            assert not same(again.state_dict(), module.state_dict())
            again.load_state_dict(version.state_dict(), strict=False)  # tied weights are stored once
            assert same(again.state_dict(), module.state_dict())
        assert words in caplog.text


def test_what_is_saved_can_be_chosen(repo: Repository, tmp_path: Path) -> None:
    module = Wrapped(tiny.gpt2(), head=torch.nn.Linear(2, 2))
    for choice, expected in (
        ("model", "GPT2LMHeadModel"),
        ("model.transformer", "GPT2Model"),
        (lambda found: found.head, "Linear"),
    ):
        callback = VersionCallback(repo, "m", every="end", module=choice)
        trainer(tmp_path, callback, max_epochs=1).fit(module, tokens())
        assert repo.versions("m")[0].config["model.architecture"] == expected
    for wrong, words in (("model.nothing", "nothing"), ("training_step", "method")):
        with pytest.raises(TrainingSetup, match=words):
            trainer(tmp_path, VersionCallback(repo, "n", module=wrong)).fit(module, tokens())
    assert repo.models() == ["m"]


def test_keep_goes_by_what_lightning_itself_monitors(repo: Repository, tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path / "theirs", monitor="late", mode="max", save_top_k=1)
    callback = VersionCallback(repo, "m", run_name="r", keep="best:1")
    trainer(tmp_path, callback, best, max_epochs=4).fit(Line(), numbers())
    marked = [v.names[0] for v in repo.versions("m") if "deletable" in v.labels]
    assert marked == ["r/epoch-3", "r/epoch-2", "r/epoch-1"]


# --- going on -------------------------------------------------------------------------------------------


def test_a_training_that_goes_on_continues_its_run_and_a_fork_names_its_source(
    repo: Repository, tmp_path: Path
) -> None:
    class Checkpoints(pl.Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    def train(run: str | None, epochs: int, start: int | None) -> None:
        callback = VersionCallback(repo, "m", run_name=run)
        checkpoint = None if start is None else str(tmp_path / f"{start}.ckpt")
        trainer(tmp_path, callback, Checkpoints(), max_epochs=epochs).fit(
            Line(), numbers(), ckpt_path=checkpoint
        )

    train(None, 2, None)
    first = repo.versions("m")[0].run
    train(None, 3, 1)
    train("fork", 2, 0)
    assert first is not None
    line = [v for v in reversed(repo.versions("m")) if v.run == first]
    assert [v.name for v in line] == [f"{first.name}/epoch-{n}" for n in (1, 2, 3)]
    assert [v.parents for v in line[1:]] == [[v.id.hex] for v in line[:-1]]
    fork = repo["m@fork/final"]
    assert fork.step == 4
    assert fork.parents == [line[0].id.hex]


def test_a_run_whose_name_another_got_goes_on_under_its_own(repo: Repository, tmp_path: Path) -> None:
    """The checkpoint is older than the first commit, which decides the name."""
    rival = repo.run("m", "r")

    def save(epoch: int) -> None:
        rival.save(torch.nn.Linear(1, 1), epoch=epoch)
        rival._recorder.drain()

    class Early(pl.Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            save(1)
            trainer.save_checkpoint(tmp_path / "early.ckpt")

    first = VersionCallback(repo, "m", run_name="r")
    trainer(tmp_path, Early(), first, max_epochs=1).fit(Line(), numbers())
    again = VersionCallback(repo, "m", run_name="r")
    trainer(tmp_path, again, max_epochs=2).fit(Line(), numbers(), ckpt_path=str(tmp_path / "early.ckpt"))
    save(2)
    rival.close()
    assert (first.run_name, again.run_name, rival.missing) == ("r-2", "r-2", {})
    assert [v.name for v in repo.versions("m") if v.name.startswith("r/")] == ["r/epoch-2", "r/epoch-1"]


# --- what goes wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "expected"), [(ZeroDivisionError, ZeroDivisionError), (KeyboardInterrupt, SystemExit)]
)
def test_a_training_that_dies_keeps_what_it_saved_and_its_own_error(
    repo: Repository, tmp_path: Path, raised: Any, expected: Any
) -> None:
    def die() -> None:
        raise raised

    handler = signal.getsignal(signal.SIGINT)
    callback = VersionCallback(repo, "m", run_name="r", every=1)
    try:
        with pytest.raises(expected):
            trainer(tmp_path, callback, At(3, die)).fit(Line(), numbers())
    finally:
        signal.signal(signal.SIGINT, handler)  # which Lightning leaves ignored
    assert [v.name for v in repo.versions("m")] == ["r/step-3", "r/step-2", "r/step-1"]
    trainer(tmp_path, callback, max_epochs=1).fit(Line(), numbers())
    assert callback.run_name == "r-2"


def test_sigterm_waits_for_what_was_snapshotted_and_is_then_lightnings(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, save, sent = signal.getsignal(signal.SIGTERM), repo.save, threading.Event()

    def slow(*a: Any, **k: Any) -> Any:
        assert sent.wait(60)
        return save(*a, **k)

    def terminate() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        sent.set()

    monkeypatch.setattr(repo, "save", slow)
    callback = VersionCallback(repo, "m", run_name="r", every=1)
    with pytest.raises(SystemExit):
        trainer(tmp_path, callback, At(1, terminate), max_epochs=9999).fit(Line(), numbers())
    assert repo["m@r/step-1"].step == 1
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_save_that_fails_is_listed_or_raised(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*a: Any, **k: Any) -> Any:
        raise StorageFull(where="the disk")

    monkeypatch.setattr(repo, "save", full)
    callback = VersionCallback(repo, "m", run_name="r")
    made = trainer(tmp_path, callback)
    made.fit(Line(), numbers())
    assert made.global_step == 4
    assert callback.missing.keys() == {"r/epoch-1", "r/epoch-2", "r/final"}
    with pytest.raises(TrainingSaveFailed):
        trainer(tmp_path, VersionCallback(repo, "m", on_error="raise")).fit(Line(), numbers())


def test_strategies_that_shard_the_model_are_refused_before_anything_is_set_up(
    repo: Repository,
) -> None:
    stage_3 = type("DeepSpeedStrategy", (), {"zero_stage_3": True})()  # it needs a GPU to be made
    for strategy in (FSDPStrategy(), ModelParallelStrategy(), stage_3):
        made = SimpleNamespace(strategy=strategy, fast_dev_run=False)
        with pytest.raises(TrainingSetup, match=r"strategy=\w+.* shards .*strategy='ddp'"):
            VersionCallback(repo, "m").setup(made, Line(), stage="fit")


def test_a_callback_in_two_trainings_at_once_is_refused(repo: Repository, tmp_path: Path) -> None:
    callback, met = VersionCallback(repo, "m", run_name="r"), list[Exception]()

    def second() -> None:
        try:
            trainer(tmp_path, callback, max_epochs=1).fit(Line(), numbers())
        except TrainingSetup as error:
            met.append(error)

    def elsewhere() -> None:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    made = trainer(tmp_path, callback, At(1, second), At(2, elsewhere), max_epochs=1)
    made.fit(Line(), numbers())
    assert len(met) == 2
    assert "make one VersionCallback for each Trainer" in str(met[0])
    assert names(repo) == [["r/epoch-1", "r/final"]]


def test_each_trainer_names_the_callback_that_is_its_own(repo: Repository, tmp_path: Path) -> None:
    with pytest.raises(TrainingSetup, match=r"Trainer of Lightning.*take the one of stemmata\.lightning"):
        trainer(tmp_path, hf.VersionCallback(repo, "m"), max_epochs=1).fit(Line(), numbers())
    with pytest.raises(TrainingSetup, match=r"Trainer of transformers.*take the one of stemmata\.hf"):
        tiny.trainer(tiny.gpt2(), tmp_path / "out", [VersionCallback(repo, "m")])


def test_sigterm_stays_lightnings_after_a_training_of_transformers_that_died(
    repo: Repository, tmp_path: Path
) -> None:
    """Its handler would be asked after Lightning's own, and end the process."""

    class Die(TrainerCallback):
        def on_step_end(self, *a: Any, **live: Any) -> None:
            raise KeyboardInterrupt

    died = hf.VersionCallback(repo, "other")
    with pytest.raises(KeyboardInterrupt):
        tiny.trainer(tiny.gpt2(), tmp_path / "out", [died, Die()]).train()
    assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    seen = list[Any]()
    callback = VersionCallback(repo, "m", run_name="r", every=1)
    trainer(tmp_path, callback, At(1, lambda: seen.append(callback._patience)), max_epochs=1).fit(
        Line(), numbers()
    )
    lightnings = seen[0]._before
    assert "HandlersCompose" in type(lightnings).__name__
    assert len(lightnings.signal_handlers) == 1, "Lightning's own alone"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("given", [{"every": 0}, {"every": "save"}, {"on_error": "no"}, {"keep": "some"}])
def test_wrong_arguments_are_refused_at_once(repo: Repository, given: Any) -> None:
    with pytest.raises(InvalidArgument):
        VersionCallback(repo, "m", **given)


def test_what_a_validation_of_averaged_weights_found_is_of_the_last_version_alone(
    repo: Repository, tmp_path: Path
) -> None:
    """They are put in for it and taken out again; the epochs' versions hold the weights that are trained."""
    callback = VersionCallback(repo, "m", run_name="r")
    average = WeightAveraging(avg_fn=lambda old, new, _: (old + new) / 2)
    module, held = Validated(), numbers(4)
    trainer(tmp_path, callback, average, max_epochs=2).fit(module, numbers(), held)

    def real(name: str) -> float:
        again = Validated()
        again.load_state_dict(repo[f"m@r/{name}"].state_dict())
        with torch.no_grad():
            return float(again.net(next(iter(held))).pow(2).mean())

    assert "val_loss" not in repo["m@r/epoch-1"].metrics
    assert "val_loss" not in repo["m@r/epoch-2"].metrics
    assert repo["m@r/epoch-2"].metrics["loss"] > 0
    assert repo["m@r/final"].metrics["val_loss"] == pytest.approx(real("final"))
    assert real("final") != pytest.approx(real("epoch-2"))


@pytest.mark.parametrize("first", [True, False], ids=["behind it", "before it"])
def test_an_average_that_nobody_validated_has_no_validations_metrics(
    repo: Repository, tmp_path: Path, first: bool
) -> None:
    """Stochastic weight averaging puts it in place when the training is over."""
    callback = VersionCallback(repo, "m", run_name="r")
    average = StochasticWeightAveraging(0.05, swa_epoch_start=1)
    both = (callback, average) if first else (average, callback)
    trainer(tmp_path, *both, max_epochs=4).fit(Validated(), numbers(), numbers(4))
    assert not same(repo["m@r/final"].state_dict(), repo["m@r/epoch-4"].state_dict())
    assert "val_loss" in repo["m@r/epoch-4"].metrics
    assert "val_loss" not in repo["m@r/final"].metrics
    assert repo["m@r/final"].metrics["loss"] > 0


def test_a_validation_of_weights_that_are_no_numbers_is_theirs(repo: Repository, tmp_path: Path) -> None:
    module = Validated()
    torch.nn.init.constant_(module.net.weight, float("nan"))
    callback = VersionCallback(repo, "m", run_name="r")
    trainer(tmp_path, callback, max_epochs=1).fit(module, numbers(), numbers(4))
    assert "val_loss" in repo["m@r/epoch-1"].metrics


class Swapping(pl.Callback):
    """As NeMo's: other weights are put in when a validation starts, and taken out when it ends."""

    def on_validation_start(self, _trainer: Any, module: Any) -> None:
        self.kept = copy.deepcopy(module.state_dict())
        module.load_state_dict({name: torch.zeros_like(value) for name, value in self.kept.items()})

    def on_validation_end(self, _trainer: Any, module: Any) -> None:
        module.load_state_dict(self.kept)


@pytest.mark.parametrize("before", [True, False])
def test_what_a_validation_of_weights_that_are_kept_by_nobody_found_is_of_no_version(
    repo: Repository, tmp_path: Path, before: bool
) -> None:
    """Whoever puts them in may stand before this callback, or after it; its rows are kept all the same."""
    callback = VersionCallback(repo, "m", run_name="r")
    callbacks = [Swapping(), callback] if before else [callback, Swapping()]
    trainer(tmp_path, *callbacks, max_epochs=2, num_sanity_val_steps=0).fit(
        Validated(), numbers(), numbers(4)
    )
    for version in repo.versions("m"):
        assert "loss" in version.metrics
        assert "val_loss" not in version.metrics
    assert [row["val_loss"] for row in repo["m@r/final"].logged() if "val_loss" in row] == [0.0, 0.0]
