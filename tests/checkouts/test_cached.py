"""The shared checkout: handed out only while it is what was verified."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from stemmata.checkouts import cached, eviction, shared
from stemmata.errors import DamagedFile, StorageFailed, StorageFull, StorageReadOnly, UnsafePath
from stemmata.ids import VersionId
from stemmata.trees import Tree, TreeFile
from trees_by_hand import Objects, contents_of, tree_of

FILES = {"config.json": b"{}", "sub/model.bin": bytes(range(256)) * 4, "empty": b"", "run.sh": b"#!"}
FOLDERS = ["hollow", "sub/hollow"]
VERSION = VersionId.of(b"a version")


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def tree(objects: Objects) -> Tree:
    return tree_of(FILES, objects, folders=FOLDERS, executable={"run.sh"})


def leftovers(cache: Path) -> list[str]:
    return [p.name for p in (cache / "checkouts").iterdir() if p.name.startswith(".") and p.is_dir()]


def test_i3_it_is_byte_exact_and_lies_under_its_version(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    path = shared(tmp_path / "cache", VERSION, tree, objects.read)
    assert path == tmp_path / "cache" / "checkouts" / VERSION.hex / "files"
    assert contents_of(path) == (FILES, FOLDERS)
    assert leftovers(tmp_path / "cache") == []


def test_it_is_made_once(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    first = shared(tmp_path, VERSION, tree, objects.read)
    inode = (first / "config.json").stat().st_ino
    objects.asked.clear()
    assert shared(tmp_path, VERSION, tree, objects.read) == first
    assert objects.asked == []
    assert (first / "config.json").stat().st_ino == inode


def test_versions_do_not_share_files(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    first = shared(tmp_path, VERSION, tree, objects.read)
    second = shared(tmp_path, VersionId.of(b"another"), tree, objects.read)
    assert not os.path.samefile(first / "config.json", second / "config.json")
    assert (first / "config.json").stat().st_nlink == 1


def test_its_files_are_read_only(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    before = os.umask(0o022)
    try:
        path = shared(tmp_path, VERSION, tree, objects.read)
    finally:
        os.umask(before)
    modes = {p: stat.S_IMODE((path / p).stat().st_mode) for p in FILES}
    assert modes == {"config.json": 0o444, "sub/model.bin": 0o444, "empty": 0o444, "run.sh": 0o555}


def test_it_may_vanish_at_any_time(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    for _ in range(2):
        path = shared(tmp_path, VERSION, tree, objects.read)
        assert contents_of(path) == (FILES, FOLDERS)
        shutil.rmtree(tmp_path / "checkouts")


# --- changed by others --------------------------------------------------------------------------


def _wait_for_the_clock(path: Path) -> None:
    """Until the file system's clock has moved on: a change within one tick has the same time."""
    before = path.stat().st_ctime_ns
    probe = path.parents[2] / "probe"
    probe.write_bytes(b"")
    while probe.stat().st_ctime_ns <= before:
        probe.chmod(0o600)
    probe.unlink()


def _overwrite(path: Path) -> None:
    os.chmod(path / "config.json", 0o644)
    (path / "config.json").write_bytes(b"[]")


