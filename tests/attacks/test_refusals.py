"""Refusals that are easily forgotten: each by its own name, with a next step, and without a trace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import stemmata
from faults import contents
from makers import model_folder
from stemmata.errors import EmptySource, FileNotInVersion, MissingExtra
from stemmata.repository import Repository


@pytest.fixture
def repo() -> Repository:
    return Repository.in_memory()


@pytest.mark.parametrize(
    "inside", [[], ["checkpoint-1/optimizer.pt", "runs/events"]], ids=["bare", "left-out"]
)
def test_a_folder_of_which_nothing_is_taken(repo: Repository, tmp_path: Path, inside: list[str]) -> None:
    source = tmp_path / "out"
    source.mkdir()
    for path in inside:
        (source / path).parent.mkdir()
        (source / path).write_text("x")
    before = contents(repo.session.storage)
    with pytest.raises(EmptySource) as caught:
        repo.save(source, "m")
    assert caught.value.next_step
    assert contents(repo.session.storage) == before


@pytest.mark.parametrize("path", ["nope.bin", "config.json/x", "../config.json", ""])
def test_a_file_that_the_version_lacks(repo: Repository, tmp_path: Path, path: str) -> None:
    version = repo.save(model_folder(tmp_path / "out"), "m")
    with pytest.raises(FileNotInVersion, match="stemmata"):
        version.read(path)


def test_a_table_of_versions(repo: Repository, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    for loss in (0.5, 0.25):
        repo.save(
            model_folder(tmp_path / "out"), "m", metrics={"loss": loss}, config={"lr": 0.1}, labels={"a": "b"}
        )
    table = repo.versions("m").sort("loss").to_pandas()
    assert list(table["loss"]) == [0.25, 0.5]
    assert set(table["config.lr"]) == {0.1}
    assert set(table["label.a"]) == {"b"}


WITHOUT_TORCH = """
import sys
for package in ("torch", "transformers", "peft", "safetensors"):
    sys.modules[package] = None
import stemmata
try:
    stemmata.open(sys.argv[1])["m"].load()
except stemmata.StemmataError as error:
    print(type(error).__name__, error)
"""


def test_what_is_not_installed_is_named_with_its_extra(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.save(model_folder(tmp_path / "out"), "m")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match=r"stemmata\[pandas\]"):
        repo.versions("m").to_pandas()
    on_disk = stemmata.open(tmp_path / "repo", create=True)
    on_disk.save(tmp_path / "out", "m")
    # In a process of its own: taking modules away from this one would leave other tests with two of each.
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, on_disk.where], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("MissingExtra "), done.stdout
    assert "stemmata[hf]" in done.stdout
