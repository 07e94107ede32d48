"""What trainings log between their versions is kept with those: Trainer, Lightning, loops of one's own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

import tiny_models as tiny
from lightning_models import Validated, numbers
from lightning_models import trainer as lightning_trainer
from stemmata.capturing import Captured
from stemmata.errors import InvalidArgument, StorageFull
from stemmata.hf import VersionCallback
from stemmata.lightning import VersionCallback as LightningCallback
from stemmata.repository import Repository
from stemmata.reproducing import judge

pytestmark = pytest.mark.usefixtures("one_thread")


def training(repo: Repository, out: Path, *callbacks: Any, **more: Any) -> Any:
    """Four steps an epoch, each of them logged; two epochs."""
    own = {k: more.pop(k) for k in ("resume", "every") if k in more}
    settings = {"rows": 16, "logging_strategy": "steps", "logging_steps": 1, "run_name": "r", **more}
    made = [*callbacks, VersionCallback(repo, "m", **own)]
    return tiny.trainer(tiny.gpt2(), out, made, **settings)


def by_step(rows: Any) -> dict[int, dict[str, Any]]:
    told: dict[int, dict[str, Any]] = {}
    for row in rows:
        told.setdefault(row["step"], {}).update(row)
    return told


class Die(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **live: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


class Nudge(TrainerCallback):
    """Another weight before a step, as any difference in a training makes one."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **live: Any) -> None:
        if state.global_step == self.step - 1:
            with torch.no_grad():
                model.transformer.wte.weight.mul_(1.01)  # adding to all would hardly change a loss


# --- the Trainer ----------------------------------------------------------------------------------


def test_versions_keep_exactly_what_the_trainer_logged(repo: Repository, tmp_path: Path) -> None:
    trainer = training(repo, tmp_path / "out", eval_strategy="epoch")
    trainer.train()
    one, two = reversed(repo.versions("m"))
    history = trainer.state.log_history
    expected = by_step(row for row in history if "eval_loss" not in row or row["step"] < 8)
    expected[8] = next(row for row in history if row["step"] == 8 and "loss" in row)
    assert by_step(two.logged()) == by_step(one.logged()) == expected
    assert list(expected) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert {"loss", "grad_norm", "learning_rate", "epoch"} <= expected[3].keys()
    assert expected[4]["eval_loss"] == one.metrics["eval_loss"]
    # Of its own last step it was told as metrics, as ever.
    assert two.metrics["eval_loss"] == next(r["eval_loss"] for r in history[::-1] if "eval_loss" in r)


def test_tensors_that_are_logged_are_numbers(repo: Repository, tmp_path: Path) -> None:
    class Logging(TrainerCallback):
        def on_log(self, _args: Any, _state: Any, _control: Any, logs: Any = None, **_live: Any) -> None:
            logs.update(
                aux=torch.tensor(0.5), count=torch.tensor(3), many=torch.ones(2), told=torch.tensor(True)
            )

    callback = VersionCallback(repo, "m", run_name="r")
    settings = {"num_train_epochs": 2, "logging_steps": 1}
    tiny.trainer(tiny.gpt2(), tmp_path / "out", [Logging(), callback], **settings).train()
    version = repo["m@r/final"]
    assert (version.metrics["aux"], version.metrics["count"]) == (0.5, 3.0)
    row = next(row for row in version.logged() if "loss" in row)
    assert (row["aux"], row["count"]) == (0.5, 3)
    assert not {"many", "told"} & ({*version.metrics} | {*row})


def test_a_log_event_writes_nothing(repo: Repository, tmp_path: Path) -> None:
    """Entries of the log: as many for eight log events as for none."""
    counts = []
    for number, settings in enumerate(({}, {"logging_strategy": "no"})):
        before = len(list(repo.session.storage.list("log/")))
        training(repo, tmp_path / str(number), **settings).train()
        counts.append(len(list(repo.session.storage.list("log/"))) - before)
    assert counts[0] == counts[1]


def test_diff_finds_a_step_that_was_logged_and_not_saved(repo: Repository, tmp_path: Path) -> None:
    training(repo, tmp_path / "a").train()
    training(repo, tmp_path / "b", learning_rate=1e-3, run_name="b").train()
    found = repo.diff("m@r/epoch-2", "m@b/epoch-1", step=3)
    rates = {m.key: (m.a, m.b) for m in found.metrics}["learning_rate"]
    assert rates == (pytest.approx(0.0075), pytest.approx(0.00075))
    assert found.readings is not None
    assert [each.sources for each in found.readings] == [
        ("the training's log, kept with m@r/epoch-1",),
        ("the training's log, kept with m@b/epoch-1",),
    ]


def test_the_verdict_names_the_first_logged_step_between_two_saves(repo: Repository, tmp_path: Path) -> None:
    training(repo, tmp_path / "a").train()
    with Repository.in_memory() as other:
        training(other, tmp_path / "b", Nudge(6)).train()
        nothing = Captured()
        found = judge(repo["m@r/final"], other["m@r/final"], before=nothing, after=nothing)
        same = judge(repo["m@r/epoch-1"], other["m@r/epoch-1"], before=nothing, after=nothing, steps=4)
    assert (found.kind, found.first_step) == ("diverged", 6)
    assert found.losses.compared == 8
    assert (same.kind, same.first_step) == ("bit-identical", None)


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_that_was_killed_and_resumed_has_one_log(
    repo: Repository, tmp_path: Path, resume: bool
) -> None:
    """Killed at step 7, with a version of step 4 and a state of step 6: steps 5 and 6 are in no version of
    the process that logged them, and 7 was logged twice."""
    states = {"save_strategy": "steps", "save_steps": 3, "resume": resume}
    with Repository.in_memory() as other:
        training(other, tmp_path / "whole", **states).train()
        whole = by_step(other["m@r/final"].logged())
    killed = training(repo, tmp_path / "out", Die(7), **states)
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    (callback,) = (c for c in killed.callback_handler.callbacks if isinstance(c, VersionCallback))
    assert callback._recorder is not None
    callback._recorder.wait()  # only for what the writer has already
    again = training(repo, tmp_path / "out", **states)
    again.train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-6"))
    last = next(v for v in repo.versions("m") if v.step == 8)
    found = by_step(last.logged())
    assert list(whole) == [1, 2, 3, 4, 5, 6, 7, 8]
    if resume:
        assert found == whole
    else:
        assert last.run is not None
        assert last.run.name == "r-2", "a run of its own, with what it logged itself"
        assert found == {step: whole[step] for step in (7, 8)}


