"""Files that are in memory: stored as if they lay in the folder."""

from __future__ import annotations

from pathlib import Path
from typing import cast

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


class Content:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []
        self.lies_still = True

    def view(self, offset: int, length: int) -> memoryview | None:
        if self.lies_still:
            self.asked.append((offset, length))
        return memoryview(self.data)[offset : offset + length] if self.lies_still else None

    def read_into(self, offset: int, into: memoryview) -> None:
        self.asked.append((offset, len(into)))
        into[:] = self.data[offset : offset + len(into)]


def file(path: str, data: bytes = DATA) -> MemoryFile:
    return MemoryFile(path, len(data), Content(data))


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
        (plain / each.path).write_bytes(cast("Content", each.content).data)
    found, expected = repo.save(mixed, "m"), repo.save(plain, "m")
    assert found.tree() == expected.tree()
    assert [f.name for f in (tmp_path / "mixed").iterdir() if f.is_file()] == ["config.json"]
    assert found.read("x/w.safetensors") == DATA


@pytest.mark.parametrize("lies_still", [True, False])
def test_a_file_is_asked_for_in_its_order_each_byte_once_but_for_its_head(
    repo: Repository, tmp_path: Path, lies_still: bool
) -> None:
    content = Content(DATA)
    content.lies_still = lies_still
    version = repo.save(folder(tmp_path / "f", MemoryFile("w.safetensors", len(DATA), content)), "m")
    start = 8 + int.from_bytes(DATA[:8], "little")
    tensors = [(offset, length) for offset, length in content.asked if offset >= start]
    assert tensors == sorted(tensors)
    assert sum(length for _, length in tensors) == len(DATA) - start
    assert version.read("w.safetensors") == DATA


def test_patterns_hold_for_them_too(repo: Repository, tmp_path: Path) -> None:
    source = folder(tmp_path / "f", file("w.safetensors"), file("training_args.bin", b"secret"))
    version = repo.save(source, "m", exclude=["w.*"])
    assert [f.path for f in version.files] == ["config.json"]


def test_what_cannot_be_read_is_no_version(repo: Repository, tmp_path: Path) -> None:
    short = Content(b"123")
    short.lies_still = False
    with pytest.raises(ValueError, match=r"assignment|structure"):
        repo.save(folder(tmp_path / "f", MemoryFile("w.bin", 10, short)), "m")
    assert repo.models() == []


@pytest.mark.parametrize(("path", "error"), [("../w", UnsafePath), ("config.json", ValueError)])
def test_a_place_outside_the_folder_or_one_that_is_taken(
    repo: Repository, tmp_path: Path, path: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        repo.save(folder(tmp_path / "f", file(path)), "m")
