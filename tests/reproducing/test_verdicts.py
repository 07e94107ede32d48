"""Verdicts as a whole: the first step that differs, the first steps alone, what is kept and what is shown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from making_again import NOTHING, Stores, captured
from spoiled import spoil
from stemmata.cli.reproductions import verdict_lines
from stemmata.errors import DamagedObject, InvalidArgument, Redacted, VersionNotFound
from stemmata.records import Run
from stemmata.reproducing import Verdict, judge, keep
from stemmata.reproducing.steps import History, compare_losses
from stemmata.reproductions import reproductions_of
from stemmata.version import Version

ZEROS, ONES = {"w": np.zeros(2, np.float32)}, {"w": np.ones(2, np.float32)}


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    made = Stores(tmp_path)
    yield made
    made.close()


def judged(a: Version, b: Version | None, **options: Any) -> Verdict:
    return judge(a, b, **{"before": NOTHING, "after": NOTHING, **options})


def log(*losses: float, every: int = 5) -> dict[str, bytes]:
    """A Trainer's log, as an import keeps it beside a version."""
    rows: list[dict[str, float]] = [
        {"step": every * n, "epoch": n / 10, "loss": loss, "grad_norm": float(n)}
        for n, loss in enumerate(losses, 1)
    ]
    rows.append({"step": every * len(losses), "train_runtime": 3.0, "train_loss": sum(losses)})
    return {"trainer_state": json.dumps({"global_step": 15, "log_history": rows}).encode()}


# --- the first step that differs --------------------------------------------------------------------


def test_the_first_logged_step_whose_loss_differs_is_named(stores: Stores) -> None:
    one = stores.save(0, ZEROS, step=15, provenance=log(0.9, 0.8, 0.7))
    two = stores.save(1, ONES, step=15, provenance=log(0.9, 0.75, 0.6))
    found = judged(one, two)
    assert (found.kind, found.first_step) == ("diverged", 10)
    assert (found.losses.first.metric, found.losses.first.before, found.losses.first.after) == (
        "loss",
        0.8,
        0.75,
    )
    assert (found.losses.compared, found.losses.last) == (3, 15)
    assert found.summary.endswith("; the first loss that differs is that of step 10; cause unknown")
    assert "losses: step 10: loss 0.8 → 0.75, the first that differs" in str(found)
    assert all("the training's log, kept with toy@" in source for source in found.losses.sources)


def test_the_same_weights_with_another_loss_are_explained_too(stores: Stores) -> None:
    one = stores.save(0, ZEROS, step=5, metrics={"eval_loss": 0.5})
    two = stores.save(1, ZEROS, step=5, metrics={"eval_loss": 0.6})
    after = captured(data={"parts": {"eval": {"digest": "9" * 64}}})
    found = judged(one, two, before=captured(), after=after)
    assert (found.kind, found.first_step, found.harmless) == ("bit-identical", 5, ())
    assert [each.name for each in found.causes] == ["eval"]
    assert found.summary == (
        "bit-identical: the one tensor has the same digest; eval_loss, logged at step 5, differs "
        "all the same; likely cause: data eval: 12 rows, eeeeeeeeeeee → 12 rows, 999999999999"
    )
    assert judged(one, two, before=captured(), after=captured()).cause_unknown


def test_a_log_in_the_files_of_a_version_counts(stores: Stores) -> None:
    states = [log(0.9, loss)["trainer_state"] for loss in (0.8, 0.7)]
    one, two = (stores.save(side, ZEROS, files={"trainer_state.json": s}) for side, s in enumerate(states))
    found = judged(one, two)
    assert (found.kind, found.first_step) == ("bit-identical", 10)
    assert [(f.path, f.matters) for f in found.files] == [("trainer_state.json", False)]


def test_without_a_log_the_metrics_of_the_runs_versions_are_compared(stores: Stores) -> None:
    for side, losses in enumerate([(0.9, 0.8, 0.7), (0.9, 0.8, 0.6)]):
        for step, loss in enumerate(losses, 1):
            metrics = {"loss": loss, "eval_loss": loss + 1, "eval_f1": loss * side}
            stores.save(side, ZEROS if step < 3 or not side else ONES, step=step, metrics=metrics)
    one, two = stores.first["toy@latest"], stores.second["toy@latest"]
    found = judged(one, two)
    assert (found.first_step, found.losses.first.metric, found.losses.compared) == (3, "loss", 3)
    assert found.losses.sources == ("the metrics of its versions",) * 2


