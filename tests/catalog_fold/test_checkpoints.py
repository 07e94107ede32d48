"""A catalog out of a checkpoint says what the fold of the log says, whatever lies in its place (I8)."""

from __future__ import annotations

import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings

from campaigns import cases
from checkpointed import Counting, folded, forged, grown, opened, restored, said, sealed, written
from faults import Damage, contents, damage, damaged, replace
from ledger import Ledger, add_pack
from random_ops import SETUP, logs
from stemmata.catalog import checkpoints, restoring
from stemmata.catalog.catalog import FILE, Catalog
from stemmata.catalog.checkpoints import CheckpointName, find_checkpoints, image_of
from stemmata.catalog.schema import VERSION
from stemmata.errors import DamagedCheckpoint, DamagedLog
from stemmata.log import ops
from stemmata.log.bundles import BundleName, encode_bundle, find_bundles
from stemmata.log.entries import log_key
from stemmata.storage import publish
from stemmata.storage.local import LocalStorage


@pytest.fixture(scope="module")
def made() -> Ledger:
    made = grown(Ledger(), 8)
    written(made)
    return grown(made, 2)


@pytest.fixture
def ledger(made: Ledger) -> Ledger:
    """Ten entries, a checkpoint of the first eight."""
    copied = Ledger.__new__(Ledger)
    copied.storage, copied.identity, copied.here = Counting(), made.identity, made.here
    for key, data in contents(made.storage).items():
        copied.storage.put_new(key, data)
    return copied


def require_passed_over(ledger: Ledger, folder: Path) -> None:
    """The log is folded, and says what it says."""
    assert restored(ledger.storage, ledger.identity, folder / FILE) is None  # type: ignore[arg-type]
    catalog = opened(ledger.storage, ledger.identity, folder / FILE)
    assert catalog.position == ledger.here
    assert said(catalog) == folded(ledger.storage, ledger.identity)


@settings(max_examples=cases(15, 300))
@given(logs, logs, logs)
def test_i8_a_catalog_from_a_checkpoint_is_that_of_the_log(
    first: list[list[ops.Op]], second: list[list[ops.Op]], third: list[list[ops.Op]]
) -> None:
    ledger = Ledger(storage := Counting())
    with tempfile.TemporaryDirectory() as folder:
        for part in ([*SETUP, *first], second):
            for changes in part:
                ledger.append(*changes)
            # The second is made of the first one and of what came behind it.
            written(ledger)
        for changes in third:
            ledger.append(*changes)
        file = Path(folder) / FILE
        assert restored(storage, ledger.identity, file) == folded(storage, ledger.identity)


def test_a_checkpoint_is_read_instead_of_its_part_of_the_log(ledger: Ledger, tmp_path: Path) -> None:
    storage = ledger.storage
    assert isinstance(storage, Counting)
    assert restored(storage, ledger.identity, tmp_path / FILE) == folded(storage, ledger.identity)
    opened(storage, ledger.identity, tmp_path / FILE).close()
    storage.read.clear()
    opened(storage, ledger.identity, tmp_path / FILE).close()
    # Of its part the last entry alone; it is asked for before the bytes, and when the catalog is used.
    assert {key for key in storage.read if key.startswith("log/")} == {log_key(n) for n in (8, 9, 10, 11)}


def test_a_catalog_that_is_there_is_kept(ledger: Ledger, tmp_path: Path) -> None:
    file = tmp_path / FILE
    opened(ledger.storage, ledger.identity, file).close()
    before = file.stat().st_ino
    restoring.restore(ledger.storage, ledger.identity, file)
    assert file.stat().st_ino == before


@pytest.mark.parametrize("side", ["-wal", "-journal"])
def test_i8_beside_a_journal_of_another_file_the_log_is_folded(
    ledger: Ledger, tmp_path: Path, side: str
) -> None:
    (tmp_path / (FILE + side)).write_bytes(b"of another one")
    require_passed_over(ledger, tmp_path)


def test_the_newest_that_will_do_is_taken(ledger: Ledger, tmp_path: Path) -> None:
    storage = ledger.storage
    assert isinstance(storage, Counting)
    (older,) = find_checkpoints(storage)
    kept = contents(storage, "checkpoints/")
    newer = written(ledger)
    replace(storage, older.key, kept[older.key])
    damage(storage, newer.key, Damage.FLIP, 1000)
    storage.read.clear()
    assert said(opened(storage, ledger.identity, tmp_path / FILE)) == folded(storage, ledger.identity)
    assert storage.read[older.key]


