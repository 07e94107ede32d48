"""`repo.run`: a plain loop saves as the callback does."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_models as tiny
from stemmata.errors import InvalidArgument, InvalidName, StorageFull, TrainingSaveFailed
from stemmata.repository import Repository


def test_a_plain_loop_makes_a_line_of_versions(repo: Repository) -> None:
    model = torch.nn.Linear(3, 2)
    weights: list[torch.Tensor] = []
    with repo.run("m", "first", config={"lr": 0.5}, message="by hand") as run:
        for epoch in (1, 2, 3):
            with torch.no_grad():
                model.weight.add_(1.0)
            weights.append(model.weight.detach().clone())
            run.save(model, epoch=epoch, step=10 * epoch, metrics={"loss": 1 / epoch})
            run.log({"eval_loss": 2 / epoch})
    versions = list(reversed(repo.versions("m")))
    assert [v.name for v in versions] == ["first/epoch-1", "first/epoch-2", "first/epoch-3"]
    assert [v.step for v in versions] == [10, 20, 30]
    assert [v.parents for v in versions[1:]] == [[v.id.hex] for v in versions[:-1]]
    assert versions[1].metrics == {"loss": 0.5, "eval_loss": 1.0}
    assert versions[0].config["lr"] == 0.5
    assert versions[0].config["model.architecture"] == "Linear"
    assert versions[0].message == "by hand"
    for version, expected in zip(versions, weights, strict=True):
        assert torch.equal(version.state_dict()["weight"], expected)
    with repo.run("m", "first") as run:
        run.save(model)
    assert run.name == "first-2"
    again = repo["m@first-2/save-1"]
    assert again.parents == [versions[-1].id.hex], "the same model in memory"
    assert again.step is None


def test_a_library_model_with_its_tokenizer_and_a_folder(repo: Repository, base: Path) -> None:
    with repo.run("m", "r") as run:
        run.save(tiny.gpt2(), step=1, tokenizer=tiny.tokenizer())
        run.save(base, name="base")
        run.save(str(base), step=3)
    one, two, three = reversed(repo.versions("m"))
    assert type(one.load()).__name__ == "GPT2LMHeadModel"
    assert one.load_tokenizer().eos_token == "<end>"
    assert (two.name, three.name) == ("r/base", "r/step-3")
    assert two.parents == [one.id.hex]


def test_a_loop_that_dies_keeps_what_it_saved_and_its_own_error(repo: Repository) -> None:
    def loop() -> None:
        with repo.run("m", "r") as run:
            run.save(torch.nn.Linear(1, 1), step=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop()
    assert repo["m@r/step-1"].event == "manual"


def test_failures_are_listed_or_raised(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*a: Any, **k: Any) -> Any:
        raise StorageFull(where="the disk")

    monkeypatch.setattr(repo, "save", full)
    with repo.run("m", "r") as run:
        run.save(torch.nn.Linear(1, 1), step=1)
    assert run.missing == {"r/step-1": "no space left in the disk"}
    with pytest.raises(TrainingSaveFailed), repo.run("m", "r", on_error="raise") as run:
        run.save(torch.nn.Linear(1, 1), step=1)


def test_wrong_arguments_are_refused_at_once(repo: Repository) -> None:
    with pytest.raises(InvalidArgument):
        repo.run("m", on_error="no")
    with repo.run("m") as run:
        with pytest.raises(InvalidArgument, match="no version yet"):
            run.log({"loss": 1.0})
        for wrong in (None, {"w": torch.ones(1)}):
            with pytest.raises(InvalidArgument, match="neither a model nor a folder"):
                run.save(wrong)


def test_several_saves_of_an_epoch_or_a_step_are_all_kept(repo: Repository, base: Path) -> None:
    """A loop that saves every so many steps says the epoch too."""
    model = torch.nn.Linear(2, 2)
    with repo.run("m", "r") as run:
        for epoch in (1, 2):
            for step in (10, 20):
                run.save(model, epoch=epoch, step=100 * epoch + step)
                with torch.no_grad():
                    model.weight.add_(1.0)
        run.save(model, epoch=2)
        run.save(model, epoch=2)
        run.save(model, step=120)
        run.save(base, epoch=1, step=120)
        run.save(model, name="mine")
        run.save(model)
    assert run.missing == {}
    names = [v.name.removeprefix("r/") for v in reversed(repo.versions("m"))]
    assert names[:4] == ["epoch-1", "step-120", "epoch-2", "step-220"]
    assert names[4:] == ["epoch-2-2", "epoch-2-3", "step-120-2", "step-120-3", "mine", "save-10"]


def test_a_name_that_was_given_twice_gets_a_number(repo: Repository, base: Path) -> None:
    with repo.run("m", "r") as run:
        run.save(torch.nn.Linear(1, 1), name="mine")
        run.save(torch.nn.Linear(1, 1), name="Mine")
        run.save(base, name="mine")
    assert run.missing == {}
    assert [v.name for v in repo.versions("m")] == ["r/mine-3", "r/Mine-2", "r/mine"]


def test_a_given_name_is_judged_behind_the_runs(repo: Repository) -> None:
    """Alone, 1000 would read as an id and best as a selector."""
    with repo.run("m", "r") as run:
        for name in ("900", "1000", "cafe", "best"):
            run.save(torch.nn.Linear(1, 1), name=name)
        for wrong in ("latest", "", "a b", "x@y"):
            with pytest.raises(InvalidName):
                run.save(torch.nn.Linear(1, 1), name=wrong)
    assert run.missing == {}
    assert [v.name for v in reversed(repo.versions("m"))] == ["r/900", "r/1000", "r/cafe", "r/best"]


def test_metrics_are_those_of_the_call(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those that a tensor, or the dict, has when the writer comes to them."""
    go, save = threading.Event(), repo.save

    def late(*a: Any, **k: Any) -> Any:
        assert go.wait(30)
        return save(*a, **k)

    monkeypatch.setattr(repo, "save", late)
    total, seen = torch.tensor(1.0), {"acc": 0.5}
    with repo.run("m", "r") as run:
        run.save(torch.nn.Linear(1, 1), step=1, metrics={"loss": total})
        run.log(seen)
        run.log({"score": total})
        total.zero_()
        seen["acc"] = seen["later"] = 2.0
        go.set()
    assert repo["m@r/step-1"].metrics == {"loss": 1.0, "acc": 0.5, "score": 1.0}


def test_what_no_version_can_have_is_refused_at_the_call(repo: Repository, base: Path) -> None:
    model = torch.nn.Linear(1, 1)
    nan, none = float("nan"), {"loss": None}
    wrong: list[dict[str, Any]] = [
        *({"step": step} for step in ("3", 3.0, 2**70)),
        *({"epoch": epoch} for epoch in (nan, float("inf"), "one", [])),
        *({"metrics": metrics} for metrics in (none, {"loss": "low"}, {"acc ": 1.0}, {"a": torch.ones(2)})),
    ]
    with repo.run("m", "r") as run:
        run.save(model, epoch=torch.tensor(1.0), step=torch.tensor(5), metrics={"nan": nan})
        for said in wrong:
            for source in (model, base):
                with pytest.raises(InvalidArgument):
                    run.save(source, **said)
        with pytest.raises(InvalidArgument):
            run.log(none)  # type: ignore[arg-type]
        run.save(model, epoch=2)
    assert run.missing == {}
    assert [(v.name, v.step, v.epoch) for v in reversed(repo.versions("m"))] == [
        ("r/epoch-1", 5, 1.0),
        ("r/epoch-2", None, 2.0),
    ]
