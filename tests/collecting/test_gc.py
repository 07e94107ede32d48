"""A collection frees what no version needs, and nothing else (I7)."""

from __future__ import annotations

import pytest

from ledger import txn
from shop import Epochs, delete, packs_bytes, planted, require_sound, stored_text
from stemmata.catalog import queries
from stemmata.collecting import dropping
from stemmata.errors import StorageFull, VersionNotFound
from stemmata.log import ops
from stemmata.repository import Repository

DAY = 86400.0


def test_what_is_left_takes_hardly_more_than_if_it_alone_had_been_saved(epochs: Epochs) -> None:
    repo, alone = Repository.in_memory(), Repository.in_memory()
    versions = epochs.history(repo, 15)
    kept = [4, 9, 14]
    delete(repo, *(v for k, v in enumerate(versions) if k not in kept))
    found = repo.gc(undo_window=0, grace=0)
    last = None
    for k in kept:
        last = epochs.save(alone, k, last)
    storage = repo.session.storage
    assert packs_bytes(storage) <= 1.1 * packs_bytes(alone.session.storage)
    assert len(found.forgotten) == 12
    assert found.deleted > 0
    for k in kept:
        epochs.require(repo, k)
    require_sound(storage)
    again = repo.gc(undo_window=0, grace=0)
    assert (again.packs_retired, again.packs_added, again.deleted) == (0, 0, 0)


def test_every_text_of_what_was_forgotten_is_gone(epochs: Epochs) -> None:
    repo = Repository.in_memory()
    versions = epochs.history(repo, 5)
    delete(repo, versions[1], versions[3])
    repo.gc(undo_window=0, grace=0)
    stored = stored_text(repo.session.storage)
    for k in range(5):
        for what in ("file", "provenance"):
            assert (planted(what, k).encode() in stored) == (k not in (1, 3)), (what, k)
    require_sound(repo.session.storage)


def test_a_dry_run_tells_the_same_and_writes_nothing(epochs: Epochs) -> None:
    repo = Repository.in_memory()
    versions = epochs.history(repo, 4)
    delete(repo, *versions[:3])
    before = [key.key for key in repo.session.storage.list("")]
    told = repo.gc(dry_run=True, undo_window=0, grace=0)
    assert [key.key for key in repo.session.storage.list("")] == before
    done = repo.gc(undo_window=0, grace=0)
    assert told.dry
    assert not done.dry
    assert (
        [f.id for f in told.forgotten] == [f.id for f in done.forgotten] == [v.id.hex for v in versions[:3]]
    )
    assert told.packs_retired == done.packs_retired


def test_a_deleted_version_stays_restorable_until_its_window_is_over(epochs: Epochs) -> None:
    repo = Repository.in_memory()
    first, _ = epochs.history(repo, 2)
    delete(repo, first)
    now = max(key.modified for key in repo.session.storage.list("log/"))
    assert not repo.gc(now=now + 13.9 * DAY, grace=0).forgotten
    repo.session.commit(lambda _: [ops.VersionRestore(version=first.id.hex)])
    epochs.require(repo, 0)
    delete(repo, first)
    assert repo.gc(now=now + 14.1 * DAY, grace=0).forgotten
    with pytest.raises(VersionNotFound):
        repo.get(first.id)
    row = queries.version_by_id(repo.session.catalog.connection, first.id)
    assert row is not None
    assert row.state == "forgotten"


def test_each_model_has_its_own_window(epochs: Epochs) -> None:
    repo = Repository.in_memory()
    first, _ = epochs.history(repo, 2)
    repo.session.commit(lambda _: [ops.ModelConfigure(model="m", settings={"undo_window": 3600})])
    delete(repo, first)
    now = max(key.modified for key in repo.session.storage.list("log/"))
    assert not repo.gc(now=now + 3500, grace=0).forgotten
    assert repo.gc(now=now + 3700, grace=0).forgotten