def test_losses_after_the_step_of_the_version_are_not_its(stores: Stores) -> None:
    one = stores.save(0, ZEROS, step=5, metrics={"loss": 1.0})
    stores.save(0, ZEROS, step=10, metrics={"loss": 0.5})
    two = stores.save(1, ZEROS, step=5, metrics={"loss": 1.0})
    stores.save(1, ZEROS, step=10, metrics={"loss": 0.25})
    assert (judged(one, two).first_step, judged(one, two).losses.compared) == (None, 1)


def test_an_evaluation_that_somebody_added_later_is_none_of_the_runs(stores: Stores) -> None:
    one = stores.save(0, ZEROS, step=1, metrics={"loss": 1.0})
    stores.first.annotate(one, metrics={"loss": 3.0, "other_loss": 2.0})
    two = stores.save(1, ZEROS, step=1, metrics={"loss": 1.0})
    assert judged(stores.first.get(one.id), two).first_step is None


@pytest.mark.parametrize(
    ("losses", "problem"),
    [
        ([{}, {}], "no loss of the original was kept; no loss of the copy was kept"),
        ([{"loss": 1.0}, {}], "no loss of the copy was kept"),
        ([{"loss": 1.0}, {"eval_loss": 1.0}], "the two runs logged no loss at a same step"),
    ],
)
def test_without_losses_it_is_said_why_no_step_can_be_told(
    stores: Stores, losses: list[dict[str, float]], problem: str
) -> None:
    one, two = (
        stores.save(side, tensors, step=3, metrics=metrics)
        for side, (tensors, metrics) in enumerate(zip((ZEROS, ONES), losses, strict=True))
    )
    found = judged(one, two)
    assert (found.first_step, found.losses.problem) == (
        None,
        problem + (" up to step 3" if "same" in problem else ""),
    )
    assert "no step can be told" in str(found)


def test_a_version_of_no_run_has_its_own_losses(stores: Stores) -> None:
    one = stores.save(0, ZEROS, run=None, step=1, metrics={"loss": 1.0})
    two = stores.save(1, ONES, run=None, step=1, metrics={"loss": 2.0})
    assert judged(one, two).first_step == 1


LOSS = st.floats() | st.sampled_from([0.5, math.nan, math.inf])
HISTORIES = st.dictionaries(
    st.integers(0, 12),
    st.dictionaries(st.sampled_from(["loss", "eval_loss", "aux_loss"]), LOSS, min_size=1),
    max_size=8,
)


@given(HISTORIES, HISTORIES, st.none() | st.integers(1, 12))
def test_the_first_difference_is_that_of_the_least_common_step(
    a: Mapping[int, Mapping[str, float]], b: Mapping[int, Mapping[str, float]], until: int | None
) -> None:
    found = compare_losses(History(a), History(b), until)
    common = [s for s in sorted(a) if s in b and a[s].keys() & b[s].keys() and (until is None or s <= until)]
    assert found.compared == len(common)
    assert bool(found.problem) == (not common)
    other = [
        step for step in common
        if any(repr(a[step][k] + 0.0) != repr(b[step][k] + 0.0) for k in a[step].keys() & b[step].keys())
    ]  # fmt: skip
    assert (found.first.step if found.first else None) == (other[0] if other else None)
    assert compare_losses(History(a), History(a)).first is None


# --- the first steps alone --------------------------------------------------------------------------


def test_the_first_steps_whose_losses_agree(stores: Stores) -> None:
    one = stores.save(0, ZEROS, step=15, provenance=log(0.9, 0.8, 0.7))
    two = stores.save(1, ONES, step=10, provenance=log(0.9, 0.8))
    found = judged(one, two, steps=11)
    assert (found.kind, found.weights, bool(found)) == ("losses-agree", None, True)
    assert found.summary == (
        "identical losses over the first 11 steps: 2 steps logged by both, all equal; "
        "no weights were compared"
    )
    assert found.notes == ("the last loss that both logged is that of step 10",)


def test_the_first_steps_whose_losses_do_not(stores: Stores) -> None:
    one = stores.save(0, ZEROS, step=15, provenance=log(0.9, 0.8, 0.7))
    two = stores.save(1, ONES, step=10, provenance=log(0.9, 0.81))
    assert judged(one, two, steps=9).kind == "losses-agree"
    found = judged(one, two, steps=10, before=captured(), after=captured(seeds={"seed": 1}))
    assert (found.kind, found.first_step, [c.name for c in found.causes]) == ("diverged", 10, ["seed"])
    assert found.summary == (
        "diverged over the first 10 steps: the first loss that differs is that of step 10; "
        "likely cause: seed: 42 → 1"
    )


