"""Verdicts that a bisection kept: which still hold when the same is asked again, and which are found anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import stemmata
from stemmata.histories.bisection import Bisection
from stemmata.repository import Repository
from stemmata.version import Version


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with stemmata.init(tmp_path / "repo") as made:
        yield made


@pytest.fixture
def line(repo: Repository, tmp_path: Path) -> list[Version]:
    """v0 to v4, whose loss turns bad with v2."""
    versions: list[Version] = []
    (tmp_path / "out").mkdir()
    for k, loss in enumerate((0.1, 0.2, 0.6, 0.7, 0.9)):
        (tmp_path / "out" / "n.txt").write_text(str(k))
        versions.append(
            repo.save(
                tmp_path / "out",
                "m",
                name=f"v{k}",
                parents=versions[-1:],
                metrics={"loss": loss},
                provenance={},
            )
        )
    return versions


def sh(words: str) -> list[str]:
    return ["sh", "-c", words]


def first_bad(found: Bisection) -> str | None:
    return found.first_bad.name if found.first_bad is not None else None


# --- metrics --------------------------------------------------------------------------------------


def test_metrics_are_judged_as_they_are_now(repo: Repository, line: list[Version]) -> None:
    def found() -> Bisection:
        return repo.bisect(line[0], line[-1], ["true"], require="loss < 0.5")

    assert (first_bad(found()), found().reused) == ("v2", 2)
    repo.annotate(line[2], metrics={"loss": 0.3})
    again = found()
    assert (first_bad(again), again.evaluations) == ("v3", 0)
    assert again.line[2].reason == "what is required holds"
    assert first_bad(found()) == "v3"
    kept = repo.bisection("m")
    assert kept is not None
    assert len({each.version for each in kept.judged}) == len(kept.judged) == 3
    repo.annotate(line[3], metrics={"loss": 0.8})
    assert found().suspects[0].reason == "loss < 0.5: it is 0.8"


def test_a_metric_that_came_since_outweighs_what_a_command_said(
    repo: Repository, line: list[Version]
) -> None:
    for _ in range(2):
        found = repo.bisect(line[0], line[-1], ["false"], require="f1 > 0.5")
        assert (len(found.suspects), found.skipped) == (4, 3)
    repo.annotate(line[1], metrics={"f1": 0.9})
    repo.annotate(line[2], metrics={"f1": 0.1})
    found = repo.bisect(line[0], line[-1], ["false"], require="f1 > 0.5")
    assert (first_bad(found), found.evaluations) == ("v2", 0)
