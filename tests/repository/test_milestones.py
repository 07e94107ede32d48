"""Metrics at a step or an epoch: from the run's versions, from a training's log; and why there are none."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from makers import model_folder
from stemmata.catalog.kinship import Kinship, kinship
from stemmata.compare.diff import Diff
from stemmata.compare.readings import Point, Reading, listed, logged, rows_of
from stemmata.errors import InvalidArgument
from stemmata.ids import VersionId
from stemmata.records import Run
from stemmata.repository import Repository
from stemmata.version import Version

LOG = [
    {"step": 5, "epoch": 0.5, "loss": 0.9, "learning_rate": 1e-4},
    {"step": 10, "epoch": 1.0, "loss": 0.8},
    {"step": 10, "epoch": 1.0, "eval_loss": float("nan"), "eval_runtime": 2.0},
    {"step": 15, "epoch": 1.5, "loss": 0.7},
]


def state(rows: list[dict[str, Any]] = LOG) -> bytes:
    return json.dumps({"global_step": 15, "log_history": rows}).encode()


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return Repository.in_memory()


def save(repo: Repository, work: Path, name: str, **more: Any) -> Version:
    folder = model_folder(work / name.replace("/", "-"), seed=len(list(work.iterdir())))
    kept = more.pop("provenance", {})
    return repo.save(folder, more.pop("model", "m"), name=name, provenance=kept, **more)


def line(
    repo: Repository, work: Path, run: str, *losses: float, every: int = 10, **more: Any
) -> list[Version]:
    found: list[Version] = []
    for number, loss in enumerate(losses, 1):
        fields = {"run": Run(run * 8, run), "step": every * number, "epoch": float(number), **more}
        metrics = {"eval_loss": loss}
        found.append(save(repo, work, f"{run}/epoch-{number}", metrics=metrics, parents=found[-1:], **fields))
    return found


def metrics(found: Diff) -> dict[str, tuple[float | None, float | None]]:
    return {m.key: (m.a, m.b) for m in found.metrics}


def readings(found: Diff) -> tuple[Reading, Reading]:
    assert found.readings is not None
    return found.readings


def test_metrics_of_the_runs_versions_at_a_step_and_at_an_epoch(repo: Repository, tmp_path: Path) -> None:
    line(repo, tmp_path, "a", 0.9, 0.5, 0.3)
    line(repo, tmp_path, "b", 0.8, 0.4, every=20)
    assert metrics(repo.diff("m@a/epoch-3", "m@b/epoch-2")) == {"eval_loss": (0.3, 0.4)}
    found = repo.diff("m@a/epoch-3", "m@b/epoch-2", step=20)
    assert metrics(found) == {"eval_loss": (0.5, 0.8)}
    assert [r.sources for r in readings(found)] == [("version m@a/epoch-2",), ("version m@b/epoch-1",)]
    found = repo.diff("m@a/epoch-3", "m@b/epoch-2", epoch=1)
    assert metrics(found) == {"eval_loss": (0.9, 0.8)}
    assert [(r.step, r.epoch) for r in readings(found)] == [(10, 1.0), (20, 1.0)]
    # The rest is of the versions themselves.
    assert [c.key for c in found.about.changed] == ["epoch", "run", "step"]


def test_metrics_of_a_log_that_was_kept(repo: Repository, tmp_path: Path) -> None:
    line(repo, tmp_path, "a", 0.6)
    save(repo, tmp_path, "a/final", run=Run("a" * 8, "a"), step=15, provenance={"trainer_state": state()})
    found = repo.diff("m@a/epoch-1", "m@a/epoch-1", step=5)
    assert metrics(found) == {"learning_rate": (1e-4, 1e-4), "loss": (0.9, 0.9)}
    assert readings(found)[0].sources == ("the training's log, kept with m@a/final",)
    both = readings(repo.diff("m@a/epoch-1", "m@a/epoch-1", epoch=1.0))[0]
    # What the version says counts where both say something.
    assert (both.metrics["loss"], both.metrics["eval_loss"], both.step) == (0.8, 0.6, 10)
    assert both.sources == ("version m@a/epoch-1", "the training's log, kept with m@a/final")


def test_the_log_of_a_state_to_go_on_from_is_the_runs(repo: Repository, tmp_path: Path) -> None:
    line(repo, tmp_path, "a", 0.6)
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "trainer_state.json").write_bytes(state())
    repo.save(folder, "m.resume", name="a/step-15", run=Run("a" * 8, "a"), step=15, provenance={})
    found = readings(repo.diff("m@a/epoch-1", "m@a/epoch-1", step=15))[0]
    assert (found.metrics, found.sources) == (
        {"loss": 0.7},
        ("the training's log, kept with m.resume@a/step-15",),
    )


def test_what_is_missing_is_said_with_what_is_there(repo: Repository, tmp_path: Path) -> None:
    line(repo, tmp_path, "a", 0.9, 0.5)
    save(repo, tmp_path, "alone", step=7, metrics={"eval_loss": 1.0})
    found = repo.diff("m@a/epoch-2", "m@alone", step=11)
    assert metrics(found) == {}
    assert [r.problem for r in readings(found)] == [
        "run a has no metrics at step 11; it has some at steps 10, 20",
        "alone is of no run, and not of step 11",
    ]
    assert metrics(repo.diff("m@a/epoch-2", "m@alone", step=7)) == {"eval_loss": (None, 1.0)}
    with pytest.raises(InvalidArgument, match="one of the two"):
        repo.diff("m@a/epoch-2", "m@alone", step=7, epoch=1)


def test_a_branch_of_a_run_is_not_told_of_another_one(repo: Repository, tmp_path: Path) -> None:
    fields = {"run": Run("a" * 8, "a")}
    first = save(repo, tmp_path, "a/1", step=100, metrics={"acc": 0.5}, parents=[], **fields)
    second = save(repo, tmp_path, "a/2", step=200, metrics={"acc": 0.7}, parents=[first], **fields)
    other = save(repo, tmp_path, "a/2-again", step=200, metrics={"acc": 0.1}, parents=[first], **fields)
    save(repo, tmp_path, "a/3-again", step=300, metrics={"acc": 0.2}, parents=[other], **fields)
    assert metrics(repo.diff(second, other, step=200)) == {"acc": (0.7, 0.1)}
    assert metrics(repo.diff(second, other, step=100)) == {"acc": (0.5, 0.5)}
    found = repo.diff(second, other, step=300)
    assert metrics(found) == {"acc": (None, 0.2)}
    assert readings(found)[0].problem == "run a has no metrics at step 300; it has some at steps 100, 200"


def test_of_several_versions_near_an_epoch_the_nearest_counts(repo: Repository, tmp_path: Path) -> None:
    last: list[Version] = []
    for number, epoch in enumerate((0.998, 1.0, 1.004)):
        fields = {"run": Run("a" * 8, "a"), "epoch": epoch, "metrics": {"acc": epoch}}
        last = [save(repo, tmp_path, f"a/{number}", parents=last, **fields)]
    assert metrics(repo.diff(last[0], last[0], epoch=1.0)) == {"acc": (1.0, 1.0)}


def test_three_versions_at_a_step(repo: Repository, tmp_path: Path) -> None:
    for run in "abc":
        line(repo, tmp_path, run, 0.9, 0.5)
    found = repo.diff("m@a/epoch-2", "m@b/epoch-2", "m@c/epoch-2", step=10)
    assert [row.values for row in found.metrics] == [(0.9, 0.9, 0.9)]
    assert found.readings is not None
    assert found.to_dict()["readings"][2]["sources"] == ["version m@c/epoch-1"]


@pytest.mark.parametrize(
    "broken", [b"", b"{", b"[]", b'{"log_history":7}', b'{"log_history":[1]}', b"[" * 99999]
)
def test_a_log_that_is_none_has_no_rows(broken: bytes) -> None:
    assert rows_of(broken) == []


json_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
rows = st.lists(
    st.dictionaries(st.sampled_from(["step", "epoch", "loss", "x"]), json_values, max_size=4), max_size=6
)


@given(rows, st.integers(0, 5), st.floats(0, 5))
def test_any_log_is_read(told: list[dict[str, Any]], step: int, epoch: float) -> None:
    for point in (Point(step=step), Point(epoch=epoch)):
        found = logged(rows_of(json.dumps({"log_history": told}).encode()), point)
        if found is not None:
            assert set(found.metrics) <= {"loss", "x"}
        listed([(row.get("step"), row.get("epoch")) for row in told], point)


def test_of_many_points_those_next_to_the_wanted_one_are_named() -> None:
    points: list[tuple[object, object]] = [(n, None) for n in range(0, 1000, 10)]
    assert listed(points, Point(step=505)) == "steps 480, 490, 500, 510, 520, 530 and 94 others"


# --- kinship ------------------------------------------------------------------------------------------


def between(repo: Repository, a: Version, b: Version) -> Kinship:
    return kinship(repo.session.catalog.connection, a.id, b.id)


def test_how_versions_come_from_each_other(repo: Repository, tmp_path: Path) -> None:
    trunk = line(repo, tmp_path, "a", 0.9, 0.8, 0.7, 0.6)
    side = save(repo, tmp_path, "side", parents=[trunk[1]])
    merged = save(repo, tmp_path, "merged", parents=[trunk[3], side])
    other = save(repo, tmp_path, "other", parents=[])
    assert between(repo, trunk[0], trunk[3]) == Kinship(trunk[0].id, 0, 3)
    assert between(repo, trunk[3], trunk[0]) == Kinship(trunk[0].id, 3, 0)
    assert between(repo, trunk[3], side) == Kinship(trunk[1].id, 2, 1)
    assert between(repo, side, merged) == Kinship(side.id, 0, 1)
    assert between(repo, side, other) == Kinship(None)
    assert between(repo, side, side) == Kinship(side.id)


def test_one_that_the_other_comes_from_is_nearer_than_what_both_come_from(
    repo: Repository, tmp_path: Path
) -> None:
    root = save(repo, tmp_path, "root", parents=[])
    a = save(repo, tmp_path, "a", parents=[root])
    long = a
    for number in range(4):
        long = save(repo, tmp_path, f"long-{number}", parents=[long])
    short = save(repo, tmp_path, "short", parents=[root])
    b = save(repo, tmp_path, "b", parents=[long, short])
    assert between(repo, a, b) == Kinship(a.id, 0, 5)
    assert between(repo, b, a) == Kinship(a.id, 5, 0)
    assert repo.diff(a, b).descent == "b comes from a, 5 versions later"


def history_of(parents: list[list[int]]) -> sqlite3.Connection:
    """A catalog with these versions alone, as far as their kinship is concerned."""
    made = sqlite3.connect(":memory:")
    made.execute("CREATE TABLE versions (seq INTEGER PRIMARY KEY, id BLOB UNIQUE, parent BLOB)")
    made.execute("CREATE TABLE more_parents (version INTEGER, parent BLOB)")
    for seq, named in enumerate(parents):
        first = numbered(named[0]).raw if named else None
        made.execute("INSERT INTO versions VALUES (?, ?, ?)", (seq, numbered(seq).raw, first))
        for each in named[1:]:
            made.execute("INSERT INTO more_parents VALUES (?, ?)", (seq, numbered(each).raw))
    return made


def numbered(seq: int) -> VersionId:
    return VersionId(seq.to_bytes(32))


def steps_back(parents: list[list[int]], start: int) -> dict[int, int]:
    found, ends = {start: 0}, [start]
    for version in ends:
        for parent in parents[version]:
            if parent not in found:
                found[parent] = found[version] + 1
                ends.append(parent)
    return found


def every_step_taken(parents: list[list[int]], a: int, b: int) -> Kinship:
    from_a, from_b = steps_back(parents, a), steps_back(parents, b)
    common = from_a.keys() & from_b.keys()
    if not common:
        return Kinship(None)
    itself = [version for version in (a, b) if version in common]
    nearest = itself[0] if itself else min(common, key=lambda v: (from_a[v] + from_b[v], v))
    return Kinship(numbered(nearest), from_a[nearest], from_b[nearest])


histories = st.integers(2, 14).flatmap(
    lambda count: st.tuples(
        *(
            st.lists(st.integers(max(0, n - 6), n - 1), max_size=3, unique=True) if n else st.just([])
            for n in range(count)
        )
    ).map(list)
)


@given(histories, st.data())
def test_the_nearest_is_found_in_any_history(parents: list[list[int]], data: st.DataObject) -> None:
    a, b = (data.draw(st.integers(0, len(parents) - 1)) for _ in "ab")
    connection = history_of(parents)
    found = kinship(connection, numbered(a), numbered(b))
    connection.close()
    assert found == every_step_taken(parents, a, b)


def test_what_lies_before_what_both_come_from_is_not_looked_at() -> None:
    """Else two branches of a long line would have all of it read."""
    trunk = [[n - 1] if n else [] for n in range(3000)]
    parents = [*trunk, [2990], [2990], [3001], [3002]]
    connection = history_of(parents)
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    found = kinship(connection, numbered(3000), numbered(3003))
    connection.close()
    assert found == Kinship(numbered(2990), 1, 3)
    assert len(asked) < 40


def test_a_deleted_version_is_a_link_all_the_same(repo: Repository, tmp_path: Path) -> None:
    trunk = line(repo, tmp_path, "a", 0.9, 0.8, 0.7)
    repo.delete(trunk[1])
    assert between(repo, trunk[0], trunk[2]) == Kinship(trunk[0].id, 0, 2)
    assert repo.diff(trunk[0], trunk[2]).to_dict()["kinship"]["steps_b"] == 2


def test_versions_of_one_step_tell_what_each_measured(repo: Repository, tmp_path: Path) -> None:
    run = Run("a" * 8, "a")
    epoch = save(
        repo, tmp_path, "a/epoch-1", run=run, step=10, epoch=1.0, metrics={"eval_loss": 0.5, "acc": 1}
    )
    last = save(
        repo,
        tmp_path,
        "a/final",
        run=run,
        step=10,
        epoch=1.0,
        metrics={"loss": 0.7, "acc": 2},
        parents=[epoch],
    )
    other = save(repo, tmp_path, "b", metrics={"eval_loss": 0.4}, step=10)
    found = repo.diff(last, other, step=10)
    assert metrics(found) == {"eval_loss": (0.5, 0.4), "loss": (0.7, None), "acc": (2.0, None)}
    assert readings(found)[0].sources == ("version m@a/final", "version m@a/epoch-1")
    # Of one of them its own word goes before what came after it.
    assert metrics(repo.diff(epoch, other, step=10))["acc"] == (1.0, None)
