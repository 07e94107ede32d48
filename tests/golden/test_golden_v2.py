"""I9: every release opens the golden repository of deltas and casts, compiled or not."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from faults import contents
from golden.make_v2 import expected
from golden.second_reader import WIDTHS, Streams, stored_in
from kernel_choices import WAYS, use
from stemmata.checking import LEVELS, Level, check
from stemmata.repository import Repository
from stemmata.storage.local import LocalStorage

GOLDEN = Path(__file__).parent / "v2"
ALL = set(range(2, 16))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy: opening a repository makes a cache in it."""
    shutil.copytree(GOLDEN / "repository", tmp_path / "repository")
    return tmp_path / "repository"


@pytest.fixture(scope="module")
def told() -> Any:
    return json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("level", LEVELS)
def test_i9_it_is_sound(root: Path, told: Any, level: Level) -> None:
    report = check(LocalStorage(root), level=level)
    assert (report.problems, report.notes) == ([], [])
    assert report.counts.versions == len(told["versions"]) == 8


@pytest.mark.parametrize("kernel", WAYS)
def test_i9_reading_gives_what_was_saved(
    root: Path, told: Any, kernel: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(kernel, monkeypatch)
    with Repository(LocalStorage(root)) as repo:
        found = json.loads(json.dumps(expected(repo)))
    for version, known in zip(found["versions"], told["versions"], strict=True):
        for later in version.keys() - known.keys():
            del version[later]
    assert found == told
    assert contents(LocalStorage(root)) == contents(LocalStorage(GOLDEN / "repository"))


def test_saving_into_it_leans_on_what_is_there(root: Path, tmp_path: Path) -> None:
    with Repository(LocalStorage(root)) as repo:
        source = tmp_path / "out"
        repo["fine@epoch-0"].checkout(source)
        data = bytearray((source / "model.safetensors").read_bytes())
        for at in range(len(data) - 4000, len(data), 40):
            data[at] ^= 1
        (source / "model.safetensors").unlink()
        (source / "model.safetensors").write_bytes(data)
        version = repo.save(source, "later", provenance={})
        assert version.read("model.safetensors") == data
        assert b'"bases":["' in (root / f"log/{told_entries(root):020d}.json").read_bytes()
    assert check(LocalStorage(root)).sound


def told_entries(root: Path) -> int:
    return len(list((root / "log").iterdir()))


def test_it_holds_each_codec_with_each_dtype_that_it_knows() -> None:
    stored = {path.stem: stored_in(path.read_bytes()) for path in GOLDEN.glob("repository/packs/*/*.pack")}

    def base_of(encoded: bytes) -> bytes:
        return stored[encoded[16:32].hex()][encoded[32:64]][0]

    def depth(encoded: bytes) -> int:
        return 1 + depth(base_of(encoded)) if encoded[3] else 0

    seen: set[tuple[int, int]] = set()
    classes: set[tuple[int, int]] = set()
    on_wide: set[tuple[int, int]] = set()
    depths, frames = set(), set()
    for objects in stored.values():
        for encoded, _ in objects.values():
            at = 24 + 48 * encoded[3]
            depths.add(depth(encoded))
            while at < len(encoded):
                codec, dtype, _, raw, size, _ = struct.unpack_from("<BBHIII", encoded, at)
                payload = encoded[at + 24 : at + 24 + size]
                seen.add((codec, dtype))
                frames.add(raw // WIDTHS[dtype])
                if codec in (3, 4) and base_of(encoded)[2] != dtype:
                    on_wide.add((codec, dtype))
                if codec == 3:
                    of_blocks = Streams(payload[1:]).take(-(-raw // WIDTHS[dtype] // 128))
                    classes |= {(dtype, kind) for kind in of_blocks}
                at += 24 + size
    assert {dtype for codec, dtype in seen if codec == 3} == ALL
    assert on_wide == {(3, 8), (3, 9), (4, 8), (4, 9)}
    assert {codec for codec, _ in seen} == {0, 1, 2, 3, 4}
    assert {dtype for dtype, kind in classes if kind == 2} == {8, 9, 12, 15}
    assert {kind for _, kind in classes} == {0, 1, 2}
    assert depths == {0, 1, 2, 3}
    assert frames >= {128 << 10, 77}