# --- what is not as it was written ----------------------------------------------------------------


@pytest.mark.parametrize("how", [how for how in Damage if how is not Damage.GONE])
@pytest.mark.parametrize("at", [0, 8, 12, 16, 24, 32, 64, 70, 2000, -20, -33])
def test_i8_a_damaged_checkpoint_is_passed_over(ledger: Ledger, tmp_path: Path, how: Damage, at: int) -> None:
    (name,) = find_checkpoints(ledger.storage)
    good = ledger.storage.get(name.key)
    replace(ledger.storage, name.key, damaged(good, how, at))
    require_passed_over(ledger, tmp_path)


def test_i8_of_another_repository_with_as_many_entries(ledger: Ledger, tmp_path: Path) -> None:
    other = grown(Ledger(), 8)
    name = written(other)
    for key in contents(ledger.storage, "checkpoints/"):
        ledger.storage.delete(key)
    ledger.storage.put_new(name.key, other.storage.get(name.key))
    require_passed_over(ledger, tmp_path)


def test_i8_beyond_the_end_of_the_log(ledger: Ledger, tmp_path: Path) -> None:
    written(ledger)
    for n in (9, 10):
        ledger.storage.delete(log_key(n))
    require_restored_log(ledger, tmp_path, 8)


def require_restored_log(ledger: Ledger, tmp_path: Path, n: int) -> None:
    catalog = opened(ledger.storage, ledger.identity, tmp_path / FILE)
    assert catalog.position.n == n
    assert said(catalog) == folded(ledger.storage, ledger.identity)


def test_i8_of_another_history(ledger: Ledger, tmp_path: Path) -> None:
    """A backup was laid over it, and others went on."""
    for n in (8, 9, 10):
        ledger.storage.delete(log_key(n))
    again = Ledger(ledger.storage)
    again.here = Catalog(ledger.storage, ledger.identity, []).refresh()
    again.append(add_pack(99))
    again.append(add_pack(98))
    require_restored_log(again, tmp_path, 9)


@pytest.mark.parametrize("key", [
    f"checkpoints/{VERSION - 1}/{8:020d}-0123456789abcdef.checkpoint",
    f"checkpoints/{VERSION + 1}/{8:020d}-0123456789abcdef.checkpoint",
    f"checkpoints/{VERSION}/{9:020d}-0123456789abcdef.checkpoint",
    f"checkpoints/{VERSION}/8-0123456789abcdef.checkpoint",
    f"checkpoints/{VERSION}/{8:020d}.checkpoint",
    f"checkpoints/0{VERSION}/{8:020d}-0123456789abcdef.checkpoint",
])  # fmt: skip
def test_i8_under_another_key(ledger: Ledger, tmp_path: Path, key: str) -> None:
    (name,) = find_checkpoints(ledger.storage)
    ledger.storage.put_new(key, ledger.storage.get(name.key))
    ledger.storage.delete(name.key)
    require_passed_over(ledger, tmp_path)


def sql(*statements: str) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: [connection.execute(each) for each in statements]


