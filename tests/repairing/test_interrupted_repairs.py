"""A repair that is cut off, fails or is not alone leaves nothing worse, and the next one ends it (I5, I6)."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from faults import Fault, FaultyStorage, contents, run_into
from shop import Epochs, planted
from spoiled import pack_of, readable, require_all, spoil
from stemmata.errors import Damage
from stemmata.ids import Digest
from stemmata.log import ops
from stemmata.repository import Repository
from stemmata.storage.base import Storage
from stemmata.storage.memory import MemoryStorage

COUNT = 4
Stores = Callable[[], MemoryStorage]
# Dead after one write is dead before the next. Every other way to fail: scripts/test-slow.
FAULTS = tuple(Fault) if os.environ.get("STEMMATA_TEST_LARGE") else (Fault.CRASH_AFTER,)


def spoiled(store: Stores) -> MemoryStorage:
    storage = store()
    spoil(storage, pack_of(storage, 1), "frame")
    return storage


def repair(epochs: Epochs, storage: Storage) -> None:
    with Repository(storage) as repo:
        assert repo.repair(epochs.folder(1), level="stored").sound


def test_killed_or_failing_at_every_write(epochs: Epochs, store: Stores) -> None:
    whole = FaultyStorage(spoiled(store))
    repair(epochs, whole)
    assert not any(name.startswith("delete packs/") for name in whole.log)
    least = readable(epochs, spoiled(store))
    assert least
    for at in range(whole.writes):
        for fault in FAULTS:
            inner = spoiled(store)
            faulty = FaultyStorage(inner, at, fault)
            run_into(fault, lambda f=faulty: repair(epochs, f))  # type: ignore[misc]
            assert faulty.fired, whole.log[at]
            assert readable(epochs, inner) >= least
            repair(epochs, inner)
            require_all(epochs, inner)


class Beside:
    """A repository in which, once, just before a write whose name begins so, somebody else acts."""

    def __init__(self, inner: Storage, write: str, action: Callable[[Repository], object]) -> None:
        self.happened = False
        self.storage = FaultyStorage(inner)
        self._other, self._write, self._action = Repository(inner), write, action
        self.storage.before_write = self._before

    def _before(self, name: str) -> None:
        if not self.happened and name.startswith(self._write):
            self.happened = True
            self._action(self._other)


@pytest.mark.parametrize("write", ["start_new packs/", "put_new log/"])
def test_a_save_beside_it_that_builds_on_what_is_damaged(epochs: Epochs, store: Stores, write: str) -> None:
    inner = spoiled(store)
    beside = Beside(inner, write, lambda other: epochs.save(other, COUNT, other["m@e3"]))
    repair(epochs, beside.storage)
    assert beside.happened
    require_all(epochs, inner, COUNT + 1)


def test_what_is_attached_beside_it_stays(epochs: Epochs, store: Stores) -> None:
    inner = spoiled(store)
    held, pack = Digest.of(planted("provenance", 1).encode()), pack_of(inner, 1)

    def attach(other: Repository) -> None:
        """Something that lies in the pack that is about to go."""
        op = ops.VersionAnnotate(version=other["m@e2"].id.hex, objects={"out": held.hex}, packs=[pack.hex])
        other.session.commit(lambda _: [op])

    beside = Beside(inner, "put_new log/", attach)
    repair(epochs, beside.storage)
    assert beside.happened
    require_all(epochs, inner)
    with Repository(inner) as repo:
        assert repo["m@e2"].provenance("out") == planted("provenance", 1).encode()


def test_two_repairs_at_once(epochs: Epochs, store: Stores) -> None:
    inner = spoiled(store)
    beside = Beside(inner, "put_new log/", lambda other: other.repair(epochs.folder(1)))
    repair(epochs, beside.storage)
    assert beside.happened
    require_all(epochs, inner)


def test_a_collection_beside_it(epochs: Epochs, store: Stores) -> None:
    """It finds damage in what is needed and stops, or takes what is not needed."""
    inner = spoiled(store)

    def collect(other: Repository) -> None:
        try:
            other.gc(grace=0, undo_window=0)
        except Damage:
            pass

    beside = Beside(inner, "put_new log/", collect)
    repair(epochs, beside.storage)
    assert beside.happened
    repair(epochs, inner)  # the new packs may have been taken for leftovers
    require_all(epochs, inner)
    with Repository(inner) as repo:
        repo.gc(grace=0, undo_window=0)
    require_all(epochs, inner)


def test_a_source_that_changes_meanwhile_is_not_taken(
    epochs: Epochs, store: Stores, tmp_path_factory: pytest.TempPathFactory
) -> None:
    inner = spoiled(store)
    folder = tmp_path_factory.mktemp("moving")
    good = (epochs.folder(1) / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(good)
    before = contents(inner)
    faulty = FaultyStorage(inner)
    faulty.before_write = lambda name: (folder / "model.safetensors").write_bytes(bytes(len(good)))
    with Repository(faulty) as repo:
        found = repo.repair(folder)
    assert faulty.log
    assert found.lost
    assert contents(inner) == before