def test_what_is_redacted_is_erased_unless_another_version_still_shows_it(epochs: Epochs) -> None:
    repo = Repository.in_memory()
    first, second = epochs.history(repo, 2)
    for item in ("environment", "python"):
        repo.session.commit(lambda _, i=item: [ops.VersionRedact(version=first.id.hex, items=[i])])  # type: ignore[misc]
    repo.gc(grace=0)
    stored = stored_text(repo.session.storage)
    assert planted("provenance", 0).encode() not in stored
    assert planted("provenance", 1).encode() in stored
    assert b'{"same": "in all"}' in stored
    for k in (0, 1):
        epochs.require(repo, k)
    require_sound(repo.session.storage)
    repo.session.commit(lambda _: [ops.VersionRedact(version=second.id.hex, items=["python"])])
    repo.gc(grace=0)
    assert b'{"same": "in all"}' not in stored_text(repo.session.storage)


def test_bytes_of_a_retired_pack_stay_for_readers_until_the_grace_is_over(epochs: Epochs) -> None:
    repo = Repository.in_memory()
    versions = epochs.history(repo, 3)
    delete(repo, *versions[:2])
    before = packs_bytes(repo.session.storage)
    first = repo.gc(undo_window=0)
    assert first.deleted == 0
    assert first.waiting > 0
    assert packs_bytes(repo.session.storage) > before
    now = max(key.modified for key in repo.session.storage.list("log/"))
    assert repo.gc(undo_window=0, now=now + 3500).deleted == 0
    assert repo.gc(undo_window=0, now=now + 3700).deleted == first.waiting
    epochs.require(repo, 2)


def test_orphans_are_retired_and_dropped_after_the_writers_grace(epochs: Epochs) -> None:
    repo = Repository.in_memory()
    epochs.history(repo, 1)
    storage = repo.session.storage
    orphan = f"packs/ab/ab{txn(1)[:30]}.pack"
    storage.put_new(orphan, b"left behind")
    now = max(key.modified for key in storage.list(""))
    assert repo.gc(now=now + 23 * 3600).orphans == 0
    assert repo.gc(now=now + 25 * 3600).orphans == 1
    later = max(key.modified for key in storage.list("log/"))
    assert orphan in {key.key for key in storage.list("packs/")}
    assert repo.gc(now=later + 2 * 3600).deleted == len(b"left behind")
    assert orphan not in {key.key for key in storage.list("packs/")}


def test_repack_puts_everything_together_and_never_grows(epochs: Epochs) -> None:
    repo = Repository.in_memory()
    epochs.history(repo, 8)
    before = packs_bytes(repo.session.storage)
    done = repo.repack()
    assert (done.packs_retired, done.packs_added) == (8, 1)
    repo.gc(grace=0)
    assert packs_bytes(repo.session.storage) <= before
    for k in range(8):
        epochs.require(repo, k)
    require_sound(repo.session.storage)
    assert repo.repack().packs_retired == 0


def test_on_a_full_disk_first_goes_what_needs_no_new_byte(
    epochs: Epochs, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = Repository.in_memory()
    versions = epochs.history(repo, 3)
    delete(repo, *versions[:2])
    with monkeypatch.context() as killed:
        killed.setattr(dropping, "_delete", lambda *_: 0)  # after the log has dropped them
        repo.gc(undo_window=0, grace=0)
    storage, deleted = repo.session.storage, list[str]()
    before, remove = packs_bytes(storage), storage.delete

    def full() -> None:
        if not deleted:
            raise StorageFull(where=storage.where)

    def noted(key: str) -> None:
        deleted.append(key)
        remove(key)

    monkeypatch.setattr(storage, "require_writable", full)
    monkeypatch.setattr(storage, "delete", noted)
    repo.gc(undo_window=0, grace=0)
    assert packs_bytes(storage) < before
    epochs.require(repo, 2)
    deleted.clear()
    with pytest.raises(StorageFull):
        repo.gc()
    assert not deleted
