"""What an earlier save left beside the weights of a version is never handed out as theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import tiny_models as tiny
from stemmata.errors import NotLoadable
from stemmata.hf import sidefiles
from stemmata.repository import Repository

NEW, OLD = torch.ones(3), torch.full((3,), -7.0)


def save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)


def shard(folder: Path, number: int, of: int, stem: str = "model", **tensors: torch.Tensor) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{number:05}-of-{of:05}.safetensors"
    save(path, tensors)
    return path.name


def index(folder: Path, weight_map: Any, name: str = "model.safetensors.index.json") -> None:
    (folder / name).write_text(json.dumps({"weight_map": weight_map}))


def two_shards(folder: Path, stem: str = "model") -> None:
    """The tensors a and b, in a shard each, and the index of them."""
    index(folder, {name: shard(folder, n, 2, stem, **{name: NEW}) for n, name in enumerate("ab", 1)})


@pytest.mark.parametrize("below", ["", "unet"])
@pytest.mark.parametrize("stem", ["model", "named_otherwise"])
def test_shards_of_an_earlier_sharding_are_left_out(
    repo: Repository, tmp_path: Path, below: str, stem: str
) -> None:
    folder = tmp_path / "saved" / below
    two_shards(folder, stem)
    shard(folder, 1, 3, stem, a=OLD, gone=OLD)
    version = repo.save(tmp_path / "saved", "m")
    state = version.state_dict()
    assert state.keys() == {"a", "b"}
    assert all(torch.equal(tensor, NEW) for tensor in state.values())
    assert torch.equal(version.tensor("a"), NEW)


def test_a_models_tensors_are_those_that_load_gives(repo: Repository, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    model = tiny.gpt2(tied=False)
    model.save_pretrained(folder, max_shard_size="20KB")
    kept = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5)
    model.save_pretrained(folder, max_shard_size="60KB")
    for name, data in kept.items():  # as a copy over an older copy leaves them
        if not (folder / name).exists():
            (folder / name).write_bytes(data)
    version = repo.save(folder, "m")
    loaded = version.load().state_dict()
    state = version.state_dict()
    assert state.keys() == loaded.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in loaded.items())


def test_what_lies_beside_the_shards_is_read_as_before(repo: Repository, tmp_path: Path) -> None:
    two_shards(tmp_path / "saved")
    save(tmp_path / "saved/head.safetensors", {"head": NEW})
    shard(tmp_path / "saved", 1, 1, "other", c=NEW)
    assert repo.save(tmp_path / "saved", "m").state_dict().keys() == {"a", "b", "head", "c"}


def test_pickled_shards_have_an_index_too(repo: Repository, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    torch.save({"a": NEW}, folder / "pytorch_model-00001-of-00001.bin")
    torch.save({"a": OLD}, folder / "pytorch_model-00002-of-00002.bin")
    index(folder, {"a": "pytorch_model-00001-of-00001.bin"}, "pytorch_model.bin.index.json")
    state = repo.save(folder, "m").state_dict(allow_pickle=True)
    assert torch.equal(state["a"], NEW)


def test_a_name_in_two_files_is_refused_with_both_files(repo: Repository, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    save(folder / "model.safetensors", {"a": OLD, "b": OLD})
    save(folder / "weights.safetensors", {"a": NEW, "c": NEW})
    version = repo.save(folder, "m")
    for ask in (version.state_dict, lambda: version.tensor("a")):
        with pytest.raises(NotLoadable, match=r"model\.safetensors and weights\.safetensors both hold .* a"):
            ask()
    assert torch.equal(version.tensor("b"), OLD)


@pytest.mark.parametrize("broken", ["{", "[]", '{"weight_map": {}}', '{"weight_map": {"a": []}}', "\xff"])
def test_without_knowing_what_is_old_nothing_is_handed_out(
    repo: Repository, tmp_path: Path, broken: str
) -> None:
    two_shards(tmp_path / "saved")
    (tmp_path / "saved/model.safetensors.index.json").write_text(broken, encoding="latin-1")
    why = r"its model\.safetensors\.index\.json (is no JSON|names no shards)"
    version = repo.save(tmp_path / "saved", "m")
    for ask in (version.state_dict, lambda: version.tensor("a")):
        with pytest.raises(NotLoadable, match=why) as refused:
            ask()
        assert "save again from an empty folder" in str(refused.value)
        assert "state_dict()" not in str(refused.value)


def test_an_index_is_bounded_before_it_is_read(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_shards(tmp_path / "saved")
    monkeypatch.setattr(sidefiles, "MOST", 10)
    with pytest.raises(NotLoadable, match="10 at most are read") as refused:
        repo.save(tmp_path / "saved", "m").state_dict()
    assert "state_dict()" not in str(refused.value)