def _overwrite_and_hide(path: Path) -> None:
    before = (path / "config.json").stat()
    _overwrite(path)
    os.utime(path / "config.json", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.chmod(path / "config.json", 0o444)


def _replace(path: Path) -> None:
    (path / "new").write_bytes(b"{}")
    os.replace(path / "new", path / "config.json")


def _swap_for_a_link(path: Path) -> None:
    os.rename(path / "config.json", path.parent / "elsewhere")
    os.symlink(path.parent / "elsewhere", path / "config.json")


def _swap_for_a_folder(path: Path) -> None:
    os.unlink(path / "config.json")
    (path / "config.json").mkdir()


def _link_folder(path: Path) -> None:
    os.rename(path / "sub", path.parent / "elsewhere")
    os.symlink(path.parent / "elsewhere", path / "sub")


def _link_everything(path: Path) -> None:
    os.rename(path, path.parent.parent / "elsewhere")
    os.symlink(path.parent.parent / "elsewhere", path)


def _manifest(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        manifest = path.parent / "manifest.json"
        manifest.write_bytes(change(manifest.read_bytes()))

    return act


CHANGES: dict[str, Callable[[Path], None]] = {
    "overwritten": _overwrite,
    "overwritten with its old time": _overwrite_and_hide,
    "replaced by an equal file": _replace,
    "cut off": lambda path: os.truncate(path / "sub" / "model.bin", 3),
    "grown": lambda path: os.truncate(path / "empty", 1),
    "removed": lambda path: os.unlink(path / "sub" / "model.bin"),
    "all removed": shutil.rmtree,
    "a folder removed": lambda path: (path / "hollow").rmdir(),
    "a file added": lambda path: (path / "model.safetensors").write_bytes(b"stale") and None,
    "a folder added": lambda path: (path / "more").mkdir(),
    "a file became a link": _swap_for_a_link,
    "a file became a folder": _swap_for_a_folder,
    "a file became a pipe": lambda path: (os.unlink(path / "empty"), os.mkfifo(path / "empty"))[0],
    "a folder became a link": _link_folder,
    "everything became a link": _link_everything,
    "manifest removed": lambda path: os.unlink(path.parent / "manifest.json"),
    "manifest emptied": _manifest(lambda data: b""),
    "manifest cut off": _manifest(lambda data: data[:-5]),
    "manifest of nothing": _manifest(lambda data: b'{"files":{}}'),
    "manifest of another shape": _manifest(lambda data: b"[1,2]"),
    "manifest that is no text": _manifest(lambda data: b'{"files":{"\xff":[1,2,3,4]}}'),
    "manifest of other numbers": _manifest(lambda data: data.replace(b"1", b"2")),
    "home became a file": lambda path: (shutil.rmtree(path.parent), path.parent.write_bytes(b""))[0],
    "home became a link": lambda path: (
        os.rename(path.parent, path.parent.parent / "elsewhere"),
        os.symlink("gone", path.parent),
    )[0],
}


@pytest.mark.parametrize("change", CHANGES)
def test_i4_what_was_changed_is_made_again(tmp_path: Path, tree: Tree, objects: Objects, change: str) -> None:
    path = shared(tmp_path, VERSION, tree, objects.read)
    _wait_for_the_clock(path / "config.json")
    CHANGES[change](path)
    objects.asked.clear()
    assert shared(tmp_path, VERSION, tree, objects.read) == path
    assert objects.asked != []
    assert contents_of(path) == (FILES, FOLDERS)
    assert leftovers(tmp_path) == []
    objects.asked.clear()
    shared(tmp_path, VERSION, tree, objects.read)
    assert objects.asked == []


def test_i4_a_checkout_of_other_sizes_is_not_handed_out(tmp_path: Path, objects: Objects) -> None:
    shared(tmp_path, VERSION, tree_of({"a": b"1"}, objects), objects.read)
    path = shared(tmp_path, VERSION, tree_of({"a": b"22"}, objects), objects.read)
    assert contents_of(path)[0] == {"a": b"22"}


# --- failures -----------------------------------------------------------------------------------


def test_i4_a_damaged_file_is_not_handed_out(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    files = [TreeFile(f.path, f.size, "0" * 64, f.segments) for f in tree.files]
    with pytest.raises(DamagedFile):
        shared(tmp_path, VERSION, Tree(files), objects.read)
    assert not (tmp_path / "checkouts" / VERSION.hex).exists()
    assert leftovers(tmp_path) == []


def test_a_path_that_climbs_is_refused(tmp_path: Path, objects: Objects) -> None:
    tree = Tree([TreeFile("../../x", 0, objects.add(b""))])
    with pytest.raises(UnsafePath):
        shared(tmp_path / "cache", VERSION, tree, objects.read)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [(errno.ENOSPC, StorageFull), (errno.EROFS, StorageReadOnly), (errno.EIO, StorageFailed)],
)
@pytest.mark.parametrize("call", ["write", "mkdir", "rename"])
def test_a_failing_disk_leaves_nothing_half_made(
    tmp_path: Path,
    tree: Tree,
    objects: Objects,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    code: int,
    expected: type,
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / "checkouts").mkdir()
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(expected):
        shared(tmp_path, VERSION, tree, objects.read)
    monkeypatch.undo()
    assert not (tmp_path / "checkouts" / VERSION.hex).exists()
    assert leftovers(tmp_path) == []
    assert contents_of(shared(tmp_path, VERSION, tree, objects.read)) == (FILES, FOLDERS)


def test_it_works_without_locks(
    tmp_path: Path, tree: Tree, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert contents_of(shared(tmp_path, VERSION, tree, objects.read)) == (FILES, FOLDERS)


# --- others at the same time --------------------------------------------------------------------


@pytest.mark.parametrize("locks", [True, False])
def test_i6_many_threads_get_the_same_sound_checkout(
    tmp_path: Path, tree: Tree, objects: Objects, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    if not locks:
        monkeypatch.setattr(cached, "_alone", lambda lock: nullcontext(False))
    gate = threading.Barrier(8)

    def ask(n: int) -> Path:
        gate.wait()
        return shared(tmp_path, VERSION, tree, objects.read)

    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(ask, range(8)))
    assert paths == {tmp_path / "checkouts" / VERSION.hex / "files"}
    assert contents_of(paths.pop()) == (FILES, FOLDERS)
    assert leftovers(tmp_path) == []
    if locks:
        assert len(objects.asked) == sum(len(s.objects) for f in tree.files for s in f.segments)


def test_a_sound_checkout_of_another_process_stays(
    tmp_path: Path, tree: Tree, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(digest: str) -> bytes:
        # Once: objects are read by several threads.
        if turn.acquire(blocking=False):
            with monkeypatch.context() as patch:
                patch.setattr(cached, "_alone", lambda lock: nullcontext(False))
                theirs.append((shared(tmp_path, VERSION, tree, objects.read) / "empty").stat().st_ino)
        return objects.read(digest)

    turn = threading.Semaphore()
    theirs: list[int] = []
    path = shared(tmp_path, VERSION, tree, read)
    assert [(path / "empty").stat().st_ino] == theirs
    assert leftovers(tmp_path) == []


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from trees_by_hand import Objects, tree_of
from stemmata.checkouts import shared
from stemmata.ids import VersionId

objects = Objects()
tree = tree_of({"a": bytes(1000), "b": b"2"}, objects)
def read(digest):
    if len(objects.asked) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return objects.read(digest)
shared(Path(sys.argv[1]), VersionId.of(b"a version"), tree, read)
"""


def test_i5_a_killed_maker_holds_nobody_up(tmp_path: Path) -> None:
    here = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), here], check=False)
    assert done.returncode == -9
    assert not (tmp_path / "checkouts" / VERSION.hex).exists()
    objects = Objects()
    path = shared(tmp_path, VERSION, tree_of({"a": bytes(1000), "b": b"2"}, objects), objects.read)
    assert contents_of(path)[0] == {"a": bytes(1000), "b": b"2"}
    assert leftovers(tmp_path) == []


def test_what_killed_makers_left_goes_after_a_while(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    place = tmp_path / "checkouts"
    dead, alive, young = (place / f".{VersionId.of(n.encode()).hex}.{'0' * 16}" for n in "abc")
    for left in (dead, alive, young):
        (left / "files").mkdir(parents=True)
        (left / "files" / "model.bin").write_bytes(b"x" * 100)
        if left is not young:
            for path in (left / "files" / "model.bin", left / "files", left):
                os.utime(path, (1, 1))
    with cached._alone(place / f".{VersionId.of(b'b').hex}.lock") as alone:
        assert alone
        shared(tmp_path, VERSION, tree, objects.read)
        assert sorted(leftovers(tmp_path)) == sorted([alive.name, young.name])
    shared(tmp_path, VersionId.of(b"another"), tree, objects.read)
    assert leftovers(tmp_path) == [young.name]


def test_what_is_moved_out_of_a_checkout_that_is_made_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process moves its files in place while this one looks at how old they are."""
    left = tmp_path / f".{VERSION.hex}.{'0' * 16}"
    (left / "files").mkdir(parents=True)
    (left / "files" / "model.bin").touch()
    for path in (left / "files" / "model.bin", left / "files", left):
        os.utime(path, (1, 1))
    real = Path.lstat

    def moved(path: Path) -> os.stat_result:
        if path.name == "model.bin":
            raise FileNotFoundError(2, "No such file or directory")
        return real(path)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Path, "lstat", moved)
        eviction.sweep(tmp_path)
    assert left.exists()
    eviction.sweep(tmp_path)
    assert not left.exists()


def test_a_process_that_was_forked_meanwhile_holds_nobody_up(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    read, write = os.pipe()
    with cached._alone(lock) as alone:
        assert alone
        child = os.fork()
        if child == 0:  # as a worker of a data loader, which lives as long as the training
            os.close(write)
            os.read(read, 1)
            os._exit(0)
    opened = os.open(lock, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(opened)
        os.write(write, b"1")
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)


def test_one_of_a_containers_image_is_replaced(
    tmp_path: Path, tree: Tree, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a folder of a layer below cannot be renamed, and all marks are new."""
    home = shared(tmp_path, VERSION, tree, objects.read).parent
    (home / "files" / "config.json").unlink()
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if path == home:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    assert contents_of(shared(tmp_path, VERSION, tree, objects.read)) == (FILES, FOLDERS)
    assert leftovers(tmp_path) == []
    assert eviction.remove_all(tmp_path / "checkouts", {VERSION.hex}) == 1
    assert not home.exists()


def test_one_that_makes_way_in_just_that_moment_is_replaced(
    tmp_path: Path, tree: Tree, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = shared(tmp_path, VERSION, tree, objects.read).parent
    (home / "files" / "config.json").unlink()
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        try:
            return real(path, target)
        except OSError:
            shutil.rmtree(home)  # by another process, after it stood in the way
            raise

    monkeypatch.setattr(Path, "rename", rename)
    assert contents_of(shared(tmp_path, VERSION, tree, objects.read)) == (FILES, FOLDERS)


# --- without weights --------------------------------------------------------------------------------


LIGHT = {path: data for path, data in FILES.items() if not path.endswith(".bin")}


def test_without_weights_it_is_the_same_folder_that_lacks_them(
    tmp_path: Path, tree: Tree, objects: Objects
) -> None:
    light = shared(tmp_path, VERSION, tree, objects.read, weights=False)
    assert contents_of(light) == (LIGHT, ["hollow", "sub/hollow"])
    assert cached.find(tmp_path, VERSION, tree) is None
    objects.asked.clear()
    assert shared(tmp_path, VERSION, tree, objects.read, weights=False) == light
    assert objects.asked == []
    inode = (light / "config.json").stat().st_ino
    assert shared(tmp_path, VERSION, tree, objects.read) == light
    assert contents_of(light) == (FILES, FOLDERS)
    assert (light / "config.json").stat().st_ino == inode, "who read it reads on"
    assert cached.find(tmp_path, VERSION, tree) == light
    objects.asked.clear()
    assert shared(tmp_path, VERSION, tree, objects.read, weights=False) == light
    assert objects.asked == []
    assert leftovers(tmp_path) == []


def test_i4_what_is_changed_while_the_weights_are_added_is_seen(
    tmp_path: Path, tree: Tree, objects: Objects
) -> None:
    light = shared(tmp_path, VERSION, tree, objects.read, weights=False)

    def read(*asked: Any) -> Any:
        (light / "config.json").unlink(missing_ok=True)
        (light / "config.json").write_bytes(b"[]")
        return objects.read(*asked)

    assert contents_of(shared(tmp_path, VERSION, tree, read)) == (FILES, FOLDERS)
    assert cached.find(tmp_path, VERSION, tree) == light


def test_one_that_was_killed_while_it_was_completed_is_made_anew(
    tmp_path: Path, tree: Tree, objects: Objects
) -> None:
    light = shared(tmp_path, VERSION, tree, objects.read, weights=False)
    (light / "sub/model.bin").write_bytes(b"half of it")
    assert contents_of(shared(tmp_path, VERSION, tree, objects.read)) == (FILES, FOLDERS)
    assert cached.find(tmp_path, VERSION, tree) == light


@pytest.mark.parametrize("step", ["_fill", "_note"])
def test_one_that_is_evicted_while_it_is_completed_is_made_anew(
    tmp_path: Path, tree: Tree, objects: Objects, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """By another process, after the weights took longer than a checkout counts as just used."""
    light = shared(tmp_path, VERSION, tree, objects.read, weights=False)
    real = getattr(cached, step)
    evicted: list[Path] = []

    def evicting(*args: Any) -> None:
        real(*args)
        if not evicted:
            evicted.append(light.parent.rename(tmp_path / "gone"))

    monkeypatch.setattr(cached, step, evicting)
    assert contents_of(shared(tmp_path, VERSION, tree, objects.read)) == (FILES, FOLDERS)
    assert evicted
    assert cached.find(tmp_path, VERSION, tree) == light
    assert leftovers(tmp_path) == []


def test_one_counts_as_used_when_its_weights_are_moved_in(
    tmp_path: Path, tree: Tree, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    light = shared(tmp_path, VERSION, tree, objects.read, weights=False)
    fill, note = cached._fill, cached._note
    ages: list[float] = []

    def slow(*args: Any) -> None:
        fill(*args)
        os.utime(light.parent, (0, 0))

    def looked_at(*args: Any) -> None:
        ages.append(time.time() - light.parent.stat().st_mtime)
        note(*args)

    monkeypatch.setattr(cached, "_fill", slow)
    monkeypatch.setattr(cached, "_note", looked_at)
    shared(tmp_path, VERSION, tree, objects.read)
    assert len(ages) == 1
    assert ages[0] < eviction.RECENT


def test_damage_in_the_weights_leaves_the_rest(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    light = shared(tmp_path, VERSION, tree, objects.read, weights=False)
    digest = next(f for f in tree.files if f.path == "sub/model.bin").segments[0].objects[0]
    objects.kept[digest] = bytes(len(objects.kept[digest]))
    with pytest.raises(DamagedFile):
        shared(tmp_path, VERSION, tree, objects.read)
    assert contents_of(light) == (LIGHT, FOLDERS)
    assert shared(tmp_path, VERSION, tree, objects.read, weights=False) == light
    assert leftovers(tmp_path) == []
