"""Storing a source: the bytes that were hashed are the bytes that were put, or there is an error."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from blake3 import blake3

from stemmata.errors import BrokenContainer, SourceChanged, StorageFull, UnsupportedFile
from stemmata.ids import Digest
from stemmata.sources import Source, files, scan, store, storing
from stemmata.trees import Tree, content_of, decode_tree, encode_tree

MIB = 1 << 20
LARGE = 256 << 10
"""Longer than what is read at a time to find where to cut; chunks of that length there are."""
BIG = np.random.default_rng(0).bytes(6 * MIB + 3)


class Kept:
    """An object that a writer has."""

    def __init__(self, digest: Digest) -> None:
        self._digest = digest

    def result(self) -> Digest:
        return self._digest


class Keeper:
    """A writer that keeps every object, and lets a test act before each."""

    def __init__(self, before: Callable[[int], None] = lambda n: None) -> None:
        self.kept: dict[str, bytes] = {}
        self.dtypes: list[str] = []
        self.before = before

    def submit(self, data: memoryview, dtype: str, candidates: object, look: object) -> Kept:
        self.before(len(self.dtypes))
        digest = Digest.of(data)
        self.kept[digest.hex] = bytes(data)
        self.dtypes.append(dtype)
        return Kept(digest)

    def rebuilt(self, tree: Tree) -> dict[str, bytes]:
        return {f.path: b"".join(self.kept[o] for s in f.segments for o in s.objects) for f in tree.files}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "out"
    made.mkdir()
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "none": np.zeros((0,), np.int64)}
    (made / "model.safetensors").write_bytes(safetensors.numpy.save(arrays))
    (made / "big.bin").write_bytes(BIG)
    (made / "sub").mkdir()
    (made / "sub" / "empty").write_bytes(b"")
    (made / "hollow").mkdir()
    (made / "run.sh").write_bytes(b"#!/bin/sh\n")
    os.chmod(made / "run.sh", 0o755)
    for path in made.rglob("*"):
        # Long ago: a file system's clock ticks slowly, and a change within one tick has the same time.
        os.utime(path, (10**9, 10**9))
    return made


def originals(source: Source) -> dict[str, bytes]:
    return {f.path: f.real.read_bytes() for f in source.files}


def test_i3_the_objects_joined_are_the_files(folder: Path) -> None:
    source, keeper = scan(folder), Keeper()
    tree = store(source, keeper)
    assert keeper.rebuilt(tree) == originals(source)
    for file in tree.files:
        assert file.digest == blake3((folder / file.path).read_bytes()).hexdigest()
        assert file.size == (folder / file.path).stat().st_size
        for segment in file.segments:
            assert sum(len(keeper.kept[o]) for o in segment.objects) == segment.length


def test_the_tree_is_one_that_can_be_read_back(folder: Path) -> None:
    tree = store(scan(folder), Keeper())
    assert decode_tree(encode_tree(tree), content_of(tree), "v") == tree
    assert [f.path for f in tree.files] == ["big.bin", "model.safetensors", "run.sh", "sub/empty"]
    assert tree.empty_folders == ["hollow"]
    assert [f.path for f in tree.files if f.executable] == ["run.sh"]


def test_tensors_are_told_with_their_types(folder: Path) -> None:
    keeper = Keeper()
    tree = store(scan(folder), keeper)
    model = next(f for f in tree.files if f.container)
    rows = {s.name: (s.dtype, s.shape, s.length, len(s.objects)) for s in model.segments}
    header = model.segments[0].length
    assert rows == {None: (None, None, header, 1), "w": ("F32", [2, 3], 24, 1), "none": ("I64", [0], 0, 0)}
    assert len(keeper.dtypes) == sum(len(s.objects) for f in tree.files for s in f.segments)
    assert [dtype for dtype in keeper.dtypes if dtype] == ["F32"]


def test_progress_counts_every_byte(folder: Path) -> None:
    seen: list[int] = []
    source = scan(folder)
    tree = store(source, Keeper(), seen.append)
    assert sum(seen) == source.total_bytes
    assert len(seen) == sum(len(s.objects) for f in tree.files for s in f.segments)


def test_each_file_is_opened_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = scan(folder)
    opened: list[str] = []
    opening = os.open

    def count(path: Path, flags: int, *rest: int) -> int:
        opened.append(str(path))
        return opening(path, flags, *rest)

    monkeypatch.setattr(os, "open", count)
    store(source, Keeper())
    assert sorted(opened) == sorted(str(f.real) for f in source.files)


def test_few_bytes_are_on_their_way_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, most = [0], [0]
    reading = files.OpenedFile.read_into

    def read_into(self: files.OpenedFile, offset: int, into: memoryview) -> None:
        held[0] += len(into)
        most[0] = max(most[0], held[0])
        reading(self, offset, into)

    class Landing(Kept):
        def __init__(self, digest: Digest, length: int) -> None:
            super().__init__(digest)
            self._length = length

        def result(self) -> Digest:
            held[0] -= self._length
            return super().result()

    class Counting(Keeper):
        def submit(self, data: memoryview, dtype: str, candidates: object, look: object) -> Kept:
            return Landing(Digest.of(data), len(data))

    monkeypatch.setattr(files.OpenedFile, "read_into", read_into)
    monkeypatch.setattr(storing, "_IN_FLIGHT", 4 * MIB)
    store(scan(folder), Counting())
    assert held == [0]
    assert 2 * MIB < most[0] <= 6 * MIB  # a piece, one ahead


def test_linked_files_are_stored_with_the_bytes_they_point_to(folder: Path) -> None:
    os.symlink("run.sh", folder / "link")
    keeper = Keeper()
    assert keeper.rebuilt(store(scan(folder), keeper))["link"] == b"#!/bin/sh\n"


# --- broken containers --------------------------------------------------------------------------


def test_a_broken_file_stops_the_save_or_is_kept_as_it_is(folder: Path) -> None:
    broken = (folder / "model.safetensors").read_bytes()[:-1]
    (folder / "model.safetensors").write_bytes(broken)
    with pytest.raises(BrokenContainer) as failure:
        store(scan(folder), Keeper())
    assert failure.value.data["path"] == "model.safetensors"
    keeper = Keeper()
    assert keeper.rebuilt(store(scan(folder, allow_broken=True), keeper))["model.safetensors"] == broken


# --- a source that moves ------------------------------------------------------------------------


def _grow(folder: Path) -> None:
    with open(folder / "big.bin", "ab") as f:
        f.write(b"more")


def _rewrite(folder: Path) -> None:
    with open(folder / "big.bin", "r+b") as f:
        f.seek(20 * MIB)
        f.write(b"other bytes")


def _rewrite_and_hide(folder: Path) -> None:
    before = (folder / "big.bin").stat()
    _rewrite(folder)
    while (folder / "big.bin").stat().st_ctime_ns == before.st_ctime_ns:
        (folder / "big.bin").chmod(before.st_mode)  # until the clock of the file system has ticked
    os.utime(folder / "big.bin", ns=(before.st_atime_ns, before.st_mtime_ns))


def _replace(folder: Path) -> None:
    (folder / "new").write_bytes((folder / "big.bin").read_bytes())
    os.replace(folder / "new", folder / "big.bin")


MOVES: dict[str, Callable[[Path], None]] = {
    "grown": _grow,
    "cut off": lambda folder: os.truncate(folder / "big.bin", 5),
    "emptied": lambda folder: os.truncate(folder / "big.bin", 0),
    "rewritten": _rewrite,
    "rewritten with its old time": _rewrite_and_hide,
    "replaced": _replace,
    "removed": lambda folder: os.unlink(folder / "big.bin"),
    "added": lambda folder: (folder / "zz-late").write_bytes(b""),
    "folder added": lambda folder: (folder / "zz-late").mkdir(),
    "folder removed": lambda folder: (folder / "hollow").rmdir(),
    "made executable": lambda folder: os.chmod(folder / "sub" / "empty", 0o755),
    "a later file changed": lambda folder: (folder / "run.sh").write_bytes(b"#!/bin/ls\n"),
    "a file became a pipe": lambda folder: (os.unlink(folder / "run.sh"), os.mkfifo(folder / "run.sh"))[0],
    "a file became a link": lambda folder: (
        os.rename(folder / "run.sh", folder / "sub" / "moved"),
        os.symlink("sub/moved", folder / "run.sh"),
    )[0],
    "moved away": lambda folder: os.rename(folder, folder.parent / "elsewhere"),
}


@pytest.mark.parametrize("when", [0, 1, 2, 5])
@pytest.mark.parametrize("move", MOVES)
def test_what_changes_during_a_save_is_no_version(folder: Path, move: str, when: int) -> None:
    def act(n: int) -> None:
        if n == when:
            MOVES[move](folder)

    with pytest.raises((SourceChanged, BrokenContainer)) as failure:
        store(scan(folder), Keeper(act))
    assert isinstance(failure.value, SourceChanged)


@pytest.mark.parametrize("move", [m for m in MOVES if m != "moved away"])
def test_what_changes_before_the_first_byte_is_noticed_too(folder: Path, move: str) -> None:
    source = scan(folder)
    MOVES[move](folder)
    with pytest.raises(SourceChanged):
        store(source, Keeper())
    with pytest.raises(SourceChanged):
        source.verify_unchanged()


def test_what_is_left_out_may_change(folder: Path) -> None:
    def act(n: int) -> None:
        (folder / "runs").mkdir(exist_ok=True)
        (folder / "runs" / f"events-{n}").write_bytes(b"x")

    store(scan(folder), Keeper(act))


def test_a_source_that_holds_still_is_confirmed(folder: Path) -> None:
    source = scan(folder)
    source.verify_unchanged()
    store(source, Keeper())
    source.verify_unchanged()


# --- failures -----------------------------------------------------------------------------------


def test_a_failing_writer_stops_the_reader_as_well(folder: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))

    def full(n: int) -> None:
        if n == 1:
            raise StorageFull(where="r")

    with pytest.raises(StorageFull):
        store(scan(folder), Keeper(full))
    assert not [t for t in threading.enumerate() if t.name.startswith("stemmata-read")]
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("call", ["open", "pread"])
def test_a_file_that_cannot_be_read_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    source = scan(folder)

    def refuse(*args: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(UnsupportedFile, match=r"big\.bin cannot be stored: it cannot be read: Input/output"):
        store(source, Keeper())


def test_short_reads_are_continued(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: pread(fd, min(n, 7 * MIB + 1), at))
    source, keeper = scan(folder), Keeper()
    assert keeper.rebuilt(store(source, keeper)) == originals(source)


# --- reading beside storing ---------------------------------------------------------------------


def test_a_file_can_be_read_by_its_path(folder: Path) -> None:
    source = scan(folder)
    assert source.read("run.sh") == b"#!/bin/sh\n"
    assert source.read("sub/empty") == b""
    with pytest.raises(KeyError):
        source.read("../outside")


def test_i3_what_is_read_after_storing_is_what_was_stored(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = scan(folder)
    store(source, Keeper())
    assert source.read("run.sh") == b"#!/bin/sh\n"
    # Even for a change that left no mark.
    (folder / "run.sh").write_bytes(b"#!/bin/ls\n")
    monkeypatch.setattr(files.OpenedFile, "verify_unchanged", lambda self: None)
    with pytest.raises(SourceChanged):
        source.read("run.sh")
