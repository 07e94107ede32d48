"""What a run logged, from its versions: which keep it, which are gone, and what is read for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stemmata.errors import VersionNotFound
from stemmata.histories import logs
from stemmata.logrows import KIND, Kept, Row
from stemmata.records import Run
from stemmata.repository import Repository
from stemmata.version import Version

RUN = Run("r" * 32, "r")


def save(
    repo: Repository,
    folder: Path,
    step: int,
    rows: Sequence[Row] | None,
    parent: Version | None = None,
    **said: Any,
) -> Version:
    folder = folder / f"files-{len(repo.versions('m')) if 'm' in repo.models() else 0}"
    folder.mkdir(parents=True)
    (folder / "note.txt").write_text(str(folder))
    for name, data in said.pop("files", {}).items():
        (folder / name).write_bytes(data)
    kept = {} if rows is None else {KIND: Kept(tuple(rows)).encoded()}
    said = {
        "name": f"r/{folder.name}",
        "run": RUN,
        "provenance": {**kept, **said.pop("provenance", {})},
        **said,
    }
    return repo.save(folder, "m", step=step, parents=[parent] if parent else [], **said)


def losses(first: int, last: int, by: float = 1.0) -> list[Row]:
    return [{"step": step, "loss": by / step} for step in range(first, last + 1)]


def told(version: Version) -> dict[int, float]:
    return {int(row["step"]): row["loss"] for row in version.logged() if "loss" in row}


def state(last: int, by: float = 1.0) -> bytes:
    return json.dumps({"global_step": last, "log_history": losses(1, last, by)}).encode()


def test_a_run_that_was_resumed_has_one_log_and_the_branch_it_left_another(
    repo: Repository, tmp_path: Path
) -> None:
    one = save(repo, tmp_path, 3, losses(1, 3))
    given_up = save(repo, tmp_path, 6, losses(4, 6, by=9.0), one)
    again = save(repo, tmp_path, 7, losses(4, 7), one)
    whole = {step: 1 / step for step in range(1, 8)}
    assert told(again) == told(one) == whole
    assert told(given_up) == {**{step: 1 / step for step in (1, 2, 3)}, 4: 9 / 4, 5: 9 / 5, 6: 9 / 6}
    best = save(repo, tmp_path, 3, None, one, event="best")
    assert told(again) == told(one) == whole
    assert told(best) == {step: 1 / step for step in (1, 2, 3)}


def test_a_fork_has_its_own_rows_and_not_those_of_the_run_it_comes_from(
    repo: Repository, tmp_path: Path
) -> None:
    one = save(repo, tmp_path, 3, losses(1, 3))
    fork = save(repo, tmp_path, 5, losses(4, 5), one, run=Run("f" * 32, "f"), name="f/x")
    assert sorted(told(fork)) == [4, 5]
    assert sorted(told(one)) == [1, 2, 3]


def test_of_a_version_without_a_run_what_is_kept_with_it(repo: Repository, tmp_path: Path) -> None:
    alone = save(repo, tmp_path, 3, losses(1, 3), run=None)
    assert sorted(told(alone)) == [1, 2, 3]
    assert save(repo, tmp_path, 3, None, run=None).logged() == []


def test_rows_of_what_was_deleted_are_gone_and_the_line_goes_on(repo: Repository, tmp_path: Path) -> None:
    one = save(repo, tmp_path, 2, losses(1, 2))
    two = save(repo, tmp_path, 4, losses(3, 4), one)
    three = save(repo, tmp_path, 6, losses(5, 6), two)
    repo.delete(two)
    assert sorted(told(three)) == sorted(told(one)) == [1, 2, 5, 6]
    with pytest.raises(VersionNotFound):
        two.logged()
    repo.gc(undo_window=0, grace=0)
    assert sorted(told(three)) == [1, 2, 5, 6]


def test_i7_rows_outlive_a_collection_and_a_redaction_ends_them(repo: Repository, tmp_path: Path) -> None:
    one = save(repo, tmp_path, 2, losses(1, 2))
    two = save(repo, tmp_path, 4, losses(3, 4), one)
    logs.add(repo.session, two.id, Kept(({"step": 5, "loss": 0.2},)))
    logs.add(repo.session, two.id, Kept(({"step": 6, "loss": 0.1},)))
    repo.gc(undo_window=0, grace=0)
    two = repo["m@" + two.name]
    assert sorted(told(two)) == [1, 2, 3, 4, 5, 6]
    assert [kind for each in two.annotations for kind in each.objects] == [f"{KIND}#1", f"{KIND}#2"]
    assert repo.check().sound
    repo.redact(one, KIND)
    repo.redact(two, f"{KIND}#1")
    assert sorted(told(repo["m@" + two.name])) == [3, 4, 6]


def test_rows_that_joined_a_version_end_where_a_training_went_on_after_all(
    repo: Repository, tmp_path: Path
) -> None:
    one = save(repo, tmp_path, 2, losses(1, 2))
    logs.add(repo.session, one.id, Kept(tuple(losses(3, 6, by=9.0))))
    assert told(one)[6] == 9 / 6
    two = save(repo, tmp_path, 8, [{"step": 5, "loss": 0.2}, {"step": 8, "loss": 0.1}], one)
    assert told(two) == {1: 1.0, 2: 0.5, 3: 3.0, 4: 9 / 4, 5: 0.2, 8: 0.1}


def test_an_imported_version_has_the_whole_log_already(repo: Repository, tmp_path: Path) -> None:
    one = save(repo, tmp_path, 2, losses(1, 2, by=7.0))
    two = save(repo, tmp_path, 4, None, one, provenance={"trainer_state": state(4)})
    three = save(repo, tmp_path, 5, losses(5, 5), two)
    assert told(three) == {step: 1 / step for step in range(1, 6)}


def test_i9_versions_of_an_earlier_release_have_what_their_files_tell(
    repo: Repository, tmp_path: Path
) -> None:
    """No rows were kept: a log in the files fills what is missing, and overrules nothing."""
    old = save(repo, tmp_path, 2, None, files={"trainer_state.json": state(2, by=5.0)})
    assert told(old) == {1: 5.0, 2: 2.5}
    new = save(repo, tmp_path, 3, [{"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.25}], old)
    assert told(new) == {2: 0.5, 3: 0.25}, "neither this version's files nor the run's last have one"
    assert told(old) == {1: 5.0, 2: 0.5, 3: 0.25}


def test_damaged_rows_are_no_rows_and_no_error(repo: Repository, tmp_path: Path) -> None:
    one = save(repo, tmp_path, 2, losses(1, 2))
    two = save(repo, tmp_path, 4, None, one, provenance={KIND: b"\xff{"})
    assert sorted(told(two)) == [1, 2]


def test_tables_open_no_rows(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = None
    for step in range(1, 9):
        last = save(repo, tmp_path, step, losses(step, step), last, metrics={"loss": 1 / step})
    opened: list[str] = []
    read = type(repo.session).read_object

    def counted(session: Any, row: Any, digest: str) -> Any:
        opened.append(digest)
        return read(session, row, digest)

    monkeypatch.setattr(type(repo.session), "read_object", counted)
    listed = repo.versions("m")
    assert [v.metrics["loss"] for v in listed.where("loss < 0.3")] == [1 / 8, 1 / 7, 1 / 6, 1 / 5, 1 / 4]
    listed._repr_html_()
    assert listed[0].to_dict()["step"] == 8
    assert opened == []
    assert len(listed[0].logged()) == 8
    assert len(opened) == 8
