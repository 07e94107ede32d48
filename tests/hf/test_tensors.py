"""Tensors that torch cannot hold and files that are broken: a named error, and no other tensor is lost."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from stemmata.containers import chunks
from stemmata.errors import NotLoadable
from stemmata.repository import Repository
from stemmata.version import Version

GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
_OLD = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
"""How a file of torch before 1.6 begins."""


def saved(repo: Repository, folder: Path, rows: dict[str, Any], data: bytes) -> Version:
    """A version of one safetensors file with this header."""
    text = json.dumps(rows).encode()
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    return repo.save(folder, "m")


@pytest.mark.parametrize(
    ("dtype", "shape", "why"),
    [
        ("F4", [16], "a type that torch does not have: F4"),
        ("NOPE", [2], "a type that torch does not have: NOPE"),
        ("F32", [3], "a shape that it cannot have"),
        ("F32", [-2], "a shape that it cannot have"),
        ("F32", [-1], "a shape that it cannot have"),
        ("F32", [1 << 40, 1 << 40], "a shape that it cannot have"),
    ],
)
def test_a_tensor_that_torch_cannot_hold_costs_itself_alone(
    repo: Repository, tmp_path: Path, dtype: str, shape: list[int], why: str
) -> None:
    bad = {"dtype": dtype, "shape": shape, "data_offsets": [8, 16]}
    data = torch.tensor([1.0, 2.0]).numpy().tobytes() + bytes(8)
    version = saved(repo, tmp_path / "saved", {"a": GOOD, "bad": bad}, data)
    assert version.tensor("a").tolist() == [1, 2]
    for read in (version.state_dict, lambda: version.tensor("bad")):
        with pytest.raises(NotLoadable, match=rf"the tensor bad in model\.safetensors has {why}"):
            read()


@pytest.mark.parametrize("shape", [[0, 1 << 63], [1 << 64, 0], [0, -1]])
def test_an_empty_tensor_of_a_shape_that_nothing_has_costs_itself_alone(
    repo: Repository, tmp_path: Path, shape: list[int]
) -> None:
    bad = {"dtype": "F32", "shape": shape, "data_offsets": [8, 8]}
    data = torch.tensor([1.0, 2.0]).numpy().tobytes()
    version = saved(repo, tmp_path / "saved", {"a": GOOD, "bad": bad}, data)
    assert version.tensor("a").tolist() == [1, 2]
    with pytest.raises(NotLoadable, match=r"the tensor bad in model\.safetensors has a shape"):
        version.state_dict()


def test_a_large_tensor_of_an_unknown_type_hides_no_other_one(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in several objects then, and so may be a header; no file is read whole for that."""
    monkeypatch.setattr(chunks, "CHUNK", 24)
    bad = {"dtype": "NOPE", "shape": [60], "data_offsets": [8, 68]}
    data = torch.tensor([1.0, 2.0]).numpy().tobytes() + bytes(60)
    version = saved(repo, tmp_path / "saved", {"a": GOOD, "bad": bad}, data)
    assert [len(s.objects) > 1 for s in version.files[0].segments] == [True, False, True]
    monkeypatch.setattr(Version, "read", None)
    assert version.tensor("a").tolist() == [1, 2]
    with pytest.raises(NotLoadable, match=r"the tensor bad in model\.safetensors has a type"):
        version.state_dict()


@pytest.mark.parametrize("data", [b"", b"hello, this is no file of tensors"])
def test_a_file_that_only_has_safetensors_name_says_so(repo: Repository, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/model.safetensors").write_bytes(data)
    version = repo.save(tmp_path / "saved", "m", allow_broken=True)
    with pytest.raises(NotLoadable, match=r"safetensors cannot read model\.safetensors"):
        version.state_dict()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02J\x01",
        b"\x80\x02ctorch\nTensor\n)\x81.",
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n(K\x01\x88NtR.",
        _OLD + b"\x80\x02K\x01Q.",
    ],
    ids=["struct.error", "OverflowError", "AttributeError", "AssertionError"],
)
def test_a_broken_pickle_is_a_named_error(repo: Repository, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/pytorch_model.bin").write_bytes(data)
    version = repo.save(tmp_path / "saved", "m")
    with pytest.raises(NotLoadable, match=r"pytorch_model\.bin is no file of tensors"):
        version.state_dict(allow_pickle=True)


def test_memory_that_runs_out_is_no_fault_of_the_file(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: Any, **__: Any) -> None:
        raise MemoryError

    (tmp_path / "saved").mkdir()
    torch.save({"a": torch.ones(2)}, tmp_path / "saved/pytorch_model.bin")
    version = repo.save(tmp_path / "saved", "m")
    monkeypatch.setattr(torch, "load", none_left)
    with pytest.raises(MemoryError):
        version.state_dict(allow_pickle=True)
