"""A collection beside writers, readers and other collections (I6, I7)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from faults import FaultyStorage
from shop import Epochs, delete, planted, require_sound, stored_text
from stemmata.collecting import merging
from stemmata.collecting.picture import live_packs
from stemmata.errors import MissingPack
from stemmata.ids import Digest, PackName
from stemmata.log import ops
from stemmata.log.identity import create_identity
from stemmata.objects import ObjectWriter
from stemmata.repository import Repository
from stemmata.session import Session
from stemmata.storage.memory import MemoryStorage


class Shared:
    """One store, seen by a repository whose every write another one may come before."""

    def __init__(self) -> None:
        inner = MemoryStorage()
        create_identity(inner)
        self.faulty = FaultyStorage(inner)
        self.here, self.other = Repository(self.faulty), Repository(inner)

    def before(self, write: str, action) -> list[str]:  # type: ignore[no-untyped-def]
        """Let `action` run once, just before a write whose name begins so."""
        happened: list[str] = []

        def act(name: str) -> None:
            if not happened and name.startswith(write):
                happened.append(name)
                action()

        self.faulty.before_write = act
        return happened


def test_a_save_that_leans_on_what_is_retired_meanwhile_stores_it_anew(epochs: Epochs) -> None:
    shared = Shared()
    first = epochs.save(shared.other, 0)
    delete(shared.other, first)

    happened = shared.before("put_new log/", lambda: shared.other.gc(undo_window=0, grace=0))
    again = shared.here.save(epochs.folder(0), "m", name="again", provenance={})
    assert happened
    for path in ("model.safetensors", "config.json"):
        assert shared.other[f"id:{again.id}"].read(path) == (epochs.folder(0) / path).read_bytes()
    require_sound(shared.faulty.inner)


def test_a_collection_that_would_retire_what_a_save_has_just_named_leaves_it(epochs: Epochs) -> None:
    shared = Shared()
    first = epochs.save(shared.other, 0)
    delete(shared.other, first)

    happened = shared.before(
        "put_new log/", lambda: shared.other.save(epochs.folder(0), "m", name="again", provenance={})
    )
    found = shared.here.gc(undo_window=0, grace=0)
    assert happened
    assert len(found.forgotten) == 1
    assert shared.here["m@again"].read("config.json") == (epochs.folder(0) / "config.json").read_bytes()
    require_sound(shared.faulty.inner)
    shared.here.gc(undo_window=0, grace=0)
    assert planted("provenance", 0).encode() not in stored_text(shared.faulty.inner)
    require_sound(shared.faulty.inner)


def test_a_version_that_is_restored_while_it_is_being_forgotten_stays_whole(epochs: Epochs) -> None:
    shared = Shared()
    versions = epochs.history(shared.other, 3)
    delete(shared.other, versions[0])

    def restore() -> None:
        shared.other.session.commit(lambda _: [ops.VersionRestore(version=versions[0].id.hex)])

    happened = shared.before("put_new log/", restore)
    found = shared.here.gc(undo_window=0, grace=0)
    assert happened
    assert not found.forgotten
    for k in range(3):
        epochs.require(shared.here, k)
    require_sound(shared.faulty.inner)


def test_an_object_that_is_attached_meanwhile_stays_though_its_pack_was_the_versions(epochs: Epochs) -> None:
    shared = Shared()
    kept, gone = epochs.history(shared.other, 2)
    merging.merge(shared.other.session, live_packs(shared.other.session.catalog))
    shared.other.gc(grace=0)
    delete(shared.other, gone)
    said = planted("provenance", 1).encode()
    held = Digest.of(said)
    (pack,) = live_packs(shared.other.session.catalog)

    def attach() -> None:
        op = ops.VersionAnnotate(version=kept.id.hex, objects={"outputs": held.hex}, packs=[pack.name.hex])
        shared.other.session.commit(lambda _: [op])

    happened = shared.before("put_new log/", attach)
    shared.here.gc(undo_window=0, grace=0)
    assert happened
    require_sound(shared.faulty.inner)
    shared.here.gc(undo_window=0, grace=0)
    assert said in stored_text(shared.faulty.inner)
    epochs.require(shared.here, 0)
    require_sound(shared.faulty.inner)


def test_the_packs_of_a_sleeping_uploader_are_void_and_it_uploads_again(epochs: Epochs) -> None:
    shared = Shared()
    epochs.save(shared.other, 0)
    happened = shared.before("put_new log/", lambda: shared.other.gc(grace=0))
    epochs.save(shared.here, 1)
    assert happened
    states = dict(shared.here.session.catalog.connection.execute("SELECT name, state FROM packs").fetchall())
    assert "dropped" in states.values()
    epochs.require(shared.other, 1)
    require_sound(shared.faulty.inner)


@pytest.mark.parametrize("write", ["start_new packs/", "put_new log/", "delete packs/"])
def test_two_collections_at_once(epochs: Epochs, write: str) -> None:
    shared = Shared()
    versions = epochs.history(shared.other, 6)
    delete(shared.other, *versions[:3])
    happened = shared.before(write, lambda: shared.other.gc(undo_window=0, grace=0))
    shared.here.gc(undo_window=0, grace=0)
    assert happened
    shared.here.gc(undo_window=0, grace=0)
    stored = stored_text(shared.faulty.inner)
    for k in range(6):
        assert (planted("provenance", k).encode() in stored) == (k > 2)
    for k in (3, 4, 5):
        epochs.require(shared.here, k)
    require_sound(shared.faulty.inner)
    known = shared.here.session.catalog.connection.execute(
        "SELECT lower(hex(name)) FROM packs WHERE state = 'live'"
    )
    assert {f"packs/{n[:2]}/{n}.pack" for (n,) in known.fetchall()} == {
        key.key for key in shared.faulty.list("packs/")
    }


def test_a_repack_makes_no_circle_of_deltas() -> None:
    """A copy of a leans on b, and b on another copy of a: whichever is kept, nothing may lean on itself."""
    repo = Repository.in_memory()
    session = repo.session
    rng = np.random.default_rng(1)
    a = rng.normal(size=(64, 64)).astype(np.float32)
    b = a + rng.normal(size=a.shape).astype(np.float32) * np.float32(1e-6)
    packs: list[PackName] = []
    first, second = Digest.of(a.tobytes()), Digest.of(b.tobytes())
    for data, near in ((a, []), (b, [(first, packs)]), (a, [(second, packs)])):
        writer = ObjectWriter(session.storage, lambda _: (), session.reader)
        writer.put(data.tobytes(), "F32", [(d, list(p)) for d, p in near])
        (pack,) = writer.finish()
        assert bool(pack.bases) == bool(near)
        session.commit(lambda _: [], new_packs=[pack])
        packs.append(pack.name)
    names = _versions_of(session, [a.tobytes(), b.tobytes()], packs)
    repo.repack()
    repo.gc(grace=0)
    require_sound(session.storage)
    for name, data in zip(names, (a, b), strict=True):
        assert repo[f"m@{name}"].read("x.bin") == data.tobytes()


def _versions_of(session: Session, contents: list[bytes], packs: list[PackName]) -> list[str]:
    """A version for each, of one file; that of a reads the copy that leans on b."""
    import msgspec

    from ledger import record
    from stemmata.trees import Segment, Tree, TreeFile, content_of, encode_tree

    made = []
    for i, data in enumerate(contents):
        digest = Digest.of(data).hex
        segment = Segment(len(data), [digest], "w", "F32", [64, 64])
        tree = Tree([TreeFile("x.bin", len(data), digest, [segment], container="safetensors")])
        writer = ObjectWriter(session.storage, lambda _: (), session.reader)
        listed = writer.put(encode_tree(tree), "bytes").hex
        new = writer.finish()
        made.append(f"v{i}")
        named = [packs[2] if i == 0 else packs[1], new[0].name]
        add = ops.VersionAdd(
            model="m",
            name=made[-1],
            record=msgspec.Raw(record(i, content=content_of(tree))),
            tree=[listed],
            packs=[p.hex for p in named],
        )
        session.commit(lambda _, add=add: [add], new_packs=new)  # type: ignore[misc]
    return made


def test_a_reader_in_the_middle_of_a_checkout_goes_on(epochs: Epochs, tmp_path: Path) -> None:
    """Also where the bytes it had looked up are deleted at once."""
    shared = Shared()
    versions = epochs.history(shared.other, 4)
    version = shared.here[f"id:{versions[3].id}"]
    read = shared.here.session.object_reader(shared.here.session.row(version.id))
    objects = [o for f in version.tree().files for s in f.segments for o in s.objects]
    held = bytes(read(objects[0]))
    delete(shared.other, *versions[:3])
    shared.other.gc(undo_window=0, grace=0)
    rest = [bytes(read(digest)) for digest in objects]
    assert rest[0] == held
    assert all(Digest.of(data).hex == digest for data, digest in zip(rest, objects, strict=True))
    shared.other.repack()
    shared.other.gc(grace=0)
    assert [bytes(read(digest)) for digest in objects] == rest
    version.checkout(tmp_path / "out")
    epochs.require(shared.here, 3)


def test_a_reader_within_the_grace_needs_no_new_look(epochs: Epochs) -> None:
    shared = Shared()
    versions = epochs.history(shared.other, 3)
    row = shared.here.session.row(versions[2].id) if shared.here.get(versions[2].id) else None
    assert row is not None
    packs = shared.here.session.packs(row)
    delete(shared.other, *versions[:2])
    shared.other.gc(undo_window=0)
    wanted = Digest.parse(row.tree[0])
    assert shared.here.session.reader.read(wanted, packs)
    shared.other.gc(undo_window=0, grace=0)
    with pytest.raises(MissingPack):
        Session(shared.faulty, author="x").reader.read(wanted, packs)
