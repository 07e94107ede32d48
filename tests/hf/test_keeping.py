"""`keep=`: which versions of a run are marked deletable, and which never are."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerCallback

import tiny_models as tiny
from faults import FaultyStorage
from makers import model_folder
from stemmata.errors import InvalidArgument, StorageFull, TrainingSaveFailed
from stemmata.hf import VersionCallback
from stemmata.hf.keeping import Keep, Past, deletable, deletable_states
from stemmata.hf.recorder import Recorder
from stemmata.ids import VersionId
from stemmata.log.ops import VersionAnnotate
from stemmata.names import MAX_NAME_BYTES
from stemmata.records import Base, Run
from stemmata.repository import Repository
from stemmata.storage.local import LocalStorage

pytestmark = pytest.mark.usefixtures("one_thread")


def past(number: int, value: float | None = None, **more: Any) -> Past:
    return Past(VersionId(number.to_bytes(32, "big")), number, value, **more)


def marked(history: list[Past], keep: object, direction: Any = "min") -> list[int]:
    gone = deletable(history, Keep.parse(keep), direction)
    return sorted(int.from_bytes(version.raw, "big") for version in gone)


def line(*values: float | None) -> list[Past]:
    return [past(number, value) for number, value in enumerate(values, 1)]


# --- the policies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [0, -1, True, 1.5, None, "", "best", "best:0", "best:-1", "newest:3", "٣"])
def test_a_policy_that_cannot_be_read_is_refused_with_the_forms_that_can(
    repo: Repository, given: object
) -> None:
    with pytest.raises(InvalidArgument, match=r"write 'all', a number from 1 on .*, or 'best:2'"):
        VersionCallback(repo, "m", keep=given)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="keep"):
        repo.run("m", keep=given)  # type: ignore[arg-type]


@pytest.mark.parametrize(("given", "words"), [("all", "all"), (3, "3"), ("3", "3"), ("best:2", "best:2")])
def test_a_policy_says_itself_in_words(given: object, words: str) -> None:
    assert str(Keep.parse(given)) == f"keep={words}"


def test_the_newest_and_the_best_stay() -> None:
    assert marked(line(1.0, 3.0, 2.0, 4.0, 5.0), 2) == [2, 3]
    assert marked(line(1.0, 3.0, 2.0, 4.0, 5.0), 2, "max") == [1, 2, 3]
    assert marked(line(1.0, 3.0, 2.0, 4.0, 5.0), "best:2") == [2, 4]
    assert marked(line(1.0, 3.0, 2.0, 4.0, 5.0), "best:2", "max") == [1, 2, 3]
    assert marked(line(1.0, 3.0, 2.0), "all") == []
    assert marked([], 1) == []


def test_what_waits_for_its_metric_is_not_judged_and_what_was_passed_over_is() -> None:
    assert marked(line(2.0, 1.0, None, None), "best:1") == [1]
    assert marked(line(2.0, 1.0, None, 3.0), "best:1") == [1, 3]
    assert marked(line(None, None, 1.0), "best:2") == [1], "rather the newer one than none"
    assert marked(line(None, None, None), "best:1") == []


def test_nan_is_the_worst() -> None:
    assert marked(line(math.nan, 9.0, None, 10.0), "best:1") == [1, 3]
    assert marked(line(math.nan, None, 10.0), "best:2") == [1], "worse than what was never measured"
    assert marked(line(math.nan, 2.0, math.nan), 1) == [1]


def test_of_equal_ones_the_earlier_is_the_better() -> None:
    assert marked(line(1.0, 1.0, 1.0, 2.0), "best:1") == [2, 3]
    assert marked(line(1.0, 1.0, 1.0, 0.0), "best:1", "max") == [2, 3]


def test_a_best_that_came_back_is_none_of_the_newest() -> None:
    history = [*line(1.0, 2.0, 3.0), past(4, 1.5, held=True, restored=True)]
    assert marked(history, 2) == []
    assert marked(history, 1) == [2]


VALUES = st.none() | st.floats(-4, 4) | st.just(math.nan)
HISTORIES = st.lists(st.tuples(VALUES, st.booleans(), st.booleans()), max_size=12).map(
    lambda rows: [past(n, v, held=h or r, restored=r) for n, (v, h, r) in enumerate(rows, 1)]
)
POLICIES = st.sampled_from(["all", 1, 2, 5, "best:1", "best:3"])
WAYS = st.sampled_from(["min", "max"])


@given(HISTORIES, POLICIES, WAYS)
def test_never_the_newest_the_best_or_what_is_held(history: list[Past], keep: Any, way: Any) -> None:
    gone = deletable(history, Keep.parse(keep), way)
    known = {p.version: p for p in history}
    assert gone <= set(known)
    assert not any(known[version].held for version in gone)
    numbers = [p for p in history if p.value is not None and not math.isnan(p.value)]
    if numbers:
        best = (min if way == "min" else max)(numbers, key=lambda p: p.value)
        assert best.version not in gone
    if history:
        assert history[-1].version not in gone
    policy = Keep.parse(keep)
    stay = len(history) - len(gone)
    assert stay >= min(len(history), policy.count or len(history))
    for place, one in enumerate(history):
        if policy.by_metric and one.version in gone and one.value is None:
            assert any(p.value is not None for p in history[place:]), "still to be measured"


@given(HISTORIES, POLICIES, WAYS, st.randoms())
def test_what_is_held_more_is_never_marked_more(
    history: list[Past], keep: Any, way: Any, random: Any
) -> None:
    more = [Past(p.version, p.step, p.value, p.held or random.random() < 0.3, p.restored) for p in history]
    assert deletable(more, Keep.parse(keep), way) <= deletable(history, Keep.parse(keep), way)


@given(HISTORIES, st.sets(st.integers(1, 12)), st.integers(1, 12))
def test_a_state_stays_for_its_step_as_the_newest_or_held(
    history: list[Past], steps: set[int], newest: int
) -> None:
    last = past(newest).version
    gone = deletable_states(history, steps, last)
    assert gone == {p.version for p in history if p.step not in steps and p.version != last and not p.held}


# --- over a Trainer ---------------------------------------------------------------------------------------


def deleted(repo: Repository, model: str = "m") -> dict[str, str]:
    """Name -> mark of every marked version, oldest first."""
    rows = reversed(repo.versions(model))
    return {v.name: v.labels["deletable"] for v in rows if "deletable" in v.labels}


class Grades(TrainerCallback):
    """Gives the evaluation of each epoch the loss that the test chose."""

    def __init__(self, *losses: float) -> None:
        self.losses = losses

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **live: Any) -> None:
        metrics["eval_loss"] = self.losses[round(state.epoch) - 1]


class Watched(VersionCallback):
    @property
    def recorder(self) -> Recorder:
        assert self._recorder is not None
        return self._recorder


def train(
    out: Path,
    callback: VersionCallback,
    *losses: float,
    others: Sequence[TrainerCallback] = (),
    state: Path | None = None,
    **settings: Any,
) -> None:
    more = {"num_train_epochs": len(losses), "eval_strategy": "epoch", **settings}
    trainer = tiny.trainer(tiny.gpt2(), out, [*others, Grades(*losses), callback], **more)
    trainer.train(resume_from_checkpoint=state)


class Meanwhile(TrainerCallback):
    """Somebody else's hand in the middle of the training."""

    def __init__(self, hand: Callable[[int], None]) -> None:
        self.hand = hand

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **live: Any) -> None:
        self.hand(round(state.epoch))


