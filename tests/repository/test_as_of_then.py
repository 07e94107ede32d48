"""Versions as of a moment: what was added to them later is not told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stemmata.catalog import queries
from stemmata.errors import EvalNotFound, VersionNotFound
from stemmata.histories import logs
from stemmata.logrows import KIND, Kept
from stemmata.records import Run
from stemmata.repository import Repository
from stemmata.version import Version


@pytest.fixture
def repo() -> Iterator[Repository]:
    with Repository.in_memory() as made:
        yield made


@pytest.fixture
def then(repo: Repository, tmp_path: Path) -> str:
    """When a run had two versions; since then one of them was looked at again, and it got a third."""
    versions: list[Version] = []
    for step, acc in ((100, 0.5), (200, 0.6)):
        versions.append(saved(repo, tmp_path, step, acc, versions[-1:]))
    moment = repo.session.row(versions[-1].id).at
    repo.annotate(
        versions[0], metrics={"acc": 0.9, "late": 1.0}, labels={"stage": "gold"}, notes="looked at again"
    )
    versions[0].add_eval("sst2", metrics={"f1": 0.7}, examples=[{"id": 1, "correct": True}])
    saved(repo, tmp_path, 300, 0.7, versions[-1:])
    return moment


def saved(repo: Repository, work: Path, step: int, acc: float, parents: list[Version]) -> Version:
    folder = work / str(step)
    folder.mkdir()
    (folder / "n.txt").write_text(str(step))
    return repo.save(
        folder,
        "m",
        name=f"r/step-{step}",
        run=Run("r" * 32, "r"),
        step=step,
        metrics={"acc": acc},
        parents=parents,
        provenance={},
    )


def test_a_version_has_what_it_had_then(repo: Repository, then: str) -> None:
    version = repo.get("m@r/step-100", at=then)
    assert version.metrics == {"acc": 0.5}
    assert {key: m.value for key, m in version.measurements.items()} == {"acc": 0.5}
    assert (version.labels, version.notes, version.evals(), version.at) == ({}, [], [], then)
    assert repo.get(version.id, at=then).metrics == {"acc": 0.5}
    now = repo["m@r/step-100"]
    assert now.metrics == {"acc": 0.9, "late": 1.0, "f1": 0.7}
    assert (now.labels, now.notes, len(now.evals()), now.at) == (
        {"stage": "gold"},
        ["looked at again"],
        1,
        None,
    )


def test_a_reference_of_the_past_names_a_version_as_it_is_now(repo: Repository, then: str) -> None:
    repo.alias("m", "production", "m@r/step-100")
    assert repo["m@production@{now}"].metrics["late"] == 1.0


def test_lists_have_what_was_there_then(repo: Repository, then: str) -> None:
    listed = repo.versions("m", at=then)
    assert [version.metrics for version in listed] == [{"acc": 0.6}, {"acc": 0.5}]
    assert [v.metrics for v in listed.where("acc < 0.55")] == [{"acc": 0.5}]
    assert {d["name"]: d["metrics"] for d in listed.to_dicts()}["r/step-100"] == {"acc": 0.5}


def test_versions_of_then_are_compared_as_they_were(repo: Repository, then: str) -> None:
    a, b = (repo.get(f"m@r/step-{step}", at=then) for step in (100, 200))
    assert [(m.key, m.a, m.b) for m in repo.diff(a, b).metrics] == [("acc", 0.5, 0.6)]
    found = repo.diff(a, b, step=100)
    assert [(m.key, m.a, m.b) for m in found.metrics] == [("acc", 0.5, 0.5)]
    assert repo.diff(a, b, step=300).metrics == ()


def test_evals_of_then_are_compared(repo: Repository, then: str) -> None:
    one, two = repo["m@r/step-100"], repo["m@r/step-200"]
    moment = two.add_eval("sst2", examples=[{"id": 1, "correct": False}]).at
    one.add_eval("sst2", examples=[{"id": 1, "correct": False}])
    two.add_eval("sst2", examples=[{"id": 1, "correct": True}])
    assert repo.diff_evals(one, two, "sst2").summary == "1 fixed, 0 broken"
    a, b = (repo.get(each.id, at=moment) for each in (one, two))
    assert repo.diff_evals(a, b, "sst2").summary == "0 fixed, 1 broken"
    assert repo.diff_evals(a, two, "sst2").right == 1
    with pytest.raises(EvalNotFound):
        repo.diff_evals(repo.get(one.id, at=then), two, "sst2")


def test_rows_that_joined_a_version_later_are_not_told_of_then(
    repo: Repository, then: str, tmp_path: Path
) -> None:
    logs.add(repo.session, repo["m@r/step-200"].id, Kept(({"step": 250, "loss": 0.25},)))
    last = tmp_path / "400"
    last.mkdir()
    (last / "n.txt").write_text("400")
    repo.save(
        last,
        "m",
        name="r/step-400",
        run=Run("r" * 32, "r"),
        step=400,
        parents=[repo["m@r/step-300"]],
        provenance={KIND: Kept(({"step": 350, "loss": 0.125},)).encoded()},
    )
    assert [row["step"] for row in repo["m@r/step-200"].logged()] == [250, 350]
    past = [repo.get(f"m@r/step-{step}", at=then) for step in (100, 200)]
    assert past[1].logged() == []
    for step, loss in ((250, 0.25), (350, 0.125)):
        now = repo.diff("m@r/step-100", "m@r/step-200", step=step).metrics
        assert [(m.key, m.a, m.b) for m in now] == [("loss", loss, loss)]
        assert repo.diff(*past, step=step).metrics == ()


def test_exports_of_then_have_the_metrics_of_then(repo: Repository, then: str) -> None:
    assert "0.9" not in repo.get("m@r/step-200", at=then).card()
    assert "0.9" in repo["m@r/step-200"].card()


def test_names_and_pages_of_then_are_those_of_then(repo: Repository, then: str, tmp_path: Path) -> None:
    repo.alias("m", "production", "m@r/step-200")
    moment = repo.history("m", "production")[-1].at
    repo.alias("m", "production", "m@r/step-300")
    repo.tag("m", "blessed-9", "m@r/step-200")
    repo.configure("m", metric="late")
    past, now = repo.get("m@r/step-200", at=moment), repo["m@r/step-200"]
    assert (past.aliases, past.tags, past.names) == (["production"], [], ["r/step-200"])
    assert (now.aliases, now.tags) == ([], ["blessed-9"])
    assert repo.get("m@r/step-200", at=then).aliases == []
    repo.unalias("m", "production")
    assert past.aliases == ["production"]
    before = repo.versions("m", at=then)
    for page in (before.to_html(), before[0].to_html(), before._repr_html_(), before[0]._repr_html_()):
        assert "step-200" in page
        for later in ("step-300", ">late<", "blessed-9", "production"):
            assert later not in page


def test_what_was_deleted_since_was_there_then(repo: Repository, then: str) -> None:
    repo.delete("m@r/step-100")
    before = repo.versions("m", at=then)
    assert len(before) == 2
    assert "deleted" not in before.to_html()
    assert "deleted" in repo.versions("m").to_html()


def test_names_of_then_are_looked_up_once_for_a_list(
    repo: Repository, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = queries._refs_at

    def refs_at(connection: Any, model: str, at: str) -> Any:
        asked.append(model)
        return real(connection, model, at)

    monkeypatch.setattr(queries, "_refs_at", refs_at)
    listed = list(repo.versions("m", at=then))
    assert [(v.names, v.aliases, v.tags) for v in listed] == [
        (["r/step-200"], [], []),
        (["r/step-100"], [], []),
    ]
    assert asked == ["m"]
    assert [v.tags for v in repo.versions(at=then)] == [[], []]
    assert asked == ["m"]
    repo.tag("m", "later", "m@r/step-100")
    assert listed[1].tags == []
    assert asked == ["m", "m"], "something was written since"


def test_a_version_in_hand_is_told_as_of_then(repo: Repository, then: str) -> None:
    now, newest = repo["m@r/step-100"], repo["m@r/step-300"]
    assert repo.get(now, at=then).metrics == {"acc": 0.5}
    assert repo.get(now) is now
    for later in (newest, newest.id):
        with pytest.raises(VersionNotFound):
            repo.get(later, at=then)
