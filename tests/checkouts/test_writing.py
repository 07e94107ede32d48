"""A checkout is byte-exact or it is not there; nothing is written outside its target."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from stemmata.checkouts import read_file, reading, write, writing
from stemmata.errors import (
    DamagedFile,
    DamagedObject,
    InvalidArgument,
    NamesCollide,
    StorageFailed,
    StorageFull,
    StorageReadOnly,
    TargetNotEmpty,
    UnsafePath,
)
from stemmata.trees import Segment, Tree, TreeFile
from trees_by_hand import FILES, FOLDERS, Objects, contents_of, leftovers, tree_of
from users import open_folder, ordinary_user


def snapshot(folder: Path) -> dict[str, object]:
    """Everything below a folder: contents, links, and which file it is."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        what = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (about.st_ino, about.st_mode, what)
    return found


# --- new and empty targets ----------------------------------------------------------------------


@pytest.mark.parametrize("target", ["new", "above/that/is/new", "exists"])
def test_i3_a_checkout_is_byte_exact(tmp_path: Path, tree: Tree, objects: Objects, target: str) -> None:
    (tmp_path / "exists").mkdir()
    where = write(tree, objects.read, tmp_path / target)
    assert where == tmp_path / target
    assert contents_of(where) == (FILES, sorted(FOLDERS))
    assert leftovers(tmp_path) == []