def test_weights_of_that_very_step_decide_where_both_have_them(stores: Stores) -> None:
    stores.save(0, ZEROS, step=5, metrics={"loss": 0.9})
    one = stores.save(0, ONES, step=10, metrics={"loss": 0.8})
    two = stores.save(1, ZEROS, step=5, metrics={"loss": 0.9})
    found = judged(one, two, steps=5)
    assert (found.kind, found.summary) == (
        "bit-identical",
        "bit-identical over the first 5 steps: the one tensor has the same digest",
    )
    assert judged(one, stores.save(1, ONES, step=10), steps=10).kind == "bit-identical"


def test_a_state_to_go_on_from_has_the_weights_of_its_step(stores: Stores) -> None:
    run = Run("1" * 32, "r")
    folder = stores.folder({"w": np.ones(3, np.float32)})
    stores.first.save(folder, "toy.resume", kind="checkpoint", step=5, run=run, provenance={})
    one = stores.save(0, ZEROS, step=10)
    two = stores.save(1, {"w": np.full(3, 2, np.float32)}, step=5)
    found = judged(one, two, steps=5)
    assert (found.kind, found.deviations[0].differing) == ("diverged", 3)


def test_where_nothing_up_to_that_step_was_kept_it_is_undecided(stores: Stores) -> None:
    one, two = stores.save(0, ZEROS, step=10), stores.save(1, ZEROS, step=10)
    found = judged(one, two, steps=3, before=captured(), after=captured(seeds={"seed": 1}))
    assert (found.kind, bool(found), found.causes) == ("undecided", False, ())
    assert [each.name for each in found.others] == ["seed"]
    assert found.summary == (
        "undecided over the first 3 steps: no loss of the original was kept; no loss of the copy was kept"
    )


def test_steps_are_at_least_one(stores: Stores) -> None:
    one = stores.save(0, ZEROS)
    with pytest.raises(InvalidArgument):
        judged(one, one, steps=0)


def test_another_step_of_the_copy_is_noted(stores: Stores) -> None:
    one, two = stores.save(0, ZEROS, step=30), stores.save(1, ONES, step=10)
    assert judged(one, two).notes == ("the copy is of step 10, the original of step 30",)


def test_without_a_copy_it_was_not_run(stores: Stores) -> None:
    one = stores.save(0, ZEROS)
    found = judged(one, None, after=None, why="the base model has disappeared")
    assert (found.kind, bool(found), found.again) == ("not-run", False, None)
    assert str(found) == "not run: the base model has disappeared"
    assert keep(one, found).verdict == "not-run"


def test_damaged_weights_are_an_error_and_no_verdict(stores: Stores) -> None:
    one, two = stores.save(0, ZEROS), stores.save(1, ONES)
    storage = stores.second.session.storage
    (pack,) = two.source.packs(two.source.row(two.id))
    spoil(storage, pack, "frame")
    with pytest.raises(DamagedObject):
        judged(one, two)


# --- what is kept and shown -------------------------------------------------------------------------


def diverged(stores: Stores) -> tuple[Version, Verdict]:
    one = stores.save(0, ZEROS, name="one", step=3, metrics={"loss": 0.5})
    two = stores.save(1, {"w": np.array([0, np.inf], np.float32)}, name="two", step=3, metrics={"loss": 0.25})
    after = captured(seeds={"seed": 7}, packages={"torch": "2.7.1", "pytest": "9"})
    return one, judge(one, two, before=captured(), after=after)


def test_a_verdict_is_kept_in_short_in_the_log_and_whole_as_an_object(stores: Stores) -> None:
    one, found = diverged(stores)
    kept = keep(one, found, why="audit")
    assert (kept.verdict, kept.first_step, kept.largest, kept.causes, kept.object, kept.why) == (
        "diverged", 3, math.inf, ("seed", "package"), "reproduction#1", "audit"
    )  # fmt: skip
    assert str(kept) == "diverged, the loss from step 3 on; likely cause: seed"
    assert json.loads(one_again(stores, one).provenance("reproduction#1")) == json.loads(
        json.dumps(found.to_dict())
    )
    again = keep(one, found)
    assert again.object == "reproduction#2"
    assert [each.object for each in one_again(stores, one).reproductions()] == [
        "reproduction#1",
        "reproduction#2",
    ]
    (details, _) = (a.details for a in one_again(stores, one).annotations)
    assert details == {
        "reproduced": {
            "verdict": "diverged", "first_step": 3, "largest": "~inf", "causes": ["seed", "package"],
            "object": "reproduction#1",
        }
    }  # fmt: skip


