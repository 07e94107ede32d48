"""Files that are decoded straight into their place: what is right arrives, and nothing else does."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from stemmata.checkouts import pouring, write
from stemmata.codecs import workers
from stemmata.codecs.decoding import ObjectDecoder, Stored
from stemmata.codecs.dtypes import dtype_of
from stemmata.codecs.objectcode import encode_object
from stemmata.errors import DamagedFile, DamagedObject, StorageFull
from stemmata.ids import Digest
from stemmata.trees import Segment, Tree, TreeFile

SIZES = (0, 5, 3 << 20, 1 << 20, (9 << 20) + 4)


class Shelf:
    """Objects as they are stored; counts how often one is read whole."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        self.bodies = [rng.standard_normal(size // 4 + 1, np.float32).tobytes()[:size] for size in SIZES]
        self.encoded: dict[str, bytearray] = {}
        for body in self.bodies:
            dtype = dtype_of("F32" if len(body) % 4 == 0 else "")
            self.encoded[blake3(body).hexdigest()] = bytearray(encode_object(body, dtype))
        self.read_whole = 0

    def tree(self) -> Tree:
        digests = [blake3(body).hexdigest() for body in self.bodies]
        segments = [
            Segment(length=len(body), objects=[digest])
            for body, digest in zip(self.bodies, digests, strict=True)
        ]
        whole = b"".join(self.bodies)
        return Tree([TreeFile("weights", len(whole), blake3(whole).hexdigest(), segments)], [])

    def _decoder(self, digest: str) -> ObjectDecoder:
        size = next(len(body) for body in self.bodies if blake3(body).hexdigest() == digest)
        return ObjectDecoder(Stored(self.encoded[digest], size, Digest.parse(digest), "a pack"))

    def __call__(self, digest: str) -> bytes:
        self.read_whole += 1
        return bytes(self._decoder(digest).content())

    @contextlib.contextmanager
    def opened(self, digest: str) -> Iterator[ObjectDecoder]:
        yield self._decoder(digest)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.mark.parametrize("threads", ["1", "2", "5"])
def test_i3_frames_of_any_order_make_the_file(
    tmp_path: Path, shelf: Shelf, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(workers.VARIABLE, threads)
    monkeypatch.setattr(workers, "_pools", {})
    told: list[int] = []
    write(shelf.tree(), shelf, tmp_path / "t", progress=told.append)
    assert (tmp_path / "t/weights").read_bytes() == b"".join(shelf.bodies)
    assert sum(told) == sum(SIZES)
    assert shelf.read_whole == 0


def test_one_thread_at_a_time_writes_in_the_files_order(
    tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(workers.VARIABLE, "5")
    monkeypatch.setattr(workers, "_pools", {})
    whole, begun, at_work = pouring.write_at, list[tuple[int, int]](), threading.Lock()

    def slowly(fd: int, data: memoryview, start: int) -> None:
        assert at_work.acquire(blocking=False)
        begun.append((start, len(data)))
        time.sleep(0.001)
        whole(fd, data, start)
        at_work.release()

    monkeypatch.setattr(pouring, "write_at", slowly)
    write(shelf.tree(), shelf, tmp_path / "t")
    ends = [start + length for start, length in begun]
    assert [start for start, _ in begun] == [0, *ends[:-1]]
    assert shelf.read_whole == 0


def test_nobody_waits_for_a_slow_disk(tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is told of one piece at a time, and of no more when all is written."""
    asked, all_decoded = list[tuple[int, int]](), threading.Event()

    def wait(_fd: int, start: int, length: int) -> None:
        asked.append((start, length))
        assert all_decoded.wait(60)

    whole = pouring.write_at

    def last(fd: int, data: memoryview, start: int) -> None:
        whole(fd, data, start)
        if start + len(data) == sum(SIZES):
            all_decoded.set()

    monkeypatch.setattr(pouring, "_AHEAD", 1 << 20)
    monkeypatch.setattr(pouring, "begin_sync", wait)
    monkeypatch.setattr(pouring, "write_at", last)
    write(shelf.tree(), shelf, tmp_path / "t")
    assert all_decoded.is_set()
    assert asked[0] == (0, 1 << 20)
    assert len(asked) <= 2
    assert (tmp_path / "t/weights").read_bytes() == b"".join(shelf.bodies)


@pytest.mark.parametrize("which", [2, 3, 4])
@pytest.mark.parametrize("place", [0.5, 1.0])
def test_i4_a_damaged_object_is_named_and_nothing_appears(
    tmp_path: Path, shelf: Shelf, which: int, place: float
) -> None:
    digest = blake3(shelf.bodies[which]).hexdigest()
    stored = shelf.encoded[digest]
    stored[int(place * (len(stored) - 1))] ^= 1
    with pytest.raises(DamagedObject) as failure:
        write(shelf.tree(), shelf, tmp_path / "t")
    assert str(failure.value.data["digest"]) == digest
    assert list(tmp_path.iterdir()) == []


def test_i4_sound_objects_in_the_wrong_file_are_refused(tmp_path: Path, shelf: Shelf) -> None:
    tree = shelf.tree()
    other = TreeFile("weights", tree.files[0].size, "00" * 32, tree.files[0].segments)
    with pytest.raises(DamagedFile):
        write(Tree([other], []), shelf, tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [-1, 1])
def test_objects_that_do_not_fill_their_place_are_refused(tmp_path: Path, shelf: Shelf, change: int) -> None:
    file = shelf.tree().files[0]
    last = file.segments[-1]
    segments = [*file.segments[:-1], Segment(length=last.length + change, objects=last.objects)]
    with pytest.raises(DamagedFile):
        write(Tree([TreeFile("weights", file.size, file.digest, segments)], []), shelf, tmp_path / "t")


def test_what_cannot_be_poured_is_read_and_told_once(
    tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where one pack has lost an object that another has: the reading by objects finds it."""

    @contextlib.contextmanager
    def lost(digest: str) -> Iterator[ObjectDecoder]:
        if digest == blake3(shelf.bodies[-1]).hexdigest():
            raise DamagedObject(digest=digest, pack="a pack", reason="it is gone")
        yield shelf._decoder(digest)

    monkeypatch.setattr(shelf, "opened", lost)
    told: list[int] = []
    write(shelf.tree(), shelf, tmp_path / "t", progress=told.append)
    assert (tmp_path / "t/weights").read_bytes() == b"".join(shelf.bodies)
    assert sum(told) == sum(SIZES)
    assert shelf.read_whole == len(SIZES)


def test_a_full_disk_is_told_as_such(tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pouring, "write_at", full)
    with pytest.raises(StorageFull):
        write(shelf.tree(), shelf, tmp_path / "t")
    assert list(tmp_path.iterdir()) == []