def test_the_newest_and_the_best_of_a_training_stay_and_what_gets_a_name_meanwhile(
    repo: Repository, tmp_path: Path
) -> None:
    seen: list[dict[str, str]] = []

    def hand(epoch: int) -> None:
        if epoch == 4:
            callback.recorder.wait()
            seen.append(deleted(repo))
            repo.alias("m", "production", "m@r/epoch-1")
            repo.tag("m", "v1", "m@r/epoch-4")

    callback = Watched(repo, "m", run_name="r", keep=1)
    train(tmp_path / "out", callback, 3.0, 1.0, 2.0, 5.0, 4.0, 6.0, others=[Meanwhile(hand)])
    assert seen == [{"r/epoch-1": "keep=1", "r/epoch-3": "keep=1"}]
    assert deleted(repo) == {"r/epoch-3": "keep=1", "r/epoch-5": "keep=1"}
    assert len(repo.versions("m")) == 6, "nothing is deleted"
    assert repo["m@r/epoch-3"].to_dict()["labels"] == {"deletable": "keep=1"}
    events = [a.event for a in repo["m@r/epoch-1"].annotations if a.labels]
    assert events == ["keep", "keep"], "marked, and taken back"


def test_the_best_stay_by_the_trainers_own_metric_that_comes_after_each_version(
    repo: Repository, tmp_path: Path
) -> None:
    repo.configure("m", metric="eval_loss", direction="min")
    callback = VersionCallback(repo, "m", run_name="r", keep="best:2")
    more = {"metric_for_best_model": "loss", "greater_is_better": True}
    train(tmp_path / "out", callback, 3.0, 1.0, 5.0, 4.0, 2.0, **more)
    assert deleted(repo) == {"r/epoch-1": "keep=best:2"}
    assert repo["m@best"].name == "r/epoch-2", "the model goes by less"