def one_again(stores: Stores, version: Version) -> Version:
    return stores.first.get(version.id)


def test_the_log_holds_no_value_and_no_name_that_may_have_to_be_erased(stores: Stores) -> None:
    one, found = diverged(stores)
    keep(one, found)
    written = json.dumps(one_again(stores, one).annotations[0].details)
    assert not any(word in written for word in ("torch", "2.7.1", "layer", "toy", "two"))
    stores.first.redact(one, ["reproduction#1"], why="a name in it")
    with pytest.raises(Redacted):
        one_again(stores, one).provenance("reproduction#1")
    assert [each.verdict for each in one_again(stores, one).reproductions()] == ["diverged"]


def test_a_verdict_survives_a_collection(stores: Stores) -> None:
    one, found = diverged(stores)
    keep(one, found)
    stores.first.gc()
    stores.first.repack()
    assert json.loads(one_again(stores, one).provenance("reproduction#1"))["verdict"] == "diverged"


def test_of_a_deleted_version_no_verdict_is_kept(stores: Stores) -> None:
    one, found = diverged(stores)
    stores.first.delete(one)
    with pytest.raises(VersionNotFound):
        keep(one, found)


@pytest.mark.parametrize(
    "said",
    [None, "x", {}, {"verdict": 5}, {"verdict": "diverged", "steps": -1, "first_step": True, "largest": "?",
     "causes": "seed", "object": "other#1"}],
)  # fmt: skip
def test_what_is_ill_formed_counts_as_unsaid(stores: Stores, said: object) -> None:
    one, found = diverged(stores)
    keep(one, found)
    row = msgspec.structs.replace(one_again(stores, one).annotations[0], details={"reproduced": said})
    told = reproductions_of([row])
    if not isinstance(said, dict) or not isinstance(said.get("verdict"), str):
        assert told == []
        return
    (only,) = told
    assert (only.steps, only.first_step, only.largest, only.causes, only.object) == (
        None,
        None,
        None,
        (),
        None,
    )


def test_the_document_is_the_same_each_time_and_plain_json(stores: Stores) -> None:
    one, found = diverged(stores)
    text = json.dumps(found.to_dict(), allow_nan=False)
    again = judge(one, stores.second["toy@two"], before=captured(), after=captured(
        seeds={"seed": 7}, packages={"torch": "2.7.1", "pytest": "9"}))  # fmt: skip
    assert json.dumps(again.to_dict(), allow_nan=False) == text
    document = json.loads(text)
    assert list(document) == [
        "format", "verdict", "reproduced", "original", "again", "steps", "why", "first_step", "losses",
        "weights", "tolerances", "files", "causes", "cause_unknown", "did_not_matter", "recorded", "aside",
        "uncompared", "notes",
    ]  # fmt: skip
    assert document["weights"]["deviations"]["listed"][0]["largest"] == "~inf"
    assert document["aside"]["listed"][0]["name"] == "pytest"


def test_every_field_of_the_document_is_in_the_format(stores: Stores) -> None:
    page = (Path(__file__).parents[2] / "FORMAT.md").read_text()
    told = page[page.index("**A verdict.**") : page.index("**Statistics.**")]
    _, found = diverged(stores)

    def names(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield key
                yield from names(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from names(inner)

    document = {k: v for k, v in found.to_dict().items() if k != "tolerances"}
    assert [name for name in sorted(set(names(document))) if f"`{name}`" not in told] == []


def test_a_long_list_is_cut_and_counted(stores: Stores) -> None:
    a = {f"t{n:03}": np.zeros(1, np.float32) for n in range(60)}
    found = judged(*stores.pair(a, {name: tensor + n + 1 for n, (name, tensor) in enumerate(a.items())}))
    listed = found.to_dict()["weights"]["deviations"]
    assert (listed["count"], len(listed["listed"])) == (60, 50)
    assert "and 55 more" in str(found)


def test_a_verdict_on_a_terminal(stores: Stores) -> None:
    one, found = diverged(stores)
    shown = "\n".join(line.plain for line in verdict_lines(found, 100))
    assert shown.splitlines()[0] == found.summary
    assert "likely causes  seed: 42 → 7" in shown
    hostile = judge(one, None, before=None, after=None, why="a\x1b[31mb")
    assert "\x1b" not in "".join(line.plain for line in verdict_lines(hostile, 80))
