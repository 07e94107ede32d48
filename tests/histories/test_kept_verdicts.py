"""Verdicts that a bisection kept: which still hold when the same is asked again, and which are found anew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

import stemmata
from stemmata.errors import MissingObject, VersionNotFound
from stemmata.histories.bisection import Bisection
from stemmata.histories.problems import EndsDisagree, EvaluationFailed
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


# --- skips ----------------------------------------------------------------------------------------

SLOW = "test $(cat {}/n.txt) -lt 2 || { test -e %s || sleep 1000; exit 1; }"


def test_what_took_too_long_is_tried_again_where_more_time_is_given(
    repo: Repository, line: list[Version], tmp_path: Path
) -> None:
    command = sh(SLOW % (tmp_path / "quick"))
    found = repo.bisect(line[0], line[-1], command, timeout=0.5)
    assert [point.name for point in found.suspects] == ["v2", "v3", "v4"]
    again = repo.bisect(line[0], line[-1], command, timeout=0.5)
    assert (len(again.suspects), again.evaluations) == (3, 0)
    (tmp_path / "quick").touch()
    assert repo.bisect(line[0], line[-1], command, timeout=0.25).evaluations == 0
    again = repo.bisect(line[0], line[-1], command, timeout=60)
    assert (first_bad(again), again.evaluations) == ("v2", 1)
    # What came of that holds whatever time is given.
    again = repo.bisect(line[0], line[-1], command, timeout=0.5)
    assert (first_bad(again), again.evaluations) == ("v2", 0)


def test_what_took_too_long_counts_as_is_said_now(
    repo: Repository, line: list[Version], tmp_path: Path
) -> None:
    command = sh(SLOW % (tmp_path / "quick"))
    assert len(repo.bisect(line[0], line[-1], command, timeout=0.5).suspects) == 3
    for _ in range(2):
        found = repo.bisect(line[0], line[-1], command, timeout=0.5, timeout_is="bad")
        assert (first_bad(found), found.evaluations) == ("v2", 0)
        kept = repo.bisection("m")
        assert kept is not None
        assert [each.verdict for each in kept.judged].count("skip") <= 1
    (tmp_path / "quick").touch()
    found = repo.bisect(line[0], line[-1], command)
    assert (first_bad(found), found.evaluations) == ("v2", 1)
    assert found.suspects[0].reason == "exit status 1"


def test_a_version_that_was_deleted_or_damaged_is_tried_again(
    repo: Repository, line: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(version: Version) -> Path:
        if version.name == "v2":
            raise VersionNotFound(reference="v2", reason="it was deleted", hint="restore it")
        raise MissingObject(digest="0" * 64)

    command = sh("test $(cat {}/n.txt) -lt 2")
    with monkeypatch.context() as patched:
        patched.setattr(Version, "path", gone)
        found = repo.bisect(line[0], line[-1], command)
        assert (len(found.suspects), found.evaluations) == (4, 0)
    found = repo.bisect(line[0], line[-1], command)
    assert (first_bad(found), found.evaluations, found.reused) == ("v2", 2, 0)


def test_what_the_command_skipped_stays_skipped(repo: Repository, line: list[Version]) -> None:
    command = sh("exit 125")
    assert repo.bisect(line[0], line[-1], command, timeout=60).evaluations == 3
    again = repo.bisect(line[0], line[-1], command, timeout=600, timeout_is="bad")
    assert (again.evaluations, again.reused) == (0, 3)


def test_a_search_that_goes_on_after_its_end_is_unfinished_again(
    repo: Repository, line: list[Version], tmp_path: Path
) -> None:
    quick = tmp_path / "quick"
    command = sh(f"test -e {quick} || sleep 1000; test $(cat {{}}/n.txt) = 2 || exit 255")
    done = []
    for timeout in (0.5, 60):
        with nullcontext() if not quick.exists() else pytest.raises(EvaluationFailed):
            repo.bisect(line[0], line[-1], command, timeout=timeout)
        kept = repo.bisection("m")
        assert kept is not None
        done.append(kept.done)
        quick.touch()
    assert done == [True, False]


def test_verdicts_of_earlier_releases_are_read(repo: Repository, line: list[Version]) -> None:
    """They do not say why a version was skipped: it is tried again."""
    command = sh("test $(cat {}/n.txt) -lt 3")
    repo.bisect(line[0], line[-1], command)
    (file,) = Path(repo.where, "cache").glob("bisections/*")
    head, *_ = file.read_text().splitlines()
    common = {"seconds": 0.1, "ran": True, "at": "2026-01-01T00:00:00.000000Z"}
    lines = [
        {"version": line[1].id.hex, "verdict": "good", "reason": "exit status 0", **common},
        {"version": line[2].id.hex, "verdict": "skip", "reason": "it took longer than 1 seconds", **common},
        {"version": line[3].id.hex, "verdict": "bad", "reason": "exit status 1", **common},
        {"done": True},
    ]
    file.write_text("".join(f"{each}\n" for each in [head, *map(json.dumps, lines)]))
    kept = repo.bisection("m")
    assert kept is not None
    assert [each.verdict for each in kept.judged] == ["good", "skip", "bad"]
    found = repo.bisect(line[0], line[-1], command, timeout=60)
    assert (first_bad(found), found.evaluations, found.reused) == ("v3", 1, 2)


# --- the ends -------------------------------------------------------------------------------------


def test_ends_that_disagree_stand_in_nobodys_way(repo: Repository, line: list[Version]) -> None:
    command = sh("test $(cat {}/n.txt) = 1")
    with pytest.raises(EndsDisagree, match="m@v0 was said to be good, and it is bad"):
        repo.bisect(line[0], line[-1], command, check_ends=True)
    # As it advises: another version there.
    found = repo.bisect(line[1], line[-1], command, check_ends=True)
    assert first_bad(found) == "v2"


def test_what_was_found_of_an_end_is_held_against_what_is_said_later(
    repo: Repository, line: list[Version]
) -> None:
    command = sh("exit 1")
    with pytest.raises(EndsDisagree):
        repo.bisect(line[0], line[-1], command, check_ends=True)
    with pytest.raises(EndsDisagree, match="m@v0 was said to be good, and it is bad: exit status 1"):
        repo.bisect(line[0], line[-1], command)
    found = repo.bisect(line[0], line[-1], command, restart=True)
    assert (first_bad(found), found.line[0].verdict) == ("v1", "good")


def test_an_end_that_could_not_be_tested_is_as_was_said(repo: Repository, line: list[Version]) -> None:
    command = sh("test $(cat {}/n.txt) -lt 4 || exit 125")
    found = repo.bisect(line[0], line[-1], command, check_ends=True)
    assert first_bad(found) == "v4"
    assert found.first_bad is not None
    assert (found.first_bad.verdict, found.skipped) == ("bad", 0)
    assert found.first_bad.reason == "as was said; it could not be tested: exit status 125"
    assert [point.verdict for point in found.judged][:2] == ["good", "skip"]