def test_rows_of_a_version_that_cannot_be_written_go_with_the_next(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = repo.save

    def fails(*args: Any, name: str, **said: Any) -> Any:
        if name == "r/epoch-2":
            raise StorageFull(where="the disk")
        return save(*args, name=name, **said)

    monkeypatch.setattr(repo, "save", fails)
    training(repo, tmp_path / "out", num_train_epochs=3).train()
    assert [v.name for v in repo.versions("m")] == ["r/epoch-3", "r/epoch-1"]
    assert list(by_step(repo["m@r/final"].logged())) == list(range(1, 13))


def test_what_was_logged_after_the_last_version_joins_it(repo: Repository, tmp_path: Path) -> None:
    """A training that is cut off says how it went until then."""
    callback = VersionCallback(repo, "m")
    trainer = tiny.trainer(
        tiny.gpt2(), tmp_path / "out", [Die(7), callback],
        rows=16, logging_strategy="steps", logging_steps=1, run_name="r",
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    callback.wait()
    callback.wait()
    (one,) = repo.versions("m")
    assert list(by_step(one.logged())) == [1, 2, 3, 4, 5, 6]
    assert [kind for each in one.annotations for kind in each.objects] == ["logged#1"]


# --- a loop of one's own --------------------------------------------------------------------------


def test_a_loop_logs_steps_and_the_next_version_keeps_them(repo: Repository) -> None:
    model = torch.nn.Linear(2, 2)
    with repo.run("m", "r") as run:
        for step in range(1, 8):
            run.log({"loss": 1 / step, "seen": step * 2**54 + 1}, step=step, epoch=step / 3)
            if step % 3 == 0:
                run.save(model, step=step, metrics={"acc": 0.5})
                run.log({"eval_loss": torch.tensor(0.25)}, step=step)
        run.log({"loss": float("nan")}, step=8)
    one, two = reversed(repo.versions("m"))
    rows = by_step(two.logged())
    assert list(rows) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert rows[2] == {"step": 2, "epoch": 2 / 3, "loss": 0.5, "seen": 2**55 + 1}
    assert rows[3]["eval_loss"] == 0.25
    assert rows[8]["loss"] != rows[8]["loss"]
    assert one.record.metrics.keys() == {"loss", "seen", "acc"}, "what was logged at its own step"
    assert one.metrics["eval_loss"] == two.metrics["eval_loss"] == 0.25
    for wrong in ({"step": -1}, {"step": 1.5}, {"step": 2**70}, {"step": 1, "epoch": float("nan")}):
        with pytest.raises(InvalidArgument):
            run.log({"loss": 1.0}, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument):
        run.log({"loss": "low"}, step=1)  # type: ignore[dict-item]


def test_more_rows_than_a_version_keeps_are_thinned_and_that_is_said_once(
    repo: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    model = torch.nn.Linear(1, 1)
    with caplog.at_level(logging.WARNING, "stemmata"), repo.run("m", "r") as run:
        for step in range(1, 30_003):
            run.log({"loss": 1.0}, step=step)
            if step in (15_000, 30_000):
                run.save(model, step=step)
    assert [record.getMessage() for record in caplog.records] == [
        "r/step-15000 of m keeps 7500 of the 15000 rows that were logged since the version before"
    ]
    steps = [row["step"] for row in repo["m@r/latest"].logged()]
    assert steps == [*range(1, 15_000, 2), *range(15_001, 30_000, 2), 30_001, 30_002]


def test_a_loop_that_dies_tells_how_it_went(repo: Repository) -> None:
    def loop() -> None:
        with repo.run("m", "r") as run:
            run.save(torch.nn.Linear(1, 1))
            run.log({"loss": float("inf")}, step=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop()
    assert repo["m@r/save-1"].logged() == [{"step": 1, "loss": float("inf")}]


# --- Lightning ------------------------------------------------------------------------------------


def test_lightning_keeps_rows_where_its_loggers_get_them(repo: Repository, tmp_path: Path) -> None:
    callback = LightningCallback(repo, "m", run_name="r")
    fit = lightning_trainer(tmp_path, callback, max_epochs=2, log_every_n_steps=2)
    fit.fit(Validated(), numbers(16), numbers(4))
    one, two = reversed(repo.versions("m"))
    rows = by_step(two.logged())
    assert list(rows) == [2, 4, 6, 8]
    assert rows[2].keys() == {"step", "epoch", "loss", "loss_step"}
    assert (rows[2]["epoch"], rows[4]["epoch"], rows[6]["epoch"]) == (0.5, 1.0, 1.5)
    assert rows[4]["val_loss"] == one.metrics["val_loss"]
    assert {"loss_epoch", "late"} <= rows[4].keys(), "what was logged after the epoch's version too"
    assert "val_loss" not in rows[6]
