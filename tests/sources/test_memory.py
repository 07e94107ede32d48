"""Files that are in memory: stored as if they lay in the folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from stemmata.errors import UnsafePath
from stemmata.repository import Repository
from stemmata.sources import MemoryFile, MemoryFolder

DATA = save({"b": np.arange(70_000, dtype=np.float32), "a": np.zeros(3, np.int8), "none": np.zeros((0, 2))})


@pytest.fixture
def repo() -> Repository:
    return Repository.in_memory()


def file(path: str, data: bytes = DATA, asked: list[tuple[int, int]] | None = None) -> MemoryFile:
    def read_at(offset: int, length: int) -> memoryview:
        if asked is not None:
            asked.append((offset, length))
        return memoryview(data)[offset : offset + length]

    return MemoryFile(path, len(data), read_at)


def folder(where: Path, *files: MemoryFile) -> MemoryFolder:
    where.mkdir(exist_ok=True)
    (where / "config.json").write_text("{}")
    return MemoryFolder(where, files)


def test_the_version_is_that_of_the_same_files_on_the_disk(repo: Repository, tmp_path: Path) -> None:
    mixed = folder(tmp_path / "mixed", file("x/w.safetensors"), file("a.bin", b"zip" * 9), file("none", b""))
    (tmp_path / "mixed/x").mkdir()
    plain = folder(tmp_path / "plain").folder
    (plain / "x").mkdir()
    for each in mixed.files:
        (plain / each.path).write_bytes(each.read_at(0, each.size))
    found, expected = repo.save(mixed, "m"), repo.save(plain, "m")
    assert found.tree() == expected.tree()
    assert [f.name for f in (tmp_path / "mixed").iterdir() if f.is_file()] == ["config.json"]
    assert found.read("x/w.safetensors") == DATA


def test_a_file_is_asked_for_in_its_order_each_byte_once_but_for_its_head(
    repo: Repository, tmp_path: Path
) -> None:
    asked: list[tuple[int, int]] = []
    repo.save(folder(tmp_path / "f", file("w.safetensors", asked=asked)), "m")
    start = 8 + int.from_bytes(DATA[:8], "little")
    tensors = [(offset, length) for offset, length in asked if offset >= start]
    assert tensors == sorted(tensors)
    assert sum(length for _, length in tensors) == len(DATA) - start


def test_patterns_hold_for_them_too(repo: Repository, tmp_path: Path) -> None:
    source = folder(tmp_path / "f", file("w.safetensors"), file("training_args.bin", b"secret"))
    version = repo.save(source, "m", exclude=["w.*"])
    assert [f.path for f in version.files] == ["config.json"]


def test_one_that_is_shorter_than_it_says_is_no_version(repo: Repository, tmp_path: Path) -> None:
    short = MemoryFile("w.bin", 10, lambda offset, length: b"123")
    with pytest.raises(ValueError, match="3 bytes where 10 were asked for"):
        repo.save(folder(tmp_path / "f", short), "m")
    assert repo.models() == []


@pytest.mark.parametrize(("path", "error"), [("../w", UnsafePath), ("config.json", ValueError)])
def test_a_place_outside_the_folder_or_one_that_is_taken(
    repo: Repository, tmp_path: Path, path: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        repo.save(folder(tmp_path / "f", file(path)), "m")