@pytest.mark.parametrize(("change", "reason"), [
    (sql("CREATE TABLE more (x)"), "tables"),
    (sql("DROP INDEX versions_by_id"), "tables"),
    (sql("CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM versions; END"), "tables"),
    (sql("DROP VIEW refs", "CREATE VIEW refs AS SELECT 1"), "tables"),
    (sql("ALTER TABLE versions RENAME TO v", "CREATE VIEW versions AS SELECT * FROM v"), "tables"),
    (sql("ANALYZE"), "tables"),
    (sql("UPDATE meta SET value = '1' WHERE key = 'schema'"), "another repository"),
    (sql(f"UPDATE meta SET value = '{'0' * 32}' WHERE key = 'repository'"), "another repository"),
    (sql("DELETE FROM meta WHERE key = 'position'"), "the entry"),
    (sql("UPDATE meta SET value = 'x' WHERE key = 'position'"), "the entry"),
    (sql("UPDATE meta SET value = replace(value, '8 ', '7 ') WHERE key = 'position'"), "the entry"),
    (sql("UPDATE meta SET value = CAST(x'ff' AS TEXT) WHERE key = 'position'"), "SQLite"),
    (sql("INSERT INTO objects VALUES (x'00', x'00')"), "no log says"),
    (sql("INSERT INTO facts VALUES (1, 1, 1.0, NULL, 1, NULL)"), "no log says"),
    (sql("UPDATE packs SET remembered = 1"), "no log says"),
    (sql("UPDATE keys SET filled = 1"), "facts"),
])  # fmt: skip
def test_i8_a_sealed_checkpoint_of_another_shape_is_passed_over(
    ledger: Ledger, tmp_path: Path, change: Callable[[sqlite3.Connection], object], reason: str
) -> None:
    name = forged(ledger.storage, tmp_path, change)
    with pytest.raises(DamagedCheckpoint, match=reason):
        restoring.unpacked(ledger.storage, ledger.identity, name, tmp_path)
    require_passed_over(ledger, tmp_path)


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 9000])
def test_i8_a_sealed_checkpoint_of_anything_is_passed_over(
    ledger: Ledger, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "other").write_bytes(content)
    ledger.storage.delete(find_checkpoints(ledger.storage)[0].key)
    sealed(ledger.storage, tmp_path / "other", 8)
    require_passed_over(ledger, tmp_path)


def test_i8_pages_that_make_no_sense_are_noticed_when_they_are_met(ledger: Ledger, tmp_path: Path) -> None:
    (name,) = find_checkpoints(ledger.storage)
    image = bytearray(b"".join(image_of(ledger.storage, name)))
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(bytes(image))
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'versions'").fetchone()
    image[(root - 1) * 4096 : root * 4096] = b"\xff" * 4096
    (tmp_path / "other").write_bytes(image)
    ledger.storage.delete(name.key)
    sealed(ledger.storage, tmp_path / "other", 8)
    catalog = opened(ledger.storage, ledger.identity, tmp_path / FILE)
    # Folded anew by who met it, and not made of the same checkpoint again.
    assert said(catalog) == folded(ledger.storage, ledger.identity)


def test_a_checkpoint_cannot_fill_the_disk(ledger: Ledger, tmp_path: Path) -> None:
    (name,) = find_checkpoints(ledger.storage)
    good = ledger.storage.get(name.key)
    claims = {
        "claims to hold more": good[:24] + struct.pack("<Q", 1 << 40) + good[32:-32],
        "as much as it states": good[:24] + struct.pack("<Q", 5000) + good[32:-32],
        "larger than any may be": good[:64] + struct.pack("<I", 5 << 20) + good[68:-32],
        "its header": b"STMCHKP2" + good[8:-32],
    }
    for reason, data in claims.items():
        replace(ledger.storage, name.key, data + blake3(data).digest())
        with pytest.raises(DamagedCheckpoint, match=reason):
            list(image_of(ledger.storage, name))


# --- holes ----------------------------------------------------------------------------------------


def test_a_hole_behind_a_checkpoint_is_no_end(ledger: Ledger, tmp_path: Path) -> None:
    grown(ledger, 2)
    ledger.storage.delete(log_key(10))
    for _ in range(2):
        with pytest.raises(DamagedLog, match="entry 10"):
            opened(ledger.storage, ledger.identity, tmp_path / FILE)
    # Nor for who finds the catalog that was made then.
    catalog = Catalog(ledger.storage, ledger.identity, [tmp_path / FILE])
    with closing(catalog), pytest.raises(DamagedLog, match="entry 10"):
        catalog.refresh()


def test_a_bundle_that_goes_further_shows_a_hole_too(ledger: Ledger, tmp_path: Path) -> None:
    grown(ledger, 248)
    data = encode_bundle(1, (ledger.storage.get(log_key(n)) for n in range(1, 257)))
    ledger.storage.put_new(BundleName.fresh(256, 1).key, data)
    assert find_bundles(ledger.storage)
    for n in range(9, 259):
        ledger.storage.delete(log_key(n))
    with pytest.raises(DamagedLog, match="entry 9"):
        opened(ledger.storage, ledger.identity, tmp_path / FILE)


# --- places ---------------------------------------------------------------------------------------


