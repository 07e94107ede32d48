"""The catalog follows the log, and is worth nothing without it (I8)."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from faults import Damage, damage, replace
from ledger import Ledger, add_pack, add_version, alias, every_row, pack, record, version_of
from stemmata.catalog import catalog as module
from stemmata.catalog import recent
from stemmata.catalog.catalog import FILE, Catalog, catalog_files, user_cache_folder
from stemmata.catalog.recent import kept_in
from stemmata.errors import DamagedLog, NewerFormat
from stemmata.ids import Digest, PackName
from stemmata.log import ops
from stemmata.log.bundles import write_due_bundles
from stemmata.log.entries import Entry, advance, encode_entry, log_key, read_entry, seal
from stemmata.log.identity import encode_identity
from stemmata.storage.local import LocalStorage
from stemmata.storage.memory import MemoryStorage


class World:
    """A log in a folder, and catalogs that are closed at the end."""

    def __init__(self, folder: Path) -> None:
        self.storage = LocalStorage(folder / "repo")
        self.ledger = Ledger(self.storage)
        self.opened: list[Catalog] = []
        self.ledger.append(add_pack(1), add_version(0, metrics={"loss": 1.0}))

    def open(self) -> Catalog:
        return self.keep(Catalog.open(self.storage, self.ledger.identity))

    def keep(self, catalog: Catalog) -> Catalog:
        self.opened.append(catalog)
        return catalog


V0 = version_of(record(0, metrics={"loss": 1.0}))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("STEMMATA_CACHE", str(tmp_path / "user"))
    made = World(tmp_path)
    yield made
    for catalog in made.opened:
        catalog.close()


def dump(catalog: Catalog) -> dict[str, list[tuple]]:  # type: ignore[type-arg]
    """Every row of every table, but for which file it is."""
    connection = catalog.connection
    rows = {name: sorted(found, key=repr) for name, found in every_row(connection).items()}
    return rows | {"meta": [row for row in rows["meta"] if row[0] != "inode"]}


def fresh(world: World) -> dict[str, list[tuple]]:  # type: ignore[type-arg]
    """What a catalog says that never saw a file."""
    with closing(Catalog(world.storage, world.ledger.identity, [])) as catalog:
        catalog.refresh()
        return dump(catalog)


def assert_true(world: World, catalog: Catalog) -> None:
    assert catalog.refresh() == world.ledger.here
    assert catalog.position == world.ledger.here
    assert dump(catalog) == fresh(world)


def grow(world: World, first: int, last: int) -> None:
    for n in range(first, last + 1):
        world.ledger.append(add_pack(n + 10), add_version(n))


def test_refresh_follows_the_log(world: World) -> None:
    catalog = world.open()
    assert catalog.position.n == 0
    assert_true(world, catalog)
    grow(world, 1, 3)
    assert_true(world, catalog)
    assert catalog.refresh() == world.ledger.here


def test_void_entries_are_remembered_with_their_reasons(world: World) -> None:
    world.ledger.append(add_pack(1))
    world.ledger.append_body(by=None)
    catalog = world.open()
    catalog.refresh()
    assert catalog.void_reason(1) is None
    assert catalog.void_reason(2) == f"op 1: pack {pack(1)} is already live"
    assert "no entry" in str(catalog.void_reason(3))


def test_a_second_catalog_reads_only_what_is_new(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(world, 1, 20)
    world.open().refresh()
    second = world.open()
    read: Counter[str] = Counter()
    get = LocalStorage.get

    def counted(self: LocalStorage, key: str, start: int = 0, length: int | None = None) -> bytes:
        read[key] += 1
        return get(self, key, start, length)

    monkeypatch.setattr(LocalStorage, "get", counted)
    second.refresh()
    assert set(read) == {log_key(world.ledger.here.n)}
    assert sum(read.values()) == 1


def test_i8_a_wiped_cache_changes_nothing(world: World) -> None:
    catalog = world.open()
    catalog.refresh()
    grow(world, 1, 2)
    shutil.rmtree(world.storage.root / "cache")
    assert_true(world, catalog)
    assert (world.storage.root / "cache" / FILE).exists()


def test_i8_a_stale_cache_changes_nothing(world: World, tmp_path: Path) -> None:
    first = world.open()
    first.refresh()
    first.close()
    file = world.storage.root / "cache" / FILE
    shutil.copy(file, tmp_path / "old")
    grow(world, 1, 3)
    second = world.open()
    second.refresh()
    second.close()
    shutil.copy(tmp_path / "old", file)
    assert_true(world, world.open())


def test_i8_a_catalog_ahead_of_the_log_is_folded_anew(world: World) -> None:
    grow(world, 1, 3)
    catalog = world.open()
    catalog.refresh()
    for n in (3, 4):
        replace(world.storage, log_key(n), None)
    assert catalog.refresh().n == 2
    assert dump(catalog) == fresh(world)


def test_i8_a_catalog_of_another_log_is_folded_anew(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other")
    grow(other, 1, 5)
    other.open().refresh()
    other.opened[0].close()
    (world.storage.root / "cache").mkdir()
    shutil.copy(other.storage.root / "cache" / FILE, world.storage.root / "cache" / FILE)
    assert_true(world, world.open())


def test_i8_a_catalog_whose_last_entry_differs_is_folded_anew(world: World) -> None:
    catalog = world.open()
    catalog.refresh()
    # The same repository after a backup, and another first entry.
    replace(world.storage, log_key(1), None)
    world.ledger.here = world.ledger.identity.genesis
    world.ledger.append(add_pack(1), add_version(5, name="other"))
    assert_true(world, catalog)


@pytest.mark.parametrize("key", ["schema", "repository", "position"])
@pytest.mark.parametrize("value", ["x", "7 zz ", None])
def test_i8_odd_words_in_a_catalog_are_not_believed(world: World, key: str, value: str | None) -> None:
    first = world.open()
    first.refresh()
    if value is None:
        first.connection.execute("DELETE FROM meta WHERE key = ?", (key,))
    else:
        first.connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
    first.connection.execute("DELETE FROM versions")
    first.close()
    assert_true(world, world.open())


def test_i8_a_missing_table_is_made_again(world: World) -> None:
    catalog = world.open()
    catalog.refresh()
    catalog.connection.execute("DROP TABLE versions")
    grow(world, 1, 1)
    assert_true(world, catalog)


@pytest.mark.parametrize("cut", [0, 10, 5000])
@pytest.mark.parametrize("fill", [b"", b"\x00", b"\xff"])
def test_i8_a_broken_file_is_thrown_away(world: World, cut: int, fill: bytes) -> None:
    first = world.open()
    first.refresh()
    first.close()
    file = world.storage.root / "cache" / FILE
    data = file.read_bytes()
    file.write_bytes(data[:cut] + fill * (len(data) - cut))
    catalog = world.open()
    grow(world, 1, 2)
    assert_true(world, catalog)
    assert catalog.file == file


def test_i8_a_file_that_breaks_under_a_query_is_mended(world: World) -> None:
    grow(world, 1, 60)
    world.open().refresh()
    world.opened[0].close()
    file = world.storage.root / "cache" / FILE
    catalog = world.open()
    connection = catalog.connection
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.seek(4096)
        opened.write(b"\xff" * (size - 4096))
    found = connection.execute("SELECT COUNT(*) FROM versions").fetchone()
    assert found == (61,)
    # The connection handed out before goes on answering.
    assert connection.execute("SELECT COUNT(*) FROM facts").fetchone() is not None
    assert_true(world, catalog)


def test_i8_without_a_folder_the_users_cache_serves(world: World, tmp_path: Path) -> None:
    (world.storage.root / "cache").write_text("in the way")
    catalog = world.open()
    assert_true(world, catalog)
    assert catalog.file == tmp_path / "user" / world.ledger.identity.repository / FILE


def test_i8_without_any_folder_memory_serves(world: World, tmp_path: Path) -> None:
    (world.storage.root / "cache").write_text("in the way")
    (tmp_path / "user").write_text("in the way")
    catalog = world.open()
    assert catalog.file is None
    assert_true(world, catalog)
    grow(world, 1, 2)
    assert_true(world, catalog)


def test_i8_a_file_that_cannot_be_written_is_left_alone(world: World) -> None:
    first = world.open()
    first.refresh()
    first.close()
    file = world.storage.root / "cache" / FILE
    grow(world, 1, 1)
    # Root may write to any file; a schema that says no is refused to everybody.
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("CREATE TRIGGER no BEFORE INSERT ON versions BEGIN SELECT RAISE(ABORT, 'no'); END")
    assert_true(world, world.open())


def test_i8_a_file_that_stays_locked_is_passed_over(world: World) -> None:
    world.open().refresh()
    world.opened[0].close()
    file = world.storage.root / "cache" / FILE
    grow(world, 1, 1)
    with closing(sqlite3.connect(file, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        catalog = world.keep(Catalog(world.storage, world.ledger.identity, [file], busy=0.05))
        assert_true(world, catalog)
        assert catalog.file is None
        holder.execute("ROLLBACK")


def test_i9_nothing_past_a_newer_entry_is_taken_in(world: World) -> None:
    catalog = world.open()
    before = world.ledger.here
    body = seal(msgspec.json.encode(world.ledger.body(format=2)))
    world.storage.put_new(log_key(2), body)
    for _ in range(2):
        with pytest.raises(NewerFormat):
            catalog.refresh()
        assert catalog.position == before


def test_i9_a_lifted_format_stops_the_catalog(world: World) -> None:
    catalog = world.open()
    before = world.ledger.here
    world.ledger.append(ops.FormatUpgrade(to=2))
    with pytest.raises(NewerFormat):
        catalog.refresh()
    assert catalog.position == before


@pytest.mark.parametrize("how", list(Damage))
def test_i4_a_damaged_entry_stops_the_catalog_there(world: World, how: Damage) -> None:
    grow(world, 1, 3)
    damage(world.storage, log_key(3), how, 77)
    catalog = world.open()
    for _ in range(2):
        with pytest.raises(DamagedLog):
            catalog.refresh()
        assert catalog.position.n in (0, 2)


def test_i4_damage_of_the_last_entry_is_noticed_by_a_warm_catalog(world: World) -> None:
    catalog = world.open()
    catalog.refresh()
    good = world.storage.get(log_key(1))
    damage(world.storage, log_key(1), Damage.FLIP, 50)
    with pytest.raises(DamagedLog):
        catalog.refresh()
    replace(world.storage, log_key(1), good)
    assert_true(world, catalog)


def test_a_long_log_is_folded_from_its_bundles(world: World) -> None:
    for n in range(2, 300):
        world.ledger.append(add_pack(n))
        write_due_bundles(world.storage, n)
    assert_true(world, world.open())


def test_a_preview_tells_and_changes_nothing(world: World) -> None:
    catalog = world.open()
    here = catalog.refresh()
    before = dump(catalog)

    def preview(*changes: ops.Op) -> str | None:
        data = encode_entry(here, changes, txn="a" * 32, at="2026-03-01T00:00:00.000000Z", by="")
        found = read_entry(here.n + 1, data, here)
        assert isinstance(found, Entry)
        return catalog.preview(here, advance(here, data, found), found)

    assert preview(alias("prod", V0)) is None
    assert preview(add_pack(2), add_pack(1)) == f"op 2: pack {pack(1)} is already live"
    with pytest.raises(NewerFormat):
        preview(ops.FormatUpgrade(to=2))
    assert dump(catalog) == before
    grow(world, 1, 1)
    catalog.refresh()
    # The catalog is elsewhere by now: the put will find out.
    assert preview(add_pack(1)) is None


def test_packs_and_what_they_hold(world: World) -> None:
    world.ledger.append(add_pack(2))
    catalog = world.open()
    catalog.refresh()
    one, two = PackName.parse(pack(1)), PackName.parse(pack(2))
    digest = Digest.of(b"x")
    assert catalog.unremembered_packs() == [one, two]
    for name in (one, two, two):
        catalog.remember_pack(name, [digest])
    assert sorted(catalog.packs_holding(digest)) == [one, two]
    assert catalog.packs_holding(Digest.of(b"y")) == []
    assert catalog.unremembered_packs() == []
    assert catalog.pack_is_live(two)
    world.ledger.append(ops.PackRetire(packs=[pack(2)]))
    catalog.refresh()
    assert catalog.packs_holding(digest) == [one]
    assert not catalog.pack_is_live(two)
    assert not catalog.pack_is_live(PackName.fresh())


def test_i8_what_packs_hold_may_be_forgotten(world: World) -> None:
    catalog = world.open()
    catalog.refresh()
    shutil.rmtree(world.storage.root / "cache")
    catalog.remember_pack(PackName.parse(pack(1)), [Digest.of(b"x")])
    assert_true(world, catalog)


def test_where_the_catalog_may_live(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = world.ledger.identity
    assert catalog_files(world.storage, identity) == [
        world.storage.root / "cache" / FILE,
        tmp_path / "user" / identity.repository / FILE,
    ]
    assert catalog_files(MemoryStorage(), identity) == []
    monkeypatch.delenv("STEMMATA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert user_cache_folder() == Path("/x/stemmata")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: Path("/h"))
    assert user_cache_folder() == Path("/h/.cache/stemmata")


def test_i6_threads_refresh_and_read_one_catalog(world: World) -> None:
    catalog = world.open()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            with catalog.lock:
                n = catalog.position.n
                versions = catalog.connection.execute("SELECT COUNT(*) FROM versions").fetchone()[0]
                assert versions == n
            catalog.refresh()

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        try:
            for n in range(1, 60):
                world.ledger.append(add_pack(n + 10), add_version(n))
                catalog.refresh()
        finally:
            done.set()
        for reader in readers:
            reader.result()
    assert_true(world, catalog)


REFRESH = """
import sys
from stemmata.catalog.catalog import Catalog
from stemmata.log.identity import read_identity
from stemmata.storage.local import LocalStorage
storage = LocalStorage(sys.argv[1])
catalog = Catalog.open(storage, read_identity(storage))
for _ in range(20):
    position = catalog.refresh()