def test_a_restored_best_stays_and_states_go_by_their_versions(repo: Repository, tmp_path: Path) -> None:
    callback = VersionCallback(repo, "m", run_name="r", keep=1, resume=True)
    more = {"save_strategy": "epoch", "load_best_model_at_end": True}
    train(tmp_path / "out", callback, 2.0, 1.0, 3.0, 4.0, **more)
    assert list(deleted(repo)) == ["r/epoch-1", "r/epoch-3"]
    assert set(repo["m@r/best"].names) == {"r/epoch-2", "r/best"}
    assert deleted(repo, "m.resume") == {"r/step-2": "keep=1", "r/step-6": "keep=1"}


def test_a_resumed_run_goes_by_all_its_versions_and_by_its_new_policy(
    repo: Repository, tmp_path: Path
) -> None:
    def go_on(keep: Any, *losses: float) -> None:
        callback = VersionCallback(repo, "m", run_name="r", keep=keep, resume=True)
        state = repo.resume("m", run="r")
        train(tmp_path / "out", callback, *losses, state=state, save_strategy="epoch")

    go_on(1, 1.0, 3.0)
    assert deleted(repo) == {}
    go_on(1, 1.0, 3.0, 4.0, 5.0)
    assert deleted(repo) == {"r/epoch-3": "keep=1"}, "epoch-2 was the first part's final"
    assert deleted(repo, "m.resume") == {"r/step-6": "keep=1"}
    go_on("all", 1.0, 3.0, 4.0, 5.0, 6.0)
    assert deleted(repo) == {}
    assert deleted(repo, "m.resume") == {}


# --- who needs a version ------------------------------------------------------------------------------------


def loop(repo: Repository, keep: Any, losses: list[float], between: Callable[[int], None]) -> None:
    with repo.run("m", "r", keep=keep) as run:
        for step, loss in enumerate(losses, 1):
            run.save(torch.nn.Linear(2, 2), step=step, metrics={"eval_loss": loss})
            run._recorder.wait()
            between(step)


def test_the_declared_metric_decides_where_the_training_names_none(repo: Repository) -> None:
    repo.configure("m", metric="score", direction="max")
    with repo.run("m", "r", keep="best:1") as run:
        for epoch, score in enumerate((1.0, 3.0, 2.0, 0.0), 1):
            run.save(torch.nn.Linear(1, 1), epoch=epoch)
            run.log({"score": score, "eval_loss": score})
    assert list(deleted(repo)) == ["r/epoch-1", "r/epoch-3"]


def test_a_forks_source_an_adapters_base_and_the_models_best_are_held(
    repo: Repository, tmp_path: Path
) -> None:
    def others(step: int) -> None:
        version = repo[f"m@r/step-{step}"]
        if step == 1:
            repo.save(
                model_folder(tmp_path / "fork"), "m", name="f/1", run=Run("f" * 32, "f"), parents=[version]
            )
        if step == 2:
            base = Base(name_or_path="", version=version.id.hex)
            repo.save(model_folder(tmp_path / "a"), "other", kind="adapter", base=base, parents=[])

    loop(repo, 1, [5.0, 4.0, 3.0, 2.0, 1.0], others)
    assert list(deleted(repo)) == ["r/step-3", "r/step-4"]


