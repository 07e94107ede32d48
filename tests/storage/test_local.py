"""A folder meets the contract, whatever its file system can do, and says what went wrong."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from stemmata.errors import (
    KeyExists,
    KeyMissing,
    OutcomeUnknown,
    PutIfAbsentUnsupported,
    QuotaReached,
    StorageFailed,
    StorageFull,
    StorageReadOnly,
)
from stemmata.storage import descriptors, local, publish
from stemmata.storage.base import Storage
from stemmata.storage.layered import LayeredStorage
from stemmata.storage.local import LocalStorage
from stemmata.storage.memory import MemoryStorage
from stemmata.storage.mounts import Mount
from stemmata.storage.readonly import ReadOnlyStorage
from storage_contract import StorageContract
from users import ordinary_user


def _fail(code: int) -> Callable[..., None]:
    def call(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    return call


def _temps(root: Path) -> list[str]:
    return os.listdir(root / "tmp")


class TestLocal(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return LocalStorage(tmp_path / "r")


class TestLocalWithoutHardLinks(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
        monkeypatch.setattr(os, "link", _fail(errno.EPERM))
        return LocalStorage(tmp_path / "r")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "r"


@pytest.fixture
def store(root: Path) -> LocalStorage:
    return LocalStorage(root)


def test_reading_makes_no_folder(root: Path, store: LocalStorage) -> None:
    assert list(store.list("")) == []
    assert list(store.list("log/")) == []
    with pytest.raises(KeyMissing):
        store.get("stemmata.json")
    with pytest.raises(KeyMissing):
        store.size("stemmata.json")
    store.delete("stemmata.json")
    assert not root.exists()


def test_a_storage_opened_by_a_relative_path_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = LocalStorage("r")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.put_new("a", b"1")
    assert (tmp_path / "r" / "a").read_bytes() == b"1"


def test_temporary_and_cached_files_are_no_keys(root: Path, store: LocalStorage) -> None:
    new = store.start_new("a")
    new.write(b"half")
    (root / "cache").mkdir()
    (root / "cache" / "x").write_bytes(b"")
    (root / "Notes about this.txt").write_bytes(b"")
    os.mkfifo(root / "pipe")
    assert list(store.list("")) == []
    new.abort()
    assert store.cache_folder == root / "cache"


def test_no_temporary_file_is_left_behind(root: Path, store: LocalStorage) -> None:
    store.put_new("a", b"1")
    for _ in range(2):
        with pytest.raises(KeyExists):
            store.put_new("a", b"2")
    new = store.start_new("a")
    new.write(b"3")
    with pytest.raises(KeyExists):
        new.commit()
    store.start_new("b").abort()
    assert _temps(root) == []


@pytest.mark.parametrize("umask", [0o002, 0o077])
def test_the_umask_decides_who_may_read(root: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        LocalStorage(root).put_new("packs/aa/x", b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / "packs/aa/x").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((root / "packs/aa").stat().st_mode) == 0o777 & ~umask


# --- durability ---------------------------------------------------------------------------------


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is synced and named, in order."""
    seen: list[tuple[str, str]] = []
    sync_file, sync_folder, link = local.sync_file, local.sync_folder, publish.link

    def file(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if os.path.isfile(path):
            seen.append(("file", os.path.basename(os.path.dirname(path))))
        sync_file(fd)

    def folder(path: Path) -> None:
        seen.append(("folder", path.name))
        sync_folder(path)

    def name(source: Path, target: Path) -> None:
        link(source, target)
        seen.append(("name", target.name))

    monkeypatch.setattr(local, "sync_file", file)
    monkeypatch.setattr(local, "sync_folder", folder)
    monkeypatch.setattr(publish, "link", name)
    return seen


def test_i1_bytes_then_name_then_folder_are_synced(
    store: LocalStorage, events: list[tuple[str, str]]
) -> None:
    store.put_new("log/0", b"")
    events.clear()
    store.put_new("log/1", b"x")
    assert events == [("file", "tmp"), ("name", "1"), ("folder", "log")]


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has a call of its own for it")
def test_i1_syncing_asks_the_system(root: Path, store: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        asked.append(os.path.basename(os.path.dirname(path := os.readlink(f"/proc/self/fd/{fd}"))))
        if os.path.isdir(path):
            asked[-1] = os.path.basename(path) + "/"
        real(fd)

    store.put_new("log/0", b"")
    monkeypatch.setattr(os, "fsync", fsync)
    store.put_new("log/1", b"x")
    assert asked == ["tmp", "log/"]


def test_i1_every_new_folder_is_synced_in_its_parent_before_the_name(
    store: LocalStorage, events: list[tuple[str, str]]
) -> None:
    store.put_new("packs/aa/x", b"")
    named = events.index(("name", "x"))
    assert {("folder", "packs"), ("folder", "r"), ("folder", store.root.parent.name)} <= set(events[:named])
    assert events[named + 1 :] == [("folder", "aa")]


def test_i1_folders_that_another_process_made_are_synced_as_well(
    root: Path, store: LocalStorage, events: list[tuple[str, str]]
) -> None:
    (root / "packs" / "aa").mkdir(parents=True)
    store.put_new("packs/aa/x", b"")
    named = events.index(("name", "x"))
    assert {("folder", "packs"), ("folder", "r")} <= set(events[:named])


def test_a_folder_that_was_tidied_away_is_made_again(root: Path, store: LocalStorage) -> None:
    store.put_new("packs/aa/x", b"1")
    store.delete("packs/aa/x")
    shutil.rmtree(root / "packs")
    shutil.rmtree(root / "tmp")
    store.put_new("packs/aa/x", b"2")
    assert store.get("packs/aa/x") == b"2"


def test_a_file_system_that_syncs_no_folders_is_no_failure(
    store: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = descriptors.sync_file

    def sync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "no")
        whole(fd)

    monkeypatch.setattr(descriptors, "sync_file", sync)
    store.put_new("a", b"1")
    assert store.get("a") == b"1"


def test_a_name_whose_folder_cannot_be_synced_is_unknown(
    store: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_new("log/0", b"")
    monkeypatch.setattr(local, "sync_folder", _fail(errno.EIO))
    with pytest.raises(OutcomeUnknown) as failure:
        store.put_new("log/1", b"x")
    assert failure.value.data["key"] == "log/1"
    assert store.get("log/1") == b"x"


# --- means of put-if-absent ---------------------------------------------------------------------


def test_hard_links_are_preferred(store: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "rename_new", _fail(errno.EIO))
    store.put_new("a", b"1")
    assert store.get("a") == b"1"


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK])
def test_without_links_and_without_a_refusing_rename_nothing_is_written(
    root: Path, store: LocalStorage, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "link", _fail(code))
    monkeypatch.setattr(publish, "rename_new", _fail(code))
    for use in (store.require_writable, lambda: store.put_new("a", b"1"), lambda: store.start_new("a")):
        with pytest.raises(PutIfAbsentUnsupported):
            use()
    assert list(store.list("")) == []
    assert _temps(root) == []


def test_a_rename_that_replaces_is_found_out(store: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _fail(errno.EPERM))
    monkeypatch.setattr(publish, "rename_new", os.replace)
    with pytest.raises(PutIfAbsentUnsupported):
        store.require_writable()


def test_a_link_that_replaces_is_found_out(store: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "link", shutil.copyfile)
    store.require_writable()
    assert store._means is publish.Means.RENAME


def test_a_refusal_that_damages_is_found_out(store: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaging(source: Path, target: Path) -> None:
        existed = target.exists()
        shutil.copyfile(source, target)
        if existed:
            raise FileExistsError(errno.EEXIST, "there")

    monkeypatch.setattr(publish, "link", damaging)
    monkeypatch.setattr(publish, "rename_new", damaging)
    with pytest.raises(PutIfAbsentUnsupported):
        store.require_writable()


def test_a_link_whose_answer_was_lost_is_recognised(
    store: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.require_writable()
    link = os.link

    def lossy(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)  # the repetition of a client that saw no answer

    monkeypatch.setattr(os, "link", lossy)
    store.put_new("a", b"1")
    assert store.get("a") == b"1"


def test_rename_new_refuses_to_replace(tmp_path: Path) -> None:
    first, second, free = (tmp_path / n for n in ("first", "second", "free"))
    first.write_bytes(b"1")
    second.write_bytes(b"2")
    with pytest.raises(FileExistsError):
        publish.rename_new(first, second)
    assert (first.read_bytes(), second.read_bytes()) == (b"1", b"2")
    publish.rename_new(first, free)
    assert not first.exists()
    assert free.read_bytes() == b"1"
    with pytest.raises(FileNotFoundError):
        publish.rename_new(first, tmp_path / "gone")


def test_a_system_without_such_a_rename_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_native_rename", lambda: None)
    with pytest.raises(OSError, match=r"(?i)not implemented"):
        publish.rename_new(tmp_path / "a", tmp_path / "b")


# --- failures -----------------------------------------------------------------------------------

FAILURES = [
    (errno.ENOSPC, StorageFull),
    (errno.EDQUOT, QuotaReached),
    (errno.EROFS, StorageReadOnly),
    (errno.EACCES, StorageReadOnly),
    (errno.EPERM, StorageReadOnly),
    (errno.EIO, StorageFailed),
    (errno.ENODEV, StorageFailed),
]


@pytest.mark.parametrize(("code", "expected"), FAILURES)
@pytest.mark.parametrize("call", ["write", "fsync", "link"])
def test_i5_a_failed_write_is_named_and_leaves_nothing(
    root: Path, store: LocalStorage, monkeypatch: pytest.MonkeyPatch, call: str, code: int, expected: type
) -> None:
    store.require_writable()
    monkeypatch.setattr(os, call, _fail(code))
    with pytest.raises(expected) as failure:
        store.put_new("a", b"1")
    assert type(failure.value) is expected
    assert str(root) in str(failure.value)
    monkeypatch.undo()
    assert list(store.list("")) == []
    assert _temps(root) == []
    store.put_new("a", b"2")
    assert store.get("a") == b"2"


def test_a_folder_of_it_on_another_disk_is_named(
    store: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.require_writable()
    monkeypatch.setattr(os, "link", _fail(errno.EXDEV))
    with pytest.raises(StorageFailed, match="its folders lie on several disks"):
        store.put_new("a", b"1")


@pytest.mark.parametrize(("code", "expected"), FAILURES)
def test_a_folder_that_takes_no_file_is_named(
    store: LocalStorage, monkeypatch: pytest.MonkeyPatch, code: int, expected: type
) -> None:
    store.require_writable()
    opening = os.open

    def refuse(path: Path, flags: int, *rest: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(code, os.strerror(code))
        return opening(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(expected):
        store.put_new("a", b"1")
    with pytest.raises(expected):
        store.start_new("a")


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_read_only_folder_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    LocalStorage(tmp_path).put_new("a", b"1")
    monkeypatch.setattr(Path, "write_bytes", _fail(code))
    store = LocalStorage(tmp_path)
    with pytest.raises(StorageReadOnly):
        store.require_writable()
    assert store.get("a") == b"1"


def test_a_folder_that_became_read_only_is_noticed(
    store: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.require_writable()
    monkeypatch.setattr(Path, "write_bytes", _fail(errno.EROFS))
    with pytest.raises(StorageReadOnly):
        store.require_writable()


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_place_where_no_folder_can_be_made_is_named(
    store: LocalStorage, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(Path, "mkdir", _fail(code))
    with pytest.raises(StorageReadOnly):
        store.require_writable()


def test_a_root_below_a_folder_that_cannot_be_read_can_be_written(
    root: Path, store: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = local.sync_folder

    def closed(folder: Path) -> None:
        if folder == root.parent:
            raise PermissionError(errno.EACCES, "closed")
        sync(folder)

    monkeypatch.setattr(local, "sync_folder", closed)
    store.put_new("a", b"1")
    assert store.get("a") == b"1"


def test_real_permissions_are_met() -> None:
    # Not pytest's tmp_path: that is its owner's alone.
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        LocalStorage(root).put_new("a", b"1")
        (root / "tmp").chmod(0o555)
        with ordinary_user(), pytest.raises(StorageReadOnly):
            LocalStorage(root).put_new("b", b"1")
        (root / "tmp").chmod(0o755)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_device_is_met(store: LocalStorage) -> None:
    new = store.start_new("a")
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), new._fd)  # type: ignore[attr-defined]
    with pytest.raises(StorageFull):
        new.write(b"1")
    with pytest.raises(StorageFailed, match="earlier write failed"):
        new.commit()
    assert list(store.list("")) == []


def test_short_writes_are_continued(store: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data[:3])))
    store.put_new("a", b"0123456789")
    assert store.get("a") == b"0123456789"


def test_short_reads_are_continued(store: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put_new("a", b"0123456789")
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: pread(fd, min(n, 3), at))
    assert store.get("a", 1, 8) == b"12345678"


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_failed_reads_are_named(store: LocalStorage, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    store.put_new("a", b"1")
    monkeypatch.setattr(os, "pread", _fail(code))
    with pytest.raises(StorageFailed):
        store.get("a")
    monkeypatch.undo()
    monkeypatch.setattr(os, "open", _fail(code))
    with pytest.raises(StorageFailed):
        store.get("a")
    monkeypatch.setattr(os, "scandir", _fail(code))
    with pytest.raises(StorageFailed):
        list(store.list(""))


def test_a_failed_delete_is_named(store: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put_new("a", b"1")
    monkeypatch.setattr(Path, "unlink", _fail(errno.EROFS))
    with pytest.raises(StorageReadOnly):
        store.delete("a")
    assert store.get("a") == b"1"


def test_what_is_no_file_is_neither_read_nor_waited_for(root: Path, store: LocalStorage) -> None:
    store.require_writable()
    os.mkfifo(root / "pipe")
    (root / "folder").mkdir()
    for key in ("pipe", "folder"):
        with pytest.raises(StorageFailed, match="no ordinary file"):
            store.get(key)
        with pytest.raises(KeyExists):
            store.put_new(key, b"1")


def test_a_naming_call_that_fails_after_another_won_is_a_lost_race(
    store: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = store.start_new("a")
    new.write(b"mine")
    store.put_new("a", b"theirs")
    monkeypatch.setattr(os, "link", _fail(errno.EIO))
    with pytest.raises(KeyExists):
        new.commit()


def test_a_naming_call_that_cannot_be_looked_into_is_unknown(
    root: Path, store: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = store.start_new("a")

    def vanish(source: Path, target: Path) -> None:
        os.unlink(source)
        raise OSError(errno.ESTALE, "stale")

    monkeypatch.setattr(os, "link", vanish)
    with pytest.raises(OutcomeUnknown):
        new.commit()


# --- processes ----------------------------------------------------------------------------------

RACER = """
import sys
from stemmata.errors import KeyExists
from stemmata.storage.layered import LayeredStorage
from stemmata.storage.local import LocalStorage
from stemmata.storage.memory import MemoryStorage
from stemmata.storage.mounts import Mount
from stemmata.storage.readonly import ReadOnlyStorage

root, me = sys.argv[1:]
store = LocalStorage(root)
store.require_writable()
print("ready", flush=True)
sys.stdin.readline()
won = []
for i in range(200):
    try:
        store.put_new(f"log/{i:03}", f"{me} {i}".encode())
        won.append(i)
    except KeyExists:
        pass
print(*won)
"""


def test_i6_two_processes_share_the_keys_without_loss(root: Path, store: LocalStorage) -> None:
    command = [sys.executable, "-c", RACER, str(root)]
    racers = [
        subprocess.Popen([*command, me], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for me in ("one", "two")
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    answers = {}
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for me, racer in zip(("one", "two"), racers, strict=True):
        answers[me] = {int(i) for i in racer.communicate(timeout=60)[0].split()}
        assert racer.returncode == 0
    assert answers["one"] | answers["two"] == set(range(200))
    assert not answers["one"] & answers["two"]
    for me, won in answers.items():
        assert all(store.get(f"log/{i:03}") == f"{me} {i}".encode() for i in won)
    assert _temps(root) == []


@pytest.mark.parametrize(
    ("kind", "pieces"), [("ext4", True), ("", True), ("nfs4", False), ("fuse.s3fs", False)]
)
def test_pieces_are_read_of_files_at_hand(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: str, pieces: bool
) -> None:
    monkeypatch.setattr(local, "mount_of", lambda _: Mount(kind, ()))
    store = LocalStorage(root)
    assert store.reads_pieces is pieces
    assert ReadOnlyStorage(store, "a reason").reads_pieces is pieces
    assert LayeredStorage(MemoryStorage(), store, lambda _: False).reads_pieces is pieces
