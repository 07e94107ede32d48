"""What is damaged in packs is mended from wherever it still is, and nothing else changes (I3, I4, I7)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from chained import written
from faults import Damage, contents, damage
from makers import model_folder
from shop import Epochs, delete, require_sound
from spoiled import PLACES, pack_of, require_all, spoil, tensors
from stemmata.checking import check
from stemmata.codecs.dtypes import dtype_of
from stemmata.errors import RepairSourceMissing, StorageReadOnly
from stemmata.ids import Digest
from stemmata.objects import ObjectReader, ObjectWriter
from stemmata.objects.room import Room
from stemmata.packs import PackReader
from stemmata.repairing.sources import OWN
from stemmata.repository import Repository
from stemmata.repository import open as open_repository
from stemmata.storage.memory import MemoryStorage

COUNT = 4
FRAME_CHECK = 24 + 16
"""Where the checksum of the first frame begins in an object that leans on none."""
Stores = Callable[[], MemoryStorage]


def test_the_history_has_two_generations_of_differences(store: Stores) -> None:
    """Else what follows would show less than it says."""
    storage = store()
    last = pack_of(storage, COUNT - 1)
    with ObjectReader(storage).opened(tensors(storage, last)[0], [last], Room()) as (where, decoder):
        assert len(decoder.lineage(where)) >= 3


# --- where it comes from ----------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, COUNT - 1])
def test_a_damaged_tensor_comes_from_the_folder_that_was_saved(epochs: Epochs, store: Stores, k: int) -> None:
    storage = store()
    spoil(storage, pack_of(storage, k), "frame")
    with Repository(storage) as repo:
        found = repo.repair(epochs.folder(k))
        assert found.sound, found
        assert [(r.source, r.objects) for r in found.restored] == [(str(epochs.folder(k)), 1)]
        assert len(found.whole) == COUNT - k  # the later ones lean on it
        again = repo.repair(epochs.folder(k))
    assert again.sound
    assert (again.damaged, again.packs_added, again.packs_retired) == ([], 0, 0)
    require_all(epochs, storage)


@pytest.mark.parametrize("where", PLACES)
def test_a_damaged_base_of_two_generations_comes_from_another_repository(
    epochs: Epochs, store: Stores, laid_out: Path, where: str
) -> None:
    storage = store()
    spoil(storage, pack_of(storage, 0), where)
    with Repository(storage) as repo:
        found = repo.repair(laid_out)
    assert found.sound, found
    restored = {each.source: each.objects for each in found.restored}
    lost = where in ("index", "footer", "cut", "gone")
    # Text, its list of files, two tensors and their statistics are 9; what leans on them moves as it is.
    assert restored == ({str(laid_out): 9} if lost else {str(laid_out): 1} if where != "begin" else {})
    require_all(epochs, storage)


def test_what_leans_on_a_mended_base_is_moved_as_it_is(epochs: Epochs, store: Stores) -> None:
    storage = store()
    spoil(storage, pack_of(storage, 0), "gone")
    before = sum(storage.size(pack_of(storage, k).key) for k in range(1, COUNT))
    with Repository(storage) as repo:
        repo.repair([epochs.folder(0)])
        added = repo.session.catalog.connection.execute("SELECT SUM(size) FROM packs WHERE state = 'live'")
        # Of the first save's text alone no folder has everything: its pack is named still.
        assert int(added.fetchone()[0]) < before + 2 * 2 * 48 * 48 * 4 + 20_000


@pytest.mark.parametrize("leaning", [False, True])
def test_a_second_copy_in_the_repository_is_found(epochs: Epochs, store: Stores, leaning: bool) -> None:
    storage = store()
    k = 1
    pack = pack_of(storage, k)
    with Repository(storage) as repo:
        session = repo.session
        writer = ObjectWriter(storage, lambda _: (), session.reader)
        first = pack_of(storage, 0)
        near = (
            [[(digest, [first])] for digest in tensors(storage, first)]
            if leaning
            else [[] for _ in tensors(storage, pack)]
        )
        for digest, candidates in zip(tensors(storage, pack), near, strict=True):
            writer.put(session.reader.read(digest, [pack]), dtype_of("F32"), candidates)
        (second,) = writer.finish()
        assert bool(second.bases) == leaning
        session.commit(lambda _: [], new_packs=[second])
        spoil(storage, pack, "frame")
        found = repo.repair()
    assert found.sound, found
    assert [(each.source, each.objects) for each in found.restored] == [(OWN, 1)]
    require_all(epochs, storage)


def test_a_missing_pack_comes_from_a_cached_checkout(tmp_path: Path, epochs: Epochs) -> None:
    with open_repository(tmp_path / "repo", create=True) as repo:
        for k in range(2):
            version = repo.save(epochs.folder(k), "m", name=f"e{k}", provenance={})
        version.path()
        storage = repo.session.storage
        gone = pack_of(storage, 1)
        spoil(storage, gone, "gone")
        found = repo.repair()
        assert found.sound, found
        assert [each.source for each in found.restored] == [f"the cached checkout of {version.id.short}"]
        for k in range(2):
            epochs.require(repo, k)
        assert repo.check().sound


def test_a_missing_pack_comes_from_a_folder_and_the_list_of_files_is_made_anew(
    epochs: Epochs,
) -> None:
    """Not the list that was: the record commits to the files, and how they are cut may change."""
    with Repository.in_memory() as repo:
        repo.save(epochs.folder(0), "m", name="e0", provenance={})
        repo.save(epochs.folder(1) / "config.json", "m", name="one-file", provenance={})
        storage = repo.session.storage
        for k in range(2):
            spoil(storage, pack_of(storage, k), "gone")
        found = repo.repair([epochs.folder(0).parent])
        assert found.sound, found
        epochs.require(repo, 0)
        assert repo["m@one-file"].read("config.json") == (epochs.folder(1) / "config.json").read_bytes()
        require_sound(storage)


def test_a_file_that_an_older_release_cut_otherwise_is_taken_by_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from stemmata.containers import cut
    from stemmata.containers.chunks import plan_chunks

    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "data.bin").write_bytes(np.random.default_rng(1).bytes(300_000))
    with Repository.in_memory() as repo:
        with monkeypatch.context() as older:
            older.setattr(cut, "plan_content", lambda _, size: plan_chunks(size))
            version = repo.save(tmp_path / "m", "m", name="v")
        assert [len(s.objects) for f in version.files for s in f.segments] == [1]
        storage = repo.session.storage
        reader = PackReader(storage, pack_of(storage, 0))
        (digest,) = [d for d, row in reader.index.rows() if row.raw == 300_000]
        _flip(storage, reader, digest)
        assert repo.repair(tmp_path / "m").sound
        assert repo["m@v"].read("data.bin") == (tmp_path / "m" / "data.bin").read_bytes()
        require_sound(storage)


def _flip(storage: MemoryStorage, reader: PackReader, digest: Digest) -> None:
    row = reader.index.find(digest)
    assert row is not None
    damage(storage, reader.name.key, Damage.FLIP, row.offset + row.stored // 2)


# --- what cannot be mended --------------------------------------------------------------------------


@pytest.mark.parametrize("where", PLACES)
def test_without_a_source_nothing_changes_and_what_is_lost_has_a_name(store: Stores, where: str) -> None:
    storage = store()
    spoil(storage, pack_of(storage, 1), where)
    before = contents(storage)
    with Repository(storage) as repo:
        found = repo.repair()
    if where == "begin":  # nothing of it is needed
        assert found.sound
        return
    assert not found.sound
    assert contents(storage) == before
    assert (found.packs_added, found.packs_retired, found.versions_placed) == (0, 0, 0)
    assert {each.version_name for each in found.lost} >= {"e1"}
    if where in ("frame", "header"):
        lost = [(each.version_name, each.what, each.name, each.tensor) for each in found.lost]
        assert ("e1", "file", "model.safetensors", "l0.weight") in lost
        assert all(each.size and each.digest for each in found.lost)
    else:
        assert ("tree", "the list of its files") in {(each.what, each.name) for each in found.lost}


def test_half_of_it_is_mended_and_the_rest_stays(epochs: Epochs, store: Stores) -> None:
    storage = store()
    packs = [pack_of(storage, k) for k in range(COUNT)]
    digests = tensors(storage, packs[0])
    spoil(storage, packs[3], "frame")
    _flip(storage, PackReader(storage, packs[0]), digests[1])
    half = epochs.folder(3) / "model.safetensors"
    with Repository(storage) as repo:
        found = repo.repair(half)
        assert {each.source for each in found.restored} == {str(half)}
        assert not found.sound
        assert {(each.name, each.tensor) for each in found.lost} == {("model.safetensors", "l1.weight")}
        assert not any(packs[3].key in left for left in found.left)
        again = repo.repair(half)
        assert (again.packs_added, again.packs_retired, again.versions_placed) == (0, 0, 0)
        assert again.lost == found.lost
        for k in range(COUNT):
            assert repo[f"m@e{k}"].read("config.json") == (epochs.folder(k) / "config.json").read_bytes()
        # What was lost is found later.
        assert repo.repair(epochs.folder(0)).sound
    require_all(epochs, storage)


def test_what_decodes_from_damaged_bytes_is_stored_anew_beside_what_is_lost(tmp_path: Path) -> None:
    """Of a tensor whose checksum alone was hit nothing is lost: it is not called damaged ever after."""
    rng = np.random.default_rng(5)
    shared, first, second = (rng.normal(size=(64, 64)).astype("<f4") for _ in range(3))
    with Repository.in_memory() as repo:
        storage = repo.session.storage
        written(tmp_path / "out", {"shared": shared, "own": first})
        repo.save(tmp_path / "out", "m", name="one", provenance={})
        data = written(tmp_path / "out", {"shared": shared, "own": second})
        repo.save(tmp_path / "out", "m", name="two", parents=["m@one"], provenance={})
    pack = PackReader(storage, pack_of(storage, 0))
    row = pack.index.find(Digest.of(shared.tobytes()))
    assert row is not None
    damage(storage, pack.name.key, Damage.FLIP, row.offset + FRAME_CHECK)
    assert isinstance(storage, MemoryStorage)
    _flip(storage, pack, Digest.of(first.tobytes()))
    assert {v.name for v in check(storage).affected} == {"one", "two"}
    with Repository(storage) as repo:
        found = repo.repair()
        assert {lost.version_name for lost in found.lost} == {"one"}
        assert [(r.source, r.objects) for r in found.restored] == [(OWN, 1)]
        assert {v.name for v in check(storage).affected} == {"one"}
        assert repo["m@two"].read("model.safetensors") == data
        assert repo.repair().packs_added == 0


def test_a_source_that_lies_is_not_believed(tmp_path: Path, epochs: Epochs, store: Stores) -> None:
    storage = store()
    spoil(storage, pack_of(storage, 0), "frame")
    bad = bytearray((epochs.folder(0) / "model.safetensors").read_bytes())
    bad[len(bad) // 4] ^= 1  # in the tensor that was damaged
    (tmp_path / "model.safetensors").write_bytes(bad)
    (tmp_path / "broken.safetensors").write_bytes(bad[:100])
    begin = contents(storage)
    with Repository(storage) as repo:
        found = repo.repair(tmp_path)
    assert {(each.name, each.tensor) for each in found.lost} == {("model.safetensors", "l0.weight")}
    assert not found.restored
    assert contents(storage) == begin


def test_a_repository_that_is_damaged_in_the_same_place_is_no_source(
    store: Stores, laid_out: Path, epochs: Epochs
) -> None:
    from stemmata.storage.local import LocalStorage

    storage = store()
    first = pack_of(storage, 0)
    spoil(storage, first, "frame")
    spoil(LocalStorage(laid_out), first, "frame")
    before = contents(storage)
    with Repository(storage) as repo:
        found = repo.repair([laid_out])
        assert found.lost
        assert contents(storage) == before
        assert repo.repair([laid_out, epochs.folder(0)]).sound
    require_all(epochs, storage)


# --- its manners ------------------------------------------------------------------------------------


def test_a_dry_run_tells_the_same_and_changes_nothing(epochs: Epochs, store: Stores) -> None:
    storage = store()
    spoil(storage, pack_of(storage, 0), "frame")
    before = contents(storage)
    with Repository(storage) as repo:
        told = repo.repair(epochs.folder(0), dry_run=True)
        assert contents(storage) == before
        assert not told.sound
        found = repo.repair(epochs.folder(0))
    assert (told.restored, told.whole, told.lost) == (found.restored, found.whole, found.lost)


def test_a_read_only_store_is_said_to_be_one(epochs: Epochs, store: Stores) -> None:
    storage = store()

    def refuse() -> None:
        raise StorageReadOnly(where="memory", reason="a planted fault")

    storage.require_writable = refuse  # type: ignore[method-assign]
    with Repository(storage) as repo:
        assert repo.repair().sound
        spoil(storage, pack_of(storage, 0), "frame")
        before = contents(storage)
        with pytest.raises(StorageReadOnly):
            repo.repair(epochs.folder(0))
        assert repo.repair(epochs.folder(0), dry_run=True).restored
    assert contents(storage) == before


def test_a_source_that_is_not_there_is_named_before_anything_is_read(store: Stores, tmp_path: Path) -> None:
    with Repository(store()) as repo, pytest.raises(RepairSourceMissing):
        repo.repair(tmp_path / "nowhere", progress=lambda *_: pytest.fail("it was checked"))


def test_deleted_versions_are_mended_as_well(epochs: Epochs, store: Stores) -> None:
    storage = store()
    with Repository(storage) as repo:
        delete(repo, repo["m@e3"])
        spoil(storage, pack_of(storage, 3), "frame")
        found = repo.repair(epochs.folder(3))
        assert [each.name for each in found.whole] == ["e3"]
        repo.restore("m@e3")
    require_all(epochs, storage)


def test_only_the_packs_that_the_named_versions_need(tmp_path: Path) -> None:
    folders = [model_folder(tmp_path / str(k), k, width=16 + k) for k in range(2)]
    with Repository.in_memory() as repo:
        storage = repo.session.storage
        for k, folder in enumerate(folders):
            repo.save(folder, f"m{k}", name="v", provenance={})
            spoil(storage, pack_of(storage, k), "frame")
        found = repo.repair(tmp_path, versions="m1@v")
        assert [each.model for each in found.whole] == ["m1"]
        assert [pack_of(storage, 0).key in left for left in found.left] == [True]
        assert [each.model for each in repo.check().affected] == ["m0"]
        assert repo.repair(tmp_path).sound
        for k, folder in enumerate(folders):
            assert repo[f"m{k}@v"].read("model.safetensors") == (folder / "model.safetensors").read_bytes()
        require_sound(storage)


def test_what_was_damaged_lies_there_until_a_collection_deletes_it(epochs: Epochs, store: Stores) -> None:
    storage = store()
    pack = pack_of(storage, 0)
    spoil(storage, pack, "frame")
    bad = storage.get(pack.key)
    with Repository(storage) as repo:
        repo.repair(epochs.folder(0))
        assert storage.get(pack.key) == bad
        report = repo.check()
        assert report.sound
        # What leaned on it was retired with it.
        assert pack.key in {note.where for note in report.notes if note.kind == "retired"}
        repo.gc(grace=0)
        assert pack.key not in contents(storage)
    require_all(epochs, storage)
