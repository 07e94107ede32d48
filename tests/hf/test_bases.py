"""Which files a base is made of, and the digest that an adapter remembers of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from makers import model_folder
from stemmata import versions
from stemmata.bases import complete, weight_paths, weights_of_folder, weights_of_tree
from stemmata.hf.origin import local_folder
from stemmata.records import Base
from stemmata.repository import Repository
from users import open_folder, ordinary_user

SHARDS = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
]


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["model.safetensors", "config.json", "README.md"], ["config.json", "model.safetensors"]),
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["pytorch_model.bin", "training_args.bin", "config.json"], ["config.json", "pytorch_model.bin"]),
        (["adapter_model.safetensors", "adapter_config.json"], []),
        (["onnx/model.safetensors", "config.json"], []),
        (SHARDS, SHARDS),
        ([], []),
    ],
)
def test_the_files_that_decide_the_weights(there: list[str], expected: list[str]) -> None:
    assert weight_paths(reversed(there)) == expected


def test_a_folder_and_the_version_made_of_it_have_one_digest(repo: Repository, base: Path) -> None:
    folder = weights_of_folder(base)
    assert folder == weights_of_tree(repo.save(base, "m").tree())
    (base / "README.md").write_text("no weights")
    assert weights_of_folder(base) == folder
    (base / "config.json").write_text("{}")
    assert weights_of_folder(base) != folder


def test_a_base_is_found_behind_very_many_models_of_other_sizes(
    repo: Repository, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "_SEARCHED", 3)
    kept = repo.save(base, "m")
    weights = weights_of_folder(base)
    for seed in range(4):
        repo.save(model_folder(tmp_path / "other", seed), "other")
    found = versions.version_with_weights(repo.session, weights.digest, weights.rows)
    assert found == kept
    # Of some nothing but the digest was recorded: the newest are looked at.
    assert versions.version_with_weights(repo.session, weights.digest, ()) is None
    monkeypatch.setattr(versions, "_SEARCHED", 5)
    assert versions.version_with_weights(repo.session, weights.digest, ()) == kept


def test_links_into_a_hubs_cache_are_followed(base: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in base.iterdir():
        os.symlink(path, linked / path.name)
    assert weights_of_folder(linked) == weights_of_folder(base)


def test_a_base_on_disk_is_completed(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base.parent)
    found = complete(Base(name_or_path=base.name))
    assert found.name_or_path == str(base)
    assert found.digest == weights_of_folder(base).digest
    assert {row[0] for row in found.files} == {"config.json", "model.safetensors"}


def test_a_base_that_is_not_on_disk_stays_as_it_is(base: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("", "team/base", str(tmp_path / "empty"), str(tmp_path / "gone")):
        assert complete(Base(name_or_path=name)) == Base(name_or_path=name)
    known = Base(name_or_path=str(base), digest="0" * 64)
    assert complete(known) is known


def test_a_base_that_cannot_be_read_costs_its_digest_alone(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(path)

    monkeypatch.setattr("stemmata.bases.hash_file", refuse)
    assert complete(Base(name_or_path=str(base))).digest is None


@pytest.mark.parametrize("name", ["x" * 300, "/" + "x" * 300 + "/base", "x/" * 3000, "nul\0", "half \udc80"])
def test_a_place_that_cannot_be_looked_at_is_no_folder(name: str) -> None:
    assert complete(Base(name_or_path=name)) == Base(name_or_path=name)
    assert complete(Base(name_or_path="team/tiny", revision=name)).digest is None
    assert local_folder(name, None) is None


def test_a_base_in_a_folder_that_is_closed_to_this_user_has_no_digest(base: Path) -> None:
    with open_folder() as folder:
        shutil.copytree(base, folder / "closed" / "base")
        there = Base(name_or_path=str(folder / "closed" / "base"))
        assert complete(there).digest is not None
        (folder / "closed").chmod(0)
        with ordinary_user():
            completed, found = complete(there), local_folder(there.name_or_path, None)
        (folder / "closed").chmod(0o700)
        assert completed == there
        assert found is None


def test_a_base_with_a_file_whose_name_no_text_can_hold_has_no_digest(base: Path) -> None:
    shutil.copy(base / "model.safetensors", os.fsencode(base) + b"/model-\xff.safetensors")
    assert complete(Base(name_or_path=str(base))).digest is None


def test_a_base_in_the_hubs_cache_is_completed_with_its_commit(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "ab" * 20
    model = tmp_path / "hub" / "models--team--tiny"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    shutil.copytree(base, model / "snapshots" / commit)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for revision in (None, "main", commit):
        found = complete(Base(name_or_path="team/tiny", revision=revision))
        assert (found.name_or_path, found.revision) == ("team/tiny", commit)
        assert found.digest == weights_of_folder(base).digest
    for name, revision in (
        ("team/other", None),
        ("team/tiny", "v2"),
        ("../tiny", None),
        ("team/tiny", "../x"),
    ):
        unknown = Base(name_or_path=name, revision=revision)
        assert complete(unknown) == unknown
