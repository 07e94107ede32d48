"""What a save does not read: files that nothing has touched, and stored bases whose bytes still lie where
they were saved from. Never at the price of what is stored."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

import faults
from chained import Tensors, model, opened, trained, written
from stemmata import candidates, saving, seen, unread
from stemmata.candidates import Candidates
from stemmata.checking import check
from stemmata.codecs.decoding import ObjectDecoder
from stemmata.containers.base import CutPlan
from stemmata.errors import BrokenContainer
from stemmata.recording import SaveRequest
from stemmata.repository import Repository
from stemmata.session import seen_files
from stemmata.sources import storing
from stemmata.sources.files import OpenedFile
from stemmata.storage.mounts import mount_of
from stemmata.trees import TreeFile
from stemmata.version import Version

SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own, and small files are worth a note in it."""
    monkeypatch.setenv("STEMMATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(unread, "LEAST", 1024)
    return tmp_path / "cache" / "digests"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as left alone long enough as soon as they are written, wherever the tests run."""
    monkeypatch.setattr(seen, "SETTLED_NS", -(10**18))
    monkeypatch.setattr(seen, "_IN_MEMORY", frozenset())


@pytest.fixture
def repo() -> Iterator[Repository]:
    with Repository.in_memory() as made:
        yield made


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each part of a file that was read to be stored."""
    found: list[int] = []
    real = OpenedFile.read_into

    def reading(self: OpenedFile, offset: int, into: memoryview) -> None:
        found.append(len(into))
        real(self, offset, into)

    monkeypatch.setattr(OpenedFile, "read_into", reading)
    return found


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each stored frame of a tensor that was decoded."""
    found: list[int] = []
    real = ObjectDecoder.decode_into

    def decoding(self: ObjectDecoder, frame, into, known=None) -> None:  # type: ignore[no-untyped-def]
        if frame.dtype.is_float and frame.raw_length > 4096:  # not of the table of statistics
            found.append(frame.raw_length)
        real(self, frame, into, known)

    monkeypatch.setattr(ObjectDecoder, "decode_into", decoding)
    return found


def save(
    repo: Repository, folder: Path, name: str, parents: Sequence[str] = (), *, reread: bool = False
) -> Version:
    ids = [repo[f"m@{parent}"].id for parent in parents]
    saving.save(repo.session, SaveRequest(folder, "m", name, parents=ids, reread=reread))
    return repo[f"m@{name}"]


def leans(repo: Repository, version: Version) -> set[str | None]:
    return {line[1][1].digest.hex if len(line) > 1 else None for line in opened(repo, version).values()}


def objects(version: Version) -> set[str]:
    return {s.objects[0] for f in version.files for s in f.segments if s.name is not None}


def payloads(decoder: ObjectDecoder) -> list[bytes]:
    return [bytes(decoder._encoded.payload(frame.at, frame.stored)) for frame in decoder.frames]


def two(repo: Repository, tmp_path: Path) -> tuple[Version, Tensors, bytes]:
    """A saved parent, in `one`, and what was trained from it, in `two`; the bytes of that."""
    first = model()
    written(tmp_path / "one", first)
    parent = save(repo, tmp_path / "one", "one")
    later = trained(first, 1)
    return parent, later, written(tmp_path / "two", later)


# --- files that nothing has touched -----------------------------------------------------------------------


def test_the_parents_files_are_walked_once_however_many_files_are_saved(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked: list[TreeFile] = []

    class Counting(Candidates):
        @property
        def files(self) -> Iterator[TreeFile]:
            for file in super().files:
                walked.append(file)
                yield file

    folder = tmp_path / "out"
    folder.mkdir()
    for number in range(200):
        (folder / f"{number}.txt").write_text(f"{number:04}")
    save(repo, folder, "one")
    (folder / "7.txt").write_text("new!")
    monkeypatch.setattr(candidates, "Candidates", Counting)
    second = save(repo, folder, "two", ["one"])
    assert second.read("7.txt") == b"new!"
    assert len(walked) == 200


@pytest.mark.usefixtures("settled")
def test_an_untouched_file_is_not_read_again(repo: Repository, tmp_path: Path, read: list[int]) -> None:
    data = written(tmp_path / "out", model())
    (tmp_path / "out" / "notes.txt").write_text("one")
    first = save(repo, tmp_path / "out", "one")
    read.clear()
    (tmp_path / "out" / "notes.txt").write_text("two")
    told: list[int] = []
    request = SaveRequest(tmp_path / "out", "m", "two", parents=[first.id], progress=told.append)
    saved = saving.save(repo.session, request)
    second = repo["m@two"]
    assert read == [3]
    assert sum(told) == len(data) + 3
    # The small file, what describes the version, and statistics by which no tensor has moved.
    assert saved.bytes_new < 2000
    assert second.read("model.safetensors") == data
    assert second.files[0] == first.files[0]
    assert {row.movement and row.movement.change for row in second.statistics().values()} == {0.0}
    assert check(repo.session.storage).sound


@pytest.mark.parametrize("changed", [False, True])
def test_a_small_file_is_read_and_not_cut_again_if_a_parent_has_its_content(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    monkeypatch.setattr(unread, "LEAST", 1 << 20)
    cut: list[str] = []
    real = storing.plan

    def planning(content: OpenedFile, size: int, path: str, allow_broken: bool) -> CutPlan:
        cut.append(path)
        return real(content, size, path, allow_broken)

    monkeypatch.setattr(storing, "plan", planning)
    written(tmp_path / "out", model())
    tokens = np.random.default_rng(1).bytes(300_000)
    (tmp_path / "out" / "tokenizer.json").write_bytes(tokens)
    first = save(repo, tmp_path / "out", "one")
    assert cut == ["model.safetensors", "tokenizer.json"]
    cut.clear()
    later = tokens[:-1] + bytes([tokens[-1] ^ 1]) if changed else tokens
    (tmp_path / "out" / "tokenizer.json").write_bytes(later)
    second = save(repo, tmp_path / "out", "two", ["one"])
    assert cut == (["tokenizer.json"] if changed else [])
    assert second.read("tokenizer.json") == later
    assert (second.files == first.files) is not changed
    assert check(repo.session.storage).sound


def test_a_file_that_was_written_a_moment_ago_is_read_again(
    repo: Repository, tmp_path: Path, read: list[int]
) -> None:
    data = written(tmp_path / "out", model())
    save(repo, tmp_path / "out", "one")
    read.clear()
    save(repo, tmp_path / "out", "two", ["one"])
    assert sum(read) == len(data)


@pytest.mark.usefixtures("settled")
def test_a_change_in_place_is_stored_though_size_and_time_are_what_they_were(
    repo: Repository, tmp_path: Path
) -> None:
    data = bytearray(written(tmp_path / "out", model()))
    save(repo, tmp_path / "out", "one")
    file = tmp_path / "out" / "model.safetensors"
    about = file.stat()
    data[-1] ^= 1
    with file.open("r+b") as opened_file:
        opened_file.write(data)
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert file.stat().st_mtime_ns == about.st_mtime_ns
    assert save(repo, tmp_path / "out", "two", ["one"]).read("model.safetensors") == data


@pytest.mark.skipif(os.name == "nt", reason="there nothing is believed")
@pytest.mark.parametrize("place", ["on a disk", "in memory"])
def test_a_change_through_a_mapping_is_stored_though_no_time_tells_of_it(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A page that waits to be written takes any change; one of a file system in memory waits for ever."""
    monkeypatch.setattr(seen, "SETTLED_NS", -(10**18))
    with ExitStack() as stack:
        folder = tmp_path / "out"
        if place == "in memory":
            if mount_of(SHARED_MEMORY).kind != "tmpfs" or not os.access(SHARED_MEMORY, os.W_OK):
                pytest.skip("no file system in memory")
            folder = Path(stack.enter_context(TemporaryDirectory(dir=SHARED_MEMORY))) / "out"
        data = written(folder, model())
        file = stack.enter_context((folder / "model.safetensors").open("r+b"))
        mapped = stack.enter_context(mmap.mmap(file.fileno(), 0))
        mapped[-1] = data[-1]
        save(repo, folder, "one")
        before = os.fstat(file.fileno())
        mapped[-1] = data[-1] ^ 1
        if place == "in memory":
            assert seen.marks_of(os.fstat(file.fileno())) == seen.marks_of(before)
        second = save(repo, folder, "two", ["one"])
        assert second.read("model.safetensors") == data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.usefixtures("settled")
def test_a_file_that_was_taken_though_it_is_broken_is_refused_where_that_is_not_asked_for(
    repo: Repository, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_bytes(bytes(5000))
    saving.save(repo.session, SaveRequest(tmp_path / "out", "m", "one", allow_broken=True))
    with pytest.raises(BrokenContainer):
        save(repo, tmp_path / "out", "two", ["one"])


@pytest.mark.usefixtures("settled")
def test_a_file_under_a_name_that_promises_tensors_is_cut_into_them(repo: Repository, tmp_path: Path) -> None:
    written(tmp_path / "out", model())
    link = tmp_path / "out" / "model.safetensors"
    link.rename(tmp_path / "out" / "model.dat")
    save(repo, tmp_path / "out", "one")
    link.symlink_to("model.dat")
    second = save(repo, tmp_path / "out", "two", ["one"])
    assert {file.path: file.container for file in second.files}["model.safetensors"] == "safetensors"
    assert len(second.statistics()) == len(model())


@pytest.mark.usefixtures("settled")
def test_asked_to_a_save_reads_everything(repo: Repository, tmp_path: Path, read: list[int]) -> None:
    data = written(tmp_path / "out", model())
    save(repo, tmp_path / "out", "one")
    read.clear()
    save(repo, tmp_path / "out", "two", ["one"], reread=True)
    assert sum(read) == len(data)


@pytest.mark.usefixtures("settled")
def test_what_is_known_of_a_file_is_no_use_where_it_is_not_stored(tmp_path: Path) -> None:
    data = written(tmp_path / "out", model())
    with Repository.in_memory() as other:
        save(other, tmp_path / "out", "one")
    with Repository.in_memory() as repo:
        assert save(repo, tmp_path / "out", "one").read("model.safetensors") == data
        assert check(repo.session.storage).sound


@pytest.mark.usefixtures("settled")
def test_a_file_is_read_and_stored_anew_where_the_store_has_lost_it(repo: Repository, tmp_path: Path) -> None:
    data = written(tmp_path / "out", model())
    first = save(repo, tmp_path / "out", "one")
    for pack in repo.session.packs(first._row):
        repo.session.storage.delete(pack.key)
    assert save(repo, tmp_path / "out", "two", ["one"]).read("model.safetensors") == data


@pytest.mark.usefixtures("settled")
def test_an_untouched_file_is_as_executable_as_it_is_now(
    repo: Repository, tmp_path: Path, read: list[int]
) -> None:
    data = written(tmp_path / "out", model())
    save(repo, tmp_path / "out", "one")
    file = tmp_path / "out" / "model.safetensors"
    file.chmod(0o755)
    save(repo, tmp_path / "out", "two", ["one"])
    read.clear()
    third = save(repo, tmp_path / "out", "three", ["two"])
    assert not read
    assert third.files[0].executable
    assert third.read("model.safetensors") == data


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("first", range(5))
def test_notes_that_are_damaged_are_no_notes(
    repo: Repository, tmp_path: Path, cache: Path, first: int
) -> None:
    data = written(tmp_path / "out", model())
    save(repo, tmp_path / "out", "one")
    for n, note in enumerate(sorted(cache.iterdir())):
        note.write_bytes([b"{", b"", b"\xff\xfe", b"[]", b'{"x":' + b"[" * 10**5][(n + first) % 5])
    assert save(repo, tmp_path / "out", "two", ["one"]).read("model.safetensors") == data


def test_the_oldest_notes_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "_MOST_NOTES", 10)
    notes = seen.Seen(tmp_path / "notes")
    for number in range(6):
        notes.remember(tmp_path / str(number), (1, 2, 3, 4, 5), f"{number:064x}", 6)
        for note in (tmp_path / "notes").iterdir():
            about = note.stat()
            os.utime(note, ns=(about.st_atime_ns, about.st_mtime_ns - 10**9))
    notes.tidy()
    assert len(list((tmp_path / "notes").iterdir())) == 6
    assert notes.place_of(f"{5:064x}") == (tmp_path / "5", (1, 2, 3, 4, 5))
    assert notes.place_of(f"{0:064x}") is None


# --- bases that still lie somewhere -----------------------------------------------------------------------


def test_a_base_that_still_lies_there_is_not_decoded(
    repo: Repository, tmp_path: Path, decoded: list[int]
) -> None:
    parent, _, data = two(repo, tmp_path)
    decoded.clear()
    second = save(repo, tmp_path / "two", "two", ["one"])
    assert not decoded
    assert leans(repo, second) == objects(parent)
    assert second.read("model.safetensors") == data
    assert check(repo.session.storage).sound


def test_what_is_stored_does_not_depend_on_where_the_base_was_read(tmp_path: Path, cache: Path) -> None:
    kept: list[dict[str, bytes]] = []
    for held in (True, False):
        with Repository.in_memory() as repo:
            two(repo, tmp_path)
            if not held:
                for note in cache.iterdir():
                    note.unlink()
            version = save(repo, tmp_path / "two", "two", ["one"])
            found: dict[str, bytes] = {}
            for name, line in opened(repo, version).items():
                found[name] = b"".join(payloads(line[0][1]))
            kept.append(found)
            table = version.statistics()
    assert kept[0] == kept[1]
    assert all(row.movement for row in table.values())


@pytest.mark.parametrize("what", ["rotated", "anew", "in place", "cut", "a folder", "a link"])
def test_a_base_that_does_not_lie_there_any_more_is_decoded(
    repo: Repository, tmp_path: Path, decoded: list[int], what: str
) -> None:
    parent, _, data = two(repo, tmp_path)
    file = tmp_path / "one" / "model.safetensors"
    whole = file.read_bytes()
    if what == "in place":
        file.write_bytes(whole[:-4] + b"abcd")
    elif what == "cut":
        os.truncate(file, 100)
    else:
        file.unlink()
    if what == "anew":
        file.write_bytes(whole)
    elif what == "a folder":
        file.mkdir()
    elif what == "a link":
        (tmp_path / "elsewhere").write_bytes(whole)
        file.symlink_to(tmp_path / "elsewhere")
    decoded.clear()
    second = save(repo, tmp_path / "two", "two", ["one"])
    assert decoded
    assert leans(repo, second) == objects(parent)
    assert second.read("model.safetensors") == data


@pytest.mark.parametrize("cut", [False, True])
def test_a_file_that_is_not_what_its_note_says_is_not_believed(
    repo: Repository, tmp_path: Path, decoded: list[int], cut: bool
) -> None:
    """Size, times and inode are right, the content is not: a file system that lies, or a forged note."""
    parent, _, data = two(repo, tmp_path)
    file = tmp_path / "one" / "model.safetensors"
    whole = bytearray(file.read_bytes())
    whole[-1] ^= 1
    file.write_bytes(whole[:-5] if cut else whole)
    seen_files().remember(file, seen.marks_of(file.stat()), parent.files[0].digest, 0)
    decoded.clear()
    second = save(repo, tmp_path / "two", "two", ["one"])
    assert decoded
    assert leans(repo, second) == objects(parent)
    assert second.read("model.safetensors") == data
    assert check(repo.session.storage).sound


def test_a_note_with_an_impossible_place_is_none(repo: Repository, tmp_path: Path) -> None:
    parent, _, data = two(repo, tmp_path)
    seen_files().remember(Path("/a\0b"), (1, 2, 3, 4, 5), parent.files[0].digest, 0)
    assert save(repo, tmp_path / "two", "two", ["one"]).read("model.safetensors") == data


def test_what_is_told_of_a_parent_does_not_depend_on_what_lies_where_it_was(
    tmp_path: Path, cache: Path
) -> None:
    """The tensor is of the parent's version alone compared: it leans on an older one."""
    tensors = [{"w": np.random.default_rng(0).normal(size=(512, 600)).astype("<f4")}]
    for number in range(1, 5):
        tensors.append(trained(tensors[-1], number, rate=1e-3))
    rows = []
    for place in ("as it was", "another's", "nowhere"):
        with Repository.in_memory() as repo:
            for number, each in enumerate(tensors):
                written(tmp_path / str(number), each)
                if number == 4 and place == "another's":
                    file = tmp_path / "3" / "model.safetensors"
                    file.write_bytes(file.read_bytes()[:-4] + b"none")
                    digest = repo["m@3"].files[0].digest
                    seen_files().remember(file, seen.marks_of(file.stat()), digest, 0)
                elif number == 4 and place == "nowhere":
                    for note in cache.iterdir():
                        note.unlink()
                version = save(repo, tmp_path / str(number), str(number), [str(number - 1)] if number else [])
            rows.append(list(version.statistics().values()))
    assert rows[0] == rows[1] == rows[2]
    assert all(row.movement for row in rows[1])


def test_a_damaged_base_is_not_leaned_on_although_its_bytes_lie_there(tmp_path: Path) -> None:
    with Repository.in_memory() as repo:
        parent, _, data = two(repo, tmp_path)
        storage = repo.session.storage
        line = opened(repo, parent)["layer.0.weight"]
        (pack,) = {line[0][0].pack}
        spoiled = storage.get(pack.key)
        at = spoiled.index(payloads(line[0][1])[0])
        faults.replace(
            storage, pack.key, spoiled[: at + 9] + bytes([spoiled[at + 9] ^ 4]) + spoiled[at + 10 :]
        )
        repo.session.reader.forget(pack)
        second = save(repo, tmp_path / "two", "two", ["one"])
        assert second.read("model.safetensors") == data
        assert leans(repo, second) == {*objects(parent), None} - {line[0][1].digest.hex}


def test_a_parent_that_is_only_compared_is_not_decoded_either(
    tmp_path: Path, cache: Path, decoded: list[int]
) -> None:
    """A chain that is too deep leans on an older version, while its statistics are of the parent."""
    tensors = [{"w": np.random.default_rng(0).normal(size=(512, 600)).astype("<f4")}]
    for number in range(1, 5):
        tensors.append(trained(tensors[-1], number, rate=1e-3))
    work, rows = [], []
    for held in (True, False):
        with Repository.in_memory() as repo:
            for number, each in enumerate(tensors):
                written(tmp_path / str(number), each)
                if number == 4 and not held:
                    for note in cache.iterdir():
                        note.unlink()
                decoded.clear()
                parents = [str(number - 1)] if number else []
                version = save(repo, tmp_path / str(number), str(number), parents)
            work.append(sum(decoded))
            rows.append(list(version.statistics().values()))
            parent = {s.objects[0] for f in repo["m@3"].files for s in f.segments if s.name is not None}
            assert leans(repo, version).isdisjoint(parent)
    assert work[0] < work[1]
    assert rows[0] == rows[1]