versions = catalog.connection.execute("SELECT COUNT(*) FROM versions").fetchone()[0]
assert versions == position.n, (versions, position.n)
print(position.n, catalog.file is not None)
catalog.close()
"""


def test_i6_processes_share_one_file(world: World) -> None:
    grow(world, 1, 150)
    command = [sys.executable, "-c", REFRESH, str(world.storage.root)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(4)]
    grow(world, 151, 200)
    for process in running:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert output.split()[1] == "True"
    assert_true(world, world.open())


def test_a_mistake_of_ours_is_not_hidden_by_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise sqlite3.IntegrityError("a mistake")

    monkeypatch.setattr(module, "apply", broken)
    catalog = world.keep(Catalog(world.storage, world.ledger.identity, []))
    with pytest.raises(sqlite3.IntegrityError):
        catalog.refresh()


def kept(world: World) -> dict[int, bytes]:
    found = kept_in(world.storage.root / "cache" / FILE)
    assert found is not None
    assert (found.repository, found.position) == (world.ledger.identity.repository, world.ledger.here)
    created = encode_identity(found.repository, found.format, found.created)
    assert created == world.storage.get("stemmata.json")
    return found.entries


def test_the_last_entries_are_kept_as_they_are(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "MOST", 3)
    catalog = world.open()
    for n in range(1, 6):
        grow(world, n, n)
        catalog.refresh()
    assert kept(world) == {n: world.storage.get(log_key(n)) for n in (4, 5, 6)}


def test_an_entry_that_is_long_is_not_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(world, 1, 1)
    monkeypatch.setattr(recent, "_LARGEST", len(world.storage.get(log_key(2))) - 1)
    world.open().refresh()
    assert set(kept(world)) <= {1}


def test_what_is_kept_outlives_the_damage_of_the_last_entry(world: World) -> None:
    world.open().refresh()
    good = world.storage.get(log_key(1))
    damage(world.storage, log_key(1), Damage.CUT, 50)
    for _ in range(2):
        with pytest.raises(DamagedLog):
            world.open().refresh()
    assert kept(world) == {1: good}


@pytest.mark.parametrize("spoilt", [b"", b"no database", None])
def test_a_file_that_is_no_catalog_keeps_nothing(tmp_path: Path, spoilt: bytes | None) -> None:
    if spoilt is not None:
        (tmp_path / FILE).write_bytes(spoilt)
    assert kept_in(tmp_path / FILE) is None


@pytest.mark.parametrize("missing", [1, 2, 4])
def test_a_catalog_that_was_copied_hides_no_hole(world: World, tmp_path: Path, missing: int) -> None:
    grow(world, 1, 4)
    world.open().refresh()
    world.opened[0].close()
    # The hole is made in the copy: where the catalog was made, nobody looks for it again.
    shutil.copytree(world.storage.root, tmp_path / "copy")
    copy = LocalStorage(tmp_path / "copy")
    whole = copy.get(log_key(missing))
    replace(copy, log_key(missing), None)
    for _ in range(2):
        with closing(Catalog.open(copy, world.ledger.identity)) as catalog:
            with pytest.raises(DamagedLog, match="missing"):
                catalog.refresh()
            assert catalog.position.n >= missing
    copy.put_new(log_key(missing), whole)
    with closing(Catalog.open(copy, world.ledger.identity)) as catalog:
        assert catalog.refresh() == world.ledger.here


def test_what_comes_before_a_hole_stays_and_the_hole_is_not_forgotten(world: World) -> None:
    grow(world, 1, 5)
    data = {n: world.storage.get(log_key(n)) for n in (3, 5)}
    for n in data:
        replace(world.storage, log_key(n), None)
    for hole in (3, 3, 5):
        if hole == 5:
            world.storage.put_new(log_key(3), data[3])
        catalog = world.open()
        with pytest.raises(DamagedLog) as found:
            catalog.refresh()
        assert found.value.data["entry"] == hole
        assert catalog.position.n == hole - 1
    world.storage.put_new(log_key(5), data[5])
    assert_true(world, world.open())
