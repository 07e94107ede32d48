"""A log without one of its entries is damage, for whoever reads it from its beginning."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import stemmata
from makers import model_folder
from stemmata.errors import DamagedLog
from stemmata.log.entries import log_key


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_missing_entry_is_told_and_nothing_is_written_over_it(tmp_path: Path, missing: int) -> None:
    repo = stemmata.open(tmp_path / "repo", create=True)
    for name in ("a", "b", "c", "d"):
        repo.save(model_folder(tmp_path / "src"), "m", name=name, provenance={})
    repo.close()
    (tmp_path / "repo" / log_key(missing)).unlink()
    shutil.rmtree(tmp_path / "repo" / "cache")
    for _ in range(2):
        with pytest.raises(DamagedLog, match="missing"):
            stemmata.open(tmp_path / "repo")
    assert not (tmp_path / "repo" / log_key(missing)).exists()


def test_a_new_repository_has_no_hole(tmp_path: Path) -> None:
    stemmata.open(tmp_path / "repo", create=True).close()
    assert stemmata.open(tmp_path / "repo").models() == []