class Shelf:
    """A log in a folder, with a checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.storage = LocalStorage(folder / "repo")
        self.ledger = grown(Ledger(self.storage), 5)
        self.name: CheckpointName = written(self.ledger)

    def catalog(self) -> Catalog:
        catalog = Catalog.open(self.storage, self.ledger.identity)
        catalog.refresh()
        return catalog


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setenv("STEMMATA_CACHE", str(tmp_path / "user"))
    return Shelf(tmp_path)


def came_from_it(catalog: Catalog) -> bool:
    """Facts are left to be made by who opens from a checkpoint; the fold of a short log makes them."""
    with closing(catalog):
        return catalog.connection.execute("SELECT COUNT(*) FROM facts").fetchone() == (0,)


def test_a_repository_is_opened_from_it_and_nothing_is_left_behind(shelf: Shelf) -> None:
    assert came_from_it(shelf.catalog())
    shutil.rmtree(shelf.storage.root / "cache")
    assert came_from_it(shelf.catalog())
    assert [path.name for path in (shelf.storage.root / "cache").iterdir()] == [FILE]


def test_what_a_dead_process_left_beside_it_goes_after_a_day(shelf: Shelf) -> None:
    import os

    cache = shelf.storage.root / "cache"
    for name, age in (("checkpoint-old", 100_000), ("checkpoint-new", 100)):
        (cache / name).mkdir(parents=True)
        (cache / name / "x.sqlite").write_bytes(b"x")
        seen = cache.stat().st_mtime - age
        os.utime(cache / name, (seen, seen))
    shelf.catalog().close()
    assert {path.name for path in cache.iterdir()} == {FILE, "checkpoint-new"}


def test_a_file_that_vanishes_under_an_open_catalog_comes_back_from_it(shelf: Shelf) -> None:
    catalog = shelf.catalog()
    shutil.rmtree(shelf.storage.root / "cache")
    catalog.refresh()
    assert came_from_it(catalog)


def test_where_the_repository_cannot_be_written_the_users_cache_serves(shelf: Shelf, tmp_path: Path) -> None:
    (shelf.storage.root / "cache").rmdir()
    (shelf.storage.root / "cache").write_text("in the way")
    catalog = shelf.catalog()
    assert catalog.file == tmp_path / "user" / shelf.ledger.identity.repository / FILE
    assert came_from_it(catalog)


def test_without_any_place_the_log_is_folded_into_memory(shelf: Shelf, tmp_path: Path) -> None:
    for place in (shelf.storage.root / "cache", tmp_path / "user"):
        shutil.rmtree(place, ignore_errors=True)
        place.write_text("in the way")
    catalog = shelf.catalog()
    assert catalog.file is None
    assert said(catalog) == folded(shelf.storage, shelf.ledger.identity)


@pytest.mark.parametrize("means", [publish.Means.LINK, publish.Means.RENAME, None])
def test_where_there_are_no_hard_links(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, means: publish.Means | None
) -> None:
    def probe(folder: Path) -> publish.Means:
        if means is None:
            raise publish.NoMeans
        return means

    monkeypatch.setattr(publish, "probe", probe)
    catalog = shelf.catalog()
    assert catalog.position == shelf.ledger.here
    assert came_from_it(catalog) is (means is not None)


def test_i6_many_open_it_at_once(shelf: Shelf) -> None:
    with ThreadPoolExecutor(6) as pool:
        catalogs = list(pool.map(lambda _: shelf.catalog(), range(6)))
    expected = folded(shelf.storage, shelf.ledger.identity)
    for catalog in catalogs:
        assert said(catalog) == expected


def test_i8_who_reads_up_to_damage_trusts_no_checkpoint(shelf: Shelf) -> None:
    from stemmata.repository import Repository

    with Repository(shelf.storage, up_to_damage=True) as repo:
        assert repo.session.catalog.connection.execute("SELECT COUNT(*) FROM facts").fetchone() != (0,)


def test_keys_of_checkpoints() -> None:
    name = CheckpointName.fresh(4096)
    assert CheckpointName.parse(name.key) == name
    assert CheckpointName.parse(name.key.replace("4096", "0000")) is None
    assert checkpoints.due_after(0) == 4096
    ends = [checkpoints.due_after(n) for n in (4096, 5000, 94208, 131072, 135168)]
    assert ends == [8192, 12288, 98304, 135168, 143360]
