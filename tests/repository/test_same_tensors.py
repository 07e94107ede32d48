"""What is the same is stored once: whatever file it lies in, under whatever name, beside whatever else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from makers import contents
from stemmata.compare import statistics
from stemmata.compare.tensors import compare_tensors, tensors_of
from stemmata.recording import SaveRequest
from stemmata.repository import Repository
from stemmata.saving import Saved
from stemmata.trees import encode_tree
from stemmata.version import Version


@pytest.fixture
def repo() -> Iterator[Repository]:
    with Repository.in_memory() as made:
        yield made


def save(repo: Repository, folder: Path, model: str = "m") -> tuple[Version, Saved]:
    """Save a folder, and hold what comes back against it."""
    version, saved = repo.save_request(SaveRequest(folder, model, provenance={}))
    assert {f.path: version.read(f.path) for f in version.files} == contents(folder)
    return version, saved


def no_tensors(version: Version) -> int:
    """Bytes that are no tensor's: headers, gaps and whole small files, the list of the files, statistics."""
    files = sum(s.length for f in version.files for s in f.segments if not s.dtype)
    return files + len(encode_tree(version.tree())) + table_of(version)


def table_of(version: Version) -> int:
    """Bytes of its statistics; a table of equal tensors in an equal order is stored once as well."""
    return len(statistics.encode(dict(enumerate(version.statistics().values()))))


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return {
        "wte.weight": torch.randn(300, 64, generator=chance),
        "h.0.attn.weight": torch.randn(64, 64, generator=chance),
        "h.0.attn.bias": torch.randn(64, generator=chance),
        "h.0.half": torch.randn(64, 32, generator=chance).bfloat16(),
        "scale": torch.tensor(2.5),
        "steps": torch.tensor([1, 2, 3]),
    }


def folder_of(path: Path, **files: dict[str, torch.Tensor]) -> Path:
    """Weight files by name, with '_' for the dot before the suffix."""
    path.mkdir()
    for name, tensors in files.items():
        target = path / ".".join(name.rsplit("_", 1))
        if target.suffix == ".safetensors":
            safetensors.torch.save_file(tensors, target, metadata={"format": "pt"})
        else:
            torch.save(tensors, target)
    return path


def test_resharding_stores_no_tensor_again(repo: Repository, tmp_path: Path) -> None:
    whole = state()
    save(repo, folder_of(tmp_path / "one", model_safetensors=whole))
    names = list(whole)
    halves = {n: whole[n] for n in names[:2]}, {n: whole[n] for n in names[2:]}
    shards = folder_of(tmp_path / "two", shard_1_safetensors=halves[0], shard_2_safetensors=halves[1])
    (shards / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict.fromkeys(names, "s")})
    )
    version, saved = save(repo, shards)
    assert saved.bytes_new == no_tensors(version)


def test_renaming_and_reordering_store_no_tensor_again(repo: Repository, tmp_path: Path) -> None:
    save(repo, folder_of(tmp_path / "one", model_safetensors=state()))
    renamed = {f"model.{name}": tensor for name, tensor in reversed(state().items())}
    version, saved = save(repo, folder_of(tmp_path / "two", model_safetensors=renamed))
    assert saved.bytes_new == no_tensors(version) - table_of(version)


@pytest.mark.parametrize("direction", ["to safetensors", "to torch"])
def test_converting_stores_no_tensor_again(repo: Repository, tmp_path: Path, direction: str) -> None:
    # Longer than one object: both must be cut at the same elements.
    long = (torch.arange((16 << 20) + 5) % 251).to(torch.uint8)
    files = [{"pytorch_model_bin": state() | {"long": long}}, {"model_safetensors": state() | {"long": long}}]
    first, second = files if direction == "to safetensors" else reversed(files)
    before, _ = save(repo, folder_of(tmp_path / "one", **first))
    after, saved = save(repo, folder_of(tmp_path / "two", **second))
    assert saved.bytes_new == no_tensors(after) < 10_000
    diff = compare_tensors(before.tree(), after.tree())
    assert not diff
    assert len(diff.same) == len(state()) + 1


def test_tied_weights_are_converted_too(repo: Repository, tmp_path: Path) -> None:
    tied = state()
    save(repo, folder_of(tmp_path / "one", model_safetensors=state()))
    version, saved = save(
        repo, folder_of(tmp_path / "two", pytorch_model_bin={**tied, "lm_head.weight": tied["wte.weight"]})
    )
    assert saved.bytes_new == no_tensors(version)