def test_permissions_are_the_users_own(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    before = os.umask(0o027)
    try:
        write(tree, objects.read, tmp_path / "t")
    finally:
        os.umask(before)
    modes = {p: stat.S_IMODE((tmp_path / "t" / p).stat().st_mode) for p in ("", "sub", "sub/x", "empty")}
    assert modes == {"": 0o750, "sub": 0o750, "sub/x": 0o750, "empty": 0o640}


def test_an_empty_target_keeps_its_permissions(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t").chmod(0o700)
    write(tree, objects.read, tmp_path / "t")
    assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o700


def test_an_empty_tree_makes_an_empty_folder(tmp_path: Path, objects: Objects) -> None:
    write(Tree([]), objects.read, tmp_path / "t")
    assert contents_of(tmp_path / "t") == ({}, [])


def test_the_working_folder_stays_the_same_folder(
    tmp_path: Path, tree: Tree, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t").mkdir()
    monkeypatch.chdir(tmp_path / "t")
    before = os.stat(".").st_ino
    write(tree, objects.read, ".")
    assert os.stat(tmp_path / "t").st_ino == before
    assert contents_of(Path()) == (FILES, sorted(FOLDERS))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("hindrance", ["a mount", "a parent that is closed"])
def test_a_folder_that_cannot_be_replaced_is_filled(
    tmp_path: Path, tree: Tree, objects: Objects, monkeypatch: pytest.MonkeyPatch, hindrance: str
) -> None:
    (tmp_path / "t").mkdir()
    if hindrance == "a mount":
        monkeypatch.setattr(Path, "is_mount", lambda self: self == tmp_path / "t")
    else:
        (tmp_path / "t" / "mine").write_bytes(b"")
        monkeypatch.setattr(writing, "may_write", lambda folder: folder != tmp_path)
    making, seen = Path.mkdir, []

    def mkdir(self: Path, *args: Any, **kwargs: Any) -> None:
        seen.append(self)
        making(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    write(tree, objects.read, tmp_path / "t", force=True)
    assert all(p.is_relative_to(tmp_path / "t") for p in seen if ".stemmata-" in str(p))
    assert (tmp_path / "t" / "sub" / "x").read_bytes() == b"x"
    assert leftovers(tmp_path) == []


def test_an_empty_folder_is_filled_where_its_parent_is_closed(tree: Tree, objects: Objects) -> None:
    with open_folder() as place:
        (place / "t").mkdir()
        (place / "t").chmod(0o777)
        place.chmod(0o755)
        with ordinary_user():
            write(tree, objects.read, place / "t")
        assert contents_of(place / "t") == (FILES, FOLDERS)
        assert leftovers(place) == []


def test_a_target_may_be_named_by_a_link(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    (tmp_path / "real").mkdir()
    os.symlink("real", tmp_path / "link")
    write(tree, objects.read, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert contents_of(tmp_path / "real")[0] == FILES


@pytest.mark.parametrize("target", ["loop", "loop/below"])
def test_a_link_that_leads_to_itself_is_refused(
    tmp_path: Path, tree: Tree, objects: Objects, target: str
) -> None:
    os.symlink("loop", tmp_path / "loop")
    with pytest.raises(InvalidArgument, match=r"target: .*loop.* a link on the way leads to itself"):
        write(tree, objects.read, tmp_path / target)
    assert snapshot(tmp_path).keys() == {"loop"}


def test_a_target_that_is_a_file_is_refused(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    (tmp_path / "t").write_bytes(b"mine")
    for force in (False, True):
        with pytest.raises(InvalidArgument, match="no folder"):
            write(tree, objects.read, tmp_path / "t", force=force)
    with pytest.raises(StorageFailed):
        write(tree, objects.read, tmp_path / "t" / "below")
    assert snapshot(tmp_path).keys() == {"t"}


def test_progress_counts_every_byte(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    seen: list[int] = []
    write(tree, objects.read, tmp_path / "t", progress=seen.append)
    assert sum(seen) == sum(map(len, FILES.values()))


# --- a part -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only", "files", "folders"),
    [
        (["config.json"], ["config.json"], []),
        (["sub"], ["sub/deep/模型.bin", "sub/x"], ["sub/hollow/er"]),
        (["sub/"], ["sub/deep/模型.bin", "sub/x"], ["sub/hollow/er"]),
        ({"sub/x", "hollow"}, ["sub/x"], ["hollow"]),
        ("sub/x", ["sub/x"], []),
        ([], [], []),
    ],
)
def test_a_part_can_be_written(
    tmp_path: Path, tree: Tree, objects: Objects, only: Collection[str], files: list[str], folders: list[str]
) -> None:
    write(tree, objects.read, tmp_path / "t", only=only)
    assert contents_of(tmp_path / "t") == ({p: FILES[p] for p in files}, folders)


@pytest.mark.parametrize("only", [["nothing"], ["sub/x", "su"], ["sub/x/below"], [""], "su"])
def test_a_part_that_is_not_there_is_refused(
    tmp_path: Path, tree: Tree, objects: Objects, only: list[str]
) -> None:
    with pytest.raises(InvalidArgument, match="has no file"):
        write(tree, objects.read, tmp_path / "t", only=only)
    assert snapshot(tmp_path) == {}


# --- targets that hold something ----------------------------------------------------------------


def test_a_target_that_is_not_empty_is_refused(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / ".hidden").write_bytes(b"mine")
    before = snapshot(tmp_path)
    with pytest.raises(TargetNotEmpty):
        write(tree, objects.read, tmp_path / "t")
    assert snapshot(tmp_path) == before
    assert objects.asked == []


def test_a_target_that_fills_meanwhile_is_refused(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    def read(digest: str) -> bytes:
        (tmp_path / "t").mkdir(exist_ok=True)
        (tmp_path / "t" / "theirs").write_bytes(b"theirs")
        return objects.read(digest)

    with pytest.raises(TargetNotEmpty):
        write(tree, read, tmp_path / "t")
    assert contents_of(tmp_path / "t") == ({"theirs": b"theirs"}, [])
    assert leftovers(tmp_path) == []


def test_force_replaces_files_of_the_same_names_only(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    target = tmp_path / "t"
    (target / "sub").mkdir(parents=True)
    for path in ("config.json", "sub/x", "sub/mine", "mine"):
        (target / path).write_bytes(b"old " + path.encode())
    write(tree, objects.read, target, force=True)
    files, folders = contents_of(target)
    assert files == {**FILES, "sub/mine": b"old sub/mine", "mine": b"old mine"}
    assert folders == sorted(FOLDERS)
    assert leftovers(tmp_path) == []


def test_force_asks_every_folder_before_the_first_file_is_replaced(tree: Tree, objects: Objects) -> None:
    with open_folder() as place:
        target = place / "t"
        (target / "sub").mkdir(parents=True)
        (target / "config.json").write_bytes(b"old")
        target.chmod(0o777)
        (target / "sub").chmod(0o555)
        with ordinary_user(), pytest.raises(StorageReadOnly, match="sub"):
            write(tree, objects.read, target, force=True)
        assert contents_of(target) == ({"config.json": b"old"}, ["sub"])
        assert leftovers(place) == []


def test_force_writes_no_byte_through_a_hard_link(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "mine").write_bytes(b"mine")
    os.link(tmp_path / "mine", tmp_path / "t" / "config.json")
    write(tree, objects.read, tmp_path / "t", force=True)
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_force_replaces_a_link_and_not_what_it_points_to(
    tmp_path: Path, tree: Tree, objects: Objects
) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "mine").write_bytes(b"mine")
    os.symlink("../mine", tmp_path / "t" / "config.json")
    write(tree, objects.read, tmp_path / "t", force=True)
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert contents_of(tmp_path / "t")[0] == FILES


def _link(target: Path) -> None:
    os.symlink("../outside", target / "sub")


def _deep_link(target: Path) -> None:
    (target / "sub").mkdir()
    os.symlink("../../outside", target / "sub" / "deep")


def _folder_link(target: Path) -> None:
    os.symlink("../outside", target / "hollow")


def _file_for_folder(target: Path) -> None:
    (target / "sub").write_bytes(b"mine")


def _folder_for_file(target: Path) -> None:
    (target / "empty").mkdir()


def _pipe_for_file(target: Path) -> None:
    os.mkfifo(target / "empty")


@pytest.mark.parametrize(
    "obstacle", [_link, _deep_link, _folder_link, _file_for_folder, _folder_for_file, _pipe_for_file]
)
def test_what_stands_in_the_way_is_found_before_anything_is_replaced(
    tmp_path: Path, tree: Tree, objects: Objects, obstacle: Callable[[Path], None]
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "config.json").write_bytes(b"old")
    obstacle(tmp_path / "t")
    names = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")}
    with pytest.raises(UnsafePath):
        write(tree, objects.read, tmp_path / "t", force=True)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")} == names
    assert (tmp_path / "t" / "config.json").read_bytes() == b"old"


# --- hostile trees ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["../x", "/etc/x", "a/../../x", "a//x", "./x", "a/", "", "a\nb", "\ud800", "d/" * 300 + "x"]
)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_paths_that_climb_are_refused(tmp_path: Path, objects: Objects, path: str, kind: str) -> None:
    file = TreeFile(path, 1, "0" * 64, [Segment(1, [objects.add(b"1")])])
    tree = Tree([file]) if kind == "file" else Tree([], [path])
    (tmp_path / "in").mkdir()
    with pytest.raises(UnsafePath):
        write(tree, objects.read, tmp_path / "in" / "t")
    assert snapshot(tmp_path / "in") == {}


def test_two_files_of_one_path_are_refused(tmp_path: Path, objects: Objects) -> None:
    one = tree_of({"x": b"1"}, objects).files
    for tree in (Tree(one + one), Tree(one, ["x/below"]), Tree(one, ["x"])):
        with pytest.raises(UnsafePath):
            write(tree, objects.read, tmp_path / "t")


def test_names_that_are_one_to_the_file_system_are_refused(
    tmp_path: Path, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where case is ignored: opening "X" meets the "x" that is there.
    opening, making = os.open, Path.mkdir
    monkeypatch.setattr(os, "open", lambda path, *rest: opening(str(path).lower(), *rest))
    monkeypatch.setattr(Path, "mkdir", lambda self, *a, **k: making(Path(str(self).lower()), *a, **k))
    with pytest.raises(NamesCollide):
        write(tree_of({"X": b"1", "x": b"2"}, objects), objects.read, tmp_path / "t")
    with pytest.raises(NamesCollide):
        write(tree_of({"A/1": b"1", "a/2": b"2"}, objects), objects.read, tmp_path / "u")


# --- damage -------------------------------------------------------------------------------------


def _other_digest(file: TreeFile) -> TreeFile:
    return TreeFile(file.path, file.size, "0" * 64, file.segments)


def _longer(file: TreeFile) -> TreeFile:
    return TreeFile(file.path, file.size, file.digest, [*file.segments, file.segments[0]])


def _shorter(file: TreeFile) -> TreeFile:
    return TreeFile(file.path, file.size, file.digest, file.segments[:-1])


def _segment_longer(file: TreeFile) -> TreeFile:
    first = file.segments[0]
    return TreeFile(file.path, file.size, file.digest, [Segment(first.length + 1, first.objects)])


def _swapped(file: TreeFile) -> TreeFile:
    segments = [Segment(s.length, s.objects[::-1]) for s in file.segments]
    return TreeFile(file.path, file.size, file.digest, segments)


def _segment_shorter(file: TreeFile) -> TreeFile:
    first = file.segments[0]
    return TreeFile(file.path, file.size, file.digest, [Segment(first.length - 1, first.objects)])


FAULTS = [_other_digest, _longer, _shorter, _segment_longer, _segment_shorter, _swapped]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("force", [False, True])
def test_i4_a_file_that_is_not_the_versions_is_never_visible(
    tmp_path: Path, tree: Tree, objects: Objects, fault: Callable[[TreeFile], TreeFile], force: bool
) -> None:
    files = [fault(f) if f.path.endswith("模型.bin") else f for f in tree.files]
    (tmp_path / "t").mkdir()
    if force:
        (tmp_path / "t" / "config.json").write_bytes(b"old")
    before = snapshot(tmp_path)
    with pytest.raises(DamagedFile) as failure:
        write(Tree(files), objects.read, tmp_path / "t", force=force)
    assert failure.value.data["path"] == "sub/deep/模型.bin"
    assert snapshot(tmp_path) == before
    bad = next(f for f in files if f.path.endswith("模型.bin"))
    with pytest.raises(DamagedFile):
        read_file(bad, objects.read)


def test_a_file_can_be_read_without_a_checkout(tree: Tree, objects: Objects) -> None:
    assert {f.path: read_file(f, objects.read) for f in tree.files} == FILES


def test_i4_a_damaged_object_leaves_the_target_as_it_was(
    tmp_path: Path, tree: Tree, objects: Objects
) -> None:
    broken = tree.files[2].segments[0].objects[1]

    def read(digest: str) -> bytes:
        if digest == broken:
            raise DamagedObject(digest=digest, pack="p", reason="its digest is wrong")
        return objects.read(digest)

    with pytest.raises(DamagedObject):
        write(tree, read, tmp_path / "new" / "t")
    assert snapshot(tmp_path) == {}
    with pytest.raises(DamagedObject):
        read_file(tree.files[2], read)


# --- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EROFS, StorageReadOnly),
        (errno.EACCES, StorageReadOnly),
        (errno.EIO, StorageFailed),
    ],
)
@pytest.mark.parametrize("call", ["write", "mkdir", "open"])
@pytest.mark.parametrize("force", [False, True])
def test_i5_a_failing_disk_leaves_the_target_as_it_was(
    tmp_path: Path,
    tree: Tree,
    objects: Objects,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    code: int,
    expected: type,
    force: bool,
) -> None:
    target = tmp_path / "t"
    if force:
        target.mkdir()
        (target / "config.json").write_bytes(b"old")
    before = snapshot(tmp_path)
    count, whole = [0], getattr(os, call)

    def fail(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] == 2:
            raise OSError(code, os.strerror(code))
        return whole(*args, **kwargs)

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(expected) as failure:
        write(tree, objects.read, target, force=force)
    monkeypatch.undo()
    assert failure.value.data["where"] == str(target)
    assert snapshot(tmp_path) == before
    write(tree, objects.read, target, force=force)


def test_i5_an_interruption_leaves_the_target_as_it_was(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tree, objects.read, tmp_path / "a" / "t", progress=interrupt)
    assert snapshot(tmp_path) == {}


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from trees_by_hand import Objects, tree_of
from stemmata.checkouts import write

objects = Objects()
tree = tree_of({f"{i}": bytes([i]) * 1000 for i in range(5)}, objects)
left = [int(sys.argv[3])]
def progress(done):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
write(tree, objects.read, sys.argv[1], force=True, progress=progress)
"""


@pytest.mark.parametrize("after", [1, 8, 15])
@pytest.mark.parametrize("existing", [None, b"old"])
def test_i5_a_killed_checkout_leaves_the_target_as_it_was(
    tmp_path: Path, after: int, existing: bytes | None
) -> None:
    target = tmp_path / "t"
    if existing is not None:
        target.mkdir()
        (target / "0").write_bytes(existing)
    before = snapshot(target) if existing is not None else None
    here = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", KILLED, str(target), here, str(after)], check=False)
    assert done.returncode == -9
    assert (snapshot(target) if target.exists() else None) == before
    objects = Objects()
    write(tree_of({"0": b"new"}, objects), objects.read, target, force=True)
    assert contents_of(target)[0] == {"0": b"new"}


# --- memory -------------------------------------------------------------------------------------


def test_few_objects_are_in_memory_at_once(
    tmp_path: Path, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tree_of({"a": bytes(1000), "b": bytes(range(200)) * 3}, objects, step=100)
    started: list[str] = []
    most = [0]
    done = [0]

    def read(digest: str) -> bytes:
        started.append(digest)
        most[0] = max(most[0], len(started) - done[0])
        return objects.read(digest)

    def progress(length: int) -> None:
        done[0] += 1

    write(tree, read, tmp_path / "t", progress=progress)
    assert 1 < most[0] <= 3
    assert len(started) == 16
    monkeypatch.setattr(reading, "_READ_AHEAD", 0)
    most[0], done[0] = 0, 0
    started.clear()
    write(tree, read, tmp_path / "u", progress=progress)
    assert most[0] == 1
    assert writing._MAX_DEPTH > 200  # what a save takes can be written again
