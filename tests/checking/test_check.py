"""What a check reports: which versions a damage reaches, what is only noted, what it leaves alone."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

import faults
from makers import model_folder
from stemmata.checking import LEVELS, Level, Report, check
from stemmata.errors import NewerFormat, RepositoryNotFound
from stemmata.ids import Digest, PackName
from stemmata.log.entries import log_key, seal
from stemmata.log.identity import create_identity
from stemmata.log.ops import VersionAnnotate, VersionDelete
from stemmata.objects import ObjectWriter
from stemmata.packs import PackReader
from stemmata.repository import Repository
from stemmata.storage.local import LocalStorage
from stemmata.storage.memory import MemoryStorage
from stored import Stored

TIME = "2027-01-01T00:00:00.000000Z"


def swapped(stored: Stored, key: str, data: bytes | None) -> Report:
    """A check of the repository with one key replaced, or taken away."""
    kept = {k: data if k == key else v for k, v in stored.kept.items()}
    return check(faults.memory_of({k: v for k, v in kept.items() if v is not None}))


def pack_holding(stored: Stored, version: str) -> str:
    """The key of the pack that only this version uses."""
    with Repository(faults.memory_of(stored.kept)) as repo:
        session = repo.session
        packs = {p for v in stored.files if v != version for p in session.packs(repo[f"id:{v}"]._row)}
        own = set(session.packs(repo[f"id:{version}"]._row)) - packs
    return min(own).key


def test_a_sound_repository_is_sound_and_counted(stored: Stored) -> None:
    report = check(faults.memory_of(stored.kept))
    assert report.sound
    assert report.problems == report.notes == report.affected == []
    counts = report.counts
    assert counts.versions == 3
    assert counts.files == sum(len(files) for files in stored.files.values())
    assert counts.entries == sum(k.startswith("log/") for k in stored.kept)
    assert counts.packs == sum(k.startswith("packs/") for k in stored.kept)
    assert counts.bytes == sum(len(v) for k, v in stored.kept.items() if k != "stemmata.json")


def test_packs_behind_a_hole_in_the_log_are_not_called_unused(stored: Stored) -> None:
    storage = faults.memory_of(stored.kept)
    storage.put_new(stranger := PackName.fresh().key, b"half a pack")
    assert [(note.kind, note.where) for note in check(storage).notes] == [("orphan", stranger)]
    storage.delete(log_key(2))
    packs = [key.key for key in storage.list("packs/")]
    notes = {note.where: note.kind for note in check(storage).notes}
    assert {notes.get(key) for key in packs} == {None, "unread"}
    assert sum(notes.get(key) == "unread" for key in packs) == len(packs) - 1


def test_the_pack_of_a_version_that_is_saved_meanwhile_is_not_called_unused(
    stored: Stored, tmp_path: Path
) -> None:
    storage = faults.memory_of(stored.kept)
    saved = []
    with Repository(storage) as repo:

        def save_once(_done: int, _total: int) -> None:
            if not saved:
                saved.append(repo.save(model_folder(tmp_path / "out", 7), "toy", provenance={}))

        report = check(storage, progress=save_once)
    assert saved
    assert report.sound
    assert report.notes == []


def test_every_object_of_every_pack_is_decoded(stored: Stored) -> None:
    storage = faults.memory_of(stored.kept)
    packs = [PackReader(storage, PackName.parse(k[-37:-5])) for k in stored.kept if k.startswith("packs/")]
    assert check(storage).counts.objects == sum(len(pack.index) for pack in packs) > 0


def test_only_the_versions_that_need_the_damaged_bytes_are_affected(stored: Stored) -> None:
    version = stored.names["toy@staging"]
    key = pack_holding(stored, version)
    report = swapped(stored, key, faults.damaged(stored.kept[key], faults.Damage.CUT, 40))
    assert [(a.id, a.model, a.name) for a in report.affected] == [(version, "toy", "r4/epoch-2")]
    assert {p.kind for p in report.problems} == {"pack", "tree"}
    assert "statistics" in {note.kind for note in report.notes}


def test_a_flipped_bit_of_a_tensor_names_the_object_and_the_file(stored: Stored) -> None:
    version = stored.names["toy@staging"]
    key = pack_holding(stored, version)
    with Repository(faults.memory_of(stored.kept)) as repo:
        entry = repo[f"id:{version}"].file("adapter_model.safetensors")
        pack = PackName.parse(key[-37:-5])
        tensor = Digest.parse(entry.segments[-1].objects[0])
        _, row = repo.session.reader.locate(tensor, [pack])
    bad = faults.damaged(stored.kept[key], faults.Damage.FLIP, row.offset + row.stored - 1)
    problems = swapped(stored, key, bad).problems
    assert {(p.kind, p.where, p.versions) for p in problems} == {
        ("pack", key, ()),
        ("file", f"adapter_model.safetensors of {version[:12]}", (version,)),
        ("object", f"object {tensor.short} in {key}", (version,)),
    }


def test_a_missing_pack_is_reported(stored: Stored) -> None:
    version = stored.names["toy@staging"]
    key = pack_holding(stored, version)
    report = swapped(stored, key, None)
    assert (report.problems[0].kind, report.problems[0].where) == ("pack", key)
    assert [a.id for a in report.affected] == [version]


def test_quick_names_all_users_of_a_damaged_pack(stored: Stored) -> None:
    version = stored.names["toy@staging"]
    key = pack_holding(stored, version)
    kept = {**stored.kept, key: faults.damaged(stored.kept[key], faults.Damage.FLIP, 100) or b""}
    report = check(faults.memory_of(kept), level="stored")
    assert report.level == "stored"
    assert [a.id for a in report.affected] == [version]


def test_a_lost_identity_does_not_keep_the_rest_from_being_checked(stored: Stored) -> None:
    report = swapped(stored, "stemmata.json", None)
    assert [(p.kind, p.where) for p in report.problems] == [("identity", "stemmata.json")]
    assert report.counts.versions == 3


def test_another_repositorys_identity_does_not_fit_the_log(stored: Stored) -> None:
    other = MemoryStorage()
    create_identity(other)
    report = swapped(stored, "stemmata.json", other.get("stemmata.json"))
    assert [(p.kind, p.where) for p in report.problems] == [("log", log_key(1))]


def test_a_hole_in_the_log_is_reported(stored: Stored) -> None:
    report = swapped(stored, log_key(5), None)
    assert [(p.kind, p.where) for p in report.problems] == [("log", log_key(5))]


def test_a_damaged_bundle_is_reported_and_harms_nothing(bundled: Stored) -> None:
    (key,) = (k for k in bundled.kept if k.startswith("bundles/"))
    report = swapped(bundled, key, faults.damaged(bundled.kept[key], faults.Damage.FLIP, 500))
    assert [(p.kind, p.where, p.versions) for p in report.problems] == [("bundle", key, ())]
    assert report.counts.versions == 3


def test_what_the_disk_does_not_hand_out_is_damage_and_hides_none(bundled: Stored) -> None:
    storage = faults.FaultyStorage(faults.memory_of(bundled.kept))
    (bundle,) = (k for k in bundled.kept if k.startswith("bundles/"))
    packs = sorted(k for k in bundled.kept if k.startswith("packs/"))
    faults.replace(storage, packs[0], None)
    for unread in ("stemmata.json", log_key(1), log_key(5), log_key(256), log_key(258), bundle):
        storage.unread = {unread}
        report = check(storage)
        assert {p.where for p in report.problems} >= {unread, packs[0]}
        assert report.counts.versions == 3
    # Without its bundle, what stands behind such an entry is not read, and the rest is.
    storage.unread = {log_key(5), bundle}
    assert {p.where for p in check(storage).problems if p.kind in ("log", "bundle")} == storage.unread
    storage.unread = {log_key(1), "stemmata.json", bundle}
    assert {p.where for p in check(storage).problems} == {"stemmata.json"}


def test_i8_a_catalog_is_kept_where_the_disk_does_not_hand_out_the_log(
    stored: Stored, tmp_path: Path
) -> None:
    root = stored.lay_out(tmp_path / "repo")
    with Repository(LocalStorage(root)) as repo:
        file = repo.session.catalog.file
    storage = faults.FaultyStorage(LocalStorage(root))
    storage.unread = {max(k for k in stored.kept if k.startswith("log/"))}
    assert {p.where for p in check(storage).problems} >= storage.unread
    assert file is not None
    assert file.exists()


def test_i9_a_newer_format_is_refused_not_called_damage(stored: Stored) -> None:
    fields = {"magic": "stemmata", "format": 2, "repository": "0" * 32, "created": TIME}
    with pytest.raises(NewerFormat):
        swapped(stored, "stemmata.json", seal(json.dumps(fields).encode()))


def test_no_repository_is_no_damage() -> None:
    with pytest.raises(RepositoryNotFound):
        check(MemoryStorage())


def test_a_void_entry_is_noted(stored: Stored) -> None:
    storage = faults.memory_of(stored.kept)
    last = max(k for k in stored.kept if k.startswith("log/"))
    n = int(last[4:24])
    op = {"op": "ref.delete", "model": "toy", "kind": "alias", "name": "nope", "expect": "0" * 64}
    prev = Digest.of(stored.kept[last]).hex
    entry = {"n": n + 1, "format": 1, "txn": "0" * 32, "prev": prev, "at": TIME, "by": "x", "ops": [op]}
    storage.put_new(log_key(n + 1), seal(json.dumps(entry).encode()))
    report = check(storage)
    assert report.sound
    assert [(note.kind, note.where) for note in report.notes] == [("void", log_key(n + 1))]


def test_strangers_and_leftovers_are_notes(stored: Stored, tmp_path: Path) -> None:
    root = stored.lay_out(tmp_path / "repo")
    orphan = PackName.fresh().key
    (root / orphan).parent.mkdir(exist_ok=True)
    (root / orphan).write_bytes(b"half a pack")
    (root / "packs" / "notes.txt").write_text("mine")
    (root / "tmp").mkdir()
    (root / "tmp" / "0123").write_bytes(b"half")
    (root / "probes").mkdir()
    (root / "probes" / ("0" * 32)).write_bytes(b"")
    report = check(LocalStorage(root))
    assert report.sound
    assert {(note.kind, note.where) for note in report.notes} == {
        ("orphan", orphan),
        ("unknown", "packs/notes.txt"),
        ("leftover", "tmp/0123"),
        ("leftover", f"probes/{'0' * 32}"),
    }
    with Repository(LocalStorage(root)) as repo:
        repo.gc()
    assert not list((root / "probes").iterdir())


@pytest.mark.parametrize(
    "lie",
    [
        "UPDATE pointers SET target = (SELECT id FROM versions WHERE seq = 3) WHERE key = 'staging'",
        "DELETE FROM versions WHERE seq = 2",
        "UPDATE facts SET num = 0 WHERE key = (SELECT id FROM keys WHERE key = 'loss')",
        "INSERT INTO voids VALUES (3, 'so they say')",
        "UPDATE keys SET filled = 0",
        "UPDATE records SET data = x'28'",
        "UPDATE records SET first = -first",
    ],
)
def test_i8_a_falsified_catalog_is_noted_and_thrown_away(stored: Stored, tmp_path: Path, lie: str) -> None:
    root = stored.lay_out(tmp_path / "repo")
    with Repository(LocalStorage(root)) as repo:
        file = repo.session.catalog.file
    assert file is not None
    with sqlite3.connect(file) as connection:
        connection.execute(lie)
    connection.close()
    report = check(LocalStorage(root))
    assert report.sound
    assert [(note.kind, note.where) for note in report.notes] == [("catalog", str(file))]
    assert not file.exists()
    with Repository(LocalStorage(root)) as repo:
        assert {name: repo[name].id.hex for name in stored.names} == stored.names


def test_i8_a_stale_catalog_is_brought_up_to_date_and_left(stored: Stored, tmp_path: Path) -> None:
    early = {k: v for k, v in stored.kept.items() if not k.startswith("log/") or int(k[4:24]) <= 3}
    root = Stored(early, {}, {}).lay_out(tmp_path / "repo")
    with Repository(LocalStorage(root)) as repo:
        file = repo.session.catalog.file
    stored.lay_out(root)
    report = check(LocalStorage(root))
    assert report.sound
    assert report.notes == []
    assert file is not None
    assert file.exists()


def test_a_check_writes_nothing_into_the_store(stored: Stored, tmp_path: Path) -> None:
    root = stored.lay_out(tmp_path / "repo")
    check(LocalStorage(root))
    found = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    assert found == stored.kept


@pytest.mark.parametrize("level", LEVELS)
def test_progress_runs_to_its_end(stored: Stored, level: Level) -> None:
    seen: list[tuple[int, int]] = []
    check(faults.memory_of(stored.kept), level=level, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    totals = {total for _, total in seen}
    assert len(totals) == 1
    assert 0.9 * max(totals) <= seen[-1][0] <= max(totals)


def test_deleted_versions_are_checked_as_long_as_they_can_be_restored(stored: Stored) -> None:
    with Repository(faults.memory_of(stored.kept)) as repo:
        base = repo["base@one"].id.hex
        repo.session.commit(lambda catalog: [VersionDelete(version=base)])
        kept = faults.contents(repo.session.storage)
    report = check(faults.memory_of(kept))
    assert report.sound
    assert report.counts.versions == 3
    key = pack_holding(stored, base)
    del kept[key]
    assert [a.id for a in check(faults.memory_of(kept)).affected] == [base]


def test_objects_that_annotations_attach_are_checked_too(stored: Stored) -> None:
    with Repository(faults.memory_of(stored.kept)) as repo:
        session = repo.session
        version = repo["base@one"].id
        writer = ObjectWriter(session.storage, lambda digest: [], session.reader)
        outputs = writer.put(b"what the model answered", "bytes").hex
        packs = writer.finish()
        op = VersionAnnotate(version=version.hex, objects={"outputs": outputs}, packs=[packs[0].name.hex])
        session.commit(lambda catalog: [op], new_packs=packs)
        kept = faults.contents(session.storage)
    assert check(faults.memory_of(kept)).sound
    key = packs[0].name.key
    kept[key] = faults.damaged(kept[key], faults.Damage.FLIP, len(kept[key]) - 136) or b""
    problems = check(faults.memory_of(kept)).problems
    assert {(p.kind, p.where) for p in problems} >= {
        ("pack", key),
        ("provenance", f"outputs of {version.short}"),
    }
    assert {v for p in problems for v in p.versions} == {version.hex}


@pytest.mark.parametrize("level", LEVELS)
def test_what_a_collection_moves_meanwhile_is_looked_for_where_it_is_now(
    tmp_path: Path, level: Level
) -> None:
    """A check of a large repository outlasts the time that packs are left for readers."""
    with Repository.in_memory() as repo:
        for seed in range(3):
            repo.save(model_folder(tmp_path / "out", seed), "m", provenance={})
        other, moved = Repository(repo.session.storage), list[int]()

        def collect(done: int, _total: int) -> None:
            if not moved:
                moved.append(done)
                other.repack()
                other.gc(undo_window=0, grace=0)

        before = {pack for version in repo.versions("m") for pack in repo.session.packs(version._row)}
        report = repo.check(level=level, progress=collect)
        after = {pack for version in other.versions("m") for pack in other.session.packs(version._row)}
        assert moved
        assert before != after
        assert report.problems == report.affected == []
        assert repo.check(level=level).problems == []


def test_damage_is_told_beside_a_collection_too(tmp_path: Path) -> None:
    with Repository.in_memory() as repo:
        for seed in range(3):
            repo.save(model_folder(tmp_path / "out", seed), "m", provenance={})
        last = repo.save(model_folder(tmp_path / "out", 9, width=32), "n", provenance={})
        storage = repo.session.storage
        other, moved = Repository(storage), list[int]()

        def collect(done: int, _total: int) -> None:
            if moved:
                return
            moved.append(done)
            other.repack("m")
            other.gc(undo_window=0, grace=0)
            (pack,) = other.session.packs(other.get(last.id)._row)
            data = bytearray(storage.get(pack.key))
            data[len(data) // 2] ^= 1
            storage.delete(pack.key)
            storage.put_new(pack.key, bytes(data))

        report = repo.check(progress=collect)
        assert moved
        assert {version for problem in report.problems for version in problem.versions} == {last.id.hex}
        assert [affected.name for affected in report.affected] == [last.name]