def test_an_unchanged_embedding_in_another_model_is_stored_once(repo: Repository, tmp_path: Path) -> None:
    save(repo, folder_of(tmp_path / "one", model_safetensors=state()))
    other = {**state(1), "wte.weight": state()["wte.weight"]}
    for number, name in enumerate(("model_safetensors", "pytorch_model_bin")):
        with Repository.in_memory() as fresh:
            save(fresh, tmp_path / "one")
            version, saved = save(fresh, folder_of(tmp_path / f"other-{number}", **{name: other}), "another")
            assert saved.bytes_total - saved.bytes_new >= 300 * 64 * 4
            changed = sum(t.numel() * t.element_size() for t in state(1).values()) - 300 * 64 * 4
            assert saved.bytes_new <= no_tensors(version) + changed


def test_arrays_and_tensors_are_the_same_bytes(repo: Repository, tmp_path: Path) -> None:
    arrays: dict[str, Any] = {n: t.numpy() for n, t in state().items() if t.dtype != torch.bfloat16}
    save(repo, folder_of(tmp_path / "one", model_safetensors=state()))
    (tmp_path / "two").mkdir()
    np.savez(tmp_path / "two" / "weights.npz", **arrays)
    np.save(tmp_path / "two" / "embedding.npy", arrays["wte.weight"])
    version, saved = save(repo, tmp_path / "two")
    assert saved.bytes_new == no_tensors(version)


def test_an_epoch_of_an_optimizer_stores_its_numbers_and_little_else(
    repo: Repository, tmp_path: Path
) -> None:
    for number, folder in enumerate(("one", "two")):
        moments = {"step": torch.tensor(float(number)), "exp_avg": torch.full((64, 64), number / 3)}
        (tmp_path / folder).mkdir()
        torch.save(
            {"state": {0: moments}, "param_groups": [{"lr": 1e-3}]}, tmp_path / folder / "optimizer.pt"
        )
    version, _ = save(repo, tmp_path / "one")
    assert {s.dtype for s in version.files[0].segments} == {None, "F32"}
    pickled = version.files[0].segments[1].objects
    assert save(repo, tmp_path / "two")[0].files[0].segments[1].objects == pickled


def test_a_line_more_in_a_large_text_costs_a_chunk_or_two(repo: Repository, tmp_path: Path) -> None:
    lines = [f'"{i * 2654435761 % 2**32:x}": {i}' for i in range(120_000)]
    for folder, more in (("one", []), ("two", ['"<new>": 1'])):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tokenizer.json").write_text(
            "{" + ",\n".join([*lines[:9], *more, *lines[9:]]) + "}"
        )
    save(repo, tmp_path / "one")
    saved = save(repo, tmp_path / "two")[1]
    assert 0 < saved.bytes_new < saved.bytes_total / 4


def test_a_file_with_a_hole_is_stored_as_one_chunk_of_zeros(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with open(tmp_path / "one" / "image.bin", "wb") as file:
        file.write(b"begin")
        file.truncate(64 << 20)
        file.seek(0, 2)
        file.write(b"end")
    version, saved = save(repo, tmp_path / "one")
    assert saved.bytes_new < 4 << 20
    assert saved.bytes_stored < 10_000
    assert len(version.files[0].segments[0].objects) == 65


def test_what_a_training_only_needs_to_go_on_is_no_weight(repo: Repository, tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "checkpoint",
        pytorch_model_bin={"w": torch.ones(3)},
        rng_state_pth={"cpu": torch.ones(4, dtype=torch.uint8)},
        optimizer_pt={"exp_avg": torch.ones(3, dtype=torch.float64)},
    )
    version, _ = save(repo, folder)
    assert [t.name for t in tensors_of(version.tree())] == ["w"]


def test_the_rank_of_an_adapter_in_torchs_format_is_read_from_its_weights(
    repo: Repository, tmp_path: Path
) -> None:
    prefix = "base_model.model.layers.0.q_proj"
    adapter = {f"{prefix}.lora_A.weight": torch.ones(4, 16), f"{prefix}.lora_B.weight": torch.ones(16, 4)}
    optimizer = {"state": {0: {"exp_avg": torch.ones(16, 16)}}}
    folder = folder_of(tmp_path / "a", adapter_model_bin=adapter, optimizer_pt=optimizer)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 8}))
    version, _ = save(repo, folder)
    found = version.lora()
    assert found is not None
    assert (found.rank, found.from_weights, found.other_tensors) == (4, True, 0)