def test_somebodys_own_label_of_that_name_is_left_alone(repo: Repository) -> None:
    def hand(step: int) -> None:
        if step == 1:
            repo.annotate("m@r/step-1", labels={"deletable": "never"})

    loop(repo, 1, [3.0, 2.0, 1.0], hand)
    assert deleted(repo) == {"r/step-1": "never", "r/step-2": "keep=1"}


def test_a_best_that_comes_late_from_elsewhere_is_taken_back(repo: Repository) -> None:
    seen: list[list[str]] = []

    def hand(step: int) -> None:
        seen.append(list(deleted(repo)))
        if step == 4:
            repo.annotate("m@r/step-1", metrics={"eval_loss": 0.1})

    loop(repo, 1, [5.0, 4.0, 3.0, 2.0, 1.0], hand)
    assert seen[-2] == ["r/step-1", "r/step-2", "r/step-3"]
    assert list(deleted(repo)) == ["r/step-2", "r/step-3", "r/step-4"]


def test_a_model_whose_name_leaves_no_room_for_states_is_marked_too(repo: Repository) -> None:
    name = "m" * MAX_NAME_BYTES
    with repo.run(name, "r", keep=1, on_error="raise") as run:
        for step in (1, 2):
            run.save(torch.nn.Linear(1, 1), step=step, metrics={"eval_loss": 1 / step})
    assert deleted(repo, name) == {"r/step-1": "keep=1"}


def test_by_default_nothing_is_written_for_it(repo: Repository) -> None:
    loop(repo, "all", [3.0, 2.0, 1.0], lambda step: None)
    assert deleted(repo) == {}
    assert not any(a.labels for v in repo.versions("m") for a in v.annotations)


def test_a_metric_that_never_comes_is_told(repo: Repository, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "stemmata"), repo.run("m", "r", keep="best:1") as run:
        for step in (1, 2, 3):
            run.save(torch.nn.Linear(2, 2), step=step)
    assert deleted(repo) == {}
    assert "keep=best:1 marked nothing in run r of m: no version has a metric" in caplog.text


# --- marks that fail ----------------------------------------------------------------------------------------


@pytest.fixture
def failing(repo: Repository) -> Any:
    """A repository where an entry that marks cannot be written, for as long as `broken` says."""
    storage = FaultyStorage(LocalStorage(Path(repo.where)))
    with Repository(storage) as made:
        real, broken = made.session.commit, [True]

        def commit(plan: Any, **more: Any) -> Any:
            def wrapped(catalog: Any) -> Any:
                ops = plan(catalog)
                if broken[0] and any(isinstance(op, VersionAnnotate) and op.event == "keep" for op in ops):
                    raise StorageFull(where="the disk")
                return ops

            return real(wrapped, **more)

        made.session.commit = commit  # type: ignore[method-assign]
        yield made, broken


def test_a_mark_that_fails_is_logged_and_no_version_is_missing(
    failing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    repo, broken = failing

    def mend(step: int) -> None:
        broken[0] = step < 3

    with caplog.at_level(logging.WARNING, "stemmata"):
        loop(repo, 1, [4.0, 3.0, 2.0, 1.0], mend)
    assert "the marks of keep=1 of m failed: no space left in the disk" in caplog.text
    assert "not written" not in caplog.text
    assert list(deleted(repo)) == ["r/step-1", "r/step-2", "r/step-3"], "the next write does it again"


def test_a_mark_that_fails_raises_where_that_was_asked_for(failing: Any) -> None:
    repo, _ = failing
    run = repo.run("m", "r", keep=1, on_error="raise")
    run.save(torch.nn.Linear(2, 2), step=1)
    run.save(torch.nn.Linear(2, 2), step=2)
    with pytest.raises(TrainingSaveFailed, match="the marks of keep=1"):
        run.close()
    assert run.missing == {}
